"""Networks: any shape of data, a pooled representation and a linear head, weights that depend on the seed alone."""

import subprocess
import sys

import pytest
import torch

from workflow_scripts.lib.classify import backbones, network_choices


def test_every_backbone_is_made_by_a_function():
    assert all(network_choices.BACKBONES.function(name, vars(backbones)) for name in network_choices.BACKBONES)


@pytest.mark.parametrize(
    ("name", "channels", "classes", "size"),
    [(name, *shape) for name in ("small", "resnet18", "resnet50") for shape in ((4, 28, 32), (1, 2, 40))]
    + [("swin_t", 4, 28, 36), ("vit_b_16", 1, 2, 48)],
)
def test_any_channels_classes_and_size(name, channels, classes, size):
    network = backbones.build(name, channels, classes, size, seed=1).eval()
    images = torch.randn(2, channels, size, size)
    features = network.features(images)
    assert features.shape == (2, network.head.in_features)
    assert network(images).shape == (2, classes)
    assert torch.allclose(network(images), features @ network.head.weight.T + network.head.bias, atol=1e-5)
    has_batchnorm = any(isinstance(module, torch.nn.BatchNorm2d) for module in network.modules())
    assert has_batchnorm == network_choices.BACKBONES[name].has_batchnorm


@pytest.mark.parametrize("size", [16, 31, 33, 63, 64, 90])
def test_small_takes_odd_sizes(size):
    network = backbones.build("small", 3, 5, size, seed=1).eval()
    assert network(torch.randn(1, 3, size, size)).shape == (1, 5)


def test_small_sees_every_pixel():
    network = backbones.build("small", 1, 1, 32, seed=1).eval()
    images = torch.randn(1, 1, 32, 32, requires_grad=True)
    network(images).sum().backward()
    assert (images.grad != 0).float().mean() > 0.99


def test_weights_depend_on_the_seed_alone():
    first = backbones.build("small", 4, 8, 32, seed=5).state_dict()
    before = torch.get_rng_state()
    torch.rand(3)
    torch.set_rng_state(before)
    second = backbones.build("small", 4, 8, 32, seed=5).state_dict()
    assert torch.equal(before, torch.get_rng_state()), "building must not disturb other draws"
    assert all(torch.equal(first[name], second[name]) for name in first)
    other = backbones.build("small", 4, 8, 32, seed=6).state_dict()
    assert not torch.equal(first["head.weight"], other["head.weight"])


@pytest.mark.parametrize("name", ["small", "resnet18"])
def test_a_head_of_cosines_sits_on_the_same_trunk(name):
    plain = backbones.build(name, 4, 8, 32, seed=5)
    cosine = backbones.build(name, 4, 8, 32, seed=5, cosine_scale=30.0).eval()
    trunk = cosine.trunk.state_dict()
    assert all(torch.equal(trunk[key], value) for key, value in plain.trunk.state_dict().items())
    features = torch.randn(6, cosine.head.in_features)
    logits = cosine.head(features)
    assert torch.allclose(cosine.head(7 * features), logits, atol=1e-4), "length does not count"
    expected = 30 * torch.nn.functional.cosine_similarity(features[:1], cosine.head.weight)
    assert torch.allclose(logits[0], expected, atol=1e-4)


def test_torchvision_is_imported_only_where_needed_and_works():
    small = (
        "import sys; from workflow_scripts.lib.classify import backbones; "
        "backbones.build('small', 2, 3, 16, seed=1); sys.exit('torchvision' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", small]).returncode == 0, "not for the small network"
    from workflow_scripts.lib.classify import torchvision_models

    assert all(torchvision_models.architecture(name) is not None for name in network_choices.PUBLISHED)
