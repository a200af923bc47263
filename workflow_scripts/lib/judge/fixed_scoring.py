"""Scores of finished arms at thresholds that stand, with bootstrap draws over groups.

For rows to which no threshold may be fitted (the lockbox), and for parts of the test part (strata). The thresholds are
those of the calibration part, the same in every draw: intervals hold the luck of which groups are scored and, with
repeats, that of training. F1 pools the decisions of a repeat's folds; average precision is taken within each fold and
averaged, as in `scoring`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from workflow_scripts.lib.judge import comparisons, inference, scoring
from workflow_scripts.lib.judge.comparisons import Pair
from workflow_scripts.lib.judge.scoring import ArmScores, Table
from workflow_scripts.lib.scores import ranking_metrics


@dataclass(frozen=True)
class Decided:
    """One arm in one fold: the rows to be scored, and the thresholds (K,) that are applied to them."""

    repeat: int
    fold: int
    table: Table
    thresholds: np.ndarray


@dataclass(frozen=True)
class Drawn:
    """The averages of one arm over the judged classes."""

    values: dict[str, np.ndarray]  # metric -> (R,)
    draws: dict[str, np.ndarray]  # metric -> (R, B)

    def mean(self, metric: str) -> float:
        """The average over repeats."""
        return float(self.values[metric].mean())


def question(analysis: dict[str, Any], arms: list[dict[str, Any]]) -> list[Pair]:
    """The comparisons of the primary question: the primary arm and its control against their baseline, and the arm
    against the control."""
    primary = analysis["primary_arm"]
    control = next((arm.get("control") for arm in arms if arm["name"] == primary), None)
    return [
        pair
        for pair in comparisons.pairs(analysis, arms)
        if pair.arm == primary or (pair.arm == control and pair.relation == "baseline")
    ]


def arms_of(pairs: list[Pair]) -> list[str]:
    """The arms that comparisons need, baselines first."""
    return list(dict.fromkeys([*(pair.against for pair in pairs), *(pair.arm for pair in pairs)]))


def positive_groups(cells: list[Decided]) -> np.ndarray:
    """Groups with a positive row per repeat and class (R, K), pooled over folds."""
    found = []
    for repeat in sorted({cell.repeat for cell in cells}):
        tables = [cell.table for cell in cells if cell.repeat == repeat]
        labels, groups = (np.concatenate([getattr(t, name) for t in tables]) for name in ("labels", "groups"))
        found.append([len(np.unique(groups[column])) for column in labels.T])
    return np.array(found)


def decisions(table: Table, thresholds: np.ndarray, kind: str) -> np.ndarray:
    """Which rows are said to have which class, bool (n, K), by a rule of `scoring.RULES`."""
    out = table.scores >= thresholds
    if kind == "half_or_largest":
        silent = np.flatnonzero(~out.any(axis=1))
        out[silent, table.scores[silent].argmax(axis=1)] = True
    return out


def score(cells: list[Decided], kind: str, weights: np.ndarray, judged: np.ndarray) -> Drawn:
    """Averages over the judged classes, bool (K,), plainly and under weights (G, B) of groups; `kind` is the rule."""
    kept = np.flatnonzero(judged)
    plain = _scores(cells, kind, np.ones((len(weights), 1)), kept)
    drawn = _scores(cells, kind, weights, kept)
    in_folds = np.stack([cell.table.positive_groups()[kept] for cell in cells])[..., None]
    drawn.precision = plain.precision + comparisons.small_sample(in_folds) * (drawn.precision - plain.precision)
    # Thresholds that stand widen nothing, so F1 needs the factor for few groups too.
    widening = comparisons.small_sample(positive_groups(cells)[:, kept])[..., None]
    f1 = plain.f1() + widening * (drawn.f1() - plain.f1())
    values = {"macro_f1": scoring.mean(plain.f1(), axis=1), "map": scoring.mean(plain.ap(), axis=1)}
    draws = {"macro_f1": scoring.mean(f1, axis=1), "map": scoring.mean(drawn.ap(), axis=1)}
    return Drawn({name: value[:, 0] for name, value in values.items()}, draws)


def _scores(cells: list[Decided], kind: str, weights: np.ndarray, kept: np.ndarray) -> ArmScores:
    counts, precision = [], []
    for cell in cells:
        table = cell.table
        owners, groups = np.unique(table.groups, return_inverse=True)
        local, labels = weights[owners], table.labels[:, kept]
        said = decisions(table, cell.thresholds, kind)[:, kept]
        counts.append(np.stack(ranking_metrics.decision_counts(said, labels, groups, local)))
        columns = zip(table.scores[:, kept].T, labels.T, strict=True)
        precision.append(np.stack([ranking_metrics.average_precision(*column, groups, local) for column in columns]))
    places = [(cell.repeat, cell.fold) for cell in cells]
    repeats, rows = sorted({repeat for repeat, _ in places}), [len(cell.table.groups) for cell in cells]
    return ArmScores(repeats, places, np.stack(counts), np.stack(precision), np.array(rows))


def compare(
    scores: dict[str, Drawn], pairs: list[Pair], metric: str, confidence: float, seed: int, first: Sequence[int] = ()
) -> inference.Intervals:
    """Paired differences of one average, simultaneous over the pairs given but for the `first`."""
    plain = [scores[pair.arm].values[metric] - scores[pair.against].values[metric] for pair in pairs]
    draws = [scores[pair.arm].draws[metric] - scores[pair.against].draws[metric] for pair in pairs]
    return inference.intervals(np.array(plain), np.array(draws), confidence, seed, first)
