"""Plan of cutting a folder of whole fields: which fields the tables list, and how their cells are cut."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from workflow_scripts.lib.base import stage
from workflow_scripts.lib.base.errors import UserError
from workflow_scripts.lib.images import image_list, missing_files, whole_fields
from workflow_scripts.lib.images.image_list import Listed
from workflow_scripts.lib.images.scaling import positive, size_fault
from workflow_scripts.lib.images.whole_fields import FieldReader, Task, Wanted


@dataclass
class FieldPlan:
    """The fields to cut, as the tables list them."""

    listed: Listed
    tasks: list[Task]
    named: int  # fields that the tables name, with those that cannot be used


def plan(args: argparse.Namespace, folder: Path) -> FieldPlan:
    """The fields of a folder; what is cut from them goes to `folder`."""
    settings = args.settings
    if not args.images_dir.is_dir():
        raise UserError(f"{args.images_dir} is no folder of images (data.images)")
    listed = image_list.from_tables(args.table, args.groups, args.classes, settings["data"])
    named = len(listed.ids) + len({entry.id for entry in listed.bad})
    cells = settings["cells"]
    reader = FieldReader(args.images_dir, settings | {"data": settings["data"] | {"masks": cells.get("masks")}})
    reader.learn_depth(listed.ids)
    if listed.ids and not any(reader.stamps(listed.ids[0])):
        bad = [fault for name in listed.ids for fault in _missing(reader, name)]
        if absent := missing_files.problem(reader, listed.ids, bad):
            raise UserError(absent)
    for place in ("images", "records"):
        (folder / place).mkdir(exist_ok=True)
    return FieldPlan(listed, _tasks(listed, reader, settings, folder), named)


def _missing(reader: FieldReader, name: str) -> list[Any]:
    return [] if any(reader.stamps(name)) else [image_list.Fault(name, "", "missing file", "is missing")]


def _tasks(listed: Listed, reader: FieldReader, settings: dict[str, Any], folder: Path) -> list[Task]:
    wanted, sizes = _wanted(settings), _pixel_sizes(listed, settings)
    known = all(sizes)
    if not known and (wanted.micrometres or settings["pixel_size"]):
        raise UserError("the size of a pixel is not known: set data.pixel_size, or give a column of them")
    pixels = [size or 1.0 for size in sizes] if known else [1.0] * len(sizes)
    typical = 1.0
    if wanted.learns() and listed.ids:
        channel = None if wanted.masks else wanted.nucleus_channel
        typical = whole_fields.learned_diameter(reader, listed.ids, pixels, channel)
        stage.log.info("typical nucleus: %.3g %s across", typical, "µm" if known else "px")
    cuts = [wanted.cut(pixel, typical / pixel) for pixel in pixels]
    smallest = min((cut.side for cut in cuts), default=0)
    if settings["pixel_size"] is None and 0 < smallest < settings["size"]:
        raise UserError(
            f"cells of {smallest} px a side are smaller than preprocess_images.size = {settings['size']}: "
            "set data.cells.size, or a smaller preprocess_images.size"
        )
    return [Task(reader, name, cut, folder) for name, cut in zip(listed.ids, cuts, strict=True)]


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
