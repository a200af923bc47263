"""Several machines or GPUs: what the profiles rely on, without a cluster and without a GPU."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from snakemake.profiles import ProfileConfigFileParser
from snakemake.settings.types import DeploymentMethod

from benchmarks import dag
from tests.helpers import warm_python
from tests.helpers.checkout import ROOT, Checkout
from workflow_scripts.lib.base.errors import UserError
from workflow_scripts.lib.compute import gpu_locks
from workflow_scripts.lib.config import snakemake_checks

RULES = {
    name for path in (ROOT / "rules").glob("*.smk") for name in re.findall(r"^rule (\w+):", path.read_text(), re.M)
}
# Takes a GPU and works for as many seconds as it is told.
JOB = """
import sys, time
from workflow_scripts.lib.compute import gpu_locks
print(gpu_locks.take(), flush=True)
time.sleep(float(sys.argv[1]))
"""


def start(tmp_path: Path, choice: str, seconds: float = 60) -> subprocess.Popen[str]:
    environment = os.environ | {"MIXLOC_DEVICES": choice, "TMPDIR": str(tmp_path)}
    return subprocess.Popen([sys.executable, "-c", JOB, str(seconds)], cwd=ROOT, env=environment, text=True,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE)  # fmt: skip


def test_jobs_take_different_gpus_and_a_killed_one_frees_its_own(tmp_path: Path) -> None:
    first = [start(tmp_path, "2,GPU-8f/x") for _ in range(2)]
    taken = [job.stdout.readline().strip() for job in first]
    assert sorted(taken) == ["2", "GPU-8f/x"]
    third = start(tmp_path, "2,GPU-8f/x", 0)
    with pytest.raises(subprocess.TimeoutExpired):
        third.wait(1.5)
    first[1].send_signal(signal.SIGKILL)
    assert third.communicate(timeout=30)[0].strip() == taken[1], "the one that became free"
    first[0].kill()
    for job in first:
        job.communicate()


def test_without_a_choice_no_gpu_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    for environment in ({"MIXLOC_DEVICES": ""}, {"MIXLOC_DEVICES": "0,1", "LOCAL_RANK": "1"}):
        with monkeypatch.context() as patch:
            patch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
            for name, value in environment.items():
                patch.setenv(name, value)
            assert gpu_locks.take() is None
            assert "CUDA_VISIBLE_DEVICES" not in os.environ


def test_one_training_takes_its_gpus_together_or_none(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(gpu_locks.CHOICE, "0,1,2")
    monkeypatch.setattr(gpu_locks.tempfile, "gettempdir", lambda: str(tmp_path))
    monkeypatch.setattr(gpu_locks, "_held", [])
    other = start(tmp_path, "0,1,2")
    taken = other.stdout.readline().strip()
    own = [name for name in "012" if name != taken]
    assert gpu_locks.take_several(2) == own
    waits = start(tmp_path, "0,1,2", 0)
    with pytest.raises(subprocess.TimeoutExpired):
        waits.wait(1.5)
    os.close(gpu_locks._held.pop())
    assert waits.communicate(timeout=30)[0].strip() == own[1], "the one that became free"
    other.kill()
    other.communicate()
    os.close(gpu_locks._held.pop())
    with pytest.raises(UserError, match="4 processes need as many GPUs, and there are 3"):
        gpu_locks.take_several(4)


def test_processes_meet_on_the_machine_itself_and_one_needs_no_launcher() -> None:
    assert snakemake_checks.launcher(1) == ""
    words = snakemake_checks.launcher(3).split()
    assert words[0] == "torch.distributed.run" and words[-2:] == ["-m", "--"]
    assert {"--standalone", "--local-addr=127.0.0.1", "--nproc-per-node=3"} <= set(words)


def test_fewer_gpus_than_processes_are_told_of() -> None:
    def job(name: str, **resources: object) -> SimpleNamespace:
        return SimpleNamespace(rule=SimpleNamespace(name=name), resources=resources)

    def problem(*jobs: SimpleNamespace) -> str | None:
        dag = SimpleNamespace(needrun_jobs=lambda: jobs)
        return snakemake_checks.devices_problem(SimpleNamespace(dag=dag), 2, ("train_ddpm", "train_classifier"))

    assert problem(job("train_ddpm"), job("sample_ddpm", gpu=1), job("train_classifier", gpu=2)) is None
    found = problem(job("train_ddpm", gpu=2), job("train_classifier", gpu=1))
    assert "gives train_classifier gpu: 1: write gpu: 2" in found


@pytest.mark.parametrize(
    ("limit", "nodes", "visible", "expected"),
    [(2, None, "", "0,1"), (2, None, "4,5,6", "4,5"), (None, None, "4,5", None), (2, 100, "", None)],
)
def test_the_choice_is_made_on_one_machine_only(
    monkeypatch: pytest.MonkeyPatch, limit: int | None, nodes: int | None, visible: str, expected: str | None
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    # Set and removed, so that it is restored afterwards.
    monkeypatch.setenv(gpu_locks.CHOICE, "")
    monkeypatch.delenv(gpu_locks.CHOICE)
    resources = {"gpu": SimpleNamespace(value=limit)}
    snakemake_checks.share_devices(
        SimpleNamespace(global_resources=resources, remote_exec=False, resource_settings=SimpleNamespace(nodes=nodes))
    )
    assert os.environ.get(gpu_locks.CHOICE) == expected


def test_arrays_that_would_wait_for_ever_are_refused() -> None:
    waiting = Counter({"train_classifier": 300, "train_ddpm": 900})
    assert snakemake_checks.array_problem({"train_classifier"}, waiting, 300) is None
    assert snakemake_checks.array_problem({"train_classifier"}, waiting, None) is None
    assert "jobs = 299" in snakemake_checks.array_problem({"train_classifier"}, waiting, 299)
    assert "train_ddpm" in snakemake_checks.array_problem({"all"}, waiting, 300)


@pytest.mark.parametrize(("cores", "told"), [(None, False), (8, False), (4, True)])
def test_fewer_cores_than_threads_are_told_of(cores: int | None, told: bool) -> None:
    workflow = SimpleNamespace(resource_settings=SimpleNamespace(cores=cores))
    found = snakemake_checks.cores_warning(workflow, 8)
    assert (found is not None) == told
    assert not told or "cores = 4" in found


def test_every_stage_that_computes_on_a_gpu_has_one_in_the_profile() -> None:
    """By the calls that take a device, in the stage itself or in the modules that it asks."""
    asking = {"encoders": "assess_synthetic embed_images predict_images"}
    asking |= {"emulation": "replay_study", "fold_replay": "replay_study"}
    asking |= {"second_source": "train_classifier", "arm_run": "train_classifier"}
    asking |= {"classifier_training": "train_judge", "ensemble": "write_submission"}
    asking |= {"averaged": "train_classifier", "generator_classifier": "train_classifier"}
    asking |= {"stress_run": "stress_test", "generator_run": "train_ddpm", "copy_search": "assess_synthetic"}
    found = set()
    for path in (ROOT / "workflow_scripts").rglob("*.py"):
        if "device.device()" in path.read_text(encoding="utf-8"):
            found |= {*(asking[path.stem].split() if path.parent.name != "workflow_scripts" else [path.stem])}
    profile = yaml.safe_load((ROOT / "profiles" / "gpu" / "config.yaml").read_text(encoding="utf-8"))
    assert set(profile["set-resources"]) == found


@pytest.mark.parametrize("path", sorted((ROOT / "profiles").glob("*/config.yaml")), ids=lambda path: path.parent.name)
def test_profiles_name_rules_that_exist_and_explain_every_entry(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    profile = yaml.safe_load(text)
    named = set(profile.get("set-resources", {})) | {entry.split("=")[0] for entry in profile.get("groups", [])}
    named |= set(filter(None, [profile.get("slurm-array-jobs")]))
    assert named <= RULES
    for block in re.split(r"\n\s*\n", text):
        assert "#" in block, f"no comment explains {block}"
    groups = dict(entry.split("=") for entry in profile.get("groups", []))
    # It stands between two rules of a group: outside of it Snakemake would refuse the run.
    assert groups.get("tabulate_study") == groups.get("report") == groups.get("certify_leaks")


@pytest.mark.workflow
def test_gpu_profile_gives_each_job_a_gpu_of_its_own(tmp_path: Path) -> None:
    checkout = Checkout.fresh(tmp_path / "checkout")
    shutil.copytree(ROOT / "profiles" / "gpu", checkout.folder / "profiles" / "gpu")
    for steps in ("steps: 60", "steps: 20"):
        checkout.edit("presets/ci.yaml", steps, "steps: 4")
    targets = [
        f"results/ci/repeat0/fold{fold}/generators/{name}.safetensors"
        for fold in (0, 1)
        for name in ("unet", "minimal")
    ]
    process = subprocess.Popen(
        checkout.command("--profile", "profiles/gpu", *targets, cores=4),
        cwd=checkout.folder, env=checkout.environment() | {"CUDA_VISIBLE_DEVICES": "5,7", "TMPDIR": str(tmp_path)},
        text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    printed = process.communicate(timeout=300)[0]
    assert process.returncode == 0, printed[-4000:]
    logs = [path.read_text() for path in (checkout.run / "logs" / "train_ddpm").glob("*.log")]
    taken = [re.search(r"GPU (\d) of 5,7", text)[1] for text in logs]
    assert len(taken) == 4
    assert set(taken) == {"5", "7"}
    assert not any("waiting for one of the GPUs" in text for text in logs), "never more jobs at once than GPUs"


@pytest.mark.workflow
def test_planning_stays_quick_and_no_command_grows_with_the_folds(tmp_path: Path) -> None:
    lengths = []
    for repeats, folds in ((1, 2), (3, 4)):
        settings = dag.overlay(repeats, folds, arms=6, ratios=4, synthetic_sets=4, arms_per_job=8)
        seconds, megabytes, jobs = dag.planned(settings)
        # A seventh of the paper scale, whose aim is 30 s and 2 GB, on a machine that may have other work to do.
        assert seconds < 30
        assert megabytes < 500
        assert jobs > 2 * repeats * folds * 4
        preset = tmp_path / "preset.yaml"
        preset.write_text(yaml.safe_dump(settings))
        command = [warm_python.python(), "-m", "snakemake", "--dry-run", "--printshellcmds", "--nolock", "--cores", "1"]
        environment = os.environ | warm_python.environment()
        done = subprocess.run(
            [*command, "--configfile", str(preset)], cwd=ROOT, env=environment, capture_output=True, text=True
        )
        marker = r"^Shell command: OPENBLAS_NUM_THREADS=1 python -m workflow_scripts\.(\w+)(.*)"
        commands = re.findall(marker, done.stdout, re.MULTILINE)
        lengths.append({name: len(text) for name, text in commands})
        assert max(lengths[-1].values()) < 50_000, "a command line may have 128 kB"
    for name in ("aggregate_metrics", "certify_leaks", "plot_training"):
        assert abs(lengths[1][name] - lengths[0][name]) < 200, f"{name}: {lengths}"


def test_a_killed_job_is_told_from_one_that_failed_or_is_done(tmp_path: Path) -> None:
    start = "2026-01-01 00:00:00 INFO train, process 7\n2026-01-01 00:00:01 INFO step 3\n"
    logs = {
        "killed": start,
        "killed_again": f"{start}2026-01-01 00:00:02 INFO done in 2 s\n{start}",
        "failed": f"{start}2026-01-01 00:00:02 ERROR out of memory\n",
        "done": f"{start}{start}2026-01-01 00:00:02 INFO done in 2 s\n",
        "not_started": "",
    }
    jobs = []
    for name, text in logs.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
        jobs.append(SimpleNamespace(rule=SimpleNamespace(name=name), log=[str(tmp_path / name)]))
    old = tmp_path / "old"
    old.write_text(start, encoding="utf-8")
    os.utime(old, (0, 0))
    jobs += [SimpleNamespace(rule=SimpleNamespace(name="old"), log=[str(path)]) for path in (old, tmp_path / "absent")]
    workflow = SimpleNamespace(dag=SimpleNamespace(needrun_jobs=lambda: jobs))
    told = snakemake_checks.killed_jobs(workflow)
    assert [line.split()[0] for line in told] == ["killed", "killed_again"]
    assert all("memory ran out" in line and "\n" not in line for line in told)


def started(*rules: str) -> SimpleNamespace:
    """A Snakemake that is about to run jobs of these rules."""
    jobs = [SimpleNamespace(rule=SimpleNamespace(name=name)) for name in rules]
    return SimpleNamespace(dag=SimpleNamespace(needrun_jobs=lambda: jobs))


def test_a_run_is_made_by_one_snakemake_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(snakemake_checks, "HELD", [])
    assert snakemake_checks.held_elsewhere(started("report", "train_ddpm"), "one") is None
    told = snakemake_checks.held_elsewhere(started("make_folds"), "one")
    assert told is not None and "the run one is being made by another Snakemake" in told
    assert snakemake_checks.held_elsewhere(started("make_folds"), "two") is None, "another run may go on beside it"
    assert snakemake_checks.held_elsewhere(started("predict_images", "report"), "one") is None, "it only reads"
    for holder in snakemake_checks.HELD:
        holder.close()  # as at the end of a process, however it ends
    assert snakemake_checks.held_elsewhere(started("make_folds"), "one") is None


def test_a_rehearsal_gives_stages_the_environments_of_the_run() -> None:
    settings = SimpleNamespace(deployment_method={DeploymentMethod.CONDA})
    assert snakemake_checks.deployment(SimpleNamespace(deployment_settings=settings)) == ["--sdm", "conda"]
    settings.deployment_method = set()
    assert snakemake_checks.deployment(SimpleNamespace(deployment_settings=settings)) == []


@pytest.mark.parametrize("name", ["generic", "kubernetes"])
def test_commands_of_a_profile_are_found_from_any_folder(name: str, tmp_path: Path, monkeypatch) -> None:
    """Snakemake gives a value the folder of its profile where such a file is there."""
    monkeypatch.chdir(tmp_path)
    folder = ROOT / "profiles" / name
    given = ProfileConfigFileParser().parse((folder / "config.yaml").open(encoding="utf-8"))
    own = [given[key] for key in given if key in ("cluster-generic-status-cmd", "cluster-generic-cancel-cmd")]
    own = [path for path in own if path != "scancel"]
    assert own and all(Path(path).is_file() for path in own), own
