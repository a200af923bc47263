"""Images that a generator learns from: the labelled ones of its regime, and as its setting `sees` has it the others."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from workflow_scripts.lib.base.errors import UserError
from workflow_scripts.lib.generate import baseline_answers, generator_choices
from workflow_scripts.lib.images.access_record import AccessRecord
from workflow_scripts.lib.images.image_set import ImageSet
from workflow_scripts.lib.split import role_table
from workflow_scripts.lib.split.regimes import regime_of
from workflow_scripts.lib.split.roles import Role


@dataclass(frozen=True)
class Fold:
    """A fold of a repeat, and the list of arms that begins with its baseline, if that is asked."""

    table: Path
    repeat: int
    number: int
    baseline: Path | None = None


@dataclass(frozen=True)
class TrainingImages:
    """Images with their labels, as a generator is shown them."""

    images: np.ndarray  # uint8 (n, C, H, W)
    labels: np.ndarray  # (n, K); probabilities where the baseline gave them
    known: np.ndarray | None  # bool (n,): whether anything is said about the labels; None: always
    access_record: AccessRecord
    columns: np.ndarray | None = None  # text (n, C): values of the columns of `condition_on`; None: there are none
    answers: str = ""  # digest of the baseline's answers, where there are some: a record tells rows, not values

    def __len__(self) -> int:
        return len(self.images)


def read(source: ImageSet, fold: Fold, settings: dict[str, Any]) -> TrainingImages:
    """The images that a generator with these settings sees in a fold."""
    regime, sees = regime_of(settings), settings.get("sees", generator_choices.LABELLED)
    rows = role_table.rows(fold.table, fold.number, source.ids, Role.TRAIN, regime)
    if not len(rows):
        raise UserError(f"{fold.table}: fold {fold.number} has no image with role train")
    part = source.read(rows, "fit")
    if sees == generator_choices.LABELLED:
        columns = source.values(settings.get("condition_on"), rows, "fit")
        return TrainingImages(part.images, part.labels, None, source.access_record(), columns)
    if sees == generator_choices.PSEUDO_LABELLED:
        if fold.baseline is None:
            raise UserError(f"generator {settings['name']} asks the baseline of its regime: --baseline arms/job0.json")
        place = (fold.table, fold.repeat, fold.number, regime, settings.get("pseudo_labels_from"))
        others, answers, record = baseline_answers.read_pseudo_labels(fold.baseline, source, *place)
    else:
        others = role_table.rows(fold.table, fold.number, source.ids, Role.UNLABELLED, regime)
        answers, record = np.zeros((len(others), len(source.classes))), None
    images = np.concatenate([part.images, source.read(others, "fit", labels=False).images])
    labels = np.concatenate([part.labels, answers]).astype(np.float32)
    known = np.repeat([True, sees == generator_choices.PSEUDO_LABELLED], [len(rows), len(others)])
    # What a column says of an unlabelled image is no label.
    columns = source.values(settings.get("condition_on"), np.concatenate([rows, others]), "fit")
    if record is None:
        return TrainingImages(images, labels, known, source.access_record(), columns)
    told = hashlib.blake2b(np.ascontiguousarray(answers).tobytes(), digest_size=16).hexdigest()
    return TrainingImages(images, labels, known, source.access_record().merged(record), columns, told)
