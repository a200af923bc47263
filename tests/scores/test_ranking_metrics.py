"""Scores against scikit-learn, with and without weights; thresholds against a search through every cut."""

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, f1_score, precision_recall_curve

from workflow_scripts.lib.judge import scoring
from workflow_scripts.lib.judge.fold_scores import FoldScores, ScoredRows, per_protein
from workflow_scripts.lib.judge.thresholds import Rule, choose_thresholds, fit_thresholds
from workflow_scripts.lib.scores import ranking_metrics


def draw(seed, rows=300, groups=60, prevalence=0.2, ties=False):
    rng = np.random.default_rng(seed)
    labels = rng.random(rows) < prevalence
    scores = rng.normal(labels * 1.0, 1.0)
    if ties:
        scores = scores.round(1)
    return scores, labels, rng.integers(0, groups, rows), rng.exponential(size=(groups, 5))


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("prevalence", [0.02, 0.3, 0.9])
def test_average_precision_agrees_with_scikit_learn(prevalence, ties):
    scores, labels, groups, weights = draw(1, prevalence=prevalence, ties=ties)
    found = ranking_metrics.average_precision(scores, labels, groups, weights)
    expected = [average_precision_score(labels, scores, sample_weight=column[groups]) for column in weights.T]
    np.testing.assert_allclose(found, expected, rtol=1e-10)
    plain = ranking_metrics.average_precision(scores, labels, *ranking_metrics.unweighted(len(scores)))
    np.testing.assert_allclose(plain, average_precision_score(labels, scores), rtol=1e-10)


def test_average_precision_without_positives_is_nan():
    found = ranking_metrics.average_precision(np.zeros(3), np.zeros(3, bool), *ranking_metrics.unweighted(3))
    assert np.isnan(found).all()


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("prevalence", [0.01, 0.1, 0.6])
def test_best_threshold_has_the_highest_f1_of_all_cuts(prevalence, ties):
    # scikit-learn's curve goes through every cut there is; few enough positives that none is skipped.
    scores, labels, groups, weights = draw(2, rows=400, prevalence=prevalence, ties=ties)
    choice = ranking_metrics.best_threshold(scores, labels, groups, weights)
    for value, column in zip(choice.values, weights.T, strict=True):
        w = column[groups]
        precision, recall, _ = precision_recall_curve(labels, scores, sample_weight=w)
        best = np.max(2 * precision * recall / np.maximum(precision + recall, 1e-12))
        assert f1_score(labels, scores >= value, sample_weight=w) == pytest.approx(best, rel=1e-9)


def test_a_threshold_lies_between_scores_so_that_it_suits_new_rows():
    scores, labels = np.array([0.1, 0.2, 0.6, 0.9]), np.array([False, False, True, True])
    choice = ranking_metrics.best_threshold(scores, labels, *ranking_metrics.unweighted(4))
    assert choice.values[0] == pytest.approx(0.4)


def test_stopping_early_changes_nothing(monkeypatch):
    scores, labels, groups, weights = draw(3, rows=5000, groups=300, prevalence=0.01)
    seen = []
    whole = ranking_metrics.cumulative
    monkeypatch.setattr(ranking_metrics, "cumulative", lambda r, g, w: seen.append(len(r.rows)) or whole(r, g, w))
    early = ranking_metrics.best_threshold(scores + 1.5 * labels, labels, groups, weights)
    assert sum(seen) < 2500  # the walk really stopped, most negatives were never summed
    ranking = ranking_metrics.rank(scores + 1.5 * labels, labels, ranking_metrics.MAX_CUTS)
    true, decided = whole(ranking, groups, weights)
    actual = np.array([column[groups][labels].sum() for column in weights.T])
    np.testing.assert_array_equal(early.chosen, (2 * true / (decided + actual)).argmax(axis=0))


def test_sums_by_product_and_by_gathering_agree(monkeypatch):
    rng = np.random.default_rng(4)
    groups, weights = rng.integers(0, 40, 200), rng.exponential(size=(40, 7))
    segments = np.sort(rng.integers(0, 30, 200))
    expected = np.array([[w[groups[segments == s]].sum() for w in weights.T] for s in range(31)])
    for limit in (0, 10**9):
        monkeypatch.setattr(ranking_metrics, "PRODUCT_PER_SUM", limit)
        np.testing.assert_allclose(ranking_metrics.segment_sums(groups, segments, 31, weights), expected, rtol=1e-12)


def test_many_positives_use_a_thinned_list_of_cuts_that_costs_next_to_nothing():
    scores, labels, groups, weights = draw(5, rows=4000, groups=500, prevalence=0.5)
    choice = ranking_metrics.best_threshold(scores, labels, groups, weights)
    assert len(choice.cuts) == ranking_metrics.MAX_CUTS
    w = weights[:, 0][groups]
    precision, recall, _ = precision_recall_curve(labels, scores, sample_weight=w)
    best = np.max(2 * precision * recall / (precision + recall))
    assert best - 0.003 < f1_score(labels, scores >= choice.values[0], sample_weight=w) <= best + 1e-12


