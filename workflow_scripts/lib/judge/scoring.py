"""From one arm's predictions in all folds to its scores, under one or many sets of group weights.

Thresholds come from each fold's calibration part and are fitted again inside every draw. F1 pools the test decisions of
all folds of a repeat and then scores; average precision is taken within each fold, because the scores of different
models share no scale. Everything is done at one level: per image, or per protein (`per_protein`)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from workflow_scripts.lib.scores import ranking_metrics
from workflow_scripts.lib.scores.f1 import f1_score

METRICS = ("macro_f1", "map")
RULES = ("calibrated", "pooled", "half", "half_or_largest")
LEVELS = ("image", "protein")


@dataclass(frozen=True)
class Table:
    """Scored rows of one part: images, or proteins."""

    scores: np.ndarray  # probabilities float64 (n, K)
    labels: np.ndarray  # bool (n, K)
    groups: np.ndarray  # int (n,), into the run's list of groups

    def positive_groups(self) -> np.ndarray:
        """Number of groups with at least one positive row, per class (K,)."""
        return np.array([len(np.unique(self.groups[column])) for column in self.labels.T], dtype=int)


def per_protein(table: Table) -> Table:
    """One row per group: the mean of its images' probabilities, and each label that any of its images carries.

    So a class has the same positive groups at both levels, and the same classes are judged."""
    owners, place, counts = np.unique(table.groups, return_inverse=True, return_counts=True)
    scores = np.zeros((len(owners), table.scores.shape[1]))
    labels = np.zeros(scores.shape, dtype=bool)
    np.add.at(scores, place, table.scores)
    np.logical_or.at(labels, place, table.labels.astype(bool))
    return Table(scores / counts[:, None], labels, owners)


@dataclass(frozen=True)
class Cell:
    """One arm in one fold of one repeat."""

    repeat: int
    fold: int
    calibration: Table
    test: Table
    validation: Table


@dataclass(frozen=True)
class Rule:
    """How probabilities become decisions.

    calibrated: per class the threshold of highest F1 on the calibration part, or the pooled one where fewer than
    `minimum_groups` calibration groups are positive. pooled: one threshold for all classes. half: 0.5.
    half_or_largest: 0.5, and the most probable class where none passes."""

    kind: str
    minimum_groups: int
    refit: bool = True  # again inside each draw, so that intervals hold the luck of the calibration part


@dataclass(frozen=True)
class Fitted:
    """The thresholds of one arm in one fold."""

    values: np.ndarray  # (K,)
    pooled: np.ndarray  # bool (K,)
    positive_groups: np.ndarray  # int (K,), in the calibration part


def _local(table: Table, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    # Only the weights of groups that occur: a fold holds a part of the run's groups.
    owners, place = np.unique(table.groups, return_inverse=True)
    return place, weights[owners]


def is_pooled(table: Table, rule: Rule) -> np.ndarray:
    """Which classes use the threshold of all classes pooled, bool (K,): decided by counts, never by scores."""
    if rule.kind == "pooled":
        return np.ones(table.labels.shape[1], dtype=bool)
    if rule.kind == "calibrated":
        return table.positive_groups() < rule.minimum_groups
    return np.zeros(table.labels.shape[1], dtype=bool)


def choose_thresholds(table: Table, rule: Rule, weights: np.ndarray) -> list[ranking_metrics.Choice]:
    """The threshold of each class in each draw, from the calibration part and the weights (G, B) of its groups."""
    classes, draws = table.labels.shape[1], weights.shape[1]
    if rule.kind in ("half", "half_or_largest"):
        return [ranking_metrics.Choice.fixed(0.5, draws)] * classes
    groups, weights = _local(table, weights)
    pooled, shared = is_pooled(table, rule), None
    if pooled.any():
        # All (row, class) pairs as one list: the threshold of highest micro-F1.
        shared = ranking_metrics.best_threshold(
            table.scores.ravel(), table.labels.ravel(), np.repeat(groups, classes), weights
        )
    return [
        shared if pooled[k] else ranking_metrics.best_threshold(table.scores[:, k], table.labels[:, k], groups, weights)
        for k in range(classes)
    ]


def fit_thresholds(table: Table, rule: Rule) -> Fitted:
    """The thresholds themselves: those of equal weights."""
    ones = np.ones((int(table.groups.max()) + 1, 1))
    values = np.array([choice.values[0] for choice in choose_thresholds(table, rule, ones)])
    return Fitted(values, is_pooled(table, rule), table.positive_groups())


def count_decisions(
    table: Table, choices: list[ranking_metrics.Choice], rule: Rule, weights: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Weight of true, decided and actual positives per class and draw (K, B), in any part of the fold."""
    groups, weights = _local(table, weights)
    if rule.kind == "half_or_largest":
        decisions = table.scores >= 0.5
        silent = np.flatnonzero(~decisions.any(axis=1))
        decisions[silent, table.scores[silent].argmax(axis=1)] = True
        return ranking_metrics.decision_counts(decisions, table.labels, groups, weights)
    return ranking_metrics.decided_counts(table.scores, table.labels, groups, choices, weights)


