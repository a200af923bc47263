"""Backbones: networks from images (B, C, H, W) to features and logits, for any number of channels and classes.

Every backbone has `features(images) -> (B, D)`, the pooled representation that arms may mix, and a linear `head`. A new
one is a function of (channels, classes, size) like `small`, and an entry in `network_choices.BACKBONES`."""

from __future__ import annotations

import contextlib
import math
import threading
from collections.abc import Iterator
from functools import partial
from typing import Any, Self

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from workflow_scripts.lib.classify import classical_features
from workflow_scripts.lib.classify.generator_backbone import EncoderTrunk
from workflow_scripts.lib.classify.generator_scores import ScoreTrunk
from workflow_scripts.lib.classify.network_choices import BACKBONES


class CosineHead(nn.Module):
    """Cosine classifier: cosine between representation and class weights, times a scale."""

    def __init__(self, width: int, classes: int, scale: float) -> None:
        super().__init__()
        self.in_features, self.out_features, self.scale = width, classes, scale
        self.weight = nn.Parameter(nn.init.xavier_normal_(torch.empty(classes, width)))

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """(B, D) -> (B, K), within ±scale."""
        return self.scale * F.linear(F.normalize(features), F.normalize(self.weight))


class Draws:
    """Random draws of networks in training, made for the whole batch, of which a process computes a part."""

    def __init__(self) -> None:
        self.generator: torch.Generator | None = None  # None: torch's own, which other networks draw from as well
        self.count = 0  # images of the whole batch; 0: as many as are given
        self.part = slice(None)  # which of them are given

    def kept(self, x: torch.Tensor, fraction: float) -> torch.Tensor:
        """Bernoulli draws of probability `fraction`, one an image: (n, 1, ...) beside x (n, ...)."""
        shape = [self.count or len(x), *[1] * (x.ndim - 1)]
        out = torch.empty(shape, dtype=x.dtype, device=x.device).bernoulli_(fraction, generator=self.generator)
        return out[self.part]


class StochasticDepth(nn.Module):
    """Stochastic depth (Huang et al. 2016): drops residual branches at random in training, as torchvision does."""

    def __init__(self, probability: float, draws: Draws) -> None:
        super().__init__()
        self.probability, self.draws = probability, draws

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(n, ...) -> the same."""
        if not self.training or self.probability == 0:
            return x
        fraction = 1 - self.probability
        return x * self.draws.kept(x, fraction).div_(fraction)


class Backbone(nn.Module):
    """Trunk with pooled representation, and a linear head."""

    def __init__(self, trunk: nn.Module, width: int, classes: int, draws: Draws | None = None) -> None:
        super().__init__()
        self.trunk = trunk
        self.draws = draws or Draws()
        self.head: nn.Linear | CosineHead = nn.Linear(width, classes)
        self.frozen = False
        self.channel_marks = False  # whether the trunk gets a plane more a channel, which says whether it is there

    def freeze(self) -> None:
        """Freeze the trunk: no gradients, evaluation mode; only the head learns."""
        self.frozen = True
        self.trunk.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> Self:
        """Training or evaluation mode; a frozen trunk stays in evaluation mode."""
        super().train(mode)
        if self.frozen:
            self.trunk.eval()
        return self

    def features(self, images: torch.Tensor) -> torch.Tensor:
        """Pooled representation (B, D)."""
        return self.trunk(with_marks(images) if self.channel_marks else images)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Logits (B, K)."""
        return self.head(self.features(images))


def with_marks(images: torch.Tensor) -> torch.Tensor:
    """(B, C, H, W) -> (B, 2 C, H, W): behind the channels a plane for each, 1 where it shows something and 0 elsewhere.

    The pixels of a missing channel are zeros, so all the same after every augmentation and normalisation."""
    shows = images.amax(dim=(2, 3), keepdim=True) > images.amin(dim=(2, 3), keepdim=True)
    return torch.cat([images, shows.to(images.dtype).expand_as(images)], dim=1)


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
        # In place wherever the backward pass does not need what is overwritten: memory traffic is a fifth of the time.
        y = F.relu(self.norm1(self.conv1(x)), inplace=True)
        y = self.norm2(self.conv2(y))
        if self.shortcut is not None:
            # Averaged rather than every other pixel dropped: the shortcut keeps faint structures.
            x = self.shortcut(F.avg_pool2d(x, self.stride, ceil_mode=True) if self.stride > 1 else x)
        return F.relu(y.add_(x), inplace=True)


