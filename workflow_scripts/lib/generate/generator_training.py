"""Training of a generator: the examples of each step, the optimiser, and the averaged weights.

All randomness of step s derives from (seed, s), and the order of the images from (seed, epoch). So a training that was
killed and resumed ends with the same weights as an undisturbed one.

Several processes (see compute/multiprocess.py) draw the same numbers for the whole batch, and each computes a part of
it. Gradients are summed before they are used, so all processes take the same steps.

A step has two halves. `prepared` draws everything random and copies it to the device. What follows (`losses`, the
gradient, `_update`) is a function of those tensors that never reads a value back, so a GPU need not wait for it."""

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
from workflow_scripts.lib.compute import multiprocess, schedule
from workflow_scripts.lib.compute.checkpoint import Resume
from workflow_scripts.lib.generate import diffusion, generator_choices, out_of_memory
from workflow_scripts.lib.generate.diffusion import Condition, Network, Objective
from workflow_scripts.lib.generate.networks import make_network
from workflow_scripts.lib.images.image_set import channel_statistics
from workflow_scripts.lib.images.orientation import COUNT as ORIENTATIONS
from workflow_scripts.lib.images.orientation import oriented

HISTORY_ROWS = 200  # rows of history, about, whatever the length of the training
CHECK_EVERY = 20  # steps between checks of the loss, each of which synchronises the GPU
# Steps in a row with a non-finite gradient, which are skipped, before the training stops with an error.
GIVE_UP = 8


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


class Examples:
    """Training images with their labels, and the sampling of examples for each step."""

    def __init__(
        self,
        images: np.ndarray,
        labels: np.ndarray,
        settings: dict[str, Any],
        seed: int,
        known: np.ndarray | None = None,
    ) -> None:
        self.images, self.seed, self.batch = torch.from_numpy(images), seed, int(settings["batch"])
        known = np.ones(len(images), dtype=bool) if known is None else known
        # Labels of images whose label is not known are never looked at.
        labels = labels * known[:, None]
        self.rows = np.arange(len(images))
        self.labels = labels.astype(np.float32)
        if settings["labels"] == "single":
            # One example for each label of an image, with that label alone; one without labels where they are unknown.
            self.rows, which = np.nonzero(labels)
            self.labels = np.eye(labels.shape[1], dtype=np.float32)[which]
            nameless = np.flatnonzero(~known)
            self.rows = np.concatenate([self.rows, nameless])
            self.labels = np.concatenate([self.labels, np.zeros((len(nameless), labels.shape[1]), np.float32)])
        self.known = known[self.rows]
        self.balanced = settings["label_sampling"] == "balanced"
        # A label may be the probability of one; it counts as a class from one half on.
        self.carriers = [rows for column in self.labels.T if len(rows := np.flatnonzero(column >= 0.5))]
        self.nameless = np.flatnonzero(~self.known)
        if len(self.rows) == 0 or (self.balanced and not self.carriers):
            raise UserError("no labelled image to train the generator on in this fold's train part")
        self._epoch, self._order = -1, np.empty(0, dtype=np.int64)

    def indices(self, step: int) -> np.ndarray:
        """Indices of the examples of step `step`: shuffled epochs, or every class equally often."""
        if self.balanced:
            rng = np.random.default_rng(derive(self.seed, "balanced", step))
            classes = rng.integers(len(self.carriers), size=self.batch)
            chosen = np.array([rng.choice(self.carriers[number]) for number in classes])
            if len(self.nameless):
                # Images of unknown label are as frequent as in the set.
                other = rng.random(self.batch) < len(self.nameless) / len(self.rows)
                chosen[other] = rng.choice(self.nameless, size=int(other.sum()))
            return chosen
        # The epochs form one endless list, so that a batch may span two of them, or many if it is larger than the set.
        places = np.arange(step * self.batch, (step + 1) * self.batch)
        epochs = places // len(self.rows)
        return np.concatenate(
            [self._shuffled(epoch)[places[epochs == epoch] % len(self.rows)] for epoch in np.unique(epochs)]
        )

    def _shuffled(self, epoch: int) -> np.ndarray:
        if epoch != self._epoch:
            rng = np.random.default_rng(derive(self.seed, "epoch", int(epoch)))
            self._epoch, self._order = epoch, rng.permutation(len(self.rows))
        return self._order

    def take(self, step: int) -> tuple[Tensor, Tensor, Tensor]:
        """Images uint8 (B, C, H, W), labels (B, K) and whether they are known (B,): this process's part of a step."""
        chosen = self.indices(step)[multiprocess.part(self.batch)]
        labels, known = torch.from_numpy(self.labels[chosen]), torch.from_numpy(self.known[chosen])
        return self.images[torch.from_numpy(self.rows[chosen])], labels, known


