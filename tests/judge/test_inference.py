"""The judge on constructed intervals, against closed forms, and on worlds whose truth is known."""

import math

import numpy as np
import pytest
from scipy import stats

from workflow_scripts.lib.judge import inference


@pytest.mark.parametrize(
    ("low", "high", "control", "expected"),
    [
        (0.01, 0.05, None, "helps"),
        (0.01, 0.05, (0.001, 0.04), "helps"),
        (0.01, 0.05, (-0.01, 0.04), "helps, no more than its control"),
        (0.01, 0.05, (-0.04, -0.01), "helps, no more than its control"),
        (-0.05, -0.01, None, "hurts"),
        (-0.05, -0.01, (0.01, 0.02), "hurts"),
        (-0.01, 0.0183, (0.01, 0.02), "no difference larger than 0.019"),
        (-0.012, 0.003, None, "no difference larger than 0.012"),
        (-0.01, 0.02, None, "inconclusive"),  # the end must lie under the smallest effect, not on it
        (-0.03, 0.01, None, "inconclusive"),
        (0.0, 0.0, None, "no difference larger than 0.000"),
        (math.nan, 0.1, None, "inconclusive"),
        (0.01, 0.05, (math.nan, math.nan), "inconclusive"),
    ],
)
def test_verdict(low, high, control, expected):
    assert inference.verdict(low, high, 0.02, control) == expected


def test_nadeau_bengio_by_hand():
    mean, low, high = inference.nadeau_bengio(np.array([0.1, 0.2, 0.3]), 0.5, 0.95)
    half = stats.t.ppf(0.975, 2) * math.sqrt(0.01 * (1 / 3 + 0.5))
    assert (mean, low, high) == pytest.approx((0.2, 0.2 - half, 0.2 + half), rel=1e-4)
    assert math.isnan(inference.nadeau_bengio(np.array([0.1]), 0.5, 0.95)[1])


def test_a_p_value_that_is_unknown_does_not_count_among_the_others():
    p = np.array([0.01, np.nan, 0.04])
    np.testing.assert_array_equal(inference.discovery_rates(p), [0.02, np.nan, 0.04])


def test_of_what_is_unknown_nothing_is_said():
    said = [inference.exploratory_verdict(0.1, q, 0.95, "baseline") for q in (np.nan, 0.06, 0.04)]
    assert said == [inference.INCONCLUSIVE, inference.INCONCLUSIVE, inference.HELPS]


def test_single_and_simultaneous_intervals_of_normal_draws():
    rng = np.random.default_rng(2)
    draws = rng.normal(0.5, 0.1, (4, 1, 40_000))  # the mean of the draws is biased; the interval must not follow
    found = inference.intervals(np.zeros((4, 1)), draws, 0.95, 1)
    np.testing.assert_allclose(found.high_single, 0.196, rtol=0.02)
    sidak = stats.norm.ppf((1 + 0.95 ** (1 / 4)) / 2) * 0.1  # independent quantities
    np.testing.assert_allclose(found.high, sidak, rtol=0.02)
    np.testing.assert_allclose(found.low, -found.high)


def test_what_is_tested_first_has_an_interval_of_its_own_and_costs_the_others_nothing():
    draws = np.random.default_rng(2).normal(0, 0.1, (4, 1, 2000))
    plain, found = (inference.intervals(np.zeros((4, 1)), draws, 0.95, 1, first) for first in ((), (2, 0)))
    rest = inference.intervals(np.zeros((2, 1)), draws[[1, 3]], 0.95, 1)
    np.testing.assert_array_equal(found.high[[2, 0]], plain.high_single[[2, 0]])
    np.testing.assert_allclose(found.high[[1, 3]], rest.high)
    assert (found.high < plain.high).all()


@pytest.mark.parametrize(
    ("seen", "first", "confirmed"),
    [
        ([True, False, True, False], [0, 2], [True, True, True, True]),
        ([True, True, False, True], [0, 2], [True, False, True, False]),  # the step that fails is still tested
        ([False, True, True, True], [0, 2], [True, False, False, False]),
        ([False, True, True, True], [0], [True, False, False, False]),
        ([False, False, False, False], [], [True, True, True, True]),
    ],
)
def test_a_step_counts_only_where_those_before_it_showed_a_difference(seen, first, confirmed):
    draws = np.random.default_rng(2).normal(0, 0.1, (4, 1, 2000))
    # A loss is a difference as well.
    estimates = np.array([[sign * 1.0] if there else [0.0] for there, sign in zip(seen, (1, -1, -1, 1), strict=True)])
    found = inference.intervals(np.repeat(estimates, 2, axis=1), np.repeat(draws, 2, axis=1), 0.95, 1, first)
    expected = [inference.CONFIRMED if one else inference.EXPLORATORY for one in confirmed]
    assert inference.standing(found, first) == expected
    alone = inference.intervals(estimates, draws, 0.95, 1, first)
    assert set(inference.standing(alone, first)) == {inference.EXPLORATORY}, "a single repeat confirms nothing"


def test_variance_between_repeats_widens_the_interval():
    rng = np.random.default_rng(3)
    draws = np.repeat(rng.normal(0, 0.01, (1, 1, 4000)), 4, axis=1)  # same groups, no luck of the models' own
    calm = inference.intervals(np.full((1, 4), 0.1), draws, 0.95, 1)
    wild = inference.intervals(np.array([[0.0, 0.2, 0.05, 0.15]]), draws, 0.95, 1)
    assert calm.se[0] == pytest.approx(0.01, rel=0.03)
    between = np.var([0.0, 0.2, 0.05, 0.15], ddof=1) / 4
    assert wild.se[0] == pytest.approx(math.hypot(0.01, math.sqrt(between)), rel=0.03)
    # Four repeats leave three degrees of freedom: wider than a normal interval.
    assert wild.high_single[0] - 0.1 > 2.3 * wild.se[0]


def test_what_the_bootstrap_holds_is_not_counted_twice():
    rng = np.random.default_rng(4)
    draws = rng.normal(0, 0.1, (3, 5, 4000))  # repeats err on different groups: their draws are independent
    estimates = rng.normal(0, 0.1, (3, 5))
    estimates *= 0.09 / estimates.std(axis=1, ddof=1, keepdims=True)
    found = inference.intervals(estimates, draws, 0.95, 1)
    np.testing.assert_allclose(found.se, 0.1 / math.sqrt(5), rtol=0.05)


def test_an_arm_equal_to_its_baseline_has_an_empty_interval():
    found = inference.intervals(np.zeros((2, 2)), np.zeros((2, 2, 100)), 0.95, 1)
    assert found.low.tolist() == found.high.tolist() == [0, 0]
    assert found.p.tolist() == [1, 1]
    assert inference.verdict(found.low[0], found.high[0], 0.02) == "no difference larger than 0.000"


def test_classes_that_a_repeat_does_not_test_narrow_no_other_interval():
    rng = np.random.default_rng(4)
    estimates = rng.normal(0, 0.1, (6, 3))
    draws = estimates[:, :, None] + rng.normal(0, 0.05, (6, 3, 400))
    alone = inference.intervals(estimates, draws, 0.95, 1)
    absent = [np.concatenate([values, np.full((22, *values.shape[1:]), np.nan)]) for values in (estimates, draws)]
    among = inference.intervals(*absent, 0.95, 1)
    np.testing.assert_allclose(among.high_single[:6], alone.high_single)
