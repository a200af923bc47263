"""A finished run of the tiny preset, made once in a session of tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.helpers.checkout import Checkout
from tests.helpers.shared import once


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    """A finished run to read and to plan in; tests that change anything work on a clone."""
    folder = once(tmp_path_factory, "finished-run", lambda folder: Checkout.fresh(folder).snakemake())
    # Snakemake writes notes even in a dry run: each worker plans in a copy of its own.
    return Checkout(folder).clone(tmp_path_factory.mktemp("finished") / "checkout")


@pytest.fixture
def clone(finished: Checkout, tmp_path: Path) -> Checkout:
    """A copy of the finished run, to be changed."""
    return finished.clone(tmp_path / "clone")
