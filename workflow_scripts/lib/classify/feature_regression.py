"""Fit an arm on hand-made features or embeddings: logistic regression with an L2 penalty for each class.

It takes what `classifier_training.train` takes and gives what that gives, so everything after it works as for a
network: the classifier file, predictions, thresholds. One strength of the penalty serves all classes. It is chosen by
mean average precision on the validation part; the history has a row for each strength. Images are used as they are:
features are the same in every orientation, and steps, batch and augmentation do not act. Nothing is drawn at random, so
an arm that was killed is fitted again to the same weights."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression

from workflow_scripts.lib.base.seeds import derive
from workflow_scripts.lib.classify import arm_choices, backbones, validation_scores
from workflow_scripts.lib.classify.classifier_training import HISTORY, Images, Trained, mean_average_precision
from workflow_scripts.lib.classify.resampling import balanced_rows
from workflow_scripts.lib.compute.checkpoint import Resume

# Inverse strengths of the penalty beside the summed loss, strongest penalty first: half powers of ten.
STRENGTHS = tuple(10 ** (power / 2) for power in range(-8, 2))
ITERATIONS = 200  # of the solver at each strength, from the solution of the one before
SURE = 0.5  # images that a class without positives, or without negatives, is taken to have of these


def train(
    settings: dict[str, Any],
    real: Images,
    second: Images | None,
    validation: Images,
    seed: int,
    resume: Resume,
    report: Callable[[int, dict[str, float]], None] = lambda step, numbers: None,
) -> Trained:
    """Fit one arm at every strength of the penalty and keep the best; a tie goes to the stronger penalty."""
    since = time.monotonic()
    used, weights = weighted_images(settings, real, second, seed)
    channels, classes, size = real.pixels.shape[1], real.labels.shape[1], real.pixels.shape[-1]
    network = backbones.build(settings["backbone"], channels, classes, size, derive(seed, "weights"))
    found = [network.trunk.describe(images.pixels[rows]) for images, rows in used]
    labels = np.concatenate([images.labels[rows] for images, rows in used]).astype(np.float64)
    features = np.concatenate(found)
    network.trunk.standardise_by(features, weights)
    design = _Design(network.trunk.standardised(features).numpy(), labels, weights)
    checked = network.trunk.standardised(network.trunk.describe(validation.pixels)).numpy()
    history: dict[str, list[float]] = {name: [] for name in HISTORY}
    best, chosen = -1.0, 0
    for number, strength in enumerate(STRENGTHS, 1):
        design.fit(strength)
        logits = (checked @ design.coefficients.T + design.intercepts).astype(np.float32)
        score = mean_average_precision(logits, validation.labels)
        row = (
            number, number * len(features), design.loss(), strength, _cross_entropy(logits, validation.labels).mean(),
            score, validation_scores.from_logits(logits, validation.labels), time.monotonic() - since,
        )  # fmt: skip
        for name, value in zip(HISTORY, row, strict=True):
            history[name].append(float(value))
        if score > best:
            best, chosen = score, number
            with torch.no_grad():
                network.head.weight.copy_(torch.as_tensor(design.coefficients))
                network.head.bias.copy_(torch.as_tensor(design.intercepts))
        report(round(number / len(STRENGTHS) * settings["steps"]), {"validation_map": score})
    synthetic = sum(len(rows) for images, rows in used if images.synthetic)
    numbers = {
        "seconds": time.monotonic() - since,
        "images_seen": len(features),
        "real_seen": len(features) - synthetic,
        "synthetic_seen": synthetic,
        "steps": len(STRENGTHS),
        "best_step": chosen,
        "best_validation_map": best,
        "weights": sum(value.numel() for value in network.head.parameters()),
    }
    # The trunk takes pixels as they are.
    state = {name: value.detach().clone() for name, value in network.state_dict().items()}
    return Trained(state, torch.zeros(channels), torch.ones(channels), history, numbers)


def weighted_images(
    settings: dict[str, Any], real: Images, second: Images | None, seed: int
) -> tuple[list[tuple[Images, np.ndarray]], np.ndarray]:
    """The images of both sources that count, as (images, rows), and the weight of each in that order.

    Real images weigh 1 on average. Those of the second source together weigh `ratio` times as much as these, as in a
    batch of the same method."""
    used, weights = [], []
    if arm_choices.METHODS[settings["method"]].step != "second_only":
        rows = None
        if settings["sampling"] == "balanced":
            rows = balanced_rows(real.labels, np.random.default_rng(derive(seed, "balance")))
        times = _times(real, rows if rows is not None else real.rows)
        used.append((real, np.flatnonzero(times)))
        weights.append(times[times > 0] / times[times > 0].mean())
    if second is not None:
        times = _times(second, second.rows, second.weights)
        used.append((second, np.flatnonzero(times)))
        total = settings["ratio"] * weights[0].sum() if weights else np.count_nonzero(times)
        # Weights of single images keep their mean, as in the loss of a batch.
        mean = 1.0 if second.weights is None else float(np.mean(second.weights))
        weights.append(times[times > 0] * (mean * total / times.sum()))
    return used, np.concatenate(weights)


def _times(images: Images, rows: np.ndarray | None, weights: np.ndarray | None = None) -> np.ndarray:
    """How often each image stands among `rows` (None: each once), or the sum of its weights there."""
    count = len(images.pixels)
    if rows is None:
        return np.ones(count) if weights is None else np.asarray(weights, dtype=np.float64)
    return np.bincount(rows, weights=weights, minlength=count).astype(np.float64)


class _Design:
    """Weighted features with their targets; a class is fitted from where the strength before has left it."""

    def __init__(self, features: np.ndarray, labels: np.ndarray, weights: np.ndarray) -> None:
        self.features, self.labels, self.weights = features.astype(np.float64), labels, weights
        classes = labels.shape[1]
        self.coefficients, self.intercepts = np.zeros((classes, features.shape[1])), np.zeros(classes)
        self._models: dict[int, LogisticRegression] = {}

    def fit(self, strength: float) -> None:
        """Fit every class at this inverse strength of the penalty."""
        for k, column in enumerate(self.labels.T):
            rows, targets, weights = _split(column, self.weights)
            positive = weights[targets == 1].sum()
            if not 0 < positive < weights.sum():
                negative = weights.sum() - positive
                self.intercepts[k] = math.log((positive + SURE) / (negative + SURE))
                continue
            model = self._models.setdefault(k, LogisticRegression(max_iter=ITERATIONS, warm_start=True))
            model.set_params(C=strength)
            with warnings.catch_warnings():
                # Where the penalty is weak it need not arrive: the validation part says whether that is better.
                warnings.simplefilter("ignore", ConvergenceWarning)
                model.fit(self.features[rows], targets, sample_weight=weights)
            self.coefficients[k], self.intercepts[k] = model.coef_[0], model.intercept_[0]

    def loss(self) -> float:
        """Weighted mean of the cross-entropy over images and classes, without the penalty."""
        each = _cross_entropy(self.features @ self.coefficients.T + self.intercepts, self.labels)
        return float(np.average(each.mean(axis=1), weights=self.weights))


def _split(targets: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows, labels 0 or 1, and weights that stand for targets between 0 and 1: such an image counts as both."""
    positive, negative = np.flatnonzero(targets > 0), np.flatnonzero(targets < 1)
    rows = np.concatenate([positive, negative])
    labels = np.repeat([1, 0], [len(positive), len(negative)])
    parts = weights[positive] * targets[positive], weights[negative] * (1 - targets[negative])
    return rows, labels, np.concatenate(parts)


def _cross_entropy(logits: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Binary cross-entropy (n, K)."""
    return np.logaddexp(0, logits) - logits * targets
