"""What the baseline of a fold and regime answered about the images of a role, from its predictions file.

Knows nothing of scores, so that a change of these trains no generator again."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from workflow_scripts.lib.base.errors import UserError
from workflow_scripts.lib.images.access_record import AccessRecord
from workflow_scripts.lib.images.image_set import ImageSet
from workflow_scripts.lib.scores import arm_list
from workflow_scripts.lib.scores.prediction_file import Scored, read_predictions
from workflow_scripts.lib.split import role_table
from workflow_scripts.lib.split.regimes import Regime, regime_of
from workflow_scripts.lib.split.roles import Role


def read_pseudo_labels(
    manifest: Path, source: ImageSet, table: Path, repeat: int, fold: int, regime: Regime, arm: str | None = None
) -> tuple[np.ndarray, np.ndarray, AccessRecord]:
    """Unlabelled rows of a regime (n,), the probabilities that its baseline gives them (n, K), and its record.

    With `arm` the manifest must begin with the arm of this name."""
    first = arm_list.read(manifest)[0]["arm"]
    if arm not in (None, first):
        raise UserError(f"{manifest} begins with the arm {first!r}, and {arm!r} is asked: give the list that does")
    part, asked, record = asked_about(manifest, source, table, repeat, fold, regime, Role.UNLABELLED)
    return asked, part.probabilities, record


def asked_about(
    manifest: Path, source: ImageSet, table: Path, repeat: int, fold: int, regime: Regime, role: str
) -> tuple[Scored, np.ndarray, AccessRecord]:
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
    return written.parts[role], asked, AccessRecord.from_json(written.access_record).only("fit", "select")
