"""Checkpoints of DINOv2 and SubCell: small weights of the published layout, against torch's own transformer."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from workflow_scripts.lib.base.errors import UserError
from workflow_scripts.lib.fidelity import encoder_networks, encoders, vision_transformers

WIDTH, HIDDEN, DEPTH, PATCH, SIDE = 128, 96, 2, 8, 3
CHANNELS = ["green", "red", "blue", "yellow"]


def reference(epsilon: float) -> nn.TransformerEncoder:
    """Two blocks that normalise first, with random weights in every layer."""
    torch.manual_seed(1)
    layer = nn.TransformerEncoderLayer(
        WIDTH, WIDTH // 64, HIDDEN, 0.0, "gelu", epsilon, batch_first=True, norm_first=True
    )
    made = nn.TransformerEncoder(layer, DEPTH, nn.LayerNorm(WIDTH, epsilon), enable_nested_tensor=False).eval()
    for value in made.parameters():
        nn.init.normal_(value, std=0.3)
    return made


def around(taken: int) -> dict[str, torch.Tensor]:
    torch.manual_seed(2)
    return {
        "cls_token": torch.randn(1, 1, WIDTH), "pos_embed": torch.randn(1, 1 + SIDE**2, WIDTH),
        "patch_embed.proj.weight": torch.randn(WIDTH, taken, PATCH, PATCH) / 8,
        "patch_embed.proj.bias": torch.randn(WIDTH),
    }  # fmt: skip


def dino(made: nn.TransformerEncoder) -> dict[str, torch.Tensor]:
    """Weights by the names of DINOv2, whose scales are one."""
    out = around(3) | {
        "mask_token": torch.zeros(1, WIDTH),
        "norm.weight": made.norm.weight,
        "norm.bias": made.norm.bias,
    }
    for number, layer in enumerate(made.layers):
        own = {"norm1": layer.norm1, "norm2": layer.norm2, "mlp.fc1": layer.linear1, "mlp.fc2": layer.linear2}
        own["attn.proj"] = layer.self_attn.out_proj
        for name, part in own.items():
            out |= {f"blocks.{number}.{name}.{kind}": getattr(part, kind) for kind in ("weight", "bias")}
        out[f"blocks.{number}.attn.qkv.weight"] = layer.self_attn.in_proj_weight
        out[f"blocks.{number}.attn.qkv.bias"] = layer.self_attn.in_proj_bias
        out |= {f"blocks.{number}.{name}.gamma": torch.ones(WIDTH) for name in ("ls1", "ls2")}
    return {name: value.detach().clone() for name, value in out.items()}


def subcell(made: nn.TransformerEncoder, taken: int = 4) -> dict[str, torch.Tensor]:
    """Weights by the names of SubCell."""
    first = around(taken)
    out = {f"encoder.{name}": first[own] for name, own in vision_transformers.AROUND.items() if own in first}
    out |= {"encoder.layernorm.weight": made.norm.weight, "encoder.layernorm.bias": made.norm.bias}
    for number, layer in enumerate(made.layers):
        place = f"encoder.encoder.layer.{number}"
        own = {"layernorm_before": layer.norm1, "layernorm_after": layer.norm2, "intermediate.dense": layer.linear1}
        own |= {"output.dense": layer.linear2, "attention.output.dense": layer.self_attn.out_proj}
        for name, part in own.items():
            out |= {f"{place}.{name}.{kind}": getattr(part, kind) for kind in ("weight", "bias")}
        for kind in ("weight", "bias"):
            three = getattr(layer.self_attn, f"in_proj_{kind}").chunk(3)
            for name, part in zip(("query", "key", "value"), three, strict=True):
                out[f"{place}.attention.attention.{name}.{kind}"] = part
    for name, shape in (("attention_v.1", (16, WIDTH)), ("attention_u.1", (16, WIDTH)), ("attention", (2, 16))):
        out |= {f"pool_model.{name}.weight": torch.randn(shape), f"pool_model.{name}.bias": torch.randn(shape[0])}
    return {name: value.detach().clone() for name, value in out.items()}


def tokens(made: nn.TransformerEncoder, images: torch.Tensor) -> torch.Tensor:
    first = around(images.shape[1])
    bias = first["patch_embed.proj.bias"]
    x = torch.nn.functional.conv2d(images, first["patch_embed.proj.weight"], bias, PATCH).flatten(2).transpose(1, 2)
    return made(torch.cat([first["cls_token"].expand(len(x), -1, -1), x], dim=1) + first["pos_embed"])


def test_dinov2_gives_the_class_token_of_a_transformer() -> None:
    made, images = reference(1e-6), torch.rand(2, 3, PATCH * SIDE, PATCH * SIDE)
    network, taken = encoder_networks.dinov2(dino(made))
    mean, std = (torch.tensor(values).view(-1, 1, 1) for values in vision_transformers.IMAGENET)
    with torch.no_grad():
        found, expected = network.eval()(images), tokens(made, (images - mean) / std)[:, 0]
    assert taken == 3 and torch.allclose(found, expected, atol=1e-3)


def test_registers_take_part_and_other_sizes_are_interpolated() -> None:
    made, plain = reference(1e-6), torch.rand(2, 3, PATCH * SIDE, PATCH * SIDE)
    weights = dino(made)
    with_registers = weights | {"register_tokens": torch.randn(1, 4, WIDTH)}
    for given in (weights, with_registers):
        network = encoder_networks.dinov2(given)[0].eval()
        with torch.no_grad():
            assert network(torch.rand(2, 3, 40, 40)).shape == (2, WIDTH)
            with pytest.raises(RuntimeError, match=f"sides must be multiples of {PATCH} px"):
                network(torch.rand(2, 3, 40, 42))
    with torch.no_grad():
        one, other = (encoder_networks.dinov2(given)[0].eval()(plain) for given in (weights, with_registers))
    assert not torch.allclose(one, other, atol=1e-2)


def test_subcell_pools_tokens_and_scales_each_image_by_itself() -> None:
    made, images = reference(1e-12), torch.rand(2, 4, PATCH * SIDE, PATCH * SIDE)
    weights = subcell(made)
    network, taken = encoder_networks.subcell(weights)
    with torch.no_grad():
        low, high = (edge(images, dim=(1, 2, 3), keepdim=True) for edge in (torch.amin, torch.amax))
        x = tokens(made, (images - low) / (high - low + 1e-6))
        inner = (x @ weights["pool_model.attention_v.1.weight"].T + weights["pool_model.attention_v.1.bias"]).tanh()
        gate = x @ weights["pool_model.attention_u.1.weight"].T + weights["pool_model.attention_u.1.bias"]
        scores = (inner * torch.nn.functional.gelu(gate)) @ weights["pool_model.attention.weight"].T
        scores = (scores + weights["pool_model.attention.bias"]).softmax(dim=1)
        expected = torch.cat([(scores[:, :, head : head + 1] * x).sum(dim=1) for head in (0, 1)], dim=1)
        found, darker = network.eval()(images), network(0.3 * images + 0.1)
    assert taken == 4 and torch.allclose(found, expected, atol=1e-3)
    assert torch.allclose(found, darker, atol=1e-2)


def test_channels_go_in_as_they_were_trained(tmp_path: Path) -> None:
    save_file(subcell(reference(1e-12)), tmp_path / "rybg.safetensors")
    save_file(subcell(reference(1e-12), 3), tmp_path / "three.safetensors")
    settings = {"architecture": "subcell", "weights": str(tmp_path / "rybg.safetensors"), "channels": None}
    settings |= {"size": 24, "normalise": None}
    images = np.random.default_rng(0).integers(0, 255, (3, 4, 24, 24), dtype=np.uint8)
    usual = encoders.own(settings, CHANNELS, images)
    named = encoders.own(settings | {"channels": ["red", "yellow", "blue", "green"]}, CHANNELS, images)
    other = encoders.own(settings | {"channels": CHANNELS}, CHANNELS, images)
    assert np.array_equal(usual.encode(images), named.encode(images)) and usual.licence == "MIT"
    assert not np.allclose(usual.encode(images), other.encode(images), atol=1e-2)
    with pytest.raises(UserError, match=r"normalise must be null: subcell"):
        encoders.own(settings | {"normalise": {"mean": [0], "std": [1]}}, CHANNELS, images)
    with pytest.raises(UserError, match=r"takes 3 channels, and 4 are listed"):
        encoders.own(settings | {"weights": str(tmp_path / "three.safetensors")}, CHANNELS, images)


def test_weights_of_another_layout_are_refused_in_one_line() -> None:
    made = reference(1e-6)
    lacking = {name: value for name, value in dino(made).items() if name != "blocks.1.attn.qkv.bias"}
    narrow = {name: value[..., :100] for name, value in dino(made).items()}
    for build, weights, words in (
        (encoder_networks.dinov2, subcell(made), "they lack blocks.0.mlp.fc1.weight"),
        (encoder_networks.dinov2, lacking, "they lack blocks.1.attn.qkv.bias"),
        (encoder_networks.dinov2, narrow, "no multiple of 64"),
        (encoder_networks.subcell, dino(made), "they lack attention.weight"),
    ):
        with pytest.raises(UserError) as caught:
            build(weights)
        assert words in str(caught.value) and "\n" not in str(caught.value)
