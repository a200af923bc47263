"""lib.judge.thresholds: where a class is too rare for a threshold of its own, and what no threshold decides."""

import numpy as np
from sklearn.metrics import f1_score

from tests.helpers.worlds import random_folds
from workflow_scripts.lib.judge import thresholds
from workflow_scripts.lib.judge.fold_scores import ScoredRows
from workflow_scripts.lib.judge.thresholds import Rule, fit_thresholds


def test_rare_classes_use_the_pooled_threshold():
    table = random_folds(rows=100)[0].calibration
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


def test_thresholds_by_hand() -> None:
    scores = np.array([[0.1, 0.9], [0.2, 0.8], [0.6, 0.3], [0.9, 0.1]])
    rows = ScoredRows(scores, np.array([[0, 1], [0, 1], [1, 0], [1, 0]], bool), np.arange(4))
    fitted = fit_thresholds(rows, Rule("calibrated", 2))
    # Half way between the lowest positive and the highest negative.
    np.testing.assert_allclose(fitted.values, [0.4, 0.55])
    assert fitted.pooled.tolist() == [False, False] and fitted.positive_groups.tolist() == [2, 2]
    assert fit_thresholds(rows, Rule("calibrated", 3)).pooled.tolist() == [True, True]
    np.testing.assert_allclose(fit_thresholds(rows, Rule("pooled", 2)).values, [0.45, 0.45])
    np.testing.assert_allclose(fit_thresholds(rows, Rule("half", 2)).values, [0.5, 0.5])


def test_decisions_by_hand() -> None:
    rows = ScoredRows(np.array([[0.4, 0.3], [0.5, 0.6], [0.1, 0.1]]), np.zeros((3, 2), bool), np.arange(3))
    half = thresholds.decisions(rows, np.array([0.5, 0.5]), "half")
    assert half.tolist() == [[False, False], [True, True], [False, False]]
    largest = thresholds.decisions(rows, np.array([0.5, 0.5]), "half_or_largest")
    assert largest.tolist() == [[True, False], [True, True], [True, False]], "of equal ones the first"
    own = thresholds.decisions(rows, np.array([0.45, 0.25]), "calibrated")
    assert own.tolist() == [[False, True], [True, True], [False, False]]
