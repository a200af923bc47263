"""Layers of the conditional U-Net, which preserve the magnitude of activations by construction.

After Karras et al. 2024, "Analyzing and improving the training dynamics of diffusion models". Filters have unit norm
and sums are weighted, so large learning rates are safe and short trainings converge well."""

from __future__ import annotations

import math
from itertools import accumulate

import torch
from torch import Tensor, nn
from torch.nn import functional

from workflow_scripts.lib.generate.diffusion import Condition

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
        labels = placed(condition.labels.to(level.dtype), self.places)
        words = torch.cat([labels * (1 - dropped), 1 - dropped, dropped], dim=1)
        said = level + self.labels(words)
        if self.columns is not None:
            told = condition.columns if condition.columns is not None else words.new_zeros(len(words), self.values)
            said = (said + self.columns(told.to(level.dtype))) * math.sqrt(2 / 3)
        hidden = functional.silu(said / math.sqrt(2))
        return functional.silu(self.mix(hidden)) * SILU_GAIN


def standardised(x: Tensor) -> Tensor:
    """Group normalisation without learned scales."""
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


def placed(labels: Tensor, places: Tensor | None) -> Tensor:
    """Labels (n, K) as those of the network's own classes; see `UNet.place_labels`."""
    return labels if places is None else labels @ places


def joined(below: Tensor, beside: Tensor) -> Tensor:
    """Maps from below and from beside in one, along the channels."""
    # Both halves contribute alike to the sums that follow, whatever their widths (Karras et al. 2024, eq. 103).
    a, b = below.shape[1], beside.shape[1]
    factor = math.sqrt((a + b) / 2)
    return torch.cat([below * (factor / math.sqrt(a)), beside * (factor / math.sqrt(b))], dim=1)
