"""Facts about a run's images that its config does not tell: how many, of how many classes, and how large."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from workflow_scripts.lib.base.errors import UserError
from workflow_scripts.lib.cost.workloads import Facts
from workflow_scripts.lib.images import image_list, known_datasets, label_maps, user_tables
from workflow_scripts.lib.images.format_choices import BY_SUFFIX
from workflow_scripts.lib.simulate.protein_labels import COMPARTMENTS

# Sets that may be asked about before they are there: images with labels, and pixels a side.
KNOWN = {"kaggle2018": (31072, 512)}
PICTURES = (".png", ".jpg", ".jpeg", ".tif", ".tiff")


def of(config: dict[str, Any]) -> Facts:
    """How many images and classes there are, from the tables; no image is read but the size of the first."""
    data, fetched = config["data"], Path("results") / config["run"] / "fetched" / "table.csv"
    described, limit = known_datasets.described(data), config["fetch_images"]["limit"]
    fetches = data["source"] != "folder" and not data["images"]
    here = fetches and fetched.is_file()  # what was fetched, of all that could be
    table = Path(data["table"]) if data["table"] and not here else fetched
    if data["cells"]:
        return _of_cells(Path("results") / config["run"] / "cells", data)
    if data["source"] == "simulated":
        cells = config["simulate_cells"]
        return Facts(cells["images"], _mapped(COMPARTMENTS, described), cells["size"])
    if table.is_file():
        groups, classes = (Path(data[name]) if data[name] else None for name in ("groups", "classes"))
        listed = image_list.from_tables(table, groups, classes, described)
        count = len(listed.ids) if here or not fetches else _limited(listed.labels, limit)
        count += _further(config, described)
        return Facts(count, len(listed.classes), _side(data["images"]))
    if data["source"] in KNOWN:
        count, side = KNOWN[data["source"]]
        most = limit["per_class"] * len(described["class_names"])
        count = min(number for number in (count, limit["images"], most) if number)
        count += _further(config, described)
        return Facts(count, _mapped(described["class_names"], described), side)
    raise UserError(
        f"how many images {data['source']} has is not known before {table} is there: predict again when it is"
    )


def _limited(labels: np.ndarray, limit: dict[str, int]) -> int:
    """How many of the images with these labels (n, K) are fetched (`manifest.limited`)."""
    count = len(labels)
    if limit["per_class"]:
        seen, count = np.zeros(labels.shape[1], dtype=np.int64), 0
        for own in labels.astype(bool):
            if (seen[own] < limit["per_class"]).any():
                seen[own] += 1
                count += 1
    return min(count, limit["images"]) if limit["images"] else count


def _further(config: dict[str, Any], described: dict[str, Any]) -> int:
    """How many further images without labels there are; without a table, by the number of their files."""
    given = config["data"]["unlabelled"] or {}
    folder, table = given.get("images"), given.get("table")
    if table and Path(table).is_file():
        return len({*user_tables.read_table(Path(table)).need(described["columns"]["id"])} - {""})
    if not folder or not Path(folder).is_dir():
        return 0
    names = [path for path in Path(folder).iterdir() if path.suffix.lower() in BY_SUFFIX]
    apart = "{channel}" in described["files"] or isinstance(described["files"], dict)
    return len(names) // (len(config["preprocess_images"]["channels"]) if apart else 1)


def _of_cells(folder: Path, data: dict[str, Any]) -> Facts:
    """Of single cells that were cut out of whole fields."""
    groups = folder / "groups.csv" if data["groups"] else None
    classes = Path(data["classes"]) if data["classes"] else None
    listed = image_list.from_tables(folder / "table.csv", groups, classes, known_datasets.described_cells(data))
    return Facts(len(listed.ids), len(listed.classes), _side(str(folder / "images")))


def _mapped(classes: list[str], described: dict[str, Any]) -> int:
    """The number of classes behind the label map."""
    none = np.zeros((0, len(classes)), dtype=np.uint8)
    return len(label_maps.apply(none, classes, described["label_map"], "drop", "keep").classes)


def _side(folder: str | None) -> int | None:
    """Pixels a side of the first picture that a folder gives."""
    for path in Path(folder).iterdir() if folder and Path(folder).is_dir() else ():
        if path.suffix.lower() in PICTURES:
            try:
                with Image.open(path) as picture:
                    return round((picture.width * picture.height) ** 0.5)
            except (OSError, ValueError, Image.DecompressionBombError, Image.DecompressionBombWarning):
                return None
    return None
