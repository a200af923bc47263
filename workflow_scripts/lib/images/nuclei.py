"""Nuclei of a whole field of view: where they are, how large, and which of them can be cut out as single cells.

The channel is averaged down until a nucleus is about `ACROSS` pixels wide, so that fields of any size take about as
long for each nucleus. An adaptive Otsu threshold follows uneven illumination, and a watershed of the distance transform
parts nuclei that touch (the steps of CellProfiler's IdentifyPrimaryObjects, Carpenter et al. 2006). Nothing here knows
files or tables."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage
from skimage.feature import peak_local_max
from skimage.filters import threshold_otsu
from skimage.measure import regionprops
from skimage.morphology import remove_small_objects
from skimage.segmentation import clear_border, watershed

ACROSS = 32  # pixels of a typical nucleus' diameter, when it is segmented
COARSE = 512  # pixels a side, about, of a field from which the typical diameter is learned
WINDOW = 4.0  # side of the windows of the adaptive threshold, in diameters
BOUNDS = (0.7, 1.5)  # an adaptive threshold lies between these multiples of the whole field's
CONTRAST = 2.5  # nuclei are brighter than the background by so many of its standard deviations, or there are none
APART = 0.4  # centres of two nuclei are at least so many diameters apart
SMALLEST, LARGEST = 0.25, 4.0  # of the area of a typical nucleus: the limits where none are given
KEPT = "kept"


@dataclass(frozen=True)
class Limits:
    """What a nucleus is, in pixels of the field."""

    diameter: float
    smallest: float  # area
    largest: float


@dataclass(frozen=True)
class Nucleus:
    """One nucleus, in pixels of the field, and why its cell is left out, if it is."""

    label: int
    row: float
    column: float
    area: float
    verdict: str  # KEPT, or the reason


def limits(diameter: float, smallest: float | None, largest: float | None) -> Limits:
    """Limits of a nucleus' area; those that are not given follow from the typical diameter."""
    typical = np.pi * (diameter / 2) ** 2
    return Limits(
        diameter,
        SMALLEST * typical if smallest is None else smallest,
        LARGEST * typical if largest is None else largest,
    )


def typical_diameter(field: np.ndarray) -> float | None:
    """Diameter of a typical nucleus of a field (H, W), found from the field alone; None if it shows none.

    It is twice the median of the largest distances to the edge, which touching nuclei hardly change."""
    step = max(1, round(max(field.shape) / COARSE))
    small = ndimage.gaussian_filter(_averaged(field, step), 2)
    mask = _bright(small, _threshold(small))
    if mask is None:
        return None
    pieces, count = ndimage.label(clear_border(mask))
    if not count:
        pieces, count = ndimage.label(mask)
    depth = np.zeros(count + 1)
    np.maximum.at(depth, pieces.ravel(), ndimage.distance_transform_edt(pieces).ravel())
    whole = depth[depth > depth.max() / 4]  # specks are no nuclei
    return 2 * float(np.median(whole)) * step


def segment(field: np.ndarray, diameter: float) -> np.ndarray:
    """Label image int32 (H, W) of the nuclei of a field (H, W); 0 is background."""
    step = max(1, round(diameter / ACROSS))
    small, across = _averaged(field, step), diameter / step
    small = ndimage.gaussian_filter(small, max(1.0, across / ACROSS))
    mask = _bright(small, _local_threshold(small, across))
    if mask is None:
        return np.zeros(field.shape, dtype=np.int32)
    mask = ndimage.binary_fill_holes(ndimage.binary_opening(mask, iterations=max(1, round(across / 12))))
    mask = remove_small_objects(mask, max_size=int(np.pi * (across / 8) ** 2))
    return _enlarged(_parted(mask, across), step, field.shape)


