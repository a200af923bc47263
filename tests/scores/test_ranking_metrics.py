"""Scores against scikit-learn, with and without weights; thresholds against a search through every cut."""

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, f1_score, precision_recall_curve

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
    # scikit-learn's curve goes through every cut there is.
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
    ranking = ranking_metrics.rank(scores + 1.5 * labels, labels)
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


def test_many_positives_leave_out_no_cut():
    scores, labels, groups, weights = draw(5, rows=4000, groups=500, prevalence=0.5)
    choice = ranking_metrics.best_threshold(scores, labels, groups, weights)
    assert len(choice.cuts) == labels.sum()
    for value, column in zip(choice.values, weights.T, strict=True):
        w = column[groups]
        precision, recall, _ = precision_recall_curve(labels, scores, sample_weight=w)
        best = np.max(2 * precision * recall / (precision + recall))
        assert f1_score(labels, scores >= value, sample_weight=w) == pytest.approx(best, rel=1e-9)
