"""Design of a repeat's folds: which images are tested, by group, by a column's values, or by the user's own marks.

The settings are those of make_folds. A request that the groups cannot meet ends in one line that says so."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from workflow_scripts.lib.base import stage
from workflow_scripts.lib.base.errors import UserError
from workflow_scripts.lib.base.seeds import derive
from workflow_scripts.lib.split import assignment
from workflow_scripts.lib.split.label_order import label_ranks
from workflow_scripts.lib.split.regimes import FEWEST_LABELLED, RANKED, SAME, Regime
from workflow_scripts.lib.split.roles import MARKS, ROLES, Role

COLUMNS = ("stratify_by", "leave_out", "roles_from")  # settings that name a column of the image set


@dataclass
class FoldDesign:
    """The images of a repeat, and what the settings ask of its folds."""

    images: Path  # the image set, for messages
    groups: np.ndarray  # (n,) of the images
    classes: list[str]
    labels: np.ndarray  # (n, K)
    columns: dict[str, np.ndarray | None]  # values (n,) of COLUMNS
    settings: dict[str, Any]
    repeat: int
    seed: int
    # Groups (m,) of further images that came without labels. They follow the others, and decide about no fold.
    further: np.ndarray = field(default_factory=lambda: np.empty(0, dtype=object))
    further_left_out: np.ndarray | None = None  # their values (m,) of the column that leave_out names
    held: list[str] = field(default_factory=list)  # the value that each fold tests, with leave_out
    names: np.ndarray = field(init=False)  # of the groups
    member: np.ndarray = field(init=False)  # (n,) the group's place in `names`

    carries: np.ndarray = field(init=False)  # bool (n,): has a label

    def __post_init__(self) -> None:
        self.carries = self.labels.any(axis=1)
        self.names, self.member = np.unique(self.groups, return_inverse=True)
        strata = self.columns["stratify_by"]
        if strata is not None:
            # A value of the column is balanced just as a class is.
            values = sorted({str(value) for value in strata if value})
            marked = np.stack([strata == value for value in values], axis=1)
            self.labels = np.concatenate([self.labels, marked], axis=1)
            self.classes = [*self.classes, *(f"{self.settings['stratify_by']} {value}" for value in values)]

    def assign(self, quiet: bool = False) -> np.ndarray:
        """Roles (n + m, folds) of all images; logs their numbers and what is missing, unless `quiet`."""
        marked, left_out = self.columns["roles_from"], self.columns["leave_out"]
        if marked is not None:
            assigned = self._as_marked(marked)
        elif left_out is not None:
            assigned = self._leaving_out(left_out)
        else:
            assigned = self._by_group()
        if self.settings["fractions"]["reserve_same"] > 0:
            assigned = self._keeping_aside(assigned)
        _check_parts(assigned, self.settings["fractions"])
        if not quiet:
            self._tell(assigned)
        return np.concatenate([assigned, self._shown(assigned)])

    def label_ranks(self, assigned: np.ndarray) -> np.ndarray | None:
        """Ranks (n + m, folds) by which label regimes are nested; None where the settings have no regimes."""
        regimes = [Regime(**entry) for entry in self.settings.get("regimes", [])]
        if not regimes:
            return None
        assigned = assigned[: len(self.groups)]
        seed = derive(self.seed, self.repeat)
        ranks = [
            label_ranks(self.labels, self.member, assigned[:, fold], derive(seed, fold))
            for fold in range(assigned.shape[1])
        ]
        out = np.stack(ranks, axis=1)
        for regime in regimes:
            _check_regime(regime, self.carries, self.member, assigned, out)
        return np.concatenate([out, np.full((len(self.further), out.shape[1]), np.nan)])

    def _shown(self, assigned: np.ndarray) -> np.ndarray:
        """Roles (m, folds) of further images: unlabelled, or unused where a relative is not in the train part.

        With leave_out, those of the value that a fold tests are unused too, unless the settings show some of it. So are
        those of unknown value, which may be the one tested."""
        out = np.full((len(self.further), assigned.shape[1]), Role.UNLABELLED, dtype=object)
        hides = bool(self.held) and self.further_left_out is not None and not self.settings.get("show_left_out", 0)
        if hides and len(out) and (self.further_left_out == "").any():
            stage.log.warning(
                "%d further images without a value of %r are unused, since they may be of the one that is tested: give "
                "the column in data.unlabelled.table",
                int((self.further_left_out == "").sum()), self.settings["leave_out"],
            )  # fmt: skip
        for fold in range(assigned.shape[1]):
            if hides:
                out[np.isin(self.further_left_out, ("", self.held[fold])), fold] = Role.UNUSED
            elsewhere = self.groups[~np.isin(assigned[:, fold], (Role.TRAIN, Role.RESERVE_SAME))]
            out[np.isin(self.further, elsewhere), fold] = Role.UNUSED
            if len(out):
                shown = int((out[:, fold] == Role.UNLABELLED).sum())
                stage.log.info("fold %d: %d of %d further images may be shown", fold, shown, len(out))
        return out

    def _by_group(self) -> np.ndarray:
        """Roles (n, folds) where every fold tests groups of its own."""
        counts, count = assignment.group_counts(self.labels, self.member), self.settings["folds"]
        parts = 1 + sum(
            fraction > 0 for role, fraction in self.settings["fractions"].items() if role != Role.RESERVE_SAME
        )
        if len(counts) < parts + count - 1:
            raise UserError(f"{self.images} has {len(counts)} groups, too few for {count} folds of {parts} parts")
        return assignment.roles(
            counts, np.bincount(self.member), count, self.settings["fractions"], self.seed, self.repeat
        )[self.member]

    def _leaving_out(self, values: np.ndarray) -> np.ndarray:
        """Roles (n, folds) where every fold tests one value of a column."""
        column, count = self.settings["leave_out"], self.settings["folds"]
        held = self.held = assignment.held_out_values(values, count, self.repeat)
        if not held:
            raise UserError(
                f"make_folds.leave_out = {column!r}: the column has {len(set(values) - {''})} values, too few for "
                f"{count} folds that leave out one each"
            )
        unknown = int((values == "").sum())
        if unknown:
            stage.log.warning("%d images without a value of %r are unused in every fold", unknown, column)
        try:
            assigned = assignment.roles_leaving_out(
                self.labels, self.member, values, held, self.settings["fractions"], self.seed, self.repeat,
                self.settings.get("show_left_out", 0),
            )  # fmt: skip
        except ValueError as error:
            raise UserError(f"make_folds.leave_out = {column!r}: {error}") from None
        for fold, value in enumerate(held):
            seen = int((assigned[:, fold] == Role.UNLABELLED).sum())
            told = f"; {seen} further images of it may be seen without labels" if seen else ""
            stage.log.info("fold %d: tests %s %r%s", fold, column, value, told)
        return assigned

    def _as_marked(self, values: np.ndarray) -> np.ndarray:
        """Roles (n, 1) where the user's own column marks the images to test."""
        option = f"make_folds.roles_from = {self.settings['roles_from']!r}"
        values = np.array([value.casefold() for value in values], dtype=object)
        known = ", ".join(MARKS)
        strange = sorted(set(values) - {*MARKS, ""})
        if strange:
            raise UserError(f"{option}: the column holds {strange[0]!r}; what it may say is {known}, or nothing")
        if Role.TEST not in values:
            raise UserError(f"{option}: the column marks no image as test")
        marks = np.full(len(self.names), "", dtype=object)
        for value in (value for value in MARKS if value in values):
            own = np.unique(self.member[values == value])
            torn = own[marks[own] != ""]
            if len(torn):
                raise UserError(
                    f"{option}: {len(torn)} groups have images marked {value} and others marked differently, the "
                    f"first is {self.names[torn[0]]!r} ({marks[torn[0]]}); one protein would stand on both sides. Mark "
                    "a group's images alike, or say otherwise what a group is (data.group_by, "
                    "preprocess_images.duplicates)"
                )
            marks[own] = value
        try:
            out = assignment.roles_as_marked(
                assignment.group_counts(self.labels, self.member),
                np.bincount(self.member),
                marks,
                self.settings["fractions"],
                self.seed,
                self.repeat,
            )
        except ValueError as error:
            raise UserError(f"{option}: {error}: lower make_folds.fractions") from None
        out = out[self.member]
        relatives = (values == "") & ~np.isin(marks[self.member], ("", Role.TRAIN))
        out[relatives] = Role.UNUSED
        if relatives.any():
            stage.log.warning(
                "%d images that are not marked are unused: others of their group are", int(relatives.sum())
            )
        return out[:, None]

    def _keeping_aside(self, assigned: np.ndarray) -> np.ndarray:
        """The same roles, with images of train groups as reserve_same in every fold."""
        out, fraction = assigned.copy(), self.settings["fractions"]["reserve_same"]
        for fold in range(out.shape[1]):
            try:
                out[:, fold] = assignment.keep_aside(
                    out[:, fold], self.member, fraction, derive(self.seed, self.repeat, fold)
                )
            except ValueError as error:
                raise UserError(f"make_folds.fractions.reserve_same = {fraction:g}: fold {fold}: {error}") from None
            spared = int((out[:, fold] == Role.RESERVE_SAME).sum())
            if spared < round(fraction * len(out)):
                stage.log.warning(
                    "fold %d: train groups can spare %d images, not the %d that "
                    "make_folds.fractions.reserve_same asks for",
                    fold, spared, round(fraction * len(out)),
                )  # fmt: skip
        return out

    def _tell(self, assigned: np.ndarray) -> None:
        """Log how large the parts are, and which classes are missing in some of them."""
        groups = (assignment.group_counts(self.labels, self.member) > 0).sum(0)
        enough = assignment.fewest_groups(self.settings["folds"], self.settings["fractions"])
        rare = {name for name, count in zip(self.classes, groups, strict=True) if count < enough}
        if rare and not self.settings["leave_out"] and not self.settings["roles_from"]:
            listed = ", ".join(
                f"{name} ({count})" for name, count in zip(self.classes, groups, strict=True) if count < enough
            )
            stage.log.warning("fewer groups than the %d that every role of every fold takes: %s", enough, listed)
        for fold in range(self.settings["folds"]):
            for kind, role in assignment.missing(self.labels, assigned[:, fold], self.classes):
                stage.log.warning("fold %d: class %r has no image in %s", fold, kind, role)
            sizes = {role: int((assigned[:, fold] == role).sum()) for role in ROLES}
            stage.log.info("fold %d: %s", fold, ", ".join(f"{role} {n}" for role, n in sizes.items() if n))


def _check_parts(assigned: np.ndarray, fractions: dict[str, float]) -> None:
    """Raise UserError where a part that the settings ask for is empty."""
    wanted = [Role.TRAIN, Role.TEST, *(role for role in ROLES if fractions.get(role, 0) > 0)]
    for fold in range(assigned.shape[1]):
        empty = [role for role in dict.fromkeys(wanted) if not (assigned[:, fold] == role).any()]
        if empty:
            raise UserError(
                f"fold {fold} has no group left for {empty[0]}: there are too few groups for so many parts. Ask "
                "for fewer (make_folds.fractions, make_folds.folds), or set another seed"
            )


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
