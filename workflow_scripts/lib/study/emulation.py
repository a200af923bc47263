"""Emulation of the reference study: the effect of each switch of `switches.py` on pixels, sampling, training and test.

Each function implements both the study's way and MixLoc's, so that a switch is one value of one argument."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn

from workflow_scripts.lib.base.seeds import derive
from workflow_scripts.lib.classify import arm_choices, backbones, classifier_file, network_choices
from workflow_scripts.lib.classify.backbones import Backbone
from workflow_scripts.lib.classify.classifier_training import ArmStep, Images, Trainer, checkpoint_steps
from workflow_scripts.lib.classify.validation_scores import macro_f1, study_decisions
from workflow_scripts.lib.compute import device, schedule
from workflow_scripts.lib.generate import label_plans
from workflow_scripts.lib.generate.diffusion import Condition
from workflow_scripts.lib.generate.generator_file import Generator
from workflow_scripts.lib.generate.sampling import Sampler
from workflow_scripts.lib.judge.fold_scores import ScoredRows
from workflow_scripts.lib.judge.thresholds import Rule, fit_thresholds
from workflow_scripts.lib.scores import ranking_metrics
from workflow_scripts.lib.scores.decisions import probabilities

# Dropout of the ArcFace model, in front of its head: the study tested with it active. Its rate is not published.
DROPOUT = 0.5
# Mean and deviation of the wrong normalisation: pixels from -1 to 1.
MISMATCH = (0.5, 0.5)
# After-training switches that change how test images are predicted with given weights.
AT_TEST = ("test_in_training_mode", "test_batch_of_one", "normalisation_mismatch", "arcface_test_dropout_and_scale")


# Pixels and generated images ------------------------------------------------------------------------------------------


def resized(images: np.ndarray, size: int, premultiplied: bool) -> np.ndarray:
    """Images uint8 (n, C, H, W) at another size, bicubic as in Pillow; `premultiplied`: as one RGBA image each.

    Pillow multiplies RGBA by its fourth channel before it resizes and divides afterwards. At an unchanged size it would
    leave the image alone. In that case the multiplication alone is applied (it loses detail where the fourth channel is
    dark)."""
    out = np.empty((len(images), images.shape[1], size, size), dtype=np.uint8)
    same = images.shape[-1] == size
    if same and not premultiplied:
        return images
    for place, image in enumerate(images):
        if premultiplied:
            whole = Image.fromarray(np.ascontiguousarray(image.transpose(1, 2, 0)), "RGBA")
            if same:
                done = whole.convert("RGBa").convert("RGBA")
            else:
                done = whole.resize((size, size), Image.Resampling.BICUBIC)
            out[place] = np.asarray(done).transpose(2, 0, 1)
        else:
            for channel, plane in enumerate(image):
                done = Image.fromarray(np.ascontiguousarray(plane)).resize((size, size), Image.Resampling.BICUBIC)
                out[place, channel] = np.asarray(done)
    return out


def split_by_image(rows: np.ndarray, validation: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Study's split: so many rows drawn image by image for validation, the others for training."""
    drawn = np.random.default_rng(seed).permutation(rows)
    return np.sort(drawn[validation:]), np.sort(drawn[:validation])


def wanted_labels(labels: np.ndarray, count: int, uniform: bool, single: bool, rng: np.random.Generator) -> np.ndarray:
    """Requested labels of synthetic images (count, K), from the labels of the train part.

    `uniform`: one class each, all classes that occur equally often. Otherwise as in the train part: its label sets, or
    for a generator of `single` labels its (image, label) pairs."""
    alone = np.eye(labels.shape[1], dtype=labels.dtype)
    if uniform:
        classes = np.flatnonzero(labels.any(axis=0))
        return alone[rng.permutation(classes[np.arange(count) % len(classes)])]
    source = alone[np.nonzero(labels)[1]] if single else labels[labels.any(axis=1)]
    return label_plans.as_train(source, rng, count)


def made_images(
    generator: Generator, labels: np.ndarray, synthetic_set: dict[str, Any], seed: int, where: torch.device
) -> np.ndarray:
    """Images uint8 (n, C, s, s) of a generator, with its synthetic set's sampling settings."""
    network = generator.network(where, device.fast_dtype(where))
    sampler = Sampler(generator, network, synthetic_set, seed, where)
    out = []
    with torch.inference_mode():
        for number, part in enumerate(sampler.parts(len(labels))):
            hot = torch.from_numpy(labels[part]).float().to(where)
            made = sampler.batch(number, Condition(hot, torch.zeros(len(hot), dtype=torch.bool, device=where)))
            # A generator that never learned to denoise may diverge: non-finite pixels become black.
            out.append(sampler.pixels.to_bytes(made.nan_to_num()).cpu())
    return torch.cat(out).numpy()


# Training -------------------------------------------------------------------------------------------------------------


