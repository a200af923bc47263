"""Only tests with the mark `workflow` start Snakemake, and what tests of a module share is made in one worker."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.helpers.snakemake_mark import starts_snakemake


@pytest.mark.parametrize(
    "command",
    [
        [sys.executable, "-m", "snakemake", "--cores", "1"],
        ["/usr/bin/snakemake", "-n"],
        ["sh", "-c", "cd /tmp && .venv/bin/snakemake --lint"],
        "snakemake",
    ],
)
def test_a_test_without_the_mark_cannot_start_snakemake(command: object) -> None:
    with pytest.raises(AssertionError, match="workflow"):
        subprocess.run(command, shell=isinstance(command, str))


@pytest.mark.parametrize("command", [["ls", "snakemake"], ["sh", "-c", "ls snakemake_checks"], [sys.executable, "-V"]])
def test_other_programs_are_not_taken_for_snakemake(command: list[str]) -> None:
    assert not starts_snakemake(command)


@pytest.mark.workflow
def test_a_test_with_the_mark_can_start_snakemake() -> None:
    done = subprocess.run([sys.executable, "-m", "snakemake", "--version"], capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.strip()


@pytest.fixture(scope="module")
def shared() -> None:
    """Something that the tests of this module share."""


@pytest.mark.skipif("PYTEST_XDIST_WORKER" not in os.environ, reason="one process runs all tests")
def test_tests_that_share_a_fixture_go_to_one_worker(shared: None, request: pytest.FixtureRequest) -> None:
    # Versions of pytest and pytest-xdist that do not go together drop the group without a word.
    assert request.node.nodeid.endswith("@test_marks")
