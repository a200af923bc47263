"""A run of random weights in miniature: image set, roles, two classifiers of an arm, thresholds, tables."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from workflow_scripts.lib.classify import backbones, classifier_file
from workflow_scripts.lib.classify.classifier_file import Classifier
from workflow_scripts.lib.images.access_record import AccessRecord
from workflow_scripts.lib.images.image_set import ImageSet
from workflow_scripts.lib.images.image_set_writer import write_images
from workflow_scripts.lib.scores import decisions
from workflow_scripts.lib.split import role_table

CLASSES = ["Nucleus", "Golgi", "Cytosol"]
CHANNELS = ["red", "green"]
SIZE = 16
FOLDS = 2


class SmallRun:
    """Paths and contents of the run in a folder."""

    def __init__(self, folder: Path, images: int = 60) -> None:
        self.folder = folder
        rng = np.random.default_rng(0)
        self.ids = np.array([f"cell{number:03d}" for number in range(images)], dtype=object)
        self.groups = np.array([f"gene{number // 2:03d}" for number in range(images)], dtype=object)
        level = rng.integers(20, 120, (images, len(CHANNELS), 1, 1))
        self.images = (level + rng.integers(0, 40, (images, len(CHANNELS), SIZE, SIZE))).astype(np.uint8)
        self.labels = np.eye(len(CLASSES), dtype=np.uint8)[np.arange(images) % len(CLASSES)]
        with write_images(self.path("images.h5"), CHANNELS, CLASSES, SIZE, {"licence": "CC BY 4.0"}) as writer:
            writer.append(self.images, self.labels, list(self.ids), list(self.groups))
        cycle = np.array(["train", "train", "validation", "calibration", "test"], dtype=object)
        place = np.arange(images) // 2
        self.roles = np.stack([cycle[(place + fold) % 5] for fold in range(FOLDS)], axis=1)
        role_table.write(self.path("repeat0/folds.csv"), self.ids, self.groups, self.roles)
        for fold in range(FOLDS):
            self._classifier(fold)
        rows = ["arm,repeat,fold,level,class,threshold,pooled,positive_groups"]
        for fold in range(FOLDS):
            for level, value in (("image", 0.4), ("protein", 0.6)):
                rows += [f"pool,0,{fold},{level},{name},{value + fold / 10},False,9" for name in CLASSES]
        self.path("thresholds.csv").write_text("\n".join(rows) + "\n")

    def path(self, name: str) -> Path:
        """A file of the run."""
        return self.folder / name

    @property
    def arms(self) -> list[str]:
        """The lists of arms, as stages take them."""
        return [str(self.path(f"repeat0/fold{fold}/arms/job0.json")) for fold in range(FOLDS)]

    def _classifier(self, fold: int) -> None:
        with ImageSet(self.path("images.h5")) as source:
            record = AccessRecord(source.digest, len(source))
        record.record("fit", np.flatnonzero(self.roles[:, fold] == "train"))
        network = backbones.build("small", len(CHANNELS), len(CLASSES), SIZE, seed=fold)
        with torch.no_grad():
            network.head.weight.mul_(20)
        place = self.path(f"repeat0/fold{fold}/arms")
        mean, std = (torch.full((len(CHANNELS),), value) for value in (0.3 + fold / 10, 0.2))
        about = {"backbone": "small", "name": "pool", "method": "pool"}
        classifier_file.write(
            place / "pool" / "classifier.safetensors",
            Classifier(
                "pool", 0, fold, CLASSES, CHANNELS, SIZE, about, mean, std, network.state_dict(), record.to_json()
            ),
        )
        entry = {"arm": "pool", "classifier": "pool/classifier.safetensors"}
        (place / "job0.json").write_text(json.dumps({"arms": [entry]}))

    def probabilities(self, images: np.ndarray) -> np.ndarray:
        """Mean probabilities of the two classifiers, by a way of its own: (n, K)."""
        out = []
        for fold in range(FOLDS):
            made = classifier_file.read(self.path(f"repeat0/fold{fold}/arms/pool/classifier.safetensors"))
            pixels = torch.tensor(images, dtype=torch.float32) / 255
            with torch.no_grad():
                network = made.network(torch.device("cpu"))
                logits = network.head(network.features(classifier_file.standardise(pixels, made.mean, made.std)))
            out.append(decisions.probabilities(logits.numpy()))
        return np.mean(out, axis=0)


def save_images(folder: Path, ids: list[str], images: np.ndarray) -> None:
    """Images (n, C, s, s) as a PNG file for each channel."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, image in zip(ids, images, strict=True):
        for channel, plane in zip(CHANNELS, image, strict=True):
            Image.fromarray(plane).save(folder / f"{name}_{channel}.png")


def rows(path: Path) -> list[dict[str, str]]:
    """The rows of a CSV table."""
    with path.open(newline="", encoding="utf-8") as handle:
        return list(csv.DictReader(handle))
