"""Predictions of an arm for new images: probabilities, likeness to the training images, and the tables of both."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from workflow_scripts.lib.base.errors import UserError
from workflow_scripts.lib.classify import ensemble
from workflow_scripts.lib.classify.classifier_file import Classifier
from workflow_scripts.lib.fidelity import encoders
from workflow_scripts.lib.fidelity.encoders import Encoder
from workflow_scripts.lib.fidelity.likeness import Likeness, thinned
from workflow_scripts.lib.images.access_record import AccessRecord
from workflow_scripts.lib.images.image_set import ImageSet
from workflow_scripts.lib.images.read_image import Reader
from workflow_scripts.lib.scores import decisions
from workflow_scripts.lib.split import role_table
from workflow_scripts.lib.split.roles import Role


class Predictor:
    """The classifiers of an arm, and what each knows of the images that it was trained on."""

    def __init__(
        self, members: Sequence[Classifier], source: ImageSet, tables: dict[int, Path], reader: Reader
    ) -> None:
        first = members[0]
        self.classes = first.classes
        if first.size != reader.size or source.channels != reader.channels or source.classes != first.classes:
            raise UserError(
                f"{source.path} and the classifiers have other classes, channels or sizes than the settings: run again"
            )
        self._members: list[tuple[Encoder, Likeness]] = []
        for member in members:
            record = AccessRecord.from_json(member.access_record)
            if record.images != source.digest:
                raise UserError(
                    f"the classifier of repeat {member.repeat}, fold {member.fold} was trained on other images than "
                    f"{source.path} has: run again"
                )
            encoder = encoders.of_classifier(member, f"arm {member.arm}", source.channels)
            known = thinned(record.of("fit"))
            # Calibration images, and never test images, say how far real images are from the training images.
            rows = role_table.rows(tables[member.repeat], member.fold, source.ids, Role.CALIBRATION)
            features = [
                encoder.encode(source.read(part, "inspect", labels=False).images) for part in (known, thinned(rows))
            ]
            self._members.append((encoder, Likeness(*features)))
        self._own = {
            _digest(image)
            for start in range(0, len(source), 1024)
            for image in source.read(np.arange(start, min(start + 1024, len(source))), "inspect", labels=False).images
        }

    def answer(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Probabilities (n, K), ranks of unlikeness (n,), and whether the run has the image itself, bool (n,)."""
        probabilities, ranks = np.zeros((len(images), len(self.classes))), np.zeros(len(images))
        for encoder, likeness in self._members:
            features = encoder.encode(images)
            probabilities += decisions.probabilities(encoder.decide(features))
            ranks += likeness.rank(features)
        count = len(self._members)
        return probabilities / count, ranks / count, np.array([_digest(image) in self._own for image in images])


def _digest(image: np.ndarray) -> bytes:
    return hashlib.blake2b(np.ascontiguousarray(image), digest_size=16).digest()


@dataclass
class Answers:
    """What a predictor said of all images, in their order."""

    classes: list[str]
    ids: list[str] = field(default_factory=list)
    probabilities: list[np.ndarray] = field(default_factory=list)
    ranks: list[float] = field(default_factory=list)
    in_run: list[bool] = field(default_factory=list)

    def add(self, ids: Sequence[str], probabilities: np.ndarray, ranks: np.ndarray, in_run: np.ndarray) -> None:
        """Append a block of images."""
        self.ids += ids
        self.probabilities += list(probabilities)
        self.ranks += ranks.tolist()
        self.in_run += in_run.tolist()

    def matrix(self) -> np.ndarray:
        """Probabilities (n, K)."""
        return np.array(self.probabilities).reshape(len(self.ids), len(self.classes))


def write_images(path: Path, answers: Answers, groups: dict[str, str], cuts: np.ndarray, unlike: float) -> None:
    """Write a row for each image."""
    matrix = answers.matrix()
    table = pd.DataFrame({"Id": answers.ids, "labels": _labels(matrix, cuts, answers.classes)})
    if groups:
        table["group"] = [groups[name] for name in answers.ids]
    table["unlike_training"] = [int(rank >= unlike) for rank in answers.ranks]
    table["farther_than"] = answers.ranks
    table["in_run"] = [int(known) for known in answers.in_run]
    _write(path, table, matrix, answers.classes)


def write_groups(path: Path, answers: Answers, groups: dict[str, str], cuts: np.ndarray) -> None:
    """Write a row for each group: the mean of the probabilities of its images, decided by thresholds of its level."""
    owners = np.array([groups[name] for name in answers.ids] if groups else [], dtype=object)
    names, place, counts = np.unique(owners, return_inverse=True, return_counts=True)
    means = np.zeros((len(names), len(answers.classes)))
    if len(names):
        np.add.at(means, place, answers.matrix())
        means /= counts[:, None]
    table = pd.DataFrame({"group": names, "labels": _labels(means, cuts, answers.classes), "images": counts})
    _write(path, table, means, answers.classes)


def _labels(probabilities: np.ndarray, cuts: np.ndarray, classes: list[str]) -> list[str]:
    chosen = ensemble.decided(probabilities, cuts) if len(probabilities) else []
    return ["|".join(name for name, own in zip(classes, row, strict=True) if own) for row in chosen]


def _write(path: Path, table: pd.DataFrame, probabilities: np.ndarray, classes: list[str]) -> None:
    shown = pd.DataFrame(probabilities, columns=[f"p {name}" for name in classes], index=table.index)
    pd.concat([table, shown], axis=1).to_csv(path, index=False, float_format="%.6g", lineterminator="\n")


def describe(
    answers: Answers, arm: str, members: Sequence[Classifier], cuts: dict[str, np.ndarray], unlike: float
) -> dict[str, Any]:
    """Facts and warnings about the predictions, for people and programs."""
    count, far, own = len(answers.ids), sum(rank >= unlike for rank in answers.ranks), sum(answers.in_run)
    warnings = []
    if far > max(1.0, 3 * (1 - unlike) * count):
        warnings.append(
            f"{far} of {count} images are unlike the training images; of images like those of the run about "
            f"{(1 - unlike) * count:.0f} would be. Labels of such images cannot be trusted"
        )
    if own:
        warnings.append(f"{own} of {count} images are images of the run itself: what is said of them is too good")
    return {
        "arm": arm,
        "classifiers": [{"repeat": member.repeat, "fold": member.fold} for member in members],
        "classes": answers.classes,
        "thresholds": {level: [round(float(cut), 9) for cut in row] for level, row in cuts.items()},
        "images": count,
        "unlike_training": far,
        "in_run": own,
        "unlike_from": unlike,
        "warnings": warnings,
    }