@dataclass
class ArmScores:
    """Scores of one arm in each draw; R repeats, K classes, B draws, L folds in all."""

    repeats: list[int]  # (R,)
    places: list[tuple[int, int]]  # (repeat, fold) of each of the L folds
    counts: np.ndarray  # (L, 3, K, B): weight of true, decided and actual positives
    precision: np.ndarray  # average precision (L, K, B); NaN where the fold has no positive
    rows: np.ndarray  # int (L,), rows scored in each fold

    def pooled(self) -> np.ndarray:
        """Counts (R, 3, K, B) of each repeat, its folds pooled."""
        owner = np.array([self.repeats.index(repeat) for repeat, _ in self.places])
        return np.stack([self.counts[owner == r].sum(axis=0) for r in range(len(self.repeats))])

    def f1(self) -> np.ndarray:
        """F1 of pooled decisions (R, K, B)."""
        pooled = self.pooled()
        return f1_score(pooled[:, 0], pooled[:, 1], pooled[:, 2])

    def macro_f1(self, judged: np.ndarray) -> np.ndarray:
        """Mean F1 of the judged classes, bool (K,), per repeat and draw (R, B)."""
        return mean(self.f1()[:, judged], axis=1)

    def fold_macro_f1(self, judged: np.ndarray) -> np.ndarray:
        """The same within each fold (L, B); a class that a fold neither has nor predicts is left out there."""
        return mean(f1_score(self.counts[:, 0], self.counts[:, 1], self.counts[:, 2])[:, judged], axis=1)

    def micro_f1(self, judged: np.ndarray) -> np.ndarray:
        """F1 of all decisions on judged classes together (R, B)."""
        pooled = self.pooled()[:, :, judged].sum(axis=2)
        return f1_score(pooled[:, 0], pooled[:, 1], pooled[:, 2])

    def fold_map(self, judged: np.ndarray) -> np.ndarray:
        """Mean average precision of the judged classes within each fold (L, B)."""
        return mean(self.precision[:, judged], axis=1)

    def map(self, judged: np.ndarray) -> np.ndarray:
        """Mean over folds of `fold_map` (R, B)."""
        return self._over_folds(self.fold_map(judged))

    def ap(self) -> np.ndarray:
        """Average precision per class, mean over the folds that have positives (R, K, B)."""
        return self._over_folds(self.precision)

    def _over_folds(self, values: np.ndarray) -> np.ndarray:
        owner = np.array([self.repeats.index(repeat) for repeat, _ in self.places])
        return np.stack([mean(values[owner == r], axis=0) for r in range(len(self.repeats))])


def mean(values: np.ndarray, axis: int) -> np.ndarray:
    """Mean without NaN, and NaN without a word where nothing is left."""
    known = ~np.isnan(values)
    count = known.sum(axis=axis)
    total = np.where(known, values, 0).sum(axis=axis)
    return np.divide(total, count, out=np.full(np.shape(total), np.nan), where=count > 0)


def score_arm(
    cells: list[Cell], rule: Rule, weights: np.ndarray, part: str = "test", f1: bool = True, ap: bool = True
) -> ArmScores:
    """Score one arm on a part of all its folds: weights (G, B) for the run's groups, shared by folds and arms.

    With `rule.refit` the calibration groups carry the same weights and thresholds follow them; without, thresholds
    are those of equal weights."""
    counts, precision = [], []
    for cell in cells:
        table: Table = getattr(cell, part)
        draws = weights.shape[1]
        if f1:
            if rule.refit:
                choices = choose_thresholds(cell.calibration, rule, weights)
            else:
                values = fit_thresholds(cell.calibration, rule).values
                choices = [ranking_metrics.Choice.fixed(value, draws) for value in values]
            counts.append(np.stack(count_decisions(table, choices, rule, weights)))
        if ap:
            groups, local = _local(table, weights)
            columns = zip(table.scores.T, table.labels.T, strict=True)
            found = [ranking_metrics.average_precision(scores, labels, groups, local) for scores, labels in columns]
            precision.append(np.stack(found))
    places = [(cell.repeat, cell.fold) for cell in cells]
    shape = (len(cells), 0, weights.shape[1])
    return ArmScores(
        sorted({repeat for repeat, _ in places}),
        places,
        np.stack(counts) if f1 else np.zeros((len(cells), 3, *shape[1:])),
        np.stack(precision) if ap else np.zeros(shape),
        np.array([len(getattr(cell, part).groups) for cell in cells]),
    )
