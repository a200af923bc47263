"""Which classes the folds leave enough positive test groups to judge, and which settings would give them enough.

A class is judged if its positive test groups, pooled over the folds of a repeat, reach
`analysis.minimum_positive_groups`. This is known from the roles alone, before anything trains."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from workflow_scripts.lib.base.errors import UserError
from workflow_scripts.lib.split.fold_design import FoldDesign
from workflow_scripts.lib.split.roles import Role

FEWEST = 2  # positive test groups that a class can be judged by; one tells nothing of how groups differ
NAMED = 12  # classes that a line of the log names
STEP = 0.05  # by which a larger test fraction is tried
LEAST_TRAIN = 0.2  # fraction of the images that a remedy must leave to train on


def groups_with(labels: np.ndarray, member: np.ndarray) -> np.ndarray:
    """Groups that have a positive image of each class, (K,), from labels (n, K) and group numbers (n,)."""
    return np.array([len(np.unique(member[column > 0])) for column in labels.T], dtype=np.int64)


def positive_test_groups(labels: np.ndarray, member: np.ndarray, assigned: np.ndarray) -> np.ndarray:
    """Positive test groups of each class (K,), pooled over folds, from roles (n + m, folds).

    The last m rows are those of images without labels, which are never tested."""
    tested = (assigned[: len(labels)] == Role.TEST).any(axis=1)
    return groups_with(labels[tested], member[tested])


def lacking(classes: Sequence[str], tested: np.ndarray, minimum: int) -> str:
    """The classes that cannot be judged, each with the groups that it has and lacks; empty if all can be."""
    few = [
        f"{name} ({count}, lacks {minimum - count})"
        for name, count in zip(classes, tested.tolist(), strict=False)
        if count < minimum
    ]
    more = f" and {len(few) - NAMED} more" if len(few) > NAMED else ""
    return ", ".join(few[:NAMED]) + more


def refuse(design: FoldDesign, count: int, tested: np.ndarray, minimum: int) -> None:
    """Raise UserError if no class can be judged; it says what would have to change.

    `count` is the number of the user's classes, which stand first among those of the design."""
    if not len(tested) or (tested >= minimum).any():
        return
    owned = groups_with(design.labels[:, :count], design.member)
    # The class that is nearest to being judged decides what would be enough.
    best = int(np.lexsort((-owned, -tested))[0])
    what = (
        f"no class has {minimum} positive test groups, so nothing could be judged: {design.classes[best]} comes "
        f"nearest with {tested[best]} (of its {owned[best]} groups; {len(design.names)} groups in all)"
    )
    ways = list(remedies(design, count, minimum))
    if tested[best] >= FEWEST:
        ways.append(f"analysis.minimum_positive_groups: {tested[best]} (wider intervals)")
    tried = f"One of these would do: {'; '.join(ways)}. " if ways else ""
    raise UserError(
        f"{what}. {tried}Otherwise more groups are needed; what a group is, is said by data.group_by and "
        "preprocess_images.duplicates"
    )


def remedies(design: FoldDesign, count: int, minimum: int) -> Iterator[str]:
    """Settings of make_folds that would let a class be judged, each tried on the images themselves."""
    if any(design.settings[name] for name in ("leave_out", "roles_from")):
        return  # the test part is what the user's own column says
    fractions, folds = design.settings["fractions"], design.settings["folds"]
    rest = 1 - sum(fraction for role, fraction in fractions.items() if role != Role.TEST)
    most = (1 + 1e-9 - fractions[Role.LOCKBOX]) // fractions[Role.TEST]
    for more in range(folds + 1, int(most) + 1):
        if _would_do(design, count, minimum, {"folds": more}):
            yield f"make_folds.folds: {more}"
            break
    larger = np.arange(fractions[Role.TEST] + STEP, 1, STEP)
    for test in (round(float(value), 2) for value in larger):
        if folds * test > 1 - fractions[Role.LOCKBOX] or rest - test < LEAST_TRAIN:
            break
        if _would_do(design, count, minimum, {"fractions": fractions | {Role.TEST: test}}):
            yield f"make_folds.fractions.test: {test:g}"
            break


def _would_do(design: FoldDesign, count: int, minimum: int, changes: dict[str, Any]) -> bool:
    labels = design.labels[:, :count]
    other = dataclasses.replace(
        design,
        classes=design.classes[:count],
        labels=labels,
        settings=design.settings | {"regimes": []} | changes,
    )
    try:
        assigned = other.assign(quiet=True)
    except UserError:
        return False
    return bool((positive_test_groups(labels, design.member, assigned) >= minimum).any())