def judge(labels: np.ndarray, known: Limits, side: float) -> list[Nucleus]:
    """The nuclei of a label image; those are left out that touch the border, are of another size, or lie so near to
    the border that a square of this side around them would leave the field."""
    height, width = labels.shape
    out = []
    for region in regionprops(labels):
        row, column = (round(float(place), 1) for place in region.centroid)
        top, left, bottom, right = region.bbox
        start = (corner(row, side), corner(column, side))
        if top == 0 or left == 0 or bottom == height or right == width:
            verdict = "touches the border"
        elif region.area < known.smallest:
            verdict = "too small"
        elif region.area > known.largest:
            verdict = "too large"
        elif min(start) < 0 or start[0] + side > height or start[1] + side > width:
            verdict = "too near to the border"
        else:
            verdict = KEPT
        out.append(Nucleus(int(region.label), row, column, float(region.area), verdict))
    return out


def corner(centre: float, side: float) -> int:
    """First pixel of a square of this side around a centre, along one axis."""
    return round(centre - (side - 1) / 2)


def _averaged(field: np.ndarray, step: int) -> np.ndarray:
    """Means over blocks of step × step pixels; a rest at the far edges is left out."""
    height, width = (length // step for length in field.shape)
    cut = field[: height * step, : width * step].astype(np.float32)
    return cut.reshape(height, step, width, step).mean(axis=(1, 3))


def _threshold(values: np.ndarray) -> float:
    """Otsu's threshold of square roots, so that few bright nuclei do not hide the dim ones."""
    roots = np.sqrt(np.maximum(values, 0))
    low, high = float(roots.min()), float(roots.max())
    return float(threshold_otsu(roots)) ** 2 if high > low else np.inf


def _local_threshold(values: np.ndarray, across: float) -> np.ndarray:
    """Otsu's threshold in overlapping windows, interpolated between their centres and bounded by that of the field."""
    whole = _threshold(values)
    half = max(8, round(WINDOW * across / 2))
    rows, columns = (_centres(length, half) for length in values.shape)
    grid = np.array([
        [_threshold(values[max(0, r - half) : r + half, max(0, c - half) : c + half]) for c in columns] for r in rows
    ])  # fmt: skip
    grid = np.clip(grid, BOUNDS[0] * whole, BOUNDS[1] * whole)
    across_rows = np.array([np.interp(np.arange(values.shape[1]), columns, line) for line in grid])
    return np.array([np.interp(np.arange(values.shape[0]), rows, line) for line in across_rows.T]).T


def _centres(length: int, half: int) -> np.ndarray:
    return np.unique(
        np.linspace(min(half, length // 2), max(length - half, length // 2), max(1, round(length / half))).astype(int)
    )


def _bright(values: np.ndarray, threshold: np.ndarray | float) -> np.ndarray | None:
    """Pixels above a threshold; None where these are but the brighter half of one background."""
    mask = values > threshold
    if not mask.any() or mask.all():
        return None
    dark = values[~mask]
    spread = 1.4826 * float(np.median(np.abs(dark - np.median(dark))))
    return mask if np.median(values[mask]) > np.median(dark) + CONTRAST * spread else None


def _parted(mask: np.ndarray, across: float) -> np.ndarray:
    """Labels of touching nuclei, parted where the distance to the edge is least."""
    depth = ndimage.gaussian_filter(ndimage.distance_transform_edt(mask).astype(np.float32), across / 12)
    pieces, _ = ndimage.label(mask)
    peaks = peak_local_max(depth, min_distance=max(1, round(APART * across)), labels=pieces, exclude_border=False)
    peaks = peaks[np.lexsort(peaks.T[::-1])]  # numbered as one reads
    markers = np.zeros(mask.shape, dtype=np.int32)
    markers[tuple(peaks.T)] = np.arange(1, len(peaks) + 1)
    return watershed(-depth, markers, mask=mask)


def _enlarged(labels: np.ndarray, step: int, shape: tuple[int, ...]) -> np.ndarray:
    """A label image at the size of its field; the rest at the far edges takes the nearest labels."""
    large = labels.repeat(step, axis=0).repeat(step, axis=1).astype(np.int32)
    rest = [(0, length - have) for length, have in zip(shape, large.shape, strict=True)]
    return np.pad(large, rest, mode="edge")
