"""Registries of networks: backbones and losses, and where published weights lie.

A new backbone is a function in `backbones.py` and an entry in BACKBONES; a new loss is a function in `losses.py` and an
entry in LOSSES. Checks, schema and documentation read these entries before any job starts, so this module does not
import torch."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from workflow_scripts.lib.base.registry import Registry


@dataclass(frozen=True)
class BackboneFacts:
    """Facts about a backbone that are needed before it is built."""

    about: str
    has_batchnorm: bool
    smallest: int  # image size in pixels
    multiple: int = 1  # what the image size must be a multiple of
    published: bool = False  # whether torchvision publishes weights to start from
    of_generator: bool = False  # has the shape of a generator; by a method alone
    of_pair: bool = False  # two networks in one; by a method alone
    embedded: bool = False  # takes embeddings in place of pixels
    hand_made: bool = False  # features that nothing trains: its head is fitted by regression, not by steps

    @property
    def takes_marks(self) -> bool:
        """Whether it can have further input planes, which say what channels of an image are missing."""
        return not (self.of_generator or self.of_pair or self.embedded or self.hand_made)


BACKBONES = Registry(
    "backbone",
    {
        "small": BackboneFacts("residual network for images of 32 to 128 px, fast on a CPU", True, 16),
        "resnet18": BackboneFacts("ResNet-18 (He et al. 2016)", True, 32, published=True),
        "resnet34": BackboneFacts("ResNet-34 (He et al. 2016)", True, 32, published=True),
        "resnet50": BackboneFacts("ResNet-50 (He et al. 2016)", True, 32, published=True),
        # Patches of 16 px: two by two of them is the least that attention can tell apart.
        "vit_b_16": BackboneFacts("ViT-B/16 (Dosovitskiy et al. 2021)", False, 32, 16, published=True),
        "swin_t": BackboneFacts("Swin-T (Liu et al. 2021)", False, 32, 4, published=True),
        "swin_b": BackboneFacts("Swin-B (Liu et al. 2021)", False, 32, 4, published=True),
        "classical": BackboneFacts(
            "no network: hand-made features with regularised logistic regression", False, 8, hand_made=True
        ),
        "embedding_linear": BackboneFacts(
            "no network: embeddings with regularised logistic regression", False, 1, embedded=True, hand_made=True
        ),
        "embedding_mlp": BackboneFacts("network of one hidden layer on embeddings", False, 1, embedded=True),
        "generator": BackboneFacts(
            "encoder of the U-Net of a generator, of generator_features and its controls", False, 16, of_generator=True
        ),
        "generator_scores": BackboneFacts(
            "denoising losses of a generator, of generator_classifier and generator_average",
            False,
            16,
            of_generator=True,
        ),
        "pair": BackboneFacts(
            "mean of the fold's baseline and another, of generator_average and two_baselines", True, 16, of_pair=True
        ),
    },
)

# Steps whose loss is a weighted sum over images, so that a regression can minimise it at once.
FITTED_STEPS = ("real_only", "second_only", "pool", "weighted")

# Steps that embeddings can take, as they neither augment, crop nor paste.
EMBEDDED_STEPS = (
    "real_only", "one_class", "mixup", "second_only", "pool", "weighted", "anneal", "pretrain_finetune", "robust",
    "mix_loss", "mix_representation",
)  # fmt: skip
EMBEDDED = BACKBONES.having("embedded")

# Backbones that there are weights of, and what `weights` says to have those of ImageNet fetched.
PUBLISHED = BACKBONES.having("published")
IMAGENET = "imagenet"


@dataclass(frozen=True)
class LossFacts:
    """Facts about a loss that are needed before training."""

    about: str
    hard_labels: bool = False  # defined for labels 0 and 1 alone
    cosine_head: bool = False  # logits are cosines times its parameter `scale`


LOSSES = Registry(
    "loss",
    {
        "bce": LossFacts("binary cross-entropy"),
        "focal": LossFacts("focal loss (Lin et al. 2017)"),
        "asymmetric": LossFacts("asymmetric loss (Ridnik et al. 2021)"),
        "class_balanced": LossFacts("class-balanced cross-entropy (Cui et al. 2019)"),
        "reweighted": LossFacts("cross-entropy in which positives of rare classes weigh more"),
        "arcface": LossFacts("ArcFace (Deng et al. 2019)", hard_labels=True, cosine_head=True),
    },
)


def marks_channels(settings: dict[str, Any]) -> bool:
    """Whether an arm's network is told which channels of an image are missing (`channel_marks` of its settings)."""
    return bool(settings.get("channel_marks")) and BACKBONES[settings["backbone"]].takes_marks


def cosine_scale(settings: dict[str, Any]) -> float | None:
    """Scale of the cosine head, in an arm that has one (`effective` settings)."""
    given = settings.get("losses", {})
    return next((given[name]["scale"] for name in LOSSES.having("cosine_head") if name in given), None)


def published_path(folder: str, backbone: str) -> str:
    """Path where fetch_weights puts the weights of a backbone, in the form that `weights` takes."""
    return os.path.join(folder, f"{backbone}-imagenet1k_v1.pth")  # noqa: PTH118


def weights_path(weights: str) -> Path:
    """Path of the file that `weights` names, with environment variables expanded."""
    # pathlib would raise an error of its own for the home of somebody unknown.
    return Path(os.path.expanduser(os.path.expandvars(weights)))  # noqa: PTH111


def is_file(weights: str) -> bool:
    """Whether there is a file at this path, environment variables expanded; a path that cannot be has none."""
    return os.path.isfile(weights_path(weights))  # noqa: PTH113
