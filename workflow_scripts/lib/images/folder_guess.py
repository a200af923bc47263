"""First guess of how the files of a folder are named, from their names and from the columns of a table.

A column of Ids is one whose values stand in the names of files. What stands around them is alike for all images, but
for the channel."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from workflow_scripts.lib.base.errors import UserError
from workflow_scripts.lib.images.decode import decode
from workflow_scripts.lib.images.format_choices import BY_SUFFIX
from workflow_scripts.lib.images.planes import Unusable, Wanted, to_array
from workflow_scripts.lib.images.user_tables import UserTable

MOST = 20_000  # files that are looked at
LEAST = 0.5  # fraction of the Ids that must have files
FULL = 0.6  # a form of file names is a channel if so many Ids have it, of those of the commonest form
MASK = re.compile(r"mask|segment|outline|label", re.IGNORECASE)
BREAK = re.compile(r"(?<=[A-Za-z])(?=[0-9])|(?<=[0-9])(?=[A-Za-z])|(?<=[A-Za-z0-9])(?=[^A-Za-z0-9])|(?<=[^A-Za-z0-9])")
COLOURS = ("red", "green", "blue")
ID_NAMES = ("id", "image", "image_id", "imageid", "file", "filename", "file_name", "name", "cell", "field")

Form = tuple[str, str]  # what stands before the Id and after it


@dataclass
class Files:
    """How files are named, and what they hold."""

    id_column: str
    covered: float  # fraction of the Ids with files
    files: str | dict[str, str] = ""  # data.files
    channels: list[str] = field(default_factory=list)
    file_channels: list[str] | None = None
    planes: dict[str, str] = field(default_factory=dict)
    named: bool = True  # whether file names or files tell the channels
    masks: str | None = None
    example: dict[str, Path] = field(default_factory=dict)  # a file of each channel
    ids: list[str] = field(default_factory=list)


def image_names(folder: Path, most: int | None = None) -> list[str]:
    """Names of the image files of a folder, sorted; or of the first `most` that come."""
    out = []
    with os.scandir(folder) as entries:
        for entry in entries:
            if Path(entry.name).suffix.lower() in BY_SUFFIX and not entry.name.startswith("."):
                out.append(entry.name)
            if len(out) == most:
                break
    return sorted(out)


def guess(folder: Path, table: UserTable, wanted: str | None = None) -> Files:
    """How a folder's files follow from a table's Ids; `wanted` names the column of Ids, if it is known."""
    names = image_names(folder, MOST)
    columns = [wanted] if wanted else [name for name, values in table.columns.items() if _distinct(values)]
    best, forms = None, {}
    for column in columns:
        ids = set(filter(None, table.need(column)))
        found = _forms(names, ids)
        covered = len(set().union(*found.values())) / len(ids) if found else 0.0
        if found and len(names) >= MOST:  # not all files were looked at: how many of these belong to an Id?
            covered = min(1.0, sum(map(len, found.values())) / len(names))
        rank = (round(covered, 2), column.lower() in ID_NAMES)
        if best is None or rank > best[0]:
            best, forms, out = (rank, ids), found, Files(column, covered)
    if best is None or best[0][0] < LEAST:
        example = f", such as {names[0]!r}" if names else ""
        raise UserError(
            f"no column of {table.path} names the files of {folder}{example}; its columns are "
            f"{', '.join(table.columns) or 'none'}: name the right table by --table, or the folder of the images"
        )
    _describe(out, forms, folder)
    out.ids = sorted(best[1])
    return out


def _distinct(values: Sequence[str]) -> bool:
    """Whether a column could be one of Ids."""
    filled = [value for value in values if value]
    return bool(filled) and len(set(filled)) > 0.5 * len(filled)


def _forms(names: Iterable[str], ids: set[str]) -> dict[Form, set[str]]:
    """The forms that files of most Ids have, with these Ids."""
    found: dict[Form, set[str]] = {}
    for name in names:
        for form, own in _within(name, ids):
            found.setdefault(form, set()).add(own)
    most = max((len(own) for own in found.values()), default=0)
    return {form: own for form, own in sorted(found.items()) if len(own) >= max(1, FULL * most)}


def _within(name: str, ids: set[str]) -> Iterable[tuple[Form, str]]:
    """The longest Ids within a file's name."""
    breaks = sorted({0, len(name), *(match.start() for match in BREAK.finditer(name))})
    spans = [(start, stop) for start in breaks for stop in breaks if stop > start and name[start:stop] in ids]
    longest = max((stop - start for start, stop in spans), default=0)
    return [((name[:a], name[b:]), name[a:b]) for a, b in spans if b - a == longest]


