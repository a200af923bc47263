"""lib.judge.training_variance: against closed forms, and on trainings whose variances are known."""

import numpy as np
import pytest
from scipy import special, stats

from tests.helpers.worlds import random_folds
from workflow_scripts.lib.judge import inference, training_variance
from workflow_scripts.lib.judge.fold_scores import FoldScores, ScoredRows
from workflow_scripts.lib.judge.inference import Difference
from workflow_scripts.lib.judge.training_variance import Design, Prior

JUDGED = np.array([True])


def halves(repeats: int, groups: int = 120, fixed: bool = False) -> Design:
    """Two folds; each trains on the groups that it does not test."""
    rng, places, trained = np.random.default_rng(1), [], []
    for repeat in range(repeats):
        order = rng.permutation(groups) % 2
        for fold in (0, 1):
            places.append((repeat, fold))
            trained.append((order != fold) / (order != fold).sum())
    return Design(places, np.array(trained) @ np.array(trained).T, fixed)


def variance_of(
    values: np.ndarray,
    draws: np.ndarray,
    plan: Design,
    others: bool = False,
    prior: training_variance.Prior | None = None,
) -> training_variance.MeanVariance:
    """What differences (n, L) with their draws show of the mean of the first."""
    return training_variance.mean_variance(training_variance.evidence(values, draws, plan, others), others, prior)


def test_without_other_variance_it_is_students_t_of_the_trainings() -> None:
    values = np.array([0.3, -0.1, 0.2, 0.15])
    found = variance_of(values[None], np.zeros((1, 4, 50)), halves(2))
    error = values.std(ddof=1) / 2
    assert found.half_width(0.05) == pytest.approx(error * stats.t.ppf(0.975, 3), rel=0.01)
    assert found.half_width(0.005) == pytest.approx(error * stats.t.ppf(0.9975, 3), rel=0.02)
    assert found.p_value(values.mean()) == pytest.approx(stats.ttest_1samp(values, 0).pvalue, rel=0.01)


def test_p_values_invert_the_intervals() -> None:
    rng = np.random.default_rng(2)
    for others in (False, True):
        found = variance_of(rng.normal(size=(2, 6)), rng.normal(size=(2, 6, 200)), halves(3), others)
        assert found.p_value(found.half_width(0.03)) == pytest.approx(0.03, rel=1e-3)


@pytest.mark.parametrize("known", [0.0, 1e-20, 1e-16, 1e-9, 1e-4])
def test_luck_is_in_the_interval_however_little_groups_say(known: float) -> None:
    # Differences that are the same in every draw but for rounding: one group in a test part, or arms without errors.
    found = training_variance.MeanVariance(np.array([0.01]), np.ones(1), known)
    half = found.half_width(0.05)
    assert half == pytest.approx(1.96 * np.sqrt(0.01 + known), rel=2e-3)
    assert found.p_value(half) == pytest.approx(0.05, rel=1e-2) and found.p_value(10.0) < 1e-20


def test_luck_that_the_bootstrap_explains_is_not_counted_twice() -> None:
    rng = np.random.default_rng(3)
    draws = rng.normal(0, 0.1, (1, 10, 4000))
    widths = [variance_of(rng.normal(0, 0.1, (1, 10)), draws, halves(5)).half_width(0.05) for _ in range(20)]
    # Were it counted twice, they were longer by a half than they are: a luck of none is not known to be none.
    assert 1.0 < np.median(widths) / (1.96 * 0.1 / np.sqrt(10)) < 1.4


def luck_of(sizes: list[float], rng: np.random.Generator, trainings: int = 3) -> np.ndarray:
    """Differences (2, L) of an arm from its baseline and its control, each with luck of its own."""
    arm, *against = (size * rng.standard_normal(trainings) for size in sizes)
    return arm - np.array(against)


@pytest.mark.parametrize("sizes", [[1, 1, 1], [1, 0.3, 0.3], [0.3, 1, 0.3]])
def test_a_control_tells_about_luck_but_its_quiet_does_not_hide_that_of_others(sizes: list[float]) -> None:
    rng, draws, wrong, widths = np.random.default_rng(6), np.zeros((2, 3, 30)), 0, []
    plan = Design([(repeat, 0) for repeat in range(3)], np.eye(3), fixed=False)
    for _ in range(100):
        values = luck_of(sizes, rng)
        both, alone = (variance_of(values[:n], draws[:n], plan).half_width(0.05) for n in (2, 1))
        wrong += abs(values[0].mean()) > both
        widths.append(both / alone)
    # At a true rate of 5 % more than 11 of 100 would be seen once in 200 times.
    assert wrong <= 11 and np.mean(widths) < 1


