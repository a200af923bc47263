"""Networks of the generators: a conditional U-Net that is fast on a CPU, and the study's three-layer network.

Both compute F(x; ln sigma, condition) as `diffusion.Network` says: float32 in and out, whatever they compute in. A
further network is a function like `unet` and `minimal` here, and an entry in `generator_choices.NETWORKS`.

The U-Net preserves the magnitude of activations by construction (Karras et al. 2024, "Analyzing and improving the
training dynamics of diffusion models"). Filters have unit norm and sums are weighted, so large learning rates are safe
and short trainings converge well. Pixels are first folded into channels (pixel unshuffle), because a CPU multiplies
wide and small maps several times faster than narrow and large ones."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from workflow_scripts.lib.generate import generator_choices
from workflow_scripts.lib.generate.diffusion import Condition
from workflow_scripts.lib.generate.generator_choices import NETWORKS

SILU_GAIN = 1 / 0.596  # makes silu(x) of standard normal x have a mean square of one
PACE = 0.25  # learning rate of scalar gains, relative: they are unbounded, unlike unit filters
FRACTION = 0.3  # weight of the branch in a residual sum
NORM = 1 / math.hypot(1 - FRACTION, FRACTION)  # a weighted sum of two unit magnitudes has unit magnitude again
GROUP = 16  # channels a group in normalisation: fewer than 16 bfloat16 values defeat the CPU's vector units


class UnitLinear(nn.Module):
    """A linear map or a convolution whose filters have unit norm, with an outer gain."""

    def __init__(self, inputs: int, outputs: int, kernel: int | None = None) -> None:
        super().__init__()
        shape = (outputs, inputs) if kernel is None else (outputs, inputs, kernel, kernel)
        self.weight = nn.Parameter(torch.randn(shape))
        self.renormalise()

    @torch.no_grad()
    def renormalise(self) -> None:
        """Rescale filters to unit norm after a step, so that the effective learning rate stays the same."""
        fan = self.weight[0].numel()
        self.weight.copy_(functional.normalize(self.weight.flatten(1), dim=1).view_as(self.weight) * math.sqrt(fan))

    def forward(self, x: Tensor, gain: float | Tensor = 1.0) -> Tensor:
        """Apply the map; `gain` multiplies its filters, which is cheaper than multiplying the result."""
        flat = self.weight.flatten(1)
        weight = (flat * (gain / flat.norm(dim=1, keepdim=True).clamp(min=1e-6))).view_as(self.weight).to(x.dtype)
        if weight.ndim == 2:
            return functional.linear(x, weight)
        return functional.conv2d(x, weight, padding=weight.shape[-1] // 2)


class Block(nn.Module):
    """Residual block: two 3x3 convolutions, the first one's output scaled by the embedding."""

    def __init__(self, inputs: int, outputs: int, embedding: int) -> None:
        super().__init__()
        self.shortcut = UnitLinear(inputs, outputs, 1) if inputs != outputs else None
        self.first = UnitLinear(inputs, outputs, 3)
        self.second = UnitLinear(outputs, outputs, 3)
        self.modulation = UnitLinear(embedding, outputs)
        self.gain = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        """x (n, inputs, h, w), embedding (n, e) -> (n, outputs, h, w)."""
        y = self.first(functional.silu(x), SILU_GAIN)
        scale = 1 + self.modulation(embedding, PACE * self.gain)
        y = functional.silu(y * scale.to(y.dtype)[:, :, None, None])
        # Constant factors are folded into filters, so that the sum is a single pass over memory.
        y = self.second(y, SILU_GAIN * FRACTION * NORM)
        if self.shortcut is not None:
            return y + self.shortcut(x, (1 - FRACTION) * NORM)
        return torch.add(y, x, alpha=(1 - FRACTION) * NORM)


