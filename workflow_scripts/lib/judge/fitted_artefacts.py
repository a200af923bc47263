"""Read what every artefact of a run was made from: generators, synthetic sets, classifiers, thresholds, replays."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open

from workflow_scripts.lib.base.errors import UserError, raise_if_passing
from workflow_scripts.lib.images.access_record import AccessRecord
from workflow_scripts.lib.images.image_set import ImageSet
from workflow_scripts.lib.scores import arm_list, prediction_file, stress_file

# Records of replay_study: its models, of which several are trained in one job.
REPLAYED = ".fitted.json"


@dataclass
class Artefact:
    """Something that was made from images: its name, the fold it belongs to, and what it was made from."""

    name: str
    repeat: int
    fold: int
    access_record: AccessRecord
    method: str = ""  # of an arm


def arm_files(paths: list[Path]) -> Iterator[Path]:
    """The predictions files that the lists of arms among these paths name."""
    for path in paths:
        if path.suffix == ".json" and not path.name.endswith(REPLAYED):
            for arm in arm_list.read(path):
                yield arm["predictions"]


def read_artefacts(paths: list[Path], thresholds: Path | None, ids: np.ndarray) -> Iterator[Artefact]:
    """Every artefact with its access record; classifiers by their predictions files."""
    for path in paths:
        if path.suffix == ".safetensors":
            yield to_artefact(f"generator {path.stem}", _metadata(path), path)
        elif stress_file.is_one(path):
            yield to_artefact("stress test", vars(stress_file.read(path, arms=())), path)
        elif path.suffix == ".h5":
            with ImageSet(path) as made:
                name = f"synthetic {path.stem}" if made.limits is None else "intensity limits"
                yield to_artefact(name, made.attrs, path)
        elif path.name.endswith(REPLAYED):
            for entry in replayed(path):
                yield to_artefact(str(entry.get("name")), entry, path)
    for path in arm_files(paths):
        arm = prediction_file.read_predictions(path, parts=())
        yield to_artefact(f"arm {arm.arm}", vars(arm), path, str(arm.settings.get("method", "")))
    if thresholds:
        at = {name: row for row, name in enumerate(ids)}
        for entry in read_threshold_record(thresholds):
            record = AccessRecord(str(entry["images"]), len(ids))
            unknown = [name for name in entry["ids"] if name not in at]
            if unknown:
                raise UserError(f"{thresholds} speaks of image {unknown[0]!r}, which the image set has not")
            record.record("threshold", [at[name] for name in entry["ids"]])
            regime = f" of {entry['regime']}" if "regime" in entry else ""
            yield Artefact(f"thresholds{regime}", int(entry["repeat"]), int(entry["fold"]), record)


def _metadata(path: Path) -> dict[str, str]:
    try:
        with safe_open(path, "np") as file:
            return file.metadata() or {}
    except (OSError, SafetensorError) as error:
        raise_if_passing(error)
        raise UserError(f"{path} is not a generator that can be read ({error}): delete it, run again") from None


def replayed(path: Path) -> list[dict[str, Any]]:
    """The models of a replay, with their access records."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))["fitted"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise_if_passing(error)
        raise UserError(f"{path} cannot be read ({error}): delete it and run again") from None


def read_threshold_record(thresholds: Path) -> list[dict[str, Any]]:
    """Per fold the images that thresholds were fitted on, from analysis.json."""
    try:
        return json.loads(thresholds.read_text(encoding="utf-8"))["thresholds_fitted_on"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise_if_passing(error)
        raise UserError(f"{thresholds} cannot be read ({error}): delete it and run again") from None


def to_artefact(name: str, about: dict[str, Any], path: Path, method: str = "") -> Artefact:
    """An artefact from what its file says about itself."""
    try:
        record = AccessRecord.from_json(str(about["access_record"]))
        return Artefact(name, int(about["repeat"]), int(about["fold"]), record, method)
    except (KeyError, ValueError) as error:
        raise UserError(f"{path} does not say what it was made from ({error}): delete it and run again") from None
