"""Training of a generator: the optimiser, the averaged weights, and the course of the loss.

All randomness of step s derives from (seed, s), as `training_examples` draws it. So a training that was killed and
resumed ends with the same weights as an undisturbed one.

Several processes (see compute/multiprocess.py) draw the same numbers for the whole batch, and each computes a part of
it. Gradients are summed before they are used, so all processes take the same steps.

A step has two halves. `Examples.take` draws everything random where the images are. What follows (`Training._step`:
loss, gradient, optimiser, norms, average) is a function of those tensors that never reads a value back. So a GPU need
not wait for it, and runs it as one CUDA graph (see compute/step_graph.py)."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from workflow_scripts.lib.base.errors import UserError
from workflow_scripts.lib.base.seeds import derive
from workflow_scripts.lib.base.stage import log
from workflow_scripts.lib.compute import device as compute_device
from workflow_scripts.lib.compute import multiprocess, schedule
from workflow_scripts.lib.compute.checkpoint import Resume
from workflow_scripts.lib.compute.step_graph import Compiled, StepGraph
from workflow_scripts.lib.generate import diffusion, generator_choices, out_of_memory
from workflow_scripts.lib.generate.diffusion import Condition, Network, Objective
from workflow_scripts.lib.generate.flat_weights import FlatWeights
from workflow_scripts.lib.generate.networks import make_network
from workflow_scripts.lib.generate.training_examples import DiffusionBatch, Examples
from workflow_scripts.lib.generate.weight_averages import PowerAverage, TrackedAverages
from workflow_scripts.lib.images.image_set import channel_statistics

HISTORY_ROWS = 200  # rows of history, about, whatever the length of the training
CHECK_EVERY = 20  # steps between checks of the loss, each of which synchronises the GPU
# Steps in a row with a non-finite gradient, which are skipped, before the training stops with an error.
GIVE_UP = 8
# Steps from which on a GPU compiles the loss: that takes half a minute, and then element-wise operations are fused.
COMPILE_FROM = 20_000


@dataclass
class Pixels:
    """Pixel scaling: from bytes to the network's input, channel by channel: (byte - shift) / scale."""

    shift: Tensor  # (C,)
    scale: Tensor  # (C,)

    @classmethod
    def fitted(cls, kind: str, images: np.ndarray) -> Pixels:
        """`standardised`: mean 0 and deviation 1 over the training images; `signed`: -1 to 1; `unit`: 0 to 1."""
        channels = images.shape[1]
        if kind == "standardised":
            mean, deviation = channel_statistics(images)
            return cls(torch.from_numpy(mean).float(), torch.from_numpy(deviation).float())
        shift, scale = {"signed": (127.5, 127.5), "unit": (0.0, 255.0)}[kind]
        return cls(torch.full((channels,), shift), torch.full((channels,), scale))

    def on(self, device: torch.device) -> Pixels:
        """Copy on a device, so that steps need not transfer it."""
        return Pixels(self.shift.to(device), self.scale.to(device))

    def to_network(self, images: Tensor) -> Tensor:
        """uint8 (n, C, H, W) -> float32."""
        shift, scale = (value.to(images.device).view(1, -1, 1, 1) for value in (self.shift, self.scale))
        return (images.float() - shift) / scale

    def to_bytes(self, images: Tensor) -> Tensor:
        """float32 (n, C, H, W) -> uint8, limited to 0 ... 255."""
        shift, scale = (value.to(images.device).view(1, -1, 1, 1) for value in (self.shift, self.scale))
        return (images * scale + shift).round().clamp(0, 255).to(torch.uint8)

    def limits(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """Smallest and largest pixel value in the network's scale, each (1, C, 1, 1)."""
        low, high = -self.shift / self.scale, (255 - self.shift) / self.scale
        return low.view(1, -1, 1, 1).to(device), high.view(1, -1, 1, 1).to(device)


@dataclass
class Trained:
    """Result of a training: averaged weights and history."""

    weights: dict[str, Tensor]  # the averaged weights, with which images are made
    history: list[list[float]]  # step, images, loss, learning_rate, seconds
    seconds: float
    earlier: dict[str, Tensor] | None = None  # the averaged weights at `snapshot`
    candidates: dict[float, dict[str, Tensor]] = field(default_factory=dict)  # averages of other widths, by width


HISTORY_COLUMNS = ("step", "images", "loss", "learning_rate", "seconds")


def losses(
    objective: Objective,
    network: Network,
    pixels: Pixels,
    batch: DiffusionBatch,
    weighting: diffusion.Weighting = diffusion.plain,
) -> Tensor:
    """Loss of each example (B,); a function of tensors alone."""
    x0 = pixels.to_network(batch.images)
    reference = None if batch.shown is None else x0 * batch.shown[:, :, None, None]
    condition = Condition(batch.labels, batch.dropped, reference, batch.shown, batch.columns)
    each = diffusion.training_loss(objective, network, x0, condition, batch.sigma, batch.noise)
    return weighting(each, network, batch.sigma)


class Training:
    """One generator in training: examples, network, optimiser, averaged weights and history.

    `compiled`: whether a GPU compiles the loss; None: where the training is long. `start`: weights to go on from."""

    def __init__(
        self,
        images: np.ndarray,
        labels: np.ndarray,
        settings: dict[str, Any],
        pixels: Pixels,
        seed: int,
        where: torch.device,
        dtype: torch.dtype,
        known: np.ndarray | None = None,
        compiled: bool | None = None,
        columns: np.ndarray | None = None,
        start: dict[str, Tensor] | None = None,
    ) -> None:
        multiprocess.check_batch(int(settings["batch"]), "the generator's batch")
        if known is not None and not known.all() and not generator_choices.NETWORKS[settings["network"]].missing_labels:
            raise UserError(
                f"network {settings['network']} has no word for a missing label: give it labelled images alone"
            )
        compute_device.choose_kernels(where)
        self.settings, self.where = settings, where
        self.steps, self.batch = int(settings["steps"]), int(settings["batch"])
        self.objective, self.pixels = diffusion.of_settings(settings), pixels.on(where)
        self.weighting = diffusion.make_weighting(settings.get("weighting", "plain"))
        self.examples = Examples(images, labels, settings, seed, known, where, columns)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive(seed, "weights"))
            self.network = make_network(settings, images.shape[1], labels.shape[1], images.shape[-1], dtype)
        if start is not None:
            self.network.load_state_dict(start)
            self.network.renormalise()
        self.flat = FlatWeights(self.network.to(where))
        self.average = PowerAverage(self.flat.values, settings["ema_width"])
        self.tracked = TrackedAverages(self.flat.values, self.steps) if settings.get("ema_widths") else None
        self._averages = [self.average, *(self.tracked.live if self.tracked else [])]
        # The average of an earlier step, for guidance, and that step; 0: none.
        self.earlier: Tensor | None = None
        self._earlier_at = max(1, round(settings.get("snapshot", 0) * self.steps)) if settings.get("snapshot") else 0
        # Changes from step to step, where the step finds it without being told anew.
        self._rate = torch.zeros((), device=where)
        values = nn.Parameter(self.flat.values)
        values.grad = self.flat.gradient
        self.optimiser = torch.optim.Adam(
            [values],
            lr=self._rate,
            betas=(settings["beta1"], settings["beta2"]),
            eps=1e-8,
            fused=True,
            capturable=where.type == "cuda",
        )
        self.at_once = self.batch  # images whose gradient is computed at a time: fewer where memory does not suffice
        self.step, self.seconds = 0, 0.0
        self.skipped = torch.zeros(3, device=where)  # steps: in a row, in a row at most, in all
        self.losses: list[Tensor] = []  # since the last row of history
        self.history: list[list[float]] = []
        long = self.steps >= COMPILE_FROM if compiled is None else compiled
        self._losses = Compiled(self._loss_of, "train") if long and where.type == "cuda" else self._loss_of
        self.graph = StepGraph(self._step, where, "train")
        self._before, self._started = 0.0, time.monotonic()

    # State ------------------------------------------------------------------------------------------------------------

    def saved(self) -> dict[str, Any]:
        """Everything that a resumed training needs."""
        return {
            "values": self.flat.values,
            "average": self.average.values,
            "tracked": self.tracked.saved() if self.tracked else None,
            "earlier": self.earlier,
            "optimiser": self.optimiser.state_dict(),
            "at_once": self.at_once,
            "step": self.step,
            "seconds": self.seconds,
            "skipped": self.skipped,
            "losses": self.losses,
            "history": self.history,
        }

    def restore(self, saved: dict[str, Any]) -> None:
        """Go on from a saved state."""
        with self.graph.stream():
            self.flat.values.copy_(saved["values"])
            self.average.values.copy_(saved["average"])
            if self.tracked:
                self.tracked.restore(saved["tracked"])
            self.optimiser.load_state_dict(saved["optimiser"])
            self.skipped.copy_(saved["skipped"])
            self.losses = [loss.to(self.where) for loss in saved["losses"]]
        for group in self.optimiser.param_groups:
            group["lr"] = self._rate
        self.at_once, self.step, self.seconds = saved["at_once"], saved["step"], saved["seconds"]
        self.history, self.earlier = saved["history"], saved["earlier"]
        self._before, self._started = self.seconds, time.monotonic()

    def weights(self, average: Tensor | None = None) -> dict[str, Tensor]:
        """Averaged weights by name, with the constants of the network, on the CPU; None: the average so far."""
        with self.graph.stream():
            values = self.average.values if average is None else average
            named = dict(self.network.state_dict()) | self.flat.named(values)
            return {
                name: value.detach().to("cpu", memory_format=torch.contiguous_format) for name, value in named.items()
            }

    def trained(self) -> Trained:
        """Result so far; logs how many steps were skipped."""
        with self.graph.stream():
            skipped = int(self.skipped[2])
        if skipped:
            log.warning("%d of %d steps were skipped: their gradient was no number", skipped, self.steps)
        earlier = None if self.earlier is None else self.weights(self.earlier)
        widths = self.settings["ema_widths"] if self.tracked else []
        with self.graph.stream():
            candidates = {width: self.weights(self.tracked.formed(width)) for width in widths}
        return Trained(self.weights(), self.history, self.seconds, earlier, candidates)

    # One step ---------------------------------------------------------------------------------------------------------

    def advance(self) -> None:
        """One step; a GPU may still be busy with it afterwards."""
        with self.graph.stream():
            batch = self.examples.take(self.objective, self.step)
            self._rate.fill_(schedule.cosine_throughout(self.settings, self.step))
            self.step += 1
            for average in self._averages:
                average.prepare(self.step)
            self.losses.append(self.graph(*vars(batch).values()))
            if self.step == self._earlier_at:
                self.earlier = self.average.values.cpu().clone()
            if self.tracked:
                self.tracked.keep(self.step)

    def _loss_of(self, *tensors: Tensor | None) -> Tensor:
        return losses(self.objective, self.network, self.pixels, DiffusionBatch(*tensors), self.weighting)

    def _step(self, *tensors: Tensor | None) -> Tensor:
        batch = DiffusionBatch(*tensors)

        def gradient(most: int) -> Tensor:
            # Gradients of the parts, each weighted by its fraction of the examples, add up to that of the batch.
            self.flat.form()
            fractions = []
            for part in batch.parts(most):
                fraction = self._losses(*vars(part).values()).mean() * (len(part.images) / self.batch)
                self.flat.collect(torch.autograd.grad(fraction, self.flat.leaves), first=not fractions)
                fractions.append(fraction.detach())
            return torch.stack(fractions).sum()

        # Each process finds its own limit of memory: the gradient is the same.
        loss, self.at_once = out_of_memory.halving(gradient, self.at_once, "training")
        self.flat.project()
        multiprocess.add_up([loss, self.flat.gradient])
        self._update()
        return loss

    @torch.no_grad()
    def _update(self) -> None:
        # A non-finite gradient would ruin the weights, so the optimiser skips such a step. The decision is a tensor:
        # reading its value would synchronise the GPU.
        norm, limit = torch.linalg.vector_norm(self.flat.gradient), self.settings["gradient_limit"]
        invalid = (~norm.isfinite()).float()
        if limit > 0:
            self.flat.gradient.mul_((limit / (norm + 1e-6)).clamp(max=1.0))
        self.optimiser.grad_scale, self.optimiser.found_inf = None, invalid
        self.optimiser.step()
        self.flat.renormalise()
        in_a_row = (self.skipped[0] + 1) * invalid
        most = torch.maximum(self.skipped[1], in_a_row)
        self.skipped.copy_(torch.stack([in_a_row, most, self.skipped[2] + invalid]))
        for average in self._averages:
            average.update(self.flat.values)

    # What is told -----------------------------------------------------------------------------------------------------

    def observe(self, progress: Callable[[int, float], None], resume: Resume) -> None:
        """What follows a step: the clock, checks of the loss, a row of history, a checkpoint where one is due."""
        with self.graph.stream():
            self.seconds = self._before + time.monotonic() - self._started
            every = max(1, self.steps // HISTORY_ROWS)
            loss = self.losses[-1]
            if self.step % CHECK_EVERY == 0 or self.step in (1, self.steps):
                self._check(loss)
                progress(self.step, float(loss))
            if self.step % every == 0 or self.step == self.steps:
                multiprocess.check_same(self.network)
                # Without the steps that were skipped because their loss was not finite.
                seen = torch.stack(self.losses)
                mean = float(seen[seen.isfinite()].mean())
                rate = schedule.cosine_throughout(self.settings, self.step - 1)
                self.history.append([self.step, self.step * self.batch, mean, rate, self.seconds])
                self.losses = []
            if resume.due() and self.step < self.steps:
                self._check(loss)
                resume.save(self.saved())

    def _check(self, loss: Tensor) -> None:
        if int(self.skipped[1]) < min(GIVE_UP, self.steps):
            return
        what = "gradient" if math.isfinite(float(loss)) else "loss"
        raise UserError(
            f"the generator's {what} is no longer a number: {int(self.skipped[1])} steps in a row up to step "
            f"{self.step} had to be skipped; lower learning_rate, or set or lower gradient_limit"
        )


def train(
    images: np.ndarray,
    labels: np.ndarray,
    settings: dict[str, Any],
    pixels: Pixels,
    seed: int,
    device: torch.device,
    dtype: torch.dtype,
    resume: Resume,
    progress: Callable[[int, float], None] = lambda step, loss: None,
    known: np.ndarray | None = None,
    columns: np.ndarray | None = None,
    start: dict[str, Tensor] | None = None,
    watch: Callable[[Training], None] = lambda training: None,
) -> Trained:
    """Train a generator on images uint8 (n, C, s, s) and labels (n, K); calls `progress(step, loss)`.

    `known` (n,) bool: images whose label is known; the others are always shown without labels. None: all are.
    `columns` (n, V): values of columns that the network is told, a block a column; None: none. `start`: weights to go
    on from; None: fresh ones. `watch` is called after each step, and changes nothing."""
    training = Training(images, labels, settings, pixels, seed, device, dtype, known, columns=columns, start=start)
    saved = resume.load()
    if saved is not None:
        training.restore(saved)
    log.info("%s", training.graph.describe())
    while training.step < training.steps:
        training.advance()
        training.observe(progress, resume)
        watch(training)
    return training.trained()


def train_together(
    trainings: list[Training], resumes: list[Resume], progress: Callable[[int, float], None] = lambda step, loss: None
) -> list[Trained]:
    """Train several generators in one process, a step of each in turn; on a GPU their steps overlap.

    Each ends as it would alone. `progress` is called for the first of them."""
    while any(training.step < training.steps for training in trainings):
        for number, (training, resume) in enumerate(zip(trainings, resumes, strict=True)):
            if training.step < training.steps:
                training.advance()
                training.observe(progress if number == 0 else _nothing, resume)
    return [training.trained() for training in trainings]


def _nothing(step: int, loss: float) -> None:
    pass
