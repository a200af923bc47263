"""Samplers: images from noise by repeated denoising.

A sampler is a function of denoise(x, sigma) -> x0, the noisy images x, falling noise levels, and a source of noise. It
knows neither the network nor the objective behind the denoiser. Its facts are in `generator_choices.SAMPLERS`."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from workflow_scripts.lib.base.seeds import derive
from workflow_scripts.lib.generate.diffusion import (
    Condition,
    Denoise,
    Guidance,
    Network,
    Objective,
    conditional,
    make_objective,
)
from workflow_scripts.lib.generate.generator_choices import SAMPLERS
from workflow_scripts.lib.generate.generator_file import Generator

Noise = Callable[[Tensor], Tensor]  # standard normal numbers shaped like its argument


def noise_levels(objective: Objective, sampler: str, evaluations: int, top: float | None = None) -> list[float]:
    """Falling noise levels that a sampler visits, from `top` (None: the highest) to 0.

    Their number follows from about `evaluations` calls of the denoiser."""
    facts = SAMPLERS[sampler]
    # The last step, to level 0, takes a single call.
    steps = -(-evaluations // facts.calls)
    if facts.chain and objective.grid is not None:
        # Levels of the discrete schedule, thinned evenly if fewer are needed.
        # No further up than is of use: the cosine schedule ends at 20,000 deviations.
        last = max(0, int((objective.grid <= (top or objective.highest)).sum()) - 1)
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
    """DPM-Solver++(2M): second order from the previous estimate, one call a step (Lu et al. 2022, algorithm 2).

    With `renewal` 0 it follows the flow, with 1 the reverse diffusion of the chain that `ancestral` takes. For small
    steps x has the distribution of its noise level at any `renewal`."""
    before: Tensor | None = None
    step_before = 0.0
    for sigma, after in pairwise(levels):
        x0 = denoise(x, sigma)
        estimate = x0
        # h is the step in ln(1 / sigma); the last step, to sigma = 0, is taken at first order.
        h = math.log(sigma / after) if after > 0 else math.inf
        if before is not None and after > 0:
            estimate = x0 + (h / step_before / 2) * (x0 - before)
        # This part of the next level's noise is the old noise, shrunk. The rest of its variance is drawn anew.
        kept = math.exp(-renewal * h) if renewal else 1.0
        x = estimate + (after / sigma) * kept * (x - estimate)
        if renewal and after > 0:
            x = x + after * math.sqrt(1 - kept**2) * noise(x)
        before, step_before = x0, h
    return x


# Fresh noise corrects errors of earlier estimates. Tried were 0, 0.5, 1, 1.5, 2 and 3. From 2 on, 20 evaluations of a
# trained network came nearer to real images than 250 steps of the chain did.
RENEWAL = 2.0


def dpmpp_2m_sde(denoise: Denoise, x: Tensor, levels: list[float], noise: Noise) -> Tensor:
    """DPM-Solver++(2M) with fresh noise at every step: the stochastic solver of Lu et al. 2022, with more noise."""
    return dpmpp_2m(denoise, x, levels, noise, RENEWAL)


def sample(
    objective: Objective,
    denoise: Denoise,
    shape: tuple[int, ...],
    sampler: str,
    evaluations: int,
    generator: torch.Generator,
    device: torch.device | str = "cpu",
    start: tuple[Tensor, float] | None = None,
) -> Tensor:
    """Images of this shape (n, C, H, W), in the network's pixel range. All random numbers come from `generator`.

    `start`: real images (n, C, H, W) and the noise level to which they are noised before they are denoised. This is
    SDEdit (Meng et al. 2022): coarse structure of the real image is kept, fine detail is regenerated. None: start from
    noise alone."""

    def noise(like: Tensor) -> Tensor:
        # Drawn on the CPU, so that the same seed gives the same image on any hardware.
        return torch.randn(like.shape, generator=generator).to(like.device)

    clean, top = start or (0.0, None)
    levels = noise_levels(objective, sampler, evaluations, top)
    x = clean + torch.randn(shape, generator=generator).to(device) * levels[0]
    return SAMPLERS.function(sampler, globals())(denoise, x, levels, noise)


@dataclass
class Sampler:
    """A generator's network with a synthetic set's sampling settings; makes one batch at a time.

    `worse`: objective and network that autoguidance pushes away from."""

    generator: Generator
    network: Network
    settings: dict[str, Any]  # of the synthetic set
    seed: int
    where: torch.device
    worse: tuple[Objective, Network] | None = None

    def __post_init__(self) -> None:
        self.objective = make_objective(self.generator.settings["objective"])
        self.guidance = Guidance.of_settings(self.settings["guidance"])
        self.pixels = self.generator.pixels.on(self.where)
        self.limits = self.pixels.limits(self.where) if self.settings["clip"] else None
        self.start_noise: float | None = self.settings.get("start_noise")

    def parts(self, count: int) -> list[slice]:
        """Slices of so many images in batches."""
        return [slice(start, start + self.settings["batch"]) for start in range(0, count, self.settings["batch"])]

    def calls(self) -> int:
        """Upper bound of the denoiser calls of a batch."""
        name = self.settings["sampler"]
        levels = noise_levels(self.objective, name, self.settings["evaluations"], self.start_noise)
        return len(levels) * SAMPLERS[name].calls

    def batch(
        self,
        number: int,
        condition: Condition,
        against: Condition | None = None,
        real: Tensor | None = None,
        watch: Callable[[], None] | None = None,
    ) -> Tensor:
        """Images float32 (n, C, s, s) of batch `number`, in the network's pixel range.

        `real`: images uint8 (n, C, s, s) that `start_noise` starts from. `watch` is called with each evaluation."""
        denoise = conditional(self.objective, self.network, condition, self.guidance, against, self.limits, self.worse)

        def watched(x: Tensor, sigma: float) -> Tensor:
            if watch is not None:
                watch()
            return denoise(x, sigma)

        start = (self.pixels.to_network(real.to(self.where)), self.start_noise) if self.start_noise else None
        size = self.generator.size
        return sample(
            self.objective,
            watched,
            (len(condition.labels), len(self.generator.channels), size, size),
            self.settings["sampler"],
            self.settings["evaluations"],
            # A batch depends on the seed and its number alone.
            torch.Generator().manual_seed(derive(self.seed, "batch", number)),
            self.where,
            start,
        )
