"""Losses of multi-label classification, each as one value per image, so that an arm can weigh images before averaging.

A loss is made for the train part it will serve (class counts), then called with logits and targets (n, K) -> (n,)."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F

Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def bce(positives: torch.Tensor, count: int) -> Loss:
    """Binary cross-entropy, mean over classes; targets may be soft. Needs no class counts."""

    def per_image(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return F.binary_cross_entropy_with_logits(logits, targets, reduction="none").mean(dim=1)

    return per_image


# name -> maker(positives (K,): positive train images per class, count: train images)
LOSSES: dict[str, Callable[[torch.Tensor, int], Loss]] = {"bce": bce}
