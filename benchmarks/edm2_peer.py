"""A U-Net of EDM2 blocks, as a peer of the project's network in the benchmarks.

Own code, written from the paper's description (Karras et al. 2024, "Analyzing and improving the training dynamics of
diffusion models", arXiv:2312.02696, configuration G). Every layer preserves the magnitude of its input in expectation:
weights are normalised at each use, and forced to their norm in training; silu is divided by 0.596; sums and
concatenations are weighted; the way down begins each block with a pixel norm. The loss is weighted by a learned
uncertainty, and the weights are averaged with a power of the step.

Unlike the project's network it has a skip connection from every block, unfolded pixels, and attention at the lowest
resolution. Learning rate 0.01 and width 0.1 of the average are the paper's. Warm-up and decay are shortened to the
training at hand, since the paper's are made for two billion images."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.peers import Peer
from workflow_scripts.lib.generate import sampling
from workflow_scripts.lib.generate.diffusion import make_objective
from workflow_scripts.lib.generate.weight_averages import ema_exponent

DATA = 0.5  # standard deviation of pixels from -1 to 1, sigma_data
MEAN, SPREAD = -0.4, 1.0  # of ln sigma in training
RESIDUAL, EMBEDDED = 0.3, 0.5  # weights of the second term in sums of magnitude-preserving layers
LEARNING_RATE, WIDTH, WARM_UP = 0.01, 0.1, 0.05
HEAD = 64  # channels of an attention head


def normalised(x: Tensor, over: tuple[int, ...], eps: float = 1e-4) -> Tensor:
    """x with a mean square of one over some dimensions."""
    root = x.float().square().mean(dim=over, keepdim=True).sqrt()
    return x / (root + eps).to(x.dtype)


def mp_silu(x: Tensor) -> Tensor:
    """silu of unit magnitude for standard normal x."""
    return functional.silu(x) / 0.596


def mp_sum(first: Tensor, second: Tensor, part: float) -> Tensor:
    """Sum of unit magnitude of two inputs of unit magnitude."""
    return first.lerp(second, part) / math.hypot(1 - part, part)


def mp_cat(first: Tensor, second: Tensor) -> Tensor:
    """Concatenation to whose sums both inputs contribute alike."""
    a, b = first.shape[1], second.shape[1]
    whole = math.sqrt((a + b) / 2)
    return torch.cat([first * (whole / math.sqrt(a)), second * (whole / math.sqrt(b))], dim=1)


class MPConv(nn.Module):
    """Convolution, or linear map where `kernel` is 0, whose weights are normalised at each use."""

    def __init__(self, inputs: int, outputs: int, kernel: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs, *([kernel, kernel] if kernel else [])))

    def forward(self, x: Tensor, gain: Tensor | float = 1.0) -> Tensor:
        """Apply the map, times a gain."""
        over = tuple(range(1, self.weight.ndim))
        if self.training:
            with torch.no_grad():
                self.weight.copy_(normalised(self.weight, over))
        weight = (normalised(self.weight, over) * (gain / math.sqrt(self.weight[0].numel()))).to(x.dtype)
        if weight.ndim == 2:
            return functional.linear(x, weight)
        return functional.conv2d(x, weight, padding=weight.shape[-1] // 2)


class Block(nn.Module):
    """Residual block: on the way down its input is pixel-normalised; the embedding scales the branch's channels."""

    def __init__(self, inputs: int, outputs: int, embedding: int, down: bool, attention: bool) -> None:
        super().__init__()
        self.down, self.heads = down, max(1, outputs // HEAD) if attention else 0
        self.skip = MPConv(inputs, outputs, 1) if inputs != outputs else None
        self.first = MPConv(outputs if down else inputs, outputs, 3)
        self.second = MPConv(outputs, outputs, 3)
        self.embed, self.gain = MPConv(embedding, outputs, 0), nn.Parameter(torch.zeros(()))
        if attention:
            self.project, self.merge = MPConv(outputs, 3 * outputs, 1), MPConv(outputs, outputs, 1)

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        """x (n, inputs, h, w), embedding (n, e) -> (n, outputs, h, w)."""
        if self.down:
            x = normalised(self.skip(x) if self.skip else x, (1,))
        y = self.first(mp_silu(x))
        scale = self.embed(embedding, self.gain) + 1
        y = self.second(mp_silu(y * scale[:, :, None, None].to(y.dtype)))
        x = mp_sum(self.skip(x) if self.skip and not self.down else x, y, RESIDUAL)
        return self._attended(x) if self.heads else x

    def _attended(self, x: Tensor) -> Tensor:
        n, width, height, across = x.shape
        y = self.project(x).view(n, self.heads, -1, 3, height * across)
        query, key, value = normalised(y, (2,)).permute(3, 0, 1, 4, 2).unbind(0)
        y = functional.scaled_dot_product_attention(query, key, value)
        return mp_sum(x, self.merge(y.transpose(2, 3).reshape(n, width, height, across)), RESIDUAL)


class Fourier(nn.Module):
    """Random features of a number, of unit magnitude."""

    frequencies: Tensor
    phases: Tensor

    def __init__(self, count: int) -> None:
        super().__init__()
        self.register_buffer("frequencies", 2 * math.pi * torch.randn(count))
        self.register_buffer("phases", 2 * math.pi * torch.rand(count))

    def forward(self, x: Tensor) -> Tensor:
        """(n,) -> (n, count)."""
        return (x[:, None] * self.frequencies + self.phases).cos() * math.sqrt(2)


class EDM2UNet(nn.Module):
    """Denoiser D(x; sigma, class) with EDM preconditioning around a U-Net of EDM2 blocks."""

    def __init__(self, channels: int, classes: int, widths: tuple[int, ...], layers: int) -> None:
        super().__init__()
        self.classes, embedding = classes, 4 * widths[0]
        self.level, self.of_level = Fourier(widths[0]), MPConv(widths[0], embedding, 0)
        self.of_class = MPConv(classes, embedding, 0)
        self.uncertainty_features, self.uncertainty = Fourier(128), MPConv(128, 1, 0)
        self.stem = MPConv(channels + 1, widths[0], 3)  # the further input is a constant one
        before, kept = widths[0], [widths[0]]
        self.down, self.up = nn.ModuleList(), nn.ModuleList()
        for level, width in enumerate(widths):
            last = level == len(widths) - 1
            blocks = [Block(before if n == 0 else width, width, embedding, True, last) for n in range(layers)]
            self.down.append(nn.ModuleList(blocks))
            before = width
            kept += [width] * layers + ([] if last else [width])
        for level, width in reversed(list(enumerate(widths))):
            blocks = []
            for _ in range(layers + 1):
                last = level == len(widths) - 1
                blocks.append(Block(before + kept.pop(), width, embedding, False, last))
                before = width
            self.up.append(nn.ModuleList(blocks))
        self.head, self.gain = MPConv(widths[0], channels, 3), nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor, sigma: Tensor, kinds: Tensor) -> Tensor:
        """x (n, C, s, s), sigma (n,), classes (n,) -> estimate of the clean image (n, C, s, s)."""
        total = (sigma.square() + DATA**2).sqrt().view(-1, 1, 1, 1)
        wide = sigma.view(-1, 1, 1, 1)
        raw = self.raw(x / total, sigma.log() / 4, kinds)
        return (DATA / total) ** 2 * x + wide * DATA / total * raw.float()

    def raw(self, x: Tensor, level: Tensor, kinds: Tensor) -> Tensor:
        """Output of the network for scaled inputs."""
        hot = functional.one_hot(kinds, self.classes).float() * math.sqrt(self.classes)
        embedding = mp_silu(mp_sum(self.of_level(self.level(level)), self.of_class(hot), EMBEDDED))
        x = self.stem(torch.cat([x, torch.ones_like(x[:, :1])], dim=1))
        kept = [x]
        for level_number, blocks in enumerate(self.down):
            if level_number:
                x = functional.avg_pool2d(x, 2)
                kept.append(x)
            for block in blocks:
                x = block(x, embedding)
                kept.append(x)
        for level_number, blocks in enumerate(self.up):
            if level_number:
                x = functional.interpolate(x, scale_factor=2.0, mode="nearest")
            for block in blocks:
                x = block(mp_cat(x, kept.pop()), embedding)
        return self.head(x, self.gain)

    def log_uncertainty(self, sigma: Tensor) -> Tensor:
        """Learned logarithm of the expected loss at these noise levels (n,)."""
        return self.uncertainty(self.uncertainty_features(sigma.log() / 4))[:, 0]


