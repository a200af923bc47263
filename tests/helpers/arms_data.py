"""A tiny fold on disk that a classifier can learn, and the settings to train on it in about a second."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from workflow_scripts.lib.classify import arm_choices
from workflow_scripts.lib.images.access_record import AccessRecord
from workflow_scripts.lib.images.image_set import ImageSet
from workflow_scripts.lib.images.image_set_writer import write_images
from workflow_scripts.lib.split import role_table

CLASSES, CHANNELS, SIZE = ["left", "right", "top"], ["red", "green"], 16
ROLES = ("train", "train", "validation", "calibration", "test")

SECTION = {
    "backbone": "small", "weights": None, "frozen": False, "loss": "bce", "channels": None, "sampling": "each_once",
    "steps": 12, "batch": 8, "learning_rate": 0.01, "weight_decay": 0.01, "warmup": 0.2, "checkpoints": 3,
    "budget": 1, "real_fraction": 1,
    "ratio": 1.0, "alpha": 0.3, "pretrain": 0.3, "keep": 0.5, "trust": 0.5, "robustness": 0.7, "blend": "union",
    "confidence": 0.9, "weaker": 0.5, "column": "plate", "scoring": {"levels": [0.5, 1.0], "draws": 2},
    "losses": {
        "focal": {"gamma": 2.0}, "asymmetric": {"gamma_positive": 0.0, "gamma_negative": 4.0, "clip": 0.05},
        "class_balanced": {"beta": 0.99}, "reweighted": {"limit": 5.0}, "arcface": {"scale": 30.0, "margin": 0.5},
    },
    "augment": {"turn": False, "flip": False, "scale": [0.8, 1.0], "aspect": [0.9, 1.1], "intensity": 0.1},
    "strong": {"scale": [0.4, 1.0], "aspect": [0.7, 1.4], "intensity": 0.4, "erase": 0.5},
}  # fmt: skip

# An arm of every method, by its name; those that need a synthetic set or a generator name "p" or "g".
ENTRIES = {
    name: {"name": name, "method": name}
    | ({"synthetic_set": "p"} if method.needs_set else {})
    | ({"generator": "g"} if method.generator else {})
    for name, method in arm_choices.METHODS.items()
}


def cells(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Images uint8 (n, 2, 16, 16) in which each label is a bright side."""
    rng = np.random.default_rng(seed)
    labels = (rng.random((count, 3)) < 0.4).astype(np.uint8)
    images = rng.integers(0, 60, (count, 2, SIZE, SIZE))
    images[:, 1, :, :6] += 120 * labels[:, 0, None, None]
    images[:, 1, :, -6:] += 120 * labels[:, 1, None, None]
    images[:, 0, :6, :] += 120 * labels[:, 2, None, None]
    return images.clip(0, 255).astype(np.uint8), labels


def write_fold(folder: Path, count: int = 100) -> dict[str, Path]:
    """images.h5, folds.csv (fold 0) and syn.h5, whose generator was fitted on the train part."""
    paths = {"images": folder / "images.h5", "folds": folder / "folds.csv", "synthetic": folder / "syn.h5"}
    images, labels = cells(count, 1)
    groups = [f"g{index // 5}" for index in range(count)]
    roles = np.array([[ROLES[index // 5 % 5]] for index in range(count)], dtype=object)
    with write_images(paths["images"], CHANNELS, CLASSES, SIZE, {"source": "test"}) as writer:
        writer.append(images, labels, [f"i{index:03d}" for index in range(count)], groups)
    with ImageSet(paths["images"]) as source:
        role_table.write(paths["folds"], source.ids, source.groups, roles)
        record = AccessRecord(source.digest, count)
    record.record("fit", np.flatnonzero(roles[:, 0] == "train")[:7])
    images, labels = cells(30, 2)
    with write_images(paths["synthetic"], CHANNELS, CLASSES, SIZE, {"access_record": record.to_json()}) as writer:
        writer.append(images, labels, [f"syn-{index}" for index in range(30)], ["synthetic"] * 30)
    return paths
