"""Break-even law: the gain of generated images by how far they are from real ones, and by who saw how many proteins.

A linear regression of the gain over the baseline on the divergence of the generator, the logarithm of the number of
labelled groups, and the logarithm of the number of groups that the generator saw. Zheng et al. 2023 (arXiv:2305.17476)
bound the gain by the divergence. The gains of a regime share the error of its baseline, so least squares are
generalised: that error is taken to be as large as an arm's own.

The law is checked on what it was not fitted to: each label regime is left out in turn. A law that does not err clearly
less there than the mean gain of the other regimes predicts nothing. Arms of a run share test images besides, so the
intervals are approximate. Knows nothing of files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy import special

from workflow_scripts.lib.judge.real_image_equivalent import Ends

TERMS = ("constant", "divergence", "labelled", "seen")  # the last two as logarithms to base 10
FEWEST_POINTS, FEWEST_REGIMES = 10, 4
# A law predicts if its error on held-out regimes is below this part of the mean's: tests/judge/test_break_even.py has
# how often chance does.
CLEARLY_LESS = 0.75


@dataclass(frozen=True)
class LawPoint:
    """A generated arm: its gain over the baseline of its regime, and what that may depend on."""

    regime: str
    gain: float
    divergence: float  # of the synthetic set from real images
    labelled: float  # groups that have labels
    seen: float  # groups that the generator saw, with labels or without


@dataclass(frozen=True)
class HeldOut:
    """How well the gains of a regime are predicted from the other regimes: root of the mean squared error."""

    error: float  # of the law
    error_of_mean: float  # of the mean gain of the other regimes
    covered: float  # fraction of points inside their prediction interval

    @property
    def predicts(self) -> bool:
        """Whether the law errs clearly less than the mean."""
        return self.error < CLEARLY_LESS * self.error_of_mean


@dataclass(frozen=True)
class Law:
    """A fitted law."""

    coefficients: np.ndarray  # (4,), by TERMS
    inverse: np.ndarray  # (X'C^-1 X)^-1, (4, 4), with the covariance C of gains for a spread of 1
    spread: float  # standard deviation of an arm's own error
    freedom: int  # degrees of freedom
    confidence: float

    @cached_property
    def quantile(self) -> float:
        """Of Student's t, for two-sided intervals."""
        return float(special.stdtrit(self.freedom, (1 + self.confidence) / 2))

    def terms(self) -> dict[str, Ends]:
        """Each coefficient with its interval."""
        half = self.quantile * self.spread * np.sqrt(np.diag(self.inverse))
        return {name: _ends(self.coefficients[i], half[i]) for i, name in enumerate(TERMS)}

    def predict(self, divergence: float, labelled: float, seen: float, error: float = 0.0) -> Ends:
        """The gain of one further arm beside its own baseline at this point, with a prediction interval.

        `error` is the law's error on held-out regimes. The larger of it and the spread of the residuals counts."""
        row = _row(divergence, labelled, seen)
        one = max(2 * self.spread**2, error**2)
        half = self.quantile * np.sqrt(one + self.spread**2 * (row @ self.inverse @ row))
        return _ends(row @ self.coefficients, half)

    def break_even(self, divergence: float, seen: float, labelled: Sequence[float]) -> Ends | None:
        """Number of labelled groups at which the mean gain is zero, with its interval (after Fieller).

        Looked for between the fewest and the most groups of `labelled`; an end that lies beyond is 0 or infinite. None
        where the gain does not fall from above zero to below it in between."""
        tried = np.geomspace(min(labelled), max(labelled), 400)
        rows = np.array([_row(divergence, number, seen) for number in tried])
        value = rows @ self.coefficients
        half = self.quantile * self.spread * np.sqrt(np.sum((rows @ self.inverse) * rows, axis=1))
        low, high = value - half, value + half
        if not (value[0] > 0 >= value[-1]):
            return None
        first = tried[np.argmax(low <= 0)] if low[0] > 0 else 0.0
        last = tried[np.argmax(high < 0)] if high[-1] < 0 else np.inf
        return float(tried[np.argmax(value <= 0)]), float(first), float(last)


def fit(points: Sequence[LawPoint], confidence: float) -> Law | None:
    """The law of these points; None where they are too few, or do not tell the predictors apart."""
    if len(points) < FEWEST_POINTS or len({point.regime for point in points}) < FEWEST_REGIMES:
        return None
    return _least_squares(points, confidence)


def _least_squares(points: Sequence[LawPoint], confidence: float) -> Law | None:
    rows = np.array([_row(point.divergence, point.labelled, point.seen) for point in points])
    gains = np.array([point.gain for point in points])
    freedom = len(points) - len(TERMS)
    if freedom < 1 or not np.isfinite(rows).all() or np.linalg.matrix_rank(rows) < len(TERMS):
        return None
    regimes = np.array([point.regime for point in points])
    covariance = np.eye(len(points)) + (regimes[:, None] == regimes)
    white = np.linalg.inv(np.linalg.cholesky(covariance))
    rows, gains = white @ rows, white @ gains
    coefficients = np.linalg.lstsq(rows, gains, rcond=None)[0]
    spread = float(np.sqrt(np.sum((gains - rows @ coefficients) ** 2) / freedom))
    return Law(coefficients, np.linalg.inv(rows.T @ rows), spread, freedom, confidence)


def held_out(points: Sequence[LawPoint], confidence: float) -> HeldOut | None:
    """Predict each regime from the others; None where the others of one of them have no law."""
    errors, of_mean, covered = [], [], []
    for regime in dict.fromkeys(point.regime for point in points):
        others = [point for point in points if point.regime != regime]
        law = _least_squares(others, confidence)
        if law is None:
            return None
        mean = float(np.mean([point.gain for point in others]))
        for point in (point for point in points if point.regime == regime):
            value, low, high = law.predict(point.divergence, point.labelled, point.seen)
            errors.append(point.gain - value)
            of_mean.append(point.gain - mean)
            covered.append(low <= point.gain <= high)
    return HeldOut(_root_mean_square(errors), _root_mean_square(of_mean), float(np.mean(covered)))


def _root_mean_square(values: list[float]) -> float:
    return float(np.sqrt(np.mean(np.square(values))))


def _row(divergence: float, labelled: float, seen: float) -> np.ndarray:
    return np.array([1.0, divergence, np.log10(labelled), np.log10(seen)])


def _ends(value: float, half: float) -> Ends:
    return float(value), float(value - half), float(value + half)
