"""Single cells cut out of whole fields of view, one field at a time.

A field is read, its nuclei are found (or come from the user's masks), and a square around each is written as an
OME-TIFF file with the field's own pixels. A record of the field is written last: who finds one that was made from the
same inputs, reads nothing again. So fields are cut by several processes, and an interrupted run resumes."""

from __future__ import annotations

import hashlib
import json
import math
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from PIL import Image
from scipy import ndimage

from workflow_scripts.lib.base import files, process_pool, source_code, stage
from workflow_scripts.lib.base.errors import UserError
from workflow_scripts.lib.images import chunks, nuclei
from workflow_scripts.lib.images.invalid_input import Fault
from workflow_scripts.lib.images.known_datasets import CELL_FILES
from workflow_scripts.lib.images.nuclei import KEPT, Limits, Nucleus
from workflow_scripts.lib.images.planes import Unusable, to_array
from workflow_scripts.lib.images.read_image import Reader
from workflow_scripts.lib.images.scaling import Plane

LEARNED_FROM = 8  # fields from which the typical diameter is learned
AROUND = 2.5  # side of a crop in diameters of a nucleus, where the config says neither
_CODE = [*chunks.CODE, Path(nuclei.__file__), Path(__file__)]


class FieldReader(Reader):
    """Reader of whole fields: pixels as they are in the files, of any size and shape."""

    def __init__(self, folder: Path, settings: dict[str, Any]) -> None:
        super().__init__(folder, settings)
        self._least = 0  # of a pyramid the full resolution

    def field(self, name: str) -> tuple[dict[str, np.ndarray] | None, list[Fault]]:
        """The channels (H, W) of a field, or None and its faults."""
        planes, bad = self.planes(name)
        try:
            if not bad:
                self._check(planes)
        except Unusable as problem:
            bad.append(Fault(name, ", ".join(self.files(name)), problem.kind, problem.reason))
        if bad:
            return None, bad
        dtype = {8: np.uint8, 16: np.uint16, 32: np.float32}
        return {
            channel: to_array(planes[channel].image).astype(dtype[planes[channel].bits]) for channel in self.channels
        }, []

    def mask(self, name: str, shape: tuple[int, ...]) -> np.ndarray:
        """The label image int32 (H, W) of a field's nuclei, as the user gave it."""
        file = self.data["masks"].replace("{id}", name)
        planes = self._decode(file, ["mask"])
        if len(planes.images) != 1:
            raise Unusable("mask", f"has {len(planes.images)} planes; a label image has one")
        labels = to_array(planes.images[0])
        if labels.shape != shape:
            raise Unusable(
                "mask", f"is {labels.shape[1]} × {labels.shape[0]} pixels, its field {shape[1]} × {shape[0]}"
            )
        labels = np.rint(labels).astype(np.int32)
        if len(np.unique(labels[labels != 0])) == 1 and ndimage.label(labels)[1] > 1:
            raise Unusable("mask", "has one value for several nuclei; in a label image each has a number of its own")
        return labels

    def _averaged(self, image: Image.Image, bits: int) -> Plane:
        return Plane(image, image.size, bits, 0.0)


@dataclass(frozen=True)
class Cut:
    """How cells are cut, in pixels of the field."""

    nucleus_channel: str | None
    limits: Limits
    side: int


@dataclass(frozen=True)
class Wanted:
    """How cells are to be cut, as the config says it."""

    nucleus_channel: str | None
    micrometres: bool  # whether the lengths below are in µm; else in pixels of the field
    size: float | None
    diameter: float | None
    smallest: float | None
    largest: float | None
    masks: bool
    shown: float | None  # side in µm that preprocessing cuts out, where it scales to a pixel size

    def learns(self) -> bool:
        """Whether the typical diameter must be learned from the fields."""
        return self.size is self.shown is None or (self.diameter is None and not self.masks)

    def cut(self, pixel: float, diameter: float) -> Cut:
        """The same in pixels of a field whose pixels are so large, for this typical diameter in pixels."""
        unit = pixel if self.micrometres else 1.0
        known = diameter if self.diameter is None else self.diameter / unit
        area = [None if value is None else value / unit**2 for value in (self.smallest, self.largest)]
        bounds = nuclei.limits(known, *area)
        if self.masks:  # the user has chosen them already
            bounds = Limits(known, area[0] or 0.0, np.inf if area[1] is None else area[1])
        side = AROUND * known if self.size is None else self.size / unit
        if self.size is None and self.shown is not None:
            side = math.ceil(self.shown / pixel)
        return Cut(self.nucleus_channel, bounds, max(1, round(side)))


@dataclass(frozen=True)
class Task:
    """One field that is to be cut."""

    reader: FieldReader
    id: str
    cut: Cut
    folder: Path  # gets images/ and records/


@dataclass
class Cells:
    """The nuclei of a field, and its faults."""

    found: list[Nucleus]
    bad: list[Fault]

    def names(self, field: str) -> list[str]:
        """Ids of the cells that were cut out."""
        return [cell_id(field, nucleus) for nucleus in self.found if nucleus.verdict == KEPT]


def cell_id(field: str, nucleus: Nucleus) -> str:
    """Id of a cell of a field."""
    return f"{field}_c{nucleus.label:03d}"


