"""Averages of a network's weights over its training, with a power of the step as profile (Karras et al. 2024).

An average of exponent gamma at step t weighs the weights of step s by (gamma + 1) s^gamma / t^(gamma + 1). Its width is
the standard deviation of s under this profile, relative to t. So early weights are forgotten in short trainings too.

The width can be chosen after the training ("post-hoc EMA", section 3.2 of Karras et al. 2024, arXiv:2312.02696): two
averages are followed, copies of them are kept on the way, and the linear combination of all copies whose profile comes
nearest to the wanted one takes its place."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

TRACKED = (0.05, 0.2)  # widths of the two averages from which others are formed
# Copies of each on the way. The profile of a formed average then deviates from the wanted one, in the norm of L2, by at
# most 1 % for widths from 0.05 to 0.2, 2 % up to 0.25, and 5 % at 0.03.
COPIES = 16


def ema_exponent(width: float) -> float:
    """The power gamma of an average whose profile t^gamma has this relative width (Karras et al. 2024, eq. 126)."""
    low, high = 0.0, 1e4
    for _ in range(80):
        middle = (low + high) / 2
        spread = math.sqrt(middle + 1) / (middle + 2) / math.sqrt(middle + 3)
        low, high = (middle, high) if spread > width else (low, middle)
    return low


class PowerAverage:
    """Average of this width of values that change in place; width 0: the values themselves."""

    def __init__(self, values: Tensor, width: float) -> None:
        self.values = values.clone()
        self._exponent = ema_exponent(width) if width > 0 else None
        # Changes from step to step. A captured step finds it here without being told anew.
        self._follow = torch.zeros((), device=values.device)

    def prepare(self, step: int) -> None:
        """Set how far the average follows at this step, counted from 1."""
        follow = 1.0 if self._exponent is None else 1 - (1 - 1 / step) ** (self._exponent + 1)
        self._follow.fill_(follow)

    def update(self, values: Tensor) -> None:
        """Follow the values of a step."""
        # On a CPU a number is faster than a tensor that holds it.
        self.values.lerp_(values, self._follow if values.is_cuda else float(self._follow))


def profile_product(first: float, at: np.ndarray | float, second: float, end: np.ndarray | float) -> np.ndarray:
    """Inner product of the profiles of two averages: exponent `first` at step `at`, `second` at `end`."""
    shorter = np.minimum(at, end)
    logs = (first + second + 1) * np.log(shorter) - (first + 1) * np.log(at) - (second + 1) * np.log(end)
    return (first + 1) * (second + 1) / (first + second + 1) * np.exp(logs)


def combination(copies: Sequence[tuple[float, int]], width: float, end: int) -> np.ndarray:
    """Weights of copies (width, step) whose sum comes nearest to an average of `width` at step `end`: least squares."""
    kinds = [ema_exponent(own) for own, _ in copies]
    steps, wanted = [float(step) for _, step in copies], ema_exponent(width)
    gram = np.array([
        [profile_product(one, at, other, then) for other, then in zip(kinds, steps, strict=True)]
        for one, at in zip(kinds, steps, strict=True)
    ])  # fmt: skip
    aimed = np.array([profile_product(one, at, wanted, float(end)) for one, at in zip(kinds, steps, strict=True)])
    return np.linalg.lstsq(gram, aimed, rcond=None)[0]


class TrackedAverages:
    """Two averages of a training and copies of them, from which one of any width can be formed afterwards."""

    def __init__(self, values: Tensor, steps: int) -> None:
        self.live = [PowerAverage(values, width) for width in TRACKED]
        self.steps = steps
        self._at = {max(1, round(steps * number / COPIES)) for number in range(1, COPIES)} - {steps}
        self.copies: list[tuple[int, list[Tensor]]] = []  # step, the two averages in float16, on the CPU

    def keep(self, step: int) -> None:
        """Copy the averages where one of the copies is due after this step."""
        if step in self._at:
            self.copies.append((step, [average.values.to("cpu", torch.float16) for average in self.live]))

    def formed(self, width: float) -> Tensor:
        """The average of this width at the end of the training, on the CPU."""
        ends = [(self.steps, [average.values.cpu() for average in self.live])]
        held = [
            (of, step, value) for step, pair in (*self.copies, *ends) for of, value in zip(TRACKED, pair, strict=True)
        ]
        parts = combination([(of, step) for of, step, _ in held], width, self.steps)
        total = torch.zeros(held[0][2].shape, dtype=torch.float64)
        for part, (_, _, value) in zip(parts, held, strict=True):
            total.add_(value.double(), alpha=float(part))
        return total.float()

    def saved(self) -> dict[str, Any]:
        """State that a resumed training needs."""
        copies = [(step, *pair) for step, pair in self.copies]
        return {"live": [average.values for average in self.live], "copies": copies}

    def restore(self, saved: dict[str, Any]) -> None:
        """Go on from a saved state."""
        for average, values in zip(self.live, saved["live"], strict=True):
            average.values.copy_(values)
        self.copies = [(step, list(pair)) for step, *pair in saved["copies"]]
