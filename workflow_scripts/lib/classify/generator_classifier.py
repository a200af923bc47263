"""A generator as classifier: its scores, and the scale that turns them into probabilities on the validation part.

Nothing else is fitted. One slope serves all classes, so that a class keeps the order of its images. Each class has a
bias of its own. It takes what `classifier_training.train` takes and gives what that gives."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from scipy.optimize import minimize
from scipy.special import expit

from workflow_scripts.lib.classify import backbones, classifier_file, validation_scores
from workflow_scripts.lib.classify.classifier_training import HISTORY, Images, Start, Trained, mean_average_precision
from workflow_scripts.lib.classify.generator_scores import NETWORK
from workflow_scripts.lib.compute import device
from workflow_scripts.lib.compute.checkpoint import Resume
from workflow_scripts.lib.generate.generator_file import Generator

BACKBONE = "generator_scores"
PENALTY = 1e-3  # on squares of slope and biases, beside the mean loss: classes without positives stay finite


def start_of(made: Generator, scoring: dict[str, Any]) -> Start:
    """What an arm starts from: the generator's weights, its pixel scale, and the noise that it is asked with."""
    about = {key: made.settings[key] for key in NETWORK if key in made.settings}
    encoder = {"generator": about, "levels": scoring["levels"], "draws": scoring["draws"]}
    weights = {f"network.{name}": value for name, value in made.weights.items()}
    return Start(weights, made.pixels.shift / 255, made.pixels.scale / 255, encoder)


def train(
    settings: dict[str, Any],
    real: Images,
    second: Images | None,
    validation: Images,
    seed: int,
    resume: Resume,
    report: Callable[[int, dict[str, float]], None] = lambda step, numbers: None,
    start: Start | None = None,
) -> Trained:
    """Score the validation part and calibrate; the real images are those that the generator was trained on."""
    since = time.monotonic()
    channels, classes, size = real.pixels.shape[1], real.labels.shape[1], real.pixels.shape[-1]
    network = backbones.build(BACKBONE, channels, classes, size, 0, encoder=start.encoder)
    missing = network.trunk.load_state_dict(start.trunk, strict=False).missing_keys
    if missing != ["noise"]:
        raise ValueError(f"the generator lacks weights: {missing}")
    network = network.to(device.device(), memory_format=torch.channels_last).eval()
    scores = classifier_file.features(network, validation.pixels, start.mean, start.std)
    slope, biases = calibrated(scores, validation.labels)
    with torch.no_grad():
        network.head.weight.copy_(slope * torch.eye(classes))
        network.head.bias.copy_(torch.as_tensor(biases))
    logits = (slope * scores + biases).astype(np.float32)
    loss, score = (
        float(cross_entropy(logits, validation.labels).mean()),
        mean_average_precision(logits, validation.labels),
    )
    seconds = time.monotonic() - since
    row = (1, 0, loss, 0.0, loss, score, validation_scores.from_logits(logits, validation.labels), seconds)
    report(settings["steps"], {"validation_map": score})
    numbers = {
        "seconds": seconds,
        "images_seen": 0,
        "real_seen": 0,
        "synthetic_seen": 0,
        "steps": 1,
        "best_step": 1,
        "best_validation_map": score,
        "weights": sum(value.numel() for value in network.parameters()),
    }
    state = {name: value.detach().cpu().clone() for name, value in network.state_dict().items()}
    return Trained(
        state, start.mean, start.std, {name: [value] for name, value in zip(HISTORY, row, strict=True)}, numbers
    )


def cross_entropy(logits: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Binary cross-entropy (n, K)."""
    return np.logaddexp(0, logits) - logits * targets


def calibrated(scores: np.ndarray, labels: np.ndarray) -> tuple[float, np.ndarray]:
    """Slope and biases (K,) of the logits slope * scores + biases that fit labels (n, K) best.

    Platt scaling (Platt 1999) by logistic regression with a small penalty; the common slope is 0 or more."""
    spread = float(scores.std()) or 1.0
    values, targets = scores.astype(np.float64) / spread, labels.astype(np.float64)

    count = targets.shape[1]
    # A bias is held back by as much as the loss of its own class weighs in the mean.
    penalty = PENALTY * np.append(1.0, np.full(count, 1 / count))

    def loss(parameters: np.ndarray) -> tuple[float, np.ndarray]:
        logits = parameters[0] * values + parameters[1:]
        wrong = (expit(logits) - targets) / targets.size
        gradient = np.concatenate([[(wrong * values).sum()], wrong.sum(axis=0)]) + 2 * penalty * parameters
        return cross_entropy(logits, targets).mean() + (penalty * parameters**2).sum(), gradient

    bounds = [(0.0, None)] + [(None, None)] * count
    found = minimize(loss, np.append(1.0, np.zeros(count)), jac=True, method="L-BFGS-B", bounds=bounds).x
    return float(found[0]) / spread, found[1:]
