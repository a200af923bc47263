"""preprocess_images: from a folder of images and a label table to one image set, images.h5.

The settings describe the files and tables (`lib.images.known_datasets`). Every image is scaled down by area averaging
and written as uint8 (N, C, H, W). This happens piece by piece: pixels of one piece are in memory at a time, and an
interrupted run resumes where it stopped. Groups are the connected components of the columns named in the settings (such
as gene and antibody) and of near-duplicates, which a perceptual hash over all channels finds. Invalid input is listed
by file and reason. It either stops the run or is left out (left_out.csv).

Example:
    python -m workflow_scripts.preprocess_images --images-dir raw/train --table raw/train.csv \\
        --groups raw/metadata.csv --classes raw/classes.csv --out images.h5 --left-out left_out.csv \\
        --settings '{"size": 32, ...}'
"""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from workflow_scripts.lib.base import arguments, files, stage
from workflow_scripts.lib.base.errors import UserError
from workflow_scripts.lib.base.progress import Progress
from workflow_scripts.lib.images import chunks, grouping, image_list, invalid_input, read_image, user_tables
from workflow_scripts.lib.images.duplicates import GRID, near_duplicates
from workflow_scripts.lib.images.image_list import Listed
from workflow_scripts.lib.images.image_set_writer import ImageWriter, write_images
from workflow_scripts.lib.images.invalid_input import Fault
from workflow_scripts.lib.images.known_datasets import GROUP_BY

SHOWN = 20  # examples in a message or an attribute


def shared_parser(doc: str) -> argparse.ArgumentParser:
    """The command line that this stage shares with preprocess_shard."""
    out = arguments.parser(doc)
    out.add_argument("--images-dir", type=Path, required=True, help="folder with the image files")
    out.add_argument("--table", type=Path, required=True, help="CSV with the ids and labels of the images")
    out.add_argument("--groups", type=Path, help="CSV with further columns by Id, such as those to group by")
    out.add_argument("--classes", type=Path, help="CSV with number and name; without it names come from the settings")
    return out


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    out = shared_parser(__doc__)
    out.add_argument("--out", type=Path, required=True, help="the image set to write")
    out.add_argument("--left-out", type=Path, required=True, help="CSV to write of what was left out, and why")
    return out.parse_args(argv)


@dataclass
class ReadingPlan:
    """The images to read, as the tables list them, and the folder that keeps what was read."""

    listed: Listed
    by: list[str]  # columns that decide which images belong together
    reader: read_image.Reader
    folder: Path  # of the pieces

    @property
    def size(self) -> int:
        """Bytes of all pixels."""
        return len(self.listed.ids) * len(self.reader.channels) * self.reader.size**2

    def tasks(self) -> list[chunks.Task]:
        """The pieces in which the images are read."""
        sizes = self.listed.columns.get("pixel_size", [""] * len(self.listed.ids))
        return chunks.tasks(self.reader, self.listed.ids, sizes, self.folder)


def plan(args: argparse.Namespace, out: Path) -> ReadingPlan:
    """The images of the set `out`."""
    data = args.settings["data"]
    if not args.images_dir.is_dir():
        raise UserError(f"{args.images_dir} is no folder of images (data.images)")
    listed = list_images(args.table, args.groups, args.classes, data)
    by = group_columns(listed, data["group_by"])
    reader = read_image.Reader(args.images_dir, args.settings)
    reader.learn_depth(listed.ids)
    return ReadingPlan(listed, by, reader, files.private_folder(out.with_name(f".{out.name}.pieces")))


def preprocess_images(args: argparse.Namespace) -> None:
    """Write the image set `args.out` and the table `args.left_out`."""
    work = plan(args, args.out)
    listed, reader, data = work.listed, work.reader, args.settings["data"]
    named = len(listed.ids) + len({entry.id for entry in listed.bad})
    _note_files_without_row(reader, listed)
    for note in listed.notes:
        stage.log.info("%s", note)
    bad, faults = list(listed.bad), (args.log or args.out).with_suffix(".bad_input.csv")
    faults.unlink(missing_ok=True)
    attrs = _attributes(args.settings, work.by)
    with files.lock(args.out, lambda holder: stage.log.info("waiting for process %s, which writes the set", holder)):
        tasks = work.tasks()
        # The pieces and the set stand side by side until the set is whole.
        check_room(args.out, 2 * work.size, [task.path for task in tasks if task.path.is_file()])
        with write_images(args.out, reader.channels, listed.classes, reader.size, attrs) as writer:
            rows, grids = _read_all(writer, work, tasks, bad)
            invalid_input.settle(bad, named, data["on_invalid"], data["invalid_limit"], faults)
            listed.keep(rows)
            pairs = _duplicates(grids, args.settings["duplicates"], listed.ids, attrs)
            names = grouping.connected([listed.columns[name] for name in work.by], len(rows), pairs)
            writer.inventory.regroup(names)
            invalid_input.write_list(args.left_out, bad + listed.dropped)
            attrs |= {"left_out": len({entry.id for entry in bad + listed.dropped}), "notes": json.dumps(listed.notes)}
        shutil.rmtree(work.folder, ignore_errors=True)
    stage.log.info("%d images, %d groups, %d classes", len(rows), len(set(names)), len(listed.classes))