def edm2(channels: int, classes: int, size: int, where: torch.device, widths: tuple[int, ...], layers: int = 2) -> Peer:
    """The network ready to train on images of this many channels, classes and pixels."""
    network = EDM2UNet(channels, classes, widths, layers).to(where)
    weights = list(network.parameters())
    average, exponent, steps = [value.detach().clone() for value in weights], ema_exponent(WIDTH), 0

    def loss(x: Tensor, kinds: Tensor) -> Tensor:
        sigma = (MEAN + SPREAD * torch.randn(len(x), device=x.device)).exp()
        noisy = x + sigma.view(-1, 1, 1, 1) * torch.randn_like(x)
        weight = (sigma.square() + DATA**2) / (sigma * DATA).square()
        error = weight * (network(noisy, sigma, kinds) - x).square().mean(dim=(1, 2, 3))
        u = network.log_uncertainty(sigma).float()
        return (error * (-u).exp() + u).mean()

    @torch.no_grad()
    def follow() -> None:
        nonlocal steps
        steps += 1
        torch._foreach_lerp_(average, [value.detach() for value in weights], 1 - (1 - 1 / steps) ** (exponent + 1))

    def draw(kinds: Tensor, evaluations: int, guidance: float) -> Tensor:
        if guidance != 1:
            raise ValueError("this network is trained without dropped labels, so it knows no guidance")
        current = [value.detach().clone() for value in weights]
        _fill(weights, average)
        network.eval()
        levels = sampling.noise_levels(make_objective("edm"), "heun", evaluations)
        # Pixels have the deviation DATA, for which these levels are scaled.
        levels = [level * DATA for level in levels]
        x = torch.randn(len(kinds), channels, size, size, device=where) * levels[0]

        def denoise(x: Tensor, sigma: float) -> Tensor:
            return network(x, torch.full((len(x),), sigma, device=where), kinds)

        x = sampling.heun(denoise, x, levels, torch.randn_like)
        network.train()
        _fill(weights, current)
        return x

    def rate(step: int, fraction: float) -> float:
        return min(1.0, (fraction + 1e-3) / WARM_UP) * (1 + math.cos(math.pi * fraction)) / 2

    optimiser = torch.optim.Adam(weights, lr=LEARNING_RATE, betas=(0.9, 0.99), eps=1e-8)
    # Magnitudes are kept by construction, so gradients are not clipped.
    about = {"rate": rate, "learning_rate": LEARNING_RATE, "limit": math.inf}
    return Peer("edm2", network, loss, optimiser, follow, draw, **about)


@torch.no_grad()
def _fill(weights: list[nn.Parameter], values: list[Tensor]) -> None:
    for weight, value in zip(weights, values, strict=True):
        weight.copy_(value)
