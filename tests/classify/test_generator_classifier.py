"""A generator as classifier: its scores and their scale by hand, the mean with a baseline, and the stage."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.classify.test_generator_backbone import write_generator
from tests.helpers.arms_data import ENTRIES, SECTION, SIZE, write_fold
from tests.helpers.generating import UNET
from workflow_scripts import train_classifier as stage_program
from workflow_scripts.lib.classify import arm_checks, arm_settings, backbones, generator_classifier
from workflow_scripts.lib.classify.classifier_file import Classifier
from workflow_scripts.lib.classify.generator_scores import ScoreTrunk
from workflow_scripts.lib.generate.diffusion import Condition
from workflow_scripts.lib.images.access_record import AccessRecord
from workflow_scripts.lib.images.image_set import ImageSet
from workflow_scripts.lib.judge import declaration
from workflow_scripts.lib.scores.prediction_file import read_predictions
from workflow_scripts.lib.split import role_table

pytestmark = pytest.mark.usefixtures("one_thread")
ENCODER = {"generator": UNET | {"objective": "epsilon_linear"}, "levels": [0.5, 2.0], "draws": 3}


class PointMasses(torch.nn.Module):
    """The perfect network of images that are the constant 2 with the first label, -1 with the second, and 0 without."""

    def forward(self, x: torch.Tensor, log_sigma: torch.Tensor, condition: Condition) -> torch.Tensor:
        mean = (condition.labels @ torch.tensor([2.0, -1.0])).view(-1, 1, 1, 1)
        sigma = log_sigma.exp().view(-1, 1, 1, 1)
        # It sees x0 + sigma * noise over sqrt(1 + sigma^2), and tells the noise.
        return (x * (1 + sigma**2).sqrt() - mean) / sigma


def test_scores_are_the_fall_of_the_loss_by_hand() -> None:
    """The noise is told wrong by (x0 - mean) / sigma, so that a loss is the mean of (x0 - mean)^2 / sigma^2."""
    trunk = ScoreTrunk(1, 2, SIZE, ENCODER)
    trunk.network = PointMasses()
    found = trunk(torch.tensor([2.0, 0.5]).view(2, 1, 1, 1).expand(2, 1, SIZE, SIZE))
    inverse = (1 / 0.5**2 + 1 / 2.0**2) / 2
    wanted = [[4 - 0, 4 - 9], [0.25 - 2.25, 0.25 - 2.25]]
    assert found.numpy() == pytest.approx(inverse * np.array(wanted), rel=1e-3)


def test_noise_is_the_same_for_every_class_and_image() -> None:
    trunk, images = ScoreTrunk(2, 3, SIZE, ENCODER).eval(), torch.randn(3, 2, SIZE, SIZE)
    with torch.inference_mode():
        assert torch.allclose(trunk(images)[1:2], trunk(images[1:2]), atol=1e-5)
        assert torch.equal(trunk(images), trunk(images))


def test_the_scale_is_that_of_a_logistic_regression_by_hand() -> None:
    """At a score of 1 three of four images have the class, at -1 one of four: the slope is ln 3, without a bias."""
    scores = np.repeat([[1.0], [-1.0]], 4, axis=0)
    labels = np.array([1, 1, 1, 0, 1, 0, 0, 0])[:, None]
    slope, biases = generator_classifier.calibrated(scores, labels)
    assert slope == pytest.approx(math.log(3), abs=0.02) and biases[0] == pytest.approx(0, abs=1e-6)
    slope, biases = generator_classifier.calibrated(scores, 1 - labels)
    assert slope == 0, "what speaks against a class is never taken for it"
    _, biases = generator_classifier.calibrated(scores, np.zeros_like(labels))
    assert -20 < biases[0] < -2, "a class without positives"


def test_a_pair_is_the_mean_of_both_each_on_its_own_scale() -> None:
    about = {"backbone": "small", "encoder": None}
    members = [about | {"cosine_scale": None}, about | {"cosine_scale": 30.0}]
    network = backbones.build("pair", 2, 3, SIZE, 1, encoder={"members": members}).eval()
    scales = [
        (torch.tensor([0.1, 0.2]), torch.tensor([0.5, 0.4])),
        (torch.tensor([0.3, 0.0]), torch.tensor([0.2, 1.0])),
    ]
    network.trunk.scale_as(scales)
    with torch.inference_mode():
        network.head.weight.copy_(torch.cat([torch.eye(3)] * 2, dim=1) / 2)
        network.head.bias.zero_()
        pixels = torch.rand(4, 2, SIZE, SIZE)
        ready = [(pixels - mean.view(-1, 1, 1)) / std.view(-1, 1, 1) for mean, std in scales]
        each = [member(images) for member, images in zip(network.trunk.members, ready, strict=True)]
        assert torch.allclose(network(ready[0]), (each[0] + each[1]) / 2, atol=1e-4)


def test_the_stage_scores_averages_and_records_what_the_generator_has_read(tmp_path: Path) -> None:
    paths = write_fold(tmp_path)
    write_generator(tmp_path / "g.safetensors", paths)

    def run(names: list[str], folder: str, *more: str) -> dict[str, np.ndarray]:
        section = SECTION | {"steps": 2, "checkpoints": 1, "scoring": {"levels": [0.5], "draws": 1}}
        settings = {"arms": [ENTRIES[name] for name in names], "train_classifier": section, "threads": 1}
        arguments = [
            "--images", paths["images"], "--folds", paths["folds"], "--repeat", 0, "--fold", 0, "--seed", 1,
            "--generators", f"g={tmp_path / 'g.safetensors'}", "--arms-dir", tmp_path / folder,
            "--manifest", tmp_path / folder / "job0.json", "--settings", json.dumps(settings), *more,
        ]  # fmt: skip
        assert stage_program.main(list(map(str, arguments))) == 0
        return {name: read_predictions(tmp_path / folder / name / "predictions.h5") for name in names}

    own = run(["real_only"], "first")
    asked = ("--baseline", tmp_path / "first" / "job0.json")
    own |= run(["generator_classifier", "generator_average", "two_baselines"], "arms", *asked)
    logits = {name: found.parts["test"].logits for name, found in own.items()}
    both = (logits["real_only"] + logits["generator_classifier"]) / 2
    assert logits["generator_average"] == pytest.approx(both, abs=1e-4)
    second = 2 * logits["two_baselines"] - logits["real_only"]
    assert np.abs(second - logits["real_only"]).max() > 0.01, "another seed"
    with ImageSet(paths["images"]) as source:
        roles = {name: role_table.rows(paths["folds"], 0, source.ids, name) for name in ("train", "validation", "test")}
    for name in ("generator_classifier", "generator_average", "two_baselines"):
        record = AccessRecord.from_json(own[name].access_record)
        leaked = {*roles["train"], roles["test"][0]} if name != "two_baselines" else set(roles["train"])
        assert set(record.of("fit")) == leaked, name
        assert set(record.of("select")) == set(roles["validation"])
    assert own["generator_classifier"].numbers["real_seen"] == 0


def test_what_does_not_go_together_is_refused() -> None:
    for name, own, words in (
        ("generator_classifier", {"loss": "focal"}, "has the trunk of a generator"),
        ("generator_average", {"backbone": "small"}, "has the trunk of a generator"),
        ("two_baselines", {"backbone": "classical"}, "another seed fits it to the same weights"),
        ("real_only", {"backbone": "pair"}, "take generator_average or two_baselines"),
    ):
        assert words in str(arm_checks.problem(ENTRIES[name] | own, SECTION, ["red", "green"])), name
    focal, plain = (arm_settings.effective(ENTRIES["two_baselines"] | own, SECTION) for own in ({"loss": "focal"}, {}))
    assert "is averaged with it" in str(arm_checks.baseline_problem(focal, plain))
    known = {"two_baselines": ENTRIES["two_baselines"]}
    entry = ENTRIES["generator_average"] | {"control": "two_baselines"}
    assert declaration.control_problem(entry, known, SECTION, "real_only") is None


def test_a_generator_of_other_classes_is_asked_for_those_that_are_meant() -> None:
    """It knows three classes, and is asked for the last and the first of them."""
    torch.manual_seed(0)
    known = ScoreTrunk(2, 3, SIZE, ENCODER).eval()
    torch.nn.init.normal_(known.network.embedding.labels.weight)
    placed = UNET | {"objective": "epsilon_linear", "label_places": {"of": 3, "places": [2, 0]}}
    asked = ScoreTrunk(2, 2, SIZE, ENCODER | {"generator": placed}).eval()
    asked.load_state_dict(known.state_dict())
    images = torch.randn(2, 2, SIZE, SIZE)
    with torch.inference_mode():
        assert torch.allclose(asked(images), known(images)[:, [2, 0]], atol=1e-5)


def test_the_scale_of_a_class_does_not_depend_on_how_many_others_there_are() -> None:
    scores = np.random.default_rng(0).normal(size=(400, 1))
    labels = (np.arange(400) % 50 == 0).astype(float)[:, None]  # one in fifty, and the scores know nothing of it
    alone = generator_classifier.calibrated(scores, labels)
    many = generator_classifier.calibrated(np.repeat(scores, 20, axis=1), np.repeat(labels, 20, axis=1))
    assert many[1] == pytest.approx(alone[1][0], abs=1e-3) and 1 / (1 + np.exp(-alone[1][0])) < 0.04


def test_the_loss_and_sampling_of_other_arms_are_none_of_an_untrained_one() -> None:
    """With arcface the others have a head of their own kind, which this one has not."""
    section = SECTION | {"loss": "arcface", "sampling": "balanced"}
    settings = arm_settings.effective({"name": "asked", "method": "generator_classifier", "generator": "unet"}, section)
    assert (settings["loss"], settings["losses"], settings["sampling"]) == ("bce", {}, "each_once")
    about = settings | {"encoder": ENCODER}
    state = backbones.build("generator_scores", 2, 3, SIZE, 0, encoder=ENCODER).state_dict()
    found = Classifier("asked", 0, 0, ["x", "y", "z"], ["a", "b"], SIZE, about, torch.zeros(2), torch.ones(2), state)
    assert found.network(torch.device("cpu")).state_dict().keys() == state.keys()
