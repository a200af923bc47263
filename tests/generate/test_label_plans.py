"""Synthetic sets beyond the training table: unseen label combinations, a classifier's errors, reference images."""

import itertools

import numpy as np
import pytest

from workflow_scripts.lib.base.errors import UserError
from workflow_scripts.lib.generate import label_plans


def rows(*combinations, classes=4):
    out = np.zeros((len(combinations), classes), dtype=np.uint8)
    for number, combination in enumerate(combinations):
        out[number, list(combination)] = 1
    return out


def combinations_of(table):
    return sorted(tuple(np.flatnonzero(row)) for row in table)


def test_unseen_pairs_are_all_that_never_occur_together_and_evenly_often():
    # Class 3 has no image; 0 and 1 occur together within a larger combination.
    labels = rows([0], [0, 1], [2], [])
    planned = label_plans.unseen(labels, np.random.default_rng(0), 7)
    found, counts = np.unique(planned, axis=0, return_counts=True)
    assert combinations_of(found) == [(0, 2), (1, 2)] and sorted(counts) == [3, 4]
    assert planned.dtype == np.uint8


def test_where_all_pairs_occur_a_class_is_added_to_a_combination_that_occurs():
    pairs = list(itertools.combinations(range(4), 2))
    labels = rows(*pairs, [0, 1, 2])
    found = np.unique(label_plans.unseen(labels, np.random.default_rng(0), 30), axis=0)
    assert combinations_of(found) == [(0, 1, 3), (0, 2, 3), (1, 2, 3)]


def test_no_unseen_combination_is_a_clear_refusal():
    for labels in (rows([0, 1, 2, 3]), rows([0], classes=1)):
        with pytest.raises(UserError, match="synthetic set p: no combination"):
            synthetic_set = {"name": "p", "labels": "unseen", "count": 5}
            label_plans.planned(synthetic_set, labels, np.random.default_rng(0), None)


def test_feedback_draws_classes_by_their_errors():
    labels = rows([0], [0], [0, 1], [2], [2], [2])
    errors = np.array([0.1, 0.6, np.nan, 0.9])
    weights = label_plans.class_weights(labels, errors)
    # The unknown error counts as the mean of the others; class 3 has no image to take a combination from.
    raw = np.array([0.1, 0.6, 1.6 / 3, 0])
    assert np.allclose(weights, raw / raw.sum())
    planned = label_plans.feedback(labels, np.random.default_rng(0), 4000, errors)
    fraction = (planned == [0, 0, 1, 0]).all(axis=1).mean()
    assert fraction == pytest.approx(weights[2], abs=0.03)
    known = {tuple(row) for row in labels}
    assert {tuple(row) for row in planned} <= known
    # No errors at all: every class alike.
    assert np.allclose(label_plans.class_weights(labels, np.zeros(4)), [1 / 3, 1 / 3, 1 / 3, 0])
    with pytest.raises(UserError, match="validation"):
        label_plans.class_weights(labels, np.full(4, np.nan))


def test_references_have_the_very_combination_and_take_turns():
    labels = rows([0], [0, 1], [0, 1], [0, 1], [2])
    wanted = np.concatenate([np.repeat(rows([0, 1]), 7, axis=0), rows([2], [0])])
    chosen = label_plans.references(labels, wanted, np.random.default_rng(0))
    assert np.array_equal(labels[chosen], wanted)
    assert sorted(np.bincount(chosen[:7], minlength=5)) == [0, 0, 2, 2, 3]


def test_an_unseen_combination_refers_to_the_nearest_one():
    labels = rows([0, 1], [2], [3])
    chosen = label_plans.references(labels, rows([0, 1, 2]), np.random.default_rng(0))
    assert chosen.tolist() == [0]
