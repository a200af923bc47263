"""The measured error rate of the judge: its record, and whether that is of the present code.

`python -m benchmarks.judge_calibration` writes the record from worlds without an effect."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from workflow_scripts.lib.base import source_code

RECORD = "benchmarks/judge_calibration.json"
MODULES = ("judge/comparisons", "judge/inference", "judge/scoring", "judge/thresholds", "judge/training_variance")
MODULES += ("scores/f1", "scores/ranking_metrics")
JUDGE = tuple(f"workflow_scripts/lib/{name}.py" for name in MODULES)


def read(root: Path) -> dict[str, Any] | None:
    """The record of the checkout at `root`, None where there is none."""
    path = root / RECORD
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def judge_digest(root: Path) -> str:
    """Digest of the code that decides the verdict about an arm."""
    return source_code.digest(root / name for name in JUDGE)
