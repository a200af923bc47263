"""Networks of the generators: a conditional U-Net that is fast on a CPU, and the study's three-layer network.

Both compute F(x; ln sigma, condition) as `diffusion.Network` says: float32 in and out, whatever they compute in. A
further network is a function like `unet` and `minimal` here, and an entry in `generator_choices.NETWORKS`.

The U-Net preserves the magnitude of activations by construction (Karras et al. 2024, "Analyzing and improving the
training dynamics of diffusion models"). Filters have unit norm and sums are weighted, so large learning rates are safe
and short trainings converge well. Pixels are first folded into channels (pixel unshuffle), because a CPU multiplies
wide and small maps several times faster than narrow and large ones."""

from __future__ import annotations

import math
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from workflow_scripts.lib.base.errors import UserError
from workflow_scripts.lib.generate import generator_checks, generator_choices
from workflow_scripts.lib.generate.diffusion import Condition
from workflow_scripts.lib.generate.generator_choices import NETWORKS

SILU_GAIN = 1 / 0.596  # makes silu(x) of standard normal x have a mean square of one
PACE = 0.25  # learning rate of scalar gains, relative: they are unbounded, unlike unit filters
FRACTION = 0.3  # weight of the branch in a residual sum
NORM = 1 / math.hypot(1 - FRACTION, FRACTION)  # a weighted sum of two unit magnitudes has unit magnitude again
ALIGNED = 8  # a GPU's tensor cores want the channels of a convolution in multiples of this
GROUP = 16  # channels a group in normalisation: fewer than 16 bfloat16 values defeat the CPU's vector units


