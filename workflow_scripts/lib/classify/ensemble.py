"""Ensemble of the classifiers of one arm: mean probabilities over folds and repeats, and the classes they predict."""

from __future__ import annotations

from collections.abc import Sequence
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

IMAGE, PROTEIN = "image", "protein"  # levels of thresholds


@dataclass
class Ensemble:
    """The classifiers of one arm, whose probabilities are averaged."""

    members: list[Classifier]
    networks: list[Backbone]
    channels: list[str]  # of the images; an arm may see some of them alone
    thresholds: np.ndarray  # (K,), at the level of images

    @property
    def classes(self) -> list[str]:
        """Names of the classes, in the order of the probabilities."""
        return self.members[0].classes

    def probabilities(self, images: np.ndarray) -> np.ndarray:
        """Mean probabilities float64 (n, K) of images uint8 (n, C, H, W)."""
        total = np.zeros((len(images), len(self.classes)))
        seen = select_channels(images, self.channels, self.members[0].channels)
        for member, network in zip(self.members, self.networks, strict=True):
            logits = classifier_file.predict(network, seen, member.mean, member.std)
            total += decisions.probabilities(logits)
        return total / len(self.members)


def decided(probabilities: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
    """Predicted classes bool (n, K); an image that reaches no threshold gets its most probable class."""
    return decisions.at_least_one(probabilities >= thresholds, probabilities)


def members_of(manifests: Sequence[Path], arm: str, asked: str) -> list[Classifier]:
    """The classifiers of an arm in all folds and repeats, checked to be alike; `asked` is the key that names it."""
    members = [
        classifier_file.read(entry["classifier"])
        for manifest in manifests
        for entry in arm_list.read(manifest)
        if entry["arm"] == arm
    ]
    if not members:
        raise UserError(f"{asked} = {arm!r}: no list of arms has it")
    first = members[0]
    for member in members:
        if (member.classes, member.channels, member.size) != (first.classes, first.channels, first.size):
            raise _unlike(member)
    return members


def _unlike(member: Classifier) -> UserError:
    return UserError(
        f"the classifier of repeat {member.repeat}, fold {member.fold} was trained on other classes, channels "
        "or sizes than the settings have: run again, so that all are trained alike"
    )


def load(manifests: Sequence[Path], thresholds: Path, arm: str, reader: Reader, asked: str) -> Ensemble:
    """The ensemble of one arm, for images as the reader gives them."""
    members = members_of(manifests, arm, asked)
    if members[0].size != reader.size or not set(members[0].channels) <= set(reader.channels):
        raise _unlike(members[0])
    where = device.device()
    networks = [member.network(where) for member in members]
    stage.log.info("arm %s: %d classifiers, %s", arm, len(members), device.describe(where))
    return Ensemble(
        members, networks, list(reader.channels), mean_thresholds(thresholds, arm, members[0].classes, IMAGE)
    )


def mean_thresholds(path: Path, arm: str, classes: list[str], level: str) -> np.ndarray:
    """The threshold of each class (K,) at a level, averaged over the folds and repeats of an arm."""
    table = user_tables.read_table(path)
    rows: dict[str, list[float]] = {name: [] for name in classes}
    columns = (table.need(name) for name in ("arm", "level", "class", "threshold"))
    for trained, own, name, threshold in zip(*columns, strict=True):
        if trained == arm and own == level and name in rows:
            rows[name].append(float(threshold))
    absent = [name for name, values in rows.items() if not values]
    if absent:
        raise UserError(f"{path} has no threshold of arm {arm!r} for class {absent[0]!r}: delete it and run again")
    return np.array([np.mean(values) for values in rows.values()])
