"""The first config of one's own images: commented YAML with what was guessed or said, without the defaults."""

from __future__ import annotations

import json
import shlex
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from workflow_scripts.lib.config import bases, check
from workflow_scripts.lib.config.read import read
from workflow_scripts.lib.images import column_guess, nuclei
from workflow_scripts.lib.images.decode import decode
from workflow_scripts.lib.images.folder_guess import Files
from workflow_scripts.lib.images.invalid_input import printable
from workflow_scripts.lib.images.known_datasets import COLUMNS, GROUP_BY
from workflow_scripts.lib.images.planes import Unusable, Wanted, to_array
from workflow_scripts.lib.images.user_tables import UserTable

FIELD = 300  # pixels a side from which an image may be a whole field
SEVERAL = 4  # nuclei of an image that is a whole field
LOOKED_AT = 3  # images that are looked at for that
SIZES = (32, 24, 16)  # sides of the image set, the first that the images have
DARK = 0.25  # brightest pixels below this part of white: intensities are stretched


@dataclass
class Choices:
    """What the config is to say, as guessed or as answered."""

    run: str
    images: Path
    table: UserTable
    files: Files
    labels: str
    protein: str
    groups_table: Path | None = None
    group_by: list[str] = field(default_factory=list)  # empty: nothing says it
    joined: list[str] = field(default_factory=list)  # what a run joins images by unless told otherwise
    cells: dict[str, Any] | None = None
    side: int = 0  # shortest side of the files looked at
    square: bool = True
    stretched: bool = False


@dataclass
class Look:
    """What some images show: their shortest side, whether all are square and of one size, and how bright they are."""

    side: int
    square: bool
    stretched: bool
    nuclei: float  # in an image


