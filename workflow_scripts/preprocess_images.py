"""preprocess_images: from a folder of images and a label table to one image set, images.h5.

The settings describe the files and tables (`lib.images.known_datasets`). Every image is scaled down by area averaging
and written as uint8 (N, C, H, W). This happens piece by piece: pixels of one piece are in memory at a time, and an
interrupted run resumes where it stopped. Further images without labels (--unlabelled-images) follow the labelled ones
with all labels absent; near-duplicates of labelled images among them are left out. Groups are the connected components
of the columns named in the settings (such as gene and antibody) and of near-duplicates (`lib.images.copy_test`).
Invalid input is listed by file and reason. It either stops the run or is left out (left_out.csv).

Example:
    python -m workflow_scripts.preprocess_images --images-dir raw/train --table raw/train.csv \\
        --groups raw/metadata.csv --classes raw/classes.csv --out images.h5 --left-out left_out.csv \\
        --settings '{"size": 32, ...}'
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np

from workflow_scripts.lib.base import files, stage
from workflow_scripts.lib.base.errors import UserError
from workflow_scripts.lib.images import copy_test, further_images, grouping, invalid_input, missing_files, reading_plan
from workflow_scripts.lib.images.image_list import Listed
from workflow_scripts.lib.images.image_set_layout import FURTHER, MISSING
from workflow_scripts.lib.images.image_set_writer import ImageWriter, write_images
from workflow_scripts.lib.images.invalid_input import Fault
from workflow_scripts.lib.images.reading_plan import SHOWN, ReadingPlan
from workflow_scripts.lib.split import missing_channels

LOGGED = 5  # pairs of near-duplicates that the log names


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    out = reading_plan.parser(__doc__)
    out.add_argument("--out", type=Path, required=True, help="the image set to write")
    out.add_argument("--left-out", type=Path, required=True, help="CSV to write of what was left out, and why")
    return out.parse_args(argv)


def preprocess_images(args: argparse.Namespace) -> None:
    """Write the image set `args.out` and the table `args.left_out`."""
    work = reading_plan.plan(args, args.out)
    listed, reader, data = work.listed, work.reader, args.settings["data"]
    named = len(listed.ids) + len({entry.id for entry in listed.bad})
    work.note_files_without_row()
    for note in listed.notes:
        stage.log.info("%s", note)
    bad, faults = list(listed.bad), (args.log or args.out).with_suffix(".bad_input.csv")
    faults.unlink(missing_ok=True)
    attrs = _attributes(args.settings, work.by)
    with files.lock(args.out, lambda holder: stage.log.info("waiting for process %s, which writes the set", holder)):
        tasks, further = work.tasks(), work.further_tasks()
        # The pieces and the set stand side by side until the set is whole.
        reading_plan.check_room(
            args.out, 2 * work.size, [task.path for task in [*tasks, *further] if task.path.is_file()]
        )
        with write_images(args.out, reader.channels, listed.classes, reader.size, attrs) as writer:
            rows, grids = work.write_to(writer, tasks, bad)
            further_rows, further_grids = work.read_further(further, bad)
            if absent := missing_files.problem(work.reader, listed.ids[: work.labelled], bad):
                raise UserError(absent)
            invalid_input.settle(bad, named, data["on_invalid"], data["invalid_limit"], faults)
            ids, least = [listed.ids[row] for row in rows], args.settings["duplicates"]
            pairs = _duplicates(grids, least, ids, attrs, lambda places: work.pixels(tasks, rows[places]))
            if args.unlabelled_images:
                every = np.concatenate([rows, further_rows])
                kept, more = _kept_further(
                    work, grids, further_rows, further_grids, least, attrs,
                    lambda places: work.pixels([*tasks, *further], every[places]),
                )  # fmt: skip
                work.write_further(writer, further, kept)
                pairs += [(len(rows) + one, len(rows) + other) for one, other in more]
                rows = np.concatenate([rows, kept])
            if len(rows) == 0 and any(entry.kind == invalid_input.LACKING for entry in bad):
                raise UserError(
                    "every image lacks a channel (data.missing_channel): set data.files, or take fewer channels"
                )
            listed.keep(rows)
            names = grouping.connected([listed.columns[name] for name in work.by], len(rows), pairs)
            writer.inventory.regroup(names)
            _tell_missing(writer, listed, names, attrs.get(FURTHER, 0))
            invalid_input.write_list(args.left_out, bad + listed.dropped)
            attrs |= {"left_out": len({entry.id for entry in bad + listed.dropped}), "notes": json.dumps(listed.notes)}
        shutil.rmtree(work.folder, ignore_errors=True)
    stage.log.info("%d images, %d groups, %d classes", len(rows), len(set(names)), len(listed.classes))


def _attributes(settings: dict[str, Any], by: list[str]) -> dict[str, Any]:
    """What the set says of itself."""
    data = settings["data"]
    own = data["label_map"]  # in pairs where it is a map of the user's own
    kept = {name: data[name] or "" for name in ("release", "licence", "credit")}
    if data["stack"] != "refuse":
        kept["stack"] = data["stack"]
    return kept | {
        "source": data["origin"],
        "grouped_by": ", ".join(by),
        "intensity": settings["intensity"],
        "white_level": json.dumps(settings["white_level"]),
        "scaling": "area averaging",
        "pixel_size": settings["pixel_size"] or "",
        "label_map": json.dumps(dict(own) if isinstance(own, list) else own),
    }


def _tell_missing(writer: ImageWriter, listed: Listed, groups: list[str], further: int) -> None:
    """Log which channels images lack; refuse a channel that all of them lack. The last images are further ones."""
    present = writer.inventory.present
    if present.all():
        return
    missing_channels.refuse_empty(present, writer.channels)
    if MISSING in listed.columns:
        raise UserError(f"a table has a column {MISSING!r}, which MixLoc fills in itself: rename it")
    stage.log.warning("%s, filled with zeros", missing_channels.described(present, writer.channels))
    labelled = slice(0, len(listed.labels) - further)
    found = missing_channels.association(
        listed.labels[labelled], np.array(groups)[labelled], np.array(writer.inventory.missing)[labelled]
    )
    if text := missing_channels.warning(found):
        stage.log.warning("%s", text)


def _duplicates(
    grids: np.ndarray, least: float, ids: list[str], attrs: dict[str, Any], read: copy_test.Read
) -> list[tuple[int, int]]:
    """Pairs of near-duplicates, told in the log and in the attributes of the set."""
    if not least:
        return []
    pairs = copy_test.near_duplicates(grids, least, read)
    examples = [[ids[one], ids[other], round(likeness, 4)] for one, other, likeness in pairs[:SHOWN]]
    attrs["duplicates"] = json.dumps({"least": least, "pairs": len(pairs), "examples": examples})
    stage.log.info(
        "%d pairs of near-duplicates, joined into common groups (preprocess_images.duplicates = %g)", len(pairs), least
    )
    for one, other, likeness in pairs[:LOGGED]:
        stage.log.info("near-duplicates: %s and %s, correlation of fine detail %.2f", ids[one], ids[other], likeness)
    return [(one, other) for one, other, _ in pairs]


def _kept_further(
    work: ReadingPlan,
    grids: np.ndarray,
    rows: np.ndarray,
    further: np.ndarray,
    least: float,
    attrs: dict[str, Any],
    read: copy_test.Read,
) -> tuple[np.ndarray, list[tuple[int, int]]]:
    """Rows of the further images that are no near-duplicates of labelled ones, and near-duplicates among these."""
    close, pairs = further_images.like_labelled(grids, further, least, read)
    work.listed.dropped += [
        Fault(work.listed.ids[row], "", "near-duplicate", "is a near-duplicate of a labelled image")
        for row in rows[close]
    ]
    kept = rows[~close]
    attrs |= {FURTHER: len(kept), "further_duplicates": int(close.sum()) if least else ""}
    stage.log.info(
        "%d further images without labels; %d more are near-duplicates of labelled ones and left out",
        len(kept), int(close.sum()),
    )  # fmt: skip
    columns = [work.listed.columns[name] for name in work.by]
    nameless = sum(not any(values[row] for values in columns) for row in kept)
    if columns and nameless:
        told = "of %d of them no column (%s) tells the protein, which may be one that is tested"
        stage.log.warning(told, nameless, ", ".join(work.by))
    return kept, pairs


def main(argv: list[str] | None = None) -> int:
    """The program."""
    args = parse_args(argv)
    return stage.run("preprocess_images", args, lambda: preprocess_images(args))


if __name__ == "__main__":
    stage.leave(main())
