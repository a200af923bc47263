"""Answers under stress: the one module that knows the layout of stress.h5.

ids, groups          of the test images of a fold (text)
arms/{arm}           logits float32 (conditions, n, K); its attribute `digest` is that of the arm's predictions
attributes           repeat, fold, images (digest of the image set), access_record, conditions (JSON: name and level)"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

import h5py
import numpy as np

from workflow_scripts.lib.base.errors import UserError, raise_if_passing
from workflow_scripts.lib.base.files import atomic
from workflow_scripts.lib.images.image_set import array
from workflow_scripts.lib.scores.prediction_file import TEXT

FORMAT_VERSION = 1
NAME = "stress.h5"  # of the file, in every fold
SETS = "synthetic"  # name of the folder of synthetic sets, of which one may be called stress


@dataclass
class Stress:
    """What the arms of a fold answer for its test images under every condition."""

    repeat: int
    fold: int
    images: str  # digest of the image set
    access_record: str  # AccessRecord.to_json(): what was read, and for what
    conditions: list[tuple[str, int]]  # corruption and level
    ids: np.ndarray  # str (n,)
    groups: np.ndarray  # str (n,)
    digests: dict[str, str] = field(default_factory=dict)  # arm -> digest of its predictions
    logits: dict[str, np.ndarray] = field(default_factory=dict)  # arm -> float32 (conditions, n, K)


def is_one(path: Path) -> bool:
    """Whether a file of a fold has answers under stress, by its place."""
    return path.name == NAME and path.parent.name != SETS


def write(path: Path, stress: Stress) -> None:
    """Write the file atomically."""
    with atomic(path) as part, h5py.File(part, "w") as file:
        for name in ("ids", "groups"):
            file.create_dataset(name, data=np.asarray(getattr(stress, name), dtype=object), dtype=TEXT)
        arms = file.create_group("arms")
        for arm, logits in stress.logits.items():
            made = arms.create_dataset(arm, data=np.asarray(logits, dtype=np.float32))
            made.attrs["digest"] = stress.digests[arm]
        for name in ("repeat", "fold", "images", "access_record"):
            file.attrs[name] = getattr(stress, name)
        file.attrs["conditions"] = json.dumps(stress.conditions)
        file.attrs["format_version"] = FORMAT_VERSION


def read(path: Path, arms: tuple[str, ...] | None = None) -> Stress:
    """Read the file with the logits of some arms (None: of all); UserError where it is a file of another kind."""
    try:
        with h5py.File(path, "r") as file:
            about = file.attrs
            if about.get("format_version") != FORMAT_VERSION:
                raise UserError(f"{path} has no answers under stress of format {FORMAT_VERSION}: delete it, run again")
            held = list(file["arms"])
            missing = [name for name in arms or () if name not in held]
            if missing:
                raise UserError(f"{path} has no answers of the arm {missing[0]!r}: delete it and run again")
            wanted = held if arms is None else arms
            return Stress(
                repeat=int(about["repeat"]),
                fold=int(about["fold"]),
                images=str(about["images"]),
                access_record=str(about["access_record"]),
                conditions=[(str(name), int(level)) for name, level in json.loads(about["conditions"])],
                ids=array(file, "ids", 1).asstr()[:],
                groups=array(file, "groups", 1).asstr()[:],
                digests={name: str(file[f"arms/{name}"].attrs["digest"]) for name in held},
                logits={name: array(file, f"arms/{name}", 3, np.float32)[:] for name in wanted},
            )
    except (OSError, KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        raise_if_passing(error)
        raise UserError(f"{path} cannot be read as answers under stress ({error}): delete it and run again") from None
