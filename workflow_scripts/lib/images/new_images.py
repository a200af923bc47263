"""New images for a trained classifier: their Ids and groups from a folder or a table, and their pixels in blocks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from workflow_scripts.lib.base.errors import UserError
from workflow_scripts.lib.images import grouping, image_list, read_image, user_tables
from workflow_scripts.lib.images.invalid_input import Fault
from workflow_scripts.lib.images.known_datasets import CUT_FROM, GROUP_BY
from workflow_scripts.lib.images.read_image import Reader


@dataclass
class NewImages:
    """Images without known labels: their Ids, groups and pixel sizes."""

    ids: list[str]
    groups: list[str]  # empty: nothing says which images belong together
    pixel_sizes: list[str]  # µm a pixel, empty where not known


def listed(reader: Reader, table: Path | None, data: dict[str, Any]) -> NewImages:
    """The images of a table with a column of Ids, or all in the reader's folder."""
    if table is None:
        found = read_image.files_without_row(reader, set())
        ids = sorted(name for name in found if image_list.id_problem(name) is None)
        if not ids:
            pattern = ", ".join(reader.files("{id}"))
            raise UserError(f"{reader.folder} holds no file of the form {pattern} (data.files)")
        return NewImages(ids, [], [""] * len(ids))
    rows = user_tables.read_table(table)
    ids = rows.need(data["columns"]["id"])
    if not ids:
        raise UserError(f"{table} has no rows")
    problem = next((text for text in map(image_list.id_problem, ids) if text), None)
    if problem or len(set(ids)) != len(ids):
        raise UserError(f"{table}: {problem or 'an Id stands there twice'}")
    sizes = rows.find(data["columns"]["pixel_size"])
    kinds = GROUP_BY if data["group_by"] is None else data["group_by"]  # of none each image is a group
    named = [rows.find(data["columns"].get(kind, kind)) for kind in (*kinds, CUT_FROM)]
    by = [rows.columns[name] for name in named if name is not None]
    groups = _named(grouping.connected(by, len(ids)), by) if by else []
    return NewImages(ids, groups, rows.columns[sizes] if sizes else [""] * len(ids))


def _named(groups: list[str], by: list[list[str]]) -> list[str]:
    """Groups under the first value that names them, as the table has it."""
    shown: dict[str, str] = {}
    for row, group in enumerate(groups):
        shown.setdefault(group, next((values[row] for values in by if values[row]), group))
    # Two groups may share a value of different columns: these keep the names that tell them apart.
    twice = {name for name, count in Counter(shown.values()).items() if count > 1}
    return [group if shown[group] in twice else shown[group] for group in groups]


def blocks(
    reader: Reader, ids: Sequence[str], size: int, threads: int, bad: list[Fault], pixel_sizes: Sequence[str] = ()
) -> Iterator[tuple[list[str], np.ndarray]]:
    """Ids and pixels of the images that can be read, a block at a time; what is wrong with the others goes to `bad`."""
    told = pixel_sizes or [""] * len(ids)
    with ThreadPoolExecutor(threads) as pool:
        for start in range(0, len(ids), size):
            names = ids[start : start + size]
            read = list(zip(names, pool.map(reader.read, names, told[start : start + size]), strict=True))
            bad += [entry for _, (_, faults) in read for entry in faults]
            good = [(name, pixels) for name, (pixels, _) in read if pixels is not None]
            if good:
                yield [name for name, _ in good], np.stack([pixels for _, pixels in good])
