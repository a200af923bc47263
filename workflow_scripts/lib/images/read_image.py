"""Reading of one image from its files: channels by name, or the faults that prevent it.

Size and intensities are `scaling.py`'s."""

from __future__ import annotations

import os
import re
import stat
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from workflow_scripts.lib.base.errors import UserError, raise_if_passing
from workflow_scripts.lib.images import format_choices
from workflow_scripts.lib.images.decode import decode
from workflow_scripts.lib.images.invalid_input import LACKING, Fault
from workflow_scripts.lib.images.known_datasets import DROP, REFUSE, TRAIN_PART, ZERO
from workflow_scripts.lib.images.planes import Planes, Unusable, Wanted, blend
from workflow_scripts.lib.images.scaling import Plane, Scaling, constant

# Planes of a colour file; each stain takes one.
_COLOURS = {"red": [0], "green": [1], "blue": [2], "yellow": [0, 1]}
_MOST_FILES = 100_000  # of a folder that is one image
_DROPPED = f"data.missing_channel: {DROP}"
_SAMPLED = 40  # images sampled to learn the bit depth of a set
_LONGEST = 40  # letters of the name of a channel in the config


class ImageRead(NamedTuple):
    """One image as it was read."""

    pixels: np.ndarray | None  # uint8 (C, size, size); None: it cannot be used
    bad: list[Fault]  # why not
    present: np.ndarray  # bool (C,): channels whose file is there
    raw: np.ndarray | None = None  # uint16 (C, size, size): intensities as in the files, where the reader keeps them


