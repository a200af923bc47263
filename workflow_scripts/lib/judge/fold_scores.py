"""Scored rows of one arm in one fold, per image or per protein."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class ScoredRows:
    """Probabilities and labels of one part of a fold; a row is an image or a protein."""

    scores: np.ndarray  # probabilities float64 (n, K)
    labels: np.ndarray  # bool (n, K)
    groups: np.ndarray  # int (n,), into the run's list of groups

    def positive_groups(self) -> np.ndarray:
        """Number of groups with at least one positive row, per class (K,)."""
        return np.array([len(np.unique(self.groups[column])) for column in self.labels.T], dtype=int)

    def effective_groups(self) -> np.ndarray:
        """Effective number of positive groups per class (K,), after Kish: (sum m)^2 / sum m^2 for m positives a group.

        Groups of unequal size tell less than as many equal ones."""
        sizes = np.stack([np.bincount(self.groups, column) for column in self.labels.T])
        squares = (sizes**2).sum(axis=1)
        return np.divide(sizes.sum(axis=1) ** 2, squares, out=np.zeros(len(sizes)), where=squares > 0)


@dataclass(frozen=True)
class FoldScores:
    """The scored parts of one arm in one fold of one repeat."""

    repeat: int
    fold: int
    calibration: ScoredRows
    test: ScoredRows
    validation: ScoredRows


def per_protein(rows: ScoredRows) -> ScoredRows:
    """One row per group: the mean of its images' probabilities, and each label that any of its images carries.

    A class has the same positive groups at both levels, so the same classes are judged."""
    owners, place, counts = np.unique(rows.groups, return_inverse=True, return_counts=True)
    scores = np.zeros((len(owners), rows.scores.shape[1]))
    labels = np.zeros(scores.shape, dtype=bool)
    np.add.at(scores, place, rows.scores)
    np.logical_or.at(labels, place, rows.labels.astype(bool))
    return ScoredRows(scores / counts[:, None], labels, owners)
