"""Variance of a paired difference over trainings: how far the mean of few trainings may lie from the truth.

A run trains each arm once in every fold of every repeat. The differences of these trainings have the covariance

    C + (1 - q) U I + q U K

  C  variance over test and calibration groups, known from the bootstrap
  I  luck of training (and of the generator): independent from training to training
  K  luck of the training set: two trainings share it as far as they share training groups
  U  size of the luck: the sum of that of both arms

U and the share q are unknown and integrated out over a grid, by the likelihood of the contrasts of trainings (REML).
An arm has luck of its own, s_a = s exp(tau z_a) with standard normal z_a, so an arm, its baseline and its control are
read together and few trainings tell more. The common size s has Jeffreys' prior: with C = 0, q = 0 and equal arms the
result is Student's t-test. The primary arm is judged by these three arms alone. Other comparisons are many, so their
variance is also moderated by that of the family (Smyth 2004, limma): see `family_prior`.

C is an estimate too. Where few groups weigh much it has few degrees of freedom (`Design.freedom`, by simulation).
Given these training groups (claim `these_proteins`) q is 0. Knows nothing of verdicts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import pairwise

import numpy as np
from scipy import optimize, special

from workflow_scripts.lib.judge.fold_scores import FoldScores

SPREAD = 3.0  # tau: standard deviation of the logarithm of an arm's luck; one arm may have many times that of another
NODES = 9  # of Gauss and Hermite, for each of three arms
# Gauss-Legendre nodes for the share q of the training set in the luck; never 1, where K may be singular. Trainings can
# hardly tell q, and a small one makes the wider claim too easy: its prior has the density 4 q^3, with a mean of 0.8.
SHARES, SHARE_WEIGHTS = (
    0.5 * (values + add) for values, add in zip(np.polynomial.legendre.leggauss(5), (1, 0), strict=True)
)
SHARE_WEIGHTS = 4 * SHARES**3 * SHARE_WEIGHTS
# Sizes of the luck, beside the scatter that was seen: Student's t of one degree of freedom still has its tails there.
SIZES = np.geomspace(1e-4, 1e5, 40)
BINS = 120  # of the variance of a mean
LARGE_FREEDOM = 1000  # degrees of freedom from which on a variance counts as known
GROUP_NODES = 20  # of the variance over groups, where that is badly known
MOST_FREEDOM = 10.0  # of the family's prior: comparisons that share an arm or a generator tell less than they seem to
SHARED = 0.25  # correlation of log variances of two differences from one baseline
LEVEL = 0.95  # at which the degrees of freedom of the variance over groups are right
SIMULATED, SIMULATED_DRAWS = 4_000, 400  # errors that are simulated for it, and bootstrap draws of each
LARGE, MERGED = 60, 200  # groups of a class that are simulated one by one, and what the others are merged into
ALIKE = 1e-9  # relative difference below which training sets are the same
ERRORS = np.concatenate([[0.0], np.geomspace(0.01, 1e4, 200)])  # of the table of p-values, in standard errors


@dataclass(frozen=True)
class Design:
    """The trainings of an arm: L = repeats times folds."""

    places: list[tuple[int, int]]  # (repeat, fold) of each
    shared: np.ndarray  # (L, L): covariance of a sum over training groups, for groups of variance 1 (K but for scale)
    fixed: bool  # every fold tests the same groups in all repeats: cell lines left out in turn
    freedom: float = np.inf  # degrees of freedom of the variance over groups

    @property
    def tells_others(self) -> bool:
        """Whether training sets differ, so that something is seen of other ones."""
        kernel = self.kernel()
        return bool(np.ptp(kernel) > ALIKE * kernel.max())

    @property
    def repeats(self) -> int:
        """Number of repeats."""
        return len({repeat for repeat, _ in self.places})

    def strata(self, others: bool) -> list[np.ndarray]:
        """Orthonormal contrasts (m, L) that show the luck: between repeats, and within them.

        Of folds that stay the same, the differences between folds stand apart. They are no luck unless the claim goes
        beyond these folds."""
        repeats, folds = (np.array(column) for column in zip(*self.places, strict=True))
        ones = np.ones((len(repeats), 1))
        by_repeat, by_fold = ((own[:, None] == np.unique(own)).astype(float) for own in (repeats, folds))
        if not self.fixed:
            steps = [ones, by_repeat, np.eye(len(repeats))]
        else:
            steps = [ones, by_fold, np.eye(len(repeats))]
        out = [_beyond(before, after) for before, after in pairwise(steps)]
        if self.fixed and not others and self.repeats > 1:
            out = out[1:]
        return [one for one in out if len(one)]

    def kernel(self) -> np.ndarray:
        """K (L, L): of fixed folds, what they share is the fold itself."""
        folds = np.array([fold for _, fold in self.places])
        return (folds[:, None] == folds).astype(float) if self.fixed else self.shared


def _beyond(inner: np.ndarray, outer: np.ndarray) -> np.ndarray:
    """Orthonormal basis (m, L) of what the columns of `outer` span beyond those of `inner`."""
    basis = np.linalg.qr(inner)[0]
    left, sizes, _ = np.linalg.svd(outer - basis @ (basis.T @ outer), full_matrices=False)
    return left[:, sizes > 1e-9 * max(1.0, sizes.max(initial=0))].T


def design(folds: list[FoldScores], groups: int, judged: np.ndarray, train_groups: float = 0.0) -> Design:
    """The design of a run from the groups that each fold holds back; all other groups of the run are trained on.

    `groups` are those that any fold holds back. Of `train_groups`, the number that a fold is trained on, the others are
    trained on in all folds."""
    places = [(fold.repeat, fold.fold) for fold in folds]
    tested, trained = np.zeros((2, len(folds), groups))
    for row, fold in enumerate(folds):
        tested[row, fold.test.groups] = 1
        trained[row] = 1 - tested[row]
        for part in (fold.calibration, fold.validation):
            trained[row, part.groups] = 0
    always = max(0.0, train_groups - trained.sum(axis=1).mean())
    if not always and not trained.any(axis=1).all():  # all groups are held back: take those that are not tested
        trained = np.where(tested.all(axis=1, keepdims=True), 1.0, 1 - tested)
    sizes = np.maximum(trained.sum(axis=1) + always, 1)
    by_fold: dict[int, list[np.ndarray]] = {}
    for (_, fold), row in zip(places, tested, strict=True):
        by_fold.setdefault(fold, []).append(row)
    several = len(by_fold) > 1 and len(folds) > len(by_fold)
    fixed = several and all(np.array_equal(rows[0], row) for rows in by_fold.values() for row in rows)
    shared = (trained @ trained.T + always) / np.outer(sizes, sizes)
    return Design(places, shared, fixed, group_freedom(folds, groups, judged))


def group_freedom(folds: list[FoldScores], groups: int, judged: np.ndarray) -> float:
    """Degrees of freedom of a variance over groups, by the fraction of a class's positives that each group holds."""
    held = np.zeros((int(judged.sum()), groups))
    for fold in folds:
        for row, column in zip(held, fold.test.labels.T[judged], strict=True):
            own = np.bincount(fold.test.groups, column, groups)
            row += own / max(own.sum(), 1)
    return freedom_of(held[held.any(axis=1)])


