"""Batches of an arm, and all that a method may use at one optimiser step.

All randomness of step s derives from (seed, s), on a GPU from (seed, block of steps), because it draws there for many
steps at once. So a resumed training equals an undisturbed one.

What a method asks for has two halves: tensors that are drawn for the step, and a function of these tensors alone. A GPU
can capture the second half together with the network (see captured_step.py)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from torch import Tensor

from workflow_scripts.lib.base.seeds import derive
from workflow_scripts.lib.classify import arm_settings, augment, backbones, classifier_file, losses
from workflow_scripts.lib.classify.backbones import Backbone
from workflow_scripts.lib.classify.method_steps import LabelledBatch
from workflow_scripts.lib.compute import multiprocess

BLOCK = 64  # steps that a GPU draws for at once


@dataclass
class Images:
    """Images of one source, on the CPU; `synthetic` decides how they are counted."""

    pixels: np.ndarray  # uint8 (N, C, H, W); or embeddings, float32 (N, D, 1, 1)
    labels: np.ndarray  # (N, K), between 0 and 1
    synthetic: bool = False  # made, not photographed
    photographs: int = 0  # of a synthetic source: so many of its pixels are photographs, the first ones
    rows: np.ndarray | None = None  # the images of this source among the pixels, repeats allowed; None: all
    weights: np.ndarray | None = None  # weight of each image of this source (len(self),); None: equal
    features: np.ndarray | None = None  # (len(self), D): representations in place of images

    def __len__(self) -> int:
        if self.features is not None:
            return len(self.features)
        return len(self.pixels) if self.rows is None else len(self.rows)


class Order:
    """Endless sequence of shuffled passes through `count` images, with random access."""

    def __init__(self, count: int, seed: int) -> None:
        self.count, self.seed = count, seed
        self._pass, self._shuffled = -1, np.zeros(0, dtype=np.int64)

    def batch(self, step: int, size: int) -> np.ndarray:
        """The images of a step, (size,)."""
        out, at = [], step * size
        while size > 0:
            index, start = divmod(at, self.count)
            if index != self._pass:
                self._pass = index
                self._shuffled = np.random.default_rng(derive(self.seed, index)).permutation(self.count)
            out.append(self._shuffled[start : start + size])
            at, size = at + len(out[-1]), size - len(out[-1])
        return np.concatenate(out)


Value = TypeVar("Value")


class PerBlock(Generic[Value]):
    """Values that are made for a block of steps at once; the last block is kept."""

    def __init__(self, make: Callable[[int], Value]) -> None:
        self._make, self._number, self._value = make, -1, None

    def of(self, step: int) -> tuple[Value, int]:
        """Values of the block that a step lies in, and the step's place in it."""
        number, place = divmod(step, BLOCK)
        if number != self._number:
            self._number, self._value = number, self._make(number)
        return self._value, place


