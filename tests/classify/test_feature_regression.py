"""Logistic regression on hand-made features: what it minimises, what it chooses on, and that it serves as a network."""

import json

import numpy as np
import pytest
import torch
from scipy.special import expit

from tests.helpers.arms_data import ENTRIES, SECTION, cells, write_fold
from workflow_scripts import train_classifier as stage_program
from workflow_scripts.lib.classify import arm_checks, arm_settings, classifier_file, feature_regression
from workflow_scripts.lib.classify.classifier_training import Images
from workflow_scripts.lib.images import orientation
from workflow_scripts.lib.scores.prediction_file import read_predictions

pytestmark = pytest.mark.usefixtures("one_thread")


def settings(method: str, **own) -> dict:
    return arm_settings.effective(ENTRIES[method] | {"backbone": "classical"} | own, SECTION)


def images(count: int, seed: int, **more) -> Images:
    return Images(*cells(count, seed), **more)


def fitted(method: str, second: Images | None = None, **own):
    return feature_regression.train(settings(method, **own), images(60, 1), second, images(40, 2), 5, None)


def test_the_penalised_loss_is_at_its_least():
    """At the optimum the gradient of C · Σ w · loss + ½ · |w|² is zero; the intercept has no penalty."""
    rng = np.random.default_rng(0)
    features, weights = rng.normal(size=(40, 3)), rng.uniform(0.5, 2, 40)
    labels = np.stack([features[:, 0] + rng.normal(size=40) > 0, rng.random(40)], axis=1).astype(float)  # hard and soft
    design = feature_regression._Design(features, labels, weights)
    for strength in (0.01, 1.0):
        design.fit(strength)
    for k in range(2):
        error = weights * (expit(features @ design.coefficients[k] + design.intercepts[k]) - labels[:, k])
        assert features.T @ error + design.coefficients[k] == pytest.approx(np.zeros(3), abs=5e-3)
        assert error.sum() == pytest.approx(0, abs=5e-3)


def test_a_class_that_never_or_always_occurs_gets_its_frequency():
    design = feature_regression._Design(np.eye(4), np.array([[0, 1.0]] * 4), np.ones(4))
    design.fit(1.0)
    assert not design.coefficients.any()
    assert design.intercepts == pytest.approx([np.log(0.5 / 4.5), np.log(4.5 / 0.5)])


def test_images_of_the_second_source_weigh_as_in_a_batch():
    real, second = images(6, 1), images(4, 2, synthetic=True)
    used, weights = feature_regression.weighted_images(settings("pool", ratio=0.5), real, second, 1)
    assert [len(rows) for _, rows in used] == [6, 4]
    assert weights == pytest.approx([1] * 6 + [0.5 * 6 / 4] * 4)
    second.rows = np.array([0, 0, 2])  # drawn again: one image twice, two never
    used, weights = feature_regression.weighted_images(settings("pool", ratio=1), real, second, 1)
    assert list(used[1][1]) == [0, 2] and weights[6:] == pytest.approx([4, 2])
    used, weights = feature_regression.weighted_images(settings("synthetic_only"), real, second, 1)
    assert len(used) == 1 and used[0][0] is second and weights.sum() == pytest.approx(2)


def test_balanced_sampling_weighs_rare_classes_more():
    labels = np.array([[1, 0]] * 9 + [[0, 1]])
    real = Images(np.zeros((10, 1, 8, 8), np.uint8), labels)
    _, weights = feature_regression.weighted_images(settings("real_only", sampling="balanced"), real, None, 1)
    assert weights[9] == pytest.approx(9 * weights[0]) and weights.mean() == pytest.approx(1)


def test_the_strength_is_that_of_the_best_validation_score():
    found = fitted("real_only")
    scores = found.history["validation_map"]
    assert len(scores) == len(feature_regression.STRENGTHS) == found.numbers["steps"]
    assert found.numbers["best_step"] == 1 + int(np.argmax(scores)), "a tie goes to the stronger penalty"
    assert found.numbers["best_validation_map"] == max(scores) > 0.9
    assert found.history["loss"][-1] < found.history["loss"][0]


def test_generated_images_count_beside_real_ones():
    alone, beside = fitted("real_only"), fitted("pool", images(30, 3, synthetic=True))
    assert (beside.numbers["real_seen"], beside.numbers["synthetic_seen"]) == (60, 30)
    assert alone.numbers["synthetic_seen"] == 0
    assert not torch.equal(alone.weights["head.weight"], beside.weights["head.weight"])


def test_fitting_again_gives_the_same_weights():
    first, second = fitted("real_only"), fitted("real_only")
    assert all(torch.equal(first.weights[name], second.weights[name]) for name in first.weights)


def test_answers_do_not_depend_on_the_orientation():
    found = fitted("real_only")
    classifier = classifier_file.Classifier(
        "a", 0, 0, ["left", "right", "top"], ["red", "green"], 16, settings("real_only"), found.mean, found.std,
        found.weights,
    )  # fmt: skip
    network, pixels = classifier.network(torch.device("cpu")), cells(12, 4)[0]
    plain = classifier_file.predict(network, pixels, found.mean, found.std)
    for turned in orientation.all_orientations(pixels):
        again = classifier_file.predict(network, np.ascontiguousarray(turned), found.mean, found.std)
        assert np.allclose(again, plain, atol=1e-3)


def test_the_stage_writes_classifier_and_predictions_that_agree(tmp_path):
    paths = write_fold(tmp_path)
    arms = [ENTRIES[name] | {"backbone": "classical", "name": name} for name in ("real_only", "pool", "resample_real")]
    command = [
        "--images", str(paths["images"]), "--folds", str(paths["folds"]), "--repeat", "0", "--fold", "0",
        "--synthetic", f"p={paths['synthetic']}", "--manifest", str(tmp_path / "job0.json"), "--seed", "1",
        "--settings", json.dumps({"arms": arms, "train_classifier": SECTION, "threads": 1}),
        "--log", str(tmp_path / "log.txt"),
    ]  # fmt: skip
    assert stage_program.main([*command, "--arms-dir", str(tmp_path / "one")]) == 0
    assert stage_program.main([*command, "--arms-dir", str(tmp_path / "two")]) == 0
    for arm in ("real_only", "pool", "resample_real"):
        first, second = (read_predictions(tmp_path / folder / arm / "predictions.h5") for folder in ("one", "two"))
        assert all(np.array_equal(first.parts[role].logits, second.parts[role].logits) for role in first.parts)
        assert not (tmp_path / "one" / arm / "resume.pt").exists()
        trained = classifier_file.read(tmp_path / "one" / arm / "classifier.safetensors")
        assert (trained.settings["backbone"], trained.digest) == ("classical", first.digest)
    assert first.parts["test"].logits.std() > 0.1


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ({"method": "mix_loss"}, "method 'mix_loss' and backbone 'classical' do not go together"),
        ({"method": "strong_augment"}, "its features are fitted, not trained"),
        ({"method": "real_only", "loss": "focal"}, "give the arm loss: bce"),
        ({"method": "real_only", "weights": "imagenet"}, "nobody has published"),
        ({"method": "relabel"}, None),
        ({"method": "weighted"}, None),
    ],
)
def test_what_cannot_be_fitted_is_refused(entry, said):
    problem = arm_checks.problem({"name": "a", "backbone": "classical"} | entry, SECTION, ["red", "green"], 16)
    assert problem is None if said is None else said in problem
