"""All weights in one buffer: the same network, the same gradient, the same norms as layer by layer."""

import pytest
import torch

from workflow_scripts.lib.generate.diffusion import Condition
from workflow_scripts.lib.generate.flat_weights import FlatWeights
from workflow_scripts.lib.generate.networks import Minimal, UNet

# Tiny tensors gain nothing from threads, and lose much where other processes want the cores.
torch.set_num_threads(1)


def unet(dtype=torch.float32):
    torch.manual_seed(0)
    made = UNet(3, 5, 32, [16, 32], [2, 1], dtype)
    torch.nn.init.constant_(made.head_gain, 1.0)
    torch.nn.init.constant_(made.modulation.gains, 0.5)
    return made


def loss(network):
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(4, 3, 32, 32, generator=generator)
    condition = Condition(torch.eye(5)[:4], torch.tensor([False, False, True, False]))
    return network(x, torch.linspace(-2, 1, 4), condition).square().mean()


def flat_gradient(flat, network):
    flat.form()
    flat.collect(torch.autograd.grad(loss(network), flat.leaves), first=True)
    flat.project()
    return flat.named(flat.gradient)


@pytest.mark.parametrize("channels_last", [False, True])
def test_parameters_keep_names_shapes_and_values(channels_last):
    network, reference = unet(), dict(unet().named_parameters())
    flat = FlatWeights(network, channels_last)
    assert flat.values.numel() == sum(value.numel() for value in reference.values())
    for named in (dict(network.named_parameters()), flat.named(flat.values)):
        assert sorted(named) == sorted(reference)
        assert all(torch.equal(named[name], value) for name, value in reference.items())
    flat.values.mul_(2)
    assert torch.equal(network.stem.weight, 2 * reference["stem.weight"]), "a view"


@pytest.mark.parametrize("channels_last", [False, True])
def test_loss_and_gradient_are_those_of_each_layer_by_itself(channels_last):
    plain, network = unet(), unet()
    flat = FlatWeights(network, channels_last)
    expected = loss(plain)
    expected.backward()
    found = flat_gradient(flat, network)
    assert torch.allclose(loss(network).detach(), expected.detach(), rtol=1e-5)
    for name, parameter in plain.named_parameters():
        assert torch.allclose(found[name], parameter.grad, rtol=1e-3, atol=1e-4 * float(parameter.grad.abs().max())), (
            name
        )
    # Nothing of it lies along the filter.
    along = (found["stem.weight"] * network.stem.weight).flatten(1).sum(dim=1)
    assert torch.allclose(along, torch.zeros_like(along), atol=1e-5)


def test_gradients_of_parts_add_up():
    network = unet()
    flat = FlatWeights(network)
    flat.form()
    gradients = torch.autograd.grad(loss(network), flat.leaves)
    flat.collect(gradients, first=True)
    whole = flat.gradient.clone()
    flat.collect(gradients, first=False)
    assert torch.allclose(flat.gradient, 2 * whole)


def test_filters_return_to_their_norm_all_at_once():
    network, plain = unet(), unet()
    flat = FlatWeights(network)
    flat.values.mul_(torch.linspace(0.5, 2, len(flat.values)))
    with torch.no_grad():
        for one, other in zip(plain.parameters(), network.parameters(), strict=True):
            one.copy_(other)
    flat.renormalise()
    plain.renormalise()
    for (name, one), other in zip(plain.named_parameters(), network.parameters(), strict=True):
        assert torch.allclose(one, other, atol=1e-5), name


def test_low_precision_is_in_the_convolutions_alone():
    network = unet(torch.bfloat16)
    flat = FlatWeights(network)
    assert network.stem.ready.dtype == torch.bfloat16 and network.modulation.map.ready.dtype == torch.float32
    found, exact = flat_gradient(flat, network), flat_gradient(FlatWeights(other := unet()), other)
    for name, value in exact.items():
        assert float((found[name] - value).norm()) < 0.05 * float(value.norm()) + 1e-6, name


def test_a_network_without_unit_filters_is_as_it_is():
    torch.manual_seed(0)
    network = Minimal(3, 5)
    flat, x = FlatWeights(network), torch.randn(2, 3, 16, 16)
    before = flat.values.clone()
    flat.form()
    out = network(x, torch.zeros(2), Condition(torch.eye(5)[:2], torch.zeros(2, dtype=torch.bool)))
    flat.collect(torch.autograd.grad(out.square().mean(), flat.leaves), first=True)
    flat.project()
    flat.renormalise()
    assert torch.equal(flat.values, before) and bool(flat.gradient.any())
