"""Examples of each training step of a generator, with all of their random draws, on the device that trains.

Images lie on the device where they fit. Small random numbers are drawn there for many steps at once, from the seed and
the number of the block. Noise is drawn for one step at a time, from the seed and the step. So a step depends on its
number alone, whatever came before it. Nothing is copied from the host's pageable memory, which would make a GPU wait.

The same seed draws the same numbers on the same kind of device: a GPU draws others than a CPU.

Several processes (see compute/multiprocess.py) draw the same numbers for the whole batch, and each takes a part."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from workflow_scripts.lib.base.errors import UserError
from workflow_scripts.lib.base.seeds import derive
from workflow_scripts.lib.compute import multiprocess
from workflow_scripts.lib.generate import diffusion, generator_choices
from workflow_scripts.lib.generate.diffusion import Objective
from workflow_scripts.lib.images.orientation import COUNT as ORIENTATIONS
from workflow_scripts.lib.images.orientation import oriented

BLOCK = 64  # steps whose small random numbers are drawn at once
SURE = 0.5  # a label may be a probability; from here on it counts as the class
RESIDENT = 0.25  # fraction of a GPU's free memory that images may take; larger sets stay on the host


@dataclass
class DiffusionBatch:
    """Examples of one step with all of their random draws, on the device."""

    images: Tensor  # uint8 (B, C, s, s)
    labels: Tensor  # (B, K)
    dropped: Tensor  # (B,) bool: shown without labels
    sigma: Tensor  # (B,)
    noise: Tensor  # (B, C, s, s)
    shown: Tensor | None  # (B, C) bool: reference channels; None: the network has no inputs for them
    columns: Tensor | None = None  # (B, V) values of columns; None: the network is told none

    def parts(self, most: int) -> list[DiffusionBatch]:
        """Batch split into parts of at most so many examples."""
        starts = range(0, len(self.images), most)
        return [
            DiffusionBatch(*(None if value is None else value[start : start + most] for value in vars(self).values()))
            for start in starts
        ]


@dataclass
class _Block:
    """Small random draws of BLOCK steps, a row a step."""

    rows: Tensor  # (BLOCK, B): examples
    ways: Tensor | None  # (BLOCK, B): orientations; None: as they are
    dropped: Tensor  # (BLOCK, B) bool
    sigma: Tensor  # (BLOCK, B)
    shown: Tensor | None  # (BLOCK, B, C) bool


class Examples:
    """Training images with their labels, and the sampling of examples for each step.

    `known` (n,) bool: images whose label is known. Labels of the others are not looked at, and they are always shown
    without labels. None: all are known. `columns` (n, V): values of columns, which are always said."""

    def __init__(
        self,
        images: np.ndarray,
        labels: np.ndarray,
        settings: dict[str, Any],
        seed: int,
        known: np.ndarray | None = None,
        where: torch.device | None = None,
        columns: np.ndarray | None = None,
    ) -> None:
        self.settings, self.seed, self.batch = settings, seed, int(settings["batch"])
        self.where = where or torch.device("cpu")
        known = np.ones(len(images), dtype=bool) if known is None else known
        labels = labels * known[:, None]
        rows, hot = np.arange(len(images)), labels.astype(np.float32)
        if settings["labels"] == "single":
            # One example for each label of an image, with that label alone; one without labels where they are unknown.
            rows, which = np.nonzero(labels)
            unnamed = np.flatnonzero(~known)
            hot = np.concatenate([np.eye(labels.shape[1])[which], np.zeros((len(unnamed), labels.shape[1]))])
            rows = np.concatenate([rows, unnamed])
        self.shape = images.shape[1:]
        self.images = self._stored(torch.from_numpy(images))
        self.rows = torch.from_numpy(rows).to(self.where)
        self.labels = torch.from_numpy(hot).float().to(self.where)
        self.known = torch.from_numpy(known[rows]).to(self.where)
        self.columns = None if columns is None else torch.from_numpy(columns[rows]).float().to(self.where)
        self.balanced = settings["label_sampling"] == "balanced"
        self._carriers = _Carriers(hot, self.where)
        self._classless = torch.from_numpy(np.flatnonzero((hot < SURE).all(axis=1))).to(self.where)
        if len(rows) == 0 or (self.balanced and not self._carriers.classes):
            raise UserError("no labelled image to train the generator on in this fold's train part")
        self._turns = self._turn_table() if settings["turn_images"] else None
        self._generator = torch.Generator(self.where)
        self._epoch, self._order = -1, self.rows[:0]
        self._block_number, self._block = -1, None

    def _stored(self, images: Tensor) -> Tensor:
        if self.where.type == "cuda" and images.numel() < RESIDENT * torch.cuda.mem_get_info(self.where)[0]:
            return images.to(self.where)
        return images

    def _turn_table(self) -> Tensor:
        # For each orientation the pixel that each place takes: (8, s * s).
        pixels = torch.arange(self.shape[1] * self.shape[2]).view(1, 1, *self.shape[1:])
        return oriented(pixels.expand(ORIENTATIONS, -1, -1, -1), torch.arange(ORIENTATIONS)).flatten(1).to(self.where)

    def _seeded(self, *purpose: str | int) -> torch.Generator:
        return self._generator.manual_seed(derive(self.seed, *purpose))

    # Which examples ---------------------------------------------------------------------------------------------------

    def indices(self, number: int) -> Tensor:
        """Indices (BLOCK, B) of the examples of a block: shuffled epochs, or every class equally often."""
        if self.balanced:
            return self._balanced(self._seeded("balanced", number))
        # The epochs form one endless list, so that a batch may span two of them, or many if it is larger than the set.
        count, numbers = len(self.rows), BLOCK * self.batch
        begin, end, parts = number * numbers, (number + 1) * numbers, []
        for epoch in range(begin // count, -(-end // count)):
            start = epoch * count
            parts.append(self._shuffled(epoch)[max(begin - start, 0) : min(end - start, count)])
        return torch.cat(parts).view(BLOCK, self.batch)

    def _shuffled(self, epoch: int) -> Tensor:
        if epoch != self._epoch:
            generator = self._seeded("epoch", epoch)
            self._epoch = epoch
            self._order = torch.randperm(len(self.rows), generator=generator, device=self.where)
        return self._order

    def _balanced(self, generator: torch.Generator) -> Tensor:
        chosen = self._carriers.draw((BLOCK, self.batch), generator)
        if len(self._classless):
            # What no class can draw is as frequent as in the set: unknown labels, answers of which none is sure, and
            # images of no class.
            other = self._uniform(generator) < len(self._classless) / len(self.rows)
            which = torch.randint(len(self._classless), chosen.shape, generator=generator, device=self.where)
            chosen = torch.where(other, self._classless[which], chosen)
        return chosen

    # Small numbers, for many steps at once ----------------------------------------------------------------------------

    def _uniform(self, generator: torch.Generator) -> Tensor:
        return torch.rand((BLOCK, self.batch), generator=generator, device=self.where)

    def _drawn(self, objective: Objective, number: int) -> _Block:
        rows = self.indices(number)
        generator, ways, shown = self._seeded("block", number), None, None
        if self._turns is not None:
            ways = torch.randint(ORIENTATIONS, rows.shape, generator=generator, device=self.where)
        dropped = (self._uniform(generator) < self.settings["label_dropout"]) | ~self.known[rows]
        sigma = diffusion.training_levels(objective, rows.shape, generator)
        if generator_choices.takes_references(self.settings):
            generator = self._seeded("references", number)
            fraction = self.settings["reference_fraction"]
            places = self.settings.get("reference_places")
            if places:
                shown = chosen_channels(rows.shape, self.shape[0], places, fraction, generator)
            else:
                shown = shown_channels(rows.shape, self.shape[0], fraction, generator)
        return _Block(rows, ways, dropped, sigma, shown)

    def _of_step(self, objective: Objective, step: int) -> _Block:
        number, place = divmod(step, BLOCK)
        if number != self._block_number or self._block is None:
            self._block_number, self._block = number, self._drawn(objective, number)
        return _Block(*(None if value is None else value[place] for value in vars(self._block).values()))

    # One step ---------------------------------------------------------------------------------------------------------

    def take(self, objective: Objective, step: int, whole: bool = False) -> DiffusionBatch:
        """Examples of a step with all random draws; each of several processes gets its part, or the `whole` batch."""
        own = slice(None) if whole else multiprocess.part(self.batch)
        small = _Block(*(None if v is None else v[own] for v in vars(self._of_step(objective, step)).values()))
        noise = torch.randn((self.batch, *self.shape), generator=self._seeded("noise", step), device=self.where)[own]
        return DiffusionBatch(
            self._images(self.rows[small.rows], small.ways), self.labels[small.rows], small.dropped, small.sigma, noise,
            small.shown, None if self.columns is None else self.columns[small.rows],
        )  # fmt: skip

    def _images(self, rows: Tensor, ways: Tensor | None) -> Tensor:
        home = self.images.device
        images = self.images[rows.to(home)]
        if home != self.where:
            # Through pinned memory, so that the host need not wait for the copy.
            images = images.pin_memory().to(self.where, non_blocking=True)
        if ways is None:
            return images
        return oriented(images, ways) if self.where.type == "cpu" else self.turned(images, ways)

    def turned(self, images: Tensor, ways: Tensor) -> Tensor:
        """Images (B, C, s, s), each in its orientation (B,), as `oriented` gives them, without a look at `ways`."""
        places = self._turns[ways][:, None].expand(-1, self.shape[0], -1)
        return images.flatten(2).gather(2, places).view(images.shape)


class _Carriers:
    """The examples that have each class, for draws in which every class is equally frequent."""

    def __init__(self, labels: np.ndarray, where: torch.device) -> None:
        lists = [rows for column in labels.T if len(rows := np.flatnonzero(column >= SURE))]
        self.classes = len(lists)  # with an example
        self.counts = torch.tensor([len(rows) for rows in lists], device=where)
        self.starts = self.counts.cumsum(0) - self.counts
        self.examples = torch.from_numpy(np.concatenate([*lists, np.empty(0, dtype=np.int64)])).to(where)

    def draw(self, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
        """Examples of a class drawn at random, each of its carriers equally likely."""
        where = self.counts.device
        kinds = torch.randint(self.classes, shape, generator=generator, device=where)
        # In float64, so that the longest list is covered evenly.
        places = torch.rand(shape, generator=generator, device=where, dtype=torch.float64)
        counts = self.counts[kinds]
        return self.examples[self.starts[kinds] + (places * counts).long().clamp_(max=counts - 1)]


def shown_channels(shape: tuple[int, ...], channels: int, fraction: float, generator: torch.Generator) -> Tensor:
    """Reference channels of examples of a shape, bool (*shape, C): some but not all, in a `fraction` of the examples.

    Every number of channels is equally likely, so that "all but one" is as frequent as a half."""
    where = generator.device
    some = torch.rand(shape, generator=generator, device=where) < fraction
    count = torch.randint(1, channels, shape, generator=generator, device=where) * some
    order = torch.rand((*shape, channels), generator=generator, device=where).argsort(dim=-1).argsort(dim=-1)
    return order < count[..., None]


def chosen_channels(
    shape: tuple[int, ...], channels: int, places: list[int], fraction: float, generator: torch.Generator
) -> Tensor:
    """Reference channels of examples, bool (*shape, C): these very channels, in a `fraction` of the examples."""
    where = generator.device
    chosen = torch.zeros(channels, dtype=torch.bool, device=where)
    chosen[places] = True
    some = torch.rand(shape, generator=generator, device=where) < fraction
    return some[..., None] & chosen
