"""preprocess_images: from a folder of channel files and a label table to one image set, images.h5.

Reads `{Id}_{channel}.png` for every row of the table (`Id,Target`), scales each channel down by area averaging and
writes uint8 images (N, C, H, W) block by block, so that memory does not grow with their number. Groups are the
connected components of the columns named in the settings (such as gene and antibody), taken from a second table, and
of near-duplicates: images that show the same pixels again, found by a perceptual hash over all channels.

Example:
    python -m workflow_scripts.preprocess_images --images-dir raw/train --table raw/train.csv \\
        --groups raw/metadata.csv --classes raw/classes.csv --out images.h5 --settings '{"size": 32, ...}'
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from workflow_scripts.lib import duplicates, stage, tables
from workflow_scripts.lib import groups as grouping
from workflow_scripts.lib.dataset import write_images

BLOCK = 256  # images in memory at a time
SHOWN = 20  # problems listed in a message; the log has them all
# What reading a file that is no such image ends in.
UNUSABLE = (OSError, ValueError, SyntaxError, Image.DecompressionBombError)


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    out = stage.parser(__doc__)
    out.add_argument("--images-dir", type=Path, required=True, help="folder with {Id}_{channel}.png")
    out.add_argument("--table", type=Path, required=True, help="CSV with Id and Target (class numbers)")
    out.add_argument("--groups", type=Path, help="CSV with Id and the columns to group by, and further columns to keep")
    out.add_argument("--classes", type=Path, help="CSV with number and name; without it names come from the settings")
    out.add_argument("--out", type=Path, required=True, help="the image set to write")
    return out.parse_args(argv)


def preprocess_images(
    images_dir: Path, table: Path, groups: Path | None, classes: Path | None, out: Path, settings: dict[str, Any]
) -> None:
    """Write the image set `out`."""
    names = tables.read_classes(classes) if classes else list(settings["class_names"])
    listed = tables.read_labels(table, names)
    by = list(settings["group_by"])
    if by and not groups:
        raise stage.UserError(f"data.group_by names {', '.join(by)}, but no table of groups is given (data.groups)")
    columns = tables.read_columns(groups, listed.ids, by) if groups else {}
    shared = [columns[name] for name in by]
    group_names = grouping.connected(shared, len(listed.ids))
    attrs = {
        "source": settings["source"],
        "licence": settings["licence"],
        "credit": settings["credit"],
        "grouped_by": ", ".join(by),
        "intensity": settings["intensity"],
    }
    channels, size = list(settings["channels"]), int(settings["size"])
    problems: list[str] = []
    grids: list[np.ndarray] = []
    with write_images(out, channels, names, size, attrs) as writer, stage.Progress("images", len(listed.ids)) as bar:
        for start, block in _blocks(images_dir, listed.ids, settings, problems):
            stop = start + len(block)
            writer.append(
                block,
                listed.labels[start:stop],
                listed.ids[start:stop],
                group_names[start:stop],
                {name: values[start:stop] for name, values in columns.items()},
            )
            grids.append(duplicates.grid_means(block))
            bar.update(stop)
        if problems:
            raise stage.UserError(_summary(problems, images_dir))
        pairs = _duplicates(np.concatenate(grids), settings["duplicates"], listed.ids, attrs)
        group_names = grouping.connected(shared, len(listed.ids), pairs)
        writer.regroup(group_names)
    stage.log.info("%d images, %d groups, %d classes", len(listed.ids), len(set(group_names)), len(names))


def _duplicates(grids: np.ndarray, least: float, ids: list[str], attrs: dict[str, Any]) -> list[tuple[int, int]]:
    """Pairs of near-duplicates, told in the log and in the attributes of the set."""
    if not least:
        return []
    found = duplicates.near_duplicates(grids, least)
    examples = [[ids[one], ids[other], round(likeness, 4)] for one, other, likeness in found[:SHOWN]]
    attrs["duplicates"] = json.dumps({"least": least, "pairs": len(found), "examples": examples})
    stage.log.info("%d pairs of near-duplicates, joined into common groups", len(found))
    return [(one, other) for one, other, _ in found]


def _blocks(
    folder: Path, ids: list[str], settings: dict[str, Any], problems: list[str]
) -> Iterator[tuple[int, np.ndarray]]:
    """Blocks (first row, images); what is wrong with an image goes to `problems` and its place stays black."""
    channels, size = list(settings["channels"]), int(settings["size"])

    def load(name: str) -> np.ndarray:
        image = np.zeros((len(channels), size, size), dtype=np.uint8)
        for index, channel in enumerate(channels):
            path = folder / f"{name}_{channel}.png"
            try:
                image[index] = read_channel(path, size, settings["intensity"])
            except UNUSABLE as error:
                problems.append(f"{path.name}: {'is missing' if isinstance(error, FileNotFoundError) else error}")
        return image

    with ThreadPoolExecutor(int(settings["threads"])) as pool:
        for start in range(0, len(ids), BLOCK):
            yield start, np.stack(list(pool.map(load, ids[start : start + BLOCK])))


def read_channel(path: Path, size: int, intensity: str) -> np.ndarray:
    """One grey 8-bit PNG as uint8 (size, size), scaled down by area averaging."""
    with Image.open(path) as picture:
        if picture.format != "PNG" or picture.mode != "L":
            raise ValueError(f"is {picture.format} with mode {picture.mode}; an 8-bit grey PNG is expected")
        if picture.width != picture.height:
            raise ValueError(f"is {picture.width} × {picture.height} pixels; square images are expected")
        if picture.width < size:
            raise ValueError(f"is {picture.width} pixels wide, less than preprocess_images.size = {size}")
        if picture.width == size:
            values = np.asarray(picture)
        else:
            # As floats, because rounding between the two passes of the resampling would brighten the image.
            means = picture.convert("F").resize((size, size), Image.Resampling.BOX)
            values = np.rint(np.asarray(means)).astype(np.uint8)
    return values if intensity == "fixed" else stretch(values)


def stretch(values: np.ndarray) -> np.ndarray:
    """Intensities between the image's own 0.1 and 99.9 percentile, spread over 0 to 255."""
    low, high = np.percentile(values, [0.1, 99.9])
    spread = (values.astype(np.float32) - low) * (255.0 / max(high - low, 1.0))
    return np.clip(np.rint(spread), 0, 255).astype(np.uint8)


def _summary(problems: list[str], folder: Path) -> str:
    for problem in problems:
        stage.log.warning("%s", problem)
    more = f" … and {len(problems) - SHOWN} more, all in the log" if len(problems) > SHOWN else ""
    return f"{len(problems)} files in {folder} cannot be used: " + "; ".join(sorted(problems)[:SHOWN]) + more


def main(argv: list[str] | None = None) -> int:
    """The program."""
    args = parse_args(argv)
    return stage.run(
        "preprocess_images",
        args,
        lambda: preprocess_images(args.images_dir, args.table, args.groups, args.classes, args.out, args.settings),
    )


if __name__ == "__main__":
    sys.exit(main())
