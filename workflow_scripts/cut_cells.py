"""cut_cells: single cells out of whole fields of view, as a folder of images with a table.

Nuclei are found in one channel, or come from the user's masks. A square around each becomes an image of its own, with
the labels and columns of its field. Nuclei that touch the border, are too small or too large, or lie too near to the
border for a whole square are left out. Fields are cut one by one, so an interrupted run resumes where it stopped.

Writes into --out:
    images/        an OME-TIFF file for each cell, with the pixels of the field
    table.csv      the table of the fields with a row for each cell, and the field that it was cut from (cut_from)
    groups.csv     the same of the table of groups, where there is one
    nuclei.csv     every nucleus: field, place, area, and whether it was kept or why not
    left_out.csv   fields that could not be used, and why
    about.json     the typical nucleus, by which new fields are cut as these were
    index.html     some fields with the outlines of their nuclei, and some cells

With --like, the about.json of a run, the fields are new ones for its classifiers. They need neither labels nor a table.

Example:
    python -m workflow_scripts.cut_cells --images-dir raw/fields --table raw/fields.csv --out cells \\
        --template workflow_scripts/lib/page/fields.html --settings '{"cells": {"nucleus_channel": "blue"}, ...}'
"""

from __future__ import annotations

import argparse
import shutil
from collections import Counter
from pathlib import Path

from workflow_scripts.lib.base import files, stage
from workflow_scripts.lib.base.errors import UserError
from workflow_scripts.lib.base.progress import Progress
from workflow_scripts.lib.images import cell_tables, field_plan, invalid_input, reading_plan, whole_fields
from workflow_scripts.lib.images.nuclei import KEPT
from workflow_scripts.lib.images.whole_fields import Cells, Task
from workflow_scripts.lib.page import fields_page, html_page


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    out = reading_plan.parser(__doc__, table_needed=False)
    out.add_argument("--like", type=Path, help="about.json of the run whose classifiers the cells are for")
    out.add_argument("--template", type=Path, required=True, help="the page to fill in")
    out.add_argument("--out", type=Path, required=True, help="folder to write")
    args = out.parse_args(argv)
    if not args.like and not args.table:
        out.error("--table is needed, unless the fields are new ones (--like)")
    return args


def cut_cells(args: argparse.Namespace) -> None:
    """Write the folder `args.out`."""
    folder = files.private_folder(args.out.with_name(f".{args.out.name}.fields"))
    with files.lock(args.out, lambda holder: stage.log.info("waiting for process %s, which cuts the cells", holder)):
        plan = field_plan.plan(args, folder)
        cut = _cut(plan.tasks, int(args.settings["threads"]))
        bad = [*plan.listed.bad, *(fault for cells in cut for fault in cells.bad)]
        data, faults = args.settings["data"], (args.log or args.out).with_suffix(".bad_input.csv")
        faults.unlink(missing_ok=True)
        if args.like:
            invalid_input.leave_out(bad, plan.named, faults)
        else:
            invalid_input.settle(bad, plan.named, data["on_invalid"], data["invalid_limit"], faults)
        fields = [(task, cells) for task, cells in zip(plan.tasks, cut, strict=True) if not cells.bad]
        _tell(fields, new=args.like is not None)
        with files.atomic(args.out) as part:
            part.mkdir()
            cell_tables.write(part, fields, args.table, args.groups, data["columns"]["id"])
            invalid_input.write_list(part / "left_out.csv", bad + plan.listed.dropped)
            files.write_json(part / "about.json", plan.about())
            context = fields_page.context(fields, args.settings["run"])
            files.write_text(part / "index.html", html_page.render(args.template.read_text(encoding="utf-8"), context))
            cell_tables.keep_images(folder / "images", fields)
            (folder / "images").replace(part / "images")
        shutil.rmtree(folder, ignore_errors=True)
    stage.log.info("pictures of the outlines: %s", args.out / "index.html")


def _cut(tasks: list[Task], processes: int) -> list[Cells]:
    """The cells of all fields, in order."""
    out: list[Cells] = []
    with Progress("fields", len(tasks)) as bar:
        for cells in whole_fields.made(tasks, processes):
            out.append(cells)
            kept = sum(nucleus.verdict == KEPT for each in out for nucleus in each.found)
            bar.update(len(out), cells=kept, bad=sum(bool(each.bad) for each in out))
    return out


def _tell(fields: list[tuple[Task, Cells]], new: bool) -> None:
    """Log how many cells were cut out and why others were not; stop where there are none."""
    counts = Counter(nucleus.verdict for _, cells in fields for nucleus in cells.found)
    kept = counts.pop(KEPT, 0)
    others = ", ".join(f"{count} × {reason}" for reason, count in counts.most_common())
    side = fields[0][0].cut.side if fields else 0
    if not kept:
        advice = (
            f"set data.cells.size below {side} px if they are too near to the border, data.cells.smallest or .largest "
            "if they are of another size"
        )
        if new:
            advice = f"cells of the run are {side} px a side"
        raise UserError(f"no cell is left of {len(fields)} fields ({others}): {advice}")
    stage.log.info("%d cells of %d fields, %d px a side; left out: %s", kept, len(fields), side, others or "none")


def main(argv: list[str] | None = None) -> int:
    """The program."""
    args = parse_args(argv)
    return stage.run("cut_cells", args, lambda: cut_cells(args))


if __name__ == "__main__":
    stage.leave(main())
