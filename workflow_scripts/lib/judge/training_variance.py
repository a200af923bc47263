"""Variance of a paired difference over trainings: how far the mean of few trainings may lie from the truth.

A run trains each arm once in every fold of every repeat. The differences y of these trainings have the covariance

    S = C + t ((1 - q) I + q K)

  C  variance over test and calibration groups, known from the bootstrap
  I  luck of training (and of the generator): independent from training to training
  K  luck of the training set: two trainings share it as far as they share training groups

t, their size, and q, the share of the training set, are unknown. Both are integrated out over a grid, as few trainings
tell them only roughly: the likelihood is that of the contrasts of y (REML), the prior of t is that of Jeffreys, that of
q is flat. With C = 0 and q = 0 the result is Student's t-test of the trainings. Each comparison is judged by its own
trainings: no other comparison narrows its interval.

Given these training groups (claim `these_proteins`) q is 0. Knows nothing of arms or verdicts."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import special

from workflow_scripts.lib.judge.fold_scores import FoldScores

# Gauss-Legendre nodes for the share q of the training set in the luck; never 1, where K may be singular.
SHARES, SHARE_WEIGHTS = (
    0.5 * (values + add) for values, add in zip(np.polynomial.legendre.leggauss(6), (1, 0), strict=True)
)
# Sizes of the luck, relative to the scatter seen: Student's t of one degree of freedom still has its tails there.
SIZES = np.geomspace(1e-4, 1e6, 100)
NEGLIGIBLE = 1e-6  # weight of a grid point that is left out


@dataclass(frozen=True)
class Design:
    """The trainings of an arm: L = repeats times folds."""

    places: list[tuple[int, int]]  # (repeat, fold) of each
    shared: np.ndarray  # (L, L): covariance of a sum over training groups, for groups of variance 1 (K but for scale)
    fixed: bool  # every fold tests the same groups in all repeats: cell lines left out in turn

    def contrasts(self, others: bool) -> np.ndarray:
        """Orthonormal contrasts (m, L) that show the luck: deviations from the mean.

        Where folds are fixed and nothing is claimed beyond them, deviations from the mean of each fold."""
        count = len(self.places)
        if self.fixed and not others and len({repeat for repeat, _ in self.places}) > 1:
            folds = np.array([fold for _, fold in self.places])
            means = (folds[:, None] == np.unique(folds)).astype(float)
        else:
            means = np.ones((count, 1))
        whole, _ = np.linalg.qr(np.column_stack([means, np.eye(count)]))
        return whole[:, means.shape[1] : count].T

    def kernel(self) -> np.ndarray:
        """K (L, L): of fixed folds, what they share is the fold itself."""
        folds = np.array([fold for _, fold in self.places])
        return (folds[:, None] == folds).astype(float) if self.fixed else self.shared


def design(folds: list[FoldScores], groups: int) -> Design:
    """The design of a run from the groups that each fold holds back; all other groups of the run are trained on."""
    places = [(fold.repeat, fold.fold) for fold in folds]
    tested, trained = np.zeros((2, len(folds), groups))
    for row, fold in enumerate(folds):
        tested[row, fold.test.groups] = 1
        trained[row] = 1 - tested[row]
        for part in (fold.calibration, fold.validation):
            trained[row, part.groups] = 0
    if not trained.any(axis=1).all():  # all groups are held back: take those that are not tested
        trained = np.where(tested.all(axis=1, keepdims=True), 1.0, 1 - tested)
    trained /= np.maximum(trained.sum(axis=1, keepdims=True), 1)
    by_fold: dict[int, list[np.ndarray]] = {}
    for (_, fold), row in zip(places, tested, strict=True):
        by_fold.setdefault(fold, []).append(row)
    several = len(by_fold) > 1 and len(folds) > len(by_fold)
    fixed = several and all(np.array_equal(rows[0], row) for rows in by_fold.values() for row in rows)
    return Design(places, trained @ trained.T, fixed)


@dataclass(frozen=True)
class MeanVariance:
    """What is known of the variance of a mean: values with their probabilities, both (m,)."""

    values: np.ndarray
    weights: np.ndarray
    known: float  # the part that the bootstrap explains

    def half_width(self, level: float) -> float:
        """Half the width of the interval that errs with probability `level`."""
        low, high = 0.0, 10.0 * np.sqrt(self.values.max())
        for _ in range(40):
            middle = (low + high) / 2
            low, high = (middle, high) if self.p_value(middle) > level else (low, middle)
        return float(high)

    def p_value(self, error: float | np.ndarray) -> np.ndarray:
        """Two-sided probability of an error at least this large: inverts `half_width`."""
        size, spread = np.abs(np.asarray(error, dtype=float))[..., None], np.sqrt(self.values)
        ratio = np.divide(size, spread, out=np.where(size > 0, np.inf, 0.0) + 0 * spread, where=spread > 0)
        return (2 * special.ndtr(-ratio)) @ self.weights

    def middle(self) -> float:
        """Median of the luck's part."""
        order = np.argsort(self.values)
        place = np.searchsorted(np.cumsum(self.weights[order]), 0.5)
        return float(max(0.0, self.values[order[min(place, len(order) - 1)]] - self.known))

    def draw(self, uniform: np.ndarray) -> np.ndarray:
        """The luck's part, drawn: uniform numbers (B,) -> variances (B,)."""
        place = np.searchsorted(np.cumsum(self.weights), uniform).clip(max=len(self.values) - 1)
        return np.maximum(0.0, self.values[place] - self.known)


