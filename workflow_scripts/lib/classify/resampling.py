"""Resampling of real images in place of a synthetic set, or of each other: controls that add nothing new."""

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


def balanced_rows(labels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Rows of labels (n, K) in which every class is drawn equally often, each time with another image of it.

    The commonest class gives every image of its own once. Images of a rarer one are repeated, each equally often.
    Images of no class are a class of their own. Labels that occur together raise each other's frequency."""
    labels = np.asarray(labels, dtype=bool)
    kinds = [np.flatnonzero(column) for column in (*labels.T, ~labels.any(axis=1))]
    kinds = [rows for rows in kinds if len(rows)]
    most = max(map(len, kinds))
    rounds = [np.concatenate([rng.permutation(rows) for _ in range(-(-most // len(rows)))])[:most] for rows in kinds]
    # Classes in turn, so that any stretch is balanced.
    return np.stack(rounds, axis=1).ravel()


def matching_pairs(available: np.ndarray, wanted: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Pairs of rows of `available` labels (n, K) whose labels together make each row of `wanted` (m, K): (m, 2).

    Only images with nothing else are taken, in the pairs that cover most of what is wanted; where there are none, the
    images of the nearest combination. A pair may be two images of the same labels, but where it can be, not one."""
    known, owner = np.unique(np.asarray(available, dtype=bool), axis=0, return_inverse=True)
    asked, place = np.unique(np.asarray(wanted, dtype=bool), axis=0, return_inverse=True)
    members = [np.flatnonzero(owner.ravel() == index) for index in range(len(known))]
    out = np.empty((len(wanted), 2), dtype=np.int64)
    for index, combination in enumerate(asked):
        within = ~(known & ~combination).any(axis=1) & (known.any(axis=1) | ~combination.any())
        overlap = jaccard(known, combination)
        usable = np.flatnonzero(within) if within.any() else np.flatnonzero(overlap == overlap.max())
        first, second = np.triu_indices(len(usable))
        covered = (known[usable[first]] | known[usable[second]]) & combination
        best = np.flatnonzero(covered.sum(axis=1) == covered.sum(axis=1).max())
        for slot in np.flatnonzero(place.ravel() == index):
            pair = rng.choice(best)
            one, other = (members[usable[side[pair]]] for side in (first, second))
            out[slot, 0] = rng.choice(one)
            left = other[other != out[slot, 0]]
            out[slot, 1] = rng.choice(left if len(left) else other)
    return out


def jaccard(known: np.ndarray, combination: np.ndarray) -> np.ndarray:
    """Overlap of each label combination, bool (u, K), with one, bool (K,)."""
    common = (known & combination).sum(axis=1)
    either = (known | combination).sum(axis=1)
    return np.where(either == 0, 1.0, common / np.maximum(either, 1))
