"""tabulate_study: the reference study's table, validation against test for each model, with the published numbers.

The study (Lin & Cao 2025, arXiv 2505.22926) reports macro-F1 at the decision threshold 0.5, with the most probable
class where none passes, for the last and the best epoch on validation, and on the hidden test set. This stage reads the
same quantities off the arms of a run, averaged over folds and repeats, beside what was published, where it was.

Example:
    python -m workflow_scripts.tabulate_study --arms repeat0/fold0/arms/batch0.json --out study.csv --settings '{}'
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from workflow_scripts.lib import metrics, predictions, stage
from workflow_scripts.lib.files import atomic
from workflow_scripts.lib.predictions import Scored

# Macro-F1 on validation, last and best epoch, and on the public test set: the authors' notebooks (GitHub
# sylvey/MixDiffusion) and, for the test score, a third-party note on the best CNN. Absent: not published.
PUBLISHED = {
    ("real_only", "resnet18", "bce"): (0.640, 0.648, 0.457),
    ("real_only", "resnet34", "bce"): (0.620, 0.633, None),
    ("mix_representation", "resnet18", "bce"): (0.325, 0.339, None),
    ("mix_loss", "resnet34", "bce"): (0.295, 0.319, None),
    ("mix_loss", "resnet18", "bce"): (0.245, None, None),
}
MEASURED = ("validation_last", "validation_best", "validation", "test")


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    out = stage.parser(__doc__)
    out.add_argument("--arms", type=Path, nargs="+", required=True, help="lists of arms (JSON)")
    out.add_argument("--out", type=Path, required=True, help="the table to write")
    return out.parse_args(argv)


def tabulate_study(arms: list[Path], out: Path) -> None:
    """Write the table: a row an arm."""
    found: dict[str, list[dict[str, float]]] = {}
    described: dict[str, dict[str, Any]] = {}
    for listing in arms:
        for entry in json.loads(listing.read_text(encoding="utf-8"))["arms"]:
            arm = predictions.read_predictions(listing.parent / entry["predictions"], ("validation", "test"))
            described[arm.strategy] = arm.settings
            found.setdefault(arm.strategy, []).append(_scores(arm))
    rows = []
    for name, scores in found.items():
        settings = described[name]
        last, best, test = PUBLISHED.get((settings["method"], settings["backbone"], settings["loss"]), (None,) * 3)
        row = {"strategy": name} | {key: settings[key] for key in ("method", "backbone", "loss")}
        row |= {key: float(np.mean([fold[key] for fold in scores])) for key in MEASURED}
        row["gap"] = row["validation"] - row["test"]
        published = {"published_validation_last": last, "published_validation_best": best, "published_test": test}
        rows.append(row | {key: "not published" if value is None else value for key, value in published.items()})
    with atomic(out) as part:
        pd.DataFrame(rows).to_csv(part, index=False, float_format="%.4f")
    stage.log.info("%d models", len(rows))


def _scores(arm: predictions.Predictions) -> dict[str, float]:
    history = arm.history["validation_macro_f1"]
    return {
        # While training: at the plain threshold, epoch by epoch.
        "validation_last": float(history[-1]),
        "validation_best": float(history.max()),
        # Of the checkpoint that was kept: decided the study's way.
        "validation": study_f1(arm.parts["validation"]),
        "test": study_f1(arm.parts["test"]),
    }


def study_f1(part: Scored) -> float:
    """Macro-F1 at 0.5, with the most probable class where none passes, over the classes that occur in the part."""
    decided = part.probabilities >= 0.5
    none = ~decided.any(axis=1)
    decided[none, part.logits[none].argmax(axis=1)] = True
    truth = part.labels.astype(bool)
    values = metrics.f1_score((decided & truth).sum(0), decided.sum(0), truth.sum(0))
    return float(values[truth.any(axis=0)].mean())


def main(argv: list[str] | None = None) -> int:
    """The program."""
    args = parse_args(argv)
    return stage.run("tabulate_study", args, lambda: tabulate_study(args.arms, args.out))


if __name__ == "__main__":
    sys.exit(main())
