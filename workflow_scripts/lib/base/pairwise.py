"""Squared Euclidean distances between all rows of two matrices, a block of rows at a time."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

BLOCK = 1024  # rows of a distance matrix in memory at a time


def blocks(count: int) -> Iterator[slice]:
    """Slices that cover rows in order."""
    return (slice(start, min(start + BLOCK, count)) for start in range(0, count, BLOCK))


def squared_distances(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Squared Euclidean distances (n, m) between the rows of x (n, d) and y (m, d)."""
    return from_products(x, y, x @ y.T)


def from_products(x: np.ndarray, y: np.ndarray, products: np.ndarray) -> np.ndarray:
    """Squared distances (n, m) from the inner products (n, m) of the rows, where those are known already."""
    # |x - y|^2 = |x|^2 + |y|^2 - 2 x.y, in place: the matrix is the largest thing in memory.
    out = -2 * products
    out += np.einsum("ij,ij->i", x, x)[:, None]
    out += np.einsum("ij,ij->i", y, y)[None]
    return np.maximum(out, 0, out=out)
