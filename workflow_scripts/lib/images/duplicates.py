"""Near-duplicates: images with the same content, perhaps rotated, mirrored, rescaled or recompressed.

Each image gets a perceptual hash: its channels averaged over an 8 × 8 grid, minus the mean over all images, as
integers. Two images are near-duplicates if their hashes correlate almost perfectly in any of the eight orientations.
Averaging over a grid commutes with rotation, so only the hashes are rotated."""

from __future__ import annotations

import numpy as np

from workflow_scripts.lib.images.orientation import all_orientations

GRID = 8
ORBITS = 10  # orbits of grid cells under rotation and mirroring
BLOCK = 512  # images compared at a time


def grid_means(images: np.ndarray) -> np.ndarray:
    """Mean brightness on the grid: uint8 (n, C, H, W) -> uint8 (n, C, 8, 8). The sides are multiples of 8."""
    n, channels, height, width = images.shape
    down, across = height // GRID, width // GRID
    rows = images.reshape(n, channels, GRID, down, width)
    # Row upon row in the smallest whole numbers that hold them: a quarter of the time of a sum over an axis.
    sums = rows[:, :, :, 0].astype(np.uint16 if 255 * down < 2**16 else np.uint32)
    for row in range(1, down):
        sums += rows[:, :, :, row]
    cells = sums.reshape(n, channels, GRID, GRID, across).astype(np.float64) @ np.ones(across)
    return np.rint(cells / (down * across)).astype(np.uint8)


def _common(grids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean grid over all images (C, 8, 8), and the deviation of each channel from it (C, 1, 1)."""
    total = sum(grids[start : start + BLOCK].sum(axis=0, dtype=np.float64) for start in range(0, len(grids), BLOCK))
    # The mean grid must be invariant under rotation, or rotating an image would change its hash.
    common = np.mean(list(all_orientations(total / max(1, len(grids)))), axis=0).astype(np.float32)
    squares = np.zeros(len(common))
    for start in range(0, len(grids), BLOCK):
        squares += ((grids[start : start + BLOCK] - common) ** 2).sum(axis=(0, 2, 3), dtype=np.float64)
    strays = np.sqrt(squares / max(1, len(grids) * GRID**2)).astype(np.float32)
    return common, np.maximum(strays, 1e-6)[:, None, None]


def _units(grids: np.ndarray, common: np.ndarray, strays: np.ndarray) -> np.ndarray:
    """Unit vectors float32 (n, C, 8, 8) of the differences from the mean grid; zero for an image of one grey level."""
    # Each channel has the same weight, whatever its brightness.
    apart = (grids - common) / strays
    length = np.sqrt((apart**2).sum(axis=(1, 2, 3), keepdims=True))
    flat = grids.max(axis=(1, 2, 3), keepdims=True) == grids.min(axis=(1, 2, 3), keepdims=True)
    return np.where(flat, 0, apart / np.maximum(length, 1e-6)).astype(np.float32)


def near_duplicates(grids: np.ndarray, least: float) -> list[tuple[int, int, float]]:
    """Pairs (i, j, correlation), i < j, of images whose hashes correlate by `least` or more in some orientation.

    Unit vectors with correlation c have distance sqrt(2 (1 - c)). The distance of their rotation-invariant parts is at
    most that. These parts are short and compared first, so few pairs are left for which all orientations are tried."""
    if not len(grids):
        return []
    scale = _common(grids)
    parts = np.empty((len(grids), len(scale[0]) * ORBITS), dtype=np.float32)
    for start in range(0, len(grids), BLOCK):
        parts[start : start + BLOCK] = _unturned(_units(grids[start : start + BLOCK], *scale))
    reach = 2 * (1 - least) + 1e-4  # squared, and a margin for rounding
    pairs: list[tuple[int, int, float]] = []
    for start in range(0, len(grids), BLOCK):
        one = parts[start : start + BLOCK]
        for below in range(start, len(grids), BLOCK):
            other = parts[below : below + BLOCK]
            distance = (one**2).sum(1)[:, None] + (other**2).sum(1) - 2 * one @ other.T
            rows, columns = np.nonzero(distance <= reach)
            rows, columns = start + rows, below + columns
            near = rows < columns
            pairs += _correlated(grids, scale, rows[near], columns[near], least)
    return sorted(pairs)


def _unturned(units: np.ndarray) -> np.ndarray:
    """Rotation-invariant part of the hashes, (n, C * ORBITS): sums over cells of an orbit, scaled to keep lengths."""
    places = np.arange(GRID**2).reshape(GRID, GRID)
    _, orbit, count = np.unique(np.min(list(all_orientations(places)), axis=0), return_inverse=True, return_counts=True)
    onto = np.eye(len(count))[orbit.ravel()] / np.sqrt(count)
    return (units.reshape(*units.shape[:2], -1) @ onto.astype(np.float32)).reshape(len(units), -1)


def _correlated(
    grids: np.ndarray, scale: tuple[np.ndarray, np.ndarray], rows: np.ndarray, columns: np.ndarray, least: float
) -> list[tuple[int, int, float]]:
    """Those of the pairs (rows[k], columns[k]) that correlate in some orientation."""
    out: list[tuple[int, int, float]] = []
    for start in range(0, len(rows), BLOCK):
        one, other = rows[start : start + BLOCK], columns[start : start + BLOCK]
        left = _units(grids[one], *scale)
        likeness = np.max(
            [(left * view).sum(axis=(1, 2, 3)) for view in all_orientations(_units(grids[other], *scale))], axis=0
        )
        out += [(int(one[k]), int(other[k]), float(likeness[k])) for k in np.flatnonzero(likeness >= least)]
    return out
