"""Diffusion objectives: what a network is trained to predict, and the denoiser that it then is.

There is one noise model, x = x0 + sigma * noise, with sigma from 0 (the image) upwards. A variance-preserving process
(DDPM) is the same model seen through x / sqrt(1 + sigma^2); its schedules become noise levels.

An objective says at which noise levels a network trains and how its raw output F becomes an estimate of the image,
    D(x; sigma) = skip(sigma) * x + out(sigma) * F(scale(sigma) * x; ln sigma).          (Karras et al. 2022, eq. 7)
This also fixes what F is trained to predict: (x0 - skip * x) / out, with weight one. How images are made with a
denoiser is not known here (see `sampling.py`)."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from torch import Tensor

from workflow_scripts.lib.generate.generator_choices import CHAIN, OBJECTIVES, WEIGHTINGS

Denoise = Callable[[Tensor, float], Tensor]  # x (n, C, H, W), sigma -> estimate of x0


@dataclass(frozen=True)
class Condition:
    """Conditioning of the network, one entry an image: labels and reference channels."""

    labels: Tensor  # (n, K) multi-hot, float
    dropped: Tensor  # (n,) bool: nothing is said about the labels, which differs from "no label applies"
    reference: Tensor | None = None  # (n, C, H, W) clean pixels of the reference channels, zero in the others
    shown: Tensor | None = None  # (n, C) bool: which channels are reference channels; both None: none of any image
    columns: Tensor | None = None  # (n, V) values of columns such as the cell line, a block a column; None: unknown

    def nothing(self) -> Condition:
        """Unconditional version: the labels are dropped, reference channels and columns remain."""
        return replace(self, dropped=torch.ones_like(self.dropped))

    def joined(self, other: Condition) -> Condition:
        """Concatenation of both conditions, for a single network call."""
        pairs = [(mine, getattr(other, name)) for name, mine in vars(self).items()]
        return Condition(*(None if mine is None else torch.cat([mine, theirs]) for mine, theirs in pairs))

    def part(self, which: slice) -> Condition:
        """The condition of some of the images."""
        return Condition(*(None if value is None else value[which] for value in vars(self).values()))


class Network(Protocol):
    """Interface of networks for objectives and samplers: F(x; ln sigma, condition), shaped like x."""

    def __call__(self, x: Tensor, log_sigma: Tensor, condition: Condition) -> Tensor: ...


Coefficients = Callable[[Tensor], tuple[Tensor, Tensor, Tensor]]  # sigma -> skip, out, scale


# Objectives -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Objective:
    """Training objective: distribution of noise levels, and coefficients that turn network output into x0."""

    name: str
    draw: Callable[[Tensor], Tensor]  # uniform numbers in [0, 1) of any shape -> as many noise levels
    coefficients: Coefficients
    lowest: float  # the range of noise levels that sampling walks through
    highest: float
    grid: Tensor | None = None  # (T,) the levels of a discrete schedule, rising; None: a continuum


def linear_schedule(steps: int = CHAIN) -> Tensor:
    """Noise levels of the linear schedule of Ho et al. 2020: beta from 1e-4 to 0.02."""
    return _levels_of(1 - torch.linspace(1e-4, 0.02, steps, dtype=torch.float64))


def cosine_schedule(steps: int = CHAIN, offset: float = 0.008) -> Tensor:
    """Noise levels of the cosine schedule of Nichol & Dhariwal 2021, eq. 17, with beta limited to 0.999."""
    t = torch.linspace(0, 1, steps + 1, dtype=torch.float64)
    signal = torch.cos((t + offset) / (1 + offset) * math.pi / 2) ** 2
    return _levels_of((signal[1:] / signal[:-1]).clamp(min=1e-3))


def _levels_of(alphas: Tensor) -> Tensor:
    # With a = the running product of alphas, x_vp = sqrt(a) x0 + sqrt(1 - a) noise, so sigma = sqrt((1 - a) / a).
    signal = alphas.cumprod(0)
    return ((1 - signal) / signal).sqrt()


def _epsilon(sigma: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    # F is the noise: x0 = x - sigma F. The network sees the variance-preserving image.
    return torch.ones_like(sigma), -sigma, 1 / (1 + sigma**2).sqrt()


def _velocity(sigma: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    # v = a noise - b x0 with a = 1 / sqrt(1 + sigma^2), b = a sigma (Salimans & Ho 2022): x0 = a (a x) - b v.
    scale = 1 / (1 + sigma**2).sqrt()
    return scale**2, -sigma * scale, scale


def _edm(sigma: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    # Karras et al. 2022, table 1, for pixels of standard deviation 1.
    total = (sigma**2 + 1).sqrt()
    return (1 / total) ** 2, sigma / total, 1 / total


# Mean and standard deviation of ln sigma in EDM training. Karras et al. use -0.5 and 1.2 for photographs.
EDM_CENTRE, EDM_WIDTH = -0.5, 1.2

# Highest noise level of sampling, even where a schedule goes on: estimates from more noise are worthless.
_HIGHEST = 160.0


def make_objective(name: str) -> Objective:
    """The objective of this name, of `generator_choices.OBJECTIVES`."""
    return OBJECTIVES.function(name, globals())()


def of_settings(settings: dict[str, Any]) -> Objective:
    """The objective of a generator's settings; with `noise_level` all examples have this one."""
    objective, level = make_objective(settings["objective"]), settings.get("noise_level")
    return objective if level is None else replace(objective, draw=lambda uniform: torch.full_like(uniform, level))


