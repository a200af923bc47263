"""The methods: what an arm does with its images at one optimiser step.

A method is a function of a `Step` that returns the loss to descend. `step.real(n)` gives the first n images of the
step's real batch, the same for every arm; `step.partners(n)` images of the arm's second source (synthetic, resampled or
again real, see `arms.METHODS`), drawn independently of the real ones. Every method uses `step.batch` images in all.
Real and partner images go through the network together and share its BatchNorm statistics."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import torch

from workflow_scripts.lib import arms


@dataclass
class Batch:
    """Images standardised (n, C, H, W), and targets (n, K) that may be soft."""

    images: torch.Tensor
    targets: torch.Tensor

    def __add__(self, other: Batch) -> Batch:
        return Batch(torch.cat([self.images, other.images]), torch.cat([self.targets, other.targets]))


class Step(Protocol):
    """What a method may use at one optimiser step."""

    number: int  # of this step, from 0
    steps: int  # of the training
    batch: int  # images a step
    settings: dict[str, Any]  # of the arm, `arms.effective`

    def real(self, count: int) -> Batch:
        """The first images of the step's real batch, augmented."""

    def partners(self, count: int) -> Batch:
        """Images of the second source, augmented."""

    def lambdas(self, count: int) -> torch.Tensor:
        """One λ ~ Beta(alpha, alpha) an image (n,)."""

    def features(self, images: torch.Tensor) -> torch.Tensor:
        """Pooled representation (n, D) in float32."""

    def head(self, features: torch.Tensor) -> torch.Tensor:
        """Logits (n, K)."""

    def loss(self, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """The arm's loss, one value an image (n,)."""


Method = Callable[[Step], torch.Tensor]
STEPS: dict[str, Method] = {}


def method(function: Method) -> Method:
    """Register a function under its name."""
    STEPS[function.__name__] = function
    return function


def of(name: str) -> Method:
    """The function of a method of `arms.METHODS`."""
    return STEPS[arms.METHODS[name].step]


def _plain(step: Step, batch: Batch) -> torch.Tensor:
    return step.loss(step.head(step.features(batch.images)), batch.targets).mean()


@method
def real_only(step: Step) -> torch.Tensor:
    """Real images alone."""
    return _plain(step, step.real(step.batch))


@method
def partners_only(step: Step) -> torch.Tensor:
    """Images of the second source alone."""
    return _plain(step, step.partners(step.batch))


@method
def pool(step: Step) -> torch.Tensor:
    """Both sources in one batch, `ratio` partners to one real image."""
    partners = arms.synthetic_share(step.batch, step.settings["ratio"])
    return _plain(step, step.real(step.batch - partners) + step.partners(partners))


@method
def mix_loss(step: Step) -> torch.Tensor:
    """Mix Loss: mean over pairs of λ·ℓ(real) + (1−λ)·ℓ(partner), λ for each pair by itself.

    The losses stay apart until they are weighed: averaging first would leave only the mean of λ to act."""
    half = step.batch // 2
    both = step.real(half) + step.partners(half)
    losses = step.loss(step.head(step.features(both.images)), both.targets)
    weight = step.lambdas(half)
    return (weight * losses[:half] + (1 - weight) * losses[half:]).mean()


@method
def mix_representation(step: Step) -> torch.Tensor:
    """Mix Representation: f = λ·f_real + (1−λ)·f_partner, targets alike, one loss."""
    half = step.batch // 2
    both = step.real(half) + step.partners(half)
    features = step.features(both.images)
    weight = step.lambdas(half)[:, None]
    mixed = weight * features[:half] + (1 - weight) * features[half:]
    targets = weight * both.targets[:half] + (1 - weight) * both.targets[half:]
    return step.loss(step.head(mixed), targets).mean()
