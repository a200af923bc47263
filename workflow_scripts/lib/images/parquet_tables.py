"""Parquet tables, by the optional package pyarrow: columns as text, or as numbers by Id."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Any

import numpy as np

from workflow_scripts.lib.base.errors import UserError
from workflow_scripts.lib.images import format_choices

LARGEST = 2**30  # bytes of a table of text, unpacked
MOST_CELLS = 10**8
_ROWS = 4096  # read at a time


def text_columns(path: Path) -> dict[str, list[str]]:
    """All columns as text, as a CSV table would have them; the elements of a list are separated by |."""
    file, names = _opened(path)
    unpacked = sum(file.metadata.row_group(group).total_byte_size for group in range(file.num_row_groups))
    if unpacked > LARGEST or file.metadata.num_rows * len(names) > MOST_CELLS:
        raise UserError(f"{path} is larger than {LARGEST // 2**30} GiB unpacked; that is no table of images")
    out: dict[str, list[str]] = {name: [] for name in names}
    for batch in file.iter_batches(_ROWS, columns=names):
        for name, column in zip(batch.schema.names, batch.columns, strict=True):
            out[name] += _as_text(column)
    return out


def numbers(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """The column Id as text, and all others as float32 (n, D)."""
    file, names = _opened(path)
    if "Id" not in names:
        raise UserError(f"{path} has no column 'Id'; its columns are: {', '.join(names[:8])}")
    table = file.read(columns=names).to_pandas()
    return table["Id"].astype(str).to_numpy(), table.drop(columns="Id").to_numpy(dtype=np.float32)


def _opened(path: Path) -> tuple[Any, list[str]]:
    """An open file and the names of its columns, without the index that pandas adds."""
    if problem := format_choices.missing_table_package(str(path)):
        raise UserError(problem)
    import pyarrow
    from pyarrow import parquet

    schema = parquet.read_schema(path)
    text = [field.name for field in schema if field.type in (pyarrow.string(), pyarrow.large_string())]
    # Text that repeats is kept once.
    file = parquet.ParquetFile(path, read_dictionary=text)
    return file, [name for name in schema.names if not name.startswith("__index_level_")]


def _as_text(column: Any) -> list[str]:
    if hasattr(column, "dictionary"):
        values = [_cell(value) for value in column.dictionary.to_pylist()]
        return [values[place] if place is not None else "" for place in column.indices.to_pylist()]
    return [_cell(value) for value in column.to_pylist()]


def _cell(value: Any) -> str:
    """A value as it would stand in a CSV table."""
    if value is None or value != value:
        return ""
    if isinstance(value, list):
        return "|".join(map(_cell, value))
    if isinstance(value, float) and value.is_integer():
        return str(int(value))  # whole numbers with a gap in their column are kept as floating point
    return value.isoformat() if isinstance(value, date) else str(value)
