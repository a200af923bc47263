"""Splitting groups into parts so that each part has its share of every class."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from workflow_scripts.lib.seeds import derive

TRAIN, VALIDATION, CALIBRATION, TEST, RESERVE, LOCKBOX = (
    "train", "validation", "calibration", "test", "reserve", "lockbox",
)  # fmt: skip
ROLES = (TRAIN, VALIDATION, CALIBRATION, TEST, RESERVE, LOCKBOX)


def split(counts: np.ndarray, shares: Mapping[str, float], seed: int) -> np.ndarray:
    """Assign groups to named parts: counts int (G, K), images per group and class, -> part index (G,).

    Greedy, rarest class first: each group with that class goes to the part that lacks most of it, relative to its
    share. A part without any lacks all of it, so each part is served once before any is served twice."""
    groups = len(counts)
    share = np.array(list(shares.values()), dtype=float)
    share = share / share.sum()
    # A group counts by its labels; one without any still takes room.
    sizes = np.maximum(counts.sum(1), 1)
    wanted = np.outer(share, counts.sum(0))  # (P, K) images
    room = share * sizes.sum()  # (P,)
    out = np.full(groups, -1, dtype=np.int64)
    rng = np.random.default_rng(seed)
    tie = rng.permutation(groups)
    positive = counts > 0
    left = positive.sum(0)  # unassigned groups per class

    def assign(group: int, part: int) -> None:
        out[group] = part
        wanted[part] -= counts[group]
        room[part] -= sizes[group]
        left[positive[group]] -= 1

    while (left > 0).any():
        kind = int(np.argmin(np.where(left > 0, left, groups + 1)))
        members = np.flatnonzero(positive[:, kind] & (out < 0))
        for group in members[np.lexsort((tie[members], -counts[members, kind]))]:
            # Relative to the share, so that small parts are not starved; the room decides between equals.
            need = wanted[:, kind] / share
            best = np.flatnonzero(need >= need.max() - 1e-9)
            assign(int(group), int(best[np.argmax(room[best] / share[best])]))
    for group in np.flatnonzero(out < 0)[np.argsort(tie[out < 0])]:
        assign(int(group), int(np.argmax(room / share)))
    return out


def roles(counts: np.ndarray, folds: int, shares: Mapping[str, float], seed: int, repeat: int) -> np.ndarray:
    """Roles of all groups in all folds: (G, folds) of text. `shares` gives the part of the groups' images that each
    role but train gets; the rest is train. Test parts of different folds are disjoint. The lockbox is the same in
    every repeat and fold: it is opened once."""
    groups = len(counts)
    out = np.full((groups, folds), TRAIN, dtype=object)
    locked = np.zeros(groups, dtype=bool)
    if shares[LOCKBOX] > 0:
        locked = split(counts, {LOCKBOX: shares[LOCKBOX], "rest": 1 - shares[LOCKBOX]}, derive(seed, LOCKBOX)) == 0
        out[locked] = LOCKBOX
    free = np.flatnonzero(~locked)
    blocks = {str(fold): shares[TEST] for fold in range(folds)}
    rest = 1 - shares[LOCKBOX] - folds * shares[TEST]
    if rest > 1e-9:
        blocks["rest"] = rest
    block = split(counts[free], blocks, derive(seed, repeat, TEST))
    for fold in range(folds):
        out[free[block == fold], fold] = TEST
        inner = free[block != fold]
        inner_shares = {role: shares[role] for role in (CALIBRATION, VALIDATION, RESERVE) if shares[role] > 0}
        inner_shares[TRAIN] = 1 - shares[LOCKBOX] - shares[TEST] - sum(inner_shares.values())
        names = np.array(list(inner_shares), dtype=object)
        out[inner, fold] = names[split(counts[inner], inner_shares, derive(seed, repeat, fold, "parts"))]
    return out


def missing(counts: np.ndarray, assigned: np.ndarray, classes: list[str]) -> list[tuple[str, str]]:
    """Pairs (class, role) where a class has no positive image in a role that exists in this fold."""
    present = {role: counts[assigned == role].sum(0) for role in ROLES if (assigned == role).any()}
    return [(classes[kind], role) for role, sums in present.items() for kind in np.flatnonzero(sums == 0)]
