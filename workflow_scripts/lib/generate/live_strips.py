"""Samples of a generator in training at fixed seeds, for the progress page.

The network is a copy with the averaged weights. All random numbers come from a generator of their own, so the training
goes on as if nothing had been drawn."""

from __future__ import annotations

import numpy as np
import torch

from workflow_scripts.lib.base.seeds import derive
from workflow_scripts.lib.compute.live_course import LiveCourse
from workflow_scripts.lib.generate import diffusion, sampling
from workflow_scripts.lib.generate.diffusion import Condition
from workflow_scripts.lib.generate.generator_training import Training
from workflow_scripts.lib.generate.networks import make_network

COUNT = 8  # images in a strip
SAMPLER, EVALUATIONS = "dpmpp_2m", 12  # few: a strip shows whether cells appear, not how good they will be


def keep(training: Training, course: LiveCourse, minutes: float, dtype: torch.dtype) -> None:
    """Draw and keep a strip where one is due, and one of the last step."""
    if course.strip_due(minutes, last=training.step == training.steps):
        course.keep_strip(training.step, draw(training, dtype))


@torch.inference_mode()
def draw(training: Training, dtype: torch.dtype) -> np.ndarray:
    """Samples uint8 (COUNT, C, s, s) for labels of the training images, the same ones each time."""
    examples, settings, where = training.examples, training.settings, training.where
    channels, side = examples.shape[0], examples.shape[-1]
    with torch.random.fork_rng(devices=[]):
        network = make_network(settings, channels, examples.labels.shape[1], side, dtype)
    network.load_state_dict(training.weights())
    network = network.to(where).eval().requires_grad_(False)
    network.settle()
    seed = derive(examples.seed, "progress")
    denoise = diffusion.conditional(
        training.objective, network, condition(training), limits=training.pixels.limits(where)
    )
    x = sampling.sample(
        training.objective,
        denoise,
        (COUNT, channels, side, side),
        SAMPLER,
        EVALUATIONS,
        torch.Generator().manual_seed(seed),
        where,
    )
    return training.pixels.to_bytes(x).cpu().numpy()


def condition(training: Training) -> Condition:
    """Labels, columns and reference channels of training images, evenly spaced."""
    examples, settings = training.examples, training.settings
    places = torch.linspace(0, len(examples.rows) - 1, COUNT).round().long().to(training.where)
    columns = None if examples.columns is None else examples.columns[places]
    reference = shown = None
    if settings.get("reference_fraction", 0):
        rows = examples.rows[places].to(examples.images.device)
        given = settings.get("reference_places")
        if not given:  # any channels may be given: all but the last
            given = list(range(examples.shape[0] - 1))
        shown = torch.zeros(COUNT, examples.shape[0], dtype=torch.bool, device=training.where)
        shown[:, given] = True
        real = training.pixels.to_network(examples.images[rows].to(training.where))
        reference = real * shown[:, :, None, None]
    return Condition(examples.labels[places], ~examples.known[places], reference, shown, columns)
