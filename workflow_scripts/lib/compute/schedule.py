"""Learning-rate schedules: a linear warm-up and half a cosine down to zero.

Settings are `steps`, `learning_rate` (the highest) and `warmup` (fraction of the steps); steps count from 0. Generators
and classifiers differ in where the cosine begins. Trained weights depend on that, so there are two functions."""

from __future__ import annotations

import math
from typing import Any


def cosine_throughout(settings: dict[str, Any], step: int) -> float:
    """Cosine from the first step on, scaled by the warm-up; constant after the warm-up unless `decay` is set."""
    steps, warm = settings["steps"], settings["warmup"] * settings["steps"]
    rise = min(1.0, (step + 1) / warm) if warm else 1.0
    return settings["learning_rate"] * rise * (half_cosine(step, steps) if settings["decay"] else 1.0)


def cosine_after_warmup(settings: dict[str, Any], step: int) -> float:
    """Warm-up to the highest rate, and the cosine over the steps that follow."""
    steps, warm = settings["steps"], settings["warmup"] * settings["steps"]
    if step + 1 < warm:
        return settings["learning_rate"] * (step + 1) / warm
    return settings["learning_rate"] * half_cosine(step + 1 - warm, steps + 1 - warm)


def half_cosine(done: float, whole: float) -> float:
    """Half a cosine: falls from 1 to 0 as `done` goes from 0 to `whole`."""
    return (1 + math.cos(math.pi * done / whole)) / 2