class Embedding(nn.Module):
    """Embedding vector of the noise level and the condition."""

    def __init__(self, classes: int, width: int, frequencies: int = 64) -> None:
        super().__init__()
        # Random Fourier features of ln sigma: smooth, and fine enough to tell apart neighbouring levels.
        self.register_buffer("frequencies", torch.randn(frequencies) * 2)
        self.register_buffer("phases", torch.rand(frequencies) * 2 * math.pi)
        self.level = UnitLinear(frequencies, width)
        # Two more inputs than classes: "labels are known" and "nothing is said".
        self.labels = UnitLinear(classes + 2, width)
        self.mix = UnitLinear(width, width)

    def forward(self, log_sigma: Tensor, condition: Condition) -> Tensor:
        """(n,), labels (n, K) -> (n, width)."""
        angles = log_sigma[:, None] / 4 * self.frequencies + self.phases
        level = self.level(angles.cos() * math.sqrt(2))
        dropped = condition.dropped[:, None].to(level.dtype)
        words = torch.cat([condition.labels.to(level.dtype) * (1 - dropped), 1 - dropped, dropped], dim=1)
        # Two or so of K + 2 inputs are on; the factor gives their sum a magnitude near one.
        labels = self.labels(words, math.sqrt(words.shape[1] / 2))
        hidden = functional.silu((level + labels) / math.sqrt(2))
        return functional.silu(self.mix(hidden, SILU_GAIN)) * SILU_GAIN


class UNet(nn.Module):
    """Conditional U-Net with `widths` channels at each resolution and `blocks` blocks on each way.

    With `references` it has inputs for reference channels: a mask of them, and their clean pixels."""

    def __init__(
        self,
        channels: int,
        classes: int,
        size: int,
        widths: list[int],
        blocks: list[int],
        dtype: torch.dtype = torch.float32,
        references: bool = False,
    ) -> None:
        super().__init__()
        problem = generator_choices.size_problem(size, len(widths))
        if problem:
            raise ValueError(problem)
        self.dtype, self.fold, self.references = dtype, generator_choices.folding(size), references
        embedding = 4 * widths[0]
        self.embedding = Embedding(classes, embedding)
        # The further input is a constant one, which stands in for the biases that unit filters lack.
        inputs = channels * self.fold**2 + 1 + (channels * (self.fold**2 + 1) if references else 0)
        self.stem = UnitLinear(inputs, widths[0], 3)
        self.down, self.up = nn.ModuleList(), nn.ModuleList()
        before = widths[0]
        for width, count in zip(widths, blocks, strict=True):
            ways = [before] + [width] * (count - 1)
            self.down.append(nn.ModuleList(Block(way, width, embedding) for way in ways))
            before = width
        for level in reversed(range(len(widths))):
            width, count = widths[level], blocks[level]
            # The deepest level has nothing below it to join with.
            first = width if level == len(widths) - 1 else width + widths[level + 1]
            ways = [first] + [width] * (count - 1)
            self.up.append(nn.ModuleList(Block(way, width, embedding) for way in ways))
        self.head = UnitLinear(widths[0], channels * self.fold**2, 3)
        self.head_gain = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor, log_sigma: Tensor, condition: Condition) -> Tensor:
        """(n, C, s, s), (n,), condition -> (n, C, s, s)."""
        embedding = self.embedding(log_sigma, condition)
        x = self._planes(x, condition)
        x = self.stem(x.to(self.dtype, memory_format=torch.channels_last))
        kept: list[Tensor] = []
        for level, blocks in enumerate(self.down):
            if level:
                x = functional.avg_pool2d(x, 2)
            x = _standardised(x)
            for block in blocks:
                x = block(x, embedding)
            kept.append(x)
        for level, blocks in enumerate(self.up):
            if level:
                below, beside = functional.interpolate(x, scale_factor=2.0, mode="nearest"), kept[-1 - level]
                x = _joined(below, beside)
            for block in blocks:
                x = block(x, embedding)
        x = self.head(x, PACE * self.head_gain).float()
        return functional.pixel_shuffle(x, self.fold)

    def _planes(self, x: Tensor, condition: Condition) -> Tensor:
        # Input of the first layer: noisy pixels, the constant one, reference pixels (zeros where there are none), and
        # for each channel a plane that says whether it is a reference channel.
        if condition.reference is not None and not self.references:
            raise ValueError("this network was made without inputs for reference channels")
        noisy = functional.pixel_unshuffle(x, self.fold)
        planes = [noisy, torch.ones_like(noisy[:, :1])]
        if self.references:
            clean = torch.zeros_like(x) if condition.reference is None else condition.reference
            shown = x.new_zeros(x.shape[:2]) if condition.shown is None else condition.shown.to(x.dtype)
            planes += [functional.pixel_unshuffle(clean, self.fold)]
            planes += [shown[:, :, None, None].expand(-1, -1, *noisy.shape[2:])]
        return torch.cat(planes, dim=1)

    def renormalise(self) -> None:
        """Renormalise all filters; to be called after each step of the optimiser."""
        for module in self.modules():
            if isinstance(module, UnitLinear):
                module.renormalise()


