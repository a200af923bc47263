"""Export of image sets as files and a table, in the layout that the source `folder` reads."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from PIL import Image

from workflow_scripts.lib.base.errors import UserError
from workflow_scripts.lib.images.image_set import ImageSet

FORMATS = {"png": "{id}_{channel}.png", "ome_tiff": "{id}.ome.tif"}  # format -> data.files
COLUMNS = ("Id", "Target", "group", "set", "generator", "repeat", "fold", "seed", "reference")
SEPARATOR = "|"
_BLOCK = 512  # images in memory at a time


@dataclass
class Exported:
    """What the files of all sets have in common."""

    channels: list[str]
    classes: list[str]
    size: int


def write(folder: Path, sets: list[tuple[str, Path]], real: ImageSet, form: str, seed: int) -> int:
    """Write images/ and labels.csv of synthetic sets, each as name and path, into a folder; the number of images.

    An image that was made from a real one has the group of that one."""
    if any(SEPARATOR in name for name in real.classes):
        raise UserError(f"a class has {SEPARATOR!r} in its name, which separates labels in the table: rename it")
    group_of = dict(zip(real.ids.tolist(), real.groups.tolist(), strict=True))
    (folder / "images").mkdir()
    count = 0
    with (folder / "labels.csv").open("w", newline="", encoding="utf-8") as handle:
        writer = csv.DictWriter(handle, COLUMNS, lineterminator="\n")
        writer.writeheader()
        for name, path in sets:
            with ImageSet(path) as made:
                _check(path, made, real)
                for row, pixels in _rows(name, made, seed):
                    row["group"] = group_of.get(row["reference"], "")
                    writer.writerow(row)
                    _save(folder / "images", row["Id"], pixels, made.channels, form)
                    count += 1
    return count


def _check(path: Path, made: ImageSet, real: ImageSet) -> None:
    if (made.channels, made.classes, made.size) != (real.channels, real.classes, real.size):
        raise UserError(f"{path} has other channels, classes or sizes than the real images: delete it and run again")


def _rows(name: str, made: ImageSet, seed: int) -> Iterator[tuple[dict[str, Any], np.ndarray]]:
    """The table's row and the pixels of each image."""
    repeat, fold = made.attrs["repeat"], made.attrs["fold"]
    asked = json.loads(made.attrs["synthetic_set"])
    references = made.column("reference") if "reference" in made.columns() else [""] * len(made)
    for start in range(0, len(made), _BLOCK):
        part = made.read(np.arange(start, min(start + _BLOCK, len(made))), "inspect")
        for number, (own, pixels, hot) in enumerate(zip(part.ids, part.images, part.labels, strict=True), start):
            labels = [label for label, has in zip(made.classes, hot, strict=True) if has]
            row = {"Id": f"{name}_r{repeat}_f{fold}_{own}", "Target": SEPARATOR.join(labels), "set": name}
            row |= {"generator": asked["generator"], "repeat": repeat, "fold": fold, "seed": seed}
            yield row | {"reference": str(references[number])}, pixels


def _save(folder: Path, name: str, pixels: np.ndarray, channels: list[str], form: str) -> None:
    """Write one image uint8 (C, s, s)."""
    if form == "ome_tiff":
        about = {"axes": "CYX", "Channel": {"Name": channels}}
        path = folder / FORMATS[form].replace("{id}", name)
        tifffile.imwrite(path, pixels, ome=True, metadata=about, photometric="minisblack", compression="zlib")
        return
    for channel, plane in zip(channels, pixels, strict=True):
        Image.fromarray(plane).save(folder / FORMATS[form].replace("{id}", name).replace("{channel}", channel))


def config_text(where: Path, like: Exported, form: str, origin: str, protein: str) -> str:
    """The config, as YAML, by which MixLoc reads an exported folder."""
    data = {
        "source": "folder",
        "images": str(where / "images"),
        "table": str(where / "labels.csv"),
        "files": FORMATS[form],
        "bits": [8],
        "labels": "names",
        "label_separator": SEPARATOR,
        "class_names": like.classes,
        "no_label": "keep",
        "origin": origin,
    }
    images = {"channels": like.channels, "size": like.size, "pixel_size": None, "intensity": "fixed", "duplicates": 0}
    report = {"demonstration": False, "panels": {"protein_channel": protein}}
    sections = {"run": "exported", "data": data, "preprocess_images": images, "report": report}
    # JSON is YAML, and needs no library.
    return json.dumps(sections, indent=2, ensure_ascii=False) + "\n"
