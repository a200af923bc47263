"""Classical augmentation of a batch at once: quarter turns, flips, crops, and the brightness of each channel.

What is drawn (`draw`) is kept apart from doing it (`apply`), so that an arm which uses only the first n images of a
batch sees them augmented exactly as an arm that uses all of them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F


@dataclass(frozen=True)
class Draws:
    """How each image of a batch is changed."""

    grid: torch.Tensor  # (B, 2, 3): from output to input coordinates, both in [-1, 1]
    gain: torch.Tensor  # (B, C, 1, 1)

    def first(self, count: int) -> Draws:
        """The draws of the first images."""
        return Draws(self.grid[:count], self.gain[:count])


def draw(batch: int, channels: int, settings: dict[str, Any], generator: torch.Generator) -> Draws:
    """Draw for `batch` images with settings turn, flip (bool), scale, aspect (ranges), intensity (0: none).

    A crop has a share `scale` of the area and a width-to-height ratio `aspect`; where it would be wider than the image,
    it is as wide as the image. Gains are exp(u), u uniform within ±intensity."""

    def uniform(low: float, high: float, *shape: int) -> torch.Tensor:
        return low + (high - low) * torch.rand(shape, generator=generator, dtype=torch.float64)

    # All numbers are drawn whatever is switched off: switching one off leaves the others as they were.
    quarter = torch.randint(0, 4, (batch,), generator=generator)
    mirrored = torch.randint(0, 2, (batch,), generator=generator)
    area = uniform(settings["scale"][0], settings["scale"][1], batch)
    aspect = uniform(math.log(settings["aspect"][0]), math.log(settings["aspect"][1]), batch).exp()
    place = uniform(-1, 1, 2, batch)
    gain = (settings["intensity"] * uniform(-1, 1, batch, channels, 1, 1)).exp()
    if not settings["turn"]:
        quarter = torch.zeros_like(quarter)
    sign = 1.0 - 2.0 * mirrored if settings["flip"] else torch.ones(batch, dtype=torch.float64)
    # Half-axes of the crop as a share of the image's, and its middle: it never reaches beyond the edge.
    width = (area * aspect).sqrt().clamp(max=1.0)
    height = (area / aspect).sqrt().clamp(max=1.0)
    cos = torch.tensor([1.0, 0.0, -1.0, 0.0], dtype=torch.float64)[quarter]
    sin = torch.tensor([0.0, 1.0, 0.0, -1.0], dtype=torch.float64)[quarter]
    rows = [
        torch.stack([width * cos * sign, -width * sin, place[0] * (1 - width)], dim=1),
        torch.stack([height * sin * sign, height * cos, place[1] * (1 - height)], dim=1),
    ]
    return Draws(torch.stack(rows, dim=1).float(), gain.float())


def apply(images: torch.Tensor, draws: Draws) -> torch.Tensor:
    """Images float (B, C, H, W) in [0, 1], changed as drawn; brighter than 1 is cut off as a camera would."""
    grid = F.affine_grid(draws.grid.to(images.device), list(images.shape), align_corners=False)
    # One bilinear look-up does turn, flip and crop; whole quarter turns without a crop only permute pixels.
    moved = F.grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=False)
    return (moved * draws.gain.to(images.device)).clamp_(0.0, 1.0)
