"""F1 from counts of decisions.

It is separate from the other scores because training needs F1 alone. So an edit of the test metrics re-trains
nothing."""

from __future__ import annotations

import numpy as np


def f1_score(true: np.ndarray, decided: np.ndarray, actual: np.ndarray) -> np.ndarray:
    """F1 = 2 TP / (decided positive + actually positive); NaN where there is neither."""
    size = np.asarray(decided + actual)
    return np.divide(2 * true, size, out=np.full(np.shape(size), np.nan), where=size > 0)
