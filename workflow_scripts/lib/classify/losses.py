"""Multi-label losses, each as one value per image, so that an arm can weight images before averaging.

A loss is built for a train part (from its class counts), with its parameters in `train_classifier.losses`. It is then
called with logits and targets (n, K) -> (n,). With targets t between 0 and 1, a loss is t times its value for 1 plus (1
− t) times its value for 0. Its facts are in `network_choices.LOSSES`."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F

from workflow_scripts.lib.classify.network_choices import LOSSES

Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def make(name: str, positives: torch.Tensor, count: int, **parameters: float) -> Loss:
    """A loss for a train part of `count` images, of which `positives` (K,) carry each class."""
    return LOSSES.function(name, globals())(positives, count, **parameters)


def bce(positives: torch.Tensor, count: int) -> Loss:
    """Binary cross-entropy, mean over classes; targets may be soft. Needs no class counts."""

    def per_image(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return F.binary_cross_entropy_with_logits(logits, targets, reduction="none").mean(dim=1)

    return per_image


def focal(positives: torch.Tensor, count: int, gamma: float) -> Loss:
    """Focal loss (Lin et al. 2017): cross-entropy times (1 − p)^gamma, p the probability of the right answer."""

    def per_image(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        # (1 − p)^gamma by way of log sigmoid: exact however small it is.
        one = (gamma * F.logsigmoid(-logits)).exp() * F.softplus(-logits)
        zero = (gamma * F.logsigmoid(logits)).exp() * F.softplus(logits)
        return (targets * one + (1 - targets) * zero).mean(dim=1)

    return per_image


def asymmetric(positives: torch.Tensor, count: int, gamma_positive: float, gamma_negative: float, clip: float) -> Loss:
    """Asymmetric loss (Ridnik et al. 2021): focal with an exponent for each answer; a negative of p < clip is free."""

    def per_image(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        one = (gamma_positive * F.logsigmoid(-logits)).exp() * F.softplus(-logits)
        probability = (torch.sigmoid(logits) - clip).clamp(min=0.0)
        # 1 − p is 0 in float32 for large logits; the floor keeps its logarithm finite.
        zero = -probability.pow(gamma_negative) * (1 - probability).clamp(min=1e-7).log()
        return (targets * one + (1 - targets) * zero).mean(dim=1)

    return per_image


def class_balanced(positives: torch.Tensor, count: int, beta: float) -> Loss:
    """Binary cross-entropy weighted by 1 / effective number of images of each class (Cui et al. 2019, eq. 2).

    The effective number of n images is (1 − beta^n) / (1 − beta). Weights have mean 1, which preserves the scale of the
    loss. Nothing says how rare a class without a train image is: it has the mean weight of the others."""
    weights = (1 - beta) / (1 - beta ** positives.double().clamp(min=1))
    present = (positives > 0).double()
    weights = present * weights + (1 - present) * (present * weights).sum() / present.sum().clamp(min=1)
    weights = weights + (present.sum() == 0)  # no class has an image: all are alike
    weights = (weights / weights.mean()).float()

    def per_image(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        terms = F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
        return (weights.to(terms.device) * terms).mean(dim=1)

    return per_image


def reweighted(positives: torch.Tensor, count: int, limit: float) -> Loss:
    """Binary cross-entropy in which positives of a class weigh as much as its negatives, at most `limit` each.

    This is the usual re-weighting of rare locations. A class with more positives than negatives keeps its weights."""
    weight = ((count - positives) / positives.clamp(min=1)).clamp(1.0, limit)

    def per_image(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        terms = F.binary_cross_entropy_with_logits(
            logits, targets, pos_weight=weight.to(logits.device), reduction="none"
        )
        return terms.mean(dim=1)

    return per_image


def arcface(positives: torch.Tensor, count: int, scale: float, margin: float) -> Loss:
    """ArcFace (Deng et al. 2019, eq. 3), one-versus-rest: cross-entropy of scale · cos(θ + margin · t) for each class.

    Logits are scale · cos θ, from a cosine head. Beyond θ = π − margin, where the cosine would rise again, a linear
    continuation keeps the order."""
    edge, slope = -math.cos(margin), math.sin(margin) * margin

    def per_image(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        # Kept off ±1, where the gradient of the sine is infinite.
        cosine = (logits / scale).clamp(-1 + 1e-6, 1 - 1e-6)
        moved = cosine * math.cos(margin) - (1 - cosine**2).sqrt() * math.sin(margin)
        moved = torch.where(cosine > edge, moved, cosine - slope)
        with_margin = scale * torch.where(targets > 0, moved, cosine)
        return F.binary_cross_entropy_with_logits(with_margin, targets, reduction="none").mean(dim=1)

    return per_image


def generalised(logits: torch.Tensor, targets: torch.Tensor, q: float) -> torch.Tensor:
    """Generalised cross-entropy (Zhang & Sabuncu 2018, eq. 6), (1 − p^q) / q, mean over classes (n,).

    It lies between cross-entropy (q → 0) and the error itself (q = 1). The surer the network, the weaker the gradient
    of a wrong label."""
    one = (1 - (q * F.logsigmoid(logits)).exp()) / q
    zero = (1 - (q * F.logsigmoid(-logits)).exp()) / q
    return (targets * one + (1 - targets) * zero).mean(dim=1)