def epsilon_linear() -> Objective:
    """Predict the noise of the linear schedule: plain DDPM (Ho et al. 2020)."""
    return _discrete("epsilon_linear", _epsilon, linear_schedule())


def epsilon_cosine() -> Objective:
    """Predict the noise of the cosine schedule (Nichol & Dhariwal 2021)."""
    return _discrete("epsilon_cosine", _epsilon, cosine_schedule())


def velocity_linear() -> Objective:
    """Predict the velocity (Salimans & Ho 2022) under the linear schedule."""
    return _discrete("velocity_linear", _velocity, linear_schedule())


def velocity_cosine() -> Objective:
    """Predict the velocity (Salimans & Ho 2022) under the cosine schedule."""
    return _discrete("velocity_cosine", _velocity, cosine_schedule())


def edm() -> Objective:
    """EDM (Karras et al. 2022), table 1: log-normal noise levels, for pixels of standard deviation 1."""

    def draw(uniform: Tensor) -> Tensor:
        normal = torch.special.ndtri(uniform.double().clamp(1e-6, 1 - 1e-6))
        return (EDM_CENTRE + EDM_WIDTH * normal).exp().float()

    return Objective("edm", draw, _edm, 0.01, 80.0)


def _discrete(name: str, coefficients: Coefficients, grid: Tensor) -> Objective:
    held = {torch.device("cpu"): grid.float()}  # copies on the devices that asked

    def draw(uniform: Tensor) -> Tensor:
        if uniform.device not in held:
            held[uniform.device] = grid.float().to(uniform.device)
        levels = held[uniform.device]
        steps = (uniform * len(levels)).long().clamp(max=len(levels) - 1)
        return levels[steps]

    return Objective(name, draw, coefficients, float(grid[0]), min(float(grid[-1]), _HIGHEST), grid)


def _per_image(value: Tensor) -> Tensor:
    return value.view(-1, 1, 1, 1)


