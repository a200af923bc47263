"""The judge on constructed intervals, against closed forms, and on worlds whose truth is known."""

import json
import math

import numpy as np
import pytest
from scipy import stats

from tests.helpers.worlds import ANALYSIS, ARMS, World
from workflow_scripts.lib.judge import comparisons, declaration, inference, scoring
from workflow_scripts.lib.judge.experiment import Experiment
from workflow_scripts.lib.judge.question import Pair, Question
from workflow_scripts.lib.judge.thresholds import Rule


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
    found = inference.intervals(estimates, draws, 0.95, 1, first)
    expected = [inference.CONFIRMED if one else inference.EXPLORATORY for one in confirmed]
    assert inference.standing(found, first) == expected


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
    assert found.p_values().tolist() == [1, 1]
    assert inference.verdict(found.low[0], found.high[0], 0.02) == "no difference larger than 0.000"


def test_weights_come_from_the_seed_alone_and_never_vanish():
    first, again, other = (scoring.group_weights(seed, 500, 200) for seed in (5, 5, 6))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)
    assert first.min() > 0 and first.mean() == pytest.approx(1, abs=0.01) and first.var() == pytest.approx(1, abs=0.03)


def test_hash_changes_with_what_is_declared_and_with_nothing_else():
    reference = declaration.declaration_hash(ANALYSIS, ARMS)
    shuffled = json.loads(json.dumps(dict(reversed(ANALYSIS.items()))))
    assert declaration.declaration_hash(shuffled, ARMS[::-1]) == reference
    retrained = [ARMS[0] | {"loss": "focal"}, *ARMS[1:]]
    assert declaration.declaration_hash(ANALYSIS, retrained) == reference
    for key, value in {"smallest_effect": 0.03, "primary_arm": "pool", "metric": "map", "family": ["mix"]}.items():
        assert declaration.declaration_hash(ANALYSIS | {key: value}, ARMS) != reference
    more = [*ARMS, {"name": "late_idea", "method": "pool"}]
    assert declaration.declaration_hash(ANALYSIS, more) != reference


def test_judged_classes_need_enough_groups_in_every_repeat():
    found = scoring.judged_classes(np.array([[5, 9, 4], [7, 4, 8]]), 5)
    assert found.tolist() == [True, False, False]


def summaries(seed, skills, draws=200, repeats=1, **more):
    world = World(seed, **more)
    arms = {
        name: [p for r in range(repeats) for p in world.arm(name, skill, repeat=r)] for name, skill in skills.items()
    }
    parts = [part for arm in arms.values() for cell in arm for part in cell.parts.values()]
    groups = sorted({str(name) for part in parts for name in part.groups})
    found = Experiment(world.classes, groups, arms)
    weights = scoring.group_weights(seed, len(groups), draws)
    judged = np.ones(len(world.classes), dtype=bool)
    return scoring.summarise_arms(found, "image", Rule("calibrated", 10), weights, judged, 1)


def verdicts(seed, skills, metric="macro_f1", **more):
    found = summaries(seed, skills, **more)
    analysis = ANALYSIS | {"draws": more.get("draws", 200), "metric": metric}
    rows = comparisons.macro_rows(Question(analysis, ARMS, seed), found, "image")
    return {row["arm"]: row for row in rows if row["family"] == "primary" and row["relation"] == "baseline"}


@pytest.mark.parametrize("metric", ["macro_f1", "map"])
def test_arms_of_equal_skill_are_rarely_told_apart(metric):
    false = [
        any(
            row["verdict"].split(",")[0] in ("helps", "hurts") and row["standing"] == "confirmed"
            for row in verdicts(100 + seed, SAME, metric).values()
        )
        for seed in range(40)
    ]
    # At a true rate of 5 % more than 6 of 40 would be seen once in 150 times.
    assert sum(false) <= 6


SAME = {"real_only": 2.0, "mix": 2.0, "mix_real": 2.0}


def test_a_planted_effect_is_found_with_its_sign_and_beyond_its_control():
    found = [verdicts(200 + seed, {"real_only": 1.0, "mix": 3.5, "mix_real": 1.0}) for seed in range(5)]
    assert all(one["mix"]["verdict"] == "helps" and one["mix"]["difference"] > 0 for one in found)
    worse = verdicts(210, {"real_only": 3.5, "mix": 1.0, "mix_real": 3.5})
    assert worse["mix"]["verdict"] == "hurts"


def test_an_effect_that_the_control_shares_is_not_credited():
    found = [verdicts(300 + seed, {"real_only": 1.0, "mix": 3.5, "mix_real": 3.5})["mix"] for seed in range(5)]
    assert sum(one["verdict"] == "helps, no more than its control" for one in found) >= 4


def test_intervals_cover_the_true_difference():
    # The truth is what a large test set would show: a world of 6,000 groups with the same skills.
    skills = {"real_only": 2.0, "mix": 2.6}
    large = summaries(1, skills, draws=2, groups=6000)
    truth = {m: large["mix"].macro[m][0] - large["real_only"].macro[m][0] for m in ("macro_f1", "map")}
    hits = dict.fromkeys(truth, 0)
    for seed in range(40):
        found = summaries(400 + seed, skills, groups=160)
        for name in truth:
            pair = [Pair("mix", "real_only", "baseline")]
            question = Question(ANALYSIS | {"draws": 200}, ARMS, seed)
            one = comparisons.compare_macro(question, found, pair, name)
            hits[name] += one.low_single[0] <= truth[name] <= one.high_single[0]
    assert min(hits.values()) >= 34


def test_blocks_of_draws_change_nothing(monkeypatch):
    whole = summaries(7, SAME, draws=120)
    monkeypatch.setattr(scoring, "BLOCK", 50)
    parts = summaries(7, SAME, draws=120)
    np.testing.assert_allclose(parts["mix"].macro_draws["map"], whole["mix"].macro_draws["map"], rtol=1e-5)
