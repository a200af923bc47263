"""Recovery from out-of-memory errors: the work is repeated in smaller parts."""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor

from workflow_scripts.lib.base.errors import UserError
from workflow_scripts.lib.base.stage import log
from workflow_scripts.lib.generate.diffusion import Condition, Network

Result = TypeVar("Result")


def halving(work: Callable[[int], Result], most: int, what: str) -> tuple[Result, int]:
    """Result of `work(most)`, with `most` images at a time halved until memory suffices; and the final `most`."""
    while True:
        try:
            return work(most), most
        except torch.OutOfMemoryError:
            if most == 1:
                raise UserError(
                    f"the memory does not suffice for {what} with one image at a time: take smaller widths or images"
                ) from None
        # Outside the handler: the error's traceback keeps what the failed attempt had in memory.
        most = (most + 1) // 2
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        log.warning("the memory does not suffice for %s: going on with %d images at a time", what, most)


class Divided:
    """Network that takes all images at once, or in parts once memory has not sufficed.

    Noise is drawn for the whole batch, so the images are the same."""

    def __init__(self, network: Network) -> None:
        self.network, self.most = network, 0

    def __call__(self, x: Tensor, log_sigma: Tensor, condition: Condition) -> Tensor:
        """F(x; ln sigma, condition), shaped like x."""

        def ask(most: int) -> Tensor:
            if most >= len(x):
                return self.network(x, log_sigma, condition)
            parts = [slice(start, start + most) for start in range(0, len(x), most)]
            return torch.cat([self.network(x[part], log_sigma[part], condition.part(part)) for part in parts])

        most = min(self.most or len(x), len(x))
        out, fitting = halving(ask, most, "sampling")
        if fitting < most:
            self.most = fitting
        return out
