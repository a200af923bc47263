"""Diffusion: what a network is trained to predict (objectives), and how images are made with it (samplers).

Everything stands on one noise model, x = x0 + sigma * noise, with sigma from 0 (the image) upwards. A process that
preserves variance (DDPM) is the same model seen through x / sqrt(1 + sigma^2); its schedules become noise levels.

An objective says at which noise levels a network trains and how its raw output F becomes an estimate of the image,
    D(x; sigma) = skip(sigma) * x + out(sigma) * F(scale(sigma) * x; ln sigma),          (Karras et al. 2022, eq. 7)
which also fixes what F is trained to predict, (x0 - skip * x) / out, with weight one. A sampler is written once,
against a function denoise(x, sigma) -> x0, whatever the objective."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Protocol

import torch
from torch import Tensor

Denoise = Callable[[Tensor, float], Tensor]  # x (n, C, H, W), sigma -> estimate of x0
Noise = Callable[[Tensor], Tensor]  # standard normal numbers shaped like its argument


@dataclass(frozen=True)
class Condition:
    """What an image is asked to be; one entry an image."""

    labels: Tensor  # (n, K) multi-hot, float
    dropped: Tensor  # (n,) bool: nothing is said about the labels, which differs from "no label applies"
    given: Tensor | None = None  # (n, C, H, W) clean pixels of the channels that are given, zero in the others
    shown: Tensor | None = None  # (n, C) bool: which channels are given; both None: none of any image

    def nothing(self) -> Condition:
        """The same images with nothing said about their labels; given channels remain."""
        return replace(self, dropped=torch.ones_like(self.dropped))

    def joined(self, other: Condition) -> Condition:
        """Both conditions one after the other, for a single network call."""
        pairs = [(mine, getattr(other, name)) for name, mine in vars(self).items()]
        return Condition(*(None if mine is None else torch.cat([mine, theirs]) for mine, theirs in pairs))

    def part(self, which: slice) -> Condition:
        """The condition of some of the images."""
        return Condition(*(None if value is None else value[which] for value in vars(self).values()))


class Network(Protocol):
    """What objectives and samplers ask of a network: F(x; ln sigma, condition), shaped like x."""

    def __call__(self, x: Tensor, log_sigma: Tensor, condition: Condition) -> Tensor: ...


# Objectives -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Objective:
    """Noise levels of training, and the coefficients that make an estimate of x0 from the network's output."""

    name: str
    draw: Callable[[Tensor], Tensor]  # uniform numbers (n,) in [0, 1) -> noise levels (n,)
    coefficients: Callable[[Tensor], tuple[Tensor, Tensor, Tensor]]  # sigma -> skip, out, scale
    lowest: float  # the range of noise levels that sampling walks through
    highest: float
    grid: Tensor | None = None  # (T,) the levels of a discrete schedule, rising; None: a continuum


def linear_schedule(steps: int = 1000) -> Tensor:
    """Noise levels of the linear schedule of Ho et al. 2020: beta from 1e-4 to 0.02."""
    return _levels_of(1 - torch.linspace(1e-4, 0.02, steps, dtype=torch.float64))


def cosine_schedule(steps: int = 1000, offset: float = 0.008) -> Tensor:
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

# A denoised estimate is hopeless above this level, so samplers start here even where a schedule goes on.
_HIGHEST = 160.0


def make_objective(name: str) -> Objective:
    """The objective of this name; `edm` counts on pixels of standard deviation 1."""
    if name == "edm":

        def draw(uniform: Tensor) -> Tensor:
            normal = torch.special.ndtri(uniform.double().clamp(1e-6, 1 - 1e-6))
            return (EDM_CENTRE + EDM_WIDTH * normal).exp().float()

        return Objective(name, draw, _edm, 0.01, 80.0)
    kind, _, schedule = name.partition("_")
    if kind not in ("epsilon", "velocity") or schedule not in ("linear", "cosine"):
        raise ValueError(f"unknown objective {name!r}")
    grid = linear_schedule() if schedule == "linear" else cosine_schedule()
    levels = grid.float()

    def pick(uniform: Tensor) -> Tensor:
        steps = (uniform * len(levels)).long().clamp(max=len(levels) - 1)
        return levels.to(uniform.device)[steps]

    rule = _epsilon if kind == "epsilon" else _velocity
    return Objective(name, pick, rule, float(grid[0]), min(float(grid[-1]), _HIGHEST), grid)


