"""assess_synthetic: do generated images show what they were asked to show?

A judge (a classifier) scores the synthetic set of one plan against the labels asked for, and beside it the fold's real
images that the generator never saw, class by class: average precision (whose chance level is the prevalence) and area
under the ROC curve (whose chance level is 0.5).

Example:
    python -m workflow_scripts.assess_synthetic --synthetic synthetic/as_train.h5 --images images.h5 \\
        --folds folds.csv --repeat 0 --fold 0 --judge judge.safetensors --out as_train.assess.csv \\
        --settings '{"judge": "independent", "threads": 1}'
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from workflow_scripts.lib import classifier_file, fold_table, folds, hardware, metrics, stage
from workflow_scripts.lib.dataset import ImageSet, select_channels
from workflow_scripts.lib.files import atomic

# Images that neither the generator nor the judge was fitted to. An arm of the fold has chosen its checkpoint on
# the validation part; an independent judge has not.
UNSEEN = {"independent": (folds.VALIDATION, folds.CALIBRATION, folds.TEST), "arm": (folds.CALIBRATION, folds.TEST)}


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    out = stage.parser(__doc__)
    out.add_argument("--synthetic", type=Path, required=True, help="the synthetic set of one plan")
    out.add_argument("--images", type=Path, required=True, help="the real image set")
    out.add_argument("--folds", type=Path, required=True, help="the table of roles")
    out.add_argument("--repeat", type=int, required=True, help="number of the repeat")
    out.add_argument("--fold", type=int, required=True, help="number of the fold")
    out.add_argument("--judge", type=Path, required=True, help="a classifier, or a list of arms with settings.judge")
    out.add_argument("--out", type=Path, required=True, help="the table to write")
    return out.parse_args(argv)


def assess_synthetic(
    synthetic: Path, images: Path, table: Path, repeat: int, fold: int, judge: Path, out: Path, settings: dict[str, Any]
) -> None:
    """Write the judge's scores on generated and on real images, a row a class."""
    hardware.use_threads(settings["threads"])
    classifier = classifier_file.read(_judge_file(judge, settings["judge"]))
    with ImageSet(images) as source:
        roles = fold_table.read(table, fold, source.ids)
        unseen = UNSEEN["arm" if judge.suffix == ".json" else "independent"]
        real = source.read(np.flatnonzero(np.isin(roles, unseen)), "inspect")
        classes, channels = source.classes, source.channels
    with ImageSet(synthetic) as source:
        made = source.read(None, "inspect")
    if classifier.classes != classes or not set(classifier.channels) <= set(channels):
        raise stage.UserError(
            f"{judge} judges classes {', '.join(classifier.classes)} of channels {', '.join(classifier.channels)}; "
            f"{images} has classes {', '.join(classes)} of channels {', '.join(channels)}"
        )
    network = classifier.network(hardware.device())
    scores = {
        name: classifier_file.predict(
            network, select_channels(part.images, channels, classifier.channels), classifier.mean, classifier.std
        )
        for name, part in (("real", real), ("generated", made))
    }
    rows = []
    for kind, name in enumerate(classes):
        row: dict[str, Any] = {
            "repeat": repeat, "fold": fold, "plan": synthetic.stem, "judge": settings["judge"], "class": name,
        }  # fmt: skip
        for which, part in (("real", real), ("generated", made)):
            truth = part.labels[:, kind].astype(bool)
            row[f"images_{which}"] = int(truth.sum())
            row[f"prevalence_{which}"] = float(truth.mean())
            row[f"ap_{which}"] = average_precision(scores[which][:, kind], truth)
            row[f"auc_{which}"] = roc_area(scores[which][:, kind], truth)
        rows.append(row)
    with atomic(out) as part:
        pd.DataFrame(rows).to_csv(part, index=False, float_format="%.6g")
    means = pd.DataFrame(rows)[["ap_real", "ap_generated"]].mean()
    stage.log.info("mean AP of the judge: %.3f on real, %.3f on generated images", *means)


def average_precision(scores: np.ndarray, truth: np.ndarray) -> float:
    """Average precision; empty (NaN) where a class has no positive or nothing but positives."""
    if not 0 < truth.sum() < len(truth):
        return float("nan")
    return float(metrics.average_precision(scores, truth, *metrics.unweighted(len(truth)))[0])


def roc_area(scores: np.ndarray, truth: np.ndarray) -> float:
    """Chance that a positive scores above a negative, ties counted half; NaN where there is nothing to compare."""
    positives, negatives = np.sort(scores[truth]), scores[~truth]
    if not len(positives) or not len(negatives):
        return float("nan")
    # Of each negative: positives above it, and half of those equal.
    below, upto = np.searchsorted(positives, negatives, "left"), np.searchsorted(positives, negatives, "right")
    return float(1 - (below + upto).mean() / 2 / len(positives))


def _judge_file(path: Path, name: str) -> Path:
    if path.suffix != ".json":
        return path
    listed = {arm["strategy"]: arm for arm in json.loads(path.read_text(encoding="utf-8"))["arms"]}
    if name not in listed:
        raise stage.UserError(f"{path} has no arm {name!r} to judge by")
    return path.parent / listed[name]["classifier"]


def main(argv: list[str] | None = None) -> int:
    """The program."""
    args = parse_args(argv)
    return stage.run(
        "assess_synthetic",
        args,
        lambda: assess_synthetic(
            args.synthetic, args.images, args.folds, args.repeat, args.fold, args.judge, args.out, args.settings
        ),
    )


if __name__ == "__main__":
    sys.exit(main())
