"""make_folds: which role every image plays in every fold of one repeat, folds.csv.

A group (images that share a protein or an antibody) is never split. Roles: test, calibration (thresholds),
validation (model selection), train, and, if their shares are above 0, reserve and lockbox. Each role gets its fraction
of every class and, with `stratify_by`, of every value of a column such as cell_line. With `leave_out` each fold tests
one value of a column instead; images of the tested groups that have another value are `unused` in that fold, because
they are relatives of test images. With `roles_from` a column says what is tested, and perhaps what is validation,
calibration or unused; the other images share the parts that it does not name, but for relatives of those that it
names, which are unused. `reserve_same` is the one role that shares groups with another: images of train groups that
only the arms `more_real_same` may use. With `regimes`, groups are also ranked by the order in which they get labels.

Example:
    python -m workflow_scripts.make_folds --images images.h5 --out folds.csv --repeat 0 --seed 1 \\
        --settings '{"folds": 2, "shares": {"test": 0.25, ...}, "stratify_by": null, "leave_out": null,
        "roles_from": null}'
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np

from workflow_scripts.lib.base import arguments, stage
from workflow_scripts.lib.base.errors import UserError
from workflow_scripts.lib.base.seeds import derive
from workflow_scripts.lib.images.image_set import ImageSet
from workflow_scripts.lib.split import assignment, role_table
from workflow_scripts.lib.split.label_order import label_ranks
from workflow_scripts.lib.split.regimes import RANKED, SAME, Regime
from workflow_scripts.lib.split.roles import MARKS, ROLES, Role

FEWEST_LABELLED = 4  # groups of a part; thresholds and checkpoints chosen on fewer would follow single proteins


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    out = arguments.parser(__doc__)
    out.add_argument("--images", type=Path, required=True, help="the image set")
    out.add_argument("--out", type=Path, required=True, help="the table of roles to write")
    out.add_argument("--repeat", type=int, required=True, help="number of the repeat")
    out.add_argument("--seed", type=int, required=True, help="seed of the run")
    return out.parse_args(argv)


def make_folds(images: Path, out: Path, repeat: int, seed: int, settings: dict[str, Any]) -> None:
    """Write the roles of all images in all folds of a repeat."""
    with ImageSet(images) as source:
        ids, groups, classes = source.ids, source.groups, list(source.classes)
        labels = source.labels(None, "inspect")
        strata = _column(source, settings["stratify_by"], "stratify_by")
        left_out = _column(source, settings["leave_out"], "leave_out")
        marked = _column(source, settings["roles_from"], "roles_from")
    names, member = np.unique(groups, return_inverse=True)
    carries = labels.any(axis=1)
    if strata is not None:
        # A value of the column is balanced just as a class is.
        values = sorted({str(value) for value in strata if value})
        labels = np.concatenate([labels, np.stack([strata == value for value in values], axis=1)], axis=1)
        classes += [f"{settings['stratify_by']} {value}" for value in values]
    if marked is not None:
        assigned = _as_marked(marked, labels, member, names, repeat, seed, settings)
    elif left_out is not None:
        assigned = _leaving_out(left_out, labels, member, repeat, seed, settings)
    else:
        assigned = _by_group(images, labels, member, repeat, seed, settings)
    fraction = settings["fractions"]["reserve_same"]
    if fraction > 0:
        assigned = _keeping_aside(assigned, member, fraction, repeat, seed)
    _check_parts(assigned, settings["fractions"])
    _tell(labels, member, classes, assigned, settings)
    regimes = [Regime(**entry) for entry in settings.get("regimes", [])]
    ranks = None
    if regimes:
        ranks = _ranked(labels, member, assigned, derive(seed, repeat))
        for regime in regimes:
            _check_regime(regime, carries, member, assigned, ranks)
    role_table.write(out, ids, groups, assigned, ranks)
    stage.log.info("%d images of %d groups", len(ids), len(names))


def _column(source: ImageSet, name: str | None, option: str) -> np.ndarray | None:
    if not name:
        return None
    if name not in source.columns():
        known = ", ".join(source.columns()) or "none"
        raise UserError(f"make_folds.{option} = {name!r}: {source.path} has no such column; it has: {known}")
    values = source.column(name)
    if not (values != "").any():
        raise UserError(f"make_folds.{option} = {name!r}: the column is empty in {source.path}")
    return values


def _by_group(
    images: Path, labels: np.ndarray, member: np.ndarray, repeat: int, seed: int, settings: dict[str, Any]
) -> np.ndarray:
    counts, count = assignment.group_counts(labels, member), settings["folds"]
    parts = 1 + sum(fraction > 0 for role, fraction in settings["fractions"].items() if role != Role.RESERVE_SAME)
    if len(counts) < parts + count - 1:
        raise UserError(f"{images} has {len(counts)} groups, too few for {count} folds of {parts} parts")
    return assignment.roles(counts, np.bincount(member), count, settings["fractions"], seed, repeat)[member]


def _leaving_out(
    values: np.ndarray, labels: np.ndarray, member: np.ndarray, repeat: int, seed: int, settings: dict[str, Any]
) -> np.ndarray:
    column, count = settings["leave_out"], settings["folds"]
    held = assignment.held_out_values(values, count, repeat)
    if not held:
        raise UserError(
            f"make_folds.leave_out = {column!r}: the column has {len(set(values) - {''})} values, too few for {count} "
            "folds that leave out one each"
        )
    unknown = int((values == "").sum())
    if unknown:
        stage.log.warning("%d images without a value of %r are unused in every fold", unknown, column)
    try:
        assigned = assignment.roles_leaving_out(labels, member, values, held, settings["fractions"], seed, repeat)
    except ValueError as error:
        raise UserError(f"make_folds.leave_out = {column!r}: {error}") from None
    for fold, value in enumerate(held):
        stage.log.info("fold %d: tests %s %r", fold, column, value)
    return assigned


def _as_marked(
    values: np.ndarray,
    labels: np.ndarray,
    member: np.ndarray,
    names: np.ndarray,
    repeat: int,
    seed: int,
    settings: dict[str, Any],
) -> np.ndarray:
    """Roles (n, 1) where the user's own column says which images are tested; `names` are those of the groups."""
    option = f"make_folds.roles_from = {settings['roles_from']!r}"
    values = np.array([value.casefold() for value in values], dtype=object)
    known = ", ".join(MARKS)
    strange = sorted(set(values) - {*MARKS, ""})
    if strange:
        raise UserError(f"{option}: the column holds {strange[0]!r}; what it may say is {known}, or nothing")
    if Role.TEST not in values:
        raise UserError(f"{option}: the column marks no image as test")
    marks = np.full(len(names), "", dtype=object)
    for value in (value for value in MARKS if value in values):
        own = np.unique(member[values == value])
        torn = own[marks[own] != ""]
        if len(torn):
            raise UserError(
                f"{option}: {len(torn)} groups have images marked {value} and others marked differently, the first is "
                f"{names[torn[0]]!r} ({marks[torn[0]]}); one protein would stand on both sides. Mark a group's images "
                "alike, or say otherwise what a group is (data.group_by, preprocess_images.duplicates)"
            )
        marks[own] = value
    try:
        out = assignment.roles_as_marked(
            assignment.group_counts(labels, member), np.bincount(member), marks, settings["fractions"], seed, repeat
        )
    except ValueError as error:
        raise UserError(f"{option}: {error}: lower make_folds.fractions") from None
    out = out[member]
    relatives = (values == "") & ~np.isin(marks[member], ("", Role.TRAIN))
    out[relatives] = Role.UNUSED
    if relatives.any():
        stage.log.warning("%d images that are not marked are unused: others of their group are", int(relatives.sum()))
    return out[:, None]


