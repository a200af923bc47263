"""Peers of the large generator in benchmarks.gpu: networks of other code and about as many weights, by the clock."""

from __future__ import annotations

import time
from collections.abc import Iterator

import torch
from torch import Tensor

from benchmarks import edm2_peer, peers
from benchmarks.generator_data import Cells
from benchmarks.gpu_bench import Bench
from benchmarks.peers import Peer

LOOK = 8  # steps between looks at the clock, each of which waits for the device


def ready(bench: Bench) -> Iterator[Peer]:
    """The peers one after the other, in the device's number format; diffusers only where it is installed."""
    widths, blocks = bench.scale.large
    shape, classes = bench.cells.images.shape, len(peers.combinations(bench.cells.labels)[1])
    weights = peers.weights_of(bench.training(bench.settings(bench.scale.large, bench.scale.large_batch)).network)
    known = {"diffusers": peers.diffusers, "edm2": edm2_peer.edm2}
    for name, make in known.items():
        if name == "diffusers" and not _installed():
            print("diffusers is not installed: not compared")
            continue
        made = (shape[1], classes, shape[-1], bench.where)
        peer = peers.of_equal_size(lambda sizes, make=make, made=made: make(*made, sizes, blocks[0]), widths, weights)
        peer.dtype = bench.dtype
        yield peer


def batch(bench: Bench, cells: Cells) -> tuple[Tensor, Tensor]:
    """The first images of a set as one batch on the device, with their classes."""
    rows = torch.arange(bench.scale.large_batch) % len(cells)
    kinds, _ = peers.combinations(cells.labels)
    return torch.from_numpy(cells.images)[rows].to(bench.where), kinds[rows].to(bench.where)


def train(bench: Bench, peer: Peer, cells: Cells, seconds: float) -> int:
    """Train for so many seconds on images that lie on the device; the number of steps."""
    images, kinds = (value.to(bench.where) for value in (torch.from_numpy(cells.images), _kinds(cells)))
    started, steps = time.perf_counter(), 0
    while (gone := time.perf_counter() - started) < seconds:
        for _ in range(LOOK):
            rows = torch.randint(len(cells), (bench.scale.large_batch,), device=bench.where)
            peer.step(images[rows], kinds[rows], min(1.0, gone / seconds))
        bench.wait()
        steps += LOOK
    return steps


def _kinds(cells: Cells) -> Tensor:
    return peers.combinations(cells.labels)[0]


def _installed() -> bool:
    try:
        import diffusers  # noqa: F401
    except ImportError:
        return False
    return True
