"""Networks that turn images (B, C, H, W) into a vector each, and that into logits; any number of channels and classes.

Every backbone has `features(images) -> (B, D)`, the pooled representation that arms may mix, and a linear `head`."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import nn


class Backbone(nn.Module):
    """A trunk, and a linear layer upon its pooled representation."""

    def __init__(self, trunk: nn.Module, width: int, classes: int) -> None:
        super().__init__()
        self.trunk = trunk
        self.head = nn.Linear(width, classes)

    def features(self, images: torch.Tensor) -> torch.Tensor:
        """Pooled representation (B, D)."""
        return self.trunk(images)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Logits (B, K)."""
        return self.head(self.features(images))


class Residual(nn.Module):
    """Two 3×3 convolutions with BatchNorm around a shortcut; a stride of 2 halves the resolution."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(outputs)
        self.stride = stride
        self.shortcut: nn.Module | None = None
        if stride > 1 or inputs != outputs:
            self.shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, inputs, H, W) -> (B, outputs, H / stride, W / stride)."""
        y = F.relu(self.norm1(self.conv1(x)))
        y = self.norm2(self.conv2(y))
        if self.shortcut is not None:
            # Averaged rather than every other pixel dropped: the shortcut keeps faint structures.
            x = self.shortcut(F.avg_pool2d(x, self.stride, ceil_mode=True) if self.stride > 1 else x)
        return F.relu(y + x)


class SmallTrunk(nn.Module):
    """Three residual stages behind a pixel-unshuffle stem: made for images of 32 to 64 px on a CPU.

    The stem moves blocks of 2×2 pixels (4×4 from 64 px on) into channels, so that no detail is thrown away while all
    convolutions work at 16×16 and below, where a CPU is fast."""

    def __init__(self, channels: int, size: int, widths: tuple[int, ...]) -> None:
        super().__init__()
        self.block = 4 if size >= 64 else 2
        layers: list[nn.Module] = [
            nn.Conv2d(channels * self.block**2, widths[0], 3, 1, 1, bias=False),
            nn.BatchNorm2d(widths[0]),
            nn.ReLU(),
        ]
        inputs = widths[0]
        for stage, width in enumerate(widths):
            layers.append(Residual(inputs, width, 1 if stage == 0 else 2))
            inputs = width
        self.layers = nn.Sequential(*layers)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """(B, C, H, W) -> (B, D)."""
        # Sizes that the block does not divide are filled up with zeros, the mean of standardised images.
        short = [-images.shape[axis] % self.block for axis in (3, 2)]
        if any(short):
            images = F.pad(images, (0, short[0], 0, short[1]))
        return self.layers(F.pixel_unshuffle(images, self.block)).mean(dim=(2, 3))


SMALL_WIDTHS = (32, 64, 128)


def small(channels: int, classes: int, size: int) -> Backbone:
    """About 0.3 M weights."""
    return Backbone(SmallTrunk(channels, size, SMALL_WIDTHS), SMALL_WIDTHS[-1], classes)


def _resnet(name: str) -> Callable[[int, int, int], Backbone]:
    def build(channels: int, classes: int, size: int) -> Backbone:
        # Imported here: it takes a second that a small network need not wait for.
        from workflow_scripts.lib.vision import RESNETS

        # The stem stays as published (7×7, stride 2, then pooling), also for small images, so that results compare with
        # the literature; at 32 px the last stage sees a single position.
        network = RESNETS[name](weights=None)
        first = network.conv1
        network.conv1 = nn.Conv2d(channels, first.out_channels, 7, 2, 3, bias=False)
        nn.init.kaiming_normal_(network.conv1.weight, mode="fan_out", nonlinearity="relu")
        width = network.fc.in_features
        network.fc = nn.Identity()
        return Backbone(network, width, classes)

    return build


# name -> maker(channels, classes, size)
BACKBONES: dict[str, Callable[[int, int, int], Backbone]] = {
    "small": small,
    "resnet18": _resnet("resnet18"),
    "resnet34": _resnet("resnet34"),
    "resnet50": _resnet("resnet50"),
}


def build(name: str, channels: int, classes: int, size: int, seed: int) -> Backbone:
    """A network with fresh weights; the same seed gives the same weights, whatever was drawn before."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return BACKBONES[name](channels, classes, size)