def _describe(out: Files, forms: dict[Form, set[str]], folder: Path) -> None:
    """Fill in files, channels and masks from the forms of file names."""
    masks = [form for form in forms if MASK.search("".join(form))]
    plain = [form for form in forms if form not in masks] or masks
    if masks and plain != masks:
        out.masks = "{id}".join(masks[0])
    one = sorted(set.intersection(*(forms[form] for form in plain)) or forms[plain[0]])[0]
    if len(plain) == 1:
        out.files = "{id}".join(plain[0])
        _look_inside(out, folder / out.files.replace("{id}", one))
        return
    channels, pattern = _channels(["{id}".join(form) for form in plain])
    out.channels = channels
    patterns = {name: "{id}".join(form) for name, form in zip(channels, plain, strict=True)}
    by_name = {name: pattern.replace("{channel}", name) for name in channels} if pattern else {}
    out.files = pattern if by_name == patterns else patterns
    for name, own in patterns.items():
        out.example[name] = folder / own.replace("{id}", one)
        stack = _planes(out.example[name])
        if len(stack) > 1:
            out.planes[name] = name if name in (*COLOURS, "yellow") else _brightest(stack)


def _channels(patterns: Sequence[str]) -> tuple[list[str], str]:
    """Names of channels from what differs between patterns, and the pattern with {channel} in that place."""
    start = _common(patterns)
    stop = _common([pattern[len(start) :][::-1] for pattern in patterns])[::-1]
    # A name begins and ends where a word does: ch0 and ch1, not 0 and 1.
    start = start[: len(start) - len(re.search(r"[A-Za-z0-9]*$", start)[0])]
    stop = stop[len(re.match(r"[A-Za-z0-9]*", stop)[0]) :]
    middles = [pattern[len(start) : len(pattern) - len(stop)] for pattern in patterns]
    names = [re.sub(r"[^A-Za-z0-9_-]+", "_", middle).strip("_-") for middle in middles]
    if not all(names) or len(set(names)) < len(names) or any("{id}" in middle for middle in middles):
        return [f"c{number}" for number in range(1, len(patterns) + 1)], ""
    return names, f"{start}{{channel}}{stop}"


def _common(texts: Sequence[str]) -> str:
    """The beginning that all texts share."""
    alike = [len(set(letters)) == 1 for letters in zip(*texts, strict=False)]
    return texts[0][: alike.index(False) if False in alike else len(alike)]


def _look_inside(out: Files, path: Path) -> None:
    """Channels of a file that holds all of them."""
    try:
        planes = decode(path, Wanted(1))
    except Unusable as problem:
        raise UserError(f"{path} {problem.reason}") from None
    count = len(planes.images)
    out.channels = list(planes.names or [])
    if out.channels:
        out.channels = [re.sub(r"[^A-Za-z0-9_-]+", "_", name)[:40] for name in out.channels]
        out.named = len(set(out.channels)) == count
    if not planes.names or not out.named:
        coloured = planes.bits == 8 and count in (3, 4) and path.suffix.lower() in (".png", ".jpg", ".jpeg")
        out.named = coloured or count == 1
        out.channels = [*COLOURS, "alpha"][:count] if coloured else [f"c{number + 1}" for number in range(count)]
        out.channels = ["image"] if count == 1 else out.channels
    if "alpha" in out.channels and count == 4:
        out.file_channels, out.channels = list(out.channels), list(COLOURS)
    out.example = dict.fromkeys(out.channels, path)


def _planes(path: Path) -> list[np.ndarray]:
    try:
        return [to_array(image) for image in decode(path, Wanted(1)).images]
    except Unusable as problem:
        raise UserError(f"{path} {problem.reason}") from None


def _brightest(planes: Sequence[np.ndarray]) -> str:
    return COLOURS[int(np.argmax([plane.mean() for plane in planes[:3]]))]