class UnitLinear(nn.Module):
    """A linear map or a convolution whose filters have unit norm, times a constant gain.

    Stored filters of `fan` numbers have the norm sqrt(fan); `formed` makes those that the map multiplies by. A training
    forms them for all layers at once and leaves them in `ready` (see flat_weights.py)."""

    ready: Tensor | None  # formed filters to use in place of the layer's own

    def __init__(self, inputs: int, outputs: int, kernel: int | None = None, gain: float = 1.0) -> None:
        super().__init__()
        shape = (outputs, inputs) if kernel is None else (outputs, inputs, kernel, kernel)
        self.gain, self.ready = gain, None
        self.weight = nn.Parameter(torch.randn(shape))
        self.renormalise()

    @property
    def fan(self) -> int:
        """Numbers a filter."""
        return self.weight[0].numel()

    @torch.no_grad()
    def renormalise(self) -> None:
        """Rescale filters to their norm after a step, so that the effective learning rate stays the same."""
        flat = functional.normalize(self.weight.flatten(1), dim=1) * math.sqrt(self.fan)
        self.weight.copy_(flat.view_as(self.weight))

    def formed(self) -> Tensor:
        """Filters of unit norm, times the gain, whatever the norm of the stored ones."""
        flat = self.weight.flatten(1)
        return (flat * (self.gain / flat.norm(dim=1, keepdim=True).clamp(min=1e-6))).view_as(self.weight)

    def forward(self, x: Tensor, scale: Tensor | None = None) -> Tensor:
        """Apply the map; `scale` multiplies its filters, which is cheaper than multiplying the result."""
        weight = self.formed() if self.ready is None else self.ready
        if scale is not None:
            weight = weight * scale
        weight = weight.to(x.dtype)
        if weight.ndim == 2:
            return functional.linear(x, weight)
        if x.shape[1] > weight.shape[1]:
            # Further inputs are zeros (see ALIGNED): filters do not look at them.
            weight = functional.pad(weight, (0, 0, 0, 0, 0, x.shape[1] - weight.shape[1]))
        return functional.conv2d(x, weight, padding=weight.shape[-1] // 2)


class Block(nn.Module):
    """Residual block: two 3x3 convolutions, the first one's output scaled by channel."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.outputs = outputs
        # Constant factors are folded into filters, so that the sum is a single pass over memory.
        self.shortcut = UnitLinear(inputs, outputs, 1, (1 - FRACTION) * NORM) if inputs != outputs else None
        self.first = UnitLinear(inputs, outputs, 3, SILU_GAIN)
        self.second = UnitLinear(outputs, outputs, 3, SILU_GAIN * FRACTION * NORM)

    def forward(self, x: Tensor, scale: Tensor) -> Tensor:
        """x (n, inputs, h, w), scale (n, outputs) -> (n, outputs, h, w)."""
        y = self.first(functional.silu(x))
        y = self.second(functional.silu(y * scale[:, :, None, None]))
        if self.shortcut is not None:
            return y + self.shortcut(x)
        return torch.add(y, x, alpha=(1 - FRACTION) * NORM)


HEAD = 64  # channels of an attention head, about


class Attention(nn.Module):
    """Self-attention between all positions, in a residual sum (Karras et al. 2024, appendix B.2: cosine attention).

    Queries, keys and values have unit magnitude, so attention cannot grow sharper without bound."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.heads = next(count for count in range(max(1, width // HEAD), 0, -1) if width % count == 0)
        self.project = UnitLinear(width, 3 * width, 1)
        self.merge = UnitLinear(width, width, 1, FRACTION * NORM)

    def forward(self, x: Tensor) -> Tensor:
        """(n, width, h, w) -> the same."""
        n, width, height, across = x.shape
        y = self.project(x).permute(0, 2, 3, 1).reshape(n, height * across, 3, self.heads, width // self.heads)
        y = y * (y.float().square().mean(dim=-1, keepdim=True) + 1e-4).rsqrt().to(y.dtype)
        query, key, value = y.permute(2, 0, 3, 1, 4).unbind(0)
        found = functional.scaled_dot_product_attention(query, key, value)
        found = found.transpose(1, 2).reshape(n, height, across, width).permute(0, 3, 1, 2)
        return torch.add(self.merge(found), x, alpha=(1 - FRACTION) * NORM)


class LogVariance(nn.Module):
    """Expected size of the loss at each noise level, as a logarithm; 0 before any training."""

    def __init__(self, frequencies: int = 64) -> None:
        super().__init__()
        self.register_buffer("frequencies", torch.randn(frequencies) * 2)
        self.register_buffer("phases", torch.rand(frequencies) * 2 * math.pi)
        self.map = UnitLinear(frequencies, 1, gain=PACE)
        self.gain = nn.Parameter(torch.zeros(()))

    def forward(self, log_sigma: Tensor) -> Tensor:
        """(n,) -> (n,)."""
        angles = log_sigma[:, None] / 4 * self.frequencies + self.phases
        return self.map(angles.cos() * math.sqrt(2))[:, 0] * self.gain


class Modulation(nn.Module):
    """Factors of the channels of all blocks, by the embedding; a learned gain a block."""

    owner: Tensor

    def __init__(self, embedding: int, outputs: list[int]) -> None:
        super().__init__()
        self.outputs = outputs
        self.map = UnitLinear(embedding, sum(outputs), gain=PACE)
        self.gains = nn.Parameter(torch.zeros(len(outputs)))
        # Which channel belongs to which block: a product with it spreads the gains over the channels.
        owner = torch.zeros(len(outputs), sum(outputs))
        ends = list(accumulate(outputs))
        for row, end, count in zip(owner, ends, outputs, strict=True):
            row[end - count : end] = 1
        self.register_buffer("owner", owner, persistent=False)

    def forward(self, embedding: Tensor, dtype: torch.dtype) -> list[Tensor]:
        """(n, e) -> for each block (n, its outputs)."""
        scales = 1 + self.map(embedding) * (self.gains @ self.owner)
        return list(scales.to(dtype).split(self.outputs, dim=1))


class Embedding(nn.Module):
    """Embedding vector of the noise level and the condition."""

    places: Tensor | None

    def __init__(self, classes: int, width: int, frequencies: int = 64, columns: tuple[int, ...] = ()) -> None:
        super().__init__()
        # Random Fourier features of ln sigma: smooth, and fine enough to tell apart neighbouring levels.
        self.register_buffer("frequencies", torch.randn(frequencies) * 2)
        self.register_buffer("phases", torch.rand(frequencies) * 2 * math.pi)
        self.level = UnitLinear(frequencies, width)
        self.values = sum(columns)
        self.register_buffer("places", None, persistent=False)  # see place_labels
        # Two more inputs than classes: "labels are known" and "nothing is said".
        # Two or so of them are on; the gain gives their sum a magnitude near one.
        self.labels = UnitLinear(classes + 2, width, gain=math.sqrt((classes + 2) / 2))
        self.mix = UnitLinear(width, width, gain=SILU_GAIN)
        # One value of each column is on. Last, so that a network without them has the weights that it always had.
        self.columns = UnitLinear(sum(columns), width, gain=math.sqrt(sum(columns) / len(columns))) if columns else None

    def forward(self, log_sigma: Tensor, condition: Condition) -> Tensor:
        """(n,), labels (n, K) -> (n, width)."""
        angles = log_sigma[:, None] / 4 * self.frequencies + self.phases
        level = self.level(angles.cos() * math.sqrt(2))
        dropped = condition.dropped[:, None].to(level.dtype)
        labels = _placed(condition.labels.to(level.dtype), self.places)
        words = torch.cat([labels * (1 - dropped), 1 - dropped, dropped], dim=1)
        said = level + self.labels(words)
        if self.columns is not None:
            told = condition.columns if condition.columns is not None else words.new_zeros(len(words), self.values)
            said = (said + self.columns(told.to(level.dtype))) * math.sqrt(2 / 3)
        hidden = functional.silu(said / math.sqrt(2))
        return functional.silu(self.mix(hidden)) * SILU_GAIN


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
            x = _standardised(x)
            for block in blocks:
                x = block(x, next(scales))
            kept.append(x)
        if self.attention is not None:
            x = self.attention(x)
        for level, blocks in enumerate(self.up):
            if level:
                below, beside = functional.interpolate(x, scale_factor=2.0, mode="nearest"), kept[-1 - level]
                x = _joined(below, beside)
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
            x = _standardised(functional.avg_pool2d(x, 2) if level else x)
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


def _standardised(x: Tensor) -> Tensor:
    # Magnitudes drift where neighbouring pixels agree; once a resolution is enough to hold them.
    channels = x.shape[1]
    groups = channels // GROUP if channels % GROUP == 0 else 1
    # On a GPU torch's own normalisation would leave the channels-last layout, and every convolution converts back.
    return standardised_channels_last(x, groups) if x.is_cuda else functional.group_norm(x, groups)


def standardised_channels_last(x: Tensor, groups: int, eps: float = 1e-5) -> Tensor:
    """Group normalisation (n, C, h, w) that keeps the channels-last layout, in float32 inside."""
    n, channels, height, width = x.shape
    y = x.permute(0, 2, 3, 1).reshape(n, height * width, groups, channels // groups).float()
    variance, mean = torch.var_mean(y, dim=(1, 3), correction=0, keepdim=True)
    y = (y - mean) * (variance + eps).rsqrt()
    return y.to(x.dtype).view(n, height, width, channels).permute(0, 3, 1, 2)


def _placed(labels: Tensor, places: Tensor | None) -> Tensor:
    return labels if places is None else labels @ places


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
        labels = _placed(condition.labels, self.places)
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