def cells(seed=6, folds=2, rows=240, classes=4, groups=50):
    rng = np.random.default_rng(seed)

    def table(offset):
        labels = rng.random((rows, classes)) < np.linspace(0.5, 0.1, classes)
        scores = 1 / (1 + np.exp(-rng.normal(2.0 * labels - 1, 1.2)))
        return ScoredRows(scores, labels, offset + rng.integers(0, groups, rows))

    return [FoldScores(0, f, table(0), table(100 * (f + 1)), table(0)) for f in range(folds)]


def test_f1_pools_decisions_over_folds_then_scores():
    found = cells()
    rule = Rule("calibrated", 1)
    scores = scoring.score_arm(found, rule, np.ones((300, 1)))
    decisions = np.concatenate([c.test.scores >= fit_thresholds(c.calibration, rule).values for c in found])
    truth = np.concatenate([c.test.labels for c in found])
    expected = f1_score(truth, decisions, average=None)
    np.testing.assert_allclose(scores.f1()[0, :, 0], expected, rtol=1e-12)
    judged = np.array([True, True, True, False])
    assert scores.macro_f1(judged)[0, 0] == pytest.approx(expected[:3].mean())
    micro = f1_score(truth[:, :3], decisions[:, :3], average="micro")
    assert scores.micro_f1(judged)[0, 0] == pytest.approx(micro)


def test_map_is_taken_within_each_fold():
    found = cells()
    scores = scoring.score_arm(found, Rule("calibrated", 1), np.ones((300, 1)))
    judged = np.ones(4, dtype=bool)
    expected = np.mean([average_precision_score(c.test.labels, c.test.scores, average="macro") for c in found])
    assert scores.map(judged)[0, 0] == pytest.approx(expected, rel=1e-10)


def test_a_class_without_positives_in_a_fold_is_left_out_there():
    found = cells()
    found[0].test.labels[:, 3] = False
    scores = scoring.score_arm(found, Rule("calibrated", 1), np.ones((300, 1)))
    judged = np.ones(4, dtype=bool)
    first = average_precision_score(found[0].test.labels[:, :3], found[0].test.scores[:, :3], average="macro")
    second = average_precision_score(found[1].test.labels, found[1].test.scores, average="macro")
    assert scores.map(judged)[0, 0] == pytest.approx((first + second) / 2)
    only = average_precision_score(found[1].test.labels[:, 3], found[1].test.scores[:, 3])
    assert scores.ap()[0, 3, 0] == pytest.approx(only)


@pytest.mark.parametrize("refit", [True, False])
def test_weighted_f1_agrees_with_scikit_learn(refit):
    found, rng = cells(), np.random.default_rng(7)
    weights = rng.exponential(size=(300, 3))
    rule = Rule("calibrated", 20, refit)
    scores = scoring.score_arm(found, rule, weights)
    for b in range(3):
        fit = weights[:, b : b + 1] if refit else np.ones((300, 1))
        choices = [[x.values[0] for x in choose_thresholds(c.calibration, rule, fit)] for c in found]
        decisions = np.concatenate([c.test.scores >= t for c, t in zip(found, choices, strict=True)])
        truth = np.concatenate([c.test.labels for c in found])
        w = np.concatenate([weights[c.test.groups, b] for c in found])
        expected = f1_score(truth, decisions, average=None, sample_weight=w)
        np.testing.assert_allclose(scores.f1()[0, :, b], expected, rtol=1e-10)


def test_rare_classes_use_the_pooled_threshold():
    table = cells(rows=100)[0].calibration
    table.labels[:, 3] = False
    table.labels[:4, 3] = True
    table.groups[:4] = [0, 0, 1, 2]
    fitted = fit_thresholds(table, Rule("calibrated", 10))
    assert fitted.pooled.tolist() == [False, False, False, True]
    assert fitted.positive_groups[3] == 3
    everything = fit_thresholds(table, Rule("pooled", 10))
    assert len(set(everything.values)) == 1 and everything.values[0] == fitted.values[3]
    # The pooled threshold is the one of highest micro-F1, for any other cut is worse.
    best = f1_score(table.labels, table.scores >= everything.values[0], average="micro")
    assert all(f1_score(table.labels, table.scores >= t, average="micro") <= best for t in np.linspace(0.05, 0.95, 40))


def test_half_or_largest_always_decides_for_one_class():
    table = ScoredRows(np.array([[0.1, 0.3], [0.6, 0.7]]), np.array([[0, 1], [1, 1]], bool), np.array([0, 1]))
    cell = [FoldScores(0, 0, table, table, table)]
    ones = np.ones((2, 1))
    with_largest = scoring.score_arm(cell, Rule("half_or_largest", 1), ones).counts[0, 1, :, 0]
    without = scoring.score_arm(cell, Rule("half", 1), ones).counts[0, 1, :, 0]
    assert with_largest.tolist() == [1, 2] and without.tolist() == [1, 1]


def test_per_protein_is_the_mean_over_images_and_any_label():
    table = ScoredRows(np.array([[0.2], [0.6], [0.9]]), np.array([[0], [1], [0]], bool), np.array([4, 4, 9]))
    found = per_protein(table)
    np.testing.assert_allclose(found.scores[:, 0], [0.4, 0.9])
    assert found.labels[:, 0].tolist() == [True, False] and found.groups.tolist() == [4, 9]