def _per_image(value: Tensor) -> Tensor:
    return value.view(-1, 1, 1, 1)


def training_levels(objective: Objective, n: int, generator: torch.Generator) -> Tensor:
    """Noise levels (n,) of one step's examples, on the CPU."""
    # One level from each of n equal slices: the same distribution as independent draws, with a steadier mean.
    return objective.draw((torch.arange(n) + torch.rand(n, generator=generator)) / n)


def training_loss(
    objective: Objective, network: Network, x0: Tensor, condition: Condition, sigma: Tensor, noise: Tensor
) -> Tensor:
    """Squared error of the network's output for each image (n,), at its noise level (n,) and with this noise.

    Only channels that are not given count. All tensors lie on one device, and nothing here looks at their values."""
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


def denoised(objective: Objective, network: Network, x: Tensor, sigma: float, condition: Condition) -> Tensor:
    """The network's estimate of the image behind x at a noise level."""
    level = torch.full((len(x),), sigma, dtype=torch.float32, device=x.device)
    skip, out, scale = map(_per_image, objective.coefficients(level))
    return skip * x + out * network(scale * x, level.log(), condition).float()


# Guidance -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Guidance:
    """How strongly estimates are pushed towards the condition (1: not at all), and at which noise levels."""

    scale: float = 1.0
    low: float = 0.0
    high: float = math.inf

    def acts(self, sigma: float) -> bool:
        """Whether guidance is on at this level (Kynkäänniemi et al. 2024: best left off at both ends)."""
        return self.scale != 1.0 and self.low <= sigma <= self.high


def conditional(
    objective: Objective,
    network: Network,
    condition: Condition,
    guidance: Guidance | None = None,
    against: Condition | None = None,
    limits: tuple[Tensor, Tensor] | None = None,
) -> Denoise:
    """The denoiser that a sampler walks with.

    Guidance pushes away from `against`, which is the dropped condition unless another is given (such as a class
    that is easily mistaken for the wanted one). `limits` (each broadcast to (n, C, H, W)) keep estimates in range.
    Channels that are given are known at every noise level: whatever the sampler, they end as they were given."""
    guidance = guidance or Guidance()
    both = condition.joined(against or condition.nothing())

    def denoise(x: Tensor, sigma: float) -> Tensor:
        if guidance.acts(sigma):
            # One network call for both halves.
            towards, away = denoised(objective, network, torch.cat([x, x]), sigma, both).chunk(2)
            x0 = away + guidance.scale * (towards - away)
        else:
            x0 = denoised(objective, network, x, sigma, condition)
        if limits is not None:
            x0 = torch.minimum(torch.maximum(x0, limits[0]), limits[1])
        if condition.shown is not None:
            x0 = torch.where(condition.shown[:, :, None, None], condition.given, x0)
        return x0

    return denoise


# Samplers -------------------------------------------------------------------------------------------------------------


def noise_levels(objective: Objective, sampler: str, evaluations: int, top: float | None = None) -> list[float]:
    """The falling noise levels a sampler visits, from `top` (None: the highest) to 0, for about this many calls of the
    denoiser."""
    # Heun looks twice at each step but the last.
    steps = (evaluations + 1) // 2 if sampler == "heun" else evaluations
    if sampler == "ancestral" and objective.grid is not None:
        # The chain's own levels, thinned evenly if fewer are asked for.
        last = len(objective.grid) - 1 if top is None else max(0, int((objective.grid <= top).sum()) - 1)
        steps = min(steps, last + 1)
        levels = objective.grid[torch.linspace(last, 0, steps, dtype=torch.float64).round().long()]
        return [*levels.tolist(), 0.0]
    # Karras et al. 2022, eq. 5, rho = 7: ever smaller steps towards the image.
    rise = torch.linspace(0, 1, steps, dtype=torch.float64)
    high, low = (top or objective.highest) ** (1 / 7), objective.lowest ** (1 / 7)
    return [*((high + rise * (low - high)) ** 7).tolist(), 0.0]


