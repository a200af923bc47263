"""A checkout whose jobs go to SLURM, and questions to SLURM about its jobs."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Self

from tests.helpers.checkout import ROOT, Checkout, processes, wait_for

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


STARTED: list[subprocess.Popen[str]] = []  # Snakemakes that may still run when a test has failed


class Submission(Checkout):
    """A checkout whose jobs go to a cluster, by default through the SLURM profile."""

    engine = "slurm"  # the folder of the profile

    @classmethod
    def made(cls, folder: Path) -> Self:
        """A copy without results, with the profile as it comes."""
        checkout = cls(Checkout.fresh(folder).folder)
        shutil.copytree(ROOT / "profiles" / cls.engine, folder / "profiles" / cls.engine)
        return checkout

    def profile(self, *edits: tuple[str, str]) -> None:
        """Edit the profile as a user would."""
        for old, new in edits:
            self.edit(f"profiles/{self.engine}/config.yaml", old, new)

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
            "--profile", f"profiles/{self.engine}", "--seconds-between-status-checks", "1", *options,
        ]  # fmt: skip

    def start(self, *options: str, cores: int = 2) -> subprocess.Popen[str]:
        """Start Snakemake and return at once; `end_all` ends it if a test does not."""
        process = super().start(*options, cores=cores)
        STARTED.append(process)
        return process

    def without(self, *targets: str) -> None:
        """Remove outputs."""
        for target in targets:
            (self.folder / target).unlink()

    def log(self, target: str) -> str:
        """The log of the training that makes a target."""
        fold = re.search(r"fold(\d)", target)[1]
        return (self.run / f"logs/train_ddpm/repeat0_fold{fold}_unet.log").read_text(encoding="utf-8")


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


def finish(process: subprocess.Popen, seconds: float = 300) -> str:
    """What a Snakemake printed that must end well."""
    printed, _ = process.communicate(timeout=seconds)
    assert process.returncode == 0, printed[-6000:]
    return printed


def stop(checkout: Submission, target: str) -> str:
    """Let a training stand still once it has left a checkpoint; the number of its job."""
    os.kill(training(checkout, target), signal.SIGSTOP)
    return job_of(checkout, target)


def node_of(number: str) -> str:
    """The node on which a job runs, or ran last."""
    return next(line.split()[1] for line in jobs("%i %N") if line.split()[0] == number)


def on_node(node: str, command: str) -> None:
    """Run a command as a job of one node and wait for its end."""
    subprocess.run(["sbatch", "--wait", f"--nodelist={node}", "--output=/dev/null", f"--wrap={command}"],
                   check=True, timeout=120)  # fmt: skip


def end_all() -> None:
    """Kill the Snakemakes that still run."""
    for process in STARTED:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
