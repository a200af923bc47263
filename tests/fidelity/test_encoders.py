"""Encoders: features of any number of channels, weights that are never unpickled, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import save_file
from torch import nn

from tests.helpers.checkout import ROOT, Checkout
from workflow_scripts.lib.base.errors import UserError
from workflow_scripts.lib.classify import backbones, classifier_file, torchvision_models
from workflow_scripts.lib.classify.classifier_file import Classifier
from workflow_scripts.lib.config import check as run_settings
from workflow_scripts.lib.fidelity import encoder_choices, encoder_networks, encoders

CHANNELS = ["red", "green", "blue", "yellow"]


def images(count: int = 6, channels: int = 4, size: int = 32) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 255, (count, channels, size, size), dtype=np.uint8)


def settings(weights: Path, **given) -> dict:
    return {
        "architecture": "resnet18",
        "weights": str(weights),
        "channels": None,
        "size": None,
        "normalise": None,
    } | given


def save_resnet(path: Path, taken: int) -> nn.Module:
    network = torchvision_models.architecture("resnet18").eval()
    if taken != 3:
        network.conv1 = nn.Conv2d(taken, 64, 7, 2, 3, bias=False)
    save_file(network.state_dict(), path)
    return network


def classifier(channels: list[str], size: int = 32) -> Classifier:
    network = backbones.build("small", len(channels), 3, size, seed=1)
    ones = torch.ones(len(channels))
    return Classifier(
        arm="real_only", repeat=0, fold=0, classes=["a", "b", "c"], channels=channels, size=size,
        settings={"backbone": "small"}, mean=0.5 * ones, std=ones, weights=network.state_dict(),
    )  # fmt: skip


def test_a_classifier_gives_its_pooled_features_and_its_logits() -> None:
    made = classifier(["green", "red"])
    encoder = encoders.of_classifier(made, "baseline", CHANNELS)
    pixels = images()
    features = encoder.encode(pixels)
    assert features.shape == (6, 128) and features.dtype == np.float32
    network = made.network(torch.device("cpu"))
    logits = classifier_file.predict(network, pixels[:, [1, 0]], made.mean, made.std)
    assert encoder.decide(features) == pytest.approx(logits, abs=1e-4)
    other = pixels.copy()
    other[:, 2:] = 0
    assert np.array_equal(encoder.encode(other), features), "channels that it does not look at"
    assert encoder.encode(pixels[:0]).shape[0] == 0


def test_a_classifier_of_other_channels_is_refused() -> None:
    with pytest.raises(UserError, match="violet"):
        encoders.of_classifier(classifier(["violet"]), "baseline", CHANNELS)


@pytest.mark.parametrize(("taken", "listed", "width"), [(4, None, 512), (3, None, 2048), (1, ["green"], 512)])
def test_any_number_of_channels_goes_in(tmp_path: Path, taken: int, listed: list[str] | None, width: int) -> None:
    network = save_resnet(tmp_path / "w.safetensors", taken)
    encoder = encoders.own(settings(tmp_path / "w.safetensors", channels=listed), CHANNELS, images(50))
    assert (encoder.kind, encoder.overlap) == ("own", "unknown")
    features = encoder.encode(images())
    assert features.shape == (6, width)
    if taken == 3:
        # Each channel by itself: changing one changes its part of the features, and no other.
        other = images()
        other[:, 2] = 7
        same = (encoder.encode(other) == features).all(axis=0).reshape(4, 512).all(axis=1)
        assert same.tolist() == [True, True, False, True]
    else:
        network.fc = nn.Identity()
        mean, std = (value / 255 for value in (images(50).mean(axis=(0, 2, 3)), images(50).std(axis=(0, 2, 3))))
        index = list(range(4)) if listed is None else [1]
        ready = (images()[:, index] / 255 - mean[index, None, None]) / std[index, None, None]
        with torch.inference_mode():
            expected = network(torch.from_numpy(ready).float()).numpy()
        assert np.corrcoef(expected.ravel(), features.ravel())[0, 1] > 0.999


def test_size_and_normalisation_are_the_users(tmp_path: Path) -> None:
    save_resnet(tmp_path / "w.safetensors", 3)
    given = {"channels": ["red", "green", "blue"], "normalise": {"mean": [0.5], "std": [0.25]}}
    small = encoders.own(settings(tmp_path / "w.safetensors", **given), CHANNELS, images())
    large = encoders.own(settings(tmp_path / "w.safetensors", size=64, **given), CHANNELS, images())
    assert not np.allclose(small.encode(images()), large.encode(images()))
    given["normalise"] = {"mean": [0.5, 0.5], "std": [0.25]}
    with pytest.raises(UserError, match="normalise"):
        encoders.own(settings(tmp_path / "w.safetensors", **given), CHANNELS, images())


def test_what_cannot_be_used_is_refused_by_name(tmp_path: Path) -> None:
    save_resnet(tmp_path / "w.safetensors", 3)
    network = torchvision_models.architecture("resnet18")
    torch.save(network.state_dict(), tmp_path / "pickled.safetensors")
    save_file({"conv1.weight": torch.zeros(64, 3, 7, 7)}, tmp_path / "half.safetensors")
    save_file({"other.weight": torch.zeros(1)}, tmp_path / "other.safetensors")
    save_resnet(tmp_path / "five.safetensors", 5)
    wrong = [
        ({"weights": str(tmp_path / "pickled.safetensors")}, "can run code"),
        ({"weights": str(tmp_path / "nowhere.safetensors")}, "nowhere"),
        ({"weights": str(tmp_path / "half.safetensors")}, "they lack"),
        ({"weights": str(tmp_path / "other.safetensors")}, "conv1.weight"),
        ({"weights": str(tmp_path / "five.safetensors")}, "takes 5 channels, and 4"),
        ({"architecture": "resnet19"}, "resnet19"),
        ({"architecture": "resnet50"}, "the weights do not fit resnet50"),
        ({"channels": ["violet"]}, "violet"),
    ]
    for given, word in wrong:
        with pytest.raises(UserError, match=word) as caught:
            encoders.own(settings(tmp_path / "w.safetensors") | given, CHANNELS, images())
        assert "\n" not in str(caught.value)


def registered(monkeypatch: pytest.MonkeyPatch, function: Callable) -> None:
    """Register an architecture: one function and one line."""
    monkeypatch.setattr(encoder_networks, function.__name__, function, raising=False)
    monkeypatch.setitem(encoder_choices.ARCHITECTURES, function.__name__, encoder_choices.ArchitectureFacts("a test's"))


def test_a_network_that_wants_another_size_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def only_large(weights: dict[str, torch.Tensor]) -> tuple[nn.Module, int]:
        return nn.Sequential(nn.Flatten(), nn.Linear(3 * 48 * 48, 2)), 3

    registered(monkeypatch, only_large)
    save_file({"x": torch.zeros(1)}, tmp_path / "v.safetensors")
    chosen = settings(tmp_path / "v.safetensors", architecture="only_large", channels=["red", "green", "blue"])
    with pytest.raises(UserError, match=r"32 px .*encoder\.size"):
        encoders.own(chosen, CHANNELS, images())
    assert encoders.own(chosen | {"size": 48}, CHANNELS, images()).encode(images()).shape == (6, 2)


def test_one_line_registers_another_encoder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def mean_of_channels(weights: dict[str, torch.Tensor]) -> tuple[nn.Module, int]:
        network = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
        network.load_state_dict(weights)
        return network, 4

    registered(monkeypatch, mean_of_channels)
    save_file({"2.weight": torch.eye(4)[:2].contiguous(), "2.bias": torch.zeros(2)}, tmp_path / "m.safetensors")
    chosen = settings(tmp_path / "m.safetensors", architecture="mean_of_channels", normalise={"mean": [0], "std": [1]})
    features = encoders.own(chosen, CHANNELS, images()).encode(images())
    assert features == pytest.approx(images().mean(axis=(2, 3))[:, :2] / 255, abs=0.01)


def test_a_channel_that_is_blank_in_all_images_is_computed_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    class Counting(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            asked.append(len(x))
            return x.mean(dim=(2, 3))

    monkeypatch.setattr(encoder_networks, "counting", lambda weights: (Counting(), 1), raising=False)
    monkeypatch.setitem(encoder_choices.ARCHITECTURES, "counting", encoder_choices.ArchitectureFacts("of a test"))
    save_file({"x": torch.zeros(1)}, tmp_path / "w.safetensors")
    pixels = images()
    encoder = encoders.own(settings(tmp_path / "w.safetensors", architecture="counting"), CHANNELS, pixels)
    whole = encoder.encode(pixels)
    asked.clear()
    pixels[:, 1:3] = 0
    found = encoder.encode(pixels)
    assert asked == [6, 1, 1, 6]
    np.testing.assert_array_equal(found[:, [0, 3]], whole[:, [0, 3]])
    assert (found[:, 1:3] == found[0, 1:3]).all()


def test_a_variable_may_stand_in_the_path_of_the_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_resnet(tmp_path / "w.safetensors", 4)
    monkeypatch.setenv("MIXLOC_WEIGHTS", str(tmp_path))
    encoder = encoders.own(settings(Path("${MIXLOC_WEIGHTS}/w.safetensors")), CHANNELS, images())
    assert encoder.name.startswith("resnet18 (w.safetensors")


@pytest.mark.workflow
def test_the_workflow_finds_the_weights_that_a_variable_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    overlay = {"assess_synthetic": {"encoder": settings(Path("${MIXLOC_WEIGHTS}/w.safetensors"))}}
    config = yaml.safe_load((ROOT / "config.yaml").read_text(encoding="utf-8"))
    config["assess_synthetic"] |= overlay["assess_synthetic"]
    monkeypatch.setenv("MIXLOC_WEIGHTS", str(tmp_path / "elsewhere"))
    with pytest.raises(run_settings.ConfigError, match=r"assess_synthetic\.encoder\.weights.*no such file"):
        run_settings.check(config)
    checkout = Checkout.fresh(tmp_path / "checkout")
    (checkout.folder / "overlay.yaml").write_text(yaml.safe_dump(overlay), encoding="utf-8")
    monkeypatch.setenv("MIXLOC_WEIGHTS", str(tmp_path))
    (tmp_path / "w.safetensors").touch()
    synthetic_set = checkout.snakemake("--dry-run", "--configfile", "presets/ci.yaml", "overlay.yaml").stdout
    assert str(tmp_path / "w.safetensors") in synthetic_set
