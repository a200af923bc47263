"""Networks of encoders that torchvision does not have.

Each function takes weights by name and loads them strictly into a network (B, c, s, s) -> (B, D). It returns the
network and the number c of channels that it takes, and raises UserError where the weights do not fit."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import nn

from workflow_scripts.lib.base.errors import UserError
from workflow_scripts.lib.fidelity import vision_transformers

# Blocks of EfficientNet-Lite0: repeats, kernel, stride, expansion, outputs.
LITE0 = ((1, 3, 1, 1, 16), (2, 3, 2, 6, 24), (2, 5, 2, 6, 40), (3, 3, 2, 6, 80), (3, 5, 1, 6, 112), (4, 5, 2, 6, 192),
         (1, 3, 1, 6, 320))  # fmt: skip
EPSILON = 1e-3  # of its BatchNorm


class SamePadConv(nn.Conv2d):
    """Convolution that pads as TensorFlow does: the side is divided by the stride and rounded up."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, c, h, w) -> (B, d, h / stride, w / stride)."""
        kernel, stride, pads = self.kernel_size[0], self.stride[0], []
        for side in (x.shape[3], x.shape[2]):
            total = max(0, (-(-side // stride) - 1) * stride + kernel - side)
            pads += [total // 2, total - total // 2]
        return F.conv2d(F.pad(x, pads), self.weight, None, self.stride, groups=self.groups)


class InvertedResidual(nn.Module):
    """Inverted residual (Sandler et al. 2018) with ReLU6; layers have the names of the published weights."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        width, self.expands = inputs * expansion, expansion > 1
        if self.expands:
            self._expand_conv = nn.Conv2d(inputs, width, 1, bias=False)
            self._bn0 = nn.BatchNorm2d(width, EPSILON)
        self._depthwise_conv = SamePadConv(width, width, kernel, stride, groups=width, bias=False)
        self._bn1 = nn.BatchNorm2d(width, EPSILON)
        self._project_conv = nn.Conv2d(width, outputs, 1, bias=False)
        self._bn2 = nn.BatchNorm2d(outputs, EPSILON)
        self.shortcut = stride == 1 and inputs == outputs

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, inputs, h, w) -> (B, outputs, h / stride, w / stride)."""
        y = F.relu6(self._bn0(self._expand_conv(x))) if self.expands else x
        y = self._bn2(self._project_conv(F.relu6(self._bn1(self._depthwise_conv(y)))))
        return y + x if self.shortcut else y


class EfficientNetLite0(nn.Module):
    """EfficientNet-Lite0 without its classifier: pooled features (B, 1280) of images (B, 3, s, s)."""

    def __init__(self) -> None:
        super().__init__()
        self._conv_stem = SamePadConv(3, 32, 3, 2, bias=False)
        self._bn0 = nn.BatchNorm2d(32, EPSILON)
        blocks, inputs = [], 32
        for repeats, kernel, stride, expansion, outputs in LITE0:
            for place in range(repeats):
                blocks.append(InvertedResidual(inputs, outputs, kernel, 1 if place else stride, expansion))
                inputs = outputs
        self._blocks = nn.Sequential(*blocks)
        self._conv_head = nn.Conv2d(inputs, 1280, 1, bias=False)
        self._bn1 = nn.BatchNorm2d(1280, EPSILON)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, 3, s, s) -> (B, 1280)."""
        x = self._blocks(F.relu6(self._bn0(self._conv_stem(x))))
        return F.relu6(self._bn1(self._conv_head(x))).mean(dim=(2, 3))


def efficientnet_lite0(weights: dict[str, torch.Tensor]) -> tuple[nn.Module, int]:
    """EfficientNet-Lite0, by the names of the package efficientnet-lite-pytorch."""
    network = EfficientNetLite0()
    load(network, {name: value for name, value in weights.items() if not name.startswith("_fc.")}, "efficientnet_lite0")
    return network, 3


def dinov2(weights: dict[str, torch.Tensor]) -> tuple[nn.Module, int]:
    """DINOv2 with or without registers, by the names of its published checkpoints; not the giant one."""
    body = {name: value for name, value in weights.items() if name != "mask_token"}
    needed = {"cls_token", "pos_embed", "patch_embed.proj.weight", "blocks.0.mlp.fc1.weight"}
    return _sized("dinov2", needed, body, lambda: vision_transformers.DinoV2(body), lambda: {"vit": body})


def subcell(weights: dict[str, torch.Tensor]) -> tuple[nn.Module, int]:
    """SubCell's encoder with its pooling, by the names of the published checkpoints."""
    vit = vision_transformers.renamed(_below(weights, "encoder."))
    # In training a dropout stood before each linear layer.
    pool = {name.replace(".1.", "."): value for name, value in _below(weights, "pool_model.").items()}
    needed = {"cls_token", "pos_embed", "patch_embed.proj.weight", "blocks.0.mlp.fc1.weight"}
    needed |= {"attention_v.weight", "attention.weight"}
    return _sized(
        "subcell",
        needed,
        vit | pool,
        lambda: vision_transformers.SubCell(vit, pool),
        lambda: {"vit": vit, "pool_model": pool},
    )


def _below(weights: dict[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    return {name.removeprefix(prefix): value for name, value in weights.items() if name.startswith(prefix)}


def _sized(
    architecture: str,
    needed: set[str],
    given: dict[str, torch.Tensor],
    build: Callable[[], nn.Module],
    parts: Callable[[], dict[str, dict[str, torch.Tensor]]],
) -> tuple[nn.Module, int]:
    """A network that has the sizes of its weights, with these."""
    lacking = sorted(needed - given.keys())
    if lacking:
        raise UserError(f"the weights do not fit {architecture}: they lack {lacking[0]}")
    if given["cls_token"].shape[-1] % vision_transformers.HEAD:
        raise UserError(
            f"the weights do not fit {architecture}: its width is no multiple of {vision_transformers.HEAD}"
        )
    network = build()
    for name, weights in parts().items():
        load(network.get_submodule(name), weights, architecture)
    return network, network.vit.channels


def load(network: nn.Module, weights: dict[str, torch.Tensor], architecture: str) -> None:
    """Load weights strictly; what does not fit is told in one line."""
    try:
        missing, unexpected = network.load_state_dict(weights, strict=False)
    except RuntimeError as error:
        raise UserError(f"the weights do not fit {architecture}: {str(error).splitlines()[-1].strip()}") from None
    if missing or unexpected:
        what = f"they lack {missing[0]}" if missing else f"they have {unexpected[0]}, which is no layer of it"
        raise UserError(f"the weights do not fit {architecture}: {what}")
