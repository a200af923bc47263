"""The same work on several things at a time, in threads of one process: a small network alone does not fill a GPU."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import TypeVar

import torch

Item = TypeVar("Item")


def each(work: Callable[[Item], None], items: Sequence[Item], at_once: int, where: torch.device) -> None:
    """Do `work` on each item, `at_once` at a time; on a GPU each has a queue (stream) of its own there.

    The first failure is raised when those that are at work have ended; no other is begun."""
    if at_once == 1:
        for item in items:
            work(item)
        return

    def apart(item: Item) -> None:
        with torch.cuda.stream(torch.cuda.Stream(where)) if where.type == "cuda" else contextlib.nullcontext():
            work(item)

    with ThreadPoolExecutor(at_once) as pool:
        waiting = [pool.submit(apart, item) for item in items]
        try:
            for done in as_completed(waiting):
                done.result()
        finally:
            for one in waiting:
                one.cancel()
