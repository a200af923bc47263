"""lib.judge.scoring: scores pool decisions over folds and rank within them; against scikit-learn and by hand."""

from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, f1_score

from tests.helpers.worlds import ANALYSIS, ARMS, SAME, World, experiment, random_folds, summaries
from workflow_scripts.lib.base.errors import UserError
from workflow_scripts.lib.judge import scoring
from workflow_scripts.lib.judge.fold_scores import FoldScores, ScoredRows
from workflow_scripts.lib.judge.question import Question
from workflow_scripts.lib.judge.scoring import ArmScores
from workflow_scripts.lib.judge.thresholds import Rule, choose_thresholds, fit_thresholds


def test_f1_pools_decisions_over_folds_then_scores():
    folds = random_folds()
    rule = Rule("calibrated", 1)
    scores = scoring.score_arm(folds, rule, np.ones((300, 1)))
    decisions = np.concatenate([c.test.scores >= fit_thresholds(c.calibration, rule).values for c in folds])
    truth = np.concatenate([c.test.labels for c in folds])
    expected = f1_score(truth, decisions, average=None)
    np.testing.assert_allclose(scores.f1()[0, :, 0], expected, rtol=1e-12)
    judged = np.array([True, True, True, False])
    assert scores.macro_f1(judged)[0, 0] == pytest.approx(expected[:3].mean())
    micro = f1_score(truth[:, :3], decisions[:, :3], average="micro")
    assert scores.micro_f1(judged)[0, 0] == pytest.approx(micro)


def test_map_is_taken_within_each_fold():
    folds = random_folds()
    scores = scoring.score_arm(folds, Rule("calibrated", 1), np.ones((300, 1)))
    judged = np.ones(4, dtype=bool)
    expected = np.mean([average_precision_score(c.test.labels, c.test.scores, average="macro") for c in folds])
    assert scores.map(judged)[0, 0] == pytest.approx(expected, rel=1e-10)


def test_a_class_without_positives_in_a_fold_is_left_out_there():
    folds = random_folds()
    folds[0].test.labels[:, 3] = False
    scores = scoring.score_arm(folds, Rule("calibrated", 1), np.ones((300, 1)))
    judged = np.ones(4, dtype=bool)
    first = average_precision_score(folds[0].test.labels[:, :3], folds[0].test.scores[:, :3], average="macro")
    second = average_precision_score(folds[1].test.labels, folds[1].test.scores, average="macro")
    assert scores.map(judged)[0, 0] == pytest.approx((first + second) / 2)
    only = average_precision_score(folds[1].test.labels[:, 3], folds[1].test.scores[:, 3])
    assert scores.ap()[0, 3, 0] == pytest.approx(only)


@pytest.mark.parametrize("refit", [True, False])
def test_weighted_f1_agrees_with_scikit_learn(refit):
    folds, rng = random_folds(), np.random.default_rng(7)
    weights = rng.exponential(size=(300, 3))
    rule = Rule("calibrated", 20, refit)
    scores = scoring.score_arm(folds, rule, weights)
    for b in range(3):
        fit = weights[:, b : b + 1] if refit else np.ones((300, 1))
        choices = [[x.values[0] for x in choose_thresholds(c.calibration, rule, fit)] for c in folds]
        decisions = np.concatenate([c.test.scores >= t for c, t in zip(folds, choices, strict=True)])
        truth = np.concatenate([c.test.labels for c in folds])
        w = np.concatenate([weights[c.test.groups, b] for c in folds])
        expected = f1_score(truth, decisions, average=None, sample_weight=w)
        np.testing.assert_allclose(scores.f1()[0, :, b], expected, rtol=1e-10)


def test_half_or_largest_always_decides_for_one_class():
    table = ScoredRows(np.array([[0.1, 0.3], [0.6, 0.7]]), np.array([[0, 1], [1, 1]], bool), np.array([0, 1]))
    folds = [FoldScores(0, 0, table, table, table)]
    ones = np.ones((2, 1))
    with_largest = scoring.score_arm(folds, Rule("half_or_largest", 1), ones).counts[0, 1, :, 0]
    without = scoring.score_arm(folds, Rule("half", 1), ones).counts[0, 1, :, 0]
    assert with_largest.tolist() == [1, 2] and without.tolist() == [1, 1]


def test_weights_come_from_the_seed_alone_and_never_vanish():
    first, again, other = (scoring.group_weights(seed, 500, 200) for seed in (5, 5, 6))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)
    assert first.min() > 0 and first.mean() == pytest.approx(1, abs=0.01) and first.var() == pytest.approx(1, abs=0.03)


def test_judged_classes_need_enough_groups_in_every_repeat():
    judged = scoring.judged_classes(np.array([[5, 9, 4], [7, 4, 8]]), 5)
    assert judged.tolist() == [True, False, False]


def test_blocks_of_draws_change_nothing(monkeypatch):
    whole = summaries(7, SAME, draws=120)
    monkeypatch.setattr(scoring, "BLOCK", 50)
    parts = summaries(7, SAME, draws=120)
    np.testing.assert_allclose(parts["mix"].macro_draws["map"], whole["mix"].macro_draws["map"], rtol=1e-5)