class Source:
    """Augmented, standardised batches of one source; `name` sets its random numbers apart from the other source's."""

    def __init__(
        self, images: Images, name: str, settings: dict[str, Any], seed: int, mean: Tensor, std: Tensor
    ) -> None:
        self.images, self.name, self.settings, self.seed = images, name, settings, seed
        self.mean, self.std = mean, std
        self.order = Order(len(images), derive(seed, "order", name))
        self.pixels = torch.as_tensor(images.pixels)
        self.labels = torch.as_tensor(images.labels, dtype=torch.float32)
        self._gains = 1 if self.pixels.is_floating_point() else self.pixels.shape[1]
        where = mean.device
        if where.type == "cuda" and self.pixels.numel() < torch.cuda.mem_get_info(where)[0] // 4:
            self.pixels, self.labels = self.pixels.to(where), self.labels.to(where)
        self._rows = PerBlock(self._rows_of_block)
        self._draws = {purpose: PerBlock(self._block_maker(purpose)) for purpose in ("augment", "strong")}

    def batch(self, step: int, count: int) -> LabelledBatch:
        """First `count` images of the step's batch; the random draws do not depend on `count`."""
        pixels, targets, *draws = self.drawn(step, count)
        return LabelledBatch(self.ready(pixels, *draws), targets)

    def points(self, step: int, count: int) -> tuple[Tensor, Tensor]:
        """First `count` representations of the step's batch (n, D), of a source that has these, and their targets."""
        chosen = self._chosen(step, count)
        found = torch.as_tensor(self.images.features[chosen.cpu().numpy()])
        return found.to(self.mean.device), self.labels[chosen].to(self.mean.device)

    def made(self, step: int, count: int) -> int:
        """How many of the first images of the step's batch are made, not photographed."""
        if not self.images.synthetic or not self.images.photographs:
            return count if self.images.synthetic else 0
        return int((self._indices(step)[:count] >= self.images.photographs).sum())

    def strong(self, step: int, count: int) -> Tensor:
        """The same images in a second view, augmented as `strong` says but for what it erases."""
        pixels, _, *draws = self.drawn(step, count, "strong")
        return self.ready(pixels, *draws)

    def drawn(self, step: int, count: int, purpose: str = "augment") -> tuple[Tensor, ...]:
        """Pixels uint8 (n, C, H, W) of the step, targets (n, K), and draws of their augmentation."""
        where, chosen = self.mean.device, self._chosen(step, count)
        draws = self._drawn(step, purpose).first(count)
        return self.pixels[chosen].to(where), self.labels[chosen].to(where), draws.grid.to(where), draws.gain.to(where)

    def ready(self, pixels: Tensor, grid: Tensor, gain: Tensor) -> Tensor:
        """Augmented and standardised images, by what was drawn; embeddings are not augmented."""
        if pixels.is_floating_point():
            return classifier_file.standardise(pixels / 255, self.mean, self.std)
        return augment.apply(pixels, augment.Draws(grid, gain), self.mean, self.std)

    def _chosen(self, step: int, count: int) -> Tensor:
        if self.pixels.device.type == "cpu":
            return torch.as_tensor(self._indices(step)[:count])
        rows, place = self._rows.of(step)
        return rows[place, :count]

    def _indices(self, step: int) -> np.ndarray:
        index = self.order.batch(step, self.settings["batch"])
        return index if self.images.rows is None else self.images.rows[index]

    def _rows_of_block(self, number: int) -> Tensor:
        steps = range(number * BLOCK, (number + 1) * BLOCK)
        return torch.as_tensor(np.stack([self._indices(step) for step in steps]), device=self.pixels.device)

    def _augmentation(self, purpose: str) -> dict[str, Any]:
        if purpose == "augment":
            return self.settings["augment"]
        view = arm_settings.second_view(self.settings)
        return self.settings["augment"] | {key: view[key] for key in ("scale", "aspect", "intensity")}

    def _drawn(self, step: int, purpose: str) -> augment.Draws:
        if self.mean.device.type == "cpu":
            generator = torch.Generator().manual_seed(derive(self.seed, purpose, self.name, step))
            return augment.draw(self.settings["batch"], self._gains, self._augmentation(purpose), generator)
        block, place = self._draws[purpose].of(step)
        return block.part(slice(place * self.settings["batch"], (place + 1) * self.settings["batch"]))

    def _block_maker(self, purpose: str) -> Callable[[int], augment.Draws]:
        def make(number: int) -> augment.Draws:
            generator = torch.Generator(self.mean.device)
            generator.manual_seed(derive(self.seed, purpose, self.name, "block", number))
            count = BLOCK * self.settings["batch"]
            return augment.draw(count, self._gains, self._augmentation(purpose), generator)

        return make


