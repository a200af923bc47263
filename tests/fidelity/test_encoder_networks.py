"""Networks of registered encoders: weights of the published layout load strictly, and packages are checked."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from workflow_scripts.lib.base.errors import UserError
from workflow_scripts.lib.config import check
from workflow_scripts.lib.config.problems import ConfigError
from workflow_scripts.lib.fidelity import encoder_choices, encoder_networks, encoders
from workflow_scripts.lib.fidelity.encoder_choices import ARCHITECTURES, PACKAGED

LITE0 = "efficientnet_lite0"
CHANNELS = ["red", "green", "blue", "yellow"]


def images(count: int = 3, channels: int = 4) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 255, (count, channels, 32, 32), dtype=np.uint8)


def published() -> dict[str, torch.Tensor]:
    """Weights as the package has them: of the same names and shapes, with its classifier."""
    torch.manual_seed(0)
    weights = encoder_networks.EfficientNetLite0().state_dict()
    return weights | {"_fc.weight": torch.zeros(1000, 1280), "_fc.bias": torch.zeros(1000)}


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package of fake weights; importing it is an error."""
    facts = PACKAGED[LITE0].installed
    path = tmp_path / facts.module / facts.file
    path.parent.mkdir(parents=True)
    (tmp_path / facts.module / "__init__.py").write_text("raise SystemExit('imported')\n")
    torch.save(published(), path)
    own = replace(facts, sha256=hashlib.sha256(path.read_bytes()).hexdigest(), sizes=(32, 32))
    for registry in (ARCHITECTURES, PACKAGED):
        monkeypatch.setitem(registry, LITE0, replace(registry[LITE0], installed=own))
    monkeypatch.syspath_prepend(tmp_path)
    return path


def test_weights_of_a_package_encode_channels_one_by_one_or_three_together(package: Path) -> None:
    settings = encoder_choices.full(LITE0, 32)
    made = encoders.own(settings, CHANNELS, images())
    features = made.encode(images())
    assert features.shape == (3, 4 * 1280) and np.isfinite(features).all() and features.std() > 0
    assert made.name == f"{LITE0} (channels red, green, blue, yellow one by one)"
    assert made.overlap == "none: photographs of ImageNet"
    three = encoders.own(settings | {"channels": CHANNELS[:3]}, CHANNELS, images())
    assert three.encode(images()).shape == (3, 1280) and "red, green, blue together" in three.name


def test_a_package_with_another_file_is_refused(package: Path) -> None:
    torch.save(published() | {"_bn1.bias": torch.ones(1280)}, package)
    with pytest.raises(UserError, match=r"has the SHA-256 .* install requirements-encoders\.txt again"):
        encoders.own(encoder_choices.full(LITE0, 32), CHANNELS, images())


def test_weights_of_another_network_are_refused(package: Path) -> None:
    weights = published()
    with pytest.raises(UserError, match="lack _bn1"):
        encoder_networks.efficientnet_lite0({key: value for key, value in weights.items() if key != "_bn1.bias"})
    with pytest.raises(UserError, match="size mismatch for _conv_stem"):
        encoder_networks.efficientnet_lite0(weights | {"_conv_stem.weight": torch.zeros(32, 1, 3, 3)})


def test_a_package_that_is_not_installed_is_told_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    absent = replace(PACKAGED[LITE0].installed, module="no_such_module_of_weights")
    for registry in (ARCHITECTURES, PACKAGED):
        monkeypatch.setitem(registry, LITE0, replace(registry[LITE0], installed=absent))
    config = {"assess_synthetic": {"encoder": "baseline", "independent_encoder": LITE0}}
    config |= {"compute": {"environment": "mixloc"}, "preprocess_images": {"size": 32}, "embeddings": {"encoder": None}}
    with pytest.raises(
        ConfigError, match=r"independent_encoder\.weights = installed: .* pip install -r requirements-enc"
    ):
        check._check_encoders(config)
    check._check_encoders(config | {"compute": {"environment": "mixloc-encoders"}})
    assert encoder_choices.problem({"architecture": "resnet18", "weights": "installed"}).endswith(LITE0)


def test_padding_is_that_of_tensorflow() -> None:
    layer = encoder_networks.SamePadConv(1, 1, 3, 2, bias=False)
    torch.nn.init.ones_(layer.weight)
    # Even sides are padded at their end alone.
    assert layer(torch.ones(1, 1, 4, 4))[0, 0].tolist() == [[9, 6], [6, 4]]
    assert layer(torch.ones(1, 1, 5, 5)).shape[-1] == 3


def test_the_real_package_gives_features_of_images() -> None:
    settings = encoder_choices.full(LITE0, 32)
    if encoder_choices.weights_file(settings) is None:
        pytest.skip("the optional weights of requirements-encoders.txt are not installed")
    made = encoders.own(settings, CHANNELS, images())
    features = made.encode(images())
    assert features.shape == (3, 4 * 1280) and 0.05 < features.mean() < 2 and features.min() >= 0