def _standardised(x: Tensor) -> Tensor:
    # Magnitudes drift where neighbouring pixels agree; once a resolution is enough to hold them.
    channels = x.shape[1]
    return functional.group_norm(x, channels // GROUP if channels % GROUP == 0 else 1)


def _joined(below: Tensor, beside: Tensor) -> Tensor:
    # Both halves contribute alike to the sums that follow, whatever their widths (Karras et al. 2024, eq. 103).
    a, b = below.shape[1], beside.shape[1]
    factor = math.sqrt((a + b) / 2)
    return torch.cat([below * (factor / math.sqrt(a)), beside * (factor / math.sqrt(b))], dim=1)


class Minimal(nn.Module):
    """Reference study's generator: three 3x3 convolutions, no noise-level input, one label an image.

    With `several` it takes any number of labels, whose embeddings are added. This is not the study's way; a replay
    compares it with single labels."""

    def __init__(
        self,
        channels: int,
        classes: int,
        width: int = 64,
        embedding: int = 64,
        dtype: torch.dtype = torch.float32,
        several: bool = False,
    ) -> None:
        super().__init__()
        self.dtype, self.several = dtype, several
        self.classes = nn.Embedding(classes, embedding)
        self.layers = nn.ModuleList(
            nn.Conv2d(before, after, 3, padding=1)
            for before, after in ((channels + embedding, width), (width, width), (width, channels))
        )

    def forward(self, x: Tensor, log_sigma: Tensor, condition: Condition) -> Tensor:
        """(n, C, h, w) -> (n, C, h, w); the noise level is ignored, as in the study."""
        if condition.reference is not None:
            raise ValueError("the minimal network has no inputs for reference channels")
        # No values are read: on a GPU that would synchronise.
        one = x.device.type != "cpu" or self.several or bool((condition.labels.sum(dim=1) == 1).all())
        if not one or (x.device.type == "cpu" and bool(condition.dropped.any())):
            raise ValueError("the minimal network takes exactly one label an image and knows no dropped condition")
        if self.several:
            words = condition.labels @ self.classes.weight
        else:
            words = self.classes(condition.labels.argmax(dim=1))
        words = words[:, :, None, None].expand(-1, -1, *x.shape[-2:])
        y = torch.cat([x, words], dim=1).to(self.dtype, memory_format=torch.channels_last)
        for number, layer in enumerate(self.layers):
            y = functional.conv2d(
                functional.relu(y) if number else y, layer.weight.to(self.dtype), layer.bias.to(self.dtype), padding=1
            )
        return y.float()

    def renormalise(self) -> None:
        """Nothing to do: these weights are not normalised."""


Settings = dict[str, Any]  # settings of a generator


def unet(settings: Settings, channels: int, classes: int, size: int, dtype: torch.dtype) -> UNet:
    """Build the U-Net of these settings."""
    references = generator_choices.takes_references(settings)
    return UNet(channels, classes, size, settings["widths"], settings["blocks"], dtype, references)


def minimal(settings: Settings, channels: int, classes: int, size: int, dtype: torch.dtype) -> Minimal:
    """Build the reference study's network; settings without `labels` have its single labels."""
    return Minimal(channels, classes, dtype=dtype, several=settings.get("labels") == "multi_hot")


def make_network(settings: Settings, channels: int, classes: int, size: int, dtype: torch.dtype) -> UNet | Minimal:
    """Build the network of a generator's settings, with weights drawn from torch's global generator."""
    return NETWORKS.function(settings["network"], globals())(settings, channels, classes, size, dtype)