def freedom_of(held: np.ndarray) -> float:
    """Degrees of freedom of the variance over groups of a mean over classes, from what groups hold of each (C, G).

    By simulation: groups err normally and independently in each class, and the Bayesian bootstrap estimates the
    standard error of the mean. The ratio of error and standard error exceeds some size in one case of twenty. Student's
    t with these degrees does so at the same size. Of k equal groups they are about k - 1. Satterthwaite's approximation
    takes error and standard error for independent: where one group dominates both it is far too careful."""
    if not len(held):
        return np.inf
    size = _largest_ratio(held.astype(float).tobytes(), held.shape)
    if size <= special.ndtri((1 + LEVEL) / 2) * 1.01:  # as good as normal, within the accuracy of the simulation
        return np.inf
    least, most = 0.5, 1e5
    if special.stdtrit(least, (1 + LEVEL) / 2) <= size:
        return least
    return float(optimize.brentq(lambda nu: special.stdtrit(nu, (1 + LEVEL) / 2) - size, least, most))


@lru_cache(maxsize=64)  # arms of a run share their test groups
def _largest_ratio(held: bytes, shape: tuple[int, int]) -> float:
    """The size that an error over its estimated standard error exceeds with probability 1 - LEVEL; see `freedom_of`."""
    weights = np.frombuffer(held).reshape(shape)
    rng, kinds = np.random.default_rng(0), len(weights)
    drawn = rng.standard_exponential((SIMULATED_DRAWS, shape[1]))  # a group has one weight in all classes
    error, apart = np.zeros(SIMULATED), np.zeros((SIMULATED_DRAWS, SIMULATED))
    for own in weights / weights.sum(axis=1, keepdims=True):
        large = np.argsort(-own, kind="stable")[:LARGE]
        # The many small groups are merged into as many equal ones as they amount to, at most.
        rest = max(0.0, 1 - float(own[large].sum()))
        squares = float((own**2).sum() - (own[large] ** 2).sum())
        merged = min(MERGED, round(rest**2 / squares)) if squares > 1e-12 else 0
        fractions = np.concatenate([own[large], np.full(merged, rest / max(1, merged))])
        weighted = np.hstack([drawn[:, large], rng.standard_exponential((SIMULATED_DRAWS, merged))]) * fractions
        weighted /= weighted.sum(axis=1, keepdims=True)
        each = rng.standard_normal((len(fractions), SIMULATED))
        widening = 1 / np.sqrt(max(1 - float((own**2).sum()), 1e-3))  # as the judge widens draws of few groups
        error += fractions @ each / kinds
        apart += widening * (weighted - fractions) @ each / kinds
    return float(np.quantile(np.abs(error) / apart.std(axis=0), LEVEL))


