"""lib.scores.decisions: probabilities that keep their order, and a class for every image."""

from __future__ import annotations

import math

import numpy as np

from workflow_scripts.lib.scores.decisions import at_least_one, probabilities


def test_probabilities_keep_the_order_of_logits_and_do_not_overflow() -> None:
    logits = np.array([[-800.0, -90.0, -80.0, -1.0, 0.0, 1.0, 800.0]], dtype=np.float32)
    found = probabilities(logits)[0]
    assert found.dtype == np.float64 and (np.diff(found[1:6]) > 0).all(), "in float32 the first two would be equal"
    np.testing.assert_allclose(found[1:6], [1 / (1 + math.exp(-x)) for x in logits[0, 1:6].tolist()], rtol=1e-14)
    assert found[0] == 0 and found[-1] == 1


def test_a_row_without_a_decision_gets_its_highest_class() -> None:
    decided = np.array([[True, False, True], [False, False, False], [False, False, False]])
    ranking = np.array([[0.1, 0.9, 0.2], [-3.0, -1.0, -2.0], [0.4, 0.2, 0.4]])
    made = at_least_one(decided, ranking)
    assert made.tolist() == [[True, False, True], [False, True, False], [True, False, False]]
    assert not decided[1:].any(), "the decisions themselves stay as they were"
    assert at_least_one(np.zeros((0, 3), bool), np.zeros((0, 3))).shape == (0, 3)
