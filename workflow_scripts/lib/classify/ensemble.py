"""Ensemble of the classifiers of one arm: mean probabilities over folds and repeats, and the classes they predict.

Its classes have the numbers of the competition, as a submission to Kaggle needs them."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from workflow_scripts.lib.base import stage
from workflow_scripts.lib.base.errors import UserError
from workflow_scripts.lib.classify import classifier_file
from workflow_scripts.lib.classify.backbones import Backbone
from workflow_scripts.lib.classify.classifier_file import Classifier
from workflow_scripts.lib.compute import device
from workflow_scripts.lib.images import user_tables
from workflow_scripts.lib.images.image_set import select_channels
from workflow_scripts.lib.images.read_image import Reader
from workflow_scripts.lib.scores import arm_list, decisions

LEVEL = "image"  # of the thresholds: a submission has one row an image


@dataclass
class Ensemble:
    """The classifiers of one arm, whose probabilities are averaged."""

    members: list[Classifier]
    networks: list[Backbone]
    channels: list[str]  # of the images; an arm may see some of them alone
    thresholds: np.ndarray  # (K,)
    numbers: list[int]  # of the classes, as the competition has them

    def probabilities(self, images: np.ndarray) -> np.ndarray:
        """Mean probabilities float64 (n, K) of images uint8 (n, C, H, W)."""
        total = np.zeros((len(images), len(self.numbers)))
        seen = select_channels(images, self.channels, self.members[0].channels)
        for member, network in zip(self.members, self.networks, strict=True):
            logits = classifier_file.predict(network, seen, member.mean, member.std)
            total += decisions.probabilities(logits)
        return total / len(self.members)

    def predicted(self, probabilities: np.ndarray) -> str:
        """The numbers of the predicted classes of one image."""
        (decided,) = decisions.at_least_one(probabilities[None] >= self.thresholds, probabilities[None])
        chosen = np.flatnonzero(decided)
        return " ".join(map(str, sorted(self.numbers[index] for index in chosen)))


def load(args: argparse.Namespace, reader: Reader) -> Ensemble:
    """The classifiers of one arm in all folds, with thresholds averaged over them.

    `args` are those of write_submission. Classes are numbered as in its table or settings."""
    name, data = args.settings["arm"], args.settings["preprocess_images"]["data"]
    members = [
        classifier_file.read(entry["classifier"])
        for manifest in args.arms
        for entry in arm_list.read(manifest)
        if entry["arm"] == name
    ]
    if not members:
        raise UserError(f"write_submission.arm = {name!r}: no list of arms has it")
    first = members[0]
    for member in members:
        alike = (member.classes, member.channels, member.size) == (first.classes, first.channels, reader.size)
        if not alike or not set(member.channels) <= set(reader.channels):
            raise UserError(
                f"the classifier of repeat {member.repeat}, fold {member.fold} was trained on other classes, channels "
                "or sizes than the settings have: run again, so that all are trained alike"
            )
    names = user_tables.read_classes(args.classes) if args.classes else list(data["class_names"] or [])
    unknown = [label for label in first.classes if label not in names]
    if unknown:
        raise UserError(
            f"the class {unknown[0]!r} has no number in the competition: a submission needs its classes as they are, "
            "without data.label_map"
        )
    where = device.device()
    networks = [member.network(where) for member in members]
    stage.log.info("arm %s: %d classifiers, %s", name, len(members), device.describe(where))
    means = mean_thresholds(args.thresholds, name, first.classes)
    return Ensemble(members, networks, list(reader.channels), means, [names.index(label) for label in first.classes])


def mean_thresholds(path: Path, arm: str, classes: list[str]) -> np.ndarray:
    """The threshold of each class (K,), averaged over the folds and repeats of an arm."""
    table = user_tables.read_table(path)
    rows: dict[str, list[float]] = {name: [] for name in classes}
    columns = (table.need(name) for name in ("arm", "level", "class", "threshold"))
    for trained, level, name, threshold in zip(*columns, strict=True):
        if trained == arm and level == LEVEL and name in rows:
            rows[name].append(float(threshold))
    absent = [name for name, values in rows.items() if not values]
    if absent:
        raise UserError(f"{path} has no threshold of arm {arm!r} for class {absent[0]!r}: delete it and run again")
    return np.array([np.mean(values) for values in rows.values()])
