"""The curve of quality against time is measured on a finished run."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
import yaml

from benchmarks import quality_for_time
from tests.helpers.checkout import Checkout


@pytest.mark.workflow
def test_a_variant_is_measured_on_a_finished_run(finished: Checkout, tmp_path: Path) -> None:
    tiny = {"generator": {"widths": [16, 16], "steps": 2, "batch": 4}, "synthetic_set": {"count": 12, "evaluations": 4}}
    listed = tmp_path / "variants.yaml"
    listed.write_text(yaml.safe_dump([{"name": "tiny"} | tiny]))
    words = ["--run-dir", str(finished.run), "--variants", str(listed), "--out", str(tmp_path / "curve.csv")]
    assert quality_for_time.main(words) == 0
    with (tmp_path / "curve.csv").open(encoding="utf-8") as handle:
        (row,) = csv.DictReader(handle)
    assert row["variant"] == "tiny" and float(row["train_seconds"]) > 0 and 0 <= float(row["agreement"]) <= 1
