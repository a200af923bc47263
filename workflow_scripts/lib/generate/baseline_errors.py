"""What the fold's own baseline gets wrong on the validation part: which classes it misses, and what it takes for what.

A synthetic set may learn from that where to spend its images. Nothing but validation rows is read, and they are recorded as read
for selection; what the baseline itself was fitted and selected on is carried on with them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from workflow_scripts.lib.base.errors import UserError
from workflow_scripts.lib.images.access_record import Provenance
from workflow_scripts.lib.images.image_set import ImageSet
from workflow_scripts.lib.scores import arm_list, ranking_metrics
from workflow_scripts.lib.scores.prediction_file import read_predictions
from workflow_scripts.lib.split import role_table
from workflow_scripts.lib.split.roles import Role


@dataclass
class Opinion:
    """What a baseline says about the validation images of its fold."""

    labels: np.ndarray  # uint8 (n, K)
    probabilities: np.ndarray  # float64 (n, K)
    provenance: Provenance  # what the baseline was fitted and selected on


def ask(manifest: Path, source: ImageSet, table: Path, repeat: int, fold: int) -> Opinion:
    """The opinion of the baseline, the first arm of a manifest, about the validation images of this very fold."""
    path = arm_list.read(manifest)[0]["predictions"]
    said = read_predictions(path, parts=(Role.VALIDATION,))
    found = (said.images, said.classes, said.repeat, said.fold)
    if found != (source.digest, source.classes, repeat, fold):
        raise UserError(f"{path} speaks of other images, classes or of another fold: delete {manifest} and run again")
    part = said.parts[Role.VALIDATION]
    rows = role_table.rows(table, fold, source.ids, Role.VALIDATION)
    at = {name: row for row, name in enumerate(source.ids)}
    asked = np.array([at.get(name, -1) for name in part.ids], dtype=np.int64)
    if not np.array_equal(np.sort(asked), rows):
        raise UserError(f"{path} was asked about other images than the fold's validation part: run again")
    whole = Provenance.from_json(said.provenance)
    # The file also holds what the arm was asked about later (thresholds, test), of which nothing is read here.
    record = Provenance(whole.images, whole.count)
    for purpose in ("fit", "select"):
        record.record(purpose, whole.of(purpose))
    return Opinion(source.labels(asked, "select"), part.probabilities, record)


def errors(labels: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """1 - average precision of each class (K,); NaN for classes that no image carries."""
    one, together = np.ones((1, 1)), np.zeros(len(labels), dtype=np.int64)
    columns = zip(probabilities.T, labels.T, strict=True)
    return np.array(
        [1 - ranking_metrics.average_precision(scores, truth, together, one)[0] for scores, truth in columns]
    )


def confusion(labels: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """How much class i makes the baseline believe in class j, (K, K): the mean probability of j over images that carry
    i but not j, above its mean over images that carry neither. NaN where there are no such images, and for i = j."""
    carries = labels.astype(bool)
    out = np.full((labels.shape[1],) * 2, np.nan)
    for i, j in np.ndindex(out.shape):
        with_i = probabilities[carries[:, i] & ~carries[:, j], j]
        neither = probabilities[~carries[:, i] & ~carries[:, j], j]
        if i != j and len(with_i) and len(neither):
            out[i, j] = with_i.mean() - neither.mean()
    return out


def most_confused(matrix: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """For each combination of classes (n, K) the class outside it that its classes together are most taken for, (n,).

    -1 where none is: every other class is believed in no more than without the wanted ones, or nothing is known."""
    known = np.nan_to_num(matrix, nan=0.0)
    out = np.empty(len(wanted), dtype=np.int64)
    combinations, which = np.unique(wanted, axis=0, return_inverse=True)
    for number, combination in enumerate(combinations.astype(bool)):
        belief = np.where(combination, -np.inf, known[combination].sum(axis=0))
        out[which.ravel() == number] = belief.argmax() if belief.max() > 0 else -1
    return out
