"""check_images: what a run would make of one's images, before anything trains.

Reads the tables, the headers of all files and the pixels of some, in seconds. Writes a page: columns and how they were
understood, channels, groups, near-duplicates, classes and their groups in each role, columns that go with the labels,
and the predicted cost. Where the run would stop or could not be judged, the stage says so in one line and fails; the
page is written nevertheless.

Example:
    python -m workflow_scripts.check_images --images-dir raw/train --table raw/train.csv --cost cost.json \\
        --template workflow_scripts/lib/page/check.html --page check.html --out check.json --settings '{"run": ...}'
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path

from workflow_scripts.lib.base import files, stage
from workflow_scripts.lib.base.errors import UserError
from workflow_scripts.lib.images import image_list, missing_files, preview, reading_plan
from workflow_scripts.lib.images.read_image import Reader
from workflow_scripts.lib.page import check_page, data_check, html_page

MARKS = {data_check.GOOD: "ok  ", data_check.DOUBT: "?   ", data_check.STOP: "stop"}


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    out = reading_plan.parser(__doc__)
    out.add_argument("--cost", type=Path, required=True, help="the predicted cost (JSON)")
    out.add_argument("--template", type=Path, required=True, help="the page to fill in")
    out.add_argument("--page", type=Path, required=True, help="page to write, whatever was found")
    out.add_argument("--out", type=Path, required=True, help="findings to write, where the run could be judged (JSON)")
    return out.parse_args(argv)


def check_images(args: argparse.Namespace) -> None:
    """Write the page; raise UserError where the run would stop or could not be judged."""
    settings = args.settings
    reading = settings["preprocess_images"]
    if not args.images_dir.is_dir():
        raise UserError(f"{args.images_dir} is no folder of images (data.images)")
    listed = image_list.from_tables(args.table, args.groups, args.classes, reading["data"])
    by = image_list.group_columns(listed, reading["data"]["group_by"])
    reader = Reader(args.images_dir, reading)
    reader.learn_depth(listed.ids)
    sizes = listed.columns.get("pixel_size", [""] * len(listed.ids))
    seen = preview.look(reader, listed.ids, sizes, int(reading["threads"]))
    absent = missing_files.problem(reader, listed.ids, seen.bad)
    checked = data_check.check(listed, by, seen, settings, absent)
    checked.findings.append(data_check.forecast(json.loads(args.cost.read_text(encoding="utf-8"))))
    context = check_page.context(checked, settings, [path for path in (args.table, args.groups) if path])
    files.write_text(args.page, html_page.render(args.template.read_text(encoding="utf-8"), context))
    for found in checked.findings:
        stage.log.info("%s %s: %s", MARKS[found.level], found.about, found.text)
    stage.log.info("pictures and tables: %s", args.page)
    if checked.problem:
        raise UserError(f"{checked.problem} (see {args.page})")
    files.write_json(args.out, {"findings": [asdict(found) for found in checked.findings]})


def main(argv: list[str] | None = None) -> int:
    """The program."""
    args = parse_args(argv)
    return stage.run("check_images", args, lambda: check_images(args))


if __name__ == "__main__":
    sys.exit(main())
