"""Intervals of paired differences, the order of testing, and the verdict about each arm.

Uncertainty has two parts:
  which groups were tested   Bayesian bootstrap: each group gets a random exponential weight, the same for all arms,
                             folds and repeats, in the test and the calibration part
  luck of training           variation over trainings that resampling of groups does not explain, from the trainings of
                             the arms compared (training_variance.py); with one repeat an interval does not contain it,
                             and says so. Exploratory quantities share theirs (`intervals`).

Order of testing: the primary arm is compared with its baseline, then with its control, each by itself. Then come all
others of the declared family, with simultaneous intervals (least p over bootstrap draws). A step counts only where
those before it showed a difference, so that any confirmed claim of the family is wrong in at most 5 %; docs/judging.md
has the measured rates. What stands behind a step that showed none is exploratory."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import special

from workflow_scripts.lib.base.seeds import derive
from workflow_scripts.lib.judge.training_variance import (
    LARGE_FREEDOM,
    Design,
    Evidence,
    MeanVariance,
    evidence,
    family_prior,
    mean_variance,
)

HELPS, NO_MORE, HURTS = "helps", "helps, no more than its control", "hurts"
MORE, LESS = "more than its control", "less than its control"
NO_DIFFERENCE, INCONCLUSIVE = "no difference larger than", "inconclusive"
CONFIRMED, EXPLORATORY = "confirmed", "exploratory"  # standing of a comparison, by the order of testing
POWER = 0.8  # of the smallest detectable effect


@dataclass(frozen=True)
class Intervals:
    """Estimates with their intervals; n comparisons."""

    estimate: np.ndarray  # (n,)
    se: np.ndarray  # (n,)
    low: np.ndarray  # simultaneous; single for those that are tested first
    high: np.ndarray
    low_single: np.ndarray  # each by itself
    high_single: np.ndarray
    errors: np.ndarray  # (n, B): draws of the errors of the estimates, correlated as these are
    tail: Callable[[np.ndarray], np.ndarray]  # sizes of errors (n,) -> two-sided probabilities of larger ones (n,)
    repeats: int

    @property
    def p(self) -> np.ndarray:
        """Two-sided p-values (n,), of each by itself: they invert the single intervals."""
        return self.tail(np.abs(self.estimate))

    def probability_better(self) -> np.ndarray:
        """Probability that the true difference is above zero (n,), with a flat prior."""
        return np.where(self.estimate > 0, 1 - self.p / 2, self.p / 2)

    def probability_negligible(self, smallest: float) -> np.ndarray:
        """Probability that the true difference is smaller than the smallest effect of interest (n,).

        This is the region of practical equivalence (ROPE) of Benavoli et al. 2017, with a flat prior."""
        near, far = (
            self.tail(np.abs(ends)) / 2 for ends in (smallest - np.abs(self.estimate), smallest + np.abs(self.estimate))
        )
        return np.where(np.abs(self.estimate) <= smallest, 1 - near, near) - far

    def detectable(self, needed: list[int], power: float = POWER) -> float:
        """The smallest true gain that the rule finds with this power.

        Each comparison of `needed` must lie above zero: an arm with a control must beat the baseline and the control.
        The gain is taken to be equal over both."""
        short = (self.high - self.estimate)[needed, None] - self.errors[needed]
        return float(np.quantile(short.max(axis=0), power))


@dataclass(frozen=True)
class Difference:
    """A comparison by the rows of its arms: `arm` minus `against`, beside a third arm that tells about luck too."""

    arm: int
    against: int
    beside: int | None = None  # of an arm with a control: the one of baseline and control that it is not compared with


def paired_intervals(
    values: np.ndarray,
    draws: np.ndarray,
    pairs: Sequence[Difference],
    plan: Design,
    others: bool,
    confidence: float,
    seed: int,
    first: Sequence[int] = (),
) -> Intervals:
    """Intervals of n differences between arms, from the values of these in L trainings (A, L) and the draws (A, L, B).

    With `others` they hold for other training groups too. Those of `first` rest on their own arms alone, the others
    also on the prior of these others (`training_variance`): an arm with an effect may have another luck.

    Simultaneous over all but `first`: an error of each comparison is drawn, and the level of single intervals is
    lowered until all of them hold together. The luck of two comparisons is drawn as that of arms with luck of their
    own, as few trainings cannot tell how it is correlated."""
    count, alpha, first = len(pairs), 1 - confidence, list(first)
    seen = [_evidence(values, draws, pair, plan, others) for pair in pairs]
    prior = family_prior([one for i, one in enumerate(seen) if i not in first])
    variances = [mean_variance(one, others, None if i in first else prior) for i, one in enumerate(seen)]
    centre = np.array([one.mean[0] for one in seen])
    single = np.array([one.half_width(alpha) for one in variances])
    rng = np.random.default_rng(derive(seed, "judge", "luck"))
    arms, against = (np.array([getattr(pair, side) for pair in pairs], dtype=int) for side in ("arm", "against"))
    noise = rng.standard_normal((len(values), draws.shape[2])) / math.sqrt(2)
    arm_errors = draws.mean(axis=1, dtype=float)
    arm_errors -= arm_errors.mean(axis=1, keepdims=True)
    by_training, by_groups = noise[arms] - noise[against], arm_errors[arms] - arm_errors[against]  # (n, B)
    half_width, rest = single.copy(), [i for i in range(count) if i not in first]
    if len(rest) > 1:
        drawn = by_groups[rest] * _uncertain(plan.freedom, draws.shape[2], seed)
        level = _simultaneous_level([variances[i] for i in rest], drawn, by_training[rest], alpha, rng)
        half_width[rest] = [variances[i].half_width(level) for i in rest]
    ends = (centre - half_width, centre + half_width, centre - single, centre + single)
    median = np.array([one.middle() for one in variances])
    se = np.sqrt(median + [one.known for one in variances])
    errors = by_groups + np.sqrt(median)[:, None] * by_training

    def tail(sizes: np.ndarray) -> np.ndarray:
        return np.array([one.p_value(size) for one, size in zip(variances, sizes, strict=True)])

    return Intervals(centre, se, *ends, errors, tail, plan.repeats)


def _simultaneous_level(
    variances: Sequence[MeanVariance],
    by_groups: np.ndarray,
    by_training: np.ndarray,
    alpha: float,
    rng: np.random.Generator,
) -> float:
    """Error rate of single intervals at which all of them together have `alpha`, from drawn errors (n, B).

    In each draw the comparison of the least p counts. `by_training` has variance 1: its size is drawn, too."""
    least = np.ones(by_groups.shape[1])
    for variance, groups, training in zip(variances, by_groups, by_training, strict=True):
        size = np.sqrt(variance.draw(rng.random(len(groups))))
        least = np.minimum(least, variance.p_value(groups + size * training))
    # Never below Bonferroni's level, which always suffices: few draws show the tail only roughly.
    return float(np.clip(np.quantile(least, alpha), alpha / len(variances), alpha))


def _uncertain(freedom: float, count: int, seed: int) -> np.ndarray | float:
    """Factors (B,) of errors over groups whose variance is known with so many degrees of freedom alone.

    All comparisons share them, as they share the groups."""
    if not freedom < LARGE_FREEDOM:
        return 1.0
    return np.sqrt(freedom / np.random.default_rng(derive(seed, "judge", "groups")).chisquare(freedom, count))


def _evidence(values: np.ndarray, draws: np.ndarray, pair: Difference, plan: Design, others: bool) -> Evidence:
    against = [pair.against, *([] if pair.beside is None else [pair.beside])]
    return evidence(values[pair.arm] - values[against], draws[pair.arm] - draws[against], plan, others)


def intervals(
    estimates: np.ndarray, draws: np.ndarray, confidence: float, seed: int, first: Sequence[int] = ()
) -> Intervals:
    """Intervals of n quantities from their estimates (n, R) in R repeats and the bootstrap draws of these (n, R, B).

    Simultaneous over all but `first`, which are tested before the others and each by itself. The bootstrap variance is
    that of the mean over repeats. The variance that repeats add is put on top of it as noise on the draws, so that
    max-t sees both. Intervals are symmetric around the estimate, so the bias of the bootstrap stays out."""
    count, repeats = estimates.shape
    centre = estimates.mean(axis=1)
    spread = draws.mean(axis=1, dtype=np.float64)
    spread = spread - spread.mean(axis=1, keepdims=True)
    se = spread.std(axis=1)
    errors, freedom = spread, np.full(count, np.inf)
    if repeats > 1 and count:
        between = _between_repeats(estimates, draws, seed)
        # Of the bootstrap variance the part that all repeats share remains; the rest is in `between`.
        shared = spread * np.sqrt(_ratio(np.maximum(se**2 - between.known, 0), se**2))[:, None]
        own = between.noise * np.sqrt(between.size)[:, None]
        errors = shared + own * np.sqrt(_ratio(between.expected, between.size))[:, None]
        spread = shared + own
        se = np.sqrt(se**2 - between.known + between.size)
        # Satterthwaite: many degrees of freedom for the shared part, few for the part between repeats.
        fraction = _ratio(between.size, se**2) ** 2
        freedom = np.divide(between.freedom, fraction, out=freedom, where=fraction > 0)
    t = np.abs(np.divide(spread, se[:, None], out=np.zeros_like(spread), where=se[:, None] > 0))
    single = np.quantile(t, confidence, axis=1) * se if count else se
    widest, rest = np.array(single), np.setdiff1d(np.arange(count), np.asarray(first, dtype=int))
    if len(rest):
        widest[rest] = np.quantile(t[rest].max(axis=0), confidence) * se[rest]
    ends = (centre - widest, centre + widest, centre - single, centre + single)
    # Student's t, but for a factor that gives the ends of the single interval a p-value of 1 - confidence.
    usual = special.stdtrit(freedom, (1 + confidence) / 2)
    width = np.divide(single, usual, out=np.zeros(count), where=usual > 0)
    return Intervals(centre, se, *ends, errors, lambda sizes: _tail(sizes, width, freedom), repeats)


@dataclass(frozen=True)
class BetweenRepeats:
    """Between-repeat variance, as variances (n,) of the mean over repeats."""

    known: np.ndarray  # the part that the bootstrap explains: the repeats' models err on different groups
    size: np.ndarray  # all of it, rounded up to be safe: at least `known`
    expected: np.ndarray  # all of it, on average
    freedom: float  # degrees of freedom of `size`
    noise: np.ndarray  # (n, B) of variance 1 but for its tails, correlated as the repeats are


def _between_repeats(estimates: np.ndarray, draws: np.ndarray, seed: int) -> BetweenRepeats:
    """Between-repeat variance, from estimates (n, R) of R repeats and their bootstrap draws (n, R, B).

    Repeats differ by more than the bootstrap explains; few repeats show only roughly by how much. So each quantity gets
    the larger of its own surplus and the mean over all n, and the noise has the tails of Student's t. Differences to
    one baseline are correlated by a half, so that n of them count as 4n / (n + 3) independent ones (from the
    eigenvalues of that correlation)."""
    repeats = estimates.shape[1]
    rng = np.random.default_rng(derive(seed, "judge", "repeats"))
    noise = rng.standard_normal((repeats, draws.shape[2]))
    deviation = np.nan_to_num(estimates - estimates.mean(axis=1, keepdims=True))
    total = (deviation**2).sum(axis=1) / (repeats - 1)
    known = np.nan_to_num(draws - draws.mean(axis=2, keepdims=True)).var(axis=1, ddof=1).mean(axis=1)
    # Two arms that are equal in every draw have no variance of their own.
    differ = (total > 0) | (known > 0)
    surplus = np.where(differ, total - known, 0.0)
    told = ~np.isnan(estimates).any(axis=1)  # the others, such as classes that a repeat does not test, tell nothing
    mean = (max(float(surplus[told].mean()), 0.0) if told.any() else 0.0) * differ
    size = known + np.maximum(surplus, mean)
    several = max(1, int(told.sum()))
    freedom = (repeats - 1) * 4 * several / (several + 3)
    noise /= np.sqrt(rng.chisquare(freedom, draws.shape[2]) / freedom)
    length = np.sqrt(total * (repeats - 1))[:, None]
    along = np.divide(deviation, length, out=np.full_like(deviation, repeats**-0.5), where=length > 0)
    return BetweenRepeats(known / repeats, size / repeats, (known + mean) / repeats, freedom, along @ noise)


def _tail(sizes: np.ndarray, width: np.ndarray, freedom: np.ndarray) -> np.ndarray:
    t = np.divide(sizes, width, out=np.where(sizes == 0, 0.0, np.inf), where=width > 0)
    return 2 * special.stdtr(freedom, -t)


def _ratio(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    return np.divide(above, below, out=np.zeros_like(below), where=below > 0)


def standing(differences: Intervals, first: Sequence[int]) -> list[str]:
    """Standing of each comparison where those of `first` are tested one after the other, and then all others.

    One repeat confirms nothing: its intervals lack the variance between repeats."""
    if differences.repeats == 1:
        return [EXPLORATORY] * len(differences.se)
    apart = (differences.low > 0) | (differences.high < 0)
    passed = len(first) if apart[list(first)].all() else int(np.argmin(apart[list(first)]))
    out = [CONFIRMED if passed == len(first) else EXPLORATORY] * len(differences.se)
    for step, i in enumerate(first):
        out[i] = CONFIRMED if step <= passed else EXPLORATORY
    return out


def verdict(low: float, high: float, smallest_effect: float, beyond_control: tuple[float, float] | None = None) -> str:
    """The verdict about an arm, from the simultaneous interval of its difference to the baseline.

    In this order: `hurts` where the interval lies below zero; `helps` where it lies above zero and so does the interval
    of arm minus control (or there is no control), else `helps, no more than its control`; `no difference larger than x`
    where its larger end x is under the smallest effect of interest; else `inconclusive`."""
    if any(math.isnan(value) for value in (low, high, *(beyond_control or ()))):
        return INCONCLUSIVE
    if high < 0:
        return HURTS
    if low > 0:
        return HELPS if beyond_control is None or beyond_control[0] > 0 else NO_MORE
    larger = max(abs(low), abs(high))
    if larger < smallest_effect:
        # Rounded up: the sentence must stay true.
        return f"{NO_DIFFERENCE} {math.ceil(larger * 1000 - 1e-9) / 1000:.3f}"
    return INCONCLUSIVE


def exploratory_verdict(difference: float, q: float, confidence: float, relation: str) -> str:
    """The verdict of a comparison among many, from its false discovery rate q; `relation` is baseline or control."""
    gain, loss = (HELPS, HURTS) if relation == "baseline" else (MORE, LESS)
    if not q <= 1 - confidence:  # an unknown q (NaN) too
        return INCONCLUSIVE
    return gain if difference > 0 else loss


def discovery_rates(p: np.ndarray) -> np.ndarray:
    """False discovery rates q of p-values (n,), by Benjamini and Hochberg; an unknown p (NaN) has an unknown q."""
    # Imported here: it takes a second, for which every stage that draws a figure would wait.
    from scipy import stats

    known = ~np.isnan(p)
    out = np.full(len(p), np.nan)
    out[known] = stats.false_discovery_control(p[known])
    return out


def nadeau_bengio(differences: np.ndarray, test_to_train: float, confidence: float) -> tuple[float, float, float]:
    """Mean, low and high of fold-wise differences by the corrected resampled t-test (Nadeau and Bengio 2003).

    Folds share training images, so the variance is s^2 (1/n + n_test/n_train). NaN ends from fewer than two folds."""
    known = np.asarray(differences, dtype=float)
    known = known[~np.isnan(known)]
    if len(known) < 2:
        return (float(known.mean()) if len(known) else math.nan), math.nan, math.nan
    half = float(special.stdtrit(len(known) - 1, (1 + confidence) / 2))
    half *= math.sqrt(known.var(ddof=1) * (1 / len(known) + test_to_train))
    return float(known.mean()), float(known.mean() - half), float(known.mean() + half)