def shown_channels(n: int, channels: int, fraction: float, generator: torch.Generator) -> Tensor:
    """Reference channels of each of n examples, bool (n, C): some but not all, in a `fraction` of the examples.

    Every number of channels is equally likely, so that "all but one" is as frequent as a half."""
    some = torch.rand(n, generator=generator) < fraction
    count = torch.randint(1, channels, (n,), generator=generator) * some
    order = torch.rand(n, channels, generator=generator).argsort(dim=1).argsort(dim=1)
    return order < count[:, None]


def ema_exponent(width: float) -> float:
    """The power gamma of an average whose profile t^gamma has this relative width (Karras et al. 2024, eq. 126)."""
    low, high = 0.0, 1e4
    for _ in range(80):
        middle = (low + high) / 2
        spread = math.sqrt(middle + 1) / (middle + 2) / math.sqrt(middle + 3)
        low, high = (middle, high) if spread > width else (low, middle)
    return low


@dataclass
class Trained:
    """Result of a training: averaged weights and history."""

    weights: dict[str, Tensor]  # the averaged weights, with which images are made
    history: list[list[float]]  # step, images, loss, learning_rate, seconds
    seconds: float


HISTORY_COLUMNS = ("step", "images", "loss", "learning_rate", "seconds")


@dataclass
class _State:
    """Training state that changes from step to step."""

    network: nn.Module
    average: dict[str, Tensor]
    optimiser: torch.optim.Optimizer
    at_once: int  # images whose gradient is computed at a time: the whole batch, unless memory does not suffice
    step: int = 0
    seconds: float = 0.0
    skipped: Tensor = field(default_factory=lambda: torch.zeros(3))  # steps: in a row, in a row at most, in all
    losses: list[Tensor] = field(default_factory=list)  # since the last row of history
    history: list[list[float]] = field(default_factory=list)

    def saved(self) -> dict[str, Any]:
        return {
            "network": self.network.state_dict(),
            "average": self.average,
            "optimiser": self.optimiser.state_dict(),
            "at_once": self.at_once,
            "step": self.step,
            "seconds": self.seconds,
            "skipped": self.skipped,
            "losses": self.losses,
            "history": self.history,
        }

    def restore(self, saved: dict[str, Any]) -> None:
        self.network.load_state_dict(saved["network"])
        for name, value in self.average.items():
            value.copy_(saved["average"][name])
        self.optimiser.load_state_dict(saved["optimiser"])
        self.at_once, self.step, self.seconds = saved["at_once"], saved["step"], saved["seconds"]
        # Loaded to the CPU; later losses lie where the network is.
        where = next(self.network.parameters()).device
        self.skipped = saved["skipped"].to(where)
        self.losses, self.history = [loss.to(where) for loss in saved["losses"]], saved["history"]


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
) -> Trained:
    """Train a generator on images uint8 (n, C, s, s) and labels (n, K); calls `progress(step, loss)`.

    `known` (n,) bool: images whose label is known; the others are always shown without labels. None: all are."""
    objective = diffusion.make_objective(settings["objective"])
    multiprocess.check_batch(int(settings["batch"]), "the generator's batch")
    if known is not None and not known.all() and not generator_choices.NETWORKS[settings["network"]].missing_labels:
        raise UserError(f"network {settings['network']} has no word for a missing label: give it labelled images alone")
    examples = Examples(images, labels, settings, seed, known)
    pixels = pixels.on(device)
    state = _started(images.shape, labels.shape[1], settings, seed, device, dtype)
    saved = resume.load()
    if saved is not None:
        state.restore(saved)
    exponent = ema_exponent(settings["ema_width"]) if settings["ema_width"] > 0 else None
    steps, every = int(settings["steps"]), max(1, int(settings["steps"]) // HISTORY_ROWS)
    before, started = state.seconds, time.monotonic()
    while state.step < steps:
        batch = prepared(examples, objective, settings, state.step, seed, device)
        loss = _one_step(state, objective, pixels, batch, settings, examples.batch)
        state.step += 1
        state.losses.append(loss)
        _follow(state, exponent)
        state.seconds = before + time.monotonic() - started
        if state.step % CHECK_EVERY == 0 or state.step in (1, steps):
            _check(state, loss, steps)
            progress(state.step, float(loss))
        if state.step % every == 0 or state.step == steps:
            # Without the steps that were skipped because their loss was not finite.
            multiprocess.check_same(state.network)
            seen = torch.stack(state.losses)
            mean = float(seen[seen.isfinite()].mean())
            rate = schedule.cosine_throughout(settings, state.step - 1)
            state.history.append([state.step, state.step * examples.batch, mean, rate, state.seconds])
            state.losses = []
        if resume.due() and state.step < steps:
            _check(state, loss, steps)
            resume.save(state.saved())
    if int(state.skipped[2]):
        log.warning("%d of %d steps were skipped: their gradient was no number", int(state.skipped[2]), steps)
    return Trained({name: value.cpu() for name, value in state.average.items()}, state.history, state.seconds)


def _started(
    shape: tuple[int, ...], classes: int, settings: dict[str, Any], seed: int, device: torch.device, dtype: torch.dtype
) -> _State:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive(seed, "weights"))
        network = make_network(settings, shape[1], classes, shape[-1], dtype)
    network.to(device)
    average = {name: value.clone() for name, value in network.state_dict().items()}
    optimiser = torch.optim.Adam(
        network.parameters(), lr=0.0, betas=(settings["beta1"], settings["beta2"]), eps=1e-8, fused=True
    )
    return _State(network, average, optimiser, int(settings["batch"]), skipped=torch.zeros(3, device=device))


