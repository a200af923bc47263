"""Steps of the methods: the loss of one optimiser step of an arm.

A step function takes a `Step` and returns the loss to minimise. `step.real(n)` gives the first n images of the step's
real batch, the same for every arm. `step.second(n)` gives images of the arm's second source (`source_choices.SOURCES`),
drawn independently of the real ones. Every step uses `step.batch` images in all. Unless a step says otherwise, real and
other images go through the network together and share its BatchNorm statistics. Random numbers come from the `Step`, so
that a resumed training draws the same."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch

from workflow_scripts.lib.classify import arm_choices, arm_settings, losses, self_supervision


@dataclass
class LabelledBatch:
    """Images standardised (n, C, H, W), and targets (n, K) that may be soft."""

    images: torch.Tensor
    targets: torch.Tensor

    def __add__(self, other: LabelledBatch) -> LabelledBatch:
        return LabelledBatch(torch.cat([self.images, other.images]), torch.cat([self.targets, other.targets]))


class Step(Protocol):
    """What a method may use at one optimiser step."""

    number: int  # of this step, from 0
    steps: int  # of the training
    batch: int  # images a step
    settings: dict[str, Any]  # of the arm, `arm_settings.effective`

    def real(self, count: int) -> LabelledBatch:
        """The first images of the step's real batch, augmented."""

    def second(self, count: int) -> LabelledBatch:
        """Images of the second source, augmented."""

    def views(self, count: int) -> tuple[LabelledBatch, torch.Tensor]:
        """Images of the second source, augmented, and the same images augmented once more, as `strong` says."""

    def second_features(self, count: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Representations (n, D) of a second source that has these in place of images, and their targets (n, K)."""

    def project(self, features: torch.Tensor) -> torch.Tensor:
        """Features through the projector of self-supervision, which prediction does without."""

    def lambdas(self, count: int) -> torch.Tensor:
        """One λ ~ Beta(alpha, alpha) an image (n,)."""

    def weights(self, count: int) -> torch.Tensor:
        """Weights of the images that `second` gives (n,), 1 on average over their source."""

    def random(self, purpose: str) -> np.random.Generator:
        """Random numbers of this step for one purpose."""

    def features(self, images: torch.Tensor) -> torch.Tensor:
        """Pooled representation (n, D) in float32."""

    def features_apart(self, images: torch.Tensor) -> torch.Tensor:
        """Features with BatchNorm statistics of these images alone, without an update of running statistics."""

    def head(self, features: torch.Tensor) -> torch.Tensor:
        """Logits (n, K)."""

    def loss(self, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """The arm's loss, one value an image (n,)."""


def step_function(method: str) -> Callable[[Step], torch.Tensor]:
    """The step function of a method of `arm_choices.METHODS`."""
    return arm_choices.METHODS.function(method, globals())


def _losses(step: Step, batch: LabelledBatch) -> torch.Tensor:
    return step.loss(step.head(step.features(batch.images)), batch.targets)


def _plain(step: Step, batch: LabelledBatch) -> torch.Tensor:
    return _losses(step, batch).mean()


def _fractions(step: Step) -> tuple[int, int]:
    """Numbers of real and of other images in a batch at the arm's `ratio`."""
    others = arm_settings.synthetic_fraction(step.batch, step.settings["ratio"])
    return step.batch - others, others


def _boxes(images: torch.Tensor, areas: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    """A square at a random place in each image (n, C, H, W), of this fraction of its area: bool (n, 1, H, W)."""
    where, inside = images.device, []
    for size in images.shape[-2:]:
        side = areas.double().sqrt() * size
        first = (torch.as_tensor(rng.random(len(images)), device=where) * (size - side)).round()
        pixels = torch.arange(size, device=where)
        inside.append((pixels >= first[:, None]) & (pixels < (first + side.round())[:, None]))
    return inside[0][:, None, :, None] & inside[1][:, None, None, :]


def _erased(step: Step, images: torch.Tensor) -> torch.Tensor:
    """Images of which a fraction `erase` loses a square of 2 to 20 % of the area."""
    rng, count = step.random("erase"), len(images)
    erased = rng.random(count) < arm_settings.second_view(step.settings)["erase"]
    areas = torch.as_tensor(erased * rng.uniform(0.02, 0.2, count), device=images.device)
    # A channel without any structure stays so: that is how a network sees that it is missing.
    shows = images.amax(dim=(2, 3), keepdim=True) > images.amin(dim=(2, 3), keepdim=True)
    # 0 is each channel's mean.
    return images.masked_fill(_boxes(images, areas, rng) & shows, 0.0)


def real_only(step: Step) -> torch.Tensor:
    """Real images alone."""
    return _plain(step, step.real(step.batch))


def strong_augment(step: Step) -> torch.Tensor:
    """Real images alone, augmented as `strong` says; a fraction `erase` loses a square (Zhong et al. 2017).

    Crops and brightness are drawn with the other augmentation; the square has 2 to 20 % of the area."""
    batch = step.real(step.batch)
    return _plain(step, LabelledBatch(_erased(step, batch.images), batch.targets))


def mixup(step: Step) -> torch.Tensor:
    """Each real image mixed with the next one of the batch, pixels and targets λ : (1 − λ) (Zhang et al. 2018)."""
    batch, weight = step.real(step.batch), step.lambdas(step.batch)[:, None]
    shade = weight[:, :, None, None]
    images = shade * batch.images + (1 - shade) * batch.images.roll(1, 0)
    return _plain(step, LabelledBatch(images, weight * batch.targets + (1 - weight) * batch.targets.roll(1, 0)))


def cutmix(step: Step) -> torch.Tensor:
    """A square of the next image of the batch pasted over each real one, targets by area (Yun et al. 2019)."""
    batch = step.real(step.batch)
    boxes = _boxes(batch.images, 1 - step.lambdas(step.batch), step.random("box"))
    # Whole pixels: what is left of an image is a little other than its λ.
    weight = 1 - boxes.float().mean(dim=(2, 3))
    images = torch.where(boxes, batch.images.roll(1, 0), batch.images)
    return _plain(step, LabelledBatch(images, weight * batch.targets + (1 - weight) * batch.targets.roll(1, 0)))


def one_class(step: Step) -> torch.Tensor:
    """Real images alone; each step minimises the loss of a single class, in turn."""
    batch = step.real(step.batch)
    logits = step.head(step.features(batch.images))
    asked = torch.arange(logits.shape[1], device=logits.device) == step.number % logits.shape[1]
    return step.loss(torch.where(asked, logits, logits.detach()), batch.targets).mean()


def second_only(step: Step) -> torch.Tensor:
    """Images of the second source alone."""
    return _plain(step, step.second(step.batch))


def pool(step: Step) -> torch.Tensor:
    """Both sources in one batch, `ratio` of the second to one real image."""
    real, others = _fractions(step)
    return _plain(step, step.real(real) + step.second(others))


def pool_features(step: Step) -> torch.Tensor:
    """`pool`, where the second source has features in place of images."""
    count, others = _fractions(step)
    real, (made, targets) = step.real(count), step.second_features(others)
    features = torch.cat([step.features(real.images), made])
    return step.loss(step.head(features), torch.cat([real.targets, targets])).mean()


def weighted(step: Step) -> torch.Tensor:
    """`pool`, with a weight for every image of the second source."""
    real, others = _fractions(step)
    each = _losses(step, step.real(real) + step.second(others))
    return torch.cat([each[:real], step.weights(others) * each[real:]]).mean()


def robust(step: Step) -> torch.Tensor:
    """`pool`, with generalised cross-entropy on the second source, which is less sensitive to wrong labels."""
    real, others = _fractions(step)
    both = step.real(real) + step.second(others)
    logits = step.head(step.features(both.images))
    ours = step.loss(logits[:real], both.targets[:real])
    theirs = losses.generalised(logits[real:], both.targets[real:], step.settings["robustness"])
    return torch.cat([ours, theirs]).mean()


def split_batchnorm(step: Step) -> torch.Tensor:
    """`pool`, with separate BatchNorm for the second source; running statistics are those of real images."""
    real, others = _fractions(step)
    ours, theirs = step.real(real), step.second(others)
    features = torch.cat([step.features(ours.images), step.features_apart(theirs.images)])
    return step.loss(step.head(features), torch.cat([ours.targets, theirs.targets])).mean()


def anneal(step: Step) -> torch.Tensor:
    """`pool`, in which the fraction of the second source falls linearly from that of `ratio` to none at the end."""
    others = round(_fractions(step)[1] * (1 - step.number / step.steps))
    if not others:
        return real_only(step)
    return _plain(step, step.real(step.batch - others) + step.second(others))


def pretrain_finetune(step: Step) -> torch.Tensor:
    """The second source alone for the first fraction `pretrain` of the steps, real images alone after that."""
    return second_only(step) if step.number < arm_settings.pretraining_steps(step.settings) else real_only(step)


def fixmatch(step: Step) -> torch.Tensor:
    """Real images, and strong views of others that learn from the answers to their weak views (Sohn et al. 2020).

    An answer counts, class by class, where its probability is at least `confidence`, for or against. Both losses have
    the same weight, and uncertain answers count as learned, as in the paper."""
    count, others = _fractions(step)
    real, (weak, strong) = step.real(count), step.views(others)
    # One pass: all views share the BatchNorm statistics.
    logits = step.head(step.features(torch.cat([real.images, weak.images, _erased(step, strong)])))
    ours, asked, told = logits[:count], logits[count : count + others].detach(), logits[count + others :]
    sure = torch.maximum(asked.sigmoid(), (-asked).sigmoid()) >= step.settings["confidence"]
    # Where a class is not sure, its loss is left out and so is its gradient.
    targets = torch.where(sure, (asked > 0).to(told.dtype), told.detach().sigmoid().round())
    each = step.loss(torch.where(sure, told, told.detach()), targets)
    return step.loss(ours, real.targets).mean() + each.mean()


def ssl_pretrain(step: Step) -> torch.Tensor:
    """Two views of images without labels for the first fraction `pretrain` of the steps, labelled ones after that."""
    if step.number >= arm_settings.pretraining_steps(step.settings):
        return real_only(step)
    # Two views of half a batch are as many images as a step of other arms has.
    half = step.batch // 2
    first, second = step.views(half)
    projected = step.project(step.features(torch.cat([first.images, _erased(step, second)])))
    return self_supervision.vicreg(projected[:half], projected[half:])


def mix_loss(step: Step) -> torch.Tensor:
    """Mix Loss: mean over pairs of λ·ℓ(real) + (1−λ)·ℓ(other), with one λ per pair.

    Losses are weighted pair by pair. After averaging, only the mean of λ would act."""
    half = step.batch // 2
    both = step.real(half) + step.second(half)
    each = _losses(step, both)
    weight = step.lambdas(half)
    return (weight * each[:half] + (1 - weight) * each[half:]).mean()


def mix_representation(step: Step) -> torch.Tensor:
    """Mix Representation: one loss on f = λ·f_real + (1−λ)·f_other, with targets mixed in the same way."""
    half = step.batch // 2
    both = step.real(half) + step.second(half)
    features = step.features(both.images)
    weight = step.lambdas(half)[:, None]
    mixed = weight * features[:half] + (1 - weight) * features[half:]
    targets = weight * both.targets[:half] + (1 - weight) * both.targets[half:]
    return step.loss(step.head(mixed), targets).mean()
