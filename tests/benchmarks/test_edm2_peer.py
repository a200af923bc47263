"""The EDM2 peer: layers keep magnitudes, and it trains and samples on a CPU at toy size."""

import math

import pytest
import torch

from benchmarks import edm2_peer
from benchmarks.edm2_peer import MPConv, mp_cat, mp_silu, mp_sum, normalised

# Tiny tensors gain nothing from threads, and lose much where other processes want the cores.
torch.set_num_threads(1)


def magnitude(x):
    return float(x.detach().square().mean().sqrt())


def test_layers_preserve_magnitudes():
    torch.manual_seed(0)
    x, y = torch.randn(8, 32, 12, 12), torch.randn(8, 32, 12, 12)
    assert magnitude(mp_silu(x)) == pytest.approx(1, abs=0.02)
    assert magnitude(mp_sum(x, y, 0.3)) == pytest.approx(1, abs=0.02)
    assert magnitude(mp_cat(x, y[:, :8])) == pytest.approx(1, abs=0.02)
    assert magnitude(MPConv(32, 64, 1)(x)) == pytest.approx(1, abs=0.1)
    assert torch.allclose(normalised(7 * x, (1,)).square().mean(dim=1), torch.ones(8, 12, 12), atol=1e-3)


def test_weights_are_forced_to_their_norm_in_training_alone():
    layer = MPConv(4, 6, 3)
    with torch.no_grad():
        layer.weight.mul_(5)
    before = layer.weight.detach().clone()
    layer.eval()(torch.zeros(1, 4, 4, 4))
    assert torch.equal(layer.weight, before)
    layer.train()(torch.zeros(1, 4, 4, 4))
    norms = layer.weight.detach().flatten(1).norm(dim=1)
    assert torch.allclose(norms, torch.full((6,), math.sqrt(36)), rtol=1e-3)


def test_an_untrained_denoiser_is_the_best_linear_one():
    # With a gain of zero F is zero: D(x) = sigma_data^2 / (sigma^2 + sigma_data^2) x.
    network = edm2_peer.EDM2UNet(3, 2, (16, 32), 1)
    x, sigma = torch.randn(2, 3, 8, 8), torch.tensor([0.5, 2.0])
    expected = torch.stack([x[0] * 0.5, x[1] * 0.25 / 4.25])
    assert torch.allclose(network(x, sigma, torch.tensor([0, 1])), expected, atol=1e-5)


def test_it_learns_and_draws_what_it_has_learned():
    torch.manual_seed(0)
    peer = edm2_peer.edm2(1, 2, 4, torch.device("cpu"), (16,), 1)
    # All images are of one grey; noise alone would come out as 127 on average.
    kinds, images = torch.arange(8) % 2, torch.full((8, 1, 4, 4), 220, dtype=torch.uint8)
    losses = [float(peer.step(images, kinds, step / 40)) for step in range(40)]
    assert sum(losses[-10:]) < sum(losses[:10])
    drawn = peer.sample(torch.tensor([0, 1, 0, 1]), 9, 1.0)
    assert drawn.shape == (4, 1, 4, 4) and abs(float(drawn.float().mean()) - 220) < 40
    with pytest.raises(ValueError, match="no guidance"):
        peer.sample(torch.tensor([0]), 9, 2.0)