def _check_parts(assigned: np.ndarray, fractions: dict[str, float]) -> None:
    """That no part which the settings ask for is empty."""
    wanted = [Role.TRAIN, Role.TEST, *(role for role in ROLES if fractions.get(role, 0) > 0)]
    for fold in range(assigned.shape[1]):
        empty = [role for role in dict.fromkeys(wanted) if not (assigned[:, fold] == role).any()]
        if empty:
            raise UserError(
                f"fold {fold} has no group left for {empty[0]}: there are too few groups for so many parts. Ask "
                "for fewer (make_folds.fractions, make_folds.folds), or set another seed"
            )


def _keeping_aside(assigned: np.ndarray, member: np.ndarray, fraction: float, repeat: int, seed: int) -> np.ndarray:
    """The same roles, with images of train groups kept aside in every fold."""
    out = assigned.copy()
    for fold in range(out.shape[1]):
        try:
            out[:, fold] = assignment.keep_aside(out[:, fold], member, fraction, derive(seed, repeat, fold))
        except ValueError as error:
            raise UserError(f"make_folds.fractions.reserve_same = {fraction:g}: fold {fold}: {error}") from None
        found = int((out[:, fold] == Role.RESERVE_SAME).sum())
        if found < round(fraction * len(out)):
            stage.log.warning(
                "fold %d: train groups can spare %d images, not the %d that make_folds.fractions.reserve_same asks for",
                fold, found, round(fraction * len(out)),
            )  # fmt: skip
    return out


