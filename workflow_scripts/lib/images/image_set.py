"""Image sets on disk, real or synthetic: the one module that knows the HDF5 layout.

    images  uint8 (N, C, H, W), in chunks of about 1 MB     labels  uint8 (N, K), 0 or 1
    ids, groups and further text columns (gene, antibody, cell_line, reliability, ...)  (N,)
    attributes: channels, classes, source, licence, credit, format_version, digest, provenance, ...

Reading goes through `ImageSet.read(rows, purpose)`, which records what was read and for what."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import h5py
import numpy as np

from workflow_scripts.lib.base.errors import UserError
from workflow_scripts.lib.base.files import atomic
from workflow_scripts.lib.images.access_record import Provenance

FORMAT_VERSION = 1
TEXT = h5py.string_dtype("utf-8")


@dataclass
class Part:
    """Some images of a set, in memory."""

    images: np.ndarray  # uint8 (n, C, H, W)
    labels: np.ndarray  # uint8 (n, K)
    ids: np.ndarray  # str (n,)
    groups: np.ndarray  # str (n,)
    rows: np.ndarray  # int64 (n,), row numbers in the set
    provenance: Provenance  # that they were read, and for what

    def __len__(self) -> int:
        return len(self.rows)


def channel_statistics(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation, float64 (C,), of each channel of images uint8 (n, C, H, W); exact, in blocks.

    The deviation of an all-black channel is set to one grey level, so that dividing by it is safe."""
    sums, squares = np.zeros(images.shape[1]), np.zeros(images.shape[1])
    for start in range(0, len(images), 1024):
        block = images[start : start + 1024].astype(np.float64)
        sums, squares = sums + block.sum(axis=(0, 2, 3)), squares + (block**2).sum(axis=(0, 2, 3))
    count = images.size / images.shape[1]
    mean = sums / count
    return mean, np.maximum(np.sqrt(np.maximum(squares / count - mean**2, 0)), 1.0)


def select_channels(images: np.ndarray, channels: list[str], wanted: list[str]) -> np.ndarray:
    """Some channels of images (n, C, H, W), in the given order; the array itself where these are all."""
    return images if wanted == channels else images[:, [channels.index(name) for name in wanted]]