@dataclass
class StudyStep(ArmStep):
    """Training step in which BatchNorm, λ and dropout follow the switches."""

    shared_batchnorm: bool = True
    lambda_averaged: bool = False
    dropout: float = 0.0

    def features(self, images: torch.Tensor) -> torch.Tensor:
        """Pooled representation (n, D); real images, the first half, apart from the others unless they share."""
        half = self.batch // 2
        paired = arm_choices.METHODS[self.settings["method"]].pairs and len(images) == 2 * half
        if self.shared_batchnorm or not paired:
            return super().features(images)
        ours = super().features(images[:half])
        with backbones.statistics_apart(self.network):
            return torch.cat([ours, super().features(images[half:])])

    def lambdas(self, count: int) -> torch.Tensor:
        """One λ an image (n,), or their mean for all."""
        own = super().lambdas(count)
        return own.mean().expand(count) if self.lambda_averaged else own

    def head(self, features: torch.Tensor) -> torch.Tensor:
        """Logits (n, K)."""
        return super().head(F.dropout(features, self.dropout, training=True) if self.dropout else features)


class StudyTrainer(Trainer):
    """Trainer with the study's procedure, as far as `levels` switches it on."""

    def __init__(
        self,
        settings: dict[str, Any],
        levels: dict[str, bool],
        plateau: dict[str, float],
        real: Images,
        second: Images | None,
        seed: int,
        where: torch.device,
    ) -> None:
        self.levels, self.plateau = levels, plateau
        self.cut, self.waited, self.lowest = 1.0, 0, math.inf
        super().__init__(settings, real, second, seed, where)
        self.step = StudyStep(
            **{field.name: getattr(self.step, field.name) for field in fields(ArmStep)},
            shared_batchnorm=levels["shared_batchnorm"],
            lambda_averaged=levels["lambda_averaged"],
            dropout=dropout_of(settings),
        )
        shown = settings["batch"] // (2 if arm_choices.METHODS[settings["method"]].pairs else 1)
        # The first epoch, in steps; a training shorter than that never warms up.
        self.epoch = min(-(-len(real) // shown), settings["steps"] - 1)

    def advance(self, number: int) -> None:
        """One optimiser step; dropout draws the same whatever was drawn before."""
        torch.manual_seed(derive(self.step.seed, "dropout", number))
        super().advance(number)

    def rate(self, number: int) -> float:
        """The learning rate of a step (from 0)."""
        settings, first = self.settings, self.epoch if self.levels["warmup_late"] else 0
        if number < first:
            return settings["learning_rate"] * self.cut
        rest = settings | {"steps": settings["steps"] - first}
        if not self.levels["scheduler_minimises"]:
            return schedule.cosine_after_warmup(rest, number - first)
        rise = max(1.0, settings["warmup"] * rest["steps"])
        return settings["learning_rate"] * self.cut * min(1.0, (number - first + 1) / rise)

    def check(self, validation: Images) -> None:
        """Evaluate on validation; the plateau rule then waits for a lower score, as in the study."""
        super().check(validation)
        self.wait(self.history["validation_macro_f1"][-1])

    def wait(self, score: float) -> None:
        """Reduce the learning rate if the score has not fallen for long."""
        if score < self.lowest:
            self.lowest, self.waited = score, 0
        else:
            self.waited += 1
        if self.levels["scheduler_minimises"] and self.waited > self.plateau["patience"]:
            self.cut, self.waited = self.cut * self.plateau["factor"], 0


def dropout_of(settings: dict[str, Any]) -> float:
    """Dropout rate in front of the head: positive in the ArcFace model only."""
    return DROPOUT if settings["loss"] == "arcface" else 0.0


@dataclass
class Course:
    """Result of a training: the best weights on validation and the last ones."""

    weights: dict[bool, dict[str, torch.Tensor]]  # last_epoch -> weights
    scaling: tuple[torch.Tensor, torch.Tensor]  # mean and deviation of pixels, by which images are standardised


def trained(
    settings: dict[str, Any],
    levels: dict[str, bool],
    plateau: dict[str, float],
    real: Images,
    second: Images | None,
    validation: Images,
    seed: int,
) -> tuple[StudyTrainer, Course]:
    """Train one model under these switches; the trainer's network is reused for the test."""
    trainer = StudyTrainer(settings, levels, plateau, real, second, seed, device.device())
    checkpoints = checkpoint_steps(settings)
    for number in range(settings["steps"]):
        trainer.advance(number)
        if number + 1 in checkpoints:
            # In the stream of the step, which may still be at work on a GPU.
            with trainer.graph.stream():
                trainer.check(validation)
    with trainer.graph.stream():
        last = {name: value.detach().cpu().clone() for name, value in trainer.network.state_dict().items()}
    return trainer, Course({False: trainer.best, True: last}, (trainer.mean, trainer.std))


# Test -----------------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def each_alone(network: nn.Module) -> Iterator[None]:
    """Context in which BatchNorm normalises every image by its own statistics: training mode with a batch of one.

    Where an image has a single position left, this leaves nothing of it but the bias (torch would refuse a batch of one
    there)."""
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]

    def alone(norm: nn.BatchNorm2d, x: torch.Tensor) -> torch.Tensor:
        # In float32, as BatchNorm keeps its statistics.
        variance, mean = torch.var_mean(x.float(), dim=(2, 3), correction=0, keepdim=True)
        scale = norm.weight.view(1, -1, 1, 1) / (variance + norm.eps).sqrt()
        return ((x.float() - mean) * scale + norm.bias.view(1, -1, 1, 1)).to(x.dtype)

    for norm in norms:
        norm.forward = alone.__get__(norm)  # shadows the class's method until it is deleted
    try:
        yield
    finally:
        for norm in norms:
            del norm.forward


def tested(
    network: Backbone,
    images: np.ndarray,
    mean: torch.Tensor,
    std: torch.Tensor,
    levels: dict[str, bool],
    settings: dict[str, Any],
    seed: int,
) -> np.ndarray:
    """Logits (n, K) of test images, predicted as the switches say."""
    if levels["normalisation_mismatch"]:
        mean, std = torch.full_like(mean, MISMATCH[0]), torch.full_like(std, MISMATCH[1])
    alone = levels["test_in_training_mode"] and levels["test_batch_of_one"]
    drop = levels["arcface_test_dropout_and_scale"]
    if not levels["test_in_training_mode"] and not drop:
        return classifier_file.predict(network, images, mean, std)
    where = next(network.parameters()).device
    dtype = device.fast_dtype(where)
    # Blocks of nearly equal size: a last one of a single image would be normalised by itself.
    blocks = torch.as_tensor(images).tensor_split(max(1, -(-len(images) // settings["batch"])))
    out = []
    network.train(levels["test_in_training_mode"])
    torch.manual_seed(derive(seed, "test"))
    normalised = each_alone(network) if alone else backbones.statistics_apart(network)
    with torch.inference_mode(), normalised:
        for block in blocks:
            ready = classifier_file.standardise(block.to(where).float() / 255, mean, std)
            with torch.autocast(where.type, dtype, enabled=dtype != torch.float32):
                features = network.features(ready).float()
            if drop:
                features = F.dropout(features, DROPOUT, training=True)
            out.append(network.head(features).cpu())
    network.eval()
    logits = torch.cat(out).numpy()
    return logits / network_choices.cosine_scale(settings) if drop else logits


@dataclass
class Asked:
    """Images of one part with labels and groups."""

    pixels: np.ndarray  # uint8 (n, C, H, W)
    labels: np.ndarray  # uint8 (n, K)
    groups: np.ndarray  # int (n,)

    def table(self, logits: np.ndarray) -> ScoredRows:
        """The part as a network scored it."""
        return ScoredRows(probabilities(logits), self.labels.astype(bool), self.groups)


def part_scores(part: Asked, logits: np.ndarray, thresholds: np.ndarray, judged: np.ndarray) -> dict[str, float]:
    """Mean scores over the judged classes, all of which occur: F1 at thresholds, F1 as in the study, mAP."""
    table = part.table(logits)
    groups, weights = ranking_metrics.unweighted(len(logits))
    precision = [
        ranking_metrics.average_precision(table.scores[:, kind], table.labels[:, kind], groups, weights)[0]
        for kind in np.flatnonzero(judged)
    ]
    return {
        "macro_f1": macro_f1(table.scores >= thresholds, table.labels, judged),
        "macro_f1_half": macro_f1(study_decisions(table.scores, logits), table.labels, judged),
        "map": float(np.mean(precision)),
    }


def scored(
    network: Backbone,
    course: Course,
    parts: dict[str, Asked],
    combinations: list[dict[str, bool]],
    settings: dict[str, Any],
    least: int,
    judged: np.ndarray,
    seed: int,
) -> list[dict[str, dict[str, float]]]:
    """Scores of validation and test under every combination of the switches that act after training.

    Only test images are predicted as the switches say, because these flaws of the study are in its test script."""
    rule = Rule("calibrated", least)
    known: dict[tuple, np.ndarray] = {}

    def once(key: tuple, work: Callable[[], np.ndarray]) -> np.ndarray:
        if key not in known:
            known[key] = work()
        return known[key]

    out: list[dict[str, dict[str, float]]] = [{} for _ in combinations]
    # The weights change slowest, as they have to be loaded.
    for last in sorted({levels["last_epoch"] for levels in combinations}):
        network.load_state_dict(course.weights[last])
        for place, levels in enumerate(combinations):
            if levels["last_epoch"] != last:
                continue
            plain = {
                name: once(
                    (last, name),
                    lambda name=name: classifier_file.predict(network, parts[name].pixels, *course.scaling),
                )
                for name in ("validation", "calibration")
            }
            tuned = "validation" if levels["thresholds_on_reported"] else "calibration"
            thresholds = once(
                (last, "thresholds", tuned),
                lambda tuned=tuned, plain=plain: fit_thresholds(parts[tuned].table(plain[tuned]), rule).values,
            )
            how = (last, *(levels[name] for name in AT_TEST))
            test = once(
                how,
                lambda levels=levels: tested(network, parts["test"].pixels, *course.scaling, levels, settings, seed),
            )
            for name, logits in (("validation", plain["validation"]), ("test", test)):
                out[place][name] = part_scores(parts[name], logits, thresholds, judged)
    return out
