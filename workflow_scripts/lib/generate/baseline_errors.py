"""Errors of the fold's own baseline on the validation part: per class, and between classes.

Synthetic sets use them to generate more images where the baseline errs. Only validation rows are read, and recorded as
read for selection. The record also has what the baseline itself was fitted and selected on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from workflow_scripts.lib.generate.baseline_answers import asked_about
from workflow_scripts.lib.images.access_record import AccessRecord
from workflow_scripts.lib.images.image_set import ImageSet
from workflow_scripts.lib.scores import ranking_metrics
from workflow_scripts.lib.split.regimes import WHOLE, Regime
from workflow_scripts.lib.split.roles import Role


@dataclass
class BaselinePredictions:
    """Predictions of a baseline for the validation images of its fold."""

    labels: np.ndarray  # uint8 (n, K)
    probabilities: np.ndarray  # float64 (n, K)
    access_record: AccessRecord  # what the baseline was fitted and selected on


def read_baseline(
    manifest: Path, source: ImageSet, table: Path, repeat: int, fold: int, regime: Regime = WHOLE
) -> BaselinePredictions:
    """Validation predictions of a regime's baseline, the first arm of a manifest, for this very fold."""
    part, asked, record = asked_about(manifest, source, table, repeat, fold, regime, Role.VALIDATION)
    return BaselinePredictions(source.labels(asked, "select"), part.probabilities, record)


def errors(labels: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """1 - average precision of each class (K,); NaN for classes that no image carries."""
    one, together = np.ones((1, 1)), np.zeros(len(labels), dtype=np.int64)
    columns = zip(probabilities.T, labels.T, strict=True)
    return np.array(
        [1 - ranking_metrics.average_precision(scores, truth, together, one)[0] for scores, truth in columns]
    )


def confusion(labels: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Soft confusion matrix (K, K): how much class i raises the baseline's probability of class j.

    It is the mean probability of j over images with i but not j, minus the mean over images with neither. NaN where
    there are no such images, and for i = j."""
    carries = labels.astype(bool)
    out = np.full((labels.shape[1],) * 2, np.nan)
    for i, j in np.ndindex(out.shape):
        with_i = probabilities[carries[:, i] & ~carries[:, j], j]
        neither = probabilities[~carries[:, i] & ~carries[:, j], j]
        if i != j and len(with_i) and len(neither):
            out[i, j] = with_i.mean() - neither.mean()
    return out


def most_confused(matrix: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """For each combination of classes (n, K), the class outside it that it is most confused with, (n,).

    -1 where these classes make no other class more probable, or where nothing is known."""
    known = np.nan_to_num(matrix, nan=0.0)
    out = np.empty(len(wanted), dtype=np.int64)
    combinations, which = np.unique(wanted, axis=0, return_inverse=True)
    for number, combination in enumerate(combinations.astype(bool)):
        belief = np.where(combination, -np.inf, known[combination].sum(axis=0))
        out[which.ravel() == number] = belief.argmax() if belief.max() > 0 else -1
    return out
