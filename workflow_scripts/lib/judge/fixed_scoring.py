"""Scores of finished arms at thresholds that stay as they are, with bootstrap draws over groups.

For rows to which no threshold may be fitted (the lockbox), and for parts of the test part (strata). The thresholds are
those of the calibration part, the same in every draw. So intervals contain the variance over scored groups and, with
repeats, the variance between repeats. F1 pools the decisions of a repeat's folds; average precision is taken within
each fold and averaged, as in `scoring`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from workflow_scripts.lib.judge import inference, scoring
from workflow_scripts.lib.judge.fold_scores import ScoredRows
from workflow_scripts.lib.judge.question import Pair
from workflow_scripts.lib.judge.scoring import ArmScores
from workflow_scripts.lib.judge.thresholds import decisions
from workflow_scripts.lib.scores import ranking_metrics


@dataclass(frozen=True)
class Decided:
    """One arm in one fold: the rows to be scored, and the thresholds (K,) that are applied to them."""

    repeat: int
    fold: int
    rows: ScoredRows
    thresholds: np.ndarray


@dataclass(frozen=True)
class DrawnAverages:
    """The averages of one arm over the judged classes."""

    values: dict[str, np.ndarray]  # metric -> (R,)
    draws: dict[str, np.ndarray]  # metric -> (R, B)

    def mean(self, metric: str) -> float:
        """The average over repeats."""
        return float(self.values[metric].mean())


def score(folds: list[Decided], kind: str, weights: np.ndarray, judged: np.ndarray) -> DrawnAverages:
    """Averages over the judged classes, bool (K,), plainly and under weights (G, B) of groups; `kind` is the rule."""
    kept = np.flatnonzero(judged)
    plain = _arm_scores(folds, kind, np.ones((len(weights), 1)), kept)
    drawn = _arm_scores(folds, kind, weights, kept)
    in_folds = np.stack([fold.rows.effective_groups()[kept] for fold in folds])[..., None]
    drawn.precision = plain.precision + scoring.small_sample(in_folds) * (drawn.precision - plain.precision)
    widening = scoring.small_sample(effective_groups(folds)[:, kept])[..., None]
    f1 = plain.f1() + widening * (drawn.f1() - plain.f1())
    values = {"macro_f1": scoring.mean(plain.f1(), axis=1), "map": scoring.mean(plain.ap(), axis=1)}
    draws = {"macro_f1": scoring.mean(f1, axis=1), "map": scoring.mean(drawn.ap(), axis=1)}
    return DrawnAverages({name: value[:, 0] for name, value in values.items()}, draws)


def _arm_scores(folds: list[Decided], kind: str, weights: np.ndarray, kept: np.ndarray) -> ArmScores:
    counts, precision = [], []
    for fold in folds:
        owners, groups = np.unique(fold.rows.groups, return_inverse=True)
        local, labels = weights[owners], fold.rows.labels[:, kept]
        decided = decisions(fold.rows, fold.thresholds, kind)[:, kept]
        counts.append(np.stack(ranking_metrics.decision_counts(decided, labels, groups, local)))
        columns = zip(fold.rows.scores[:, kept].T, labels.T, strict=True)
        precision.append(np.stack([ranking_metrics.average_precision(*column, groups, local) for column in columns]))
    places = [(fold.repeat, fold.fold) for fold in folds]
    repeats, rows = sorted({repeat for repeat, _ in places}), [len(fold.rows.groups) for fold in folds]
    return ArmScores(repeats, places, np.stack(counts), np.stack(precision), np.array(rows))


def positive_groups(folds: list[Decided]) -> np.ndarray:
    """Groups with a positive row per repeat and class (R, K), pooled over folds."""
    return np.array([rows.positive_groups() for rows in _pooled(folds)])


def effective_groups(folds: list[Decided]) -> np.ndarray:
    """The same as effective numbers: see `ScoredRows.effective_groups`."""
    return np.array([rows.effective_groups() for rows in _pooled(folds)])


def _pooled(folds: list[Decided]) -> list[ScoredRows]:
    """The rows of each repeat; folds may hold the same groups, which then count once."""
    out = []
    for repeat in sorted({fold.repeat for fold in folds}):
        parts = [fold.rows for fold in folds if fold.repeat == repeat]
        names = ("scores", "labels", "groups")
        out.append(ScoredRows(*(np.concatenate([getattr(part, name) for part in parts]) for name in names)))
    return out


def compare(
    scores: dict[str, DrawnAverages],
    pairs: list[Pair],
    metric: str,
    confidence: float,
    seed: int,
    first: Sequence[int] = (),
) -> inference.Intervals:
    """Paired differences of one average, simultaneous over all pairs but the `first`."""
    plain = [scores[pair.arm].values[metric] - scores[pair.against].values[metric] for pair in pairs]
    draws = [scores[pair.arm].draws[metric] - scores[pair.against].draws[metric] for pair in pairs]
    return inference.intervals(np.array(plain), np.array(draws), confidence, seed, first)
