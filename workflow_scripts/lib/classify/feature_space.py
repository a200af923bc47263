"""Further features of rare classes: repeated, between neighbours (SMOTE), mixed (mixup), or from a diffusion model.

Works on representations (n, D) and labels (n, K) and knows nothing of images or classifiers. All four make features for
the same rows of labels (`wanted_rows`), in which every class is asked for equally often."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from workflow_scripts.lib.classify.resampling import balanced_rows
from workflow_scripts.lib.generate import diffusion, sampling
from workflow_scripts.lib.generate.diffusion import Condition

MOST = 4  # features that are made, at most, for each of those that are there
NEIGHBOURS = 5  # of SMOTE, as in Chawla et al. 2002
# The diffusion model: a network of three layers, which a few thousand points train in seconds.
WIDTH, FREQUENCIES = 256, 16
STEPS, BATCH, RATE = 1000, 128, 2e-3
EVALUATIONS = 35  # of Heun's method, as EDM takes on small images (Karras et al. 2022)
BLOCK = 2048  # points that are drawn at a time


def wanted_rows(labels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Rows whose labels the made features have: every class equally often."""
    return balanced_rows(labels, rng)[: MOST * len(labels)]


def smote(features: np.ndarray, labels: np.ndarray, rows: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Points at random places between each row and one of its nearest neighbours of the same labels (Chawla et al.).

    A row that is alone with its label combination is repeated."""
    _, owner = np.unique(labels, axis=0, return_inverse=True)
    owner, other = owner.ravel(), rows.copy()
    for row in np.unique(rows):
        alike = np.flatnonzero((owner == owner[row]) & (np.arange(len(labels)) != row))
        if len(alike):
            distances = np.square(features[alike] - features[row]).sum(axis=1)
            near = alike[np.argsort(distances, kind="stable")[:NEIGHBOURS]]
            places = rows == row
            other[places] = rng.choice(near, places.sum())
    far = rng.random((len(rows), 1), dtype=np.float32)
    return features[rows] + far * (features[other] - features[rows])


def mixed(
    features: np.ndarray, labels: np.ndarray, rows: np.ndarray, alpha: float, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Each row mixed with another one of the list, features and labels λ : (1 − λ), λ ~ Beta(alpha, alpha)."""
    other = rng.permutation(rows)
    weight = rng.beta(alpha, alpha, (len(rows), 1)).astype(np.float32)
    pairs = ((values[rows], values[other]) for values in (features, labels.astype(np.float32)))
    points, targets = (weight * one + (1 - weight) * two for one, two in pairs)
    return points, targets


class PointNetwork(nn.Module):
    """Network of the diffusion model: three layers, told the noise level and the labels."""

    def __init__(self, features: int, classes: int, seed: int) -> None:
        super().__init__()
        draws = torch.Generator().manual_seed(seed)
        self.register_buffer("frequencies", torch.randn(FREQUENCIES, generator=draws))
        inputs = features + 2 * FREQUENCIES + classes
        ways = ((inputs, WIDTH), (WIDTH, WIDTH), (WIDTH, features))
        self.layers = nn.ModuleList(nn.utils.skip_init(nn.Linear, *way) for way in ways)
        with torch.no_grad():
            for layer in self.layers:
                layer.weight.normal_(0, math.sqrt(1 / layer.in_features), generator=draws)
                layer.bias.zero_()
            # The first estimate is that of the preconditioning alone.
            self.layers[-1].weight.zero_()

    def forward(self, x: Tensor, log_sigma: Tensor, condition: Condition) -> Tensor:
        """(n, D, 1, 1), (n,), condition -> (n, D, 1, 1)."""
        angles = log_sigma[:, None] * self.frequencies
        y = torch.cat([x.flatten(1), angles.cos(), angles.sin(), condition.labels], dim=1)
        y = functional.silu(self.layers[0](y))
        y = y + functional.silu(self.layers[1](y))
        return self.layers[2](y).view_as(x)


def diffused(
    features: np.ndarray, labels: np.ndarray, wanted: np.ndarray, seed: int, steps: int | None = None
) -> np.ndarray:
    """Features drawn from a diffusion model of `features` given their labels, for each row of `wanted` (m, K).

    Each dimension stays within the range of the features that are there. On the CPU, so that all processes and machines
    draw the same."""
    mean, spread = features.mean(axis=0), features.std(axis=0)
    scale = np.where(spread > 1e-6, spread, 1.0).astype(np.float32)
    points = torch.as_tensor((features - mean) / scale, dtype=torch.float32)[:, :, None, None]
    network, objective = _trained(points, torch.as_tensor(labels, dtype=torch.float32), seed, steps or STEPS)
    draws, asked = torch.Generator().manual_seed(seed), torch.as_tensor(wanted, dtype=torch.float32)
    made = []
    with torch.inference_mode():
        for part in asked.split(BLOCK):
            condition = Condition(part, torch.zeros(len(part), dtype=torch.bool))
            denoise = diffusion.conditional(objective, network, condition)
            shape = (len(part), *points.shape[1:])
            made.append(sampling.sample(objective, denoise, shape, "heun", EVALUATIONS, draws).flatten(1))
    found = torch.cat(made).numpy() * scale + mean
    return found.clip(features.min(axis=0), features.max(axis=0)).astype(np.float32)


def _trained(points: Tensor, labels: Tensor, seed: int, steps: int) -> tuple[PointNetwork, diffusion.Objective]:
    """A network trained on points (n, D, 1, 1) with the objective of EDM; the learning rate falls along a cosine."""
    objective, draws = diffusion.edm(), torch.Generator().manual_seed(seed + 1)
    network = PointNetwork(points.shape[1], labels.shape[1], seed)
    optimiser = torch.optim.AdamW(network.parameters(), lr=RATE, weight_decay=0.01, fused=True)
    for step in range(steps):
        for group in optimiser.param_groups:
            group["lr"] = RATE * (1 + math.cos(math.pi * step / steps)) / 2
        chosen = torch.randint(len(points), (BATCH,), generator=draws)
        x0, sigma = points[chosen], diffusion.training_levels(objective, (BATCH,), draws)
        condition = Condition(labels[chosen], torch.zeros(BATCH, dtype=torch.bool))
        noise = torch.randn(x0.shape, generator=draws)
        loss = diffusion.training_loss(objective, network, x0, condition, sigma, noise).mean()
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
    return network.eval(), objective