@dataclass
class ArmStep:
    """Implementation of `method_steps.Step`: what a method may use at one optimiser step; counts images."""

    settings: dict[str, Any]
    seed: int
    network: Backbone
    loss: losses.Loss
    real_source: Source
    second_source: Source | None
    dtype: torch.dtype
    projector: torch.nn.Module | None = None  # of self-supervision
    number: int = 0
    seen: dict[str, int] = field(default_factory=lambda: {"real": 0, "synthetic": 0})

    def __post_init__(self) -> None:
        self._lambdas = PerBlock(lambda number: self._lambdas_of(range(number * BLOCK, (number + 1) * BLOCK)))

    @property
    def steps(self) -> int:
        """Steps of the training."""
        return self.settings["steps"]

    @property
    def batch(self) -> int:
        """Images a step."""
        return self.settings["batch"]

    def real(self, count: int) -> LabelledBatch:
        """The first images of the step's real batch, augmented."""
        return self._take(self.real_source, count)

    def second(self, count: int) -> LabelledBatch:
        """Images of the second source, augmented."""
        if self.second_source is None:
            raise ValueError(f"method {self.settings['method']!r} has no second source of images")
        return self._take(self.second_source, count)

    def views(self, count: int) -> tuple[LabelledBatch, Tensor]:
        """Images of the second source, augmented, and the same images in a second, strongly augmented view."""
        first = self.second(count)
        self.count(self.second_source, count)  # the second view of each
        return first, self.second_source.strong(self.number, count)

    def second_features(self, count: int) -> tuple[Tensor, Tensor]:
        """Features of the second source and their targets."""
        source = self.second_source
        if source is None or source.images.features is None:
            raise ValueError(f"method {self.settings['method']!r} has no second source of features")
        self.count(source, count)
        return source.points(self.number, count)

    def project(self, features: Tensor) -> Tensor:
        """Features through the projector of self-supervision."""
        return self.projector(features)

    def random(self, purpose: str) -> np.random.Generator:
        """Random numbers of this step for one purpose, the same in all arms."""
        return np.random.default_rng(derive(self.seed, purpose, self.number))

    def lambdas(self, count: int) -> Tensor:
        """One λ ~ Beta(alpha, alpha) an image (n,); the same in all arms that mix."""
        where = self.real_source.mean.device
        if where.type == "cpu":
            return self._lambdas_of(range(self.number, self.number + 1))[0, :count]
        block, place = self._lambdas.of(self.number)
        return block[place, :count]

    def _lambdas_of(self, steps: range) -> Tensor:
        generators = (np.random.default_rng(derive(self.seed, "lambda", step)) for step in steps)
        alpha = self.settings["alpha"]
        values = np.stack([generator.beta(alpha, alpha, self.batch) for generator in generators])
        return torch.as_tensor(values, dtype=torch.float32, device=self.real_source.mean.device)

    def weights(self, count: int) -> Tensor:
        """Weights of the images that `second` gives (n,)."""
        source = self.second_source
        if source is None or source.images.weights is None:
            raise ValueError(f"method {self.settings['method']!r} has no images with weights")
        values = source.images.weights[source.order.batch(self.number, self.batch)[:count]]
        return torch.as_tensor(values, dtype=torch.float32, device=source.mean.device)

    def features(self, images: Tensor) -> Tensor:
        """Pooled representation (n, D) in float32."""
        count, part = len(images), multiprocess.part(len(images))
        self.network.draws.count, self.network.draws.part = count, part
        with torch.autocast(images.device.type, self.dtype, enabled=self.dtype != torch.float32):
            features = self.network.features(images[part])
        return multiprocess.whole(features.float(), count)

    def features_apart(self, images: Tensor) -> Tensor:
        """Features with BatchNorm statistics of these images alone, without an update of running statistics."""
        with backbones.statistics_apart(self.network):
            return self.features(images)

    def head(self, features: Tensor) -> Tensor:
        """Logits (n, K)."""
        return self.network.head(features)

    def _take(self, source: Source, count: int) -> LabelledBatch:
        self.count(source, count)
        return source.batch(self.number, count)

    def count(self, source: Source, count: int) -> None:
        """Count the first images of a source's batch, which the network sees."""
        made = source.made(self.number, count)
        self.seen["synthetic"] += made
        self.seen["real"] += count - made
