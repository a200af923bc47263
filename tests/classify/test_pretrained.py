"""Published weights: fitted to other channels and sizes, refused where they do not belong, kept where frozen."""

from __future__ import annotations

import json
import pickle

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from tests.helpers.arms_data import ENTRIES, SECTION, cells, write_fold
from workflow_scripts import train_classifier as stage_program
from workflow_scripts.lib.base import files
from workflow_scripts.lib.base.errors import UserError
from workflow_scripts.lib.classify import (
    arm_settings,
    backbones,
    classifier_file,
    classifier_training,
    network_choices,
    pretrained,
)
from workflow_scripts.lib.compute.checkpoint import Resume


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """Three-channel weights as torchvision names them, with a classifier of 1000 classes."""
    folder = tmp_path_factory.mktemp("weights")
    from workflow_scripts.lib.classify.torchvision_models import models

    torch.manual_seed(3)
    state = models.resnet18(weights=None).state_dict()
    torch.save(state, folder / "resnet18.pth")
    save_file({name: value.contiguous() for name, value in state.items()}, folder / "resnet18.safetensors")
    return folder, state


@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_the_trunk_gets_the_weights_and_the_head_keeps_its_own(published, suffix):
    folder, state = published
    network = backbones.build("resnet18", 4, 5, 32, seed=1)
    head = network.head.weight.clone()
    pretrained.load(network, folder / f"resnet18.{suffix}")
    own = network.trunk.state_dict()
    assert torch.equal(own["layer3.0.conv1.weight"], state["layer3.0.conv1.weight"])
    assert torch.equal(own["bn1.running_var"], state["bn1.running_var"])
    assert torch.equal(network.head.weight, head)
    # A grey image looks the same to four channels as it did to three.
    grey = torch.rand(1, 1, 32, 32)
    expected = torch.nn.functional.conv2d(grey.expand(-1, 3, -1, -1), state["conv1.weight"])
    found = torch.nn.functional.conv2d(grey.expand(-1, 4, -1, -1), own["conv1.weight"])
    assert torch.allclose(found, expected, atol=1e-5)


def test_positions_are_scaled_to_another_size():
    given = torch.randn(1, 1 + 14**2, 8)
    fitted = pretrained._fitted(given, torch.empty(1, 1 + 4, 8))
    assert torch.equal(fitted[:, 0], given[:, 0])
    # A field that rises evenly from left to right still does.
    field = torch.linspace(0, 1, 14)[None, :, None].expand(14, 14, 1).reshape(1, -1, 1)
    fitted = pretrained._fitted(torch.cat([torch.zeros(1, 1, 1), field], dim=1), torch.empty(1, 1 + 16, 1))
    square = fitted[0, 1:, 0].reshape(4, 4)
    assert torch.allclose(square, square[:1].expand(4, -1), atol=1e-5)
    assert (square[0].diff() > 0.1).all()


def test_what_does_not_fit_is_named(published, tmp_path):
    folder, state = published
    with pytest.raises(UserError, match="another backbone"):
        pretrained.load(backbones.build("resnet34", 3, 5, 32, seed=1), folder / "resnet18.pth")
    wide = {name: value.repeat(2, *[1] * (value.ndim - 1)) if value.ndim else value for name, value in state.items()}
    torch.save(wide, tmp_path / "wide.pth")
    with pytest.raises(UserError, match="of shape"):
        pretrained.load(backbones.build("resnet18", 3, 5, 32, seed=1), tmp_path / "wide.pth")
    (tmp_path / "cut.safetensors").write_bytes(b"cut")
    with pytest.raises(UserError, match="cannot be read"):
        pretrained.load(backbones.build("resnet18", 3, 5, 32, seed=1), tmp_path / "cut.safetensors")


class Trap:
    """Unpickling it would run code."""

    def __reduce__(self):
        return print, ("run",)


