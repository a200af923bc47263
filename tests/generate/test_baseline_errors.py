"""What a baseline gets wrong: small tables whose answer is known, and the refusal to listen to the wrong one."""

import json

import h5py
import numpy as np
import pytest

from tests.helpers.generating import CLASSES, make_baseline, make_data
from workflow_scripts.lib.base.errors import UserError
from workflow_scripts.lib.generate import baseline_errors
from workflow_scripts.lib.images.image_set import ImageSet

LABELS = np.array([[1, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 0, 1], [0, 0, 0]], dtype=np.uint8)


def test_confusion_is_belief_beyond_what_there_is_without_the_class():
    said = np.zeros((6, 3))
    said[:, 1] = [0.9, 0.7, 0.8, 0.3, 0.5, 0.1]
    said[:, 2] = [0.2, 0.0, 0.1, 0.9, 0.9, 0.1]
    matrix = baseline_errors.confusion(LABELS, said)
    # Belief in 1 where 0 is and 1 is not: 0.9, 0.7, 0.5; where neither is: 0.3, 0.1.
    assert matrix[0, 1] == pytest.approx(0.7 - 0.2)
    # Images that carry class 1 itself, and those of class 2, do not count.
    assert matrix[0, 2] == pytest.approx(0.1 - 0.1)
    assert np.isnan(np.diag(matrix)).all()


def test_confusion_is_unknown_where_two_classes_never_come_apart():
    labels = np.array([[1, 1], [1, 1], [0, 0]], dtype=np.uint8)
    assert np.isnan(baseline_errors.confusion(labels, np.full((3, 2), 0.5))).all()


def test_the_most_confused_class_of_a_combination_is_outside_it():
    nan = np.nan
    matrix = np.array([[nan, 0.5, 0.2, -0.1], [0.4, nan, 0.2, 0.0], [-0.2, -0.1, nan, nan], [0.0, 0.1, 0.2, nan]])
    wanted = np.array([[1, 0, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 0], [0, 0, 0, 1], [1, 0, 0, 0]])
    # Alone, class 0 is taken for 1; together with 1, which is wanted then, for 2; class 2 is taken for nothing.
    assert baseline_errors.most_confused(matrix, wanted).tolist() == [1, 2, -1, -1, 2, 1]


def test_errors_are_one_minus_average_precision():
    said = np.array([[0.9, 0.1, 0.5], [0.8, 0.2, 0.5], [0.1, 0.3, 0.5], [0.2, 0.9, 0.5], [0.7, 0.8, 0.5], [0, 0, 0.5]])
    labels = LABELS.copy()
    labels[:, 2] = 0
    errors = baseline_errors.errors(labels, said)
    assert errors[0] == pytest.approx(0) and np.isnan(errors[2])
    # The one positive stands third: precision 1/3.
    assert errors[1] == pytest.approx(2 / 3)


def test_only_validation_images_of_the_same_fold_are_listened_to(tmp_path):
    make_data(tmp_path)
    validation = list(range(0, 40, 8))
    said = np.random.default_rng(0).normal(size=(5, 3))
    manifest = make_baseline(tmp_path, said)
    with ImageSet(tmp_path / "images.h5") as source:
        baseline = baseline_errors.read_baseline(manifest, source, tmp_path / "folds.csv", 0, 0)
        assert np.allclose(baseline.probabilities, 1 / (1 + np.exp(-said)))
        assert np.array_equal(baseline.labels, source.labels(validation, "inspect"))
        # What was read to select, and what the baseline was fitted on; not what it was asked about later.
        assert source.access_record().of("select").tolist() == validation
        assert sorted(baseline.access_record.rows) == ["fit", "select"]
        assert baseline.access_record.of("fit").tolist() == [row for row in range(40) if row % 4]
    for number, changed in enumerate(({"images": "other"}, {"classes": CLASSES[:2]}, {"fold": 1})):
        folder = tmp_path / str(number)
        folder.mkdir()
        make_data(folder)
        manifest = make_baseline(folder, said)
        rewrite(folder / "arms" / "real_only" / "predictions.h5", changed)
        with ImageSet(folder / "images.h5") as source, pytest.raises(UserError, match="run again"):
            baseline_errors.read_baseline(manifest, source, folder / "folds.csv", 0, 0)


def rewrite(path, changed):
    with h5py.File(path, "r+") as file:
        for name, value in changed.items():
            file.attrs[name] = json.dumps(value) if isinstance(value, list) else value


def test_a_baseline_asked_about_test_images_instead_is_refused(tmp_path):
    make_data(tmp_path)
    manifest = make_baseline(tmp_path, np.zeros((5, 3)))
    with h5py.File(tmp_path / "arms" / "real_only" / "predictions.h5", "r+") as file:
        file["validation/ids"][0] = file["test/ids"][0]
    with ImageSet(tmp_path / "images.h5") as source, pytest.raises(UserError, match="validation part"):
        baseline_errors.read_baseline(manifest, source, tmp_path / "folds.csv", 0, 0)


def test_a_broken_list_of_arms_is_the_users_to_mend(tmp_path):
    make_data(tmp_path)
    (tmp_path / "job0.json").write_text('{"arms": []}')
    with ImageSet(tmp_path / "images.h5") as source, pytest.raises(UserError, match=r"job0\.json"):
        baseline_errors.read_baseline(tmp_path / "job0.json", source, tmp_path / "folds.csv", 0, 0)
