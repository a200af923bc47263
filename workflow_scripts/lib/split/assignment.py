"""Stratified group splits: groups are assigned to parts so that each part has its fraction of every class.

Multi-label iterative stratification (Sechidis et al. 2011), with groups in place of images, and with bounds on the
groups of a class in a part."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from workflow_scripts.lib.base.seeds import derive
from workflow_scripts.lib.split.exchange import refine, repair
from workflow_scripts.lib.split.roles import ROLES, Role

ATTEMPTS = 6  # draws of a repeat, if classes with enough groups are missing somewhere
HALVINGS = 4  # of the train groups, for subsets of them that have their fraction of every class


def split(
    counts: np.ndarray,
    sizes: np.ndarray,
    fractions: Mapping[str, float],
    seed: int,
    least: np.ndarray | None = None,
    most: np.ndarray | None = None,
) -> np.ndarray:
    """Assign groups to named parts: part index (G,) from images per group and class (G, K) and images per group (G,).

    Greedy, rarest class first: each group with that class goes to the part that lacks most of it, relative to the
    part's fraction. So each part gets one group of a class before any gets two. Where a part then has fewer than
    `least` or more than `most` groups of a class, both (P, K), groups are moved."""
    groups = len(counts)
    fraction = np.array(list(fractions.values()), dtype=float)
    fraction = fraction / fraction.sum()
    wanted = np.outer(fraction, counts.sum(0))  # (P, K) images
    room = fraction * sizes.sum()  # (P,)
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
            # Relative to the fraction, so that small parts are not starved. Of equals the part with most room wins.
            need = wanted[:, kind] / fraction
            best = np.flatnonzero(need >= need.max() - 1e-9)
            assign(int(group), int(best[np.argmax(room[best] / fraction[best])]))
    for group in np.flatnonzero(out < 0)[np.argsort(tie[out < 0])]:
        assign(int(group), int(np.argmax(room / fraction)))
    least = np.zeros((len(fraction), counts.shape[1]), dtype=np.int64) if least is None else least
    most = np.full_like(least, groups) if most is None else most
    out = repair(positive, sizes, out, least, most, seed)
    return refine(counts, sizes, out, fraction, least, most, seed)


def _inner(fractions: Mapping[str, float]) -> dict[str, float]:
    """Fractions of the roles that are drawn for each fold: all but test and lockbox."""
    inner = {role: fractions[role] for role in (Role.CALIBRATION, Role.VALIDATION, Role.RESERVE) if fractions[role] > 0}
    return inner | {Role.TRAIN: 1 - fractions[Role.LOCKBOX] - fractions[Role.TEST] - sum(inner.values())}


def fewest_groups(folds: int, fractions: Mapping[str, float]) -> int:
    """Number of groups that a class needs to have one in every role of every fold."""
    inner, locked = len(_inner(fractions)), int(fractions[Role.LOCKBOX] > 0)
    rest = 1 - fractions[Role.LOCKBOX] - folds * fractions[Role.TEST] > 1e-9
    count = max(folds, inner + 1)
    # Where every group is tested once, the largest test part has its fraction of them at least.
    while not rest and count - -(-count // folds) < inner:
        count += 1
    return count + locked


def _bounds(groups: np.ndarray, enough: int, least: Sequence[int]) -> np.ndarray:
    """Fewest groups of each class (P, K) that each part must have; 0 for classes with fewer than `enough` groups."""
    return np.outer(least, groups >= enough).astype(np.int64)


def _locked(
    counts: np.ndarray, sizes: np.ndarray, fractions: Mapping[str, float], seed: int, enough: int
) -> np.ndarray:
    """Groups of the lockbox, the same in every repeat and fold, because it is opened once."""
    if not fractions[Role.LOCKBOX] > 0:
        return np.zeros(len(counts), dtype=bool)
    parts = {Role.LOCKBOX: fractions[Role.LOCKBOX], "rest": 1 - fractions[Role.LOCKBOX]}
    least = _bounds((counts > 0).sum(0), enough, (1, enough - 1))
    return split(counts, sizes, parts, derive(seed, Role.LOCKBOX), least) == 0


def _inner_roles(
    counts: np.ndarray, sizes: np.ndarray, inner: Mapping[str, float], seed: int, asked: np.ndarray
) -> np.ndarray:
    """Roles of groups that are neither test nor lockbox, by fractions; each role must have the classes `asked` (K,)."""
    names = np.array(list(inner), dtype=object)
    return names[split(counts, sizes, inner, seed, np.outer(np.ones(len(inner)), asked).astype(np.int64))]


def roles(
    counts: np.ndarray, sizes: np.ndarray, folds: int, fractions: Mapping[str, float], seed: int, repeat: int
) -> np.ndarray:
    """Roles of all groups in all folds, text (G, folds), from images per group and class (G, K) and per group (G,).

    `fractions` gives the part of the images of each role but train, which gets the rest. Test parts of different folds
    are disjoint. A class with `fewest_groups` or more has a group in every role of every fold, if classes that occur
    together in groups allow it."""
    enough = fewest_groups(folds, fractions)
    asked = (counts > 0).sum(0) >= enough
    locked = _locked(counts, sizes, fractions, seed, enough)
    drawn: list[tuple[int, np.ndarray]] = []
    for attempt in range(ATTEMPTS):
        out = _draw(counts, sizes, locked, asked, folds, fractions, derive(seed, repeat, attempt))
        left = sum(len(missing(counts[:, asked], own, [""] * int(asked.sum()))) for own in out.T)
        # A fold without a role is worse than a role without a class.
        left += sum(out.size * (len(_inner(fractions)) + 1 - len(set(own) - {Role.LOCKBOX})) for own in out.T)
        drawn.append((left, out))
        if not left:
            break
    return min(drawn, key=lambda drawing: drawing[0])[1]


def _draw(
    counts: np.ndarray,
    sizes: np.ndarray,
    locked: np.ndarray,
    asked: np.ndarray,
    folds: int,
    fractions: Mapping[str, float],
    seed: int,
) -> np.ndarray:
    out = np.full((len(counts), folds), Role.TRAIN, dtype=object)
    out[locked] = Role.LOCKBOX
    free = np.flatnonzero(~locked)
    blocks = {str(fold): fractions[Role.TEST] for fold in range(folds)}
    rest = 1 - fractions[Role.LOCKBOX] - folds * fractions[Role.TEST]
    if rest > 1e-9:
        blocks["rest"] = rest
    tests = [1] * folds + [0] * (len(blocks) - folds)
    left = (counts[free] > 0).sum(0)
    # A test part that took all groups of a rare class would leave none for the other roles.
    most = np.where(np.outer(tests, asked), left - len(_inner(fractions)), len(counts))
    least = np.outer(tests, asked).astype(np.int64)
    block = split(counts[free], sizes[free], blocks, derive(seed, Role.TEST), least, most)
    for fold in range(folds):
        out[free[block == fold], fold] = Role.TEST
        inner = free[block != fold]
        parts = derive(seed, fold, "parts")
        out[inner, fold] = _inner_roles(counts[inner], sizes[inner], _inner(fractions), parts, asked)
    return out


def held_out_values(values: np.ndarray, folds: int, repeat: int) -> list[str]:
    """Value of a column that each fold tests, the most common first; a repeat continues after the last one's.

    Empty values are unknown and never held out."""
    names, counts = np.unique(values[values != ""].astype(str), return_counts=True)
    ordered = names[np.lexsort((names, -counts))]
    if len(ordered) < max(2, folds):
        return []
    return [str(ordered[(repeat * folds + fold) % len(ordered)]) for fold in range(folds)]


def roles_leaving_out(
    labels: np.ndarray,
    member: np.ndarray,
    values: np.ndarray,
    held: Sequence[str],
    fractions: Mapping[str, float],
    seed: int,
    repeat: int,
    shown: float = 0,
) -> np.ndarray:
    """Roles of images (n, folds) where each fold tests one value of a column: labels (n, K), group numbers, values.

    Of the groups with this value, the fraction `shown` is not tested: their images of it are unlabelled. Images are
    unused if their group has test or unlabelled images, or if their value is unknown: it may be the value held out. The
    remaining groups share the other roles in proportion."""
    counts = group_counts(labels, member)
    locked = _locked(counts, np.bincount(member), fractions, seed, fewest_groups(1, fractions))[member]
    out = np.full((len(labels), len(held)), Role.UNUSED, dtype=object)
    out[locked] = Role.LOCKBOX
    known = values != ""
    for fold, value in enumerate(held):
        held_out = (values == value) & ~locked
        seen = held_out & _some_groups(labels, member, held_out, shown, derive(seed, repeat, fold, "shown"))
        if shown and not (held_out & ~seen).any():
            raise ValueError(f"showing {shown:g} of the groups of {value!r} leaves none of them to test")
        out[held_out, fold] = Role.TEST
        out[seen, fold] = Role.UNLABELLED
        relatives = np.isin(member, member[held_out])
        rows = np.flatnonzero(known & ~relatives & ~locked)
        names, inner = np.unique(member[rows], return_inverse=True)
        if len(names) < len(_inner(fractions)):
            raise ValueError(f"leaving out {value!r} leaves {len(names)} groups to train on")
        within = group_counts(labels[rows], inner)
        asked = (within > 0).sum(0) >= len(_inner(fractions))
        parts = derive(seed, repeat, fold, "parts")
        out[rows, fold] = _inner_roles(within, np.bincount(inner), _inner(fractions), parts, asked)[inner]
    return out


def _some_groups(labels: np.ndarray, member: np.ndarray, among: np.ndarray, fraction: float, seed: int) -> np.ndarray:
    """Which images (n,) are of a fraction of the groups that have images `among` these."""
    if not fraction:
        return np.zeros(len(member), dtype=bool)
    names, inner = np.unique(member[among], return_inverse=True)
    chosen = nested(group_counts(labels[among], inner), np.bincount(inner), fraction, seed)
    return np.isin(member, names[chosen])


def roles_as_marked(
    counts: np.ndarray, sizes: np.ndarray, marks: np.ndarray, fractions: Mapping[str, float], seed: int, repeat: int
) -> np.ndarray:
    """Roles of groups (G,) in a single fold whose roles the user has marked, wholly or in part.

    From images per group and class (G, K) and per group (G,), and marks (G,) of MARKS. A role that is marked has the
    groups marked so, whatever its fraction. Other roles are drawn from groups that are marked train or not at all. Too
    few images or groups for them are a ValueError."""
    out = marks.copy()
    free = np.flatnonzero((marks == Role.TRAIN) | (marks == ""))
    room = sizes[free].sum() / sizes.sum()
    inner = {
        role: fraction
        for role, fraction in _inner(fractions).items()
        if role != Role.TRAIN and not (marks == role).any()
    }
    inner[Role.TRAIN] = room - fractions[Role.LOCKBOX] - sum(inner.values())
    parts = len(inner) + (fractions[Role.LOCKBOX] > 0)
    if inner[Role.TRAIN] <= 0 or len(free) < parts:
        raise ValueError(f"it leaves {room:.0%} of the images, in {len(free)} groups, for {parts} parts")
    locked = _locked(counts[free], sizes[free], {Role.LOCKBOX: fractions[Role.LOCKBOX] / room}, seed, parts)
    out[free[locked]] = Role.LOCKBOX
    free = free[~locked]
    asked = (counts[free] > 0).sum(0) >= len(inner)
    out[free] = _inner_roles(counts[free], sizes[free], inner, derive(seed, repeat, "marked"), asked)
    return out


def keep_aside(roles: np.ndarray, member: np.ndarray, fraction: float, seed: int) -> np.ndarray:
    """Roles of images (n,) in which a fraction of all images, from train groups, is reserve_same instead of train.

    Groups (`member`, (n,) numbers) contribute in proportion to their size, and each keeps an image. Where groups have
    too few images to spare, fewer are taken. None at all is a ValueError."""
    out, train = roles.copy(), np.flatnonzero(roles == Role.TRAIN)
    rng = np.random.default_rng(derive(seed, Role.RESERVE_SAME))
    train = train[rng.permutation(len(train))]
    order = train[np.argsort(member[train], kind="stable")]
    sizes = np.bincount(member[order], minlength=int(member.max(initial=0)) + 1)
    first = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    rank = np.arange(len(order)) - first[member[order]]
    turn = (rank + rng.random(len(order))) / sizes[member[order]]
    spare = np.flatnonzero(rank < sizes[member[order]] - 1)
    chosen = order[spare[np.argsort(turn[spare], kind="stable")]][: round(fraction * len(roles))]
    if not len(chosen):
        raise ValueError("no train group has an image to spare")
    out[chosen] = Role.RESERVE_SAME
    return out


def nested(counts: np.ndarray, sizes: np.ndarray, fraction: float, seed: int) -> np.ndarray:
    """Nested subsets of groups, bool (G,), from images per group and class (G, K) and per group (G,).

    With the same seed a smaller subset lies within a larger one. Groups are halved repeatedly, and each half has its
    fraction of every class. So subsets of 1/2, 1/4, 3/4 ... of the groups are stratified too, as nearly as possible."""

    def ordered(members: np.ndarray, halvings: int, seed: int) -> np.ndarray:
        if not halvings or len(members) < 4:
            return members[np.random.default_rng(seed).permutation(len(members))]
        half = split(counts[members], sizes[members], {"first": 0.5, "second": 0.5}, derive(seed, "halve"))
        return np.concatenate([ordered(members[half == side], halvings - 1, derive(seed, side)) for side in (0, 1)])

    out = np.zeros(len(counts), dtype=bool)
    order = ordered(np.arange(len(counts)), HALVINGS, derive(seed, "nested"))
    out[order[: max(1, round(fraction * len(counts)))]] = True
    return out


def group_counts(labels: np.ndarray, member: np.ndarray) -> np.ndarray:
    """Images per group and class (G, K) from labels (n, K) and group numbers (n,)."""
    out = np.zeros((int(member.max(initial=-1)) + 1, labels.shape[1]), dtype=np.int64)
    np.add.at(out, member, labels)
    return out


def missing(counts: np.ndarray, assigned: np.ndarray, classes: list[str]) -> list[tuple[str, str]]:
    """Pairs (class, role) where a class has no positive image in a role of this fold.

    The arguments are counts and roles of groups, or labels and roles of images."""
    used = [role for role in ROLES if role != Role.UNUSED and (assigned == role).any()]
    present = {role: counts[assigned == role].sum(0) for role in used}
    return [(classes[kind], role) for role, sums in present.items() for kind in np.flatnonzero(sums == 0)]
