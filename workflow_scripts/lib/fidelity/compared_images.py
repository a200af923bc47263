"""Images that the assessment of a synthetic set compares: held-out real, train and generated ones.

Held-out images: neither the generator nor a network asked here was fitted or selected on them or on their groups.
What these have read stands in the access records of their files."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from workflow_scripts.lib.base.errors import UserError
from workflow_scripts.lib.fidelity.encoders import Encoder
from workflow_scripts.lib.images.access_record import AccessRecord
from workflow_scripts.lib.images.image_set import ImageSet, Part
from workflow_scripts.lib.split import role_table
from workflow_scripts.lib.split.roles import Role

HELD_OUT = (Role.VALIDATION, Role.CALIBRATION, Role.TEST)


@dataclass
class ComparedImages:
    """Three sets of images, and what the generated ones took from training images."""

    held_out: Part
    train: Part  # what the generator was fitted on
    made: Part
    reference_channels: list[int]  # channels that the synthetic set took from training images
    start_noise: float | None  # SDEdit: noise level at which sampling started from a noised training image
    references: np.ndarray | None  # ids (n,) of these training images
    relatives: np.ndarray | None  # their groups
    classes: list[str]
    channels: list[str]

    @property
    def own(self) -> np.ndarray:
        """Groups of the generated images. Each is its own group, unless training images of one group were given."""
        return np.arange(len(self.made)) if self.relatives is None else self.relatives


def read(synthetic: Path, images: Path, folds: Path, fold: int, networks: list[Encoder]) -> ComparedImages:
    """The images of a fold to compare with a synthetic set, by what the set and the networks have read."""
    with ImageSet(synthetic) as source:
        made, inherited = source.read(None, "inspect"), source.inherited()
        synthetic_set = json.loads(source.attrs.get("synthetic_set", "{}"))
        references = source.column("reference") if "reference" in source.columns() else None
        theirs = (source.channels, source.classes)
    with ImageSet(images) as source:
        if theirs != (source.channels, source.classes):
            raise UserError(f"{synthetic} has other channels or classes than {images}: delete it and run again")
        roles = role_table.read(folds, fold, source.ids)
        records = [record for record in (inherited, *(network.fitted for network in networks)) if record is not None]
        seen = _rows_seen(records, source, images)
        held = np.isin(roles, HELD_OUT) & ~np.isin(source.groups, source.groups[seen])
        fitted = np.zeros(len(source), dtype=bool)
        fitted[inherited.of("fit") if inherited else np.flatnonzero(roles == Role.TRAIN)] = True
        if not held.any() or not fitted.any():
            raise UserError(f"{folds} leaves no held-out or no train image in fold {fold} to compare")
        reference_channels = [
            source.channels.index(name)
            for name in synthetic_set.get("reference_channels") or []
            if name in source.channels
        ]
        groups = None if references is None else _groups_of(references, source, synthetic, images)
        return ComparedImages(
            source.read(np.flatnonzero(held), "inspect"), source.read(np.flatnonzero(fitted), "inspect"), made,
            reference_channels, synthetic_set.get("start_noise"), references, groups, source.classes,
            source.channels,
        )  # fmt: skip


def _groups_of(references: np.ndarray, source: ImageSet, synthetic: Path, images: Path) -> np.ndarray:
    at = {name: row for row, name in enumerate(source.ids)}
    absent = [name for name in references if name not in at]
    if absent:
        raise UserError(f"{synthetic} refers to {absent[0]!r}, which {images} does not hold")
    return source.groups[[at[name] for name in references]]


def _rows_seen(records: list[AccessRecord], source: ImageSet, path: Path) -> np.ndarray:
    seen = np.zeros(len(source), dtype=bool)
    for record in records:
        if (record.images, record.count) != (source.digest, len(source)):
            raise UserError(f"a network or a synthetic set was made from another image set than {path}: run again")
        for purpose in ("fit", "select"):
            seen[record.of(purpose)] = True
    return np.flatnonzero(seen)
