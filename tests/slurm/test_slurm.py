"""The workflow on a real SLURM: the whole tiny preset, and what clusters do to jobs. See cluster.py; `make test-slurm`.

Skipped where no cluster can be made; with MIXLOC_SLURM=required in the environment that is a failure."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers.checkout import ROOT, Checkout, processes, wait_for, weights
from tests.slurm import cluster

pytestmark = pytest.mark.workflow

UNETS = ["results/ci/repeat0/fold0/generators/unet.safetensors", "results/ci/repeat0/fold1/generators/unet.safetensors"]
# What a user of this cluster edits, and shorter pauses than where jobs take hours.
EDITS = (
    ("slurm_account: mixloc", "slurm_account: lab"),
    ("slurm_partition: cpu #", "slurm_partition: cpu # edited:"),
    ("slurm_partition: gpu #", "slurm_partition: gpu # edited:"),
    ("# slurm-status-command: squeue", "slurm-status-command: squeue"),
    ("status-checks: 10", "status-checks: 1"),
    ("latency-wait: 60", "latency-wait: 10"),
)


class Submission(Checkout):
    """A checkout whose jobs go to SLURM."""

    def profile(self, *edits: tuple[str, str]) -> None:
        """Edit the profile as a user would."""
        for old, new in edits:
            self.edit("profiles/slurm/config.yaml", old, new)

    def clone(self, folder: Path) -> Submission:
        """A copy with all results and Snakemake's memory of them."""
        return Submission(super().clone(folder).folder)

    def environment(self, warm: bool = False) -> dict[str, str]:
        """Jobs take the real Python: SLURM counts, limits and kills their processes."""
        return super().environment(warm=False)

    def command(self, *options: str, cores: int = 2, overlays: tuple[str, ...] = (), warm: bool = False) -> list[str]:
        """Snakemake with the profile; cores are those of the profile."""
        return [
            sys.executable, "-m", "snakemake", "--configfile", "presets/ci.yaml", *overlays,
            "--profile", "profiles/slurm", "--seconds-between-status-checks", "1", *options,
        ]  # fmt: skip

    def without(self, *targets: str) -> None:
        """Remove outputs."""
        for target in targets:
            (self.folder / target).unlink()

    def log(self, target: str) -> str:
        """The log of the training that makes a target."""
        fold = re.search(r"fold(\d)", target)[1]
        return (self.run / f"logs/train_ddpm/repeat0_fold{fold}_unet.log").read_text(encoding="utf-8")


@pytest.fixture(scope="module", autouse=True)
def slurm() -> Iterator[None]:
    """The cluster, for as long as these tests run."""
    try:
        cluster.up()
    except cluster.NoCluster as error:
        if os.environ.get("MIXLOC_SLURM") == "required":
            pytest.fail(f"no SLURM cluster: {error}")
        pytest.skip(str(error))
    try:
        yield
    finally:
        cluster.down()


@pytest.fixture(scope="module")
def finished(slurm: None, tmp_path_factory: pytest.TempPathFactory) -> Submission:
    """The tiny preset, run to the end through SLURM; the judge is given too little memory at first."""
    checkout = Submission(Checkout.fresh(tmp_path_factory.mktemp("slurm") / "checkout").folder)
    shutil.copytree(ROOT / "profiles" / "slurm", checkout.folder / "profiles" / "slurm")
    checkout.profile(*EDITS)
    judge = "  train_judge: {slurm_partition: gpu, gpu: 1, mem_mb: 300 * attempt, runtime: 10}"
    checkout.profile(("  train_judge: *gpu_job", judge))
    done = checkout.snakemake()
    (checkout.folder / "printed.txt").write_text(done.stdout)
    checkout.profile((judge, "  train_judge: *gpu_job"))
    return checkout


@pytest.fixture(scope="module")
def late(
    finished: Submission, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Submission, subprocess.Popen]]:
    """A training that stands still until its time is over, for the last test: a minute in which others run."""
    checkout = finished.clone(tmp_path_factory.mktemp("late") / "clone")
    checkout.profile(("runtime: 720", "runtime: 1"))
    checkout.without(UNETS[0])
    process = checkout.start(UNETS[0])
    os.kill(training(checkout, UNETS[0]), signal.SIGSTOP)
    yield checkout, process
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def training(checkout: Submission, target: str) -> int:
    """The process that trains a target, once it has left a checkpoint."""
    resume = (checkout.folder / target).with_name("unet.resume.pt")
    found: list[int] = []

    def trains() -> bool:
        here = [pid for pid in processes(f"--out {target}") if Path(f"/proc/{pid}/cwd").readlink() == checkout.folder]
        found[:] = here
        return bool(here) and resume.exists()

    wait_for(trains)
    return found[0]


def jobs(form: str) -> list[str]:
    """A line for each job that SLURM remembers."""
    listed = subprocess.run(
        ["squeue", "--states=all", "--noheader", f"--format={form}"], capture_output=True, text=True
    )
    return listed.stdout.splitlines()


def job_of(checkout: Submission, target: str) -> str:
    """The number of the running SLURM job that makes a target."""
    fold = re.search(r"fold(\d)", target)[1]
    lines = [line.split() for line in jobs("%i %T %Z %k")]
    wanted = [number for number, state, folder, name in lines if folder == str(checkout.folder) and state == "RUNNING"
              and name == f"rule_train_ddpm_wildcards_ci_0_{fold}_unet"]  # fmt: skip
    assert len(wanted) == 1, lines
    return wanted[0]


def finish(process: subprocess.Popen, seconds: float = 180) -> str:
    """What a Snakemake printed that must end well."""
    printed, _ = process.communicate(timeout=seconds)
    assert process.returncode == 0, printed[-6000:]
    return printed


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
    assert [state for *_, state in tries[:-1]] != ["COMPLETED"], tries
    assert tries[-1][2] == "COMPLETED", tries


def test_preempted_job_goes_on_from_its_checkpoint(
    finished: Submission, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    checkout = finished.clone(tmp_path / "clone")
    checkout.without(UNETS[0])
    process = checkout.start(UNETS[0])
    os.kill(training(checkout, UNETS[0]), signal.SIGSTOP)
    number = job_of(checkout, UNETS[0])
    everything = f"--gpus={cluster.GPUS}"
    urgent = ["sbatch", "--wait", "--partition=urgent", everything, "--time=1", "--output=/dev/null", "--wrap=sleep 1"]
    subprocess.run(urgent, check=True)
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
    os.kill(training(checkout, UNETS[0]), signal.SIGSTOP)
    subprocess.run(["scancel", job_of(checkout, UNETS[0])], check=True)
    printed, _ = process.communicate(timeout=180)
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
