"""Training loop of one arm, shared by all methods.

All randomness of step s derives from (seed, s). So a resumed training equals an undisturbed one. All arms see the same
real images, with the same augmentation and in the same order.

Methods pair and mix images, so each of several processes (see compute/multiprocess.py) has the whole batch and computes
its whole loss. The expensive part, forward and backward pass of the trunk, is divided between them."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from workflow_scripts.lib.base.errors import UserError
from workflow_scripts.lib.base.seeds import derive
from workflow_scripts.lib.base.stage import log
from workflow_scripts.lib.classify import (
    arm_choices,
    arm_settings,
    backbones,
    captured_step,
    losses,
    method_steps,
    network_choices,
    pretrained,
    self_supervision,
    validation_scores,
)
from workflow_scripts.lib.classify.classifier_file import predict
from workflow_scripts.lib.classify.resampling import balanced_rows
from workflow_scripts.lib.classify.training_step import ArmStep, Images, Source
from workflow_scripts.lib.compute import device, multiprocess, schedule
from workflow_scripts.lib.compute.checkpoint import Resume
from workflow_scripts.lib.compute.step_graph import StepGraph
from workflow_scripts.lib.images.image_set import channel_statistics

# One value of each at every checkpoint; `loss` is the mean since the one before.
HISTORY = (
    "step", "images", "loss", "learning_rate", "validation_loss", "validation_map", "validation_macro_f1", "seconds",
)  # fmt: skip
CONSTANT = 1e-6  # deviation up to which a feature says nothing
SHOWN = ("loss", "validation_map")  # beside the progress


@dataclass
class Start:
    """What a network starts from in place of random numbers: a trunk, and the pixel scale that this takes."""

    trunk: dict[str, torch.Tensor]
    mean: torch.Tensor  # (C,)
    std: torch.Tensor  # (C,)
    encoder: dict[str, Any] | None = None  # of a generator's encoder: its shape, and what was chosen


@dataclass
class Trained:
    """Result of a training: weights of the best checkpoint, history, and summary numbers."""

    weights: dict[str, torch.Tensor]
    mean: torch.Tensor
    std: torch.Tensor
    history: dict[str, list[float]]
    numbers: dict[str, float]


def checkpoint_steps(settings: dict[str, Any]) -> set[int]:
    """Steps (from 1) after which the arm is evaluated on validation: evenly spaced, the last one included."""
    count = settings["checkpoints"]
    return {round(settings["steps"] * index / count) for index in range(1, count + 1)}


def statistics(pixels: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and standard deviation per channel of pixels scaled to [0, 1]; of embeddings, on the same scale."""
    if pixels.dtype.kind == "f":
        values = pixels.reshape(len(pixels), -1).astype(np.float64)
        std = values.std(axis=0)
        pair = values.mean(axis=0), np.where(std > CONSTANT, std, 1.0)
        return tuple(torch.as_tensor(part / 255, dtype=torch.float32) for part in pair)
    mean, std = channel_statistics(pixels)
    return torch.as_tensor(mean / 255, dtype=torch.float32), torch.as_tensor(std / 255, dtype=torch.float32)


def mean_average_precision(scores: np.ndarray, labels: np.ndarray) -> float:
    """Mean average precision over classes with a positive; rows of equal score are taken together.

    It is separate from the judge's metrics, so that a change of these does not re-train arms."""
    values = []
    for score, label in zip(scores.T, labels.T.astype(bool), strict=True):
        if label.any():
            order = np.argsort(-score, kind="stable")
            last = np.append(np.diff(score[order]) != 0, True)  # of each run of equal scores
            true = np.cumsum(label[order])[last]
            decided = np.flatnonzero(last) + 1
            values.append(float((np.diff(true, prepend=0) * true / decided).sum() / label.sum()))
    return float(np.mean(values)) if values else 0.0


