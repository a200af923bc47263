"""Training of a generator: what it sees, in which order, and what is kept of it.

Everything random at step s derives from (seed, s), and the order of the images from (seed, epoch), so that a training
that was killed and goes on from its checkpoint ends with the same weights as one that was left alone."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from workflow_scripts.lib import diffusion
from workflow_scripts.lib.dataset import channel_statistics
from workflow_scripts.lib.diffusion import Condition, Objective
from workflow_scripts.lib.resume import Resume
from workflow_scripts.lib.seeds import derive
from workflow_scripts.lib.stage import UserError
from workflow_scripts.lib.unet import make_network

HISTORY_ROWS = 200  # about so many rows of history, however long the training
CHECK_EVERY = 20  # steps between looks at the loss, which on a GPU wait for it


@dataclass
class Pixels:
    """How bytes become the numbers that the network sees, channel by channel: (byte - shift) / scale."""

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

    def to_network(self, images: Tensor) -> Tensor:
        """uint8 (n, C, H, W) -> float32."""
        shift, scale = (value.to(images.device).view(1, -1, 1, 1) for value in (self.shift, self.scale))
        return (images.float() - shift) / scale

    def to_bytes(self, images: Tensor) -> Tensor:
        """float32 (n, C, H, W) -> uint8, limited to 0 ... 255."""
        shift, scale = (value.to(images.device).view(1, -1, 1, 1) for value in (self.shift, self.scale))
        return (images * scale + shift).round().clamp(0, 255).to(torch.uint8)

    def limits(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """The darkest and the brightest pixel as the network sees them, each (1, C, 1, 1)."""
        low, high = -self.shift / self.scale, (255 - self.shift) / self.scale
        return low.view(1, -1, 1, 1).to(device), high.view(1, -1, 1, 1).to(device)


class Examples:
    """Images with their labels, and which of them each step sees."""

    def __init__(self, images: np.ndarray, labels: np.ndarray, settings: dict[str, Any], seed: int) -> None:
        self.images, self.seed, self.batch = torch.from_numpy(images), seed, int(settings["batch"])
        self.rows = np.arange(len(images))
        self.labels = labels.astype(np.float32)
        if settings["labels"] == "single":
            # One example for each label of an image, as if it carried no other.
            self.rows, which = np.nonzero(labels)
            self.labels = np.eye(labels.shape[1], dtype=np.float32)[which]
        self.balanced = settings["label_sampling"] == "balanced"
        self.carriers = [found for column in self.labels.T if len(found := np.flatnonzero(column))]
        if len(self.rows) == 0 or (self.balanced and not self.carriers):
            raise UserError("no labelled image to train the generator on in this fold's train part")
        self._epoch, self._order = -1, np.empty(0, dtype=np.int64)

    def indices(self, step: int) -> np.ndarray:
        """Which examples step `step` sees: all in turn in a new order each epoch, or every class equally often."""
        if self.balanced:
            rng = np.random.default_rng(derive(self.seed, "balanced", step))
            classes = rng.integers(len(self.carriers), size=self.batch)
            return np.array([rng.choice(self.carriers[number]) for number in classes])
        # The epochs form one endless list, so that a batch may span two of them, or many if it is larger than the set.
        places = np.arange(step * self.batch, (step + 1) * self.batch)
        epochs = places // len(self.rows)
        return np.concatenate(
            [self._of(epoch)[places[epochs == epoch] % len(self.rows)] for epoch in np.unique(epochs)]
        )

    def _of(self, epoch: int) -> np.ndarray:
        if epoch != self._epoch:
            rng = np.random.default_rng(derive(self.seed, "epoch", int(epoch)))
            self._epoch, self._order = epoch, rng.permutation(len(self.rows))
        return self._order

    def take(self, step: int) -> tuple[Tensor, Tensor]:
        """Images uint8 (B, C, H, W) and labels (B, K) of a step."""
        chosen = self.indices(step)
        return self.images[torch.from_numpy(self.rows[chosen])], torch.from_numpy(self.labels[chosen])


def turned(images: Tensor, generator: torch.Generator) -> Tensor:
    """Each image in one of its eight orientations, drawn at random: cells know no up and no left."""
    way = torch.randint(8, (len(images),), generator=generator)
    out = torch.empty_like(images)
    for number in range(8):
        chosen = torch.rot90(images[way == number], number % 4, dims=(2, 3))
        out[way == number] = chosen.flip(3) if number >= 4 else chosen
    return out


def learning_rate(settings: dict[str, Any], step: int) -> float:
    """Rises linearly over the first `warmup` of the steps, then falls to zero along half a cosine (if `decay`)."""
    steps, top = settings["steps"], settings["learning_rate"]
    warm = settings["warmup"] * steps
    rise = min(1.0, (step + 1) / warm) if warm else 1.0
    fall = (1 + math.cos(math.pi * step / steps)) / 2 if settings["decay"] else 1.0
    return top * rise * fall


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
    """What a training leaves behind."""

    weights: dict[str, Tensor]  # the averaged weights, with which images are made
    history: list[list[float]]  # step, images, loss, learning_rate, seconds
    seconds: float


HISTORY_COLUMNS = ("step", "images", "loss", "learning_rate", "seconds")


@dataclass
class _State:
    """All that changes from step to step."""

    network: nn.Module
    average: dict[str, Tensor]
    optimiser: torch.optim.Optimizer
    step: int = 0
    seconds: float = 0.0
    losses: list[Tensor] = field(default_factory=list)  # since the last row of history
    history: list[list[float]] = field(default_factory=list)

    def saved(self) -> dict[str, Any]:
        return {
            "network": self.network.state_dict(),
            "average": self.average,
            "optimiser": self.optimiser.state_dict(),
            "step": self.step,
            "seconds": self.seconds,
            "losses": self.losses,
            "history": self.history,
        }

    def restore(self, saved: dict[str, Any]) -> None:
        self.network.load_state_dict(saved["network"])
        for name, value in self.average.items():
            value.copy_(saved["average"][name])
        self.optimiser.load_state_dict(saved["optimiser"])
        self.step, self.seconds = saved["step"], saved["seconds"]
        # Loaded to the CPU; later losses lie where the network is.
        where = next(self.network.parameters()).device
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
) -> Trained:
    """Train a generator on images uint8 (n, C, s, s) and labels (n, K); `progress(step, loss)` hears how it goes."""
    objective = diffusion.make_objective(settings["objective"])
    examples = Examples(images, labels, settings, seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive(seed, "weights"))
        network = make_network(settings, images.shape[1], labels.shape[1], images.shape[-1], dtype)
    network.to(device)
    average = {name: value.clone() for name, value in network.state_dict().items()}
    optimiser = torch.optim.Adam(
        network.parameters(), lr=0.0, betas=(settings["beta1"], settings["beta2"]), eps=1e-8, fused=True
    )
    state = _State(network, average, optimiser)
    saved = resume.load()
    if saved is not None:
        state.restore(saved)
    exponent = ema_exponent(settings["ema_width"]) if settings["ema_width"] > 0 else None
    steps, every = int(settings["steps"]), max(1, int(settings["steps"]) // HISTORY_ROWS)
    before, started = state.seconds, time.monotonic()
    while state.step < steps:
        loss = _one_step(state, objective, examples, pixels, settings, derive(seed, "step", state.step), device)
        state.step += 1
        state.losses.append(loss)
        _follow(state, exponent)
        state.seconds = before + time.monotonic() - started
        if state.step % CHECK_EVERY == 0 or state.step in (1, steps):
            _check(loss, state.step)
            progress(state.step, float(loss))
        if state.step % every == 0 or state.step == steps:
            mean = float(torch.stack(state.losses).mean())
            rate = learning_rate(settings, state.step - 1)
            state.history.append([state.step, state.step * examples.batch, mean, rate, state.seconds])
            state.losses = []
        if resume.due() and state.step < steps:
            _check(loss, state.step)
            resume.save(state.saved())
    return Trained({name: value.cpu() for name, value in state.average.items()}, state.history, state.seconds)


def _one_step(
    state: _State,
    objective: Objective,
    examples: Examples,
    pixels: Pixels,
    settings: dict[str, Any],
    seed: int,
    device: torch.device,
) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    images, labels = examples.take(state.step)
    if settings["turn_images"]:
        images = turned(images, generator)
    dropped = torch.rand(len(labels), generator=generator) < settings["label_dropout"]
    condition = Condition(labels.to(device), dropped.to(device))
    x0 = pixels.to_network(images.to(device))
    loss = diffusion.training_loss(objective, state.network, x0, condition, generator).mean()
    for group in state.optimiser.param_groups:
        group["lr"] = learning_rate(settings, state.step)
    state.optimiser.zero_grad(set_to_none=True)
    loss.backward()
    if settings["gradient_limit"] > 0:
        nn.utils.clip_grad_norm_(state.network.parameters(), settings["gradient_limit"])
    state.optimiser.step()
    state.network.renormalise()
    return loss.detach()


@torch.no_grad()
def _follow(state: _State, exponent: float | None) -> None:
    # An average over a fixed share of the steps so far: early weights are forgotten however short the training.
    weight = 1.0 if exponent is None else 1 - (1 - 1 / state.step) ** (exponent + 1)
    values = state.network.state_dict()
    torch._foreach_lerp_([state.average[name] for name in values], list(values.values()), weight)


def _check(loss: Tensor, step: int) -> None:
    if not math.isfinite(float(loss)):
        raise UserError(
            f"the generator's loss is no longer a number at step {step}: lower learning_rate, or lower gradient_limit"
        )
