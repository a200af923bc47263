"""Score and compare the arms of the primary question on the lockbox: rows of lockbox.csv."""

from __future__ import annotations

from typing import Any

import numpy as np

from workflow_scripts.lib.base.errors import UserError
from workflow_scripts.lib.base.seeds import derive
from workflow_scripts.lib.images.image_set import ImageSet
from workflow_scripts.lib.judge import fixed_scoring, inference, scoring
from workflow_scripts.lib.judge.analysis_choices import METRICS
from workflow_scripts.lib.judge.fixed_scoring import Decided, DrawnAverages
from workflow_scripts.lib.judge.lockbox_ledger import Box
from workflow_scripts.lib.judge.question import Pair, Question

COLUMNS = ["what", "arm", "against", "relation", "metric", "level", "value", "low", "high", "low_single"]
COLUMNS += ["high_single", "standing", "verdict", "detectable", "classes"]
Row = dict[str, Any]


def judged_classes(
    source: ImageSet, box: Box, run_judged: list[str], analysis: dict[str, Any]
) -> tuple[np.ndarray, list[Row]]:
    """Classes that the run judged and that have enough positive groups in the lockbox, bool (K,), and the others.

    Decided by counts, before anything is predicted."""
    labels = source.labels(box.rows, "inspect").astype(bool)
    groups, minimum = source.groups[box.rows], analysis["minimum_positive_groups"]
    positive = np.array([len(np.unique(groups[column])) for column in labels.T])
    known = np.isin(source.classes, run_judged)
    judged = known & (positive >= minimum)
    if not judged.any():
        raise UserError(
            f"no class that the run judged has {minimum} positive groups in the lockbox, so it can decide nothing and "
            "stays closed: give it a larger fraction (make_folds.fractions.lockbox) and train again"
        )
    left = [
        {"class": source.classes[k], "positive_groups": int(positive[k])}
        | {"reason": f"{minimum} positive groups needed" if known[k] else "not judged in the run"}
        for k in np.flatnonzero(~judged)
    ]
    return judged, left


def score_lockbox(predicted: dict[str, dict[str, list[Decided]]], question: Question, judged: np.ndarray) -> list[Row]:
    """Rows of lockbox.csv: the scores of the arms and their paired differences, per image and per protein.

    Tested in the order of the run: the primary arm against its baseline, then its control, each by itself."""
    analysis, pairs = question.analysis, question.primary_pairs()
    seed, rows = derive(question.seed, "lockbox"), []
    groups = 1 + max(int(fold.rows.groups.max()) for folds in predicted["image"].values() for fold in folds)
    weights = scoring.group_weights(seed, groups, analysis["draws"])
    first = [i for i, pair in enumerate(pairs) if pair.arm == analysis["primary_arm"]]
    for level, arms in predicted.items():
        scores = {
            name: fixed_scoring.score(folds, analysis["threshold_rule"], weights, judged)
            for name, folds in arms.items()
        }
        for metric in METRICS:
            about = {"metric": metric, "level": level, "classes": int(judged.sum())}
            rows += [about | row for row in _score_rows(scores, metric, analysis["confidence"], seed)]
            differences = fixed_scoring.compare(scores, pairs, metric, analysis["confidence"], seed, first)
            rows += [about | row for row in _difference_rows(pairs, differences, first)]
            _add_verdict(rows[-len(pairs) :], pairs, differences, analysis)
    return rows


def _score_rows(scores: dict[str, DrawnAverages], metric: str, confidence: float, seed: int) -> list[Row]:
    plain, draws = (np.array([getattr(one, name)[metric] for one in scores.values()]) for name in ("values", "draws"))
    ends = inference.intervals(plain, draws, confidence, seed)
    return [
        {"what": "score", "arm": name, "value": ends.estimate[i]}
        | {"low_single": ends.low_single[i], "high_single": ends.high_single[i]}
        for i, name in enumerate(scores)
    ]


def _difference_rows(pairs: list[Pair], differences: inference.Intervals, first: list[int]) -> list[Row]:
    standing = inference.standing(differences, first)
    return [
        {"what": "difference", "arm": pair.arm, "against": pair.against, "relation": pair.relation}
        | {"standing": standing[i], "value": differences.estimate[i]}
        | {"low": differences.low[i], "high": differences.high[i]}
        | {"low_single": differences.low_single[i], "high_single": differences.high_single[i]}
        for i, pair in enumerate(pairs)
    ]


def _add_verdict(
    rows: list[Row], pairs: list[Pair], differences: inference.Intervals, analysis: dict[str, Any]
) -> None:
    """Add the detectable gain to the row of the primary arm, and the verdict in the declared metric and level."""
    control = [i for i, pair in enumerate(pairs) if pair.relation == "control"]
    for i, (row, pair) in enumerate(zip(rows, pairs, strict=True)):
        if pair.relation != "baseline" or pair.arm != analysis["primary_arm"]:
            continue
        row["detectable"] = differences.detectable([i, *control])
        if (row["metric"], row["level"]) == (analysis["metric"], analysis["level"]):
            beyond = (differences.low[control[0]], differences.high[control[0]]) if control else None
            smallest = analysis["smallest_effect"]
            row["verdict"] = inference.verdict(differences.low[i], differences.high[i], smallest, beyond)
