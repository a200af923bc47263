"""Plan of reading a folder of images: what the tables list, and the pieces in which pixels are read.

preprocess_images and preprocess_shard make the same plan, so that each finds the pieces that the other has read."""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np

from workflow_scripts.lib.base import arguments, files, stage
from workflow_scripts.lib.base.errors import UserError
from workflow_scripts.lib.base.progress import Progress
from workflow_scripts.lib.images import chunks, further_images, image_list, invalid_input, read_image, user_tables
from workflow_scripts.lib.images.duplicates import GRID
from workflow_scripts.lib.images.image_list import Listed
from workflow_scripts.lib.images.image_set_writer import ImageWriter
from workflow_scripts.lib.images.invalid_input import Fault

SHOWN = 20  # examples in a message or an attribute


def parser(doc: str, table_needed: bool = True) -> argparse.ArgumentParser:
    """The command line that the stages share which read a folder of images."""
    out = arguments.parser(doc)
    out.add_argument("--images-dir", type=Path, required=True, help="folder with the image files")
    out.add_argument("--table", type=Path, required=table_needed, help="CSV with the ids and labels of the images")
    out.add_argument("--groups", type=Path, help="CSV with further columns by Id, such as those to group by")
    out.add_argument("--classes", type=Path, help="CSV with number and name; without it names come from the settings")
    out.add_argument("--unlabelled-images", type=Path, help="folder with the files of further images without labels")
    out.add_argument("--unlabelled-table", type=Path, help="CSV with their ids; without it all files without a row")
    return out


