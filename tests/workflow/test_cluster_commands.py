"""The commands of profiles/generic and profiles/kubernetes, with programs that stand in for those of a cluster."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers.checkout import ROOT

PROFILES = ROOT / "profiles"
OPTIONS = ("--image", "mixloc:1", "--claim", "lab", "--cpus", "2", "--mem-mb", "8000", "--minutes", "30")


@pytest.fixture
def bin_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of programs that come before all others."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    return folder


def program(folder: Path, name: str, script: str) -> None:
    """A shell script of that name."""
    (folder / name).write_text(f"#!/bin/sh\n{script}\n")
    (folder / name).chmod(0o755)


def answer(*command: str | Path) -> str:
    """What a program prints."""
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=20).stdout.strip()


@pytest.mark.parametrize(
    ("queue", "accounts", "controller", "expected"),
    [
        ("RUNNING", "", "UP", "running"),
        ("PENDING", "", "UP", "running"),
        ("REQUEUED", "", "UP", "running"),
        ("COMPLETED", "", "UP", "success"),
        ("COMPLETING", "", "UP", "running"),
        ("OUT_OF_MEMORY", "", "UP", "failed"),
        ("NODE_FAIL", "", "UP", "failed"),
        ("", "COMPLETED", "UP", "success"),
        ("", "CANCELLED by 0", "UP", "failed"),
        ("", "", "UP", "failed"),
        ("", "", "DOWN", "running"),
    ],
)
def test_generic_status_is_that_of_the_queue_or_else_of_the_accounts(
    bin_folder: Path, queue: str, accounts: str, controller: str, expected: str
) -> None:
    program(bin_folder, "squeue", f"echo '{queue}'")
    program(bin_folder, "sacct", f"echo '{accounts}'")
    program(bin_folder, "scontrol", f"echo 'Slurmctld is {controller}'")
    assert answer(PROFILES / "generic" / "status", "7") == expected


@pytest.mark.parametrize(
    ("printed", "code", "expected"),
    [
        ("Job ", 0, "running"),
        ("Job SuccessCriteriaMet Complete", 0, "success"),
        ("Job FailureTarget Failed", 0, "failed"),
        ("", 0, "failed"),
        ("", 1, "running"),
    ],
)
def test_kubernetes_status_is_that_of_the_job(bin_folder: Path, printed: str, code: int, expected: str) -> None:
    program(bin_folder, "kubectl", f"echo '{printed}'; exit {code}")
    assert answer(PROFILES / "kubernetes" / "status", "lab/mixloc-abc") == expected


def test_kubernetes_job_gets_script_folder_volume_and_resources(
    bin_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program(bin_folder, "kubectl", f"cat > '{tmp_path}/job.json'; echo lab/mixloc-abc")
    work = tmp_path / "shared" / "checkout"
    work.mkdir(parents=True)
    monkeypatch.chdir(work)
    submit = (sys.executable, PROFILES / "kubernetes" / "submit.py", *OPTIONS, "--mount", str(work.parent))
    assert answer(*submit, "--gpus", "1", "/shared/job one.sh") == "lab/mixloc-abc"
    spec = json.loads((tmp_path / "job.json").read_text())["spec"]
    assert spec["activeDeadlineSeconds"] == 30 * 60
    pod = spec["template"]["spec"]
    (container,) = pod["containers"]
    assert container["command"][-1] == "/shared/job one.sh"
    assert container["workingDir"] == str(work)
    assert container["volumeMounts"][0]["mountPath"] == str(work.parent)
    assert pod["volumes"][0]["persistentVolumeClaim"]["claimName"] == "lab"
    assert container["resources"]["limits"] == {"memory": "8000M", "nvidia.com/gpu": "1"}
    assert container["resources"]["requests"]["cpu"] == "2"


def test_kubernetes_job_outside_the_volume_is_refused(bin_folder: Path, tmp_path: Path) -> None:
    program(bin_folder, "kubectl", "echo lab/mixloc-abc")
    submit = [sys.executable, PROFILES / "kubernetes" / "submit.py", *OPTIONS, "--mount", "/shared", "job.sh"]
    refused = subprocess.run(submit, capture_output=True, text=True, cwd=tmp_path, timeout=20)
    assert refused.returncode != 0 and not refused.stdout
    assert "does not lie on the shared volume at /shared" in refused.stderr


def test_kubernetes_cancel_deletes_each_job(bin_folder: Path, tmp_path: Path) -> None:
    program(bin_folder, "kubectl", f"echo \"$@\" >> '{tmp_path}/calls'")
    answer(PROFILES / "kubernetes" / "cancel", "lab/one", "lab/two")
    calls = (tmp_path / "calls").read_text().splitlines()
    assert [call.split()[:4] for call in calls] == [
        ["delete", "job", name, "--namespace=lab"] for name in ("one", "two")
    ]
