"""The predictions of all arms of a run, checked to be a truly paired experiment before anything is scored."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from workflow_scripts.lib.base.errors import UserError
from workflow_scripts.lib.images.access_record import Provenance
from workflow_scripts.lib.judge.scoring import Cell, Table, per_protein
from workflow_scripts.lib.scores import arm_list
from workflow_scripts.lib.scores.prediction_file import Predictions, Scored, read_predictions

PARTS = ("validation", "calibration", "test")


@dataclass
class Experiment:
    """All arms in all folds of all repeats, rows in one order."""

    classes: list[str]
    groups: list[str]  # every group that any part holds, sorted
    arms: dict[str, list[Predictions]]  # arm -> one entry per repeat and fold, in that order

    @property
    def places(self) -> list[tuple[int, int]]:
        """Repeat and fold of each entry of an arm."""
        return [(cell.repeat, cell.fold) for cell in next(iter(self.arms.values()))]

    def cells(self, arm: str, level: str) -> list[Cell]:
        """The tables of one arm, per image or per protein."""
        return [
            Cell(found.repeat, found.fold, **{name: self._table(found.parts[name], level) for name in PARTS})
            for found in self.arms[arm]
        ]

    def _table(self, part: Scored, level: str) -> Table:
        groups = np.searchsorted(np.array(self.groups), part.groups.astype(str))
        table = Table(part.probabilities, part.labels.astype(bool), groups)
        return per_protein(table) if level == "protein" else table

    def test_to_train(self, arm: str) -> float:
        """Test images per training image of an arm, mean over folds: from what classifiers recorded, else from the
        folds."""
        ratios = []
        for found in self.arms[arm]:
            fitted = len(Provenance.from_json(found.provenance).of("fit")) if found.provenance else 0
            if fitted:
                ratios.append(len(found.parts["test"]) / fitted)
        folds = len(self.places) / len({repeat for repeat, _ in self.places})
        return float(np.mean(ratios)) if ratios else 1 / max(1.0, folds - 1)


def prediction_files(paths: list[Path]) -> list[Path]:
    """The predictions files: given directly, or through lists of arms (`{"arms": [{"predictions": ...}]}`)."""
    out = []
    for path in paths:
        if path.suffix != ".json":
            out.append(path)
            continue
        out += [entry["predictions"] for entry in arm_list.read(path)]
    return out


def read_experiment(paths: list[Path], names: list[str]) -> Experiment:
    """Read the predictions of the declared arms and refuse what could not be compared fairly."""
    found: dict[str, dict[tuple[int, int], Predictions]] = {name: {} for name in names}
    for path in prediction_files(paths):
        arm = _in_order(read_predictions(path), path)
        place = (arm.repeat, arm.fold)
        if arm.arm not in found:
            raise UserError(f"{path} holds arm {arm.arm!r}, which arms does not list: {', '.join(names)}")
        if place in found[arm.arm]:
            raise UserError(f"arm {arm.arm!r} has two predictions of repeat {place[0]}, fold {place[1]}: {path}")
        # Thousands of arms in folds: what they have in common is held once, and what nobody judges not at all.
        arm.history = {}
        for other in found.values():
            if place in other:
                _fraction(other[place], arm)
                break
        found[arm.arm][place] = arm
    places = sorted({place for arm in found.values() for place in arm})
    if not places:
        raise UserError("there are no predictions to judge")
    for name, cells in found.items():
        missing = [place for place in places if place not in cells]
        if missing:
            raise UserError(
                f"arm {name!r} has no predictions of repeat {missing[0][0]}, fold {missing[0][1]}: train it"
            )
    first = found[names[0]]
    for name in names:
        for place in places:
            _check_pair(first[place], found[name][place], first[places[0]])
    parts = [part for place in places for part in first[place].parts.values()]
    groups = sorted({str(group) for part in parts for group in part.groups})
    arms = {name: [found[name][place] for place in places] for name in names}
    return Experiment(first[places[0]].classes, groups, arms)


def _in_order(arm: Predictions, path: Path) -> Predictions:
    # One order of rows for all arms, so that they can be compared row by row.
    for name, part in arm.parts.items():
        order = np.argsort(part.ids.astype(str), kind="stable")
        if len(np.unique(part.ids.astype(str))) < len(part):
            raise UserError(f"{path}: the {name} part holds an image twice: delete it and run again")
        if not np.isfinite(part.logits).all():
            rows = np.flatnonzero(~np.isfinite(part.logits).all(axis=1))
            raise UserError(
                f"arm {arm.arm!r} (repeat {arm.repeat}, fold {arm.fold}) has logits that are no numbers for "
                f"{len(rows)} {name} images, such as {part.ids[rows[0]]}: its training diverged: lower its rate"
            )
        arm.parts[name] = Scored(part.ids[order], part.groups[order], part.labels[order], part.logits[order])
    # A small set may have no calibration part: thresholds then come from the validation part.
    if len(arm.parts["calibration"]) == 0:
        arm.parts["calibration"] = arm.parts["validation"]
    for name in ("test", "calibration"):
        if len(arm.parts[name]) == 0:
            raise UserError(f"{path}: the {name} part is empty: give the fold more images")
    if not arm.parts["calibration"].labels.any():
        raise UserError(f"{path}: no image of the calibration part has a label: no threshold can be chosen")
    return arm


def _fraction(first: Predictions, other: Predictions) -> None:
    # Where two arms of a fold agree, the second refers to the rows of the first: all but the logits. Where they do not,
    # both stay as they are, and the comparison that follows says so.
    if other.provenance == first.provenance:
        other.provenance = first.provenance
    for name, part in other.parts.items():
        theirs = first.parts[name]
        for field in ("ids", "groups", "labels"):
            if _equal(part, theirs, field):
                setattr(part, field, getattr(theirs, field))


def _equal(one: Scored, other: Scored, field: str) -> bool:
    mine, theirs = getattr(one, field), getattr(other, field)
    return mine is theirs or np.array_equal(mine, theirs)


def _check_pair(first: Predictions, other: Predictions, reference: Predictions) -> None:
    where = f"repeat {other.repeat}, fold {other.fold}"
    for one in (first, reference):
        if other.classes != one.classes:
            raise UserError(f"arm {other.arm!r} ({where}) has other classes than {one.arm!r}: train it again")
        if other.images != one.images:
            raise UserError(f"arms {other.arm!r} ({where}) and {one.arm!r} saw different images: train again")
    for name in PARTS:
        mine, theirs = other.parts[name], first.parts[name]
        for field in ("ids", "groups", "labels"):
            if not _equal(mine, theirs, field):
                raise UserError(
                    f"arms {first.arm!r} and {other.arm!r} ({where}) differ in the {field} of their {name} "
                    "part, so they cannot be paired: train them on the same folds"
                )
