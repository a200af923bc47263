"""Groups: sets of images that a split must keep together."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence

import numpy as np


def spelled(value: str) -> str:
    """A value as it is compared: capitals, and ways to write a letter in Unicode, make no difference.

    Two spellings of one protein in two parts of a split would be a leak; two proteins in one group are none."""
    return unicodedata.normalize("NFKC", value).casefold()


def one_spelling(values: np.ndarray) -> np.ndarray:
    """The same values (n,), each in the commonest of the spellings that are compared as equal."""
    names, member, counts = np.unique(values.astype(str), return_inverse=True, return_counts=True)
    best: dict[str, tuple[int, str]] = {}
    for name, count in zip(names.tolist(), (-counts).tolist(), strict=True):
        best[spelled(name)] = min(best.get(spelled(name), (count, name)), (count, name))
    return np.array([best[spelled(name)][1] for name in names.tolist()], dtype=object)[member]


def connected(columns: Sequence[Sequence[str]], count: int, pairs: Iterable[tuple[int, int]] = ()) -> list[str]:
    """Group names of `count` images: the connected components over shared column values and given pairs.

    Values are compared as `spelled`; empty ones connect nothing. A group is named after its first image's values, so
    names stay readable."""
    parent = list(range(count))

    def root(node: int) -> int:
        while parent[node] != node:
            parent[node] = parent[parent[node]]
            node = parent[node]
        return node

    for values in columns:
        first: dict[str, int] = {}
        for index, value in enumerate(values):
            if value:
                # The smaller root wins, so that a group's root is its first image.
                one, other = sorted((root(index), root(first.setdefault(spelled(value), index))))
                parent[other] = one
    for pair in pairs:
        one, other = sorted(map(root, pair))
        parent[other] = one
    return [_name(columns, root(index)) for index in range(count)]


def _name(columns: Sequence[Sequence[str]], index: int) -> str:
    # The row number keeps names of different groups apart whatever the values are.
    values = [values[index] for values in columns if values[index]]
    return "|".join([*values[:1], str(index)])