class ImageSet:
    """Image set opened for reading; records which rows were read for which purpose."""

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        try:
            self._file = h5py.File(self.path, "r")
        except OSError as error:
            raise UserError(f"{self.path} is not an HDF5 image set that can be read: {error}") from None
        try:
            self._open()
        except (KeyError, TypeError, ValueError, AttributeError, RuntimeError, OSError) as error:
            self._file.close()
            raise UserError(
                f"{self.path} is an HDF5 file, but no image set ({error}): give the right file, or delete it, run again"
            ) from None
        except UserError:
            self._file.close()
            raise

    def _open(self) -> None:
        """Read the set's attributes; any layout but that of `ImageWriter` is refused."""
        self.attrs: dict[str, Any] = {name: _plain(name, value) for name, value in self._file.attrs.items()}
        version = self.attrs.get("format_version")
        if version != FORMAT_VERSION:
            raise UserError(
                f"{self.path} has image set format {version}, this MixLoc reads {FORMAT_VERSION}: delete it, run again"
            )
        self.channels: list[str] = json.loads(self.attrs["channels"])
        self.classes: list[str] = json.loads(self.attrs["classes"])
        self.digest: str = self.attrs["digest"]
        self.ids: np.ndarray = array(self._file, "ids", 1).asstr()[:]
        self.groups: np.ndarray = array(self._file, "groups", 1).asstr()[:]
        images, labels = array(self._file, "images", 4, np.uint8), array(self._file, "labels", 2, np.uint8)
        if images.shape[:2] != (len(self.ids), len(self.channels)) or len(self.groups) != len(self.ids):
            raise ValueError("its images, ids, groups and channels differ in number")
        if labels.shape != (len(self.ids), len(self.classes)):
            raise ValueError("its labels, ids and classes differ in number")
        for name in self.columns():
            array(self._file, f"columns/{name}", 1)
        self._read = Provenance(self.digest, len(self.ids))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def size(self) -> int:
        """Height and width of the images."""
        return int(self._file["images"].shape[-1])

    def columns(self) -> list[str]:
        """Names of the further text columns."""
        return json.loads(self.attrs.get("columns", "[]"))

    def column(self, name: str) -> np.ndarray:
        """A text column such as gene or cell_line, for all images."""
        return self._file[f"columns/{name}"].asstr()[:]

    def labels(self, rows: np.ndarray | None, purpose: str) -> np.ndarray:
        """Labels uint8 (n, K) of some rows (None: of all), recorded as read."""
        chosen = self._rows(rows)
        self._read.record(purpose, chosen)
        return self._file["labels"][:][chosen]

    def read(self, rows: np.ndarray | None, purpose: str) -> Part:
        """Images and labels of some rows (None: of all) in the order asked for, recorded as read for `purpose`."""
        chosen = self._rows(rows)
        labels = self.labels(chosen, purpose)
        images = np.empty((len(chosen), *self._file["images"].shape[1:]), dtype=np.uint8)
        # HDF5 reads long runs fast and scattered rows slowly: read sorted blocks, then put them in order.
        order = np.argsort(chosen, kind="stable")
        for start in range(0, len(order), 1024):
            block = order[start : start + 1024]
            wanted = chosen[block]
            first, last = int(wanted[0]), int(wanted[-1]) + 1
            if last - first <= 4 * len(wanted):
                images[block] = self._file["images"][first:last][wanted - first]
            else:
                unique, back = np.unique(wanted, return_inverse=True)
                images[block] = self._file["images"][unique][back]
        record = Provenance(self.digest, len(self))
        record.record(purpose, chosen)
        return Part(images, labels, self.ids[chosen], self.groups[chosen], chosen, record)

    def provenance(self) -> Provenance:
        """Record of what was read so far, and for what."""
        return self._read.merged()

    def inherited(self) -> Provenance | None:
        """Record of what a synthetic set's generator was fitted on; None for real images."""
        text = self.attrs.get("provenance", "")
        try:
            return Provenance.from_json(text) if text else None
        except ValueError as error:
            raise UserError(f"{self.path}: {error}: delete it and run again") from None

    def _rows(self, rows: np.ndarray | None) -> np.ndarray:
        return np.arange(len(self)) if rows is None else np.asarray(rows, dtype=np.int64)


def array(file: h5py.File, name: str, axes: int, dtype: type | None = None) -> h5py.Dataset:
    """A dataset of a file, with so many axes and of this type (None: of text); ValueError where it is anything else."""
    found = file[name]
    if not isinstance(found, h5py.Dataset) or found.ndim != axes:
        raise ValueError(f"{name} is no array of {axes} axes")
    if h5py.check_string_dtype(found.dtype) is None if dtype is None else found.dtype != dtype:
        raise ValueError(f"{name} holds values of another type")
    # Data stored in another file is refused: it could be anything on this machine.
    if found.external or found.is_virtual or found.file.filename != file.filename:
        raise ValueError(f"{name} lies in another file")
    return found


def _plain(name: str, value: Any) -> Any:
    """The value of an attribute, which is text or a number."""
    value = value.item() if isinstance(value, np.generic) else value
    if not isinstance(value, str | int | float):
        raise ValueError(f"its attribute {name} is neither text nor a number")
    return value


class Inventory:
    """What a set says beside its pixels, gathered block by block, and the digest of all that is in it."""

    def __init__(self, channels: list[str], classes: list[str]) -> None:
        self._channels, self._classes = list(channels), list(classes)
        self._labels: list[np.ndarray] = []
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

    def write(self, file: h5py.File, attrs: dict[str, Any]) -> None:
        """Write labels, text columns, attributes and the content digest beside the images of a file."""
        count = len(file["images"])
        for name, values in (self._text | self._columns).items():
            if len(values) != count:
                raise ValueError(f"column {name!r} has {len(values)} values for {count} images")
        labels = np.concatenate(self._labels) if self._labels else np.zeros((0, len(self._classes)), dtype=np.uint8)
        file.create_dataset("labels", data=labels)
        self._hash.update(labels.tobytes())
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
        self.inventory = Inventory(channels, classes)
        shape = (len(channels), size, size)
        # Chunks of about 1 MB: near memory speed for blocks, little waste for single images.
        rows = max(1, min(256, 2**20 // int(np.prod(shape))))
        self._images = file.create_dataset("images", (0, *shape), "u1", maxshape=(None, *shape), chunks=(rows, *shape))

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