def test_the_prior_of_a_family_is_as_strong_as_its_variances_are_alike() -> None:
    rng, plan = np.random.default_rng(7), halves(3)

    def prior(sizes: np.ndarray) -> Prior:
        values = sizes[:, None] * rng.standard_normal((len(sizes), 6))
        return training_variance.family_prior(
            [training_variance.evidence(one[None], np.zeros((1, 6, 30)), plan, False) for one in values]
        )

    alike, apart = prior(np.full(40, 0.3)), prior(np.geomspace(0.01, 10, 40))
    assert alike.freedom > 5 and alike.size == pytest.approx(0.09, rel=0.4)
    assert apart.freedom < 1
    assert prior(np.ones(2)).freedom == 0, "two tell nothing of their own spread"
    quiet = np.full((1, 6), 0.0) + 1e-3 * rng.standard_normal(6)
    moderated, own = (
        variance_of(quiet, np.zeros((1, 6, 30)), plan, prior=known).half_width(0.05) for known in (alike, None)
    )
    assert moderated > 10 * own, "a comparison that is quiet by chance is not believed to be"


def test_few_groups_of_large_weight_have_few_degrees_of_freedom() -> None:
    def fold(sizes: list[int]) -> FoldScores:
        owners = np.repeat(np.arange(len(sizes)), sizes)
        rows = ScoredRows(np.zeros((len(owners), 1)), np.ones((len(owners), 1), bool), owners)
        return FoldScores(0, 0, rows, rows, rows)

    freedom = [
        training_variance.group_freedom([fold(sizes)], 20, np.array([True])) for sizes in ([3] * 20, [30] + [3] * 19)
    ]
    assert 10 < freedom[0] < 25 and 2 < freedom[1] < 0.8 * freedom[0]


def test_degrees_of_freedom_are_those_by_which_intervals_of_unequal_groups_hold() -> None:
    """With any weights Student's t covers 95 % of errors beside the standard errors of a Bayesian bootstrap."""
    for k in (3, 10, 20):
        assert 0.6 * (k - 1) < training_variance.freedom_of(np.ones((1, k))) <= k - 1
    assert training_variance.freedom_of(np.ones((2, 500))) > 60
    assert training_variance.freedom_of(np.ones((0, 5))) == np.inf
    rng = np.random.default_rng(3)
    for weights in (np.r_[0.4, np.full(80, 0.6 / 80)], np.r_[0.3, 0.3, np.full(20, 0.02)], rng.pareto(1.2, 100)):
        weights = weights / weights.sum()
        drawn = rng.standard_exponential((300, len(weights))) * weights
        drawn /= drawn.sum(axis=1, keepdims=True)
        errors = rng.standard_normal((len(weights), 4000))
        size = (drawn @ errors).std(axis=0) / np.sqrt(1 - (weights**2).sum())
        freedom = training_variance.freedom_of(weights[None])
        missed = np.mean(np.abs(weights @ errors) / size > special.stdtrit(freedom, 0.975))
        assert 0.035 < missed < 0.065


@pytest.mark.parametrize(("others", "least", "most"), [(False, 7, 40), (True, 0, 6)])
def test_luck_of_the_training_set_is_in_the_interval_of_other_proteins_alone(
    others: bool, least: int, most: int
) -> None:
    plan, rng = halves(5), np.random.default_rng(4)
    root = np.linalg.cholesky(plan.shared + 0.1 * plan.shared.max() * np.eye(10))
    wrong = 0
    for _ in range(50):
        values = root @ rng.standard_normal(10)
        found = variance_of(values[None], np.zeros((1, 10, 50)), plan, others)
        wrong += abs(values.mean()) > found.half_width(0.05)
    # At a true rate of 5 % more than 6 of 50 would be seen once in 50 times.
    assert least <= wrong <= most


def test_folds_that_stay_are_no_luck_unless_the_claim_goes_beyond_them() -> None:
    # One line a fold: the arm helps in one and hurts in the other, alike in all repeats.
    values = np.array([0.5, -0.5, 0.51, -0.52, 0.49, -0.5])
    widths = [
        variance_of(values[None], np.zeros((1, 6, 50)), halves(3, fixed=True), others).half_width(0.05)
        for others in (False, True)
    ]
    assert widths[0] < 0.02 and widths[1] > 0.3