class Trainer:
    """One arm in training: network, optimiser, best checkpoint and history, all of which a checkpoint stores."""

    def __init__(
        self,
        settings: dict[str, Any],
        real: Images,
        second: Images | None,
        seed: int,
        where: torch.device,
        start: Start | None = None,
    ) -> None:
        self.settings, self.where = settings, where
        if settings["sampling"] == "balanced":
            rows = balanced_rows(real.labels, np.random.default_rng(derive(seed, "balance")))
            real = replace(real, rows=rows)
        channels, classes = real.pixels.shape[1], real.labels.shape[1]
        size = real.pixels.shape[-1]
        network = backbones.build(
            settings["backbone"],
            channels,
            classes,
            size,
            derive(seed, "weights"),
            network_choices.cosine_scale(settings),
            start.encoder if start is not None else None,
            network_choices.marks_channels(settings),
        )
        if settings["weights"]:
            pretrained.load(network, network_choices.weights_path(settings["weights"]))
        if start is not None:
            network.trunk.load_state_dict(start.trunk)
        if settings["frozen"]:
            network.freeze()
        self.network = network.to(where, memory_format=torch.channels_last).train()
        # Its own, as other arms may train beside it.
        self.network.draws.generator = torch.Generator(where)
        multiprocess.check_batch(settings["batch"], f"arm {settings['name']}")
        multiprocess.share_statistics(self.network)
        scale = (start.mean, start.std) if start is not None else statistics(real.pixels)
        self.mean, self.std = (value.to(where) for value in scale)
        device.choose_kernels(where)
        positives = torch.as_tensor(real.labels, dtype=torch.float32).sum(dim=0).to(where)
        self.step = ArmStep(
            settings,
            seed,
            self.network,
            losses.make(settings["loss"], positives, len(real.labels), **settings["losses"].get(settings["loss"], {})),
            Source(real, "real", settings, seed, self.mean, self.std),
            # The name is part of the seed.
            Source(second, "partners", settings, seed, self.mean, self.std) if second else None,
            device.fast_dtype(where),
        )
        # It learns with the network, and is no part of it.
        own: list[torch.nn.Parameter] = []
        # The step at which labels come in, and a training of its own begins; 0: from the first step on.
        self.labelled_from = 0
        if arm_choices.METHODS[settings["method"]].self_supervised:
            self.labelled_from = arm_settings.pretraining_steps(settings)
            with backbones.BUILDING:
                made = self_supervision.projector(self.network.head.weight.shape[1], derive(seed, "projector"))
            self.step.projector = made.to(where).train()
            own = list(made.parameters())
        self._rate = torch.zeros((), device=where)  # where a captured step finds it
        # No weight decay on biases and BatchNorm: it would only counteract the normalisation.
        self.learned = [value for value in self.network.parameters() if value.requires_grad] + own
        self.whole = [*self.network.head.parameters(), *own]  # their gradients are whole in each process
        weights = [value for value in self.learned if value.ndim > 1]
        others = [value for value in self.learned if value.ndim <= 1]
        self.optimiser = torch.optim.AdamW(
            [{"params": weights}, {"params": others, "weight_decay": 0.0}],
            lr=self._rate if where.type == "cuda" else settings["learning_rate"],
            weight_decay=settings["weight_decay"],
            fused=True,
            capturable=where.type == "cuda",
        )
        self.requests: list[captured_step.Request] | None = None  # what the method asks for at a step, once it is known
        self.graph = StepGraph(
            self._replayed, where, f"arm {settings['name']}", captured_step.network_reason(self.network)
        )
        self.loss_sum, self.loss_steps, self.seconds = torch.zeros((), dtype=torch.float64, device=where), 0, 0.0
        self.best: dict[str, torch.Tensor] = {}
        self.history: dict[str, list[float]] = {name: [] for name in HISTORY}
        self.best_step, self.best_map = 0, -1.0

    def rate(self, number: int) -> float:
        """The learning rate of a step (from 0); self-supervision and what follows it have a schedule each."""
        first, steps = self.labelled_from, self.settings["steps"]
        if number < first:
            return schedule.cosine_after_warmup(self.settings | {"steps": first}, number)
        return schedule.cosine_after_warmup(self.settings | {"steps": steps - first}, number - first)

    def advance(self, number: int) -> None:
        """One optimiser step; a GPU may still be busy with it afterwards."""
        with self.graph.stream():
            # Networks that draw (stochastic depth) draw the same after a resume.
            self.network.draws.generator.manual_seed(derive(self.step.seed, "network", number))
            self.step.number = number
            if number == self.labelled_from:
                self._forget_gradients()
            self._set_rate(self.rate(number))
            method = method_steps.step_function(self.settings["method"])
            if self.graph.reason is not None:
                self._learn(method(self.step))
            elif self.requests is None:
                recorder = captured_step.Recorder(self.step)
                self._learn(method(recorder))
                self.requests, self.graph.reason = recorder.requests, recorder.reason
                log.info("%s", self.graph.describe())
            else:
                self.graph(*captured_step.drawn(self.step, self.requests))
            self.loss_steps += 1

    def _forget_gradients(self) -> None:
        """The optimiser begins anew. Self-supervision has much larger gradients than labels have. Adam would divide by
        them for many hundred steps, and the trunk would stay as it is."""
        for state in self.optimiser.state.values():
            for value in state.values():
                value.zero_()

    def _set_rate(self, rate: float) -> None:
        self._rate.fill_(rate)
        for group in self.optimiser.param_groups:
            group["lr"] = self._rate if self.where.type == "cuda" else rate

    def _replayed(self, *tensors: torch.Tensor) -> torch.Tensor:
        step = captured_step.Replayed(self.step, self.requests, tensors)
        return self._learn(method_steps.step_function(self.settings["method"])(step))

    def _learn(self, loss: torch.Tensor) -> torch.Tensor:
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        if not multiprocess.first():
            # All have the whole gradient of the head, and each that of the trunk from its own images.
            for value in self.whole:
                if value.grad is not None:
                    value.grad.zero_()
        multiprocess.add_up(value.grad for value in self.learned if value.grad is not None)
        self.optimiser.step()
        self.loss_sum.add_(loss.detach())
        return loss.detach()

    def check(self, validation: Images) -> None:
        """Evaluate on validation and keep the weights if they are the best; a tie goes to the later checkpoint."""
        multiprocess.check_same(self.network)
        count = len(validation.pixels)
        own = predict(self.network, validation.pixels[multiprocess.part(count)], self.mean, self.std)
        logits, labels = multiprocess.whole(torch.as_tensor(own), count).numpy(), validation.labels
        score = mean_average_precision(logits, labels)
        targets = torch.as_tensor(labels, dtype=torch.float32, device=self.where)
        with torch.inference_mode():
            loss = float(self.step.loss(torch.as_tensor(logits, device=self.where), targets).mean())
        number = self.step.number + 1
        row = (
            number,
            sum(self.step.seen.values()),
            float(self.loss_sum) / max(1, self.loss_steps),
            self.rate(self.step.number),
            loss,
            score,
            # For the curves; checkpoints are selected by average precision.
            validation_scores.from_logits(logits, labels),
            self.seconds,
        )
        for name, value in zip(HISTORY, row, strict=True):
            self.history[name].append(value)
        self.loss_sum.zero_()
        self.loss_steps = 0
        if not np.isfinite(logits).all():
            raise UserError(
                f"arm {self.settings['name']}: the network no longer gives finite numbers at step {number}; "
                "lower its learning_rate"
            )
        if score >= self.best_map:
            self.best_map, self.best_step = score, number
            self.best = {name: value.detach().cpu().clone() for name, value in self.network.state_dict().items()}

    def state(self) -> dict[str, Any]:
        """State that a resume needs."""
        return {
            "next": self.step.number + 1,
            "network": self.network.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "projector": self.step.projector.state_dict() if self.step.projector else {},
            "seen": self.step.seen,
            "best": self.best,
            "history": self.history,
            "numbers": [self.best_step, self.best_map, self.loss_steps, self.seconds],
            "loss_sum": self.loss_sum,
        }

    def restore(self, state: dict[str, Any]) -> int:
        """Restore a saved state; returns the next step."""
        self.network.load_state_dict(state["network"])
        self.optimiser.load_state_dict(state["optimiser"])
        if self.step.projector:
            self.step.projector.load_state_dict(state["projector"])
        self.step.seen, self.best, self.history = state["seen"], state["best"], state["history"]
        self.best_step, self.best_map, self.loss_steps, self.seconds = state["numbers"]
        self.loss_sum.copy_(state["loss_sum"])
        return int(state["next"])


