"""Filling rare classes in feature space, against cases worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from workflow_scripts.lib.classify import feature_space
from workflow_scripts.lib.generate import diffusion
from workflow_scripts.lib.generate.diffusion import Condition

pytestmark = pytest.mark.usefixtures("one_thread")

FEATURES = np.array([[0, 0], [1, 0], [0, 4], [9, 9], [5, 5]], dtype=np.float32)
LABELS = np.array([[1, 0], [1, 0], [1, 0], [0, 1], [1, 1]])


def test_every_class_is_asked_for_equally_often() -> None:
    labels = np.array([[1, 0]] * 8 + [[0, 1]] * 2)
    wanted = labels[feature_space.wanted_rows(labels, np.random.default_rng(1))]
    assert wanted.sum(axis=0).tolist() == [8, 8]


def test_smote_stays_between_neighbours_of_the_same_labels() -> None:
    rows = np.repeat(np.arange(5), 50)
    made = feature_space.smote(FEATURES, LABELS, rows, np.random.default_rng(1))
    # The first three have each other; of the triangle they reach the sides alone.
    x, y = made[rows < 3].T
    assert np.allclose(np.minimum(np.minimum(np.abs(x), np.abs(y)), np.abs(4 * x + y - 4)), 0, atol=1e-5)
    assert len(np.unique(made[rows == 0], axis=0)) == 50
    for alone in (3, 4):
        assert np.array_equal(made[rows == alone], FEATURES[[alone] * 50]), "nobody has its combination of labels"


def test_smote_takes_the_nearest() -> None:
    line = np.arange(10, dtype=np.float32)[:, None]
    made = feature_space.smote(line, np.ones((10, 1)), np.zeros(200, dtype=int), np.random.default_rng(1))
    assert 4 < made.max() < 5, "the fifth neighbour is at 5"


def test_mixed_features_have_labels_mixed_alike() -> None:
    features = LABELS.astype(np.float32)  # where both are the same, so is their mixture
    rows = np.arange(5).repeat(20)
    made, targets = feature_space.mixed(features, LABELS, rows, 0.3, np.random.default_rng(1))
    assert np.allclose(made, targets, atol=1e-6)
    assert ((targets > 0.01) & (targets < 0.99)).any() and targets.dtype == np.float32


def test_the_diffusion_model_draws_each_class_where_it_lies() -> None:
    """Two normal distributions with known means: (-2, 1) without the label, (2, 1) with it; deviations 0.5 and 1."""
    rng = np.random.default_rng(1)
    labels = (np.arange(400) % 2)[:, None]
    features = (rng.normal(size=(400, 2)) * [0.5, 1] + [-2, 1] + labels * [4, 0]).astype(np.float32)
    features = np.concatenate([features, np.full((400, 1), 7, dtype=np.float32)], axis=1)  # one is constant
    wanted = np.array([[0]] * 150 + [[1]] * 150)
    made = feature_space.diffused(features, labels, wanted, seed=1, steps=100)
    for label, mean in ((0, -2), (1, 2)):
        part = made[wanted[:, 0] == label]
        assert part.mean(axis=0) == pytest.approx([mean, 1, 7], abs=0.35)
        assert part.std(axis=0) == pytest.approx([0.5, 1, 0], abs=0.35)
    assert (made >= features.min(axis=0)).all() and (made <= features.max(axis=0)).all()


def test_an_untrained_model_estimates_what_a_standard_normal_has() -> None:
    """The last layer begins at zero: the estimate is that of data of mean 0 and deviation 1, x / (1 + sigma^2)."""
    network = feature_space.PointNetwork(3, 2, seed=1)
    x, sigma = torch.randn(4, 3, 1, 1), 1.5
    condition = Condition(torch.zeros(4, 2), torch.zeros(4, dtype=torch.bool))
    found = diffusion.denoised(diffusion.edm(), network, x, sigma, condition)
    assert torch.allclose(found, x / (1 + sigma**2))
