"""Augmentation of a batch: rotations by quarter turns, flips, crops, and the brightness of each channel.

Random draws (`draw`) are separate from their application (`apply`). So an arm that uses only the first n images of a
batch sees them augmented exactly as an arm that uses all of them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F

CACHED = 2**18  # values processed at a time


@dataclass(frozen=True)
class Draws:
    """Random draws for the augmentation of each image of a batch."""

    grid: torch.Tensor  # (B, 2, 3): from output to input coordinates, both in [-1, 1]
    gain: torch.Tensor  # (B, C, 1, 1)

    def first(self, count: int) -> Draws:
        """Draws of the first images."""
        return self.part(slice(count))

    def part(self, which: slice) -> Draws:
        """Draws of some of the images."""
        return Draws(self.grid[which], self.gain[which])


def draw(batch: int, channels: int, settings: dict[str, Any], generator: torch.Generator) -> Draws:
    """Draw for `batch` images with settings turn, flip (bool), scale, aspect (ranges), intensity (0: none).

    A crop has a fraction `scale` of the area and a width-to-height ratio `aspect`; it is at most as wide as the image.
    Gains are exp(u), u uniform within ±intensity. All is drawn where the generator is."""
    where = generator.device

    def uniform(low: float, high: float, *shape: int) -> torch.Tensor:
        return low + (high - low) * torch.rand(shape, generator=generator, dtype=torch.float64, device=where)

    # All numbers are drawn whatever is switched off, so that a switch leaves the other draws as they were.
    quarter = torch.randint(0, 4, (batch,), generator=generator, device=where)
    mirrored = torch.randint(0, 2, (batch,), generator=generator, device=where)
    area = uniform(settings["scale"][0], settings["scale"][1], batch)
    aspect = uniform(math.log(settings["aspect"][0]), math.log(settings["aspect"][1]), batch).exp()
    place = uniform(-1, 1, 2, batch)
    gain = (settings["intensity"] * uniform(-1, 1, batch, channels, 1, 1)).exp()
    if not settings["turn"]:
        quarter = torch.zeros_like(quarter)
    sign = 1.0 - 2.0 * mirrored if settings["flip"] else torch.ones(batch, dtype=torch.float64, device=where)
    # Half-axes of the crop as a fraction of the image's, and its middle: it never reaches beyond the edge.
    width = (area * aspect).sqrt().clamp(max=1.0)
    height = (area / aspect).sqrt().clamp(max=1.0)
    cos = torch.tensor([1.0, 0.0, -1.0, 0.0], dtype=torch.float64, device=where)[quarter]
    sin = torch.tensor([0.0, 1.0, 0.0, -1.0], dtype=torch.float64, device=where)[quarter]
    rows = [
        torch.stack([width * cos * sign, -width * sin, place[0] * (1 - width)], dim=1),
        torch.stack([height * sin * sign, height * cos, place[1] * (1 - height)], dim=1),
    ]
    return Draws(torch.stack(rows, dim=1).float(), gain.float())


def apply(pixels: torch.Tensor, draws: Draws, mean: torch.Tensor, std: torch.Tensor) -> torch.Tensor:
    """Apply the draws to pixels uint8 (B, C, H, W) and standardise: float, channels last, (pixel / 255 - mean) / std.

    mean and std are (C,). Values that the gain makes brighter than 1 are clipped, as in a camera."""
    where, shape = pixels.device, pixels.shape
    out = torch.empty(shape, device=where, memory_format=torch.channels_last)
    # Scale, gain and standard deviation are one factor, and white and the mean are as many deviations.
    std = std.view(-1, 1, 1)
    factor, white, middle = draws.gain.to(where) / (255 * std), 1 / std, mean.view(-1, 1, 1) / std
    coordinates = draws.grid.to(where)
    # On a CPU a few images at a time, so that every step of the work finds them in its cache.
    count = max(1, len(pixels) if where.type != "cpu" else CACHED // math.prod(shape[1:]))
    for start in range(0, len(pixels), count):
        some = slice(start, start + count)
        # One bilinear look-up does turn, flip and crop; whole quarter turns without a crop only permute pixels.
        grid = _grid(coordinates[some], *shape[2:])
        moved = F.grid_sample(pixels[some].float(), grid, padding_mode="border", align_corners=False)
        torch.sub(torch.minimum(moved.mul_(factor[some]), white, out=moved), middle, out=out[some])
    return out


def _grid(coordinates: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """Input position of each output pixel (B, H, W, 2), by affine coordinates (B, 2, 3)."""
    where = coordinates.device
    across = (2 * torch.arange(width, device=where) + 1) / width - 1
    down = (2 * torch.arange(height, device=where) + 1) / height - 1
    out = torch.empty(len(coordinates), height, width, 2, device=where)
    for axis in range(2):
        along_x, along_y, middle = (value[:, None, None] for value in coordinates[:, axis].unbind(dim=1))
        torch.add(along_x * across + middle, along_y * down[:, None], out=out[..., axis])
    return out
