"""Adapters to two other packages, at their published settings, for the benchmarks of generators.

They are not among MixLoc's requirements. To install them beside it, without touching its torch:

    pip install --no-deps --target PEERS diffusers==0.42.1 denoising-diffusion-pytorch==2.3.4 einops ema-pytorch \\
        accelerate pytorch-fid huggingface_hub httpx2 httpcore2 h11 truststore regex importlib_metadata zipp filelock \\
        requests tqdm
    PYTHONPATH=PEERS python -m benchmarks.generator_speed

diffusers: UNet2DModel with class embeddings, three resolutions of 32, 64 and 64 channels with attention at the lowest
(1.6 M weights); AdamW, learning rate, EMA and clipping of its training script for unconditional images.
denoising: denoising-diffusion-pytorch's classifier-free-guidance Unet of width 32 at three resolutions (2.9 M weights)
with its Trainer's settings."""

from __future__ import annotations

import contextlib
import importlib
import math
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

LEARNING_RATE = 1e-4  # of both, as published
GRADIENT_LIMIT = 1.0  # of both
WARMUP = 500  # steps; diffusers alone

# Steps and guidance with which each samples as it ships: DDIMPipeline's 50 steps; the 250 of the package's README and
# the default scale of 6 of its `sample`.
STEPS = {"diffusers": 50, "denoising": 250}
GUIDANCE = {"diffusers": 1.0, "denoising": 6.0}


