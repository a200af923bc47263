"""Compare what an artefact has read with the roles of the images: the lines of leaks.csv."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from workflow_scripts.lib.classify import arm_choices, source_choices
from workflow_scripts.lib.judge.fitted_artefacts import (
    REPLAYED,
    Artefact,
    arm_files,
    replayed,
    to_artefact,
)
from workflow_scripts.lib.scores import prediction_file, stress_file
from workflow_scripts.lib.split.regimes import Regime
from workflow_scripts.lib.split.roles import Role

# What may be read for what. Anything else that was read for such a purpose is a leak.
ALLOWED = {
    "fit": (Role.TRAIN,),
    "select": (Role.TRAIN, Role.VALIDATION),
    "threshold": (Role.CALIBRATION,),
}
# "not excluded": no overlap was found, but proteins are unknown, so relatives of test images may be in other parts.
CLEAN, LEAK, DECLARED, NOT_EXCLUDED = "clean", "LEAK", "declared", "not excluded"
# An encoder or weights of the user: the images they were pre-trained on are unknown.
UNKNOWN = "pre-training overlap: unknown"
# A generator from elsewhere: what it was trained on there may hold images or proteins that are tested here.
UNKNOWN_ORIGIN = "training overlap: unknown"


@dataclass
class Check:
    """A line of leaks.csv."""

    artefact: str
    repeat: int
    fold: int
    purpose: str
    images: int  # images read for this purpose
    allowed_roles: str
    overlap_images: int  # of them, images of a role that is not allowed
    overlap_groups: int  # groups of a role that is not allowed
    status: str


def describe(check: Check) -> str:
    """A leak in one line."""
    return (
        f"LEAK: {check.artefact} (repeat {check.repeat}, fold {check.fold}), purpose {check.purpose!r}: "
        f"{check.overlap_images} images of {check.overlap_groups} groups that are not {check.allowed_roles}"
    )


def violation(check: Check) -> str:
    """How `violations` names this check: by the artefact and the purpose, without the ways of reading."""
    return f"{check.artefact}:{check.purpose.partition(',')[0]}"


@dataclass(frozen=True)
class Rules:
    """What checks of artefacts rest on, beside the roles."""

    groups: np.ndarray  # of each image (n,)
    declared: set[str]  # violations that are meant
    known: np.ndarray  # bool (n,): whether it is known which images show the same protein
    further: np.ndarray  # bool (n,): came without labels


def check_artefact(artefact: Artefact, roles: np.ndarray, rules: Rules) -> Iterator[Check]:
    """One check for each purpose: images and groups of roles that may not be read for it, however it was read.

    Whether unlabelled images were read with labels is for `check_labels`."""
    for purpose in ALLOWED:
        rows = artefact.access_record.of(purpose)
        allowed = _allowed(purpose, artefact.method, roles)
        if rules.further.any() or (roles == Role.UNLABELLED).any():
            allowed += (Role.UNLABELLED,)
        yield _checked(artefact, purpose, rows, roles, allowed, rules)


def check_labels(
    artefact: Artefact,
    own: Regime,
    through: dict[str, Regime],
    roles_under: Callable[[Regime], np.ndarray],
    rules: Rules,
) -> Iterator[Check]:
    """One check for each way in which an artefact of a label regime has read: what it read itself, by its own regime,
    and what it inherited, by the regime of the artefact that read it.

    `through` are the regimes, by name, of what it was made from."""
    for access in artefact.access_record.accesses():
        if access.purpose not in ALLOWED:
            continue
        purpose = f"{access.purpose}, {'labels' if access.labels else 'images alone'}"
        regime, method = own, artefact.method
        if access.regime is not None:
            # What it was made from may rest in turn on something of its own regime.
            known = through | {own.record_name: own}
            purpose, regime, method = f"{purpose}, through {access.regime}", known.get(access.regime), ""
        if regime is None:
            # Nothing that it was made from has this regime: whatever was read so was read past the rules.
            yield _checked(artefact, purpose, access.rows, np.full(len(rules.groups), Role.UNUSED), (), rules)
            continue
        roles = roles_under(regime)
        allowed = _allowed(access.purpose, method, roles)
        if not access.labels:
            allowed += (Role.UNLABELLED,)
        check = _checked(artefact, purpose, access.rows, roles, allowed, rules)
        check.allowed_roles += f" under {regime.record_name}"
        yield check


def _checked(
    artefact: Artefact, purpose: str, rows: np.ndarray, roles: np.ndarray, allowed: tuple[str, ...], rules: Rules
) -> Check:
    """Whether these rows have roles that are allowed."""
    # A further image has its role from its relatives, and tells nothing of them by a label.
    kin = np.where(rules.further, Role.UNUSED, _kin(roles))
    foreign = rows[~np.isin(roles, allowed)[rows]]
    # A relative of a test image is as bad as the image: groups that have a role which is not allowed. Images that
    # nobody may read in this fold are no part of it: their groups are judged by their other images.
    outside = np.intersect1d(rules.groups[rows], rules.groups[~np.isin(kin, allowed) & (kin != Role.UNUSED)])
    check = Check(
        artefact.name, artefact.repeat, artefact.fold, purpose, len(rows), " or ".join(allowed) or "nothing",
        len(foreign), len(outside), CLEAN if rules.known[rows].all() else NOT_EXCLUDED,
    )  # fmt: skip
    if len(foreign) or len(outside):
        check.status = DECLARED if violation(check) in rules.declared else LEAK
    return check


def _allowed(purpose: str, method: str, roles: np.ndarray) -> tuple[str, ...]:
    """Roles that may be read for a purpose, with labels."""
    if purpose == "fit":
        return ALLOWED[purpose] + _reserve_of(method)
    if purpose == "threshold" and not (roles == Role.CALIBRATION).any():
        return (Role.VALIDATION,)
    return ALLOWED[purpose]


def _reserve_of(method: str) -> tuple[str, ...]:
    """The images in reserve that an arm of this method may be fitted on."""
    second = arm_choices.METHODS[method].second_source if method in arm_choices.METHODS else None
    return (second,) if second in source_choices.RESERVES else ()


def _kin(roles: np.ndarray) -> np.ndarray:
    """Roles as far as relatives are concerned: images kept aside from train groups are relatives of train images."""
    return np.where(roles == Role.RESERVE_SAME, Role.TRAIN, roles)


def check_groups(repeat: int, fold: int, roles: np.ndarray, groups: np.ndarray, artefact: str = "folds.csv") -> Check:
    """Whether each group has one role in a fold."""
    roles = _kin(roles)
    played = roles != Role.UNUSED
    table = pd.DataFrame({"group": groups[played], "role": roles[played]}).groupby("group")["role"].nunique()
    torn = table.index[table > 1]
    images = int(np.isin(groups[played], torn).sum())
    return Check(
        artefact, repeat, fold, "one role a group", len(groups), "any", images, len(torn),
        LEAK if len(torn) else CLEAN,
    )  # fmt: skip


def check_further(repeat: int, fold: int, roles: np.ndarray, rules: Rules) -> Check:
    """Whether the further images that a fold may show have no relatives outside of its train part."""
    shown = rules.further & (roles == Role.UNLABELLED)
    elsewhere = rules.groups[~rules.further & ~np.isin(_kin(roles), (Role.TRAIN, Role.UNUSED))]
    near = rules.groups[shown & np.isin(rules.groups, elsewhere)]
    return Check(
        "folds.csv", repeat, fold, "further images apart", int(shown.sum()), Role.UNLABELLED, len(near),
        len(np.unique(near)), LEAK if len(near) else CLEAN if rules.known[shown].all() else NOT_EXCLUDED,
    )  # fmt: skip


def check_encoder(repeat: int, fold: int, encoder: dict[str, Any]) -> Check:
    """A line about an encoder that the user brought along: its pre-training images are unknown."""
    # What rests on it may be too good for images that it has seen.
    name = f"encoder {encoder['architecture']} ({Path(encoder['weights']).name})"
    return Check(name, repeat, fold, "pre-training", 0, "unknown", 0, 0, UNKNOWN)


def check_weights(repeat: int, fold: int, arm: str, path: str) -> Check:
    """A line about an arm that starts from weights which the user brought along."""
    return Check(f"arm {arm}", repeat, fold, f"pre-training of {Path(path).name}", 0, "unknown", 0, 0, UNKNOWN)


def check_origin(artefact: Artefact) -> Iterator[Check]:
    """A line for each network from elsewhere that an artefact rests on, where nobody knows what that one has read."""
    for name in sorted(artefact.access_record.unknown):
        purpose = f"training elsewhere of {name}"
        yield Check(artefact.name, artefact.repeat, artefact.fold, purpose, 0, "unknown", 0, 0, UNKNOWN_ORIGIN)


def check_scored(paths: list[Path], ids: np.ndarray, roles_of: Any) -> Iterator[Check]:
    """Whether every arm was scored on exactly the test part of its fold."""
    # The reverse of a leak: an arm scored on other images than the fold's test part, or not on all of them.
    for path in arm_files(paths):
        arm = prediction_file.read_predictions(path, parts=("test",))
        expected = set(ids[roles_of(arm.repeat, arm.fold) == Role.TEST])
        scored = arm.parts["test"]
        wrong = expected.symmetric_difference(scored.ids)
        repeated = len(scored) - len(set(scored.ids))
        yield Check(
            f"arm {arm.arm}", arm.repeat, arm.fold, "scored", len(scored), Role.TEST, len(wrong) + repeated, 0,
            LEAK if wrong or repeated else CLEAN,
        )  # fmt: skip
    for path in paths:
        if stress_file.is_one(path):
            found = stress_file.read(path, arms=())
            yield from _check_rows(to_artefact("stress test", vars(found), path), roles_of)
        for entry in replayed(path) if path.name.endswith(REPLAYED) else ():
            yield from _check_rows(to_artefact(str(entry.get("name")), entry, path), roles_of)


def _check_rows(artefact: Artefact, roles_of: Any) -> Iterator[Check]:
    # By the record of what was read. A model of the replay is scored on the test part however it was trained; its
    # thresholds alone score nothing.
    rows = artefact.access_record.of("score")
    if len(rows):
        wrong = np.setxor1d(rows, np.flatnonzero(roles_of(artefact.repeat, artefact.fold) == Role.TEST))
        yield Check(
            artefact.name, artefact.repeat, artefact.fold, "scored", len(rows), Role.TEST, len(wrong), 0,
            LEAK if len(wrong) else CLEAN,
        )  # fmt: skip
