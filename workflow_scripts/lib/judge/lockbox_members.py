"""Ask the finished classifiers about the lockbox images, each at the thresholds of its own fold. Nothing is fitted."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from workflow_scripts.lib.base.errors import UserError
from workflow_scripts.lib.base.progress import Progress
from workflow_scripts.lib.classify import classifier_file
from workflow_scripts.lib.classify.classifier_file import Classifier
from workflow_scripts.lib.images.access_record import AccessRecord
from workflow_scripts.lib.images.image_set import ImageSet, Part, select_channels
from workflow_scripts.lib.judge.analysis_choices import LEVELS
from workflow_scripts.lib.judge.fixed_scoring import Decided
from workflow_scripts.lib.judge.fold_scores import ScoredRows, per_protein
from workflow_scripts.lib.judge.lockbox_ledger import Box
from workflow_scripts.lib.scores import arm_list
from workflow_scripts.lib.scores.prediction_file import Scored

Place = tuple[int, int]  # repeat, fold


@dataclass(frozen=True)
class Member:
    """A classifier of the run: where it lies, and its thresholds by level (K,)."""

    path: Path
    classifier: Classifier
    thresholds: dict[str, np.ndarray]


Members = dict[str, dict[Place, Member]]  # arm -> repeat and fold


def read_members(arm_lists: list[Path], thresholds_csv: Path, names: list[str], source: ImageSet, box: Box) -> Members:
    """The classifiers of some arms in all folds and repeats; refuses one that knows a lockbox image or a relative."""
    thresholds = read_thresholds(thresholds_csv, names, source.classes)
    out: Members = {name: {} for name in names}
    for path in arm_lists:
        for entry in arm_list.read(path):
            if entry["arm"] not in out:
                continue
            classifier = classifier_file.read(entry["classifier"])
            place = (classifier.repeat, classifier.fold)
            _check_unread(entry["classifier"], classifier, source, box)
            if (entry["arm"], *place) not in thresholds:
                raise UserError(
                    f"{thresholds_csv} has no threshold of arm {entry['arm']!r} in repeat {place[0]}, fold "
                    f"{place[1]}: delete it and run again"
                )
            out[entry["arm"]][place] = Member(entry["classifier"], classifier, thresholds[entry["arm"], *place])
    places = sorted({place for members in out.values() for place in members})
    for name, members in out.items():
        missing = [place for place in places if place not in members] or ([("none", "none")] if not members else [])
        if missing:
            raise UserError(f"arm {name!r} has no classifier of repeat {missing[0][0]}, fold {missing[0][1]}: train it")
    return {name: dict(sorted(members.items())) for name, members in out.items()}


def from_elsewhere(members: Members) -> bool:
    """Whether one of these arms rests on a network from elsewhere of which nobody knows what it has read."""
    records = (one.classifier.access_record for own in members.values() for one in own.values())
    return any(AccessRecord.from_json(text).unknown for text in records)


def read_thresholds(path: Path, names: list[str], classes: list[str]) -> dict[tuple[str, int, int], dict]:
    """(arm, repeat, fold) -> level -> thresholds (K,), as aggregate_metrics fitted them."""
    text = {"arm": str, "class": str, "level": str}
    table = pd.read_csv(path, dtype=text, keep_default_na=False)
    table = table[table["arm"].isin(names)]
    out: dict[tuple[str, int, int], dict[str, np.ndarray]] = {}
    for (arm, repeat, fold, level), rows in table.groupby(["arm", "repeat", "fold", "level"]):
        values = dict(zip(rows["class"], rows["threshold"].astype(float), strict=True))
        absent = [name for name in classes if name not in values]
        if absent:
            raise UserError(f"{path} has no threshold of arm {arm!r} for class {absent[0]!r}: run again")
        place = (str(arm), int(repeat), int(fold))
        out.setdefault(place, {})[str(level)] = np.array([values[name] for name in classes])
    return {place: levels for place, levels in out.items() if set(levels) >= set(LEVELS)}


def _check_unread(path: Path, classifier: Classifier, source: ImageSet, box: Box) -> None:
    """Refuse a classifier of another image set, and one that was fitted, selected or tuned on lockbox groups."""
    record = AccessRecord.from_json(classifier.access_record)
    if (classifier.classes, classifier.size, record.images) != (source.classes, source.size, source.digest):
        raise UserError(f"{path} was trained on another image set than {source.path}: run again")
    closed = np.isin(source.groups, source.groups[box.rows])
    for purpose in ("fit", "select", "threshold"):
        if closed[record.of(purpose)].any():
            raise UserError(
                f"{path} knows {int(closed[record.of(purpose)].sum())} images of lockbox groups (purpose "
                f"{purpose!r}): what it says of the lockbox means nothing"
            )


def predict(
    part: Part, channels: list[str], members: Members, device: torch.device
) -> dict[str, dict[str, list[Decided]]]:
    """level -> arm -> the lockbox rows as each of its classifiers scores them, with its thresholds."""
    _, groups = np.unique(part.groups.astype(str), return_inverse=True)
    labels = part.labels.astype(bool)
    out: dict[str, dict[str, list[Decided]]] = {level: {name: [] for name in members} for level in LEVELS}
    with Progress("classifiers", sum(len(own) for own in members.values())) as bar:
        for name, own in members.items():
            for (repeat, fold), member in own.items():
                pixels = select_channels(part.images, channels, member.classifier.channels)
                network = member.classifier.network(device)
                logits = classifier_file.predict(network, pixels, member.classifier.mean, member.classifier.std)
                if not np.isfinite(logits).all():
                    raise UserError(f"{member.path} answers with what is no number: its training diverged")
                scores = Scored(part.ids, part.groups, part.labels, logits).probabilities
                images = ScoredRows(scores, labels, groups)
                for level, rows in (("image", images), ("protein", per_protein(images))):
                    out[level][name].append(Decided(repeat, fold, rows, member.thresholds[level]))
                bar.update(sum(map(len, out["image"].values())))
    return out
