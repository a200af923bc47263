"""Folders of raw images for tests, and the stage run on them with the settings that the config would give it."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from PIL import Image

from workflow_scripts import preprocess_images as stage_program
from workflow_scripts.lib.images import known_datasets

ROOT = Path(__file__).resolve().parents[2]
DEFAULT = yaml.safe_load((ROOT / "config.yaml").read_text(encoding="utf-8"))


def settings(source: str = "folder", data: dict[str, Any] | None = None, **own: Any) -> dict[str, Any]:
    """The settings of the stage: the defaults, with changes to `data` and to `preprocess_images`."""
    known = copy.deepcopy(DEFAULT["data"]) | {"source": source} | (data or {})
    small = DEFAULT["preprocess_images"] | {"size": 8, "duplicates": 0, "channels": ["red", "green"]}
    return small | own | {"data": known_datasets.described(known), "threads": own.get("threads", 1)}


def noise(seed: int, side: int = 16) -> np.ndarray:
    """Random pixels uint8 (side, side)."""
    return np.random.default_rng(seed).integers(0, 256, (side, side), dtype=np.uint8)


def save(path: Path, pixels: np.ndarray) -> None:
    """Pixels as an image file of the format that the name says."""
    Image.fromarray(pixels).save(path)


def arguments(raw: Path, given: dict[str, Any], *more: str) -> list[str]:
    """The command line of the stage on raw/train and raw/train.csv."""
    return [
        "--images-dir", str(raw / "train"), "--table", str(raw / "train.csv"), "--out", str(raw / "out" / "images.h5"),
        "--left-out", str(raw / "out" / "left_out.csv"), "--settings", json.dumps(given),
        "--log", str(raw / "log.txt"), *more,
    ]  # fmt: skip


def run(raw: Path, given: dict[str, Any], *more: str) -> int:
    """Run the stage in this process."""
    return stage_program.main(arguments(raw, given, *more))