def test_nothing_is_unpickled(tmp_path, capsys):
    path = tmp_path / "trap.pth"
    path.write_bytes(pickle.dumps(Trap(), protocol=2))
    with pytest.raises(UserError, match=r"trap\.pth"):
        pretrained.load(backbones.build("resnet18", 3, 5, 32, seed=1), path)
    torch.save({"conv1.weight": Trap()}, path)
    with pytest.raises(UserError, match=r"trap\.pth"):
        pretrained.load(backbones.build("resnet18", 3, 5, 32, seed=1), path)
    assert "run" not in capsys.readouterr().out


def test_a_frozen_trunk_stays_and_the_head_learns(published, tmp_path):
    images, labels = cells(40, 1)
    wide = classifier_training.Images(images.repeat(2, axis=2).repeat(2, axis=3), labels)
    entry = ENTRIES["real_only"] | {
        "backbone": "resnet18", "frozen": True, "weights": str(published[0] / "resnet18.pth"),
    }  # fmt: skip
    settings = arm_settings.effective(entry, SECTION | {"steps": 4, "checkpoints": 2})
    found = classifier_training.train(settings, wide, None, wide, 5, Resume(tmp_path / "a.pt", "d"))
    for name, value in published[1].items():
        if name.startswith(("layer", "bn1")):
            assert torch.equal(found.weights[f"trunk.{name}"], value), name
    fresh = backbones.build("resnet18", 2, 3, 32, classifier_training.derive(5, "weights"))
    assert not torch.equal(found.weights["head.weight"], fresh.head.weight)


def test_the_checksum_of_the_file_is_recorded_and_part_of_the_task(published, tmp_path, monkeypatch):
    monkeypatch.setattr(backbones, "resnet18", backbones.small)
    monkeypatch.setitem(
        network_choices.BACKBONES, "resnet18", network_choices.BackboneFacts("", True, 16, published=True)
    )
    paths, weights = write_fold(tmp_path), tmp_path / "mine.pth"
    monkeypatch.setenv("MIXLOC_WEIGHTS", str(tmp_path))
    found = []
    for seed in (1, 1, 2):
        torch.save(backbones.build("small", 2, 3, 16, seed=seed).trunk.state_dict(), weights)
        entry = ENTRIES["real_only"] | {"backbone": "resnet18", "weights": "${MIXLOC_WEIGHTS}/mine.pth"}
        settings = {"arms": [entry], "train_classifier": SECTION | {"steps": 3}, "threads": 1}
        arguments = [
            "--images", str(paths["images"]), "--folds", str(paths["folds"]), "--repeat", "0", "--fold", "0",
            "--arms-dir", str(tmp_path / "arms"), "--manifest", str(tmp_path / "arms" / "job0.json"),
            "--seed", "1", "--settings", json.dumps(settings), "--log", str(tmp_path / "log.txt"),
        ]  # fmt: skip
        assert stage_program.main(arguments) == 0
        found.append(json.loads((tmp_path / "arms" / "job0.json").read_text())["arms"][0]["reused"])
    assert found == [False, True, False]
    saved = classifier_file.read(tmp_path / "arms" / "real_only" / "classifier.safetensors")
    assert saved.settings["weights_digest"] == files.file_digest(weights)
    assert saved.settings["weights_digest"] in (tmp_path / "log.txt").read_text()


def test_heads_of_cosines_are_saved_and_used_again(tmp_path):
    settings = arm_settings.effective(ENTRIES["real_only"] | {"loss": "arcface"}, SECTION | {"steps": 3})
    real = classifier_training.Images(*cells(30, 1))
    found = classifier_training.train(settings, real, None, real, 5, Resume(tmp_path / "a.pt", "d"))
    saved = classifier_file.Classifier(
        "a", 0, 0, ["a", "b", "c"], ["red", "green"], 16, settings, found.mean, found.std, found.weights
    )
    classifier_file.write(tmp_path / "a.safetensors", saved)
    network = classifier_file.read(tmp_path / "a.safetensors").network(torch.device("cpu"))
    logits = classifier_file.predict(network, real.pixels, found.mean, found.std)
    assert np.abs(logits).max() <= 30
    assert "head.bias" not in found.weights
