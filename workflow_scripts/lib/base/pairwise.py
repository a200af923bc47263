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
    return from_products(squared_lengths(x), squared_lengths(y), x @ y.T)


def squared_lengths(x: np.ndarray) -> np.ndarray:
    """Squared Euclidean length (n,) of each row."""
    return np.einsum("ij,ij->i", x, x)


def from_products(x: np.ndarray, y: np.ndarray, products: np.ndarray) -> np.ndarray:
    """Squared distances (n, m) from squared lengths (n,) and (m,) and the inner products, which are overwritten."""
    # |x - y|^2 = |x|^2 + |y|^2 - 2 x.y, in place: the matrix is the largest thing in memory.
    products *= -2
    products += x[:, None]
    products += y[None]
    return np.maximum(products, 0, out=products)
