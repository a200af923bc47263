"""lib.judge.fold_scores: rows per image and per protein."""

import numpy as np

from workflow_scripts.lib.judge.fold_scores import ScoredRows, per_protein


def test_per_protein_is_the_mean_over_images_and_any_label():
    table = ScoredRows(np.array([[0.2], [0.6], [0.9]]), np.array([[0], [1], [0]], bool), np.array([4, 4, 9]))
    found = per_protein(table)
    np.testing.assert_allclose(found.scores[:, 0], [0.4, 0.9])
    assert found.labels[:, 0].tolist() == [True, False] and found.groups.tolist() == [4, 9]