def test_the_design_knows_what_was_trained_on_and_whether_folds_stay() -> None:
    def fold(repeat: int, number: int, tested: list[int], calibrated: list[int]) -> FoldScores:
        one, other = (ScoredRows(np.zeros((len(g), 1)), np.ones((len(g), 1), bool), np.array(g))
                      for g in (tested, calibrated))  # fmt: skip
        return FoldScores(repeat, number, other, one, other)

    moving = [fold(0, 0, [0, 1], [2]), fold(0, 1, [2, 3], [0]), fold(1, 0, [0, 3], [1]), fold(1, 1, [1, 2], [0])]
    found = training_variance.design(moving, 4, JUDGED)
    # Trained on: {3}, {1}, {2}, {3}.
    assert found.shared.tolist() == [[1, 0, 0, 1], [0, 1, 0, 0], [0, 0, 1, 0], [1, 0, 0, 1]] and not found.fixed
    # With four more groups that no fold holds back, two trainings share most of what they learn from.
    more = training_variance.design(moving, 4, JUDGED, 5)
    assert more.shared[0].tolist() == pytest.approx([5 / 25, 4 / 25, 4 / 25, 5 / 25]) and more.tells_others
    assert training_variance.design([*moving[:2], fold(1, 0, [0, 1], [3]), fold(1, 1, [2, 3], [1])], 4, JUDGED).fixed
    assert not training_variance.design(random_folds(), 300, np.ones(4, bool)).fixed, "one repeat"


def test_no_other_arm_narrows_the_interval_of_the_primary_arm() -> None:
    rng, plan = np.random.default_rng(5), halves(3)
    values, draws = rng.normal(0, 1, (9, 6)), rng.normal(0, 0.1, (9, 6, 200))
    pairs = [Difference(1, 0, 2), Difference(1, 2, 0), *(Difference(i, 0) for i in range(2, 9))]
    whole = inference.paired_intervals(values, draws, pairs, plan, False, 0.95, 1, [0, 1])
    alone = inference.paired_intervals(values[:3], draws[:3], pairs[:2], plan, False, 0.95, 1, [0, 1])
    quiet = values * np.where(np.arange(9) < 3, 1.0, 1e-3)[:, None]
    beside = inference.paired_intervals(quiet, draws, pairs, plan, False, 0.95, 1, [0, 1])
    for i in (0, 1):
        assert whole.high[i] == alone.high[i] == beside.high[i] == whole.high_single[i]
    # Simultaneous ones are wider than single ones.
    assert (whole.high[2:] > whole.high_single[2:]).all()
    assert beside.high[3] - beside.estimate[3] < whole.high[3] - whole.estimate[3]
    assert (whole.p[0] < 0.05) == (not whole.low[0] < 0 < whole.high[0])


def test_probabilities_of_a_difference_agree_with_its_interval() -> None:
    rng = np.random.default_rng(9)
    values = np.array([np.zeros(6), [0.5, 0.4, 0.6, 0.5, 0.45, 0.55]])
    found = inference.paired_intervals(
        values, rng.normal(0, 0.01, (2, 6, 400)), [Difference(1, 0), Difference(0, 1)], halves(3), False, 0.95, 1, [0]
    )
    better = found.probability_better()
    assert better[0] > 0.975 and better.sum() == pytest.approx(1)
    half = found.high_single[0] - found.estimate[0]
    # Within half a width of its estimate lies 95 %; the region reaches as far below zero.
    assert found.probability_negligible(0.5 + half)[0] == pytest.approx(0.975, abs=0.003)
    assert found.probability_negligible(0.0)[0] == pytest.approx(0, abs=1e-9)


def test_the_same_train_part_in_all_repeats_tells_nothing_of_others() -> None:
    places = [(0, 0), (1, 0), (2, 0)]
    same, moving = Design(places, np.full((3, 3), 0.02), False), Design(places, 0.01 * np.eye(3) + 0.01, False)
    assert not same.tells_others and moving.tells_others
    rng = np.random.default_rng(1)
    values, draws = 0.02 * rng.standard_normal((1, 3)), np.zeros((1, 3, 50))
    wide, own = (variance_of(values, draws, same, others).half_width(0.05) for others in (True, False))
    assert wide == pytest.approx(own, rel=0.05), "rounding is no evidence"