def _ranked(labels: np.ndarray, member: np.ndarray, assigned: np.ndarray, seed: int) -> np.ndarray:
    """Ranks (n, folds) by which label regimes are nested."""
    folds = range(assigned.shape[1])
    return np.stack([label_ranks(labels, member, assigned[:, fold], derive(seed, fold)) for fold in folds], axis=1)


def _check_regime(
    regime: Regime, carries: np.ndarray, member: np.ndarray, assigned: np.ndarray, ranks: np.ndarray
) -> None:
    """That a regime leaves enough labelled groups in every part that shrinks with it; `carries` (n,): has a label."""
    shrinking, needed = (RANKED if regime.selection == SAME else (Role.TRAIN,)), 0.0
    for fold in range(assigned.shape[1]):
        told = []
        for role in (role for role in shrinking if (assigned[:, fold] == role).any()):
            first = np.flatnonzero((assigned[:, fold] == role) & carries)
            of_groups = np.sort(ranks[first, fold][np.unique(member[first], return_index=True)[1]])
            told.append(f"{role} {int((of_groups <= regime.labelled + 1e-9).sum())}")
            if len(of_groups) < FEWEST_LABELLED:
                raise UserError(
                    f"regimes ({regime.name}): fold {fold} has {len(of_groups)} groups with labels in {role}, too few "
                    "to leave some out: raise its part of make_folds.fractions, or say selection: full"
                )
            needed = max(needed, of_groups[FEWEST_LABELLED - 1])
        stage.log.info("fold %d, regime %s: labelled groups: %s", fold, regime.name, ", ".join(told))
    if needed > regime.labelled + 1e-9:
        raise UserError(
            f"regimes ({regime.name}).labelled = {regime.labelled:g} leaves fewer than {FEWEST_LABELLED} labelled "
            f"groups to train, select or set thresholds with: {min(1.0, np.ceil(100 * needed) / 100):g} would do"
        )


def _tell(
    labels: np.ndarray, member: np.ndarray, classes: list[str], assigned: np.ndarray, settings: dict[str, Any]
) -> None:
    """How large the parts are, and which classes do not reach every one of them."""
    groups = (assignment.group_counts(labels, member) > 0).sum(0)
    enough = assignment.fewest_groups(settings["folds"], settings["fractions"])
    rare = {name for name, count in zip(classes, groups, strict=True) if count < enough}
    if rare and not settings["leave_out"] and not settings["roles_from"]:
        listed = ", ".join(f"{name} ({count})" for name, count in zip(classes, groups, strict=True) if count < enough)
        stage.log.warning("fewer groups than the %d that every role of every fold takes: %s", enough, listed)
    for fold in range(settings["folds"]):
        for kind, role in assignment.missing(labels, assigned[:, fold], classes):
            stage.log.warning("fold %d: class %r has no image in %s", fold, kind, role)
        sizes = {role: int((assigned[:, fold] == role).sum()) for role in ROLES}
        stage.log.info("fold %d: %s", fold, ", ".join(f"{role} {n}" for role, n in sizes.items() if n))


def main(argv: list[str] | None = None) -> int:
    """The program."""
    args = parse_args(argv)
    return stage.run(
        "make_folds", args, lambda: make_folds(args.images, args.out, args.repeat, args.seed, args.settings)
    )


if __name__ == "__main__":
    sys.exit(main())
