"""FLOP counts of the networks for an image, counted by torch on meta tensors, without computing."""

from __future__ import annotations

import json
from functools import lru_cache
from itertools import pairwise
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from workflow_scripts.lib.classify import backbones
from workflow_scripts.lib.cost.workloads import Network
from workflow_scripts.lib.generate import diffusion, networks, sampling
from workflow_scripts.lib.generate.diffusion import Condition, Guidance
from workflow_scripts.lib.generate.generator_choices import SAMPLERS, takes_references

IMAGES = 2  # images that are passed through; the counts are for one


class Counted:
    """Network counts of a run, as `workloads.Networks` defines them."""

    def classifier(self, backbone: str, channels: int, classes: int, size: int, frozen: bool) -> Network:
        """Counts of a classifier; of a frozen one only the forward pass is computed, and the head learns."""
        return _classifier(backbone, channels, classes, size, frozen)

    def generator(self, settings: dict[str, Any], channels: int, classes: int, size: int) -> Network:
        """Counts of a generator's network."""
        return _generator(json.dumps(settings, sort_keys=True), channels, classes, size)

    def calls(self, generator: dict[str, Any], synthetic_set: dict[str, Any]) -> float:
        """Network calls for an image of a synthetic set; guidance doubles them."""
        levels = sampling.noise_levels(
            diffusion.make_objective(generator["objective"]),
            synthetic_set["sampler"],
            synthetic_set["evaluations"],
            synthetic_set.get("start_noise"),
        )
        guidance = Guidance.of_settings(synthetic_set["guidance"])

        def at(sigma: float) -> int:
            return 2 if guidance.acts(sigma) else 1

        again = SAMPLERS[synthetic_set["sampler"]].calls - 1  # at the level that a step leads to; none at level 0
        return float(sum(at(sigma) + (again * at(after) if after > 0 else 0) for sigma, after in pairwise(levels)))


@lru_cache(maxsize=64)
def _classifier(backbone: str, channels: int, classes: int, size: int, frozen: bool) -> Network:
    with torch.device("meta"):
        network = backbones.make(backbone, channels, classes, size).train()
        images = torch.zeros(IMAGES, channels, size, size)
    if frozen:
        network.freeze()
    return _counted(network, lambda: network(images))


@lru_cache(maxsize=64)
def _generator(settings: str, channels: int, classes: int, size: int) -> Network:
    with torch.device("meta"):
        described = json.loads(settings)
        network = networks.make_network(described, channels, classes, size, torch.float32)
        images, levels = torch.zeros(IMAGES, channels, size, size), torch.zeros(IMAGES)
        reference = (torch.zeros_like(images), torch.zeros(IMAGES, channels, dtype=torch.bool))
        reference = reference if takes_references(described) else (None, None)
        condition = Condition(torch.zeros(IMAGES, classes), torch.zeros(IMAGES, dtype=torch.bool), *reference)
    return _counted(network, lambda: network(images, levels, condition))


def _counted(network: nn.Module, forward: Any) -> Network:
    with FlopCounterMode(display=False) as there:
        out = forward()
    with FlopCounterMode(display=False) as back:
        out.sum().backward()
    ahead = there.get_total_flops() / IMAGES
    values = [*network.parameters(), *network.buffers()]
    return Network(ahead, ahead + back.get_total_flops() / IMAGES, 4 * sum(value.numel() for value in values))
