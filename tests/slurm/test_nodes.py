"""The workflow on several nodes of a real SLURM: one dies, one has a wrong clock, their shared folder is read-only."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers.checkout import wait_for, weights
from tests.slurm import accounting, cluster
from tests.slurm.submission import UNETS, Submission, finish, jobs, node_of, on_node, stop

pytestmark = pytest.mark.workflow

MINUTES = 4  # by which clocks are wrong
FOLDER = "results"  # what the nodes share, and may lose


def test_jobs_spread_over_the_nodes(finished: Submission) -> None:
    lines = [line.split() for line in jobs("%k %N %T")]
    used = {node for name, node, state in lines if name.startswith("rule_train") and state == "COMPLETED"}
    assert used <= set(cluster.NODES)
    assert len(used) > 1, lines


def test_training_on_a_node_that_dies_goes_on_elsewhere(finished: Submission, tmp_path: Path) -> None:
    checkout = finished.clone(tmp_path / "clone")
    checkout.without(UNETS[0])
    process = checkout.start(UNETS[0])
    number = stop(checkout, UNETS[0])
    node = node_of(number)
    cluster.kill_node(node)
    try:
        wait_for(lambda: cluster.node_state(node) == "down", 3 * cluster.DOWN_AFTER)
        finish(process)
        assert node_of(number) != node, "the same job, started again by SLURM on another node"
        assert "going on from" in checkout.log(UNETS[0])
        assert weights(checkout.folder / UNETS[0]) == weights(finished.folder / UNETS[0])
    finally:
        cluster.start_node(node)
    on_node(node, "true")


def test_shared_folder_that_is_read_only_is_named_and_a_rerun_completes(finished: Submission, tmp_path: Path) -> None:
    checkout = finished.clone(tmp_path / "clone")
    checkout.profile(("retries: 2", "retries: 0"))
    checkout.without(UNETS[0])
    process = checkout.start(UNETS[0])
    number = stop(checkout, UNETS[0])
    with read_only(checkout.folder / FOLDER):
        subprocess.run(["scancel", "--signal=CONT", number], check=True)
        printed, _ = process.communicate(timeout=300)
    assert process.returncode != 0
    told = [line for line in printed.splitlines() if line.startswith("train_ddpm failed:")]
    assert told and all("Read-only file system" in line and f"'{FOLDER}/" in line for line in told), printed[-6000:]
    assert not (checkout.folder / UNETS[0]).exists()
    checkout.snakemake(UNETS[0])
    assert weights(checkout.folder / UNETS[0]) == weights(finished.folder / UNETS[0])


@contextlib.contextmanager
def read_only(folder: Path) -> Iterator[None]:
    """A folder that nobody can write to, root included."""
    done = subprocess.run(["mount", "--bind", str(folder), str(folder)], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"nothing can be mounted here: {done.stderr.strip()}")
    try:
        subprocess.run(["mount", "-o", "remount,bind,ro", str(folder)], check=True)
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_clocks_that_are_wrong_by_minutes_change_nothing(finished: Submission, tmp_path: Path) -> None:
    checkout = finished.clone(tmp_path / "clone")
    known = set(jobs("%i"))
    try:
        cluster.set_clock("node1", 60 * MINUTES)
        cluster.set_clock("node2", -60 * MINUTES)
        again = ("--until", "train_classifier")
        checkout.snakemake("--forcerun", "train_classifier", *again)
    except cluster.NoCluster as error:
        pytest.skip(str(error))
    finally:
        for node in ("node1", "node2"):
            cluster.clock_file(node).unlink(missing_ok=True)
    lines = [line.split() for line in jobs("%i %T %N")]
    lines = [line for line in lines if line[0] not in known]
    assert {state for _, state, _ in lines} == {"COMPLETED"}, lines
    assert {node for *_, node in lines} & {"node1", "node2"}, lines
    made = sorted(path.relative_to(finished.run) for path in finished.run.rglob("classifier.safetensors"))
    assert made
    for path in made:
        assert weights(checkout.run / path) == weights(finished.run / path), path
    assert not checkout.planned(*again)


def test_job_is_followed_and_charged_by_accounts(finished: Submission, tmp_path: Path) -> None:
    if not cluster.accounted():
        pytest.skip(accounting.absent() or "the cluster keeps no accounts")
    checkout = finished.clone(tmp_path / "clone")
    # As the profile comes: Snakemake asks the accounts how jobs fare.
    checkout.profile(("slurm-status-command: squeue", "# slurm-status-command: squeue"))
    checkout.without(UNETS[0])
    known = set(jobs("%i"))
    checkout.snakemake(UNETS[0])
    assert weights(checkout.folder / UNETS[0]) == weights(finished.folder / UNETS[0])
    (number,) = set(jobs("%i")) - known
    form = ["--noheader", "--parsable2", "--allocations", "--format=Account,State,AllocTRES"]
    listed = subprocess.run(["sacct", f"--jobs={number}", *form], capture_output=True, text=True, check=True)
    account, state, used = listed.stdout.strip().split("|")
    assert (account, state) == (accounting.ACCOUNT, "COMPLETED")
    assert "gres/gpu=1" in used
