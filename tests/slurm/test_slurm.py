"""The workflow on a real SLURM: the whole tiny preset, and what clusters do to jobs (`make test-slurm`)."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from pathlib import Path

import pytest

from tests.helpers.checkout import weights
from tests.slurm import cluster
from tests.slurm.submission import UNETS, Submission, finish, jobs, node_of, stop, training

pytestmark = pytest.mark.workflow

OTHER = "results/other/repeat0/folds.csv"


def test_tiny_preset_runs_to_the_end(finished: Submission, tmp_path: Path) -> None:
    assert "</html>" in (finished.run / "report.html").read_text(encoding="utf-8")
    printed = (finished.folder / "printed.txt").read_text()
    lines = [line.split() for line in jobs("%k %P")]
    partitions = {re.sub("^rule_|_wildcards_.*", "", name): partition for name, partition in lines}
    for rule in ("train_ddpm", "sample_ddpm", "train_classifier", "train_judge"):
        assert partitions[rule] == "gpu", partitions
    assert partitions["simulate_cells"] == "cpu", partitions
    for group in ("images", "look", "page"):
        assert any(name.startswith(group) for name in partitions), f"the short stages of {group} share a submission"
    assert "Nothing to be done" in finished.snakemake().stdout
    # An array that Snakemake could not submit as a whole would wait for ever: it says so before the first job.
    refused = finished.snakemake("--jobs", "3", "--forcerun", "train_classifier", check=False)
    assert refused.returncode != 0
    assert "jobs = 3 is less than the 4 jobs of train_classifier" in refused.stdout
    if "Submitted array job" not in printed:
        # On a busy machine classifiers become ready one after the other; asked for again, all are ready at once.
        again = finished.clone(tmp_path / "again")
        printed = again.snakemake("--forcerun", "train_classifier", "--until", "train_classifier").stdout
    assert "Submitted array job" in printed, "the classifiers are an array"


def test_job_over_its_memory_is_tried_again_with_more(finished: Submission) -> None:
    tries = [line.split() for line in jobs("%i %k %m %T") if "rule_train_judge" in line]
    tries = sorted((int(number), memory, state) for number, _, memory, state in tries)
    assert [memory for _, memory, _ in tries] == [f"{300 * attempt}M" for attempt in range(1, len(tries) + 1)], tries
    assert len(tries) > 1
    assert all(state != "COMPLETED" for *_, state in tries[:-1]), tries
    assert tries[-1][2] == "COMPLETED", tries


def test_preempted_job_goes_on_from_its_checkpoint(
    finished: Submission, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    checkout = finished.clone(tmp_path / "clone")
    checkout.without(UNETS[0])
    process = checkout.start(UNETS[0])
    number = stop(checkout, UNETS[0])
    urgent = ["sbatch", "--wait", "--partition=urgent", f"--nodelist={node_of(number)}", f"--gpus={cluster.GPUS}"]
    subprocess.run([*urgent, "--time=1", "--output=/dev/null", "--wrap=sleep 1"], check=True)
    request.getfixturevalue("late")  # from now on nothing is pre-empted
    finish(process)
    assert [line.split() for line in jobs("%i %T %k") if line.startswith(f"{number} ")] == [
        [number, "COMPLETED", "rule_train_ddpm_wildcards_ci_0_0_unet"]
    ], "the same job, started again by SLURM"
    assert "going on from" in checkout.log(UNETS[0])
    assert weights(checkout.folder / UNETS[0]) == weights(finished.folder / UNETS[0])


def test_cancelled_job_leaves_the_rest(
    finished: Submission, late: tuple[Submission, subprocess.Popen], tmp_path: Path
) -> None:
    checkout = finished.clone(tmp_path / "clone")
    checkout.profile(("retries: 2", "retries: 0"))
    checkout.without(*UNETS)
    process = checkout.start(*UNETS)
    subprocess.run(["scancel", stop(checkout, UNETS[0])], check=True)
    printed, _ = process.communicate(timeout=300)
    assert process.returncode != 0
    assert "CANCELLED" in printed, "says what happened"
    assert not (checkout.folder / UNETS[0]).exists()
    assert weights(checkout.folder / UNETS[1]) == weights(finished.folder / UNETS[1])
    checkout.snakemake(*UNETS)
    assert weights(checkout.folder / UNETS[0]) == weights(finished.folder / UNETS[0])
    assert "going on from" in checkout.log(UNETS[0])


def test_killed_snakemake_loses_nothing_and_a_second_one_is_refused(
    finished: Submission, late: tuple[Submission, subprocess.Popen], tmp_path: Path
) -> None:
    checkout = finished.clone(tmp_path / "clone")
    kept = {path: path.stat().st_mtime_ns for path in checkout.run.rglob("*.safetensors")}
    checkout.without(*UNETS)
    process = checkout.start(*UNETS)
    trainer = training(checkout, UNETS[0])
    os.kill(trainer, signal.SIGSTOP)  # else it may be done before the second has read its rules
    second = checkout.snakemake(*UNETS, check=False)
    assert second.returncode != 0
    assert "cannot be locked" in second.stdout, second.stdout[-2000:]
    # A run of another name has files of its own: it goes on beside the first.
    checkout.snakemake(OTHER, "--config", "run=other")
    assert (checkout.folder / OTHER).read_bytes() == (checkout.run / "repeat0/folds.csv").read_bytes()
    assert process.poll() is None
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    os.kill(trainer, signal.SIGCONT)
    # Jobs of the dead one may still run: its successor waits for them or finds them done, and never mixes with them.
    checkout.snakemake("--unlock")
    checkout.snakemake(*UNETS)
    for target in UNETS:
        assert weights(checkout.folder / target) == weights(finished.folder / target)
    again = {str(path.relative_to(checkout.folder)) for path, stamp in kept.items() if path.stat().st_mtime_ns != stamp}
    assert again == set(UNETS)
    assert not list(checkout.run.rglob("*.resume.pt"))


def test_job_past_its_time_goes_on_from_its_checkpoint(
    finished: Submission, late: tuple[Submission, subprocess.Popen]
) -> None:
    checkout, process = late
    printed = finish(process)
    assert "TIMEOUT" in printed, "the first job ran out of time"
    assert "going on from" in checkout.log(UNETS[0])
    assert weights(checkout.folder / UNETS[0]) == weights(finished.folder / UNETS[0])
