"""Networks of the generators: a conditional U-Net that is fast on a CPU, and the study's three-layer network.

Both compute F(x; ln sigma, condition) as `diffusion.Network` says: float32 in and out, whatever they compute in. A
further network is a function like `unet` and `minimal` here, and an entry in `generator_choices.NETWORKS`.

The layers of the U-Net are `unit_layers`. Pixels are first folded into channels (pixel unshuffle), because a CPU
multiplies wide and small maps several times faster than narrow and large ones."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from workflow_scripts.lib.base.errors import UserError
from workflow_scripts.lib.generate import generator_checks, generator_choices
from workflow_scripts.lib.generate.diffusion import Condition
from workflow_scripts.lib.generate.generator_choices import NETWORKS
from workflow_scripts.lib.generate.unit_layers import (
    ALIGNED,
    PACE,
    Attention,
    Block,
    Embedding,
    LogVariance,
    Modulation,
    UnitLinear,
    joined,
    placed,
    standardised,
)


class UNet(nn.Module):
    """Conditional U-Net with `widths` channels at each resolution and `blocks` blocks on each way.

    With `references` it has inputs for reference channels: a mask of them, and their clean pixels. `columns` are the
    numbers of values of the columns that it is told beside the labels."""

    def __init__(
        self,
        channels: int,
        classes: int,
        size: int,
        widths: list[int],
        blocks: list[int],
        dtype: torch.dtype = torch.float32,
        references: bool = False,
        patch: int | None = None,
        attention: bool = False,
        learned_weighting: bool = False,
        columns: tuple[int, ...] = (),
    ) -> None:
        super().__init__()
        problem = generator_checks.size_problem(size, len(widths), patch)
        if problem:
            raise ValueError(problem)
        self.dtype, self.fold, self.references = dtype, patch or generator_choices.folding(size), references
        embedding = 4 * widths[0]
        self.embedding = Embedding(classes, embedding, columns=columns)
        # The further input is a constant one, which stands in for the biases that unit filters lack.
        inputs = channels * self.fold**2 + 1 + (channels * (self.fold**2 + 1) if references else 0)
        self.stem = UnitLinear(inputs, widths[0], 3)
        self.down, self.up = nn.ModuleList(), nn.ModuleList()
        before = widths[0]
        for width, count in zip(widths, blocks, strict=True):
            ways = [before] + [width] * (count - 1)
            self.down.append(nn.ModuleList(Block(way, width) for way in ways))
            before = width
        for level in reversed(range(len(widths))):
            width, count = widths[level], blocks[level]
            # The deepest level has nothing below it to join with.
            first = width if level == len(widths) - 1 else width + widths[level + 1]
            ways = [first] + [width] * (count - 1)
            self.up.append(nn.ModuleList(Block(way, width) for way in ways))
        self.modulation = Modulation(embedding, [block.outputs for block in self._blocks()])
        self.head = UnitLinear(widths[0], channels * self.fold**2, 3, PACE)
        self.head_gain = nn.Parameter(torch.zeros(()))
        # Last, so that a network without them has the first weights that it always had.
        self.attention = Attention(widths[-1]) if attention else None
        self.log_variance = LogVariance() if learned_weighting else None

    def forward(self, x: Tensor, log_sigma: Tensor, condition: Condition) -> Tensor:
        """(n, C, s, s), (n,), condition -> (n, C, s, s)."""
        scales = iter(self.modulation(self.embedding(log_sigma, condition), self.dtype))
        x = self._planes(x, condition)
        x = self.stem(x.to(self.dtype, memory_format=torch.channels_last))
        kept: list[Tensor] = []
        for level, blocks in enumerate(self.down):
            if level:
                x = functional.avg_pool2d(x, 2)
            x = standardised(x)
            for block in blocks:
                x = block(x, next(scales))
            kept.append(x)
        if self.attention is not None:
            x = self.attention(x)
        for level, blocks in enumerate(self.up):
            if level:
                below, beside = functional.interpolate(x, scale_factor=2.0, mode="nearest"), kept[-1 - level]
                x = joined(below, beside)
            for block in blocks:
                x = block(x, next(scales))
        # With a dimension of its own, so that the product with filters in low precision is one of float32.
        x = self.head(x, self.head_gain.view(1)).float()
        return functional.pixel_shuffle(x, self.fold)

    def encode(self, x: Tensor, log_sigma: Tensor, condition: Condition, last: int | None = None) -> list[Tensor]:
        """Outputs (n, width, h, w) of the blocks on the way down, up to number `last` (None: all)."""
        scales = iter(self.modulation(self.embedding(log_sigma, condition), self.dtype))
        x = self.stem(self._planes(x, condition).to(self.dtype, memory_format=torch.channels_last))
        found: list[Tensor] = []
        for level, blocks in enumerate(self.down):
            x = standardised(functional.avg_pool2d(x, 2) if level else x)
            for block in blocks:
                x = block(x, next(scales))
                found.append(x)
                if last is not None and len(found) > last:
                    return found
        return found

    def place_labels(self, places: Tensor) -> None:
        """Take labels (n, K) times `places` (K, own classes): which of its classes each of them is."""
        self.embedding.places = places

    def _blocks(self) -> list[Block]:
        return [block for level in (*self.down, *self.up) for block in level]

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
        extra = -sum(plane.shape[1] for plane in planes) % ALIGNED
        if x.is_cuda and extra:
            planes += [noisy.new_zeros(len(noisy), extra, *noisy.shape[2:])]
        return torch.cat(planes, dim=1)

    def settle(self) -> None:
        """Form all filters once and for all, as the weights will not change; to be called before sampling."""
        for module in self.modules():
            if isinstance(module, UnitLinear):
                convolution = module.weight.ndim == 4
                formed = module.formed().detach().to(self.dtype if convolution else torch.float32)
                last = convolution and formed.is_cuda
                module.ready = formed.contiguous(memory_format=torch.channels_last) if last else formed

    def renormalise(self) -> None:
        """Renormalise all filters; to be called after each step of the optimiser."""
        for module in self.modules():
            if isinstance(module, UnitLinear):
                module.renormalise()


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
        self.register_buffer("places", None, persistent=False)
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
        labels = placed(condition.labels, self.places)
        one = x.device.type != "cpu" or self.several or bool((labels.sum(dim=1) == 1).all())
        if not one or (x.device.type == "cpu" and bool(condition.dropped.any())):
            raise ValueError("the minimal network takes exactly one label an image and knows no dropped condition")
        if self.several:
            words = labels @ self.classes.weight
        else:
            words = self.classes(labels.argmax(dim=1))
        words = words[:, :, None, None].expand(-1, -1, *x.shape[-2:])
        y = torch.cat([x, words], dim=1).to(self.dtype, memory_format=torch.channels_last)
        for number, layer in enumerate(self.layers):
            y = functional.conv2d(
                functional.relu(y) if number else y, layer.weight.to(self.dtype), layer.bias.to(self.dtype), padding=1
            )
        return y.float()

    def place_labels(self, places: Tensor) -> None:
        """Take labels (n, K) times `places` (K, own classes): which of its classes each of them is."""
        self.places = places

    def settle(self) -> None:
        """Nothing to do: these weights are used as they are."""

    def renormalise(self) -> None:
        """Nothing to do: these weights are not normalised."""


Settings = dict[str, Any]  # settings of a generator


def unet(settings: Settings, channels: int, classes: int, size: int, dtype: torch.dtype) -> UNet:
    """Build the U-Net of these settings."""
    return UNet(
        channels, classes, size, settings["widths"], settings["blocks"], dtype,
        references=generator_choices.takes_references(settings),
        patch=settings.get("patch"),
        attention=settings.get("attention", False),
        columns=tuple(len(values) for values in settings.get("column_values", {}).values()),
        learned_weighting=generator_choices.WEIGHTINGS[settings.get("weighting", "plain")].learned,
    )  # fmt: skip


def minimal(settings: Settings, channels: int, classes: int, size: int, dtype: torch.dtype) -> Minimal:
    """Build the reference study's network; settings without `labels` have its single labels."""
    return Minimal(channels, classes, dtype=dtype, several=settings.get("labels") == "multi_hot")


def make_network(settings: Settings, channels: int, classes: int, size: int, dtype: torch.dtype) -> UNet | Minimal:
    """Build the network of a generator's settings, with weights drawn from torch's global generator.

    One that came from elsewhere may know more classes, in another order: `label_places` says which are meant."""
    placed = settings.get("label_places")
    own = placed["of"] if placed else classes
    network = NETWORKS.function(settings["network"], globals())(settings, channels, own, size, dtype)
    if placed:
        if not hasattr(network, "place_labels"):
            raise UserError(f"network {settings['network']} cannot come from a generator of other classes")
        places = torch.zeros(len(placed["places"]), own)
        places[torch.arange(len(places)), placed["places"]] = 1
        network.place_labels(places)
    return network
