"""An arm's step as a function of tensors alone, which a GPU can capture (see compute/step_graph.py).

The first step of an arm is recorded: what its method asks for, in which order. From then on this is drawn beforehand,
and the method gets it from outside. A method whose loss depends on more cannot be captured, such as one that looks at
the number of the step or draws random numbers. Neither can a network that draws."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from torch import Tensor, nn

from workflow_scripts.lib.classify.backbones import Backbone, StochasticDepth
from workflow_scripts.lib.classify.method_steps import LabelledBatch
from workflow_scripts.lib.classify.training_step import ArmStep

ASKED = ("real", "second", "views", "second_features", "lambdas", "weights")  # answered by tensors of constant shape
VARIES = ("number", "random")  # differs from step to step, and is no tensor

Request = tuple[str, int]  # what is asked for, and of how many images


class Recorder:
    """Step that notes what its method asks for; `reason`: why the step cannot be captured, or None."""

    def __init__(self, step: ArmStep) -> None:
        self._step, self.requests, self.reason = step, [], None

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._step, name)
        if name in VARIES:
            self.reason = f"its method depends on the step's {name}"
        return partial(self._asked, name, value) if name in ASKED else value

    def _asked(self, name: str, answer: Callable[[int], Any], count: int) -> Any:
        self.requests.append((name, count))
        return answer(count)


class Replayed:
    """Step that answers requests with tensors drawn beforehand."""

    def __init__(self, step: ArmStep, requests: list[Request], tensors: tuple[Tensor, ...]) -> None:
        self._step, self._requests, self._tensors = step, iter(requests), iter(tensors)

    def __getattr__(self, name: str) -> Any:
        return partial(self._answer, name) if name in ASKED else getattr(self._step, name)

    def _answer(self, name: str, count: int) -> Any:
        if next(self._requests) != (name, count):
            raise RuntimeError(f"the method asks for {count} of {name}, which it did not at its first step")
        return _given(self._step, name, self._tensors)


def network_reason(network: Backbone) -> str | None:
    """Reason why a step of this network cannot be captured, or None."""
    for layer in network.modules():
        if (isinstance(layer, StochasticDepth) and layer.probability) or (isinstance(layer, nn.Dropout) and layer.p):
            return "its network draws random numbers"
    return None


def drawn(step: ArmStep, requests: list[Request]) -> tuple[Tensor, ...]:
    """Tensors behind the answers to these requests at the step's number; images are counted."""
    return tuple(tensor for name, count in requests for tensor in _drawn(step, name, count))


def _drawn(step: ArmStep, name: str, count: int) -> tuple[Tensor, ...]:
    if name in ("lambdas", "weights"):
        return (getattr(step, name)(count),)
    if name == "second_features":
        return step.second_features(count)
    source = step.real_source if name == "real" else step.second_source
    for _ in range(2 if name == "views" else 1):
        step.count(source, count)
    tensors = source.drawn(step.number, count)
    return tensors if name != "views" else (*tensors, *source.drawn(step.number, count, "strong")[2:])


def _given(step: ArmStep, name: str, tensors: Iterator[Tensor]) -> Any:
    if name in ("lambdas", "weights"):
        return next(tensors)
    if name == "second_features":
        return next(tensors), next(tensors)
    source = step.real_source if name == "real" else step.second_source
    pixels, targets, grid, gain = (next(tensors) for _ in range(4))
    batch = LabelledBatch(source.ready(pixels, grid, gain), targets)
    return batch if name != "views" else (batch, source.ready(pixels, next(tensors), next(tensors)))