@dataclass
class Peer:
    """One of the packages, ready to train on images of a shape and a number of classes."""

    name: str
    network: nn.Module
    loss: Callable[[Tensor, Tensor], Tensor]  # images in -1 ... 1 (n, C, s, s), classes (n,) -> ()
    optimiser: torch.optim.Optimizer
    follow: Callable[[], None]  # update the averaged weights
    draw: Callable[[Tensor, int, float], Tensor]  # classes (n,), steps, guidance -> images in -1 ... 1
    dtype: torch.dtype = torch.float32
    rate: Callable[[int, float], float] = lambda step, fraction: 1.0  # factor on the learning rate
    learning_rate: float = LEARNING_RATE
    limit: float = GRADIENT_LIMIT
    steps: int = 0

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return next(self.network.parameters()).device

    def _autocast(self) -> Any:
        if self.dtype == torch.float32:
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, self.dtype)

    def step(self, images: Tensor, classes: Tensor, fraction: float = 0.0) -> Tensor:
        """One training step on bytes (n, C, s, s); `fraction` of the training that is over."""
        x = images.to(self.device).float() / 127.5 - 1
        with self._autocast():
            loss = self.loss(x, classes.to(self.device))
        for group in self.optimiser.param_groups:
            group["lr"] = self.learning_rate * self.rate(self.steps, fraction)
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.network.parameters(), self.limit)
        self.optimiser.step()
        self.follow()
        self.steps += 1
        return loss.detach()

    @torch.no_grad()
    def sample(self, classes: Tensor, steps: int, guidance: float, batch: int = 125) -> Tensor:
        """Images of these classes as bytes (n, C, s, s), with the averaged weights."""
        with self._autocast():
            done = [self.draw(block.to(self.device), steps, guidance).float().cpu() for block in classes.split(batch)]
        return ((torch.cat(done) + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)


def _package(name: str) -> Any:
    # The project's shim must come first: it lets torchvision load beside a torch without CUDA, which both import.
    with contextlib.suppress(ImportError):
        importlib.import_module("workflow_scripts.lib.classify.torchvision_models")
    try:
        return importlib.import_module(name)
    except Exception as error:
        top = name.partition(".")[0]
        sys.exit(
            f"{top.replace('_', '-')} cannot be imported ({type(error).__name__}: {error}): install it as "
            "benchmarks/peers.py says and set PYTHONPATH, or name contestants that need it not (--contestants unet)"
        )


def diffusers(
    channels: int,
    classes: int,
    size: int,
    where: torch.device,
    widths: tuple[int, ...] = (32, 64, 64),
    layers: int = 2,
) -> Peer:
    """UNet2DModel with the linear schedule of 1,000 steps; a class is a learned vector, no guidance.

    Attention is at the lowest resolution."""
    package, tools = _package("diffusers"), _package("diffusers.training_utils")
    network = package.UNet2DModel(
        sample_size=size,
        in_channels=channels,
        out_channels=channels,
        layers_per_block=layers,
        block_out_channels=widths,
        down_block_types=(*["DownBlock2D"] * (len(widths) - 1), "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", *["UpBlock2D"] * (len(widths) - 1)),
        num_class_embeds=classes,
    ).to(where)
    schedule = package.DDPMScheduler(num_train_timesteps=1000, beta_schedule="linear")
    weights = list(network.parameters())
    average = tools.EMAModel(weights, decay=0.9999, use_ema_warmup=True, inv_gamma=1.0, power=0.75)

    def loss(x: Tensor, kinds: Tensor) -> Tensor:
        noise = torch.randn_like(x)
        level = torch.randint(0, 1000, (len(x),), device=x.device)
        return functional.mse_loss(network(schedule.add_noise(x, noise, level), level, kinds).sample.float(), noise)

    def draw(kinds: Tensor, steps: int, guidance: float) -> Tensor:
        if guidance != 1:
            raise ValueError("diffusers' class-conditional UNet2DModel knows no guidance")
        # With all steps its own DDPM sampler, otherwise DDIM without noise, as DDIMPipeline has it.
        sampler = schedule if steps >= 1000 else package.DDIMScheduler.from_config(schedule.config)
        sampler.set_timesteps(steps)
        average.store(weights)
        average.copy_to(weights)
        x = torch.randn(len(kinds), channels, size, size, device=where)
        for level in sampler.timesteps:
            x = sampler.step(network(x, level.to(where), kinds).sample.float(), level, x).prev_sample
        average.restore(weights)
        return x

    def rate(step: int, fraction: float) -> float:
        return min(1.0, (step + 1) / WARMUP) * (1 + math.cos(math.pi * fraction)) / 2

    optimiser = torch.optim.AdamW(weights, lr=LEARNING_RATE, betas=(0.95, 0.999), weight_decay=1e-6, eps=1e-8)
    return Peer("diffusers", network, loss, optimiser, lambda: average.step(weights), draw, rate=rate)


def denoising(channels: int, classes: int, size: int, where: torch.device) -> Peer:
    """Unet of widths 32, 64 and 128 with GaussianDiffusion's defaults.

    These are: noise prediction, the cosine schedule of 1,000 steps, labels dropped half of the time."""
    package, tools = _package("denoising_diffusion_pytorch.classifier_free_guidance"), _package("ema_pytorch")
    network = package.Unet(dim=32, dim_mults=(1, 2, 4), num_classes=classes, channels=channels)
    process = package.GaussianDiffusion(network, image_size=size, timesteps=1000).to(where)
    average = tools.EMA(process, beta=0.995, update_every=10)

    def loss(x: Tensor, kinds: Tensor) -> Tensor:
        # The package scales 0 ... 1 to -1 ... 1 itself.
        return process((x + 1) / 2, classes=kinds)

    def draw(kinds: Tensor, steps: int, guidance: float) -> Tensor:
        model = average.ema_model
        model.sampling_timesteps, model.is_ddim_sampling = steps, steps < model.num_timesteps
        guided = model.model.forward_with_cond_scale
        if guidance == 1:
            # Its own shortcut for a scale of 1 returns one value where its caller expects two.
            def plain(*given: Tensor, cond_scale: float, rescaled_phi: float) -> tuple[Tensor, Tensor]:
                out = model.model(*given, cond_drop_prob=0.0)
                return out, out

            model.model.forward_with_cond_scale = plain
        try:
            return model.sample(kinds, cond_scale=guidance) * 2 - 1
        finally:
            model.model.forward_with_cond_scale = guided

    optimiser = torch.optim.Adam(process.parameters(), lr=LEARNING_RATE, betas=(0.9, 0.99))
    return Peer("denoising", network, loss, optimiser, average.update, draw)


PEERS: dict[str, Callable[[int, int, int, torch.device], Peer]] = {"diffusers": diffusers, "denoising": denoising}


def combinations(labels: Any) -> tuple[Tensor, dict[bytes, int]]:
    """The class of each row of multi-hot labels (n, K) among those that occur: a combination is a class of its own."""
    numbers: dict[bytes, int] = {}
    classes = [numbers.setdefault(row.tobytes(), len(numbers)) for row in labels.astype("uint8")]
    return torch.tensor(classes, dtype=torch.long), numbers


def weights_of(network: nn.Module) -> int:
    """Number of weights of a network."""
    return sum(value.numel() for value in network.parameters())


def of_equal_size(
    build: Callable[[tuple[int, ...]], Peer], widths: list[int], weights: int, multiple: int = 32
) -> Peer:
    """A peer whose widths are scaled until it has about so many weights."""
    peer = build(tuple(widths))
    for _ in range(3):
        factor = math.sqrt(weights / weights_of(peer.network))
        scaled = [max(multiple, round(factor * width / multiple) * multiple) for width in widths]
        if scaled == widths:
            break
        widths, peer = scaled, build(tuple(scaled))
    return peer
