"""tabulate_study: the reference study's table, validation against test for each model, with the published numbers.

The study (Lin & Cao 2025, arXiv 2505.22926) reports macro-F1 at the decision threshold 0.5; where no class passes it,
the most probable one is taken. It does so for the last and the best epoch, on validation and on the hidden test set.
This stage computes
the same quantities from the arms of a run, averaged over folds and repeats. Published values stand beside them.

Example:
    python -m workflow_scripts.tabulate_study --arms repeat0/fold0/arms/job0.json --out study.csv --settings '{}'
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from workflow_scripts.lib.base import arguments, stage
from workflow_scripts.lib.base.files import atomic
from workflow_scripts.lib.classify import validation_scores
from workflow_scripts.lib.judge.fold_scores import ScoredRows
from workflow_scripts.lib.judge.thresholds import Rule, fit_thresholds
from workflow_scripts.lib.scores import arm_list, prediction_file
from workflow_scripts.lib.scores.prediction_file import Scored

# Macro-F1 on validation, last and best epoch, in the authors' notebooks (GitHub sylvey/MixDiffusion).
PUBLISHED = {
    ("real_only", "resnet18", "bce"): (0.640, 0.648),
    ("real_only", "resnet34", "bce"): (0.620, 0.633),
    ("real_only", "resnet18", "focal"): (0.633, 0.640),
    ("real_only", "resnet34", "arcface"): (0.426, 0.431),
    ("real_only", "swin_b", "bce"): (0.647, None),
    ("real_only", "vit_b_16", "bce"): (0.421, None),
    ("mix_representation", "resnet18", "bce"): (0.325, 0.339),
    ("mix_loss", "resnet34", "bce"): (0.295, 0.319),
    ("mix_loss", "resnet18", "bce"): (0.245, None),
}
# Test scores are known from a third party's note alone, for kinds of networks: plain CNNs, and transformers.
BEST_CNN = "0.457, of the best CNN (its validation: 0.638; third-party note)"
TRANSFORMERS = "0.018 to 0.18, of Swin and ViT (their validation: 0.42 to 0.65; third-party note)"
# Of these the study tuned a threshold for each class on the validation part that it reports.
TUNED = ("vit_b_16", "swin_b")
MEASURED = ("validation_last", "validation_best", "validation", "test")


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    out = arguments.parser(__doc__)
    out.add_argument("--arms", type=Path, nargs="+", required=True, help="lists of arms (JSON)")
    out.add_argument("--out", type=Path, required=True, help="the table to write")
    return out.parse_args(argv)


def tabulate_study(arms: list[Path], out: Path) -> None:
    """Write the table: a row an arm."""
    numbers: dict[str, list[dict[str, float]]] = {}
    described: dict[str, dict[str, Any]] = {}
    for listing in arms:
        for entry in arm_list.read(listing):
            arm = prediction_file.read_predictions(entry["predictions"], ("validation", "test"))
            described[arm.arm] = arm.settings
            numbers.setdefault(arm.arm, []).append(_scores(arm))
    rows = []
    for name, scores in numbers.items():
        settings = described[name]
        of_study = (settings["method"], settings["backbone"], settings["loss"])
        last, best = PUBLISHED.get(of_study, (None, None))
        row = {"arm": name} | {key: settings[key] for key in ("method", "backbone", "loss")}
        row["decision"] = "tuned on validation" if settings["backbone"] in TUNED else "0.5, else the most probable"
        row |= {key: float(np.mean([fold[key] for fold in scores])) for key in MEASURED}
        row["gap"] = row["validation"] - row["test"]
        test = None
        if of_study in PUBLISHED and row["method"] == "real_only":
            test = TRANSFORMERS if row["backbone"] in TUNED else BEST_CNN
        published = {"published_validation_last": last, "published_validation_best": best, "published_test": test}
        rows.append(row | {key: "not published" if value is None else value for key, value in published.items()})
    with atomic(out) as part:
        pd.DataFrame(rows).to_csv(part, index=False, float_format="%.4f")
    stage.log.info("%d models", len(rows))


def _scores(arm: prediction_file.Predictions) -> dict[str, float]:
    history = arm.history["validation_macro_f1"]
    return {
        # While training, check by check: decided as the study decided with all but ViT and Swin.
        "validation_last": float(history[-1]),
        "validation_best": float(history.max()),
        # Of the checkpoint that was kept: decided the study's way.
        **{name: study_f1(arm, name) for name in ("validation", "test")},
    }


def study_f1(arm: prediction_file.Predictions, name: str) -> float:
    """Macro-F1 over the classes that occur in a part, decided as the study decided with such a network."""
    part = arm.parts[name]
    if arm.settings["backbone"] not in TUNED:
        decided = validation_scores.study_decisions(part.probabilities, part.logits)
    else:
        decided = part.probabilities >= _tuned(arm.parts["validation"])
    return validation_scores.macro_f1(decided, part.labels)


def _tuned(part: Scored) -> np.ndarray:
    """The threshold of each class that is best on a part; 0.5 for a class that it does not have."""
    seen = part.labels.any(axis=0)
    table = ScoredRows(part.probabilities[:, seen], part.labels[:, seen].astype(bool), np.arange(len(part)))
    out = np.full(part.labels.shape[1], 0.5)
    out[seen] = fit_thresholds(table, Rule("calibrated", 0)).values
    return out


def main(argv: list[str] | None = None) -> int:
    """The program."""
    args = parse_args(argv)
    return stage.run("tabulate_study", args, lambda: tabulate_study(args.arms, args.out))


if __name__ == "__main__":
    sys.exit(main())
