"""Writer of image sets: images come block by block, and the file is there once it is whole.

The file's layout is that of `image_set_layout`, and its digest covers all content."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from workflow_scripts.lib.base.files import atomic
from workflow_scripts.lib.images.image_set_layout import COMPLETE, FORMAT_VERSION, MISSING, PRESENT, TEXT
from workflow_scripts.lib.images.intensity_limits import RAW


def missing_names(present: np.ndarray, channels: Sequence[str]) -> list[str]:
    """Names of the channels that each image lacks, from a mask (n, C) of those that are there."""
    lists = ([name for name, there in zip(channels, row, strict=True) if not there] for row in present)
    return ["|".join(names) or COMPLETE for names in lists]


class Inventory:
    """What a set says beside its pixels, gathered block by block, and the digest of all that is in it."""

    def __init__(self, channels: list[str], classes: list[str]) -> None:
        self._channels, self._classes = list(channels), list(classes)
        self._labels: list[np.ndarray] = []
        self._present: list[np.ndarray] = []
        self._raw = hashlib.blake2b(digest_size=16)
        self._text: dict[str, list[str]] = {"ids": [], "groups": []}
        self._columns: dict[str, list[str]] = {}
        self._hash = hashlib.blake2b(digest_size=16)

    def add(
        self,
        images: np.ndarray,
        labels: np.ndarray,
        ids: Sequence[str],
        groups: Sequence[str],
        columns: dict[str, Sequence[str]] | None = None,
    ) -> None:
        """Take in a block: images uint8 (n, C, H, W), labels (n, K), and their text columns."""
        labels = np.ascontiguousarray(labels, dtype=np.uint8).reshape(len(images), len(self._classes))
        self._labels.append(labels)
        self._text["ids"].extend(map(str, ids))
        self._text["groups"].extend(map(str, groups))
        for name, values in (columns or {}).items():
            self._columns.setdefault(name, []).extend(map(str, values))
        # Labels follow in `write`: the digest must not depend on how the images were cut into blocks.
        self._hash.update(images.reshape(-1))

    def regroup(self, groups: Sequence[str]) -> None:
        """Replace the groups of all images, where they are known only once every image has been seen."""
        self._text["groups"] = list(map(str, groups))

    def mark(self, present: np.ndarray) -> None:
        """Say of a block which channels are there, (n, C); sets without a missing channel need not."""
        self._present.append(np.ascontiguousarray(present, dtype=np.uint8))

    def add_raw(self, raw: np.ndarray) -> None:
        """Take in the raw values of a block."""
        self._raw.update(np.ascontiguousarray(raw).reshape(-1))

    @property
    def present(self) -> np.ndarray:
        """Which channels are there, bool (n, C), as far as this was said."""
        empty = np.ones((0, len(self._channels)), dtype=np.uint8)
        return np.concatenate([empty, *self._present]).astype(bool)

    @property
    def missing(self) -> list[str]:
        """Names of the channels that each image lacks."""
        return missing_names(self.present, self._channels)

    def _write_present(self, file: h5py.File) -> None:
        """Write which channels are there, where any is missing."""
        present = self.present.astype(np.uint8)
        if present.all():
            return
        file.create_dataset(PRESENT, data=present)
        self._columns[MISSING] = self.missing
        self._hash.update(present.tobytes())

    def write(self, file: h5py.File, attrs: dict[str, Any]) -> None:
        """Write labels, text columns, attributes and the content digest beside the images of a file."""
        count = len(file["images"])
        self._write_present(file)
        for name, values in (self._text | self._columns).items():
            if len(values) != count:
                raise ValueError(f"column {name!r} has {len(values)} values for {count} images")
        labels = np.concatenate(self._labels) if self._labels else np.zeros((0, len(self._classes)), dtype=np.uint8)
        file.create_dataset("labels", data=labels)
        self._hash.update(labels.tobytes())
        if RAW in file:
            self._hash.update(self._raw.digest())
        columns = {f"columns/{name}": values for name, values in self._columns.items()}
        for name, values in (self._text | columns).items():
            file.create_dataset(name, data=np.array(values, dtype=object), dtype=TEXT)
        described = [self._channels, self._classes, self._text, self._columns]
        self._hash.update(json.dumps(described, sort_keys=True).encode())
        own = {
            "channels": json.dumps(self._channels),
            "classes": json.dumps(self._classes),
            "columns": json.dumps(sorted(self._columns)),
            "format_version": FORMAT_VERSION,
            "digest": self._hash.hexdigest(),
        }
        for name, value in (attrs | own).items():
            file.attrs[name] = value


class ImageWriter:
    """Receives the images of a set block by block; made by `write_images`."""

    def __init__(self, file: h5py.File, channels: list[str], classes: list[str], size: int) -> None:
        self.channels, self.inventory = list(channels), Inventory(channels, classes)
        self._file, shape = file, (len(channels), size, size)
        # Chunks of about 1 MB: near memory speed for blocks, little waste for single images.
        rows = max(1, min(256, 2**20 // int(np.prod(shape))))
        self._images = file.create_dataset("images", (0, *shape), "u1", maxshape=(None, *shape), chunks=(rows, *shape))

    def append_raw(self, raw: np.ndarray) -> None:
        """Add the raw values of the block that was appended last, uint16 (n, C, H, W)."""
        if RAW not in self._file:
            chunks, shape = self._images.chunks, self._images.shape[1:]
            self._file.create_dataset(RAW, (0, *shape), "u2", maxshape=(None, *shape), chunks=chunks)
        start = len(self._file[RAW])
        self._file[RAW].resize(start + len(raw), axis=0)
        self._file[RAW][start:] = raw
        self.inventory.add_raw(raw)

    def append(
        self,
        images: np.ndarray,
        labels: np.ndarray,
        ids: Sequence[str],
        groups: Sequence[str],
        columns: dict[str, Sequence[str]] | None = None,
    ) -> None:
        """Add a block: images uint8 (n, C, H, W), labels (n, K), and their text columns."""
        images = np.ascontiguousarray(images, dtype=np.uint8)
        if images.shape[1:] != self._images.shape[1:]:
            raise ValueError(f"images of shape {images.shape[1:]} for a set of {self._images.shape[1:]}")
        start = len(self._images)
        self._images.resize(start + len(images), axis=0)
        self._images[start:] = images
        self.inventory.add(images, labels, ids, groups, columns)


@contextlib.contextmanager
def write_images(
    path: Path, channels: list[str], classes: list[str], size: int, attrs: dict[str, Any] | None = None
) -> Iterator[ImageWriter]:
    """Write a set block by block; the file appears under its name when the `with` block succeeds.

    `attrs` is read at the end, so a caller may fill it while it writes."""
    with atomic(path) as part, h5py.File(part, "w") as file:
        writer = ImageWriter(file, channels, classes, size)
        yield writer
        writer.inventory.write(file, attrs or {})
