"""Reader of image sets on disk, real or synthetic.

Reading goes through `ImageSet.read(rows, purpose)`, which records what was read and for what, and whether labels were
read too. The file's layout is that of `image_set_layout`."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Self

import h5py
import numpy as np

from workflow_scripts.lib.base.errors import UserError, raise_if_passing
from workflow_scripts.lib.images import intensity_limits
from workflow_scripts.lib.images.access_record import AccessRecord
from workflow_scripts.lib.images.image_set_layout import COMPLETE, FORMAT_VERSION, FURTHER, MISSING, PRESENT, array
from workflow_scripts.lib.images.intensity_limits import Limits

CHUNK = 64  # rows that are read at a time from a file without chunks
MOMENTS_BLOCK = 2**22  # pixels that are floats at a time


@dataclass
class Part:
    """Some images of a set, in memory."""

    images: np.ndarray  # uint8 (n, C, H, W)
    labels: np.ndarray | None  # uint8 (n, K); None: they were not read
    ids: np.ndarray  # str (n,)
    groups: np.ndarray  # str (n,)
    rows: np.ndarray  # int64 (n,), row numbers in the set
    access_record: AccessRecord  # that they were read, and for what

    def __len__(self) -> int:
        return len(self.rows)


def channel_moments(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation, float64 (C,), of each channel of images uint8 (n, C, H, W); exact, in blocks."""
    sums, squares = np.zeros(images.shape[1]), np.zeros(images.shape[1])
    # Whole numbers: the sums are exact, however many images are floats at a time.
    block = max(1, MOMENTS_BLOCK // max(1, images[:1].size))
    for start in range(0, len(images), block):
        values = images[start : start + block].astype(np.float64)
        sums += values.sum(axis=(0, 2, 3))
        squares += np.square(values, out=values).sum(axis=(0, 2, 3))
    count = images.size / images.shape[1]
    mean = sums / count
    return mean, np.sqrt(np.maximum(squares / count - mean**2, 0))


def channel_statistics(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """`channel_moments`; the deviation of an all-black channel is one grey level, so that dividing by it is safe."""
    mean, deviation = channel_moments(images)
    return mean, np.maximum(deviation, 1.0)


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
            raise_if_passing(error)
            raise UserError(f"{self.path} is not an HDF5 image set that can be read: {error}") from None
        try:
            self._open()
        except (KeyError, TypeError, ValueError, AttributeError, RuntimeError, OSError) as error:
            raise_if_passing(error)
            self._file.close()
            raise UserError(
                f"{self.path} is an HDF5 file, but no image set ({error}): give the right file, or delete it, run again"
            ) from None
        except UserError:
            self._file.close()
            raise

    def _open(self) -> None:
        """Read the set's attributes; any layout but that of `image_set_layout` is refused."""
        self.attrs: dict[str, Any] = {name: _plain(name, value) for name, value in self._file.attrs.items()}
        self.limits = self._behind_view() if intensity_limits.VIEW_OF in self.attrs else None
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
        if PRESENT in self._file and array(self._file, PRESENT, 2, np.uint8).shape != images.shape[:2]:
            raise ValueError("it says of other images or channels whether they are there")
        for name in self.columns():
            array(self._file, f"columns/{name}", 1)
        self._fitted = AccessRecord(self.digest, len(self.ids))
        if self.limits is not None:
            self._fitted = self._fitted.merged(AccessRecord.from_json(self.attrs["access_record"]))
        self._read = self._fitted.merged()

    def _behind_view(self) -> Limits:
        """Open the set that this file is a view of, in its place, and return the limits of the view."""
        limits, view, base = intensity_limits.read(self._file), self.attrs, self.path.parent / self.attrs["view_of"]
        self._file.close()
        try:
            self._file = h5py.File(base, "r")
        except OSError as error:
            raise UserError(f"{self.path} is a view of {base}, which cannot be read: {error}") from None
        self.attrs = {name: _plain(name, value) for name, value in self._file.attrs.items()} | view
        raw = array(self._file, intensity_limits.RAW, 4, np.uint16)
        if raw.shape != self._file["images"].shape or len(limits.value) != len(raw):
            raise ValueError("it is a view of another set")
        return limits

    @property
    def limits_digest(self) -> str:
        """Digest of the limits that the images are spread between; empty where the set is no view."""
        return self.attrs.get("limits_digest", "")

    @property
    def keeps_raw(self) -> bool:
        """Whether the set has raw values beside its images."""
        return intensity_limits.RAW in self._file

    def raw(self, rows: np.ndarray, purpose: str) -> np.ndarray:
        """Raw values uint16 (n, C, H, W) of some rows, recorded as read without labels."""
        if not self.keeps_raw:
            raise UserError(f"{self.path} has no raw values: delete it and run again")
        self._read.record(purpose, self._rows(rows), labels=False)
        with self._intact():
            return self._blocks(self._rows(rows), intensity_limits.RAW)

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

    @property
    def further(self) -> np.ndarray:
        """Which images (n,) are further ones that came without labels; their labels are absent, so 0 means nothing."""
        return np.arange(len(self)) >= len(self) - int(self.attrs.get(FURTHER, 0))

    @property
    def present(self) -> np.ndarray:
        """Which channels of which images are there, bool (N, C); the pixels of the others are zeros."""
        with self._intact():
            if PRESENT in self._file:
                return self._file[PRESENT][:].astype(bool)
        return np.ones((len(self), len(self.channels)), dtype=bool)

    def columns(self) -> list[str]:
        """Names of the further text columns."""
        return json.loads(self.attrs.get("columns", "[]"))

    def group_columns(self) -> list[str]:
        """The columns that say which images belong together, such as gene and antibody."""
        told = f", {self.attrs.get('grouped_by', '')}, "
        return [name for name in self.columns() if f", {name}, " in told]

    def kin_known(self) -> np.ndarray:
        """Of which images (n,) it is known what others show their protein, bool; of further ones by their columns."""
        named = [self.column(name) != "" for name in self.group_columns()]
        told = np.any(named, axis=0) if named else np.zeros(len(self), dtype=bool)
        return np.where(self.further, told, bool(self.attrs.get("grouped_by")))

    def column(self, name: str) -> np.ndarray:
        """A text column such as gene or cell_line, for all images."""
        with self._intact():
            return self._file[f"columns/{name}"].asstr()[:]

    def values(self, names: list[str] | None, rows: np.ndarray, purpose: str) -> np.ndarray | None:
        """Text columns (n, C) of some rows, recorded as read without labels; None where no column is named."""
        if not names:
            return None
        # Where no image lacks a channel, no column says so.
        whole = {MISSING} - set(self.columns())
        absent = [name for name in names if name not in self.columns() and name not in whole]
        if absent:
            known = ", ".join(self.columns()) or "none"
            raise UserError(f"{self.path} has no column {absent[0]!r}; its columns are: {known}")
        self._read.record(purpose, self._rows(rows), labels=False)
        complete = np.full(len(self), COMPLETE, dtype=object)
        return np.stack([(complete if name in whole else self.column(name))[rows] for name in names], axis=1)

    def labels(self, rows: np.ndarray | None, purpose: str) -> np.ndarray:
        """Labels uint8 (n, K) of some rows (None: of all), recorded as read."""
        chosen = self._rows(rows)
        self._read.record(purpose, chosen)
        with self._intact():
            return self._file["labels"][:][chosen]

    def read(self, rows: np.ndarray | None, purpose: str, labels: bool = True) -> Part:
        """Images and labels of some rows (None: of all) in the order asked for, recorded as read for `purpose`.

        Without `labels` the images alone are read, and recorded so."""
        chosen = self._rows(rows)
        record = self._fitted.merged()
        record.record(purpose, chosen, labels)
        self._read = self._read.merged(record)
        with self._intact():
            images, found = self._pixels(chosen), self._file["labels"][:][chosen] if labels else None
        return Part(images, found, self.ids[chosen], self.groups[chosen], chosen, record)

    def _pixels(self, chosen: np.ndarray) -> np.ndarray:
        """Images of some rows, uint8 (n, C, H, W)."""
        if self.limits is None:
            return self._blocks(chosen, "images")
        present, out = self.present, []
        for start in range(0, len(chosen), 1024):
            rows = chosen[start : start + 1024]
            out.append(self.limits.spread(self._blocks(rows, intensity_limits.RAW), present[rows], rows))
        return np.concatenate(out) if out else self._blocks(chosen, "images")

    def _blocks(self, chosen: np.ndarray, name: str) -> np.ndarray:
        """Rows of an array of images (n, C, H, W)."""
        data = self._file[name]
        images = np.empty((len(chosen), *data.shape[1:]), dtype=data.dtype)
        # HDF5 reads runs of rows fast and lists of rows slowly: of each chunk the run that holds its rows is read.
        order = np.argsort(chosen, kind="stable")
        rows = chosen[order]
        starts = np.flatnonzero(np.diff(rows // (data.chunks or (CHUNK,))[0], prepend=-1))
        for start, stop in pairwise([*starts, len(rows)]):
            wanted, first = rows[start:stop], int(rows[start])
            images[order[start:stop]] = data[first : int(rows[stop - 1]) + 1][wanted - first]
        return images

    @contextlib.contextmanager
    def _intact(self) -> Iterator[None]:
        """What HDF5 says of damaged content, as one line for the user."""
        try:
            yield
        except (OSError, RuntimeError, ValueError) as error:
            raise_if_passing(error)
            raise UserError(f"{self.path} is damaged ({error}): delete it and run again") from None

    def access_record(self) -> AccessRecord:
        """Record of what was read so far, and for what."""
        return self._read.merged()

    def inherited(self) -> AccessRecord | None:
        """Record of what a synthetic set's generator was fitted on; None for real images."""
        text = self.attrs.get("access_record", "") if self.limits is None else ""
        try:
            return AccessRecord.from_json(text) if text else None
        except ValueError as error:
            raise UserError(f"{self.path}: {error}: delete it and run again") from None

    def _rows(self, rows: np.ndarray | None) -> np.ndarray:
        return np.arange(len(self)) if rows is None else np.asarray(rows, dtype=np.int64)


def _plain(name: str, value: Any) -> Any:
    """The value of an attribute, which is text or a number."""
    value = value.item() if isinstance(value, np.generic) else value
    if not isinstance(value, str | int | float):
        raise ValueError(f"its attribute {name} is neither text nor a number")
    return value
