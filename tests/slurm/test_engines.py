"""The same workflow through other engines than the SLURM plugin: the cluster's own commands, and Kubernetes."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.helpers.checkout import weights
from tests.slurm import accounting, cluster
from tests.slurm.submission import UNETS, Submission, jobs

pytestmark = pytest.mark.workflow


class Generic(Submission):
    """A checkout whose jobs are submitted by commands that the profile names."""

    engine = "generic"


class Kubernetes(Submission):
    """A checkout whose jobs would become those of Kubernetes."""

    engine = "kubernetes"


def test_tiny_preset_runs_by_the_commands_of_a_cluster(finished: Submission, tmp_path: Path) -> None:
    pytest.importorskip("snakemake_executor_plugin_cluster_generic")
    checkout = Generic.made(tmp_path / "checkout")
    checkout.profile(("account: mixloc", f"account: {accounting.ACCOUNT}"), ("latency-wait: 60", "latency-wait: 10"))
    known = set(jobs("%i"))
    checkout.snakemake()
    assert "</html>" in (checkout.run / "report.html").read_text(encoding="utf-8")
    for target in UNETS:
        assert weights(checkout.folder / target) == weights(finished.folder / target)
    assert (checkout.run / "metrics.csv").read_bytes() == (finished.run / "metrics.csv").read_bytes()
    lines = [line.split() for line in jobs("%i %P %N")]
    used = {(partition, node) for number, partition, node in lines if number not in known}
    assert {partition for partition, _ in used} == {"cpu", "gpu"}
    assert len({node for _, node in used} & set(cluster.NODES)) > 1, used


def test_kubernetes_profile_is_understood(tmp_path: Path) -> None:
    pytest.importorskip("snakemake_executor_plugin_cluster_generic")
    checkout = Kubernetes.made(tmp_path / "checkout")
    planned = checkout.snakemake("--dry-run").stdout
    assert "This was a dry-run" in planned
    asked = dict(re.findall(r"^rule (\w+):\n.*?\bgpu=(\d+)", planned, re.MULTILINE | re.DOTALL))
    for rule in ("train_ddpm", "sample_ddpm", "train_classifier", "train_judge"):
        assert asked[rule] == "1", asked
    for rule in ("simulate_cells", "aggregate_metrics"):
        assert asked[rule] == "0", asked