def look(files: Files, images: Path, channel: str | None) -> Look:
    """Look at the files of some images; `channel` is that of the nuclei, if one is."""
    shapes, bright, counts, deep = [], [], [], False
    for name in files.ids[:: max(1, len(files.ids) // LOOKED_AT)][:LOOKED_AT]:
        for own in files.channels:
            plane = _plane(files, images, name, own)
            if plane is None:
                continue
            values, white = plane
            deep = deep or white != 255
            shapes.append(values.shape)
            bright.append(float(np.percentile(values, 99.5)) / white)
            if own == channel and min(values.shape) >= FIELD:
                size = nuclei.typical_diameter(values)
                counts.append(len(np.unique(nuclei.segment(values, size))) - 1 if size else 0)
    sides = [min(shape) for shape in shapes] or [0]
    square = all(high == wide for high, wide in shapes)
    # In 8 bits a dim image among bright ones is dim; deeper files have the brightness of their exposure.
    dim = bool(bright) and ((min if deep else max)(bright) < DARK or max(bright) > 1)
    return Look(min(sides), square, dim, float(np.median(counts)) if counts else 0.0)


def _plane(files: Files, images: Path, name: str, channel: str) -> tuple[np.ndarray, float] | None:
    """The pixels of one channel of an image, and their white; None where its file is missing or cannot be read."""
    single = isinstance(files.files, dict)
    pattern = files.files[channel] if single else files.files.replace("{channel}", channel)
    try:
        planes = decode(images / pattern.replace("{id}", name), Wanted(len(files.channels)))
    except Unusable:
        return None
    several = len(planes.images) > 1 and "{channel}" not in str(files.files) and not single
    place = (files.file_channels or files.channels).index(channel) if several else 0
    return to_array(planes.images[place]), {8: 255.0, 16: 65535.0, 32: 1.0}[planes.bits]


def whole_fields(seen: Look, files: Files, channel: str | None) -> dict[str, Any] | None:
    """How cells would be cut, where the images look like whole fields."""
    if files.masks:
        return {"masks": files.masks}
    return {"nucleus_channel": channel} if channel and seen.nuclei >= SEVERAL else None


def text(choices: Choices, out: Path) -> str:
    """The config as YAML with comments, for the file `out`."""
    name, said = printable(shlex.quote(str(out))), choices.files
    lines = [
        f"# {printable(out.name)}: what MixLoc is to know of these images. Look through it, then:",
        "#",
        *(f"#   snakemake --configfile {name} --cores 2 {step}" for step in steps(choices)),
        "#",
        "# All else has the defaults of config.yaml; docs/config.md lists every setting.",
        f"run: {_yaml(choices.run)}",
        "data:",
        "  source: folder",
        f"  images: {_yaml(str(choices.images))}",
        f"  table: {_yaml(str(choices.table.path))}",
    ]
    if choices.groups_table:
        lines.append(f"  groups: {_yaml(str(choices.groups_table))}  # joined by Id")
    if said.files != "{id}_{channel}.png":
        lines.append(f"  files: {_yaml(said.files)}")
    if said.file_channels:
        lines.append(f"  file_channels: {_yaml(said.file_channels)}  # the planes of a file, in order")
    if said.planes:
        lines.append(f"  planes: {_yaml(said.planes)}  # files are in colour: which colour the stain is")
    columns = {kind: own for kind, own in _columns(choices).items() if own.lower() != COLUMNS[kind].lower()}
    if columns:
        lines.append(f"  columns: {_yaml(columns)}  # what the table calls them")
    lines += _label_lines(choices) + _group_lines(choices) + _cell_lines(choices)
    if not choices.square and not choices.cells:
        lines.append("  pixel_size: 1  # µm; not known, so that a pixel of the file counts as 1")
    lines += ["preprocess_images:", f"  channels: {_yaml(said.channels)}"]
    if not said.named:
        lines[-1] += "  # nothing names them: change the names here, in the order of the file"
    lines += _size_lines(choices)
    lines += ["report:", "  demonstration: false"]
    lines += [f"  panels: {{protein_channel: {_yaml(choices.protein)}}}  # the stain whose location the labels tell"]
    return "\n".join(lines) + "\n"


def steps(choices: Choices) -> list[str]:
    """Targets to ask for, one after the other, each with what it does."""
    first = ["cells      # cuts the cells out; look at its page"] if choices.cells else []
    return [
        *first,
        "check      # seconds: what was understood, and what can be judged",
        "rehearse   # every job once with few steps, then a forecast",
        "           # the run itself",
    ]


def problem(written: Path) -> str | None:
    """What is wrong with a config, in one line; None if a run could start from it."""
    try:
        check.check(bases.merged(read(bases.DEFAULTS), read(written)))
    except check.ConfigError as error:
        return str(error)
    return None


def _columns(choices: Choices) -> dict[str, str]:
    return {"id": choices.files.id_column, "labels": choices.labels}


def _label_lines(choices: Choices) -> list[str]:
    values, lines = choices.table.need(choices.labels), []
    sign = column_guess.separator(values)
    if sign:
        lines.append(f"  label_separator: {_yaml(sign)}")
    found = sorted(set(column_guess.split(values, sign)))
    if column_guess.numbers(values):
        lines.append(f"  class_names: {_yaml(_class_names(choices, found))}  # by number")
    else:
        lines.append(f"  labels: names  # {len(found)}: {', '.join(found[:6])}{' …' if len(found) > 6 else ''}")
    if not all(values):
        lines.append("  no_label: keep  # rows without a label are images of no class; or invalid")
    return lines


def _class_names(choices: Choices, found: list[str]) -> str | list[str]:
    """Names of numbered classes: those of the Atlas where the channels are its own."""
    highest = max(int(text) for text in found if text.isdigit())
    atlas = {"red", "green", "blue", "yellow"} <= set(choices.files.channels)
    if atlas and highest < 28:
        return "kaggle_2021" if choices.labels.lower() == "label" and highest < 19 else "kaggle_2018"
    return [f"class {number}" for number in range(highest + 1)]


def _group_lines(choices: Choices) -> list[str]:
    if set(choices.group_by) != set(choices.joined):
        told = "images that share a value are never split" if choices.group_by else "each image is a group of its own"
        kinds = [name.lower() if name.lower() in GROUP_BY else name for name in choices.group_by]
        return [f"  group_by: {_yaml(kinds)}  # {told}"]
    if choices.group_by:
        return [f"  # Images that share a {' or '.join(choices.group_by)} are never split (group_by)."]
    return [
        "  # No column says which images belong together. Images of one protein, well or patient in both the train and",
        "  # the test part make scores too good: name such a column here.",
        "  # group_by: [well]",
    ]


def _cell_lines(choices: Choices) -> list[str]:
    if not choices.cells:
        return []
    return [f"  cells: {_yaml(choices.cells)}  # whole fields: single cells are cut out around their nuclei"]


def _size_lines(choices: Choices) -> list[str]:
    side = next((size for size in SIZES if size <= choices.side), SIZES[-1])
    lines = [f"  size: {side}  # px; 64 or more shows more, and takes a GPU"]
    if not choices.square and not choices.cells:
        scale = choices.side / side
        lines.append(f"  pixel_size: {scale:.6g}  # the files are not square: their centre is cut out")
    if choices.stretched:
        lines.append("  intensity: percentile  # the files are dim: each image is stretched over its own range")
    return lines


def _yaml(value: Any) -> str:
    """A value in one line of YAML; JSON is YAML, and text that needs no quotes gets none."""
    if isinstance(value, str):
        plain = value and all(char.isalnum() or char in "_-./" for char in value) and value[0].isalpha()
        reserved = value.lower() in ("true", "false", "yes", "no", "on", "off", "null")
        return value if plain and not reserved else json.dumps(value, ensure_ascii=False)
    if isinstance(value, list):
        return f"[{', '.join(map(_yaml, value))}]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_yaml(key)}: {_yaml(own)}" for key, own in value.items()) + "}"
    return json.dumps(value)
