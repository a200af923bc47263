"""Candidates for near-duplicates: images whose perceptual hashes are alike, perhaps rotated, mirrored or rescaled.

Each image gets a perceptual hash: its channels averaged over an 8 × 8 grid, each with mean 0 and deviation 1, minus the
mean over all images. Two images are candidates if their hashes correlate in any of the eight orientations. Averaging
over a grid commutes with rotation, so only the hashes are rotated. Small or smooth images look alike in so few numbers:
`copy_test` then compares their pixels."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from workflow_scripts.lib.images.orientation import all_orientations

GRID = 8
BLOCK = 512  # images compared at a time
FLOOR = 1.0  # grey levels added to a channel's deviation: rounding of a dim channel is not amplified


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


def normalised(images: np.ndarray) -> np.ndarray:
    """Each channel of each image (n, C, H, W) with mean 0 and deviation 1, as float32; zero where it is constant."""
    apart = images - images.mean(axis=(2, 3), keepdims=True, dtype=np.float32)
    return apart / (apart.std(axis=(2, 3), keepdims=True) + np.float32(FLOOR))


def _common(grids: np.ndarray) -> np.ndarray:
    """Mean of the normalised grids of all images (C, 8, 8)."""
    total = np.zeros(grids.shape[1:])
    for start in range(0, len(grids), BLOCK):
        total += normalised(grids[start : start + BLOCK]).sum(axis=0, dtype=np.float64)
    # The mean grid must be invariant under rotation, or rotating an image would change its hash.
    return np.mean(list(all_orientations(total / max(1, len(grids)))), axis=0).astype(np.float32)


def _units(grids: np.ndarray, common: np.ndarray) -> np.ndarray:
    """Unit vectors float32 (n, C, 8, 8) of the differences from the mean grid; zero for an image of one grey level."""
    apart = normalised(grids) - common
    length = np.sqrt((apart**2).sum(axis=(1, 2, 3), keepdims=True))
    flat = grids.max(axis=(1, 2, 3), keepdims=True) == grids.min(axis=(1, 2, 3), keepdims=True)
    return np.where(flat, 0, apart / np.maximum(length, 1e-6)).astype(np.float32)


def candidates(grids: np.ndarray, least: float) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Pairs (rows, columns), rows < columns, of images whose hashes correlate by `least` or more in some orientation.

    They come block by block. An upper bound of the correlation over all orientations is computed for all pairs, and the
    orientations are tried for the few that it leaves."""
    if not len(grids):
        return
    common, bases = _common(grids), _bases()
    parts = []
    for start in range(0, len(grids), BLOCK):
        cells = _units(grids[start : start + BLOCK], common).reshape(-1, GRID**2)
        parts.append([(cells @ basis).astype(np.float32) for basis in bases])
    for first, one in enumerate(parts):
        for second in range(first, len(parts)):
            bound = _bound(one, parts[second], grids.shape[1])
            rows, columns = np.nonzero(bound >= least - 1e-4)  # a margin for rounding
            rows, columns = BLOCK * first + rows, BLOCK * second + columns
            near = rows < columns
            if near.any():
                yield _correlated(grids, common, rows[near], columns[near], least)


def _bases() -> list[np.ndarray]:
    """Orthonormal bases (64, m) in which the orientations act simply: the irreducible representations of D4.

    A rotation or reflection leaves the first part of a hash as it is, gives each of the next three a sign, and turns
    those of the last two into each other by an orthogonal matrix of 2 × 2."""
    cells = np.arange(GRID**2).reshape(GRID, GRID)
    ways = [np.eye(GRID**2)[view.ravel()] for view in all_orientations(cells)]  # mirrored from 4 on, then turned
    out, rest = [], np.eye(GRID**2)
    for turned, mirrored in ((1, 1), (1, -1), (-1, 1), (-1, -1)):
        projector = sum(turned ** (way % 4) * mirrored ** (way // 4) * each for way, each in enumerate(ways)) / 8
        out.append(_range(projector))
        rest = rest - projector
    upright = _range(rest @ (np.eye(GRID**2) + ways[4]) / 2)
    return [*out, upright, ways[1] @ upright]


def _range(projector: np.ndarray) -> np.ndarray:
    values, vectors = np.linalg.eigh((projector + projector.T) / 2)
    return vectors[:, values > 0.5]


def _bound(one: list[np.ndarray], other: list[np.ndarray], channels: int) -> np.ndarray:
    """Upper bound (n, m) of the correlation of hashes in any orientation, from their parts (n * C, ...)."""

    def product(left: int, right: int) -> np.ndarray:
        count = len(one[left]) // channels
        return one[left].reshape(count, -1) @ other[right].reshape(len(other[right]) // channels, -1).T

    bound = product(0, 0)
    for part in (1, 2, 3):
        bound += np.abs(product(part, part))
    # The largest trace that an orthogonal matrix can give a matrix of 2 × 2 is its nuclear norm.
    a, b, c, d = (product(row, column) for row in (4, 5) for column in (4, 5))
    return bound + np.sqrt(a**2 + b**2 + c**2 + d**2 + 2 * np.abs(a * d - b * c))


def _correlated(
    grids: np.ndarray, common: np.ndarray, rows: np.ndarray, columns: np.ndarray, least: float
) -> tuple[np.ndarray, np.ndarray]:
    """Those of the pairs (rows[k], columns[k]) whose hashes correlate in some orientation."""
    keep = np.zeros(len(rows), dtype=bool)
    for start in range(0, len(rows), BLOCK):
        left = _units(grids[rows[start : start + BLOCK]], common)
        right = _units(grids[columns[start : start + BLOCK]], common)
        likeness = np.max([(left * view).sum(axis=(1, 2, 3)) for view in all_orientations(right)], axis=0)
        keep[start : start + BLOCK] = likeness >= least
    return rows[keep], columns[keep]
