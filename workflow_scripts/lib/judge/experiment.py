"""Read the predictions of all arms of a run, and check that arms can be compared in pairs.

Knows nothing of thresholds, scores or intervals."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from workflow_scripts.lib.base.errors import UserError
from workflow_scripts.lib.base.files import digest
from workflow_scripts.lib.classify.arm_choices import METHODS
from workflow_scripts.lib.classify.source_choices import RESERVES
from workflow_scripts.lib.images.access_record import AccessRecord
from workflow_scripts.lib.judge.fold_scores import FoldScores, ScoredRows, per_protein
from workflow_scripts.lib.scores import arm_list
from workflow_scripts.lib.scores.prediction_file import PARTS, Predictions, Scored, read_predictions


@dataclass
class Experiment:
    """All arms in all folds of all repeats, their rows in one order."""

    classes: list[str]
    groups: list[str]  # every group that any part holds, sorted
    arms: dict[str, list[Predictions]]  # arm -> one entry per repeat and fold, in that order

    @property
    def reference(self) -> list[Predictions]:
        """The predictions of the first arm; ids, groups and labels are the same in all arms."""
        return next(iter(self.arms.values()))

    @property
    def places(self) -> list[tuple[int, int]]:
        """Repeat and fold of each entry of an arm."""
        return [(fold.repeat, fold.fold) for fold in self.reference]

    @property
    def repeats(self) -> int:
        """Number of repeats."""
        return len({repeat for repeat, _ in self.places})

    def fold_scores(self, arm: str, level: str) -> list[FoldScores]:
        """The scored rows of one arm in every fold, per image or per protein."""
        return [
            FoldScores(fold.repeat, fold.fold, **{name: self._rows(fold.parts[name], level) for name in PARTS})
            for fold in self.arms[arm]
        ]

    def _rows(self, part: Scored, level: str) -> ScoredRows:
        groups = np.searchsorted(np.array(self.groups), part.groups.astype(str))
        rows = ScoredRows(part.probabilities, part.labels.astype(bool), groups)
        return per_protein(rows) if level == "protein" else rows

    def test_to_train(self, arm: str) -> float:
        """Test images per training image of an arm, mean over folds.

        From what the classifiers recorded, or else from the number of folds."""
        ratios = []
        for fold in self.arms[arm]:
            fitted = AccessRecord.from_json(fold.access_record).labelled("fit") if fold.access_record else 0
            if fitted:
                ratios.append(len(fold.parts["test"]) / fitted)
        folds = len(self.places) / self.repeats
        return float(np.mean(ratios)) if ratios else 1 / max(1.0, folds - 1)

    def from_elsewhere(self, arm: str) -> list[str]:
        """Networks from elsewhere that an arm rests on, of which nobody knows whether they have read images here."""
        records = {fold.access_record for fold in self.arms[arm] if fold.access_record}
        return sorted({name for text in records for name in AccessRecord.from_json(text).unknown})

    def settings(self, arm: str) -> dict[str, Any]:
        """What an arm was trained with; it is the same in all folds."""
        return self.arms[arm][0].settings

    def mean_number(self, arm: str, name: str) -> float:
        """Mean of a recorded number over the folds of an arm; 0 where a fold did not record it."""
        values = [fold.numbers.get(name) for fold in self.arms[arm]]
        return float(np.mean(values)) if None not in values else 0.0

    def train_groups(self) -> float:
        """Groups in the train part of a fold, by what arms recorded; 0 where none did.

        Arms that also learn from a reserve count its groups too, so they tell nothing of the train part."""
        numbers = [
            self.mean_number(name, "real_groups") / (self.settings(name).get("regime") or {}).get("labelled", 1)
            for name in self.arms
            if (method := METHODS.get(self.settings(name).get("method"))) and method.second_source not in RESERVES
        ]
        return max(numbers, default=0.0)

    def thresholds_fitted_on(self) -> list[dict[str, Any]]:
        """Per repeat and fold the images and groups whose labels the thresholds are fitted on, with their digests.

        Arms of different label regimes may have different ones."""
        members: dict[str, list[str]] = {}
        for name in self.arms:
            members.setdefault(_regime(self.arms[name][0]), []).append(name)
        out = []
        for regime, names in members.items():
            for fold in self.arms[names[0]]:
                part = fold.parts["calibration"]
                ids, groups = [str(name) for name in part.ids], sorted({str(name) for name in part.groups})
                out.append(
                    {"repeat": fold.repeat, "fold": fold.fold, "images": fold.images, "ids": ids, "groups": groups}
                    | {"ids_digest": digest(ids), "groups_digest": digest(groups), "arms": sorted(names)}
                    | ({"regime": regime} if regime else {})
                )
        return out


def read_experiment(paths: list[Path], names: list[str]) -> Experiment:
    """Read the predictions of the declared arms, and refuse those that cannot be compared fairly."""
    arms: dict[str, dict[tuple[int, int], Predictions]] = {name: {} for name in names}
    for path in prediction_files(paths):
        fold = _in_order(read_predictions(path), path)
        place = (fold.repeat, fold.fold)
        if fold.arm not in arms:
            raise UserError(f"{path} holds arm {fold.arm!r}, which arms does not list: {', '.join(names)}")
        if place in arms[fold.arm]:
            raise UserError(f"arm {fold.arm!r} has two predictions of repeat {place[0]}, fold {place[1]}: {path}")
        # Memory of thousands of arms in folds: the history is not judged, and common arrays are held once.
        fold.history = {}
        for others in arms.values():
            if place in others:
                _share_arrays(others[place], fold)
                break
        arms[fold.arm][place] = fold
    places = sorted({place for folds in arms.values() for place in folds})
    if not places:
        raise UserError("there are no predictions to judge")
    for name, folds in arms.items():
        missing = [place for place in places if place not in folds]
        if missing:
            raise UserError(
                f"arm {name!r} has no predictions of repeat {missing[0][0]}, fold {missing[0][1]}: train it"
            )
    first = arms[names[0]]
    # Under one label regime all arms have the same images; under different ones the same test images.
    regimes: dict[str, str] = {}
    for name in names:
        alike = arms[regimes.setdefault(_regime(arms[name][places[0]]), name)]
        for place in places:
            _check_pair(first[place], arms[name][place], first[places[0]], ("test",))
            _check_pair(alike[place], arms[name][place], alike[places[0]], PARTS)
    parts = [part for name in regimes.values() for place in places for part in arms[name][place].parts.values()]
    groups = sorted({str(group) for part in parts for group in part.groups})
    return Experiment(first[places[0]].classes, groups, {name: [arms[name][p] for p in places] for name in names})


def prediction_files(paths: list[Path]) -> list[Path]:
    """The predictions files: given directly, or through lists of arms (`{"arms": [{"predictions": ...}]}`)."""
    out = []
    for path in paths:
        if path.suffix != ".json":
            out.append(path)
            continue
        out += [entry["predictions"] for entry in arm_list.read(path)]
    return out


def _in_order(arm: Predictions, path: Path) -> Predictions:
    """Sort the rows of every part by id, so that arms can be compared row by row; refuse parts that are not whole."""
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


def _share_arrays(first: Predictions, other: Predictions) -> None:
    """Let the second arm of a fold refer to the arrays of the first where they are equal.

    Where they differ both stay as they are, and `_check_pair` says so later."""
    if other.access_record == first.access_record:
        other.access_record = first.access_record
    for name, part in other.parts.items():
        for field in ("ids", "groups", "labels"):
            if _equal(part, first.parts[name], field):
                setattr(part, field, getattr(first.parts[name], field))


def _regime(fold: Predictions) -> str:
    """Label regime of an arm; empty where everything is labelled."""
    return (fold.settings.get("regime") or {}).get("name", "")


def _check_pair(first: Predictions, other: Predictions, reference: Predictions, names: tuple[str, ...]) -> None:
    """Refuse two arms of a fold whose parts have not the same images, groups, labels and classes."""
    where = f"repeat {other.repeat}, fold {other.fold}"
    for one in (first, reference):
        if other.classes != one.classes:
            raise UserError(f"arm {other.arm!r} ({where}) has other classes than {one.arm!r}: train it again")
        if other.images != one.images:
            raise UserError(f"arms {other.arm!r} ({where}) and {one.arm!r} saw different images: train again")
    for name in names:
        for field in ("ids", "groups", "labels"):
            if not _equal(other.parts[name], first.parts[name], field):
                raise UserError(
                    f"arms {first.arm!r} and {other.arm!r} ({where}) differ in the {field} of their {name} "
                    "part, so they cannot be paired: train them on the same folds"
                )


def _equal(one: Scored, other: Scored, field: str) -> bool:
    mine, theirs = getattr(one, field), getattr(other, field)
    return mine is theirs or np.array_equal(mine, theirs)
