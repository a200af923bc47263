"""Self-supervision by VICReg (Bardes et al. 2022): representations of two views agree, vary and do not correlate.

Knows nothing of labels or of images: it takes representations."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

# The paper's weights of the three terms, and its small number under the square root.
INVARIANCE, VARIANCE, COVARIANCE, EPSILON = 25.0, 25.0, 1.0, 1e-4
WIDTH = 256  # of the projector; the paper's 8192 is for ResNet-50 and batches of 2048


def projector(features: int, seed: int) -> nn.Sequential:
    """The network between features and loss, which is dropped after pre-training: two layers, the first with ReLU."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(features, WIDTH), nn.BatchNorm1d(WIDTH), nn.ReLU(), nn.Linear(WIDTH, WIDTH))


def vicreg(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """Loss of two views (n, D) of the same images; the term of variance is a mean of both, as in the authors' code."""
    apart = F.mse_loss(first, second)
    spread = sum(F.relu(1 - (view.var(dim=0) + EPSILON).sqrt()).mean() for view in (first, second)) / 2
    common = sum(_covariance(view) for view in (first, second))
    return INVARIANCE * apart + VARIANCE * spread + COVARIANCE * common


def _covariance(view: torch.Tensor) -> torch.Tensor:
    """Sum of the squared covariances of different features, by their number."""
    centred = view - view.mean(dim=0)
    matrix = centred.T @ centred / (len(view) - 1)
    return (matrix.square().sum() - matrix.diagonal().square().sum()) / view.shape[1]