def train(
    settings: dict[str, Any],
    real: Images,
    second: Images | None,
    validation: Images,
    seed: int,
    resume: Resume,
    report: Callable[[int, dict[str, float]], None] = lambda step, numbers: None,
    start: Start | None = None,
) -> Trained:
    """Train one arm; resumes from its checkpoint where there is one."""
    trainer = Trainer(settings, real, second, seed, device.device(), start)
    saved = resume.load()
    with trainer.graph.stream():
        first = trainer.restore(saved) if saved else 0
    if trainer.where.type == "cuda" and trainer.graph.reason:
        log.info("%s", trainer.graph.describe())
    checkpoints = checkpoint_steps(settings)
    since = time.monotonic()
    before = trainer.seconds
    for number in range(first, settings["steps"]):
        trainer.advance(number)
        due = number + 1 in checkpoints
        trainer.seconds = before + time.monotonic() - since
        with trainer.graph.stream():
            if due:
                trainer.check(validation)
                trainer.seconds = before + time.monotonic() - since
            if due or resume.due():
                resume.save(trainer.state())
        report(number + 1, {name: values[-1] for name, values in trainer.history.items() if values and name in SHOWN})
    numbers = {
        "seconds": trainer.seconds,
        "images_seen": sum(trainer.step.seen.values()),
        "real_seen": trainer.step.seen["real"],
        "synthetic_seen": trainer.step.seen["synthetic"],
        "steps": settings["steps"],
        "best_step": trainer.best_step,
        "best_validation_map": trainer.best_map,
        "weights": sum(value.numel() for value in trainer.network.parameters()),
    }
    return Trained(trainer.best, trainer.mean.cpu(), trainer.std.cpu(), trainer.history, numbers)