def mean_variance(values: np.ndarray, draws: np.ndarray, plan: Design, others: bool) -> MeanVariance:
    """Variance of the mean of trainings (L,), from their bootstrap draws (L, B).

    With `others` as a claim about other training groups too: the luck of the training set does not average out."""
    count = len(values)
    covariance = np.atleast_2d(np.cov(draws, ddof=0))
    known = float(covariance.mean())
    contrasts = plan.contrasts(others)
    seen, noise = contrasts @ values, contrasts @ covariance @ contrasts.T
    scale = float((seen**2).mean() + np.trace(noise) / len(noise))
    if scale <= 0:
        return MeanVariance(np.array([known]), np.ones(1), known)
    sizes = scale * SIZES
    if not others:
        values_, weights = _integrate(seen, noise, np.eye(len(seen)), sizes), known + sizes / count
        logs, variances = [values_], [weights]
    else:
        kernel = contrasts @ plan.kernel() @ contrasts.T
        unit = np.trace(kernel) / len(kernel)
        through = plan.kernel().mean() / unit if unit > 0 else 1 / count
        kernel = kernel / unit if unit > 0 else np.eye(len(seen))
        logs, variances = [], []
        for share, prior in zip(SHARES, SHARE_WEIGHTS, strict=True):
            mixed = (1 - share) * np.eye(len(seen)) + share * kernel
            logs.append(_integrate(seen, noise, mixed, sizes) + np.log(prior))
            variances.append(known + sizes * ((1 - share) / count + share * through))
    log, variance = np.concatenate(logs), np.concatenate(variances)
    weight = np.exp(log - log.max())
    weight /= weight.sum()
    kept = weight > NEGLIGIBLE
    return MeanVariance(variance[kept], weight[kept] / weight[kept].sum(), known)


def _integrate(seen: np.ndarray, noise: np.ndarray, mixed: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Logarithm of likelihood times Jeffreys' prior at each size (S,) of a logarithmic grid.

    `seen` (m,) has the covariance noise + size * mixed."""
    lower = np.linalg.cholesky(mixed)
    inverse = np.linalg.inv(lower)
    roots, vectors = np.linalg.eigh(inverse @ noise @ inverse.T)
    squares = (vectors.T @ inverse @ seen) ** 2
    total = np.maximum(roots, 0)[:, None] + sizes  # (m, S)
    log = -np.log(np.diag(lower)).sum() - 0.5 * (np.log(total) + squares[:, None] / total).sum(axis=0)
    # Jeffreys: root of the Fisher information of the size; the last term makes the grid one of the size itself.
    return log + 0.5 * np.log((total**-2.0).sum(axis=0)) + np.log(sizes)
