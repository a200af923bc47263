"""Training loop of one arm, shared by all methods.

All randomness of step s derives from (seed, s). So a resumed training equals an undisturbed one. All arms see the same
real images, with the same augmentation and in the same order.

Methods pair and mix images, so each of several processes (see compute/multiprocess.py) has the whole batch and computes
its whole loss. The expensive part, forward and backward pass of the trunk, is divided between them."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch

from workflow_scripts.lib.base.errors import UserError
from workflow_scripts.lib.base.seeds import derive
from workflow_scripts.lib.classify import (
    arm_choices,
    augment,
    backbones,
    losses,
    method_steps,
    network_choices,
    pretrained,
    self_supervision,
    validation_scores,
)
from workflow_scripts.lib.classify.backbones import Backbone
from workflow_scripts.lib.classify.classifier_file import predict
from workflow_scripts.lib.classify.method_steps import LabelledBatch
from workflow_scripts.lib.classify.resampling import balanced_rows
from workflow_scripts.lib.compute import device, multiprocess, schedule
from workflow_scripts.lib.compute.checkpoint import Resume
from workflow_scripts.lib.images.image_set import channel_statistics

# One value of each at every checkpoint; `loss` is the mean since the one before.
HISTORY = (
    "step", "images", "loss", "learning_rate", "validation_loss", "validation_map", "validation_macro_f1", "seconds",
)  # fmt: skip
SHOWN = ("loss", "validation_map")  # beside the progress


@dataclass
class Images:
    """Images of one source, on the CPU; `synthetic` decides how they are counted."""

    pixels: np.ndarray  # uint8 (N, C, H, W)
    labels: np.ndarray  # (N, K), between 0 and 1
    synthetic: bool = False  # made, not photographed
    rows: np.ndarray | None = None  # the images of this source among the pixels, repeats allowed; None: all
    weights: np.ndarray | None = None  # weight of each image of this source (len(self),); None: equal
    features: np.ndarray | None = None  # (len(self), D): representations in place of images

    def __len__(self) -> int:
        if self.features is not None:
            return len(self.features)
        return len(self.pixels) if self.rows is None else len(self.rows)


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


class Source:
    """Augmented, standardised batches of one source; `name` sets its random numbers apart from the other source's."""

    def __init__(
        self, images: Images, name: str, settings: dict[str, Any], seed: int, mean: torch.Tensor, std: torch.Tensor
    ) -> None:
        self.images, self.name, self.settings, self.seed = images, name, settings, seed
        self.mean, self.std = mean, std
        self.order = Order(len(images), derive(seed, "order", name))
        self.pixels = torch.as_tensor(images.pixels)
        self.labels = torch.as_tensor(images.labels, dtype=torch.float32)
        where = mean.device
        if where.type == "cuda" and self.pixels.numel() < torch.cuda.mem_get_info(where)[0] // 4:
            self.pixels, self.labels = self.pixels.to(where), self.labels.to(where)

    def batch(self, step: int, count: int) -> LabelledBatch:
        """First `count` images of the step's batch; the random draws do not depend on `count`."""
        chosen = self._chosen(step, count)
        ready = self._augmented(chosen, step, "augment", self.settings["augment"])
        return LabelledBatch(ready, self.labels[chosen].to(self.mean.device))

    def points(self, step: int, count: int) -> tuple[torch.Tensor, torch.Tensor]:
        """First `count` representations of the step's batch (n, D), of a source that has these, and their targets."""
        chosen = self._chosen(step, count)
        found = torch.as_tensor(self.images.features[chosen.cpu().numpy()])
        return found.to(self.mean.device), self.labels[chosen].to(self.mean.device)

    def strong(self, step: int, count: int) -> torch.Tensor:
        """The same images in a second view, augmented as `strong` says but for what it erases."""
        view = arm_choices.second_view(self.settings)
        stronger = {name: view[name] for name in ("scale", "aspect", "intensity")}
        return self._augmented(self._chosen(step, count), step, "strong", self.settings["augment"] | stronger)

    def _chosen(self, step: int, count: int) -> torch.Tensor:
        index = self.order.batch(step, self.settings["batch"])[:count]
        if self.images.rows is not None:
            index = self.images.rows[index]
        return torch.as_tensor(index, device=self.pixels.device)

    def _augmented(self, chosen: torch.Tensor, step: int, purpose: str, settings: dict[str, Any]) -> torch.Tensor:
        pixels = self.pixels[chosen].to(self.mean.device)
        generator = torch.Generator().manual_seed(derive(self.seed, purpose, self.name, step))
        draws = augment.draw(self.settings["batch"], pixels.shape[1], settings, generator)
        return augment.apply(pixels, draws.first(len(chosen)), self.mean, self.std)


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

    def views(self, count: int) -> tuple[LabelledBatch, torch.Tensor]:
        """Images of the second source, augmented, and the same images in a second, strongly augmented view."""
        first = self.second(count)
        self._count(self.second_source, count)
        return first, self.second_source.strong(self.number, count)

    def second_features(self, count: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Features of the second source and their targets."""
        source = self.second_source
        if source is None or source.images.features is None:
            raise ValueError(f"method {self.settings['method']!r} has no second source of features")
        self._count(source, count)
        return source.points(self.number, count)

    def project(self, features: torch.Tensor) -> torch.Tensor:
        """Features through the projector of self-supervision."""
        return self.projector(features)

    def random(self, purpose: str) -> np.random.Generator:
        """Random numbers of this step for one purpose, the same in all arms."""
        return np.random.default_rng(derive(self.seed, purpose, self.number))

    def lambdas(self, count: int) -> torch.Tensor:
        """One λ ~ Beta(alpha, alpha) an image (n,); the same in all arms that mix."""
        values = self.random("lambda").beta(self.settings["alpha"], self.settings["alpha"], self.batch)[:count]
        return torch.as_tensor(values, dtype=torch.float32, device=self.real_source.mean.device)

    def weights(self, count: int) -> torch.Tensor:
        """Weights of the images that `second` gives (n,)."""
        source = self.second_source
        if source is None or source.images.weights is None:
            raise ValueError(f"method {self.settings['method']!r} has no images with weights")
        values = source.images.weights[source.order.batch(self.number, self.batch)[:count]]
        return torch.as_tensor(values, dtype=torch.float32, device=source.mean.device)

    def features(self, images: torch.Tensor) -> torch.Tensor:
        """Pooled representation (n, D) in float32."""
        count, part = len(images), multiprocess.part(len(images))
        self.network.draws.count, self.network.draws.part = count, part
        with torch.autocast(images.device.type, self.dtype, enabled=self.dtype != torch.float32):
            features = self.network.features(images[part])
        return multiprocess.whole(features.float(), count)

    def features_apart(self, images: torch.Tensor) -> torch.Tensor:
        """Features with BatchNorm statistics of these images alone, without an update of running statistics."""
        with backbones.statistics_apart(self.network):
            return self.features(images)

    def head(self, features: torch.Tensor) -> torch.Tensor:
        """Logits (n, K)."""
        return self.network.head(features)

    def _take(self, source: Source, count: int) -> LabelledBatch:
        self._count(source, count)
        return source.batch(self.number, count)

    def _count(self, source: Source, count: int) -> None:
        self.seen["synthetic" if source.images.synthetic else "real"] += count


def checkpoint_steps(settings: dict[str, Any]) -> set[int]:
    """Steps (from 1) after which the arm is evaluated on validation: evenly spaced, the last one included."""
    count = settings["checkpoints"]
    return {round(settings["steps"] * index / count) for index in range(1, count + 1)}


def statistics(pixels: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and standard deviation per channel of pixels scaled to [0, 1]."""
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
        if arm_choices.METHODS[settings["method"]].self_supervised:
            made = self_supervision.projector(self.network.head.weight.shape[1], derive(seed, "projector"))
            self.step.projector = made.to(where).train()
            own = list(made.parameters())
        # No weight decay on biases and BatchNorm: it would only counteract the normalisation.
        self.learned = [value for value in self.network.parameters() if value.requires_grad] + own
        self.whole = [*self.network.head.parameters(), *own]  # their gradients are whole in each process
        weights = [value for value in self.learned if value.ndim > 1]
        others = [value for value in self.learned if value.ndim <= 1]
        self.optimiser = torch.optim.AdamW(
            [{"params": weights}, {"params": others, "weight_decay": 0.0}],
            lr=settings["learning_rate"],
            weight_decay=settings["weight_decay"],
            fused=True,
        )
        self.loss_sum, self.loss_steps, self.seconds = torch.zeros((), dtype=torch.float64, device=where), 0, 0.0
        self.best: dict[str, torch.Tensor] = {}
        self.history: dict[str, list[float]] = {name: [] for name in HISTORY}
        self.best_step, self.best_map = 0, -1.0

    def rate(self, number: int) -> float:
        """The learning rate of a step (from 0)."""
        return schedule.cosine_after_warmup(self.settings, number)

    def advance(self, number: int) -> None:
        """One optimiser step."""
        # Networks that draw (stochastic depth) draw the same after a resume.
        self.network.draws.generator.manual_seed(derive(self.step.seed, "network", number))
        self.step.number = number
        for group in self.optimiser.param_groups:
            group["lr"] = self.rate(number)
        loss = method_steps.step_function(self.settings["method"])(self.step)
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        if not multiprocess.first():
            # All have the whole gradient of the head, and each that of the trunk from its own images.
            for value in self.whole:
                if value.grad is not None:
                    value.grad.zero_()
        multiprocess.add_up(value.grad for value in self.learned if value.grad is not None)
        self.optimiser.step()
        self.loss_sum += loss.detach().double()
        self.loss_steps += 1

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
        self.loss_sum, self.loss_steps = torch.zeros_like(self.loss_sum), 0
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
        self.loss_sum = state["loss_sum"].to(self.where)
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
    first = trainer.restore(saved) if saved else 0
    checkpoints = checkpoint_steps(settings)
    since = time.monotonic()
    before = trainer.seconds
    for number in range(first, settings["steps"]):
        trainer.advance(number)
        due = number + 1 in checkpoints
        trainer.seconds = before + time.monotonic() - since
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
