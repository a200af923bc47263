"""Sampling of a synthetic set: all images of its requests, batch by batch, from one generator."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from workflow_scripts.lib.base.errors import UserError
from workflow_scripts.lib.base.progress import Progress
from workflow_scripts.lib.compute import device
from workflow_scripts.lib.compute.checkpoint import Resume
from workflow_scripts.lib.generate.generator_file import Generator
from workflow_scripts.lib.generate.out_of_memory import Divided
from workflow_scripts.lib.generate.requests import Requests
from workflow_scripts.lib.generate.sampling import Sampler


def make_images(
    generator: Generator, requests: Requests, settings: dict[str, Any], seed: int, where: torch.device, resume: Resume
) -> np.ndarray:
    """Images uint8 (n, C, s, s) as requested; finished batches survive a kill."""
    sampler = Sampler(generator, Divided(generator.network(where, device.fast_dtype(where))), settings, seed, where)
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
    return torch.cat(done).numpy()


def _counter(bar: Progress, before: int) -> Any:
    count = before

    def one_more() -> None:
        nonlocal count
        count += 1
        bar.update(count)

    return one_more