@dataclass
class DiffusionBatch:
    """Examples of one step with all of their random draws, on the device."""

    images: Tensor  # uint8 (B, C, s, s)
    labels: Tensor  # (B, K)
    dropped: Tensor  # (B,) bool: shown without labels
    sigma: Tensor  # (B,)
    noise: Tensor  # (B, C, s, s)
    shown: Tensor | None  # (B, C) bool: reference channels; None: the network has no inputs for them

    def parts(self, most: int) -> list[DiffusionBatch]:
        """Batch split into parts of at most so many examples."""
        starts = range(0, len(self.images), most)
        return [
            DiffusionBatch(*(None if value is None else value[start : start + most] for value in vars(self).values()))
            for start in starts
        ]


def prepared(
    examples: Examples, objective: Objective, settings: dict[str, Any], step: int, seed: int, device: torch.device
) -> DiffusionBatch:
    """Examples of a step with all random draws; each of several processes gets its part."""
    seed, count, own = derive(seed, "step", step), examples.batch, multiprocess.part(examples.batch)
    generator = torch.Generator().manual_seed(seed)
    images, labels, known = examples.take(step)
    if settings["turn_images"]:
        images = oriented(images, torch.randint(ORIENTATIONS, (count,), generator=generator)[own])
    dropped = (torch.rand(count, generator=generator) < settings["label_dropout"])[own] | ~known
    sigma = diffusion.training_levels(objective, count, generator)[own]
    if device.type == "cuda":
        # Drawn where it is needed: bringing it there would cost more than the rest of the batch.
        generator = torch.Generator(device).manual_seed(derive(seed, "noise"))
    noise = torch.randn((count, *images.shape[1:]), generator=generator, device=device)[own]
    shown = None
    if generator_choices.takes_references(settings):
        generator = torch.Generator().manual_seed(derive(seed, "given"))
        shown = shown_channels(count, images.shape[1], settings["reference_fraction"], generator)[own].to(device)
    return DiffusionBatch(images.to(device), labels.to(device), dropped.to(device), sigma.to(device), noise, shown)