# ---- what trainings show ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Evidence:
    """What the trainings show of n = 1 or 2 differences of one arm from others."""

    freedom: np.ndarray  # (S,) contrasts of each stratum
    scatter: np.ndarray  # (S, n, n) sums of squares and products over contrasts
    noise: np.ndarray  # (S, n, n) what the bootstrap explains of one contrast
    shares: np.ndarray  # (S,) variance of a contrast by the luck of the training set, on average 1
    through: float  # variance of the mean by the luck of the training set, on the same scale
    mean: np.ndarray  # (n,)
    known: np.ndarray  # (n,) variance of the mean by the bootstrap
    trainings: int
    group_freedom: float

    def variance(self) -> float:
        """Variance of the first difference over trainings."""
        return float(self.scatter[:, 0, 0].sum() / self.freedom.sum())


def evidence(values: np.ndarray, draws: np.ndarray, plan: Design, others: bool) -> Evidence:
    """What n differences (n, L) and their bootstrap draws (n, L, B) show."""
    count, length = values.shape
    flat = draws.reshape(count * length, -1).astype(float)
    covariance = np.atleast_2d(np.cov(flat, ddof=0)).reshape(count, length, count, length)
    strata, kernel = plan.strata(others), plan.kernel()
    seen = [contrasts @ values.T for contrasts in strata]
    freedom = np.array([len(contrasts) for contrasts in strata])
    noise = [np.einsum("cl,klnm,cm->kn", q, covariance, q) / len(q) for q in strata]
    shares = np.array([np.trace(q @ kernel @ q.T) / len(q) for q in strata])
    unit = float((shares * freedom).sum() / freedom.sum())
    told = plan.tells_others and unit > 0
    through = float(kernel.mean()) / unit if told else 1 / length
    return Evidence(
        freedom,
        np.array([one.T @ one for one in seen]),
        np.array(noise),
        shares / unit if told else np.ones(len(strata)),
        through,
        values.mean(axis=1),
        np.einsum("klkm->k", covariance) / length**2,
        length,
        plan.freedom,
    )


@dataclass(frozen=True)
class Prior:
    """Scaled inverse chi-square prior of a difference's variance over trainings; 0 degrees: nothing is known."""

    freedom: float = 0.0
    size: float = 1.0