def list_images(table: Path, groups: Path | None, classes: Path | None, data: dict[str, Any]) -> Listed:
    """What the tables say, with labels mapped."""
    names = user_tables.read_classes(classes) if classes else list(data["class_names"] or [])
    labelled, further = user_tables.read_table(table), user_tables.read_table(groups) if groups else None
    image_list.check_columns([labelled] if further is None else [labelled, further], data)
    listed = image_list.read_images(labelled, data, names)
    if further is not None:
        image_list.join(listed, further, data)
    if data["id_parts"]:
        image_list.add_id_parts(listed, data["id_parts"])
    image_list.map_labels(listed, data)
    return listed


def group_columns(listed: Listed, wanted: list[str] | None) -> list[str]:
    """The columns that decide which images belong together: those asked for, or else those that are known."""
    if wanted is None:
        return [name for name in GROUP_BY if any(listed.columns.get(name, ()))]
    absent = [name for name in wanted if name not in listed.columns]
    if absent:
        known = ", ".join(sorted(listed.columns)) or "none"
        raise UserError(f"data.group_by names {absent[0]!r}, which is no column; there are: {known}")
    blank = [name for name in wanted if not any(listed.columns[name])]
    if blank:
        raise UserError(f"data.group_by names {blank[0]!r}, a column without any value: it groups nothing")
    return list(wanted)


def _read_all(
    writer: ImageWriter, work: ReadingPlan, tasks: list[chunks.Task], bad: list[Fault]
) -> tuple[np.ndarray, np.ndarray]:
    """Read all images and write the valid ones; returns their rows and grids. The faults of the others go to `bad`."""
    listed, reader = work.listed, work.reader
    left = sum(task.path.is_file() for task in tasks)
    if 0 < left < len(tasks):
        stage.log.info("going on from %d pieces of %d", left, len(tasks))
    rows = [np.zeros(0, dtype=np.int64)]
    grids = [np.zeros((0, len(reader.channels), GRID, GRID), dtype=np.uint8)]
    with Progress("images", len(listed.ids)) as bar:
        for task, piece in zip(tasks, chunks.made(tasks, int(reader.settings["threads"])), strict=True):
            bad += piece.bad
            bar.update(task.first + len(task.ids), bad=len(bad))
            if bad and reader.data["on_invalid"] == "fail":
                # The list of what is wrong is still to become whole; the set will not be written.
                continue
            chosen = piece.rows.tolist()
            columns = {name: [values[row] for row in chosen] for name, values in listed.columns.items()}
            ids = [listed.ids[row] for row in chosen]
            writer.append(piece.images, listed.labels[piece.rows], ids, ids, columns)
            rows.append(piece.rows)
            grids.append(piece.grids)
    return np.concatenate(rows), np.concatenate(grids)


def _attributes(settings: dict[str, Any], by: list[str]) -> dict[str, Any]:
    """What the set says of itself."""
    data = settings["data"]
    own = data["label_map"]  # in pairs where it is a map of the user's own
    kept = {name: data[name] or "" for name in ("release", "licence", "credit")}
    return kept | {
        "source": data["origin"],
        "grouped_by": ", ".join(by),
        "intensity": settings["intensity"],
        "white_level": json.dumps(settings["white_level"]),
        "scaling": "area averaging",
        "pixel_size": settings["pixel_size"] or "",
        "label_map": json.dumps(dict(own) if isinstance(own, list) else own),
    }


def check_room(out: Path, size: int, kept: Iterable[Path]) -> None:
    """A full disk is better told before hours of reading than after; what is `kept` need not be written again."""
    free, needed = shutil.disk_usage(out.parent).free, size - sum(path.stat().st_blocks * 512 for path in kept)
    if free < needed:
        raise UserError(
            f"no room to write {out}: about {needed / 1e9:.2f} GB are needed to make it, {free / 1e9:.2f} GB are free"
        )


def _note_files_without_row(reader: read_image.Reader, listed: Listed) -> None:
    known = {*listed.ids, *(entry.id for entry in [*listed.bad, *listed.dropped])}
    without = sorted(islice(read_image.files_without_row(reader, known), 100_000))
    if without:
        shown = ", ".join(map(invalid_input.printable, without[:SHOWN])) + (" …" if len(without) > SHOWN else "")
        listed.notes.append(f"files of {len(without)} Ids have no row in the table and are not used: {shown}")


def _duplicates(grids: np.ndarray, least: float, ids: list[str], attrs: dict[str, Any]) -> list[tuple[int, int]]:
    """Pairs of near-duplicates, told in the log and in the attributes of the set."""
    if not least:
        return []
    found = near_duplicates(grids, least)
    examples = [[ids[one], ids[other], round(likeness, 4)] for one, other, likeness in found[:SHOWN]]
    attrs["duplicates"] = json.dumps({"least": least, "pairs": len(found), "examples": examples})
    stage.log.info("%d pairs of near-duplicates, joined into common groups", len(found))
    return [(one, other) for one, other, _ in found]


def main(argv: list[str] | None = None) -> int:
    """The program."""
    args = parse_args(argv)
    return stage.run("preprocess_images", args, lambda: preprocess_images(args))


if __name__ == "__main__":
    stage.leave(main())