def losses(objective: Objective, network: Network, pixels: Pixels, batch: DiffusionBatch) -> Tensor:
    """Loss of each example (B,); a function of tensors alone."""
    x0 = pixels.to_network(batch.images)
    reference = None if batch.shown is None else x0 * batch.shown[:, :, None, None]
    condition = Condition(batch.labels, batch.dropped, reference, batch.shown)
    return diffusion.training_loss(objective, network, x0, condition, batch.sigma, batch.noise)


def _one_step(
    state: _State, objective: Objective, pixels: Pixels, batch: DiffusionBatch, settings: dict[str, Any], whole: int
) -> Tensor:
    for group in state.optimiser.param_groups:
        group["lr"] = schedule.cosine_throughout(settings, state.step)

    def gradient(most: int) -> Tensor:
        # Accumulated gradients of the parts, each weighted by its fraction of the examples, equal that of the batch.
        state.optimiser.zero_grad(set_to_none=True)
        fractions = []
        for part in batch.parts(most):
            fraction = losses(objective, state.network, pixels, part).mean() * (len(part.images) / whole)
            fraction.backward()
            fractions.append(fraction.detach())
        return torch.stack(fractions).sum()

    # Each process finds its own limit of memory: the gradient is the same.
    loss, state.at_once = out_of_memory.halving(gradient, state.at_once, "training")
    multiprocess.add_up([loss, *(p.grad for p in state.network.parameters() if p.grad is not None)])
    _update(state, settings["gradient_limit"])
    return loss


def _update(state: _State, limit: float) -> None:
    # A non-finite gradient would ruin the weights, so the optimiser skips such a step. The decision is a tensor:
    # reading its value would synchronise the GPU.
    parameters = list(state.network.parameters())
    norm = nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
    invalid = (~norm.isfinite()).float()
    if limit > 0:
        nn.utils.clip_grads_with_norm_(parameters, limit, norm)
    state.optimiser.grad_scale, state.optimiser.found_inf = None, invalid
    state.optimiser.step()
    state.network.renormalise()
    in_a_row = (state.skipped[0] + 1) * invalid
    state.skipped.copy_(torch.stack([in_a_row, torch.maximum(state.skipped[1], in_a_row), state.skipped[2] + invalid]))


@torch.no_grad()
def _follow(state: _State, exponent: float | None) -> None:
    # Averaged over a fixed fraction of the steps so far, so early weights are forgotten in short trainings too.
    weight = 1.0 if exponent is None else 1 - (1 - 1 / state.step) ** (exponent + 1)
    values = state.network.state_dict()
    torch._foreach_lerp_([state.average[name] for name in values], list(values.values()), weight)


def _check(state: _State, loss: Tensor, steps: int) -> None:
    if int(state.skipped[1]) < min(GIVE_UP, steps):
        return
    what = "gradient" if math.isfinite(float(loss)) else "loss"
    raise UserError(
        f"the generator's {what} is no longer a number: {int(state.skipped[1])} steps in a row up to step "
        f"{state.step} had to be skipped; lower learning_rate, or set or lower gradient_limit"
    )
