"""Intensity limits of a fold (preprocess_images.intensity: train_part): percentiles of each channel over the images of
its train part, for each value of a column such as the plate.

An image set then holds `raw`, uint16 (N, C, H, W), beside images that are each stretched by themselves. The fold's own
file is a view of that set: it has the limits and no pixels, and `ImageSet` reads it as a set whose images are spread
between them. Its record says which images the limits were fitted on, so whatever reads it inherits that."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from workflow_scripts.lib.base import files
from workflow_scripts.lib.images.access_record import AccessRecord

RAW, VIEW_OF = "raw", "view_of"  # dataset of a set, attribute of a view
LOW, HIGH = 0.1, 99.9  # percentiles that become black and white, as where each image is stretched by itself
DEPTH = 2**16
BLOCK = 256  # images in memory at a time


class Histogram:
    """How often each raw value occurs in each channel: int (C, DEPTH)."""

    def __init__(self, channels: int) -> None:
        self.counts = np.zeros((channels, DEPTH), dtype=np.int64)

    def add(self, raw: np.ndarray, present: np.ndarray) -> None:
        """Count images uint16 (n, C, H, W); channels that are missing, bool (n, C), do not count."""
        for image, there in zip(raw, present, strict=True):
            for channel in np.flatnonzero(there):
                self.counts[channel] += np.bincount(image[channel].ravel(), minlength=DEPTH)

    def limits(self) -> np.ndarray:
        """Percentiles LOW and HIGH, float32 (C, 2); NaN where a channel has no pixel."""
        nothing = (np.nan, np.nan)
        return np.array([percentiles(own) if own.any() else nothing for own in self.counts], dtype=np.float32)


Read = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]  # rows -> raw values, and which channels are there


def fitted(values: int, place: np.ndarray, rows: np.ndarray, read: Read) -> np.ndarray:
    """Limits (V, C, 2) of each value over its own rows, and of all rows together where a value or a channel has none.

    `place` is the value of each row, -1 for those of no value in particular. One value is counted at a time: there may
    be thousands of wells."""
    whole, limits = None, {}
    for own in np.unique(place[place >= 0]):
        one, mine = None, rows[place == own]
        for start in range(0, len(mine), BLOCK):
            raw, present = read(mine[start : start + BLOCK])
            one = one or Histogram(raw.shape[1])
            one.add(raw, present)
        limits[int(own)] = one.limits()
        whole = whole or Histogram(len(one.counts))
        whole.counts += one.counts
    if whole is None:
        raise ValueError("no image has a value")
    out = np.full((values, len(whole.counts), 2), np.nan, dtype=np.float32)
    for own, found in limits.items():
        out[own] = found
    # A channel without a pixel anywhere is black.
    return np.where(np.isnan(out), np.nan_to_num(whole.limits()), out)


def percentiles(counts: np.ndarray) -> tuple[float, float]:
    """The values at percentiles LOW and HIGH, from how often each occurs (DEPTH,)."""
    reached = np.cumsum(counts)
    low, high = (int(np.searchsorted(reached, share / 100 * reached[-1], "left")) for share in (LOW, HIGH))
    return float(low), float(min(high, DEPTH - 1))


def applied(raw: np.ndarray, limits: np.ndarray) -> np.ndarray:
    """Images uint16 (n, C, H, W) spread between their limits (n, C, 2), as uint8; a channel without range is black."""
    low, high = limits[..., 0, None, None], limits[..., 1, None, None]
    scaled = (raw.astype(np.float32) - low) * (255 / np.maximum(high - low, 1))
    return np.where(high > low, np.rint(np.clip(scaled, 0, 255)), 0).astype(np.uint8)


@dataclass(frozen=True)
class Limits:
    """Limits of a fold: of each value of the column, and which value each image of the set has."""

    limits: np.ndarray  # float32 (V, C, 2)
    value: np.ndarray  # int (N,)

    def spread(self, raw: np.ndarray, present: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """Images of some rows, uint8; channels that are missing, bool (n, C), stay zeros."""
        return applied(raw, self.limits[self.value[rows]]) * present[:, :, None, None].astype(np.uint8)


def write(path: Path, source: Path, limits: Limits, record: AccessRecord, attrs: dict[str, Any]) -> None:
    """Write the view of the set `source` that has these limits."""
    about = {"access_record": record.to_json(), VIEW_OF: os.path.relpath(source, path.parent)} | attrs
    about["limits_digest"] = files.digest([limits.limits.tolist(), limits.value.tolist(), record.to_json()])
    with files.atomic(path) as part, h5py.File(part, "w") as file:
        file.create_dataset("limits", data=limits.limits.astype(np.float32))
        file.create_dataset("value", data=limits.value.astype(np.int64))
        for name, value in about.items():
            file.attrs[name] = value if isinstance(value, str | int) else json.dumps(value)


def read(file: h5py.File) -> Limits:
    """The limits that a view holds."""
    return Limits(file["limits"][:].astype(np.float32), file["value"][:].astype(np.int64))
