"""Association of a column, such as the plate, with the labels: Cramér's V with groups as units.

Images of a group share labels and often the plate, so they count once for each value of the column. Otherwise large
groups would show an association that chance explains."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from scipy.stats import chi2_contingency

MOST_VALUES = 60  # of a column; one with more is a name rather than a condition
UNITS_A_VALUE = 3  # fewest units for each value, on average
STRONG = 0.3  # a medium effect by Cohen (1988), w = 0.3
CHANCE = 0.01  # an association must be less probable than this by chance


@dataclass(frozen=True)
class Association:
    """A column's association with the labels."""

    column: str
    values: int
    v: float  # Cramér's V, corrected for bias
    p: float  # of the chi-squared test

    @property
    def confounded(self) -> bool:
        """Whether a classifier could learn the column in place of the labels."""
        return self.v >= STRONG and self.p < CHANCE


def cramers_v(counts: np.ndarray) -> tuple[float, float]:
    """Cramér's V of a contingency table, corrected for bias (Bergsma 2013), and p of the chi-squared test."""
    counts = counts[counts.sum(1) > 0][:, counts.sum(0) > 0]
    rows, columns = counts.shape
    if min(rows, columns) < 2:
        return 0.0, 1.0
    test, n = chi2_contingency(counts, correction=False), counts.sum()
    if n < 2:
        return 0.0, 1.0
    excess = max(0.0, test.statistic / n - (rows - 1) * (columns - 1) / (n - 1))
    shorter = min(side - (side - 1) ** 2 / (n - 1) for side in (rows, columns)) - 1
    return float(np.sqrt(excess / shorter)) if shorter > 0 else 0.0, float(test.pvalue)


def associations(
    labels: np.ndarray, groups: np.ndarray, columns: Mapping[str, np.ndarray], left_out: Iterable[str] = ()
) -> list[Association]:
    """Associations of columns (n,) with the label sets of images, the strongest first; labels are (n, K).

    Columns that name groups (`left_out`), have one value, or have nearly as many values as groups say nothing."""
    kinds = np.unique(labels, axis=0, return_inverse=True)[1].ravel()
    member = np.unique(groups, return_inverse=True)[1].ravel()
    out = []
    for name, told in columns.items():
        known = told != ""
        values, place = np.unique(told[known].astype(str), return_inverse=True)
        if name in set(left_out) or not 2 <= len(values) <= MOST_VALUES:
            continue
        units = np.unique(np.stack([member[known], place.ravel(), kinds[known]], axis=1), axis=0)
        if len(units) < UNITS_A_VALUE * len(values):
            continue
        counts = np.zeros((len(values), int(kinds.max(initial=0)) + 1), dtype=np.int64)
        np.add.at(counts, (units[:, 1], units[:, 2]), 1)
        out.append(Association(name, len(values), *cramers_v(counts)))
    return sorted(out, key=lambda found: (-found.v, found.column))
