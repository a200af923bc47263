"""Scores of classes by a generator: how much its denoising loss falls when a label is given.

A diffusion model bounds the likelihood of an image from below by its denoising loss. So the label that lowers the loss
most is the likeliest (Li et al. 2023, arXiv 2303.16203; Clark & Jaini 2023, arXiv 2303.15233). Here an image may have
several labels, and each class is asked by itself: the loss when nothing is said about labels, minus the loss with this
label alone. Noise and noise levels are the same for both sides, for all classes and for all images."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from workflow_scripts.lib.generate import column_values, diffusion
from workflow_scripts.lib.generate.diffusion import Condition
from workflow_scripts.lib.generate.networks import make_network

# Settings of a generator that say which network it has, and what this predicts.
NETWORK = (
    "network",
    "widths",
    "blocks",
    "patch",
    "attention",
    "weighting",
    "labels",
    "reference_fraction",
    "objective",
    "label_places",
    "column_values",
)


class ScoreTrunk(nn.Module):
    """Loss without labels minus loss with each label, a feature a class; takes pixels on the scale of its generator."""

    def __init__(self, channels: int, classes: int, size: int, encoder: dict[str, Any]) -> None:
        super().__init__()
        settings = encoder["generator"]
        self.network: nn.Module = make_network(settings, channels, classes, size, torch.float32)
        self.objective = diffusion.make_objective(settings["objective"])
        self.classes = classes
        self.levels = [level for level in encoder["levels"] for _ in range(encoder["draws"])]  # one a draw of noise
        shape = (len(self.levels), channels, size, size)
        self.register_buffer("columns", column_values.of_whole_images(settings.get("column_values")), persistent=False)
        self.register_buffer("noise", torch.randn(shape, generator=torch.Generator().manual_seed(0)))

    def loss(self, images: torch.Tensor, label: int | None) -> torch.Tensor:
        """Mean denoising loss of each image (n,) over levels and draws, with one label or (None) without any."""
        count, where = len(images), images.device
        labels = torch.zeros(count, self.classes, device=where)
        if label is not None:
            labels[:, label] = 1
        columns = None if self.columns is None else self.columns.expand(count, -1)
        dropped = torch.full((count,), label is None, dtype=torch.bool, device=where)
        condition = Condition(labels, dropped, columns=columns)
        total = torch.zeros(count, device=where)
        for level, noise in zip(self.levels, self.noise, strict=True):
            sigma, given = torch.full((count,), level, device=where), noise.expand(count, -1, -1, -1)
            total += diffusion.training_loss(self.objective, self.network, images, condition, sigma, given)
        return total / len(self.levels)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """(B, C, H, W) -> (B, K)."""
        # In float32, convolutions on a GPU too: the differences are small beside the losses.
        exact = torch.backends.cudnn.flags(
            enabled=True,
            benchmark=torch.backends.cudnn.benchmark,
            deterministic=torch.backends.cudnn.deterministic,
            allow_tf32=False,
        )
        with torch.autocast(images.device.type, enabled=False), exact:
            images = images.float()
            without = self.loss(images, None)
            return torch.stack([without - self.loss(images, label) for label in range(self.classes)], dim=1)
