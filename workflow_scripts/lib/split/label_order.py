"""Order in which the groups of a part get labels, so that fewer labels are nested in more and stratified as well."""

from __future__ import annotations

import numpy as np

from workflow_scripts.lib.base.seeds import derive
from workflow_scripts.lib.split.regimes import RANKED
from workflow_scripts.lib.split.roles import Role


def label_order(counts: np.ndarray, seed: int) -> np.ndarray:
    """Order of groups (G,) from images per group and class (G, K), such that each beginning is stratified.

    Greedy. As long as classes have no group yet, the next group is one of those with most of such classes: few labels
    then miss as few classes as possible. Among equals, and after that, it is the group that brings the classes'
    numbers of groups nearest to their proportions. Ties are broken at random."""
    # Groups of the same classes are equals: the choice is between combinations of classes (U, K).
    has, owner = np.unique(np.asarray(counts) > 0, axis=0, return_inverse=True)
    shuffled = np.random.default_rng(seed).permutation(len(counts))
    waiting = [list(shuffled[owner.ravel()[shuffled] == index]) for index in range(len(has))]
    left = np.array([len(members) for members in waiting])
    tie = np.random.default_rng(derive(seed, "ties")).permutation(len(has))
    total = (has * left[:, None]).sum(axis=0)
    weight = 1 / np.maximum(total, 1)  # a group too many of a rare class counts as much as several of a common one
    taken = np.zeros(has.shape[1])
    out = np.empty(len(counts), dtype=np.int64)
    for place in range(len(out)):
        candidates = np.flatnonzero(left > 0)
        fresh = has[candidates][:, taken == 0].sum(axis=1)
        candidates = candidates[fresh == fresh.max()]
        wanted = total * (place + 1) / len(out)
        off = ((taken + has[candidates] - wanted) ** 2 * weight).sum(axis=1)
        best = candidates[np.lexsort((tie[candidates], off.round(9)))[0]]
        out[place] = waiting[best].pop()
        left[best] -= 1
        taken += has[best]
    return out


def label_ranks(labels: np.ndarray, member: np.ndarray, roles: np.ndarray, seed: int) -> np.ndarray:
    """Rank of each image's group (n,) among the groups of its role, in (0, 1]; NaN for roles that are not ranked.

    From labels (n, K), group numbers (n,) and roles (n,) of one fold. A rank is the fraction of the groups that are
    labelled when this one is the last to be. Images kept aside from train groups have the rank of their group."""
    out = np.full(len(labels), np.nan)
    alike = np.where(roles == Role.RESERVE_SAME, Role.TRAIN, roles)
    for role in RANKED:
        rows = np.flatnonzero(alike == role)
        if not len(rows):
            continue
        names, inner = np.unique(member[rows], return_inverse=True)
        counts = np.zeros((len(names), labels.shape[1]), dtype=np.int64)
        np.add.at(counts, inner, labels[rows])
        rank = np.empty(len(names))
        rank[label_order(counts, derive(seed, "label order", role))] = np.arange(1, len(names) + 1) / len(names)
        out[rows] = rank[inner]
    return out
