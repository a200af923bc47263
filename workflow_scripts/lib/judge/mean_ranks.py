"""Mean ranks of the arms over trainings, and the difference of ranks from which on two arms differ (Nemenyi).

In each training (a fold of a repeat) the arms are ranked by score, 1 the best; equal scores share their mean rank.
After Demsar, Statistical comparisons of classifiers over multiple data sets, JMLR 7 (2006): of k arms in N trainings,
two differ at a level alpha where their mean ranks do by q sqrt(k (k + 1) / (6 N)), with q the quantile of the
studentised range of k means and infinite degrees of freedom, over the square root of two.

It is told beside the verdict, and decides nothing: trainings share proteins, so they are no independent data sets."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import stats


@dataclass(frozen=True)
class MeanRanks:
    """Arms from the best mean rank to the worst."""

    arms: list[str]
    ranks: np.ndarray  # (k,), ascending
    trainings: int
    critical: float  # difference of mean ranks

    def alike(self) -> list[tuple[int, int]]:
        """First and last place of each longest run of two or more arms whose mean ranks lie within the difference."""
        runs: list[tuple[int, int]] = []
        for first in range(len(self.ranks)):
            last = int(np.searchsorted(self.ranks, self.ranks[first] + self.critical, side="right")) - 1
            if last > first and (not runs or last > runs[-1][1]):
                runs.append((first, last))
        return runs


def measure(scores: dict[str, np.ndarray], confidence: float) -> MeanRanks:
    """Mean ranks of arms from their scores (N,) in the same trainings."""
    table = np.stack(list(scores.values()))
    count, trainings = table.shape
    ranks = stats.rankdata(-table, axis=0).mean(axis=1)
    order = np.argsort(ranks, kind="stable")
    quantile = stats.studentized_range.ppf(confidence, count, np.inf) / np.sqrt(2)
    critical = float(quantile * np.sqrt(count * (count + 1) / (6 * trainings)))
    return MeanRanks([list(scores)[place] for place in order], ranks[order], trainings, critical)
