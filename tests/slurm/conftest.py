"""What the tests on SLURM share: the cluster, a finished run and a training that stands still.

Skipped where no cluster can be made; with MIXLOC_SLURM=required in the environment that is a failure."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator

import pytest

from tests.slurm import cluster
from tests.slurm.submission import EDITS, UNETS, Submission, end_all, stop


@pytest.fixture(scope="session", autouse=True)
def slurm() -> Iterator[None]:
    """The cluster, for as long as these tests run."""
    # Without this, SIGTERM would end pytest and leave daemons and jobs behind.
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        cluster.up()
    except cluster.NoCluster as error:
        if os.environ.get("MIXLOC_SLURM") == "required":
            pytest.fail(f"no SLURM cluster: {error}")
        pytest.skip(str(error))
    try:
        yield
    finally:
        end_all()
        cluster.down()
        signal.signal(signal.SIGTERM, before)


@pytest.fixture(scope="session")
def finished(slurm: None, tmp_path_factory: pytest.TempPathFactory) -> Submission:
    """The tiny preset, run to the end through SLURM; the judge is given too little memory at first."""
    checkout = Submission.made(tmp_path_factory.mktemp("slurm") / "checkout")
    checkout.profile(*EDITS)
    judge = "  train_judge: {slurm_partition: gpu, gpu: 1, mem_mb: 300 * attempt, runtime: 10}"
    checkout.profile(("  train_judge: *gpu_job", judge))
    done = checkout.snakemake()
    (checkout.folder / "printed.txt").write_text(done.stdout)
    checkout.profile((judge, "  train_judge: *gpu_job"))
    return checkout


@pytest.fixture(scope="session")
def late(finished: Submission, tmp_path_factory: pytest.TempPathFactory) -> tuple[Submission, subprocess.Popen]:
    """A training that stands still until its time is over, for the last test: a minute in which others run."""
    checkout = finished.clone(tmp_path_factory.mktemp("late") / "clone")
    checkout.profile(("runtime: 720", "runtime: 1"))
    checkout.without(UNETS[0])
    process = checkout.start(UNETS[0])
    stop(checkout, UNETS[0])
    return checkout, process
