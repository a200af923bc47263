"""A training step that a GPU runs as one CUDA graph: one launch in place of hundreds.

A step qualifies if it is a function of tensors of constant shape that updates its state in place, reads no value back
and draws no random number. Its first calls run as they are, which settles memory and the choice of kernels. The next
one is captured, and from then on it is replayed. Where that is impossible it runs operation by operation."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from workflow_scripts.lib.base.stage import log
from workflow_scripts.lib.compute import multiprocess

WARM_UP = 3  # calls before a step is captured
CAPTURING = threading.Lock()  # torch captures one step at a time in a process


def why_not(where: torch.device) -> str | None:
    """Reason why steps on this device run operation by operation, or None."""
    if where.type != "cuda":
        return "there is no GPU"
    return "several processes share it" if multiprocess.size() > 1 else None


class StepGraph:
    """Callable that runs a step: captured after some calls, unless there is a reason not to.

    On a GPU it has a stream of its own, so that several trainings of a process can overlap. Whoever calls it does so,
    and prepares its inputs, within `stream()`."""

    def __init__(self, step: Callable[..., Tensor], where: torch.device, name: str, reason: str | None = None) -> None:
        self.step, self.name = step, name
        self.reason = why_not(where) or reason
        self._stream = torch.cuda.Stream(where) if where.type == "cuda" else None
        self._calls, self._graph = 0, None
        self._inputs: list[Tensor | None] = []
        self._result: Tensor | None = None
        if self._stream is not None:
            self._stream.wait_stream(torch.cuda.current_stream(where))

    def stream(self) -> contextlib.AbstractContextManager[Any]:
        """Context in which the step and what belongs to it run."""
        return torch.cuda.stream(self._stream) if self._stream is not None else contextlib.nullcontext()

    def describe(self) -> str:
        """One line for the log: which way steps run."""
        if self.reason is None:
            return f"{self.name}: one CUDA graph a step"
        return f"{self.name}: step by step, because {self.reason}"

    def __call__(self, *inputs: Tensor | None) -> Tensor:
        """Result of the step for these inputs."""
        if self.reason is None and self._graph is None and self._calls >= WARM_UP:
            self._capture(inputs)
        if self._graph is None:
            self._calls += 1
            return self.step(*inputs)
        for held, value in zip(self._inputs, inputs, strict=True):
            if held is not None:
                held.copy_(value)
        self._graph.replay()
        return self._result.clone()

    def from_outside(self, *inputs: Tensor | None) -> Tensor:
        """Result of the step for inputs of another stream, for use in that stream."""
        if self._stream is None:
            return self(*inputs)
        outside = torch.cuda.current_stream(self._stream.device)
        self._stream.wait_stream(outside)
        with self.stream():
            result = self(*inputs)
        outside.wait_stream(self._stream)
        return result

    def _capture(self, inputs: tuple[Tensor | None, ...]) -> None:
        with CAPTURING:
            self._record(inputs)

    def _record(self, inputs: tuple[Tensor | None, ...]) -> None:
        held = [None if value is None else value.clone() for value in inputs]
        graph = torch.cuda.CUDAGraph()
        try:
            # Other threads may use the GPU meanwhile.
            with torch.cuda.graph(graph, stream=self._stream, capture_error_mode="thread_local"):
                result = self.step(*held)
        except RuntimeError as error:
            # Nothing has run: a capture only records.
            self.reason = f"it could not be captured ({str(error).splitlines()[0]})"
            torch.cuda.synchronize()
            log.warning("%s", self.describe())
            return
        self._graph, self._inputs, self._result = graph, held, result


class Compiled:
    """A function compiled by torch.compile, or as it is where no compiler works; the shapes of its inputs are fixed."""

    def __init__(self, function: Callable[..., Tensor], name: str) -> None:
        self.function, self.name, self._tried = function, name, False
        self._compiled: Callable[..., Tensor] | None = torch.compile(function, dynamic=False)

    def __call__(self, *inputs: Any) -> Tensor:
        """Result of the function."""
        if self._compiled is None:
            return self.function(*inputs)
        try:
            return self._compiled(*inputs)
        except torch.OutOfMemoryError:
            raise
        except Exception as error:
            if self._tried:
                raise
            log.warning(
                "%s: not compiled, because %s", self.name, (str(error).splitlines() or [type(error).__name__])[0]
            )
            self._compiled = None
            return self.function(*inputs)
        finally:
            self._tried = True