@dataclass
class ReadingPlan:
    """The images to read, as the tables list them, and the folder that keeps what was read.

    Further images, which came without labels, follow the labelled ones and may lie in a folder of their own."""

    listed: Listed
    by: list[str]  # columns that decide which images belong together
    reader: read_image.Reader
    folder: Path  # of the pieces
    labelled: int  # how many images are no further ones
    further_reader: read_image.Reader | None = None

    @property
    def size(self) -> int:
        """Bytes of all pixels."""
        # Raw values take two bytes more.
        each = 3 if self.reader.keeps_raw else 1
        return each * len(self.listed.ids) * len(self.reader.channels) * self.reader.size**2

    def tasks(self) -> list[chunks.Task]:
        """The pieces in which the images are read."""
        count, sizes = self.labelled, self._pixel_sizes()
        return chunks.tasks(self.reader, self.listed.ids[:count], sizes[:count], self.folder)

    def further_tasks(self) -> list[chunks.Task]:
        """The pieces in which further images are read."""
        if self.further_reader is None:
            return []
        count, sizes = self.labelled, self._pixel_sizes()
        return chunks.tasks(
            self.further_reader, self.listed.ids[count:], sizes[count:], self.folder, count, prefix="further"
        )

    def _pixel_sizes(self) -> list[str]:
        return self.listed.columns.get("pixel_size", [""] * len(self.listed.ids))

    def note_files_without_row(self) -> None:
        """Add a note on image files that no row of the tables names."""
        listed = self.listed
        known = {*listed.ids, *(entry.id for entry in [*listed.bad, *listed.dropped])}
        without = sorted(islice(read_image.files_without_row(self.reader, known), 100_000))
        if without:
            shown = ", ".join(map(invalid_input.printable, without[:SHOWN])) + (" …" if len(without) > SHOWN else "")
            listed.notes.append(f"files of {len(without)} Ids have no row in the table and are not used: {shown}")

    def write_to(
        self, writer: ImageWriter, tasks: list[chunks.Task], bad: list[Fault]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Read all images and write the valid ones; returns their rows and grids.

        The faults of the others go to `bad`."""
        reader = self.reader
        left = sum(task.path.is_file() for task in tasks)
        if 0 < left < len(tasks):
            stage.log.info("going on from %d pieces of %d", left, len(tasks))
        rows = [np.zeros(0, dtype=np.int64)]
        grids = [np.zeros((0, len(reader.channels), GRID, GRID), dtype=np.uint8)]
        with Progress("images", self.labelled) as bar:
            for task, piece in zip(tasks, chunks.made(tasks, int(reader.settings["threads"])), strict=True):
                bad += piece.bad
                bar.update(task.first + len(task.ids), bad=len(bad))
                if invalid_input.counted(bad) and reader.data["on_invalid"] == "fail":
                    # The list of what is wrong is still to become whole; the set will not be written.
                    continue
                self._append(writer, piece, np.ones(len(piece.rows), dtype=bool))
                rows.append(piece.rows)
                grids.append(piece.grids)
        return np.concatenate(rows), np.concatenate(grids)

    def read_further(self, tasks: list[chunks.Task], bad: list[Fault]) -> tuple[np.ndarray, np.ndarray]:
        """Read all further images; returns rows and grids of the valid ones. Faults of the others go to `bad`."""
        rows = [np.zeros(0, dtype=np.int64)]
        grids = [np.zeros((0, len(self.reader.channels), GRID, GRID), dtype=np.uint8)]
        with Progress("further images", len(self.listed.ids) - self.labelled) as bar:
            for task, piece in zip(tasks, chunks.made(tasks, int(self.reader.settings["threads"])), strict=True):
                bad += piece.bad
                bar.update(task.first + len(task.ids) - self.labelled, bad=len(bad))
                rows.append(piece.rows)
                grids.append(piece.grids)
        return np.concatenate(rows), np.concatenate(grids)

    def pixels(self, tasks: list[chunks.Task], rows: np.ndarray) -> np.ndarray:
        """Images of some valid rows, in the order asked for, from the pieces that were read."""
        size = self.reader.size
        out = np.empty((len(rows), len(self.reader.channels), size, size), dtype=np.uint8)
        of_task = np.searchsorted([task.first for task in tasks], rows, side="right") - 1
        for place in np.unique(of_task):
            wanted = of_task == place
            out[wanted] = chunks.images_of(tasks[place], rows[wanted])
        return out

    def write_further(self, writer: ImageWriter, tasks: list[chunks.Task], kept: np.ndarray) -> None:
        """Write those further images whose rows are `kept`, from the pieces that were read."""
        for task in tasks:
            piece = chunks.make(task)
            chosen = np.isin(piece.rows, kept)
            if chosen.any():
                self._append(writer, piece, chosen)

    def _append(self, writer: ImageWriter, piece: chunks.Piece, kept: np.ndarray) -> None:
        rows = piece.rows[kept]
        listed, chosen = self.listed, rows.tolist()
        columns = {name: [values[row] for row in chosen] for name, values in listed.columns.items()}
        ids = [listed.ids[row] for row in chosen]
        writer.append(piece.images[kept], listed.labels[rows], ids, ids, columns)
        writer.inventory.mark(piece.present[kept])
        if self.reader.keeps_raw:
            writer.append_raw(piece.raw[kept])


def plan(args: argparse.Namespace, out: Path) -> ReadingPlan:
    """The images of the set `out`."""
    data = args.settings["data"]
    if not args.images_dir.is_dir():
        raise UserError(f"{args.images_dir} is no folder of images (data.images)")
    listed = image_list.from_tables(args.table, args.groups, args.classes, data)
    by = image_list.group_columns(listed, data["group_by"])
    reader = read_image.Reader(args.images_dir, args.settings)
    reader.learn_depth(listed.ids)
    count = len(listed.ids)
    further = _append_further(args, listed, reader) if args.unlabelled_images else None
    return ReadingPlan(listed, by, reader, files.private_folder(out.with_name(f".{out.name}.pieces")), count, further)


def _append_further(args: argparse.Namespace, listed: Listed, reader: read_image.Reader) -> read_image.Reader:
    """Append the images that came without labels to the labelled ones, and return the reader of their folder."""
    folder, table, data = args.unlabelled_images, args.unlabelled_table, args.settings["data"]
    if not folder.is_dir():
        raise UserError(f"{folder} is no folder of images (data.unlabelled.images)")
    own = read_image.Reader(folder, args.settings)
    known = {*listed.ids, *(entry.id for entry in [*listed.bad, *listed.dropped])}
    if table is not None:
        more = further_images.from_table(table, data, listed.classes)
        further_images.leave_out_labelled(listed, more)
    else:
        more = further_images.from_names(read_image.files_without_row(own, known), listed.classes)
    if args.groups:
        image_list.join(more, user_tables.read_table(args.groups), data, required=False)
    if data["id_parts"]:
        image_list.add_id_parts(more, data["id_parts"])
    if not own.bits:
        own.bits = set(reader.bits)  # that of the labelled images
    further_images.append(listed, more)
    return own


def check_room(out: Path, size: int, kept: Iterable[Path]) -> None:
    """Raise UserError before hours of reading where the disk lacks room; `kept` files need not be written again."""
    free, needed = shutil.disk_usage(out.parent).free, size - sum(path.stat().st_blocks * 512 for path in kept)
    if free < needed:
        raise UserError(
            f"no room to write {out}: about {needed / 1e9:.2f} GB are needed to make it, {free / 1e9:.2f} GB are free"
        )
