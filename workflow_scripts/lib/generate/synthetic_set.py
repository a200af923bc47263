"""Sampling of a synthetic set: all images of its requests, batch by batch, from one generator."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from workflow_scripts.lib.base.errors import UserError
from workflow_scripts.lib.base.progress import Progress
from workflow_scripts.lib.compute import device
from workflow_scripts.lib.compute.checkpoint import Resume
from workflow_scripts.lib.compute.step_graph import StepGraph
from workflow_scripts.lib.generate import generator_choices
from workflow_scripts.lib.generate.diffusion import Condition, Network, Objective, make_objective
from workflow_scripts.lib.generate.generator_file import Generator
from workflow_scripts.lib.generate.out_of_memory import Divided
from workflow_scripts.lib.generate.requests import Requests
from workflow_scripts.lib.generate.sampling import Sampler

Worse = tuple[Objective, Network]  # of autoguidance


class CapturedNetwork:
    """Network whose calls are CUDA graphs, one for each shape of its inputs, where there is a GPU."""

    def __init__(self, network: Network, where: torch.device) -> None:
        self.network, self.where = network, where
        self._graphs: dict[tuple[torch.Size | None, ...], StepGraph] = {}

    def __call__(self, x: Tensor, log_sigma: Tensor, condition: Condition) -> Tensor:
        """F(x; ln sigma, condition), shaped like x."""
        inputs = (x, log_sigma, *vars(condition).values())
        shapes = tuple(None if value is None else value.shape for value in inputs)
        if shapes not in self._graphs:
            self._graphs[shapes] = StepGraph(self._ask, self.where, "sample")
        return self._graphs[shapes].from_outside(*inputs)

    def _ask(self, x: Tensor, log_sigma: Tensor, *condition: Tensor | None) -> Tensor:
        return self.network(x, log_sigma, Condition(*condition))


class Networks:
    """Networks of generators on a device, each loaded and captured once, however many sets are drawn from it."""

    def __init__(self, where: torch.device) -> None:
        device.choose_kernels(where)
        self.where = where
        self._held: dict[tuple[str, bool], CapturedNetwork] = {}

    def of(self, generator: Generator, earlier: bool = False) -> CapturedNetwork:
        """The network of a generator, or that of its snapshot."""
        key = (generator.digest, earlier)
        if key not in self._held:
            network = generator.network(self.where, device.fast_dtype(self.where), earlier)
            self._held[key] = CapturedNetwork(network, self.where)
        return self._held[key]

    def worse(self, generator: Generator, settings: dict[str, Any], weaker: Generator | None) -> Worse | None:
        """Objective and network that the guidance of a set pushes away from, where it is autoguidance."""
        if settings["guidance"].get("against") == generator_choices.EARLIER:
            worse, earlier = generator, True
        elif weaker is not None:
            worse, earlier = weaker, False
        else:
            return None
        return make_objective(worse.settings["objective"]), Divided(self.of(worse, earlier))


def make_images(
    generator: Generator,
    requests: Requests,
    settings: dict[str, Any],
    seed: int,
    where: torch.device,
    resume: Resume,
    weaker: Generator | None = None,
    networks: Networks | None = None,
) -> np.ndarray:
    """Images uint8 (n, C, s, s) as requested; finished batches survive a kill.

    `weaker`: the generator that guidance pushes away from, where the set names one. `networks`: those that earlier sets
    of this process have loaded."""
    networks = networks or Networks(where)
    network, worse = Divided(networks.of(generator)), networks.worse(generator, settings, weaker)
    sampler = Sampler(generator, network, settings, seed, where, worse)
    parts, calls = sampler.parts(len(requests.labels)), sampler.calls()
    saved = resume.load()
    done: list[torch.Tensor] = saved["batches"] if saved else []
    with Progress("sample", total=len(parts) * calls) as bar, torch.inference_mode():
        for number, part in enumerate(parts):
            if number < len(done):
                continue
            condition, against = requests.conditions(part, sampler.pixels, where)
            real = None if requests.real is None else requests.real[part]
            # Batches are long where the chain has a thousand steps, so the bar moves with every call.
            x = sampler.batch(number, condition, against, real, _counter(bar, number * calls))
            if not bool(torch.isfinite(x).all()):
                raise UserError(f"batch {number} holds pixels that are no numbers: lower guidance.scale or train again")
            done.append(requests.with_references(sampler.pixels.to_bytes(x).cpu(), part))
            bar.update((number + 1) * calls)
            if resume.due():
                resume.save({"batches": done})
    return joined(done)


def joined(batches: list[Tensor]) -> np.ndarray:
    """All images of batches uint8 (n, C, s, s) as one array.

    Each batch leaves the list when it is copied, so that a large set is in memory once."""
    out = np.empty((sum(map(len, batches)), *batches[0].shape[1:]), dtype=np.uint8)
    at = 0
    batches.reverse()
    while batches:
        batch = batches.pop()
        out[at : at + len(batch)] = batch.numpy()
        at += len(batch)
    return out


def _counter(bar: Progress, before: int) -> Any:
    count = before

    def one_more() -> None:
        nonlocal count
        count += 1
        bar.update(count)

    return one_more
