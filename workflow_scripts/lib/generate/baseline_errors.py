"""What the baseline of a fold says: its errors on the validation part, and its answers about unlabelled images.

Synthetic sets use its errors, per class and between classes, to generate more images where it errs. Only validation
rows are read for that, and recorded as read for selection. Generators use its answers as labels. The record also has
what the baseline itself was fitted and selected on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from workflow_scripts.lib.base.errors import UserError
from workflow_scripts.lib.images.access_record import Provenance
from workflow_scripts.lib.images.image_set import ImageSet
from workflow_scripts.lib.scores import arm_list, ranking_metrics
from workflow_scripts.lib.scores.prediction_file import Scored, read_predictions
from workflow_scripts.lib.split import role_table
from workflow_scripts.lib.split.regimes import WHOLE, Regime, regime_of
from workflow_scripts.lib.split.roles import Role


@dataclass
class BaselinePredictions:
    """Predictions of a baseline for the validation images of its fold."""

    labels: np.ndarray  # uint8 (n, K)
    probabilities: np.ndarray  # float64 (n, K)
    provenance: Provenance  # what the baseline was fitted and selected on


def read_baseline(
    manifest: Path, source: ImageSet, table: Path, repeat: int, fold: int, regime: Regime = WHOLE
) -> BaselinePredictions:
    """Validation predictions of a regime's baseline, the first arm of a manifest, for this very fold."""
    part, asked, record = _asked(manifest, source, table, repeat, fold, regime, Role.VALIDATION)
    return BaselinePredictions(source.labels(asked, "select"), part.probabilities, record)


def read_pseudo_labels(
    manifest: Path, source: ImageSet, table: Path, repeat: int, fold: int, regime: Regime
) -> tuple[np.ndarray, np.ndarray, Provenance]:
    """Unlabelled rows of a regime (n,), the probabilities that its baseline gives them (n, K), and its record."""
    part, asked, record = _asked(manifest, source, table, repeat, fold, regime, Role.UNLABELLED)
    return asked, part.probabilities, record


def _asked(
    manifest: Path, source: ImageSet, table: Path, repeat: int, fold: int, regime: Regime, role: str
) -> tuple[Scored, np.ndarray, Provenance]:
    """The baseline's predictions of a role, the rows of these, and what it was fitted and selected on."""
    path = arm_list.read(manifest)[0]["predictions"]
    written = read_predictions(path, parts=(role,))
    if (written.images, written.classes, written.repeat, written.fold) != (source.digest, source.classes, repeat, fold):
        raise UserError(f"{path} speaks of other images, classes or of another fold: delete {manifest} and run again")
    if regime_of(written.settings) != regime:
        raise UserError(f"{path} was trained under another label regime than {regime.name!r}: run again")
    rows = role_table.rows(table, fold, source.ids, role, regime)
    at = {name: row for row, name in enumerate(source.ids)}
    asked = np.array([at.get(name, -1) for name in written.parts[role].ids], dtype=np.int64)
    if not np.array_equal(np.sort(asked), rows):
        raise UserError(f"{path} was asked about other images than the fold's {role} part: run again")
    # The file also has later predictions of the arm (calibration, test), which are not read here.
    return written.parts[role], asked, Provenance.from_json(written.provenance).only("fit", "select")


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