def family_prior(family: Sequence[Evidence]) -> Prior:
    """Prior of the variances of a family by the method of moments on their logarithms (Smyth 2004).

    Differences from one baseline are correlated, so their logarithms scatter less than independent ones. Fewer than
    three tell nothing of their own spread."""
    variances = np.array([value for one in family if (value := one.variance()) > 0])
    if len(variances) < 3:
        return Prior()
    half = family[0].freedom.sum() / 2
    logs = np.log(variances) - special.digamma(half) + np.log(half)
    surplus = logs.var(ddof=1) - (1 - SHARED) * special.polygamma(1, half)
    freedom = MOST_FREEDOM
    if surplus > special.polygamma(1, MOST_FREEDOM / 2):
        freedom = 2 * optimize.brentq(lambda x: special.polygamma(1, x) - surplus, 1e-4, MOST_FREEDOM / 2)
    return Prior(freedom, float(np.exp(logs.mean() + special.digamma(freedom / 2) - np.log(freedom / 2))))


# ---- what is concluded -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class MeanVariance:
    """What is known of the variance of a mean: that by luck (m,) with its probabilities, and that over groups."""

    luck: np.ndarray
    weights: np.ndarray
    known: float  # variance over groups, by the bootstrap
    group_freedom: float = np.inf

    @cached_property
    def _table(self) -> tuple[np.ndarray, np.ndarray]:
        """Sizes of an error, and the logarithms of the probabilities of larger ones."""
        known, chance = np.array([self.known]), np.ones(1)
        if self.group_freedom < LARGE_FREEDOM and self.known > 0:
            levels = (np.arange(GROUP_NODES) + 0.5) / GROUP_NODES
            # Quantiles of the chi-square distribution.
            known = self.known * self.group_freedom / (2 * special.gammaincinv(self.group_freedom / 2, levels))
            chance = np.full(GROUP_NODES, 1 / GROUP_NODES)
        variance, weights = (self.luck[:, None] + known).ravel(), (self.weights[:, None] * chance).ravel()
        if not variance.any():
            return np.zeros(1), np.zeros(1)
        variance, weights = _binned(variance, weights)
        errors = ERRORS * np.sqrt(self.known if self.known > 0 else variance @ weights)
        farthest = 10 * np.sqrt(variance.max())
        if errors[-1] < farthest:  # arms that differ alike in all draws: what luck does is far beyond these steps
            errors = np.append(errors, np.geomspace(errors[-1], farthest, len(ERRORS))[1:])
        p = (2 * special.ndtr(-errors[:, None] / np.sqrt(variance))) @ weights
        return errors, np.log(np.maximum(p, 1e-300))

    def half_width(self, level: float) -> float:
        """Half the width of the interval that errs with probability `level`."""
        errors, logs = self._table
        return float(np.interp(-np.log(level), -logs, errors)) if errors[-1] > 0 else 0.0

    def p_value(self, error: float | np.ndarray) -> np.ndarray:
        """Two-sided probability of an error at least this large: inverts `half_width`."""
        errors, logs = self._table
        size = np.abs(np.asarray(error, dtype=float))
        if errors[-1] <= 0:
            return np.where(size > 0, 0.0, 1.0)
        return np.exp(np.interp(size, errors, logs))

    def middle(self) -> float:
        """Median of the luck's part."""
        return float(self.luck[np.searchsorted(np.cumsum(self.weights), 0.5).clip(max=len(self.luck) - 1)])

    def draw(self, uniform: np.ndarray) -> np.ndarray:
        """The luck's part, drawn: uniform numbers (B,) -> variances (B,)."""
        return self.luck[np.searchsorted(np.cumsum(self.weights), uniform).clip(max=len(self.luck) - 1)]


