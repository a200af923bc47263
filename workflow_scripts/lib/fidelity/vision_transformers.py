"""Vision transformers of published checkpoints: DINOv2 and SubCell, built to the sizes that their weights have.

Layers have the names of DINOv2's weights; those of SubCell, which are Hugging Face's, are renamed. Both networks take
pixels from 0 to 1 and normalise them as they were trained: the first by the channel means of ImageNet, the second by
minimum and maximum of each image over all channels."""

from __future__ import annotations

import re

import torch
import torch.nn.functional as F
from torch import nn

HEAD = 64  # width of an attention head, in both
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
SAFE = 1e-6  # added to the range of pixels
# Hugging Face's names of the layers of a block, and those used here.
RENAMED = {
    "attention.output.dense": "attn.proj", "intermediate.dense": "mlp.fc1", "output.dense": "mlp.fc2",
    "layernorm_before": "norm1", "layernorm_after": "norm2",
}  # fmt: skip
AROUND = {
    "embeddings.cls_token": "cls_token", "embeddings.position_embeddings": "pos_embed",
    "embeddings.patch_embeddings.projection.weight": "patch_embed.proj.weight",
    "embeddings.patch_embeddings.projection.bias": "patch_embed.proj.bias",
    "layernorm.weight": "norm.weight", "layernorm.bias": "norm.bias",
}  # fmt: skip