class Reader:
    """Reader of the images of one folder with the stage's settings; safe to share between threads."""

    def __init__(self, folder: Path, settings: dict[str, Any]) -> None:
        self.folder = Path(folder)
        self._root = f"{self.folder}{os.sep}"  # paths as text: objects for them cost as much as opening the files
        self.channels: list[str] = list(settings["channels"])
        self._scaling = Scaling(settings)
        self.size = self._scaling.size
        self.settings = settings
        self.data = settings["data"]
        self.file_channels: list[str] = list(self.data["file_channels"] or self.channels)
        self.bits = set(self.data["bits"] or ())
        self.keeps_raw: bool = settings.get("intensity") == TRAIN_PART
        self.missing_channel: str = self.data.get("missing_channel", REFUSE)
        # Only files below a folder of their own can leave the folder through a linked folder.
        self._real = os.path.realpath(self.folder)
        self._stack: str = self.data["stack"]
        # Only without a target pixel size is the size of the set a number of pixels in the file.
        self._least = self.size if settings["pixel_size"] is None else 0
        if problem := format_choices.missing_package(self.files("{id}")):
            raise UserError(f"data.files: {problem}")

    def files(self, name: str) -> dict[str, list[str]]:
        """File name of an image -> the channels that are in it, in the order of its planes."""
        pattern = self.data["files"]
        if isinstance(pattern, dict):
            out: dict[str, list[str]] = {}
            for channel in self.channels:
                out.setdefault(pattern[channel].replace("{id}", name), []).append(channel)
            return out
        if "{channel}" not in pattern:
            return {pattern.replace("{id}", name): self.file_channels}
        return {pattern.replace("{channel}", channel).replace("{id}", name): [channel] for channel in self.channels}

    def learn_depth(self, ids: list[str]) -> None:
        """Set the bit depth, if left open, to that of most images, so that an image of another depth is noticed."""
        if self.bits:
            return
        counts: dict[int, int] = {}
        for name in ids[:: max(1, len(ids) // _SAMPLED)]:
            for file, channels in self.files(name).items():
                try:
                    bits = self._decode(file, channels).bits
                except Unusable:
                    continue
                counts[bits] = counts.get(bits, 0) + 1
                break
        self.bits = {max(counts, key=lambda bits: (counts[bits], -bits))} if counts else set()

    def stamps(self, name: str) -> list[list[int]]:
        """Size and modification time of each file, so that an edited file is noticed."""
        return [self.stamp(file) for file in self.files(name)]

    def stamp(self, file: str) -> list[int]:
        """Size and modification time of a file, or of all in a folder; empty if there is none."""
        try:
            state = os.stat(self._root + file)  # noqa: PTH116
            return _folder_stamp(self._root + file) if stat.S_ISDIR(state.st_mode) else _stamp(state)
        except (OSError, ValueError):
            return []

    def read(self, name: str, pixel_size: str = "") -> tuple[np.ndarray | None, list[Fault]]:
        """Pixels uint8 (C, size, size) of an image, or None and all of its faults."""
        return self.look(name, pixel_size)[:2]

    def look(self, name: str, pixel_size: str = "") -> ImageRead:
        """An image, or all of its faults; and which of its channels are there."""
        planes, bad = self.planes(name)
        present = np.array([channel in planes for channel in self.channels])
        bad = self.settled(name, bad)
        if bad:
            return ImageRead(None, bad, present)
        try:
            self._check(planes)
            pixels, raw = self._whole(planes, pixel_size)
        except Unusable as problem:
            return ImageRead(None, [Fault(name, ", ".join(self.files(name)), problem.kind, problem.reason)], present)
        return ImageRead(pixels, [], present, raw)

    def settled(self, name: str, bad: list[Fault]) -> list[Fault]:
        """Faults of an image, once it is decided what becomes of one that lacks the files of some channels."""
        bad, files = self._without_files(name, bad), self.files(name)
        missing = [entry for entry in bad if entry.kind == "missing file"]
        if self.missing_channel == REFUSE or not missing or len(files) == 1:
            return bad
        others = [entry for entry in bad if entry not in missing]
        if self.missing_channel == ZERO or others:
            return others
        return [Fault(name, ", ".join(entry.file for entry in missing), LACKING, f"is missing ({_DROPPED})")]

    def _whole(self, planes: dict[str, Plane], pixel_size: str) -> tuple[np.ndarray, np.ndarray | None]:
        """Pixels of an image, and its raw values where these are kept; channels that are missing are zero."""
        there = [channel for channel in self.channels if channel in planes]
        scaling, own = self._scaling, [planes[channel] for channel in there]
        window = scaling.window(own[0].size, pixel_size)
        pixels, raw = scaling.pixels(own, window), scaling.raw(own, window) if self.keeps_raw else None
        if all(map(constant, pixels)):
            black = self.settings["intensity"] == "fixed" and not pixels.any()
            raise Unusable("blank image", "all black" if black else "shows nothing: every pixel is the same")
        if len(there) == len(self.channels):
            return pixels, raw
        places = [self.channels.index(channel) for channel in there]
        return self._filled(pixels, places), None if raw is None else self._filled(raw, places)

    def _filled(self, given: np.ndarray, places: list[int]) -> np.ndarray:
        """Channels at their places among all, and zeros at the others."""
        out = np.zeros((len(self.channels), *given.shape[1:]), dtype=given.dtype)
        out[places] = given
        return out

    def planes(self, name: str) -> tuple[dict[str, Plane], list[Fault]]:
        """The wanted planes of an image's files by channel, and all faults of these files."""
        bad: list[Fault] = []
        planes: dict[str, Plane] = {}
        files = self.files(name)
        for file, channels in files.items():
            try:
                planes |= self._planes(file, channels)
            except Unusable as problem:
                bad.append(Fault(name, file, problem.kind, problem.reason))
        return planes, self._without_files(name, bad)

    def _without_files(self, name: str, bad: list[Fault]) -> list[Fault]:
        """One fault in place of many where none of several files is there."""
        files = self.files(name)
        if len(files) > 1 and sum(entry.kind == "missing file" for entry in bad) == len(files):
            return [Fault(name, ", ".join(files), "Id without files", "none of these files is there")]
        return bad

    def _planes(self, file: str, channels: list[str]) -> dict[str, Plane]:
        """Wanted planes of a file, averaged at once.

        The pixels are then still in the processor's cache, and their memory is reused for the next file."""
        planes = self._decode(file, channels)
        if self.bits and planes.bits not in self.bits:
            raise Unusable("wrong bit depth", f"is {_bits(planes.bits)}; expected is {self._expected_bits()}")
        named = self._by_channel(planes, channels)
        return {name: self._averaged(image, planes.bits) for name, image in named.items() if name in self.channels}

    def _decode(self, file: str, channels: list[str]) -> Planes:
        path = self._root + file
        try:
            state = os.lstat(path)
        except FileNotFoundError:
            raise Unusable("missing file", "is missing") from None
        except OSError as error:
            raise_if_passing(error)
            raise Unusable("cannot be read", f"cannot be read: {error.strerror}") from None
        # A link, or a linked folder on the way, may lead out of the folder.
        if stat.S_ISLNK(state.st_mode) or "/" in file:
            real = os.path.realpath(path)
            if os.path.commonpath([real, self._real]) != self._real:
                raise Unusable("link out of the folder", "is a link to a place outside of the folder")
            if not os.path.exists(path):  # noqa: PTH110
                raise Unusable("missing file", "is a link to nothing")
        elif not state.st_size and not stat.S_ISDIR(state.st_mode):
            raise Unusable("empty file", "is empty (0 bytes)")
        return decode(path, Wanted(len(channels), self._stack, self._least))

    def _by_channel(self, planes: Planes, channels: list[str]) -> dict[str, Image.Image]:
        """The planes of a file under the names of their channels."""
        count = len(planes.images)
        colours = self.data["planes"] or {}
        wanted = [channel for channel in channels if channel in self.channels]
        in_colours = count >= 3 and wanted and all(channel in colours for channel in wanted)
        # More than three planes, as many as channels: each is a channel, and none is a colour.
        stacked = count > 4 or 3 < count == len(channels)
        if in_colours and (len(channels) == 1 or not (planes.names or stacked)):
            taken = {name: [planes.images[plane] for plane in _COLOURS[colours[name]]] for name in wanted}
            return {name: own[0] if len(own) == 1 else blend(own) for name, own in taken.items()}
        if len(channels) == 1 and count > 1:
            raise Unusable("colour file", f"has {count} planes, such as colours; one plane of grey is expected")
        names = _as_ours(planes.names, channels) or channels
        strange = bool(planes.names) and not set(names) & set(channels)
        if count != len(names) or (strange and count > len(channels)):
            raise Unusable("wrong number of channels", f"has {count} channels; {len(channels)} are expected")
        named = dict(zip(names, planes.images, strict=True))
        absent = [channel for channel in self.channels if channel in channels and channel not in named]
        if absent and strange:
            # Names that have nothing to do with ours say nothing about the order; it is the user's then.
            named, absent = dict(zip(channels, planes.images, strict=False)), channels[count:]
        if absent and self.missing_channel == REFUSE:
            have = ", ".join(planes.names or names)
            raise Unusable("missing channel", f"has no channel {absent[0]!r}; its channels are {have}")
        return named

    def _averaged(self, image: Image.Image, bits: int) -> Plane:
        """Plane of an image; whole fields, out of which cells are cut, keep theirs as it is."""
        return self._scaling.averaged(image, bits)

    def _check(self, planes: dict[str, Plane]) -> None:
        """Check that the channels of an image fit together."""
        absent = [channel for channel in self.channels if channel not in planes]
        if absent and planes and self.missing_channel == DROP:
            raise Unusable(LACKING, f"has no channel {absent[0]!r} ({_DROPPED})")
        if absent and (self.missing_channel == REFUSE or not planes):
            raise Unusable("missing channel", f"no channel {absent[0]!r}")
        sizes = {channel: planes[channel].size for channel in self.channels if channel in planes}
        if len(set(sizes.values())) > 1:
            told = ", ".join(f"{channel} {width} × {height}" for channel, (width, height) in sizes.items())
            raise Unusable("channels of different size", f"channels differ in size: {told}")
        if len({planes[channel].bits for channel in sizes}) > 1:
            told = ", ".join(f"{channel} {_bits(planes[channel].bits)}" for channel in sizes)
            raise Unusable("wrong bit depth", f"channels differ in depth: {told}")

    def _expected_bits(self) -> str:
        told = " or ".join(map(_bits, sorted(self.bits)))
        return told if self.data["bits"] else f"{told}, as most images are (data.bits allows others)"


def _as_ours(names: list[str] | None, channels: list[str]) -> list[str]:
    """Names of a file's channels, those that the config can only spell in another way as the config spells them."""
    ours = {_spelled(channel): channel for channel in channels}
    alike = [ours.get(_spelled(name), name) for name in names or []]
    return alike if len(ours) == len(channels) and len(set(alike)) == len(alike) else list(names or [])


def _spelled(name: str) -> str:
    """A name without what the config allows in no name, in small letters."""
    return re.sub(r"[^A-Za-z0-9_-]+", "_", name)[:_LONGEST].casefold()


def _stamp(state: os.stat_result) -> list[int]:
    return [state.st_size, state.st_mtime_ns]


def _folder_stamp(path: str) -> list[int]:
    """Size, number, last change and a checksum of the files in a folder that is one image."""
    found = []
    for folder, _, names in os.walk(path):
        for name in names:
            found.append([os.path.join(folder, name), *_stamp(os.lstat(os.path.join(folder, name)))])  # noqa: PTH118
            if len(found) > _MOST_FILES:
                raise ValueError(path)
    found.sort()
    sizes, times = [entry[1] for entry in found], [entry[2] for entry in found]
    return [sum(sizes), len(found), max(times, default=0), zlib.crc32(repr(found).encode())]


def _bits(bits: int) -> str:
    return "floating point" if bits == 32 else f"{bits} bits deep"


def files_without_row(reader: Reader, ids: set[str]) -> Iterator[str]:
    """Ids of files in the folder that no table names."""
    patterns = list(reader.files("{id}"))
    shapes = {_shape(pattern) for pattern in patterns}
    seen: set[str] = set()
    for name in _names(reader.folder, any("/" in pattern for pattern in patterns)):
        for shape in shapes:
            match = shape.fullmatch(name)
            if match and match[1] not in ids and match[1] not in seen:
                seen.add(match[1])
                yield match[1]


def _names(folder: Path, below: bool) -> Iterator[str]:
    """Names in a folder, and in those below it where patterns reach there."""
    if not below:
        with os.scandir(folder) as entries:
            yield from (entry.name for entry in entries)
        return
    for place, folders, names in os.walk(folder):
        yield from (os.path.relpath(os.path.join(place, name), folder) for name in (*folders, *names))  # noqa: PTH118


def _shape(file: str) -> re.Pattern[str]:
    return re.compile("([^/]+)".join(map(re.escape, file.split("{id}"))))