def made(tasks: Sequence[Task], processes: int) -> Iterator[Cells]:
    """The cells of each field in order, cut by so many processes."""
    if processes == 1 or len(tasks) <= 1:
        yield from map(make, tasks)
        return
    with process_pool.pool(min(processes, len(tasks))) as pool:
        try:
            yield from pool.map(make, tasks)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def make(task: Task) -> Cells:
    """Cut one field, unless that was done before with the same inputs."""
    record, wanted = task.folder / "records" / f"{task.id}.json", digest(task)
    kept = _load(record, wanted, task)
    if kept is not None:
        return kept
    record.unlink(missing_ok=True)  # that of another way of cutting, whose cells are written over now
    channels, bad = task.reader.field(task.id)
    out = Cells([], bad)
    if channels is not None:
        try:
            out.found = _found(task, channels)
        except Unusable as problem:
            what = task.reader.data["masks"] or ", ".join(task.reader.files(task.id))
            out.bad.append(Fault(task.id, what.replace("{id}", task.id), problem.kind, problem.reason))
    for nucleus in out.found:
        if nucleus.verdict == KEPT and not out.bad:
            _write(task, nucleus, channels or {})
    about = {"digest": wanted, "found": [asdict(each) for each in out.found], "bad": [asdict(each) for each in out.bad]}
    files.write_json(record, about)
    return out


def digest(task: Task) -> str:
    """Digest of all that decides what is cut from a field."""
    reader = task.reader
    masks = [reader.data["masks"]] if reader.data["masks"] else []
    stamps = [*reader.stamps(task.id), *(reader.stamp(name.replace("{id}", task.id)) for name in masks)]
    settings = {name: reader.settings[name] for name in ("channels", "data")}
    cut = asdict(task.cut)
    return files.digest([source_code.digest(_CODE), task.id, stamps, settings, sorted(reader.bits), cut])


def labels_of(task: Task, channels: dict[str, np.ndarray]) -> np.ndarray:
    """The label image of a field's nuclei: the user's, or one that is found."""
    cut, shape = task.cut, next(iter(channels.values())).shape
    if task.reader.data["masks"]:
        return task.reader.mask(task.id, shape)
    return nuclei.segment(channels[cut.nucleus_channel], cut.limits.diameter)


def _found(task: Task, channels: dict[str, np.ndarray]) -> list[Nucleus]:
    found = nuclei.judge(labels_of(task, channels), task.cut.limits, task.cut.side)
    if not found:
        how = (
            "its mask is empty"
            if task.reader.data["masks"]
            else f"look at its channel {task.cut.nucleus_channel!r}, or set data.cells.diameter"
        )
        raise Unusable("no nuclei", f"shows no nucleus: {how}")
    return found


def square(channels: dict[str, np.ndarray], nucleus: Nucleus, side: int) -> np.ndarray:
    """The square of this side around a nucleus, (C, side, side)."""
    top, left = (nuclei.corner(centre, side) for centre in (nucleus.row, nucleus.column))
    return np.stack([plane[top : top + side, left : left + side] for plane in channels.values()])


def _write(task: Task, nucleus: Nucleus, channels: dict[str, np.ndarray]) -> None:
    """Write the square around a nucleus, all channels in one file."""
    path = task.folder / "images" / CELL_FILES.replace("{id}", cell_id(task.id, nucleus))
    pixels = square(channels, nucleus, task.cut.side)
    # A name by content: by default it would be another one in each run.
    name = uuid.UUID(bytes=hashlib.blake2b(pixels.tobytes(), digest_size=16).digest())
    about = {"axes": "CYX", "Channel": {"Name": list(channels)}, "UUID": str(name)}
    # The record is written after all cells of the field: a torn file has none.
    tifffile.imwrite(path, pixels, ome=True, metadata=about, photometric="minisblack", compression="zlib")


def _load(record: Path, wanted: str, task: Task) -> Cells | None:
    try:
        about = json.loads(record.read_text(encoding="utf-8"))
        if about["digest"] != wanted:
            return None
        out = Cells([Nucleus(**each) for each in about["found"]], [Fault(**each) for each in about["bad"]])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    paths = (task.folder / "images" / CELL_FILES.replace("{id}", name) for name in out.names(task.id))
    return out if out.bad or all(path.is_file() for path in paths) else None


def learned_diameter(reader: FieldReader, ids: Sequence[str], pixels: Sequence[float], channel: str | None) -> float:
    """Typical diameter of a nucleus, from some fields evenly over the table; `pixels` are the sizes of their pixels."""
    chosen = np.unique(np.linspace(0, len(ids) - 1, min(len(ids), LEARNED_FROM)).astype(int))
    found = []
    for row in chosen:
        channels, _ = reader.field(ids[row])
        size = _diameter(reader, ids[row], channels, channel) if channels is not None else None
        found += [size * pixels[row]] if size else []
    if found:
        return float(np.median(found))
    if channel is None:
        raise UserError(f"the masks of {len(chosen)} fields such as {ids[0]!r} show no nucleus: set data.cells.masks")
    raise UserError(
        f"no nuclei found in the channel {channel!r} of {len(chosen)} fields such as {ids[0]!r}: set "
        "data.cells.nucleus_channel, or data.cells.diameter if the channel is right"
    )


def _diameter(reader: FieldReader, name: str, channels: dict[str, np.ndarray], channel: str | None) -> float | None:
    """Typical diameter in pixels, by the user's masks or by what the channel shows."""
    if not reader.data["masks"]:
        return nuclei.typical_diameter(channels[channel])
    try:
        areas = np.bincount(reader.mask(name, next(iter(channels.values())).shape).ravel())[1:]
    except Unusable as problem:
        stage.log.warning("mask of field %r: %s", name, problem.reason)
        return None
    return 2 * float(np.sqrt(np.median(areas[areas > 0]) / np.pi)) if areas.any() else None
