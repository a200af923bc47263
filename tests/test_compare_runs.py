"""compare_runs: equal tables, renamed columns, another number, a missing table."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import compare_runs


@pytest.fixture
def runs(tmp_path: Path) -> tuple[Path, Path]:
    """The same two rows of metrics.csv before and after columns were renamed."""
    for name, header in (("before", "strategy,plan,value"), ("after", "arm,synthetic_set,value")):
        table = tmp_path / name / "ci" / "metrics.csv"
        table.parent.mkdir(parents=True)
        table.write_text(f"{header}\npool,as_train,0.25\nreal_only,,0.5\n", encoding="utf-8")
    return tmp_path / "before", tmp_path / "after"


def compared(runs: tuple[Path, Path]) -> int:
    return compare_runs.main([*map(str, runs), "--runs", "ci"])


def test_renamed_columns_of_equal_numbers_are_equal(runs, capsys) -> None:
    assert compared(runs) == 0
    assert capsys.readouterr().out == "ci/metrics.csv: equal, 2 rows\n"


def test_a_renamed_word_in_a_cell_is_a_difference(runs) -> None:
    table = runs[1] / "ci" / "metrics.csv"
    table.write_text(table.read_text().replace("pool", "strategy"))
    assert compared(runs) == 1


@pytest.mark.parametrize(("old", "new"), [("0.5", "0.5000001"), ("real_only,,0.5\n", "")])
def test_the_first_line_that_differs_is_told(runs, capsys, old: str, new: str) -> None:
    table = runs[1] / "ci" / "metrics.csv"
    table.write_text(table.read_text().replace(old, new))
    assert compared(runs) == 1
    assert "ci/metrics.csv: line 3: 'real_only,,0.5' became" in capsys.readouterr().out


def test_a_table_that_is_missing_is_a_difference(runs, capsys) -> None:
    (runs[1] / "ci" / "metrics.csv").unlink()
    assert compared(runs) == 1
    assert "metrics.csv is missing" in capsys.readouterr().out


def test_nothing_to_compare_is_no_success(tmp_path: Path, capsys) -> None:
    assert compared((tmp_path, tmp_path)) == 1
    assert "ci: nothing to compare in" in capsys.readouterr().out
