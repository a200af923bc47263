"""What a generator sees under a label regime: labelled images, and the others without labels or with the baseline's."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tests.helpers.generating import CLASSES, UNET, make_data, train_line
from workflow_scripts import train_ddpm
from workflow_scripts.lib.base.errors import UserError
from workflow_scripts.lib.generate import generator_choices, generator_file, training_images
from workflow_scripts.lib.generate.training_images import Fold
from workflow_scripts.lib.images.access_record import AccessRecord
from workflow_scripts.lib.images.image_set import ImageSet
from workflow_scripts.lib.scores.prediction_file import Predictions, Scored, write_predictions
from workflow_scripts.lib.split import role_table
from workflow_scripts.lib.split.label_order import label_ranks
from workflow_scripts.lib.split.regimes import Regime
from workflow_scripts.lib.split.roles import Role

FEW = Regime("few", 0.2, "seen")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """40 images, of which 30 are for training: six labelled, the others seen."""
    _, labels = make_data(tmp_path)
    with ImageSet(tmp_path / "images.h5") as source:
        roles = role_table.read(tmp_path / "folds.csv", 0, source.ids)
        ranks = label_ranks(labels, np.arange(40), roles, 1)
        role_table.write(tmp_path / "folds.csv", source.ids, source.ids, roles[:, None], ranks[:, None])
    return tmp_path


def baseline(folder: Path, regime: Regime = FEW, leaked: int | None = None) -> Path:
    """A list of arms with a baseline of a regime that is three quarters sure of the first class everywhere."""
    with ImageSet(folder / "images.h5") as source:
        rows = role_table.rows(folder / "folds.csv", 0, source.ids, Role.UNLABELLED, FEW)
        record = AccessRecord(source.digest, len(source))
        record.record("fit", role_table.rows(folder / "folds.csv", 0, source.ids, Role.TRAIN, FEW))
        record.record("fit", [] if leaked is None else [leaked])
        logits = np.tile(np.log([3.0, 1 / 3, 1 / 99]).astype(np.float32), (len(rows), 1))
        part = Scored(source.ids[rows], source.ids[rows], np.zeros_like(logits), logits)
        about = {"images": source.digest, "access_record": record.to_json()}
    about["settings"] = {} if regime.whole else {"regime": regime.settings()}
    made = Predictions(CLASSES, "real_few", 0, 0, {Role.UNLABELLED: part}, **about)
    write_predictions(folder / "arms" / "real_few" / "predictions.h5", made)
    manifest = folder / "arms" / "job1.json"
    manifest.write_text(json.dumps({"arms": [{"arm": "real_few", "predictions": "real_few/predictions.h5"}]}))
    return manifest


def seen(folder: Path, sees: str | None = None, manifest: Path | None = None, **more: str):
    settings = UNET | {"regime": FEW.settings()} | ({"sees": sees} if sees else {}) | more
    with ImageSet(folder / "images.h5") as source:
        return training_images.read(source, Fold(folder / "folds.csv", 0, 0, manifest), settings)


def ways(record: AccessRecord) -> dict[bool, int]:
    """Number of rows that were fitted on, with and without their labels."""
    return {access.labels: len(access.rows) for access in record.accesses() if access.purpose == "fit"}


def test_a_regime_shows_its_labelled_images_alone(folder: Path) -> None:
    found = seen(folder)
    assert len(found) == 6 and found.known is None and ways(found.access_record) == {True: 6}


def test_unlabelled_images_are_shown_without_labels(folder: Path) -> None:
    found = seen(folder, generator_choices.UNLABELLED)
    assert len(found) == 30 and found.known.tolist() == [True] * 6 + [False] * 24
    assert found.labels[:6].any(axis=1).all() and not found.labels[6:].any()
    assert ways(found.access_record) == {True: 6, False: 24}, "none of their labels was read"


def test_pseudo_labels_are_what_the_baseline_of_the_regime_says(folder: Path) -> None:
    found = seen(folder, generator_choices.PSEUDO_LABELLED, baseline(folder))
    assert found.known.all() and len(found) == 30
    assert np.allclose(found.labels[6:], [0.75, 0.25, 0.01], atol=1e-6)
    assert ways(found.access_record) == {True: 6, False: 24}
    assert found.answers and not seen(folder).answers
    with pytest.raises(UserError, match="--baseline"):
        seen(folder, generator_choices.PSEUDO_LABELLED)
    named = seen(folder, generator_choices.PSEUDO_LABELLED, baseline(folder), pseudo_labels_from="real_few")
    assert np.array_equal(named.labels, found.labels)
    with ImageSet(folder / "images.h5") as source:
        test = role_table.rows(folder / "folds.csv", 0, source.ids, Role.TEST)[0]
    leaky = seen(folder, generator_choices.PSEUDO_LABELLED, baseline(folder, leaked=test))
    assert test in leaky.access_record.of("fit"), "what the asked arm has read is found in the generator"
    assert test not in named.access_record.of("fit")
    with pytest.raises(UserError, match="begins with the arm 'real_few', and 'pool_few' is asked"):
        seen(folder, generator_choices.PSEUDO_LABELLED, baseline(folder), pseudo_labels_from="pool_few")
    with pytest.raises(UserError, match="another label regime"):
        seen(folder, generator_choices.PSEUDO_LABELLED, baseline(folder, Regime("other", 0.2, "seen")))


def test_the_stage_trains_on_them_and_writes_down_what_it_read(folder: Path) -> None:
    settings = UNET | {"regime": FEW.settings(), "sees": generator_choices.PSEUDO_LABELLED}
    assert train_ddpm.main([*train_line(folder, settings), "--baseline", str(baseline(folder))]) == 0
    made = generator_file.read(folder / "g.safetensors")
    assert ways(made.access_record) == {True: 6, False: 24} and made.settings["regime"]["name"] == "few"
