"""Further images that came without labels: which there are, and which of them are too like a labelled one.

Their labels are not read, even where a table has some: in the image set they are absent. A near-duplicate of a labelled
image would carry a test image into a training, in the folds that test it. So it is left out, in all folds."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from workflow_scripts.lib.images import grouping, image_list, user_tables
from workflow_scripts.lib.images.copy_test import Read, near_duplicates
from workflow_scripts.lib.images.image_list import Listed
from workflow_scripts.lib.images.image_set_layout import LABELLED
from workflow_scripts.lib.images.invalid_input import Fault


def from_table(path: Path, data: dict[str, Any], classes: list[str]) -> Listed:
    """Images of a table without labels; a column of labels, if it has one, is not read."""
    table = user_tables.read_table(path)
    ids = table.need(data["columns"]["id"])
    first, others = image_list.rows_of(ids)
    faults = {row: image_list.row_fault(table, row, others.get(row, []), ids[row]) for row in first}
    bad = [
        Fault(ids[row] or f"(line {table.lines[row]})", table.where(row), *fault)
        for row, fault in faults.items()
        if fault
    ]
    columns, notes = image_list.read_columns(table, data)
    out = Listed(ids, np.zeros((len(ids), len(classes)), dtype=np.uint8), classes, columns, bad, notes=notes)
    out.keep([row for row, fault in faults.items() if not fault])
    return out


def from_names(names: Iterable[str], classes: list[str]) -> Listed:
    """Images of which nothing but their Ids is known."""
    ids = sorted(name for name in names if image_list.id_problem(name) is None)
    return Listed(ids, np.zeros((len(ids), len(classes)), dtype=np.uint8), classes, {})


def leave_out_labelled(labelled: Listed, further: Listed) -> None:
    """Leave out those whose Id stands among the labelled images: the same image, or one that cannot be told from it."""
    known = {*labelled.ids, *(entry.id for entry in [*labelled.bad, *labelled.dropped])}
    labelled.dropped += [
        Fault(name, "", "labelled already", "stands in the table of labelled images too")
        for name in further.ids
        if name in known
    ]
    further.keep([row for row, name in enumerate(further.ids) if name not in known])


def append(labelled: Listed, further: Listed) -> None:
    """Append further images to the labelled ones, with a column that tells which are which."""
    counts = (len(labelled.ids), len(further.ids))
    names = dict.fromkeys([*labelled.columns, *further.columns])
    blank = tuple([""] * count for count in counts)
    labelled.columns = {
        name: labelled.columns.get(name, blank[0]) + further.columns.get(name, blank[1]) for name in names
    }
    if LABELLED in names:
        labelled.notes.append(f"column {LABELLED!r} is left out: it says which images came without labels")
    labelled.columns[LABELLED] = ["1"] * counts[0] + ["0"] * counts[1]
    labelled.ids = labelled.ids + further.ids
    labelled.labels = np.concatenate([labelled.labels, further.labels])
    labelled.bad += further.bad
    labelled.notes += further.notes


def like_labelled(
    grids: np.ndarray, further: np.ndarray, least: float, read: Read
) -> tuple[np.ndarray, list[tuple[int, int]]]:
    """Which further images (m,) are near-duplicates of a labelled one, directly or through others of them.

    From the perceptual hashes of labelled (n, ...) and of further images, and the pixels that `read` brings. Also
    returns the pairs among the images that are left, by their places there; `least` = 0 looks for none."""
    if not least or not len(further):
        return np.zeros(len(further), dtype=bool), []
    count = len(grids) + len(further)
    pairs = [(one, other) for one, other, _ in near_duplicates(np.concatenate([grids, further]), least, read)]
    pairs = [pair for pair in pairs if pair[1] >= len(grids)]  # labelled ones are compared among themselves elsewhere
    member = np.unique(grouping.connected([], count, pairs), return_inverse=True)[1]
    close = np.isin(member[len(grids) :], member[: len(grids)])
    place = np.cumsum(~close) - 1
    left = [(one - len(grids), other - len(grids)) for one, other in pairs if one >= len(grids)]
    return close, [(int(place[one]), int(place[other])) for one, other in left if not close[one]]
