"""lib.images.parquet_tables: a Parquet table says what a CSV table of the same values says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.helpers.image_folders import settings
from workflow_scripts.lib.base.errors import UserError
from workflow_scripts.lib.images import format_choices, image_list, parquet_tables, user_tables

ROWS = {
    "Id": ["a", "b", "c"],
    "Target": ["x|y", "x", "y"],
    "gene": ["G1", None, "G1"],
    "plate": pd.Categorical(["p", "q", "p"]),
    "count": [1, None, 3],
    "good": [True, False, True],
    "share": [0.5, np.nan, 2.0],
    "day": pd.to_datetime(["2020-01-01 00:00:00"] * 3),
}


@pytest.fixture
def table(tmp_path: Path) -> Path:
    pytest.importorskip("pyarrow")
    pd.DataFrame(ROWS).to_parquet(tmp_path / "t.parquet", engine="pyarrow")
    return tmp_path / "t.parquet"


def test_values_come_as_text(table: Path) -> None:
    found = user_tables.read_table(table)
    assert found.columns == {
        "Id": ["a", "b", "c"],
        "Target": ["x|y", "x", "y"],
        "gene": ["G1", "", "G1"],
        "plate": ["p", "q", "p"],
        "count": ["1", "", "3"],
        "good": ["True", "False", "True"],
        "share": ["0.5", "", "2"],
        "day": ["2020-01-01T00:00:00"] * 3,
    }
    assert found.where(1) == "t.parquet, row 2"


def test_it_lists_the_images_that_the_csv_lists(table: Path) -> None:
    frame = pd.DataFrame(ROWS).assign(Target=[["x", "y"], ["x"], ["y"]])
    frame.set_index("Id", drop=False).to_parquet(table, engine="pyarrow")
    pd.DataFrame(ROWS)[["Id", "Target", "gene"]].to_csv(table.with_suffix(".csv"), index=False)
    data = settings()["data"]
    one, other = (image_list.from_tables(table.with_suffix(end), None, None, data) for end in (".parquet", ".csv"))
    assert (one.ids, one.classes, one.labels.tolist()) == (other.ids, other.classes, other.labels.tolist())
    assert one.columns["gene"] == other.columns["gene"]


def test_damaged_and_too_large_tables_are_refused_in_one_line(table: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = table.read_bytes()
    for content in (b"", b"PAR1", whole[:-1], whole[: len(whole) // 2], b"x" * 100):
        table.write_bytes(content)
        with pytest.raises(UserError, match=r"t\.parquet cannot be read as a table: ") as caught:
            user_tables.read_table(table)
        assert str(caught.value).isprintable()
    table.write_bytes(whole)
    monkeypatch.setattr(parquet_tables, "MOST_CELLS", 20)
    with pytest.raises(UserError, match="no table of images"):
        user_tables.read_table(table)


def test_a_missing_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(format_choices, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"t\.parquet needs the package pyarrow: pip install -r requirements-formats"):
        user_tables.read_table(tmp_path / "t.parquet")
