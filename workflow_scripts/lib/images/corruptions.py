"""Corruptions of preprocessed images: what a microscope or a stain does to them on a bad day.

A corruption is a function of (images, strength, draws): float images (n, C, H, W) between 0 and 255 on any device, one
of its strengths in `CORRUPTIONS`, and a generator of random numbers on the CPU. It returns images of the same shape,
which `corrupt` rounds and clips as a camera does. Random numbers are drawn on the CPU, so that they are the same on
every device."""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from workflow_scripts.lib.images.corruption_choices import CLEAN, CORRUPTIONS

BLOCK = 512  # images at a time; part of what is drawn, so a constant


def corrupt(images: np.ndarray, name: str, level: int, seed: int, where: torch.device | str = "cpu") -> Tensor:
    """Images uint8 (n, C, H, W) with one corruption at a level from 1 to 5, as a tensor; equal seeds, equal images."""
    if name == CLEAN or level == 0:
        return torch.as_tensor(images)
    act, strength = CORRUPTIONS.function(name, globals()), CORRUPTIONS[name].strengths[level - 1]
    draws, out = Generator().manual_seed(seed), []
    for block in torch.as_tensor(images).split(BLOCK):
        found = act(block.to(where).float(), strength, draws)
        out.append(found.round().clamp(0, 255).to(torch.uint8))
    return torch.cat(out) if out else torch.as_tensor(images)


def defocus(images: Tensor, strength: float, draws: Generator) -> Tensor:
    """Gaussian blur."""
    deviation = strength * images.shape[-1]
    reach = max(1, min(math.ceil(3 * deviation), images.shape[-1] - 1))
    at = torch.arange(-reach, reach + 1, dtype=images.dtype, device=images.device)
    kernel = torch.exp(-0.5 * (at / deviation) ** 2)
    kernel = kernel / kernel.sum()
    flat = images.flatten(0, 1)[:, None]
    # Along rows, then along columns; beyond the edge the image is mirrored.
    flat = F.conv2d(F.pad(flat, (reach, reach, 0, 0), "reflect"), kernel.view(1, 1, 1, -1))
    flat = F.conv2d(F.pad(flat, (0, 0, reach, reach), "reflect"), kernel.view(1, 1, -1, 1))
    return flat.view_as(images)


def shot_noise(images: Tensor, strength: float, draws: Generator) -> Tensor:
    """Poisson noise: a pixel of value 255 stands for `strength` photons."""
    photons = torch.poisson(images.cpu() * (strength / 255), generator=draws)
    return photons.to(images.device) * (255 / strength)


def weak_staining(images: Tensor, strength: float, draws: Generator) -> Tensor:
    """One channel of each image keeps the fraction `strength` of its light."""
    chosen = torch.randint(images.shape[1], (len(images),), generator=draws)
    gain = torch.ones(images.shape[:2])
    gain[torch.arange(len(images)), chosen] = strength
    return images * gain[..., None, None].to(images.device)


def illumination_gradient(images: Tensor, strength: float, draws: Generator) -> Tensor:
    """A plane over the image: 1 in the middle, 1 ± `strength` half a side from it along the direction of
    each image."""
    angle = 2 * math.pi * torch.rand(len(images), generator=draws)
    height, width = images.shape[2:]
    y, x = torch.linspace(-1, 1, height)[:, None], torch.linspace(-1, 1, width)
    plane = torch.cos(angle)[:, None, None] * x + torch.sin(angle)[:, None, None] * y
    # Also in a corner no light is negative.
    gain = (1 + strength * plane).clamp(min=0)
    return images * gain[:, None].to(images.device)


def bleed_through(images: Tensor, strength: float, draws: Generator) -> Tensor:
    """Each channel also shows the fraction `strength` of the channel after it; the last one, that of the first."""
    return images + strength * images.roll(-1, dims=1)


def intensity_scale(images: Tensor, strength: float, draws: Generator) -> Tensor:
    """All channels of an image times exp(`strength`) or exp(-`strength`), at random; bright pixels saturate."""
    sign = 1 - 2 * torch.randint(2, (len(images),), generator=draws)
    return images * torch.exp(strength * sign).view(-1, 1, 1, 1).to(images.device)
