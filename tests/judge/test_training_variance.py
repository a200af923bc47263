"""lib.judge.training_variance: against closed forms, and on trainings whose variances are known."""

import numpy as np
import pytest
from scipy import stats

from tests.helpers.worlds import random_folds
from workflow_scripts.lib.judge import inference, training_variance
from workflow_scripts.lib.judge.fold_scores import FoldScores, ScoredRows
from workflow_scripts.lib.judge.training_variance import Design


def halves(repeats: int, groups: int = 120, fixed: bool = False) -> Design:
    """Two folds; each trains on the groups that it does not test."""
    rng, places, trained = np.random.default_rng(1), [], []
    for repeat in range(repeats):
        order = rng.permutation(groups) % 2
        for fold in (0, 1):
            places.append((repeat, fold))
            trained.append((order != fold) / (order != fold).sum())
    return Design(places, np.array(trained) @ np.array(trained).T, fixed)


def test_without_other_variance_it_is_students_t_of_the_trainings() -> None:
    values = np.array([0.3, -0.1, 0.2, 0.15])
    found = training_variance.mean_variance(values, np.zeros((4, 50)), halves(2), others=False)
    error = values.std(ddof=1) / 2
    assert found.half_width(0.05) == pytest.approx(error * stats.t.ppf(0.975, 3), rel=0.01)
    assert found.half_width(0.005) == pytest.approx(error * stats.t.ppf(0.9975, 3), rel=0.02)
    assert found.p_value(values.mean()) == pytest.approx(stats.ttest_1samp(values, 0).pvalue, rel=0.01)


def test_p_values_invert_the_intervals() -> None:
    rng = np.random.default_rng(2)
    for others in (False, True):
        found = training_variance.mean_variance(rng.normal(size=6), rng.normal(size=(6, 200)), halves(3), others)
        assert found.p_value(found.half_width(0.03)) == pytest.approx(0.03, rel=1e-3)


def test_luck_that_the_bootstrap_explains_is_not_counted_twice() -> None:
    rng = np.random.default_rng(3)
    draws = rng.normal(0, 0.1, (10, 4000))
    widths = [
        training_variance.mean_variance(rng.normal(0, 0.1, 10), draws, halves(5), False).half_width(0.05)
        for _ in range(20)
    ]
    # Were it counted twice, they were longer by a half than they are: a luck of none is not known to be none.
    assert 1.0 < np.median(widths) / (1.96 * 0.1 / np.sqrt(10)) < 1.4


@pytest.mark.parametrize(("others", "least", "most"), [(False, 7, 40), (True, 0, 6)])
def test_luck_of_the_training_set_is_in_the_interval_of_other_proteins_alone(
    others: bool, least: int, most: int
) -> None:
    plan, rng = halves(5), np.random.default_rng(4)
    root = np.linalg.cholesky(plan.shared + 0.1 * plan.shared.max() * np.eye(10))
    wrong = 0
    for _ in range(50):
        values = root @ rng.standard_normal(10)
        found = training_variance.mean_variance(values, np.zeros((10, 50)), plan, others)
        wrong += abs(values.mean()) > found.half_width(0.05)
    # At a true rate of 5 % more than 6 of 50 would be seen once in 50 times.
    assert least <= wrong <= most


def test_folds_that_stay_are_no_luck_unless_the_claim_goes_beyond_them() -> None:
    # One line a fold: the arm helps in one and hurts in the other, alike in all repeats.
    values = np.array([0.5, -0.5, 0.51, -0.52, 0.49, -0.5])
    widths = [
        training_variance.mean_variance(values, np.zeros((6, 50)), halves(3, fixed=True), others).half_width(0.05)
        for others in (False, True)
    ]
    assert widths[0] < 0.02 and widths[1] > 0.3


def test_the_design_knows_what_was_trained_on_and_whether_folds_stay() -> None:
    def fold(repeat: int, number: int, tested: list[int], calibrated: list[int]) -> FoldScores:
        one, other = (ScoredRows(np.zeros((len(g), 1)), np.ones((len(g), 1), bool), np.array(g))
                      for g in (tested, calibrated))  # fmt: skip
        return FoldScores(repeat, number, other, one, other)

    moving = [fold(0, 0, [0, 1], [2]), fold(0, 1, [2, 3], [0]), fold(1, 0, [0, 3], [1]), fold(1, 1, [1, 2], [0])]
    found = training_variance.design(moving, 4)
    # Trained on: {3}, {1}, {2}, {3}.
    assert found.shared.tolist() == [[1, 0, 0, 1], [0, 1, 0, 0], [0, 0, 1, 0], [1, 0, 0, 1]] and not found.fixed
    assert training_variance.design([*moving[:2], fold(1, 0, [0, 1], [3]), fold(1, 1, [2, 3], [1])], 4).fixed
    assert not training_variance.design(random_folds(), 300).fixed, "one repeat"


def test_the_interval_of_a_comparison_rests_on_its_own_trainings() -> None:
    rng, plan = np.random.default_rng(5), halves(3)
    values, draws = rng.normal(0, 1, (8, 6)), rng.normal(0, 0.1, (8, 6, 200))
    arms = [(f"arm{i}", "base") for i in range(8)]
    whole = inference.paired_intervals(values, draws, plan, False, arms, 0.95, 1, [0])
    alone = inference.paired_intervals(values[:1], draws[:1], plan, False, arms[:1], 0.95, 1, [0])
    quiet = values * np.where(np.arange(8) == 0, 1.0, 1e-3)[:, None]
    beside = inference.paired_intervals(quiet, draws, plan, False, arms, 0.95, 1, [0])
    assert whole.high[0] == alone.high[0] == beside.high[0] == whole.high_single[0]
    # Simultaneous ones are wider, never than Bonferroni's.
    most = [training_variance.mean_variance(*pair, plan, False).half_width(0.05 / 7)
            for pair in zip(values[1:], draws[1:], strict=True)]  # fmt: skip
    half = (whole.high - whole.low)[1:] / 2
    assert (half > (whole.high_single - whole.low_single)[1:] / 2).all() and (half <= np.array(most) * 1.001).all()
