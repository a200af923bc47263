"""The encoder of a generator's U-Net as backbone, and the choice of its block and noise level on the validation part.

Features are the mean over positions of what a block on the way down gives for a noisy image, without its labels
(DDAE, Xiang et al. 2023). One noise image serves all images, so that an image has the same features each time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import nn

from workflow_scripts.lib.generate import column_values
from workflow_scripts.lib.generate.diffusion import Condition
from workflow_scripts.lib.generate.networks import UNet

# Noise levels that are tried, beside pixels of deviation 1: from hardly visible noise to coarse structure alone.
LEVELS = (0.05, 0.2, 0.6, 2.0)
RIDGE = 0.01  # penalty of the probe for each image, beside features of deviation 1
BATCH = 256  # images at a time


class EncoderTrunk(nn.Module):
    """Way down of a U-Net as far as one block; takes pixels on the scale of its generator."""

    def __init__(self, channels: int, classes: int, size: int, encoder: dict[str, Any]) -> None:
        super().__init__()
        widths, blocks = encoder["widths"], encoder["blocks"]
        shape = {key: encoder[key] for key in ("references", "patch")}
        told = encoder.get("column_values") or {}
        columns = tuple(len(values) for values in told.values())
        # One from elsewhere may know other classes: the weights of labels, which are not given, have its number.
        classes = encoder.get("classes", classes)
        self.network = UNet(channels, classes, size, widths, blocks, columns=columns, **shape)
        self.register_buffer("columns", column_values.of_whole_images(told), persistent=False)
        # The way up is not needed. The factors of its blocks stay, as they are rows of a common map.
        self.network.up, self.network.head = nn.ModuleList(), nn.Identity()
        del self.network.head_gain
        self.classes, self.block, self.noise_level = classes, encoder["block"], encoder["noise_level"]
        self.widths = [width for width, count in zip(widths, blocks, strict=True) for _ in range(count)]
        self.register_buffer("noise", torch.randn(channels, size, size, generator=torch.Generator().manual_seed(0)))

    @property
    def width(self) -> int:
        """Features of the chosen block."""
        return self.widths[self.block]

    def pooled(self, images: torch.Tensor, noise_level: float, last: int | None = None) -> list[torch.Tensor]:
        """Features of every block (n, width), or of those up to `last`, at a noise level."""
        count, where = len(images), images.device
        level = torch.full((count,), noise_level, device=where)
        # What a network sees of x0 + sigma * noise, whatever its objective.
        x = (images + noise_level * self.noise) / (1 + noise_level**2) ** 0.5
        columns = None if self.columns is None else self.columns.expand(count, -1)
        dropped = torch.ones(count, dtype=torch.bool, device=where)
        nothing = Condition(torch.zeros(count, self.classes, device=where), dropped, columns=columns)
        return [found.float().mean(dim=(2, 3)) for found in self.network.encode(x, level.log(), nothing, last)]

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """(B, C, H, W) -> (B, D)."""
        return self.pooled(images, self.noise_level, self.block)[-1]

    def load_generator(self, weights: dict[str, torch.Tensor]) -> None:
        """Take the weights of a generator of the same shape."""
        self.network.load_state_dict({name: weights[name] for name in self.network.state_dict()})


def probe(features: np.ndarray, labels: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Scores (m, K) of `others` (m, D) by ridge regression of labels (n, K) on standardised features (n, D).

    It has a closed form, so that many features can be compared."""
    mean, spread = features.mean(axis=0), features.std(axis=0) + 1e-6
    design, asked = ((values - mean) / spread for values in (features.astype(np.float64), others.astype(np.float64)))
    targets = labels - labels.mean(axis=0)
    gram = design.T @ design + RIDGE * len(design) * np.eye(design.shape[1])
    return asked @ np.linalg.solve(gram, design.T @ targets) + labels.mean(axis=0)


def candidates(
    trunk: EncoderTrunk, levels: tuple[float, ...], parts: tuple[np.ndarray, np.ndarray], scale: tuple[Any, Any]
) -> Iterator[tuple[int, float, np.ndarray, np.ndarray]]:
    """Block, noise level, and features of both parts (uint8 images) for each pair; `scale` standardises pixels."""
    where = trunk.noise.device
    mean, std = (value.to(where).view(1, -1, 1, 1) for value in scale)
    trunk.eval()
    for level in levels:
        found = []
        for images in parts:
            with torch.inference_mode():
                blocks = [
                    trunk.pooled((part.to(where).float() / 255 - mean) / std, level)
                    for part in torch.as_tensor(images).split(BATCH)
                ]
            found.append([torch.cat(part).cpu().numpy() for part in zip(*blocks, strict=True)])
        for block, pair in enumerate(zip(*found, strict=True)):
            yield block, level, *pair


def choose(
    trunk: EncoderTrunk,
    levels: tuple[float, ...],
    real: tuple[np.ndarray, np.ndarray],
    validation: tuple[np.ndarray, np.ndarray],
    scale: tuple[torch.Tensor, torch.Tensor],
    score: Callable[[np.ndarray, np.ndarray], float],
) -> list[tuple[float, int, float]]:
    """Validation score, block and noise level of every candidate, the best one first; a tie goes to the first.

    `real` and `validation` are images uint8 and labels. Each candidate has a probe fitted on the real train images."""
    pairs = candidates(trunk, levels, (real[0], validation[0]), scale)
    found = [
        (score(probe(features, real[1], others), validation[1]), block, level)
        for block, level, features, others in pairs
    ]
    return sorted(found, key=lambda candidate: -candidate[0])