def mean_variance(seen: Evidence, others: bool, prior: Prior | None = None) -> MeanVariance:
    """Variance of the mean of the first difference.

    With `others` as a claim about other training groups too: the luck of the training set does not average out."""
    count, prior = seen.noise.shape[1], prior or Prior()
    arms, log = _arms(count)
    # Variance of one arm by the bootstrap and by what was seen: sizes of the luck are multiples of it.
    per_arm = 0.5 * np.einsum("s,skk->", seen.freedom, seen.noise) / seen.freedom.sum() / count
    scale = per_arm + 0.5 * np.einsum("skk->", seen.scatter) / seen.freedom.sum() / count
    if scale <= 0:
        return MeanVariance(np.zeros(1), np.ones(1), float(seen.known[0]), seen.group_freedom)
    sizes = scale * SIZES
    luck = (arms[:, 0] + arms[:, 1])[:, None] * sizes  # (arms, sizes): of the first difference
    log = log[:, None] + np.log(sizes / (per_arm + sizes))
    if prior.freedom > 0:
        whole = 2 * per_arm + luck
        log = log - 0.5 * prior.freedom * (np.log(whole) + prior.size / whole)
    logs, means = [], []
    shares = zip(SHARES, SHARE_WEIGHTS, strict=True) if others else [(0.0, 1.0)]
    for share, weight in shares:
        factors = (1 - share) + share * seen.shares
        logs.append(log + _likelihood(seen, arms, sizes, factors) + np.log(weight))
        means.append(luck * ((1 - share) / seen.trainings + share * seen.through))
    whole_log, variances = np.array(logs).ravel(), np.array(means).ravel()
    weights = np.exp(whole_log - whole_log.max())
    return MeanVariance(*_binned(variances, weights / weights.sum()), float(seen.known[0]), seen.group_freedom)


def _arms(differences: int) -> tuple[np.ndarray, np.ndarray]:
    """Luck of the arms (c, 3), of the average arm 1, and the logarithms of their probabilities (c,).

    The columns are the arm, what the first difference is from, and what the second is from. Of one difference alone
    only the sum could be told."""
    if differences == 1:
        return np.ones((1, 3)), np.zeros(1)
    nodes, weights = np.polynomial.hermite_e.hermegauss(NODES)
    grid = np.stack(np.meshgrid(*[nodes] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
    chance = np.stack(np.meshgrid(*[weights / weights.sum()] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
    return np.exp(SPREAD * grid), np.log(chance).sum(axis=1)


def _likelihood(seen: Evidence, arms: np.ndarray, sizes: np.ndarray, factors: np.ndarray) -> np.ndarray:
    """Logarithm of the likelihood (c, m) of arms (c, 3) and sizes (m,); the luck counts by a factor in each stratum.

    The covariance of two differences is N + x M with M of the arms' luck; its determinant is a polynomial in x."""
    first, second, both = arms[:, 0] + arms[:, 1], arms[:, 0] + arms[:, 2], arms[:, 0]
    out = np.zeros((len(arms), len(sizes)))
    for m, s, n, factor in zip(seen.freedom, seen.scatter, seen.noise, factors, strict=True):
        x = factor * sizes
        if len(n) == 1:
            determinant = n[0, 0] + first[:, None] * x
            quadratic = s[0, 0] / determinant
        else:
            linear = n[0, 0] * second + n[1, 1] * first - 2 * n[0, 1] * both
            constant = max(n[0, 0] * n[1, 1] - n[0, 1] ** 2, 0.0)
            determinant = constant + linear[:, None] * x + (first * second - both**2)[:, None] * x**2
            constant = n[1, 1] * s[0, 0] + n[0, 0] * s[1, 1] - 2 * n[0, 1] * s[0, 1]
            linear = second * s[0, 0] + first * s[1, 1] - 2 * both * s[0, 1]
            quadratic = (constant + linear[:, None] * x) / determinant
        out -= 0.5 * (m * np.log(determinant) + quadratic)
    return out


def _binned(values: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Positive values with their weights as a few values, ascending, on a logarithmic scale."""
    kept = (weights > 1e-10) & (values > 0)
    values, weights = values[kept], weights[kept]
    edges = np.geomspace(values.min() * (1 - 1e-9), values.max() * (1 + 1e-9), BINS + 1)
    place = np.clip(np.searchsorted(edges, values) - 1, 0, BINS - 1)
    total = np.bincount(place, weights, BINS)
    kept = total > 0
    return np.bincount(place, weights * values, BINS)[kept] / total[kept], total[kept] / total.sum()