# Two repeats, the first of two folds; two classes, one draw. Counts are true, decided and actual positives.
COUNTS = [[[3, 0], [4, 0], [6, 0]], [[1, 2], [4, 2], [2, 4]], [[5, 1], [5, 5], [5, 3]]]
PRECISION = [[0.5, np.nan], [0.7, 0.3], [1.0, 0.2]]


@pytest.fixture
def scores() -> ArmScores:
    counts, precision = np.array(COUNTS, dtype=float)[..., None], np.array(PRECISION)[..., None]
    return ArmScores([0, 1], [(0, 0), (0, 1), (1, 0)], counts, precision, np.array([10, 20, 10]))


def test_f1_by_hand(scores: ArmScores) -> None:
    # Repeat 0, first class: 4 true of 8 decided and 8 actual; second: 2 of 2 and 4. Repeat 1: 5 of 5, and 1 of 5 and 3.
    f1 = [[0.5, 2 / 3], [1.0, 0.25]]
    np.testing.assert_allclose(scores.f1()[..., 0], f1)
    both, first = np.array([True, True]), np.array([True, False])
    np.testing.assert_allclose(scores.macro_f1(both)[:, 0], np.mean(f1, axis=1))
    np.testing.assert_allclose(scores.macro_f1(first)[:, 0], [0.5, 1.0])
    np.testing.assert_allclose(scores.micro_f1(both)[:, 0], [2 * 6 / (10 + 12), 2 * 6 / (10 + 8)])
    np.testing.assert_allclose(scores.micro_f1(first)[:, 0], [0.5, 1.0])
    # The first fold has no image of the second class, which does not count there, whether an arm predicts it or not.
    within = [0.6, (1 / 3 + 2 / 3) / 2, (1 + 0.25) / 2]
    np.testing.assert_allclose(scores.fold_macro_f1(both)[:, 0], within)
    false = scores.counts.copy()
    false[0, 1, 1] = 3
    np.testing.assert_allclose(replace(scores, counts=false).fold_macro_f1(both)[:, 0], within)


def test_average_precision_by_hand(scores: ArmScores) -> None:
    both = np.array([True, True])
    np.testing.assert_allclose(scores.ap()[..., 0], [[0.6, 0.3], [1.0, 0.2]])
    np.testing.assert_allclose(scores.fold_map(both)[:, 0], [0.5, 0.5, 0.6])
    np.testing.assert_allclose(scores.map(both)[:, 0], [0.5, 0.6])
    # Chance: 6 of 10, 2 of 20 and 5 of 10 rows; the second class is in two folds only.
    np.testing.assert_allclose(scores.prevalence(), [(0.6 + 0.1 + 0.5) / 3, (0.2 + 0.3) / 2])


def test_a_mean_leaves_out_what_is_not_known() -> None:
    values = np.array([[1.0, np.nan], [3.0, np.nan]])
    np.testing.assert_array_equal(scoring.mean(values, axis=0), [2.0, np.nan])
    np.testing.assert_array_equal(scoring.mean(values, axis=1), [1.0, 3.0])


def test_draws_of_few_groups_are_widened() -> None:
    # Exponential weights give a mean over n groups (n - 1) / (n + 1) of the variance that it has.
    np.testing.assert_allclose(scoring.small_sample(np.array([1, 2, 3, 19])) ** 2, [3, 3, 2, 20 / 18])
    rng = np.random.default_rng(0)
    weights, values = rng.exponential(size=(200_000, 4)), np.array([0.0, 1.0, 3.0, 4.0])
    means = weights @ values / weights.sum(axis=1)
    assert means.std() * scoring.small_sample(np.array([4]))[0] == pytest.approx(values.std(ddof=1) / 2, rel=0.01)


def test_positives_are_those_of_the_repeat_that_has_fewest() -> None:
    world = World(3, groups=12, images=2)
    arms = experiment(world, {"real_only": 2.0}, repeats=2)
    # Rows of a fold are tested in each repeat; in the second one the first class loses all but one image.
    for fold in arms.arms["real_only"][2:]:
        fold.parts["test"].labels = np.array(fold.parts["test"].labels)
        fold.parts["test"].labels[1:, 0] = 0
        fold.parts["test"].labels[0, 0] = 1
    counts, judged = scoring.count_positives(arms, 3)
    assert counts["image"]["positives"][0] == counts["image"]["positive_groups"][0] == 2, "one in each of two folds"
    tested = np.concatenate([world.rows(fold, "test") for fold in range(2)])
    assert counts["image"]["positives"][1] == world.labels[tested, 1].sum()
    assert counts["image"]["positive_groups"][1] == counts["protein"]["positives"][1] == world.of_group[:, 1].sum()
    assert judged.tolist() == [False, *(world.of_group[:, 1:].sum(axis=0) >= 3)]


def test_a_run_without_a_class_to_judge_ends_in_one_line() -> None:
    arms = experiment(World(3, groups=12), {"real_only": 2.0, "mix": 2.0, "mix_real": 2.0})
    question = Question(ANALYSIS | {"minimum_positive_groups": 13}, ARMS, 1)
    with pytest.raises(UserError, match="no class has 13 positive test groups, so nothing can be judged"):
        scoring.score_experiment(question, arms, 1)
