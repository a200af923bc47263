"""All weights of a network in one buffer, so that a training step treats them by a handful of operations.

A step of a network with unit-norm filters (see networks.py) has work for every layer before and after its gradient:
filters are formed, gradients projected, steps taken, norms restored, averages updated. Layer by layer these are more
than a thousand small operations, and a GPU spends most of its time waiting for them.

Here the filters of all layers lie side by side, and those of equal length are the rows of one matrix. Let w be a
stored filter of n numbers and norm sqrt(n), and g the gradient of c w, the filter that its layer multiplies by. Then
    gradient of w = c (g - w (w . g) / n),
which is what automatic differentiation of c sqrt(n) w / |w| gives where |w| = sqrt(n)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

import torch
from torch import Tensor, nn

from workflow_scripts.lib.generate.unit_layers import UnitLinear


@dataclass(frozen=True)
class _Group:
    """Filters of equal length, which lie side by side in the buffer."""

    numbers: slice  # their place in the buffer
    filters: slice  # their place among all filters
    fan: int  # numbers a filter

    def rows(self, buffer: Tensor) -> Tensor:
        """The filters as rows of a matrix, a view."""
        return buffer[self.numbers].view(-1, self.fan)


class FlatWeights:
    """Parameters of a network as views into one buffer, with their gradient and the filters formed from them.

    Parameters keep their names, shapes and values. With `channels_last` (None: on a GPU) filters of convolutions are
    stored so, as cuDNN's fast kernels want them, and so are formed filters and gradients."""

    def __init__(self, network: nn.Module, channels_last: bool | None = None) -> None:
        layers = [module for module in network.modules() if isinstance(module, UnitLinear)]
        # Convolutions first, as their filters are formed in another number format; then by length.
        layers.sort(key=lambda layer: (layer.weight.ndim == 2, layer.fan))
        filters = [layer.weight for layer in layers]
        others = [value for value in network.parameters() if not any(value is weight for weight in filters)]
        self._parameters = [*filters, *others]
        self._names = {id(value): name for name, value in network.named_parameters()}
        self._channels_last = self._parameters[0].is_cuda if channels_last is None else channels_last
        self.values = torch.cat([self._in_order(value.detach()) for value in self._parameters])
        self.gradient = torch.zeros_like(self.values)
        for parameter, view in zip(self._parameters, self._views(self.values), strict=True):
            parameter.data = view
        self._groups = _grouped(layers)
        fans = [math.sqrt(layer.fan) for layer in layers for _ in range(len(layer.weight))]
        self._roots = self.values.new_tensor(fans)
        self._norms = torch.ones_like(self._roots)
        self._make_leaves(layers, others, getattr(network, "dtype", torch.float32))

    def _make_leaves(self, layers: list[UnitLinear], others: list[nn.Parameter], dtype: torch.dtype) -> None:
        # Filters of convolutions are formed in the network's numbers. Linear maps see the embedding, in float32.
        factors = [self.values.new_full((layer.weight.numel(),), layer.gain / math.sqrt(layer.fan)) for layer in layers]
        self._factors = torch.cat([self.values[:0], *factors])
        ends = [sum(layer.weight.numel() for layer in layers if layer.weight.ndim == 4), len(self._factors)]
        formed = [self.values.new_empty(ends[0], dtype=dtype), self.values.new_empty(ends[1] - ends[0])]
        self._formed = [(slice(0, ends[0]), formed[0]), (slice(*ends), formed[1])]
        kinds = [[layer for layer in layers if layer.weight.ndim == dimensions] for dimensions in (4, 2)]
        for buffer, alike in zip(formed, kinds, strict=True):
            for layer, view in zip(alike, self._views(buffer, [layer.weight for layer in alike]), strict=True):
                # A leaf of the automatic differentiation, whose gradient `collect` takes.
                layer.ready = view.detach().requires_grad_()
        self.leaves: list[Tensor] = [*(layer.ready for layer in layers), *others]

    def _in_order(self, value: Tensor) -> Tensor:
        """The numbers of a parameter in the order in which the buffer has them."""
        return (value.permute(0, 2, 3, 1) if self._channels_last and value.ndim == 4 else value).reshape(-1)

    def _views(self, buffer: Tensor, like: Sequence[Tensor] | None = None) -> list[Tensor]:
        """A buffer as tensors shaped like the parameters, or like some of them that it holds."""
        like = self._parameters if like is None else like
        parts = buffer.split([value.numel() for value in like])
        return [self._shaped(part, value.shape) for part, value in zip(parts, like, strict=True)]

    def _shaped(self, part: Tensor, shape: torch.Size) -> Tensor:
        if self._channels_last and len(shape) == 4:
            outputs, inputs, height, width = shape
            return part.view(outputs, height, width, inputs).permute(0, 3, 1, 2)
        return part.view(shape)

    def named(self, buffer: Tensor) -> dict[str, Tensor]:
        """A buffer like `values` as tensors by the parameters' names, views."""
        views = zip(self._parameters, self._views(buffer), strict=True)
        return {self._names[id(parameter)]: view for parameter, view in views}

    @torch.no_grad()
    def form(self) -> None:
        """Form all filters from their stored numbers, of norm sqrt(n); once a step."""
        for place, formed in self._formed:
            torch.mul(self.values[place], self._factors[place], out=formed)

    @torch.no_grad()
    def collect(self, gradients: Sequence[Tensor], first: bool) -> None:
        """Take the gradients of `leaves`, or add them to those of earlier parts of the batch."""
        views = self._views(self.gradient)
        if first:
            torch._foreach_copy_(views, list(gradients))
        else:
            torch._foreach_add_(views, [gradient.to(self.gradient.dtype) for gradient in gradients])

    @torch.no_grad()
    def project(self) -> None:
        """Turn the gradient of the formed filters into that of the stored ones."""
        for group in self._groups:
            stored, gradient = group.rows(self.values), group.rows(self.gradient)
            along = torch.linalg.vecdot(stored, gradient)
            gradient.addcmul_(stored, along[:, None], value=-1 / group.fan)
        self.gradient[: len(self._factors)] *= self._factors

    @torch.no_grad()
    def renormalise(self) -> None:
        """Bring stored filters back to their norm after a step, so that the effective learning rate stays the same."""
        for group in self._groups:
            torch.linalg.vector_norm(group.rows(self.values), dim=1, out=self._norms[group.filters])
        back = self._roots / self._norms.clamp_(min=1e-12)
        for group in self._groups:
            group.rows(self.values).mul_(back[group.filters, None])


def _grouped(layers: list[UnitLinear]) -> list[_Group]:
    out: list[_Group] = []
    numbers = filters = 0
    for (_, fan), alike in groupby(layers, key=lambda layer: (layer.weight.ndim, layer.fan)):
        count = sum(len(layer.weight) for layer in alike)
        out.append(_Group(slice(numbers, numbers + count * fan), slice(filters, filters + count), fan))
        numbers, filters = numbers + count * fan, filters + count
    return out
