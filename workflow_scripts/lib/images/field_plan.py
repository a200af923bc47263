"""Plan of cutting a folder of whole fields: which fields the tables list, and how their cells are cut.

New fields, without labels, are cut for the classifiers of a run: as large as the cells of that run."""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from workflow_scripts.lib.base import stage
from workflow_scripts.lib.base.errors import UserError
from workflow_scripts.lib.images import image_list, missing_files, new_images, whole_fields
from workflow_scripts.lib.images.image_list import Listed
from workflow_scripts.lib.images.scaling import positive, size_fault
from workflow_scripts.lib.images.whole_fields import FieldReader, Task, Wanted


@dataclass
class FieldPlan:
    """The fields to cut, as the tables list them."""

    listed: Listed
    tasks: list[Task]
    named: int  # fields that the tables name, with those that cannot be used
    nucleus: Nucleus  # the typical one

    def about(self) -> dict[str, Any]:
        """What the cells of new fields must be cut by."""
        return {"typical_diameter": self.nucleus.diameter, "unit": self.nucleus.unit}


@dataclass(frozen=True)
class Nucleus:
    """The typical nucleus of the fields."""

    diameter: float | None = None  # None: it was not needed
    unit: str | None = None  # µm where the size of a pixel is known, else px


def plan(args: argparse.Namespace, folder: Path) -> FieldPlan:
    """The fields of a folder; what is cut from them goes to `folder`.

    With `args.like`, what a run wrote about its own cells, they are new fields."""
    settings, like = args.settings, None
    if not args.images_dir.is_dir():
        raise UserError(f"{args.images_dir} is no folder of images ({'predict' if args.like else 'data'}.images)")
    cells = settings["cells"]
    reader = FieldReader(args.images_dir, settings | {"data": settings["data"] | {"masks": cells.get("masks")}})
    if args.like:
        about = json.loads(args.like.read_text(encoding="utf-8"))
        like, listed = Nucleus(about["typical_diameter"], about["unit"]), _new(reader, args.table)
    else:
        listed = image_list.from_tables(args.table, args.groups, args.classes, settings["data"])
    named = len(listed.ids) + len({entry.id for entry in listed.bad})
    reader.learn_depth(listed.ids)
    if listed.ids and not any(reader.stamps(listed.ids[0])):
        bad = [fault for name in listed.ids for fault in _missing(reader, name)]
        if absent := missing_files.problem(reader, listed.ids, bad, new=like is not None):
            raise UserError(absent)
    for place in ("images", "records"):
        (folder / place).mkdir(exist_ok=True)
    tasks, nucleus = _tasks(listed, reader, settings, folder, like)
    return FieldPlan(listed, tasks, named, nucleus)


def _new(reader: FieldReader, table: Path | None) -> Listed:
    """Fields without labels: those of a table, or all in the folder that are no masks."""
    found, masks = new_images.listed(reader, table, reader.data), reader.data["masks"]
    taken = {masks.replace("{id}", name) for name in found.ids} if masks and table is None else set()
    rows = [row for row, name in enumerate(found.ids) if not taken.intersection(reader.files(name))]
    faults = {row: text for row in rows if (text := size_fault(found.pixel_sizes[row]))}
    bad = [image_list.Fault(found.ids[row], str(table), "pixel size", text) for row, text in faults.items()]
    rows = [row for row in rows if row not in faults]
    sizes = [found.pixel_sizes[row] for row in rows]
    labels = np.zeros((len(rows), 0), dtype=np.uint8)
    return Listed([found.ids[row] for row in rows], labels, [], {"pixel_size": sizes}, bad)


def _missing(reader: FieldReader, name: str) -> list[Any]:
    return [] if any(reader.stamps(name)) else [image_list.Fault(name, "", "missing file", "is missing")]


def _tasks(
    listed: Listed, reader: FieldReader, settings: dict[str, Any], folder: Path, like: Nucleus | None
) -> tuple[list[Task], Nucleus]:
    """How each field is cut, and the typical nucleus by which this was decided."""
    wanted, sizes = _wanted(settings), _pixel_sizes(listed, settings)
    known = all(sizes)
    column = repr(settings["data"]["columns"]["pixel_size"])
    if not known and (wanted.micrometres or settings["pixel_size"]):
        # Another setting of `data` would make the whole run again.
        give = (
            "set data.pixel_size, or give a column of them" if like is None else f"give predict.table a column {column}"
        )
        raise UserError(f"the size of a pixel is not known: {give}")
    unit = "µm" if known else "px"
    if like is not None and like.diameter and wanted.learns() and like.unit != unit:
        raise UserError(
            f"nuclei of the run were measured in {like.unit}, these in {unit}: "
            + (f"leave the column {column} out of predict.table" if known else f"give predict.table a column {column}")
        )
    pixels = [size or 1.0 for size in sizes] if known else [1.0] * len(sizes)
    typical = like.diameter if like is not None else None
    if typical is None and wanted.learns() and listed.ids:
        channel = None if wanted.masks else wanted.nucleus_channel
        typical = whole_fields.learned_diameter(reader, listed.ids, pixels, channel)
        stage.log.info("typical nucleus: %.3g %s across", typical, unit)
    cuts = [wanted.cut(pixel, (typical or 1.0) / pixel) for pixel in pixels]
    nucleus = Nucleus(typical, unit) if typical else Nucleus()
    smallest = min((cut.side for cut in cuts), default=0)
    if settings["pixel_size"] is None and 0 < smallest < settings["size"]:
        raise UserError(
            f"cells of {smallest} px a side are smaller than preprocess_images.size = {settings['size']}: "
            + ("set data.cells.size, or a smaller preprocess_images.size" if like is None else "take finer images")
        )
    return [Task(reader, name, cut, folder) for name, cut in zip(listed.ids, cuts, strict=True)], nucleus


def _wanted(settings: dict[str, Any]) -> Wanted:
    cells, scaled = settings["cells"], settings["pixel_size"]
    given = {name: cells.get(name) for name in ("nucleus_channel", "size", "diameter", "smallest", "largest")}
    shown = settings["size"] * scaled if scaled else None
    return Wanted(micrometres=cells.get("unit") == "um", masks=bool(cells.get("masks")), shown=shown, **given)


def _pixel_sizes(listed: Listed, settings: dict[str, Any]) -> list[float | None]:
    told = listed.columns.get("pixel_size", [""] * len(listed.ids))
    for name, text in zip(listed.ids, told, strict=True):
        if fault := size_fault(text):
            raise UserError(f"field {name!r} {fault}")
    return [positive(text) or settings["data"]["pixel_size"] for text in told]