class Attention(nn.Module):
    """Self-attention with heads of width HEAD."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, N, D) -> (B, N, D)."""
        batch, count, width = x.shape
        parts = self.qkv(x).view(batch, count, 3, width // HEAD, HEAD).permute(2, 0, 3, 1, 4)
        return self.proj(F.scaled_dot_product_attention(*parts).transpose(1, 2).reshape(batch, count, width))


class Scale(nn.Module):
    """A learned factor for each feature of a branch (LayerScale, Touvron et al. 2021)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, N, D) -> (B, N, D)."""
        return x * self.gamma


class Block(nn.Module):
    """Transformer block that normalises first."""

    def __init__(self, width: int, hidden: int, epsilon: float, scaled: bool) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width, epsilon), nn.LayerNorm(width, epsilon)
        self.attn = Attention(width)
        self.mlp = nn.Sequential()
        self.mlp.add_module("fc1", nn.Linear(width, hidden))
        self.mlp.add_module("act", nn.GELU())
        self.mlp.add_module("fc2", nn.Linear(hidden, width))
        self.ls1, self.ls2 = (Scale(width) if scaled else nn.Identity() for _ in range(2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, N, D) -> (B, N, D)."""
        x = x + self.ls1(self.attn(self.norm1(x)))
        return x + self.ls2(self.mlp(self.norm2(x)))


class VisionTransformer(nn.Module):
    """Tokens of a vision transformer, sized by its weights."""

    def __init__(self, weights: dict[str, torch.Tensor], epsilon: float, offset: float = 0.0) -> None:
        super().__init__()
        self.offset = offset
        projection, hidden = weights["patch_embed.proj.weight"], weights["blocks.0.mlp.fc1.weight"].shape[0]
        width, self.channels, self.patch = projection.shape[0], projection.shape[1], projection.shape[-1]
        depth = 1 + max(int(name.split(".")[1]) for name in weights if name.startswith("blocks."))
        self.patch_embed = nn.Module()
        self.patch_embed.proj = nn.Conv2d(self.channels, width, self.patch, self.patch)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.pos_embed = nn.Parameter(torch.zeros(weights["pos_embed"].shape))
        registers = weights.get("register_tokens")
        self.register_tokens = None if registers is None else nn.Parameter(torch.zeros(registers.shape))
        scaled = "blocks.0.ls1.gamma" in weights
        self.blocks = nn.Sequential(*(Block(width, hidden, epsilon, scaled) for _ in range(depth)))
        self.norm = nn.LayerNorm(width, epsilon)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """(B, c, s, s) -> (B, N, D): the class token first."""
        if images.shape[2] % self.patch or images.shape[3] % self.patch:  # the convolution would leave out the border
            raise RuntimeError(f"sides must be multiples of {self.patch} px")
        x = self.patch_embed.proj(images)
        places = self._places(x.shape[2], x.shape[3])
        x = torch.cat([self.cls_token.expand(len(x), -1, -1), x.flatten(2).transpose(1, 2)], dim=1) + places
        if self.register_tokens is not None:
            x = torch.cat([x[:, :1], self.register_tokens.expand(len(x), -1, -1), x[:, 1:]], dim=1)
        return self.norm(self.blocks(x))

    def _places(self, rows: int, columns: int) -> torch.Tensor:
        """Position embeddings for so many patches, by bicubic interpolation of the square that was learned."""
        side = round((self.pos_embed.shape[1] - 1) ** 0.5)
        if (rows, columns) == (side, side):
            return self.pos_embed
        square = self.pos_embed[:, 1:].transpose(1, 2).reshape(1, -1, side, side)
        # As DINOv2 does: with registers antialiased, and without them by a factor that is a little too large.
        if self.register_tokens is None and self.offset:
            factors = tuple((count + self.offset) / side for count in (rows, columns))
            scaled = F.interpolate(square, scale_factor=factors, mode="bicubic", align_corners=False)
        else:
            smooth = self.register_tokens is not None
            scaled = F.interpolate(square, (rows, columns), mode="bicubic", align_corners=False, antialias=smooth)
        return torch.cat([self.pos_embed[:, :1], scaled.flatten(2).transpose(1, 2)], dim=1)


class DinoV2(nn.Module):
    """DINOv2: the class token of images of three channels, which are normalised as those of ImageNet."""

    def __init__(self, weights: dict[str, torch.Tensor]) -> None:
        super().__init__()
        self.vit = VisionTransformer(weights, 1e-6, offset=0.1)
        for name, values in zip(("mean", "std"), IMAGENET, strict=True):
            self.register_buffer(name, torch.tensor(values).view(-1, 1, 1), persistent=False)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """(B, 3, s, s) -> (B, D)."""
        return self.vit((images - self.mean) / self.std)[:, 0]


class GatedPool(nn.Module):
    """Gated attention over tokens (Ilse et al. 2018): their mean by each of several weightings."""

    def __init__(self, weights: dict[str, torch.Tensor]) -> None:
        super().__init__()
        inner, width = weights["attention_v.weight"].shape
        self.attention_v, self.attention_u = nn.Linear(width, inner), nn.Linear(width, inner)
        self.attention = nn.Linear(inner, weights["attention.weight"].shape[0])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, N, D) -> (B, heads × D)."""
        scores = self.attention(self.attention_v(x).tanh() * F.gelu(self.attention_u(x)))
        return (scores.softmax(dim=1).transpose(1, 2) @ x).flatten(1)


class SubCell(nn.Module):
    """SubCell: pooled tokens of images whose pixels are scaled from 0 to 1, image by image over all channels."""

    def __init__(self, vit: dict[str, torch.Tensor], pool: dict[str, torch.Tensor]) -> None:
        super().__init__()
        self.vit = VisionTransformer(vit, 1e-12)
        self.pool_model = GatedPool(pool)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """(B, c, s, s) -> (B, D)."""
        low, high = images.amin(dim=(1, 2, 3), keepdim=True), images.amax(dim=(1, 2, 3), keepdim=True)
        return self.pool_model(self.vit((images - low) / (high - low + SAFE)))


def renamed(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Weights of a Hugging Face ViT by the names used here; query, key and value become one layer."""
    out, parts = {}, {}
    for name, value in weights.items():
        found = re.fullmatch(r"encoder\.layer\.(\d+)\.(.+)\.(weight|bias)", name)
        if found is None:
            out[AROUND.get(name, name)] = value
            continue
        number, layer, kind = found.groups()
        if layer.startswith("attention.attention."):
            parts.setdefault(f"blocks.{number}.attn.qkv.{kind}", {})[layer.rpartition(".")[2]] = value
        else:
            out[f"blocks.{number}.{RENAMED.get(layer, layer)}.{kind}"] = value
    for name, three in parts.items():
        out[name] = torch.cat([three[part] for part in ("query", "key", "value")])
    return out