def ancestral(denoise: Denoise, x: Tensor, levels: list[float], noise: Noise) -> Tensor:
    """Draw each next level from its distribution given x and the estimate (Ho et al. 2020, eq. 6 and 7)."""
    for sigma, after in pairwise(levels):
        x0 = denoise(x, sigma)
        keep = (after / sigma) ** 2
        x = x0 + keep * (x - x0)
        if after > 0:
            x = x + after * math.sqrt(1 - keep) * noise(x)
    return x


def ddim(denoise: Denoise, x: Tensor, levels: list[float], noise: Noise) -> Tensor:
    """Keep the noise that the estimate implies and shrink it (Song et al. 2021): Euler steps of the flow."""
    for sigma, after in pairwise(levels):
        x0 = denoise(x, sigma)
        x = x0 + (after / sigma) * (x - x0)
    return x


def heun(denoise: Denoise, x: Tensor, levels: list[float], noise: Noise) -> Tensor:
    """Second-order steps: the mean of the slopes at both ends (Karras et al. 2022, algorithm 1)."""
    for sigma, after in pairwise(levels):
        slope = (x - denoise(x, sigma)) / sigma
        ahead = x + (after - sigma) * slope
        if after > 0:
            slope = (slope + (ahead - denoise(ahead, after)) / after) / 2
            ahead = x + (after - sigma) * slope
        x = ahead
    return x


def dpmpp_2m(denoise: Denoise, x: Tensor, levels: list[float], noise: Noise, renewal: float = 0.0) -> Tensor:
    """Second order from the previous estimate, one call a step: DPM-Solver++(2M) (Lu et al. 2022, algorithm 2).

    `renewal` of 0 follows the flow, of 1 the reverse diffusion whose chain `ancestral` walks; as steps
    become small, x keeps the distribution that belongs to its noise level whatever it is."""
    before: Tensor | None = None
    step_before = 0.0
    for sigma, after in pairwise(levels):
        x0 = denoise(x, sigma)
        estimate = x0
        # h is the step in ln(1 / sigma); the last step, to sigma = 0, is taken at first order.
        h = math.log(sigma / after) if after > 0 else math.inf
        if before is not None and after > 0:
            estimate = x0 + (h / step_before / 2) * (x0 - before)
        # Of the noise of the next level this part is the old one, shrunk; the rest of its variance is drawn anew.
        kept = math.exp(-renewal * h) if renewal else 1.0
        x = estimate + (after / sigma) * kept * (x - estimate)
        if renewal and after > 0:
            x = x + after * math.sqrt(1 - kept**2) * noise(x)
        before, step_before = x0, h
    return x


# The fresh noise washes out the errors of earlier estimates. Of 0, 0.5, 1, 1.5, 2 and 3 those from 2 on came nearer to
# real images in 20 evaluations of a trained network than 250 steps of the chain did.
RENEWAL = 2.0


def dpmpp_2m_sde(denoise: Denoise, x: Tensor, levels: list[float], noise: Noise) -> Tensor:
    """The same with fresh noise at every step (the stochastic solver of Lu et al. 2022, with more of it)."""
    return dpmpp_2m(denoise, x, levels, noise, RENEWAL)


SAMPLERS: dict[str, Callable[[Denoise, Tensor, list[float], Noise], Tensor]] = {
    "ancestral": ancestral,
    "ddim": ddim,
    "heun": heun,
    "dpmpp_2m": dpmpp_2m,
    "dpmpp_2m_sde": dpmpp_2m_sde,
}


def sample(
    objective: Objective,
    denoise: Denoise,
    shape: tuple[int, ...],
    sampler: str,
    evaluations: int,
    generator: torch.Generator,
    device: torch.device | str = "cpu",
    varied: tuple[Tensor, float] | None = None,
) -> Tensor:
    """Images of this shape (n, C, H, W), in the network's pixel range. All random numbers come from `generator`.

    `varied` are images (n, C, H, W) and a noise level: noised so far they are where the sampler starts (SDEdit, Meng et
    al. 2022), so what is coarser than the noise is theirs and what is finer is made anew. None: from noise alone."""

    def noise(like: Tensor) -> Tensor:
        # Drawn on the CPU, so that the same seed gives the same image on any hardware.
        return torch.randn(like.shape, generator=generator).to(like.device)

    clean, top = varied or (0.0, None)
    levels = noise_levels(objective, sampler, evaluations, top)
    x = clean + torch.randn(shape, generator=generator).to(device) * levels[0]
    return SAMPLERS[sampler](denoise, x, levels, noise)
