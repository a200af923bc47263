"""Tables of cells that were cut out of whole fields, in the layout that a folder's tables have.

A cell has the row of its field under an Id of its own, and one more column: the field that it was cut from."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from workflow_scripts.lib.base.errors import UserError
from workflow_scripts.lib.images import user_tables, whole_fields
from workflow_scripts.lib.images.known_datasets import CELL_FILES, CUT_FROM
from workflow_scripts.lib.images.nuclei import KEPT
from workflow_scripts.lib.images.user_tables import UserTable
from workflow_scripts.lib.images.whole_fields import Cells, Task

NUCLEI = ("field", "cell", "row", "column", "area", "verdict")


def write(
    folder: Path, fields: Sequence[tuple[Task, Cells]], table: Path | None, groups: Path | None, id_name: str
) -> None:
    """Write the tables of all cells, and that of all nuclei, into a folder."""
    cells = {task.id: cut.names(task.id) for task, cut in fields}
    if table is not None:
        _write_rows(folder / "table.csv", user_tables.read_table(table), id_name, cells)
    else:
        rows = ([cell, field] for field, own in cells.items() for cell in own)
        _write_csv(folder / "table.csv", [id_name, CUT_FROM], rows)
    if groups is not None:
        _write_rows(folder / "groups.csv", user_tables.read_table(groups), id_name, cells)
    _write_csv(folder / "nuclei.csv", NUCLEI, _nuclei(fields))


def keep_images(folder: Path, fields: Iterable[tuple[Task, Cells]]) -> None:
    """Delete images that are of no cell: those of an earlier way of cutting, or of a field that is no more."""
    wanted = {CELL_FILES.replace("{id}", name) for task, cut in fields for name in cut.names(task.id)}
    for path in folder.iterdir():
        if path.name not in wanted:
            path.unlink()


def _write_rows(path: Path, table: UserTable, id_name: str, cells: dict[str, list[str]]) -> None:
    """Each row of a table once for each cell of its field; rows that say the same twice count once."""
    ids, own = table.need(id_name), table.find(id_name)
    if table.find(CUT_FROM):
        raise UserError(f"{table.path} has a column {CUT_FROM!r}, which names the field of each cell: rename it")
    first: dict[str, int] = {}
    for row, name in enumerate(ids):
        first.setdefault(name, row)
    names = list(table.columns)
    rows = [
        [cell if name == own else table.columns[name][first[field]] for name in names] + [field]
        for field, own_cells in cells.items()
        if field in first
        for cell in own_cells
    ]
    _write_csv(path, [*names, CUT_FROM], rows)


def _nuclei(fields: Iterable[tuple[Task, Cells]]) -> Iterable[list[Any]]:
    for task, cut in fields:
        for nucleus in cut.found:
            cell = whole_fields.cell_id(task.id, nucleus) if nucleus.verdict == KEPT else ""
            yield [task.id, cell, f"{nucleus.row:.1f}", f"{nucleus.column:.1f}", f"{nucleus.area:.0f}", nucleus.verdict]


def _write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as handle:
        writer = csv.writer(handle, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)
