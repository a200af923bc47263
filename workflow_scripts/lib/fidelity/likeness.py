"""Likeness of new images to the training images of a classifier, in the features of that classifier.

Distance to the k-th nearest training image among unit feature vectors (Sun et al. 2022, arXiv:2204.06507). It is told
as a rank among calibration images, which are real images that the classifier was not trained on. An image of rank 0.99
is farther from the training images than 99 % of these."""

from __future__ import annotations

import numpy as np

from workflow_scripts.lib.base.pairwise import blocks, squared_distances

NEIGHBOUR = 10  # k
MOST = 5000  # images of a kind that are compared with, evenly spaced over the rows


def thinned(rows: np.ndarray) -> np.ndarray:
    """At most MOST of these rows, evenly spaced."""
    return rows if len(rows) <= MOST else rows[np.linspace(0, len(rows) - 1, MOST).round().astype(int)]


class Likeness:
    """Ranks of new images by their distance to training images, from features (n, D) of both."""

    def __init__(self, train: np.ndarray, calibration: np.ndarray) -> None:
        self._train = _unit(train)
        self._known = np.sort(self._distances(calibration))

    def rank(self, features: np.ndarray) -> np.ndarray:
        """Fraction of the calibration images that are nearer to the training images, (n,)."""
        return np.searchsorted(self._known, self._distances(features), side="left") / max(1, len(self._known))

    def _distances(self, features: np.ndarray) -> np.ndarray:
        features = _unit(features)
        place = min(NEIGHBOUR, len(self._train)) - 1
        out = np.empty(len(features), dtype=np.float32)
        for part in blocks(len(features)):
            out[part] = np.partition(squared_distances(features[part], self._train), place, axis=1)[:, place]
        return out


def _unit(features: np.ndarray) -> np.ndarray:
    lengths = np.linalg.norm(features, axis=1, keepdims=True)
    return np.divide(features, lengths, out=np.zeros_like(features), where=lengths > 0)
