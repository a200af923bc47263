"""Near-duplicates: images with the same content, perhaps rotated, mirrored, rescaled, dimmed or recompressed.

Perceptual hashes find candidates (`duplicates`), and pixels decide: what is finer than a blur must correlate in one of
the eight orientations. Copies share grain and small structures; cells that are merely alike, as small, dim and smooth
ones are, do not."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from workflow_scripts.lib.images import duplicates
from workflow_scripts.lib.images.orientation import all_orientations

SIDE = 32  # images are averaged down to this many pixels a side, or to fewer than twice as many
KERNEL = np.array([1, 4, 6, 4, 1], dtype=np.float32) / 16  # binomial: a blur of about one pixel
# Of simulated dim crops, copies correlate by 0.86 or more, and the nearest of 45,000 unrelated pairs by 0.67.
ALIKE = 0.75  # least correlation of fine detail, mean over channels
ALIKE_EACH = 0.4  # and in each channel: one image's stain in another image is no copy
Read = Callable[[np.ndarray], np.ndarray]  # ascending places -> images uint8 (n, C, H, W)


def near_duplicates(grids: np.ndarray, least: float, read: Read) -> list[tuple[int, int, float]]:
    """Pairs (i, j, correlation of fine detail), i < j, of images that are near-duplicates.

    Candidates are those whose hashes, from `grids` (n, C, 8, 8), correlate by `least`; only their pixels are read."""
    pairs: list[tuple[int, int, float]] = []
    for rows, columns in duplicates.candidates(grids, least):
        if not len(rows):
            continue  # the bound of the hashes let some pass, and none was alike
        (left, one), (right, other) = (np.unique(side, return_inverse=True) for side in (rows, columns))
        correlation, told = _details(_fine(read(left)), _fine(read(right)), one, other)
        mean = (correlation * told).sum(axis=1) / np.maximum(told.sum(axis=1), 1)
        lowest = np.where(told, correlation, np.inf).min(axis=1)
        found = np.flatnonzero((mean >= ALIKE) & (lowest >= ALIKE_EACH))
        pairs += [(int(rows[k]), int(columns[k]), float(mean[k])) for k in found]
    return sorted(pairs)


def _details(left: np.ndarray, right: np.ndarray, one: np.ndarray, other: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Correlation of each channel (P, C) of pairs left[one], right[other], in the orientation where it is best.

    Also whether a channel says anything, bool (P, C): one that is empty in both images does not."""
    channels = left.shape[1]
    full = [side.any(axis=(2, 3)) for side in (left, right)]
    told = full[0][one] | full[1][other]
    best, out = np.full(len(one), -np.inf), np.zeros((len(one), channels), dtype=np.float32)
    flat = left.reshape(len(left), channels, -1)
    for view in all_orientations(right):
        turned = np.ascontiguousarray(view).reshape(len(right), channels, -1)
        # All images of both sides at once: where many are alike, pairs are far more than images.
        products = np.stack([flat[:, k] @ turned[:, k].T for k in range(channels)], axis=-1)[one, other]
        nearer = products.sum(axis=1) > best
        best[nearer], out[nearer] = products[nearer].sum(axis=1), products[nearer]
    return out, told


def _fine(images: np.ndarray) -> np.ndarray:
    """What a blur takes away from images, each channel with mean 0 and length 1."""
    small = _small(images)
    return _units(small - _blurred(small))


def _small(images: np.ndarray) -> np.ndarray:
    """Images float32, averaged over whole blocks of pixels."""
    n, channels, side, _ = images.shape
    by = max(factor for factor in range(1, max(2, side // SIDE + 1)) if side % factor == 0)
    blocks = images.reshape(n, channels, side // by, by, side // by, by)
    return blocks.mean(axis=(3, 5), dtype=np.float32)


def _blurred(images: np.ndarray) -> np.ndarray:
    """Images (n, C, s, s) blurred; the border is mirrored."""
    reach, side = len(KERNEL) // 2, images.shape[-1]
    for axis in (2, 3):
        width = [(0, 0)] * 4
        width[axis] = (reach, reach)
        padded = np.pad(images, width, mode="reflect")
        images = sum(
            weight * np.take(padded, range(shift, shift + side), axis=axis) for shift, weight in enumerate(KERNEL)
        )
    return images


def _units(images: np.ndarray) -> np.ndarray:
    """Each channel of each image with mean 0 and length 1; zero where it is constant."""
    apart = images - images.mean(axis=(2, 3), keepdims=True)
    length = np.sqrt((apart**2).sum(axis=(2, 3), keepdims=True))
    return np.where(length > 1e-3, apart / np.maximum(length, 1e-3), 0)
