"""Predictions of an arm: the one module that knows the layout of predictions.h5.

test, calibration, validation   groups with ids, groups (text), labels uint8 (n, K), logits float32 (n, K)
unlabelled                      likewise, of the baseline of a label regime; labels are 0, because nobody knows them
history                         one dataset a quantity, such as step, loss, validation_map
attributes                      classes, arm, repeat, fold, images (digest of the image set), access_record,
                                settings (JSON), digest, and numbers such as seconds, images_seen, best_step"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from workflow_scripts.lib.base.errors import UserError, raise_if_passing
from workflow_scripts.lib.base.files import atomic
from workflow_scripts.lib.images.image_set_layout import array
from workflow_scripts.lib.scores.decisions import probabilities

FORMAT_VERSION = 1
PARTS = ("validation", "calibration", "test")
UNLABELLED = "unlabelled"
TEXT = h5py.string_dtype("utf-8")


@dataclass
class Scored:
    """Predictions of an arm for one part of a fold, image by image."""

    ids: np.ndarray  # str (n,)
    groups: np.ndarray  # str (n,)
    labels: np.ndarray  # uint8 (n, K)
    logits: np.ndarray  # float32 (n, K)

    def __post_init__(self) -> None:
        self.ids, self.groups = np.asarray(self.ids, dtype=object), np.asarray(self.groups, dtype=object)
        self.labels = np.asarray(self.labels, dtype=np.uint8)
        self.logits = np.asarray(self.logits, dtype=np.float32)
        if self.labels.ndim != 2 or self.labels.shape != self.logits.shape:
            raise ValueError(f"labels {self.labels.shape} and logits {self.logits.shape} must be one (n, K) shape")
        if len(self.ids) != len(self.labels) or len(self.groups) != len(self.labels):
            raise ValueError(f"{len(self.ids)} ids and {len(self.groups)} groups for {len(self.labels)} rows of labels")

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def probabilities(self) -> np.ndarray:
        """Sigmoid of the logits, float64 (n, K)."""
        return probabilities(self.logits)


@dataclass
class Predictions:
    """All predictions of one arm in one fold, with the history of its training."""

    classes: list[str]
    arm: str
    repeat: int
    fold: int
    parts: dict[str, Scored]  # validation, calibration, test, and perhaps unlabelled
    history: dict[str, np.ndarray] = field(default_factory=dict)  # quantity -> (checkpoints,) or (steps,)
    settings: dict[str, Any] = field(default_factory=dict)  # what the arm was trained with
    images: str = ""  # digest of the image set
    access_record: str = ""  # AccessRecord.to_json(): what the classifier was fitted and selected on
    digest: str = ""  # of the arm's settings, inputs and code
    numbers: dict[str, float] = field(
        default_factory=dict
    )  # seconds, images_seen, real_seen, synthetic_seen, best_step ...


def write_predictions(path: Path, predictions: Predictions) -> None:
    """Write a predictions file atomically."""
    for name, part in predictions.parts.items():
        if name not in (*PARTS, UNLABELLED):
            raise ValueError(f"unknown part {name!r}: one of {', '.join(PARTS)}")
        if part.labels.shape[1] != len(predictions.classes):
            raise ValueError(f"{part.labels.shape[1]} columns of labels for {len(predictions.classes)} classes")
    with atomic(Path(path)) as temporary, h5py.File(temporary, "w") as file:
        for name, part in sorted(predictions.parts.items()):
            group = file.create_group(name)
            group.create_dataset("ids", data=part.ids, dtype=TEXT)
            group.create_dataset("groups", data=part.groups, dtype=TEXT)
            group.create_dataset("labels", data=part.labels)
            group.create_dataset("logits", data=part.logits)
        history = file.create_group("history")
        for name, values in sorted(predictions.history.items()):
            history.create_dataset(name, data=np.asarray(values))
        attributes = file.attrs
        attributes["format_version"] = FORMAT_VERSION
        attributes["classes"] = json.dumps(list(predictions.classes))
        attributes["settings"] = json.dumps(predictions.settings, sort_keys=True)
        attributes["numbers"] = json.dumps(sorted(predictions.numbers))
        for name in ("arm", "repeat", "fold", "images", "access_record", "digest"):
            attributes[name] = getattr(predictions, name)
        for name, value in predictions.numbers.items():
            attributes[name] = value


def read_predictions(path: Path, parts: tuple[str, ...] = PARTS) -> Predictions:
    """Read a predictions file, or some of its parts; UserError where it is a file of another kind."""
    try:
        with h5py.File(path, "r") as file:
            attributes = file.attrs
            if attributes.get("format_version") != FORMAT_VERSION:
                raise UserError(f"{path} is not a predictions file of format {FORMAT_VERSION}: delete it and run again")
            missing = [name for name in parts if name not in file]
            if missing:
                raise UserError(f"{path} has no {missing[0]} part: delete it and run again")
            return Predictions(
                classes=json.loads(attributes["classes"]),
                arm=str(attributes["arm"]),
                repeat=int(attributes["repeat"]),
                fold=int(attributes["fold"]),
                parts={name: _read_part(file, name) for name in parts},
                history={name: data[:] for name, data in file["history"].items()},
                settings=json.loads(attributes["settings"]),
                images=str(attributes["images"]),
                access_record=str(attributes["access_record"]),
                digest=str(attributes["digest"]),
                numbers={name: attributes[name].item() for name in json.loads(attributes["numbers"])},
            )
    except (OSError, KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        raise_if_passing(error)
        raise UserError(f"{path} is not a predictions file that can be read ({error}): delete it, run again") from None


def read_digest(path: Path) -> str:
    """Digest with which a finished arm was written; empty where there is no readable file of this format."""
    try:
        with h5py.File(path, "r") as file:
            return str(file.attrs["digest"]) if file.attrs.get("format_version") == FORMAT_VERSION else ""
    except (OSError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise_if_passing(error)
        return ""


def _read_part(file: h5py.File, part: str) -> Scored:
    ids, groups = (array(file, f"{part}/{name}", 1).asstr()[:] for name in ("ids", "groups"))
    labels, logits = array(file, f"{part}/labels", 2, np.uint8), array(file, f"{part}/logits", 2, np.float32)
    return Scored(ids, groups, labels[:], logits[:])
