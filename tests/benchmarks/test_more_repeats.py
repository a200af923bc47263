"""benchmarks.more_repeats: one row for each number of repeats that is forecast."""

import re

import pytest

from benchmarks import more_repeats
from workflow_scripts.lib.judge.analysis_choices import THESE_PROTEINS


def test_rows_hold_ratios_of_forecast_and_fact(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    monkeypatch.setattr(more_repeats, "DESIGNS", ((3, 2),))
    more_repeats.main(["--worlds", "quiet", "--repetitions", "2", "--draws", "200"])
    rows = capsys.readouterr().out.splitlines()[2:]
    found = [
        re.fullmatch(r"\| quiet \| (\w+) \| 2 \| 3 \| (\d+) \| ([\d.]+) \(.*\) \| ([\d.]+) \|", row) for row in rows
    ]
    assert [row[2] for row in found] == ["6", "12"] and {row[1] for row in found} == {THESE_PROTEINS}
    for row in found:  # nothing but the groups makes a difference there, so that both are nearly the same
        assert float(row[3]) == pytest.approx(1, abs=0.3) and float(row[4]) == pytest.approx(1, abs=0.3), row[0]
