"""Real images that stand in for a synthetic set: the control that adds the same labels and nothing new."""

from __future__ import annotations

import numpy as np


def matching_rows(available: np.ndarray, wanted: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Rows of `available` labels (n, K), one for each row of `wanted` (m, K), drawn to the same label combinations.

    A combination that no real image has is served by the images whose combination overlaps most (Jaccard: labels in
    common by labels in either; no label at all overlaps fully with itself, and not with others). All images that serve
    a combination are used equally often, give or take one, so that the control has as much variety as there is."""
    known, owner = np.unique(np.asarray(available, dtype=bool), axis=0, return_inverse=True)
    asked, place = np.unique(np.asarray(wanted, dtype=bool), axis=0, return_inverse=True)
    owner, place = owner.ravel(), place.ravel()
    out = np.empty(len(wanted), dtype=np.int64)
    for index, combination in enumerate(asked):
        overlap = jaccard(known, combination)
        candidates = np.flatnonzero(np.isin(owner, np.flatnonzero(overlap == overlap.max())))
        slots = np.flatnonzero(place == index)
        rounds = -(-len(slots) // len(candidates))
        out[slots] = np.concatenate([rng.permutation(candidates) for _ in range(rounds)])[: len(slots)]
    return out


def jaccard(known: np.ndarray, combination: np.ndarray) -> np.ndarray:
    """Overlap of each label combination, bool (u, K), with one, bool (K,)."""
    common = (known & combination).sum(axis=1)
    either = (known | combination).sum(axis=1)
    return np.where(either == 0, 1.0, common / np.maximum(either, 1))
