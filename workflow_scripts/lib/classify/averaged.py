"""Mean of two classifiers: an arm's own network and the fold's baseline, as one network.

Logits are averaged, half and half. Each of the two keeps the pixel scale on which it was trained."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch

from workflow_scripts.lib.classify import backbones, classifier_file, network_choices
from workflow_scripts.lib.classify.classifier_file import Classifier
from workflow_scripts.lib.classify.classifier_training import Images, Trained, mean_average_precision
from workflow_scripts.lib.compute import device

BACKBONE = "pair"


def with_baseline(
    baseline: Classifier, own: Trained, settings: dict[str, Any], encoder: dict[str, Any] | None, validation: Images
) -> tuple[Trained, dict[str, Any]]:
    """An arm's own network joined with the baseline, and the settings by which both are built again.

    `settings` and `encoder` are those of the arm's own network. Its history stays; the validation score is of both."""
    members = [_member(baseline.settings, baseline.settings.get("encoder")), _member(settings, encoder)]
    channels, classes, size = len(baseline.channels), len(baseline.classes), baseline.size
    built = {"backbone": BACKBONE, "encoder": {"members": members}, "losses": {}, "weights": None}
    network = backbones.build(BACKBONE, channels, classes, size, 0, encoder=built["encoder"])
    for member, weights in zip(network.trunk.members, (baseline.weights, own.weights), strict=True):
        member.load_state_dict(weights)
    network.trunk.scale_as([(baseline.mean, baseline.std), (own.mean, own.std)])
    with torch.no_grad():
        network.head.weight.copy_(torch.cat([torch.eye(classes)] * 2, dim=1) / 2)
        network.head.bias.zero_()
    network = network.to(device.device(), memory_format=torch.channels_last).eval()
    logits = classifier_file.predict(network, validation.pixels, baseline.mean, baseline.std)
    score = mean_average_precision(np.asarray(logits), validation.labels)
    numbers = own.numbers | {
        "best_validation_map": score,
        "weights": sum(value.numel() for value in network.trunk.parameters()),
    }
    state = {name: value.detach().cpu().clone() for name, value in network.state_dict().items()}
    return replace(own, weights=state, mean=baseline.mean, std=baseline.std, numbers=numbers), built


def _member(settings: dict[str, Any], encoder: dict[str, Any] | None) -> dict[str, Any]:
    """How one of the two networks is built."""
    return {
        "backbone": settings["backbone"],
        "cosine_scale": network_choices.cosine_scale(settings),
        "encoder": encoder,
    } | ({"channel_marks": True} if network_choices.marks_channels(settings) else {})
