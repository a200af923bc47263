"""Decision thresholds: fitted on the calibration part of a fold, applied to any part.

Knows nothing of arms or repeats."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from workflow_scripts.lib.judge.fold_scores import ScoredRows
from workflow_scripts.lib.scores import ranking_metrics
from workflow_scripts.lib.scores.decisions import at_least_one


@dataclass(frozen=True)
class Rule:
    """How probabilities become decisions.

    calibrated: per class the threshold of highest F1 on the calibration part, or the pooled one where fewer than
    `minimum_groups` calibration groups are positive. pooled: one threshold for all classes. half: 0.5.
    half_or_largest: 0.5, and the most probable class where none passes."""

    kind: str
    minimum_groups: int
    refit: bool = True  # in each bootstrap draw, so that intervals contain the variance of the calibration part


@dataclass(frozen=True)
class FittedThresholds:
    """The thresholds of one arm in one fold."""

    values: np.ndarray  # (K,)
    pooled: np.ndarray  # bool (K,)
    positive_groups: np.ndarray  # int (K,), in the calibration part


def fit_thresholds(rows: ScoredRows, rule: Rule) -> FittedThresholds:
    """The thresholds at equal weights."""
    ones = np.ones((int(rows.groups.max()) + 1, 1))
    values = np.array([choice.values[0] for choice in choose_thresholds(rows, rule, ones)])
    return FittedThresholds(values, is_pooled(rows, rule), rows.positive_groups())


def choose_thresholds(rows: ScoredRows, rule: Rule, weights: np.ndarray) -> list[ranking_metrics.Choice]:
    """The threshold of each class in each draw, from the calibration part and the weights (G, B) of its groups."""
    classes, draws = rows.labels.shape[1], weights.shape[1]
    if rule.kind in ("half", "half_or_largest"):
        return [ranking_metrics.Choice.fixed(0.5, draws)] * classes
    groups, weights = local_groups(rows, weights)
    pooled, shared = is_pooled(rows, rule), None
    if pooled.any():
        # All (row, class) pairs as one list: the threshold of highest micro-F1.
        every = (rows.scores.ravel(), rows.labels.ravel(), np.repeat(groups, classes))
        shared = ranking_metrics.best_threshold(*every, weights)
    return [
        shared if pooled[k] else ranking_metrics.best_threshold(rows.scores[:, k], rows.labels[:, k], groups, weights)
        for k in range(classes)
    ]


def is_pooled(rows: ScoredRows, rule: Rule) -> np.ndarray:
    """Which classes use the threshold of all classes pooled, bool (K,): decided by counts, never by scores."""
    if rule.kind == "pooled":
        return np.ones(rows.labels.shape[1], dtype=bool)
    if rule.kind == "calibrated":
        return rows.positive_groups() < rule.minimum_groups
    return np.zeros(rows.labels.shape[1], dtype=bool)


def count_decisions(
    rows: ScoredRows, choices: list[ranking_metrics.Choice], rule: Rule, weights: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Weight of true, decided and actual positives per class and draw (K, B), in any part of the fold."""
    groups, weights = local_groups(rows, weights)
    if rule.kind == "half_or_largest":
        decided = decisions(rows, np.full(rows.labels.shape[1], 0.5), rule.kind)
        return ranking_metrics.decision_counts(decided, rows.labels, groups, weights)
    return ranking_metrics.decided_counts(rows.scores, rows.labels, groups, choices, weights)


def decisions(rows: ScoredRows, thresholds: np.ndarray, kind: str) -> np.ndarray:
    """Rows decided positive for each class, bool (n, K), by thresholds (K,) and a kind of analysis_choices.RULES."""
    decided = rows.scores >= thresholds
    return at_least_one(decided, rows.scores) if kind == "half_or_largest" else decided


def local_groups(rows: ScoredRows, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Groups of the rows, and their weights alone: a fold holds a part of the run's groups."""
    owners, place = np.unique(rows.groups, return_inverse=True)
    return place, weights[owners]