class SmallTrunk(nn.Module):
    """Residual stages behind a pixel-unshuffle stem: made for images of 32 to 128 px on a CPU.

    The stem moves blocks of 2×2 pixels (4×4 from 128 px on) into channels. No detail is thrown away, and all
    convolutions work at 32×32 and below, where a CPU is fast."""

    def __init__(self, channels: int, size: int, widths: tuple[int, ...]) -> None:
        super().__init__()
        self.block = 4 if size >= 128 else 2
        layers: list[nn.Module] = [
            nn.Conv2d(channels * self.block**2, widths[0], 3, 1, 1, bias=False),
            nn.BatchNorm2d(widths[0]),
            nn.ReLU(inplace=True),
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


HIDDEN = 256  # width of embedding_mlp
SMALL_WIDTHS = (32, 64, 128, 256)


def small(channels: int, classes: int, size: int) -> Backbone:
    """Three stages below 64 px (0.3 M weights), four from there on (1.2 M): the last one sees 4×4 positions or so."""
    widths = SMALL_WIDTHS[: 3 if size < 64 else 4]
    return Backbone(SmallTrunk(channels, size, widths), widths[-1], classes)


def _resnet(name: str, channels: int, classes: int, size: int) -> Backbone:
    # Imported here: it takes a second that a small network need not wait for.
    from workflow_scripts.lib.classify.torchvision_models import models

    # The stem stays as published (7×7, stride 2, then pooling), also for small images, so that results compare with
    # the literature; at 32 px the last stage sees a single position.
    network = models.get_model(name, weights=None)
    first = network.conv1
    network.conv1 = nn.Conv2d(channels, first.out_channels, 7, 2, 3, bias=False)
    nn.init.kaiming_normal_(network.conv1.weight, mode="fan_out", nonlinearity="relu")
    width = network.fc.in_features
    network.fc = nn.Identity()
    return Backbone(network, width, classes)


def _patches(channels: int, width: int, side: int) -> nn.Conv2d:
    """Patch embedding for any number of channels."""
    layer = nn.Conv2d(channels, width, side, side)
    nn.init.trunc_normal_(layer.weight, std=math.sqrt(1 / (channels * side**2)))
    nn.init.zeros_(layer.bias)
    return layer


def _vit(name: str, channels: int, classes: int, size: int) -> Backbone:
    from workflow_scripts.lib.classify.torchvision_models import models

    network = models.get_model(name, weights=None, image_size=size)
    width = network.hidden_dim
    network.conv_proj = _patches(channels, width, network.patch_size)
    network.heads = nn.Identity()
    return Backbone(network, width, classes)


def _swin(name: str, channels: int, classes: int, size: int) -> Backbone:
    from workflow_scripts.lib.classify.torchvision_models import SwinTransformerBlock, models

    network = models.get_model(name, weights=None)
    first = network.features[0][0]
    network.features[0][0] = _patches(channels, first.out_channels, first.kernel_size[0])
    width = network.head.in_features
    network.head = nn.Identity()
    draws = Draws()
    for block in network.modules():
        if isinstance(block, SwinTransformerBlock):
            block.stochastic_depth = StochasticDepth(block.stochastic_depth.p, draws)
    return Backbone(network, width, classes, draws)


class FittedTrunk(nn.Module):
    """Base of trunks whose head is fitted by regression: `describe` gives features, which are standardised here."""

    LIMIT = 5.0  # deviations at which a feature is cut off: a linear head would follow an outlier anywhere

    def __init__(self, width: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("scale", torch.ones(width))

    def standardise_by(self, features: np.ndarray, weights: np.ndarray) -> None:
        """Standardise by the weighted mean and deviation of features (n, D); one that is constant becomes 0."""
        mean = np.average(features.astype(np.float64), axis=0, weights=weights)
        spread = np.sqrt(np.average((features - mean) ** 2, axis=0, weights=weights))
        scale = np.divide(1.0, spread, out=np.zeros_like(spread), where=spread > 1e-6)
        for buffer, values in ((self.mean, mean), (self.scale, scale)):
            buffer.copy_(torch.as_tensor(values, dtype=torch.float32))

    def standardised(self, features: np.ndarray) -> torch.Tensor:
        """Features (n, D), standardised."""
        values = torch.as_tensor(features, device=self.mean.device)
        return ((values - self.mean) * self.scale).clamp(-self.LIMIT, self.LIMIT)


class ClassicalTrunk(FittedTrunk):
    """Hand-made features. Takes pixels in [0, 1], not standardised ones."""

    describe = staticmethod(classical_features.features)

    def __init__(self, channels: int, size: int) -> None:
        super().__init__(len(classical_features.names(channels, size)))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """(B, C, H, W) -> (B, D)."""
        pixels = (255 * images.float()).round().clamp(0, 255).to(torch.uint8)
        return self.standardised(classical_features.features(pixels.cpu().numpy()))


def classical(channels: int, classes: int, size: int) -> Backbone:
    """Hand-made features and a linear head, for `feature_regression`."""
    trunk = ClassicalTrunk(channels, size)
    return Backbone(trunk, len(trunk.mean), classes)


class EmbeddingTrunk(FittedTrunk):
    """Embeddings, which come as images (B, D, 1, 1) of D channels, divided by 255 as pixels are."""

    @staticmethod
    def describe(pixels: np.ndarray) -> np.ndarray:
        """(n, D, 1, 1) -> (n, D)."""
        return pixels.reshape(len(pixels), -1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """(B, D, 1, 1) -> (B, D)."""
        return self.standardised(255 * images.float().flatten(1))


def embedding_linear(channels: int, classes: int, size: int) -> Backbone:
    """Linear head on embeddings, for `feature_regression`."""
    return Backbone(EmbeddingTrunk(channels), channels, classes)


def embedding_mlp(channels: int, classes: int, size: int) -> Backbone:
    """Embeddings and a hidden layer, whose outputs are the representation; trained by steps."""
    return Backbone(nn.Sequential(nn.Flatten(), nn.Linear(channels, HIDDEN), nn.ReLU()), HIDDEN, classes)


def generator(channels: int, classes: int, size: int, encoder: dict[str, Any]) -> Backbone:
    """Encoder of a generator's U-Net; `encoder` says its shape, and the block and noise level that were chosen."""
    trunk = EncoderTrunk(channels, classes, size, encoder)
    return Backbone(trunk, trunk.width, classes)


def generator_scores(channels: int, classes: int, size: int, encoder: dict[str, Any]) -> Backbone:
    """A generator as classifier; `encoder` says its network, and the noise that it is asked with."""
    return Backbone(ScoreTrunk(channels, classes, size, encoder), classes, classes)


class PairTrunk(nn.Module):
    """Logits of two whole networks side by side; images come on the pixel scale of the first."""

    def __init__(self, members: list[Backbone], channels: int) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)
        self.register_buffer("gain", torch.ones(len(members), channels, 1, 1))
        self.register_buffer("offset", torch.zeros(len(members), channels, 1, 1))

    def scale_as(self, scales: list[tuple[torch.Tensor, torch.Tensor]]) -> None:
        """Say by which mean and deviation (C,) the pixels of each member are standardised."""
        mean, std = scales[0]
        for number, (own_mean, own_std) in enumerate(scales):
            self.gain[number] = (std / own_std).view(-1, 1, 1)
            self.offset[number] = ((mean - own_mean) / own_std).view(-1, 1, 1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """(B, C, H, W) -> (B, 2 K)."""
        found = []
        for member, gain, offset in zip(self.members, self.gain, self.offset, strict=True):
            features = member.features(images * gain + offset)
            # Logits in float32: in bfloat16 they would tie.
            with torch.autocast(images.device.type, enabled=False):
                found.append(member.head(features.float()))
        return torch.cat(found, dim=1)


def pair(channels: int, classes: int, size: int, encoder: dict[str, Any]) -> Backbone:
    """Two networks whose logits the head averages; `encoder` says how each is built."""
    members = []
    for about in encoder["members"]:
        member = make(about["backbone"], channels, classes, size, about["encoder"], about.get("channel_marks", False))
        if about["cosine_scale"] is not None:
            member.head = CosineHead(member.head.in_features, classes, about["cosine_scale"])
        members.append(member)
    return Backbone(PairTrunk(members, channels), len(members) * classes, classes)


resnet18, resnet34, resnet50 = (partial(_resnet, name) for name in ("resnet18", "resnet34", "resnet50"))
vit_b_16 = partial(_vit, "vit_b_16")
swin_t, swin_b = (partial(_swin, name) for name in ("swin_t", "swin_b"))


def make(
    name: str,
    channels: int,
    classes: int,
    size: int,
    encoder: dict[str, Any] | None = None,
    channel_marks: bool = False,
) -> Backbone:
    """Build a backbone with weights drawn from torch's global generator; `encoder` for that of a method."""
    inputs = 2 * channels if channel_marks else channels
    network = BACKBONES.function(name, globals())(inputs, classes, size, *([encoder] if encoder else []))
    network.channel_marks = channel_marks
    return network


BUILDING = threading.Lock()


def build(
    name: str,
    channels: int,
    classes: int,
    size: int,
    seed: int,
    cosine_scale: float | None = None,
    encoder: dict[str, Any] | None = None,
    channel_marks: bool = False,
) -> Backbone:
    """Build a network with fresh weights; the same seed gives the same weights, whatever was drawn before.

    With a `cosine_scale` the head is a cosine classifier of that scale, on the same trunk. With `channel_marks` the
    trunk is told which channels of an image are missing."""
    # One after the other: arms that train side by side share torch's own generator.
    with BUILDING, torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = make(name, channels, classes, size, encoder, channel_marks)
        if cosine_scale is not None:
            network.head = CosineHead(network.head.in_features, classes, cosine_scale)
        return network


@contextlib.contextmanager
def statistics_apart(network: nn.Module) -> Iterator[None]:
    """Context in which BatchNorm in training mode normalises as usual, but updates no running statistics."""
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 0.0
    try:
        yield
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
