"""The encoder of a generator as backbone: its features, their probe, the choice, and the stage that trains on it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.helpers.arms_data import CHANNELS, CLASSES, ENTRIES, SECTION, SIZE, write_fold
from tests.helpers.generating import UNET
from workflow_scripts import train_classifier as stage_program
from workflow_scripts.lib.classify import classifier_file, generator_backbone
from workflow_scripts.lib.classify.classifier_training import mean_average_precision
from workflow_scripts.lib.generate import column_values, diffusion, generator_checks, generator_file, networks
from workflow_scripts.lib.generate.diffusion import Condition
from workflow_scripts.lib.generate.generator_training import Pixels
from workflow_scripts.lib.images.access_record import AccessRecord
from workflow_scripts.lib.images.image_set import ImageSet
from workflow_scripts.lib.split import role_table

pytestmark = pytest.mark.usefixtures("one_thread")
ENCODER = {"widths": [16, 32], "blocks": [1, 2], "references": False, "patch": None, "block": 2, "noise_level": 0.6}


def unet() -> networks.UNet:
    torch.manual_seed(3)
    return networks.UNet(2, 3, SIZE, [16, 32], [1, 2])


def test_features_are_what_a_block_of_the_generator_gives_without_labels() -> None:
    trunk, network, seen = generator_backbone.EncoderTrunk(2, 3, SIZE, ENCODER), unet(), []
    trunk.load_generator(network.state_dict())
    images, sigma = torch.randn(4, 2, SIZE, SIZE), torch.full((4,), 0.6)
    network.down[1][1].register_forward_hook(lambda module, given, out: seen.append(out))
    condition = Condition(torch.zeros(4, 3), torch.ones(4, dtype=torch.bool))
    scale = diffusion.edm().coefficients(sigma)[2].view(-1, 1, 1, 1)
    network(scale * (images + 0.6 * trunk.noise), sigma.log(), condition)
    found = trunk(images)
    assert found.shape == (4, 32)
    assert torch.allclose(found, seen[0].mean(dim=(2, 3)), atol=1e-5)
    assert [block.shape[1] for block in trunk.pooled(images, 0.6)] == [16, 32, 32]
    assert torch.equal(trunk(images), found), "the same noise each time"


def test_the_probe_is_ridge_regression_by_hand() -> None:
    """Features of mean 0 and deviation 1: the weight is cov / (1 + penalty), here 1/2 / 1.01."""
    features, labels = np.array([[-1.0], [1.0]] * 4), np.array([[0], [1]] * 4)
    scores = generator_backbone.probe(features, labels, np.array([[0.0], [3.0]]))
    assert scores[:, 0] == pytest.approx([0.5, 0.5 + 3 * 0.5 / (1 + generator_backbone.RIDGE)], abs=1e-4)


class Planted(torch.nn.Module):
    """A trunk of two blocks, of which the second one knows the answer at noise level 0.2 alone."""

    noise = torch.zeros(1)

    def pooled(self, images: torch.Tensor, noise_level: float) -> list[torch.Tensor]:
        answer = images.mean(dim=(1, 2, 3))[:, None]
        useless = torch.arange(len(images))[:, None].float() % 3
        return [useless, answer if noise_level == 0.2 else useless]


def test_block_and_noise_level_are_those_of_the_best_probe_on_validation() -> None:
    rng = np.random.default_rng(1)

    def part(count: int) -> tuple[np.ndarray, np.ndarray]:
        labels = rng.integers(0, 2, (count, 1))
        return np.full((count, 2, 4, 4), 50, np.uint8) + 100 * labels[:, :, None, None].astype(np.uint8), labels

    scale = (torch.zeros(2), torch.ones(2))
    tried = generator_backbone.choose(Planted(), (0.05, 0.2), part(30), part(20), scale, mean_average_precision)
    assert tried[0] == (1.0, 1, 0.2)
    assert len(tried) == 4 and tried[1][0] < 0.9


def test_an_auto_encoder_sees_one_noise_level_and_makes_no_images() -> None:
    levels = diffusion.training_levels(
        diffusion.of_settings(UNET | {"noise_level": 0.5}), (3, 4), torch.Generator().manual_seed(1)
    )
    assert torch.equal(levels, torch.full((3, 4), 0.5))
    problem = generator_checks.set_problem({}, UNET | {"noise_level": 0.5}, CHANNELS)
    assert problem and "can make no images" in problem
    for settings, one_level, words in (
        (UNET, True, "needs a noise_level"),
        (UNET | {"noise_level": 0.5}, False, "has a noise_level"),
        (UNET | {"label_dropout": 0}, False, "asked without labels"),
        (UNET | {"network": "minimal"}, False, "has no encoder"),
        (UNET | {"reference_fraction": 1}, False, "always given reference channels"),
    ):
        assert words in str(generator_checks.encoder_problem(settings, one_level))
    assert generator_checks.encoder_problem(UNET, False) is None


def write_generator(path: Path, paths: dict[str, Path]) -> networks.UNet:
    network = unet()
    with ImageSet(paths["images"]) as source:
        record = AccessRecord(source.digest, len(source))
        record.record("fit", role_table.rows(paths["folds"], 0, source.ids, "test")[:1])  # to be found in the arms
    pixels = Pixels(torch.full((2,), 60.0), torch.full((2,), 50.0))
    settings = UNET | {"name": "g", "widths": [16, 32], "blocks": [1, 2]}
    form = (settings, CHANNELS, CLASSES, SIZE, pixels, record, "d", 0.0, network.state_dict())
    generator_file.write(path, generator_file.Generator(0, 0, *form))
    return network


def test_the_stage_trains_on_it_and_certifies_what_the_generator_has_read(tmp_path: Path) -> None:
    paths = write_fold(tmp_path)
    network = write_generator(tmp_path / "g.safetensors", paths)
    arms = [
        ENTRIES["generator_features"] | {"frozen": True},
        ENTRIES["generator_random"],
    ]
    settings = {"arms": arms, "train_classifier": SECTION | {"steps": 3}, "threads": 1}
    arguments = [
        "--images", paths["images"], "--folds", paths["folds"], "--repeat", 0, "--fold", 0, "--seed", 1,
        "--generators", f"g={tmp_path / 'g.safetensors'}", "--arms-dir", tmp_path / "arms",
        "--manifest", tmp_path / "arms" / "job0.json", "--settings", json.dumps(settings),
    ]  # fmt: skip
    assert stage_program.main(list(map(str, arguments))) == 0
    own, fresh = (
        classifier_file.read(tmp_path / "arms" / name / "classifier.safetensors")
        for name in ("generator_features", "generator_random")
    )
    stem = network.state_dict()["stem.weight"]
    same = [torch.equal(arm.weights["trunk.network.stem.weight"], stem) for arm in (own, fresh)]
    assert same == [True, False]
    assert 255 * float(own.mean[0]) == pytest.approx(60) and 255 * float(own.std[0]) == pytest.approx(50)
    with ImageSet(paths["images"]) as source:
        roles = {name: role_table.rows(paths["folds"], 0, source.ids, name) for name in ("train", "validation", "test")}
    for arm in (own, fresh):
        chosen = arm.settings["encoder"]
        assert chosen["block"] in range(3) and chosen["noise_level"] in generator_backbone.LEVELS
        assert arm.network(torch.device("cpu")).head.in_features == [16, 32, 32][chosen["block"]]
        record = AccessRecord.from_json(arm.access_record)
        assert set(record.of("fit")) == {*roles["train"], roles["test"][0]}, "what its generator has read, too"
        assert set(record.of("select")) == set(roles["validation"])


def test_a_network_of_more_classes_or_told_of_missing_channels_gives_its_features_too() -> None:
    told = {"missing_channels": ["b", "none"]}
    network = networks.UNet(2, 5, SIZE, [16, 32], [1, 2], columns=(2,))
    more = ENCODER | {"classes": 5, "column_values": told}
    trunk, images = generator_backbone.EncoderTrunk(2, 3, SIZE, more), torch.randn(4, 2, SIZE, SIZE)
    trunk.load_generator(network.state_dict())
    whole = Condition(
        torch.zeros(4, 5), torch.ones(4, dtype=torch.bool), columns=torch.tensor([[0.0, 1.0]]).expand(4, 2)
    )
    level = torch.full((4,), 0.6)
    wanted = network.encode((images + 0.6 * trunk.noise) / 1.36**0.5, level.log(), whole)[-1].mean(dim=(2, 3))
    assert torch.allclose(trunk(images), wanted, atol=1e-5)
    assert column_values.of_whole_images({}) is None