def training_levels(objective: Objective, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Noise levels (..., n) of the n examples of each step, where the generator is."""
    # One level from each of n equal slices: the same distribution as independent draws, with a steadier mean.
    n, where = shape[-1], generator.device
    slices = torch.arange(n, device=where) + torch.rand(shape, generator=generator, device=where)
    return objective.draw(slices / n)


def training_loss(
    objective: Objective, network: Network, x0: Tensor, condition: Condition, sigma: Tensor, noise: Tensor
) -> Tensor:
    """Squared error of the network's output for each image (n,), at its noise level (n,) and with this noise.

    Reference channels do not count. All tensors lie on one device, and nothing here looks at their values."""
    skip, out, scale = map(_per_image, objective.coefficients(sigma))
    x = x0 + _per_image(sigma) * noise
    # (x0 - skip x) / out, without the cancellation of large numbers at high noise.
    target = ((1 - skip) * x0 - skip * _per_image(sigma) * noise) / out
    predicted = network(scale * x, sigma.log(), condition)
    squared = (predicted.float() - target).square()
    if condition.shown is None:
        return squared.mean(dim=(1, 2, 3))
    hidden = (~condition.shown).to(squared.dtype)
    return (squared.mean(dim=(2, 3)) * hidden).sum(dim=1) / hidden.sum(dim=1)


Weighting = Callable[[Tensor, Network, Tensor], Tensor]  # losses (n,), network, sigma (n,) -> weighted losses (n,)


def make_weighting(name: str) -> Weighting:
    """The weighting of this name, of `generator_choices.WEIGHTINGS`."""
    return WEIGHTINGS.function(name, globals())


def plain(losses: Tensor, network: Network, sigma: Tensor) -> Tensor:
    """Losses as they are."""
    return losses


def uncertainty(losses: Tensor, network: Network, sigma: Tensor) -> Tensor:
    """Losses weighted by the learned uncertainty u(sigma): loss / exp(u) + u (Karras et al. 2024, eq. 21).

    Its minimum over u is at u = ln of the mean loss of that noise level, so all levels come to count alike."""
    u = network.log_variance(sigma.log())
    return losses * (-u).exp() + u


def denoised(objective: Objective, network: Network, x: Tensor, sigma: float, condition: Condition) -> Tensor:
    """Network's estimate of the clean image x0 from x at a noise level."""
    level = torch.full((len(x),), sigma, dtype=torch.float32, device=x.device)
    skip, out, scale = map(_per_image, objective.coefficients(level))
    return skip * x + out * network(scale * x, level.log(), condition).float()


# Guidance -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Guidance:
    """Guidance, classifier-free or by a worse network: its strength (1: none), and the noise levels where it acts."""

    scale: float = 1.0
    low: float = 0.0
    high: float = math.inf

    @classmethod
    def of_settings(cls, settings: dict[str, Any]) -> Guidance:
        """Guidance from the settings `guidance` of a synthetic set."""
        return cls(settings["scale"], *settings["interval"])

    def acts(self, sigma: float) -> bool:
        """Whether guidance is on at this level (Kynkäänniemi et al. 2024: off at both ends gives the best images)."""
        return self.scale != 1.0 and self.low <= sigma <= self.high


def conditional(
    objective: Objective,
    network: Network,
    condition: Condition,
    guidance: Guidance | None = None,
    against: Condition | None = None,
    limits: tuple[Tensor, Tensor] | None = None,
    worse: tuple[Objective, Network] | None = None,
) -> Denoise:
    """The denoiser of a condition, with classifier-free guidance or autoguidance.

    Guidance pushes away from `against`: the dropped condition, unless another is given (such as a class that is
    easily mistaken for the wanted one). With a `worse` network and its objective it pushes away from that one's
    estimate for the same condition (autoguidance, Karras et al. 2024, arXiv:2406.02507). `limits` (each
    broadcast to (n, C, H, W)) keep estimates in range. Reference channels are known at every noise level,
    so they end as they were, whatever the sampler."""
    guidance = guidance or Guidance()
    both = condition.joined(against or condition.nothing())

    def denoise(x: Tensor, sigma: float) -> Tensor:
        if guidance.acts(sigma) and worse is not None:
            towards = denoised(objective, network, x, sigma, condition)
            away = denoised(*worse, x, sigma, condition)
            x0 = away + guidance.scale * (towards - away)
        elif guidance.acts(sigma):
            # One network call for both halves.
            towards, away = denoised(objective, network, torch.cat([x, x]), sigma, both).chunk(2)
            x0 = away + guidance.scale * (towards - away)
        else:
            x0 = denoised(objective, network, x, sigma, condition)
        if limits is not None:
            x0 = torch.minimum(torch.maximum(x0, limits[0]), limits[1])
        if condition.shown is not None:
            x0 = torch.where(condition.shown[:, :, None, None], condition.reference, x0)
        return x0

    return denoise
