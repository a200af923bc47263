"""Speed of this machine, measured in about two seconds, so that rates of another machine can be scaled to it.

Two kinds of work behave differently: convolutions, which use the processor's vector units and its number format, and
everything else, which is Python, numpy and compression. Each has its own figure. A figure means nothing by itself; the
ratio of the figures of two machines is what a rate is multiplied by."""

from __future__ import annotations

import time
import zlib
from collections.abc import Callable
from statistics import median

import numpy as np
import torch
from torch import nn

from workflow_scripts.lib.compute import device
from workflow_scripts.lib.cost.measured_rates import Speed

SECONDS = 0.9  # of measuring a kind of work
LEAST_ROUNDS = 3


def measure() -> Speed:
    """Measure this machine as it is now, with whatever else it does."""
    threads = torch.get_num_threads()
    device.use_threads(1)
    try:
        return Speed(_rounds(_convolutions()), _rounds(_mixture))
    finally:
        device.use_threads(threads)


def _rounds(work: Callable[[], object]) -> float:
    """Rounds a second: the median, so that a short disturbance does not count."""
    work()  # loads libraries and fills caches
    taken: list[float] = []
    until = time.perf_counter() + SECONDS
    while len(taken) < LEAST_ROUNDS or time.perf_counter() < until:
        begin = time.perf_counter()
        work()
        taken.append(time.perf_counter() - begin)
    return 1 / median(taken)


def _convolutions() -> Callable[[], None]:
    """A round of network training: forward and backward pass of convolutions like those of a generator."""
    dtype = device.fast_dtype(torch.device("cpu"))
    layers = nn.Sequential(nn.Conv2d(64, 64, 3, padding=1), nn.SiLU(), nn.Conv2d(64, 128, 3, padding=1), nn.SiLU())
    layers = layers.to(dtype, memory_format=torch.channels_last)
    images = torch.ones(16, 64, 16, 16, dtype=dtype).contiguous(memory_format=torch.channels_last)

    def work() -> None:
        layers(images).square().mean().backward()
        layers.zero_grad()

    return work


def _mixture() -> int:
    """A round of everything else: array operations, sorting, compression, and an interpreted loop."""
    values = np.sin(np.arange(60_000.0))
    order = np.argsort(values, kind="stable")
    spectrum = np.abs(np.fft.rfft(values[order]))
    packed = zlib.compress((spectrum * 10).astype(np.int32).tobytes(), 1)
    return sum(number * number % 7 for number in range(20_000)) + len(packed)
