"""Which methods, backbones and losses an arm of the experiment may have, and which of them go together.

Read when the config is checked, before any job starts, so it must stay light: no torch. A new method is a function in
`arms.py` and a line in METHODS here; a new source of partner images one in `partners.py` and a name here; a new
backbone one in `backbones.py` and BACKBONES; a new loss one in `losses.py` and LOSSES."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# Where the second source of images of a method, its partners, comes from (`partners.SOURCES`).
BALANCED = "balanced"  # real train images, every class equally often
SYNTHETIC = "synthetic"  # the synthetic set of the arm's synthetic set
# Each of the following has the label combinations of that set, and holds
RESAMPLED = "resampled"  # real train images
BLENDED = "blended"  # two real train images, one over the other
SHUFFLED = "shuffled"  # the synthetic images, each with the labels of another one
NOISE = "noise"  # noise with the mean and spread of real pixels
PHASE = "phase_randomised"  # real train images with their spectrum and nothing else left of them
NEAREST = "nearest"  # the real train image nearest to each synthetic one, with its own labels
# Of the synthetic images those that are not copies of train images.
AUTHENTIC = "authentic"
# Real images kept aside for arms that may have more of them (roles of `folds.py`).
RESERVE = "reserve"  # of other groups than the train part's
RESERVE_SAME = "reserve_same"  # further ones of its groups
# What the fold's trained baseline thinks of images, used in three ways.
FILTERED = "filtered"  # the synthetic images that look most like what was asked for
RELABELLED, RELABELLED_REAL = "relabelled", "relabelled_real"  # labels moved towards the baseline's answers
WEIGHED, WEIGHED_REAL = "weighed", "weighed_real"  # images weighed by how much the baseline agrees

# Sources for which no synthetic set is needed, and those that hold photographs and nothing else.
RESERVES = (RESERVE, RESERVE_SAME)
WITHOUT_SET = (None, BALANCED, *RESERVES)
PHOTOGRAPHS = (BALANCED, RESAMPLED, NEAREST, RELABELLED_REAL, WEIGHED_REAL, *RESERVES)
# Sources with the labels of a synthetic set that add nothing which a generator has learned.
NOTHING_NEW = (RESAMPLED, BLENDED, SHUFFLED, NOISE, PHASE, NEAREST)


@dataclass(frozen=True)
class Method:
    """How an arm uses its images."""

    step: str  # the function in arms.py that makes the loss of one optimiser step
    partners: str | None = None  # source of the images beside the real ones
    control: str | None = None  # the method that adds the same amount of nothing new
    options: tuple[str, ...] = ()  # settings of train_classifier that act in this method; an arm may give its own
    pairs: bool = False  # half of each batch is real, each image with a partner
    needs_batchnorm: bool = False
    soft_targets: bool = False  # labels between 0 and 1
    balanced: bool = False  # the real images are sampled so that every class comes equally often
    needs_baseline: bool = False  # the fold's own trained baseline must be there first

    @property
    def needs_set(self) -> bool:
        """Whether an arm must name a synthetic set."""
        return self.partners not in WITHOUT_SET

    @property
    def takes_set(self) -> bool:
        """Whether it may: images in reserve are then drawn to the labels of that set."""
        return self.needs_set or self.partners in RESERVES

    @property
    def learns_from_generated(self) -> bool:
        """Whether it is generated images, rather than a control or a placebo in their place, that it learns from."""
        return self.partners not in (*WITHOUT_SET, *PHOTOGRAPHS, *NOTHING_NEW)


METHODS = {
    # Real images alone: the baseline and its rivals.
    "real_only": Method("real_only", options=("real_fraction",)),
    "strong_augment": Method("strong_augment", options=("strong",)),
    "mixup": Method("mixup", options=("alpha",), soft_targets=True),
    "cutmix": Method("cutmix", options=("alpha",), soft_targets=True),
    "one_class": Method("one_class"),
    "balanced_real": Method("real_only", options=("real_fraction",), balanced=True),
    "pool_balanced_real": Method("pool", BALANCED, None, ("ratio",)),
    # Ceilings: real images that the other arms have not, in place of synthetic ones.
    "more_real": Method("pool", RESERVE, None, ("ratio",)),
    "more_real_same": Method("pool", RESERVE_SAME, None, ("ratio",)),
    # Synthetic images, each method followed by its control.
    "synthetic_only": Method("partners_only", SYNTHETIC),
    "pool": Method("pool", SYNTHETIC, "resample_real", ("ratio",)),
    "resample_real": Method("pool", RESAMPLED, None, ("ratio",)),
    "split_batchnorm": Method("split_batchnorm", SYNTHETIC, "split_batchnorm_real", ("ratio",), needs_batchnorm=True),
    "split_batchnorm_real": Method("split_batchnorm", RESAMPLED, None, ("ratio",), needs_batchnorm=True),
    "anneal": Method("anneal", SYNTHETIC, "anneal_real", ("ratio",)),
    "anneal_real": Method("anneal", RESAMPLED, None, ("ratio",)),
    "pretrain_finetune": Method("pretrain_finetune", SYNTHETIC, "pretrain_finetune_real", ("pretrain",)),
    "pretrain_finetune_real": Method("pretrain_finetune", RESAMPLED, None, ("pretrain",)),
    "robust": Method("robust", SYNTHETIC, "robust_real", ("ratio", "robustness")),
    "robust_real": Method("robust", RESAMPLED, None, ("ratio", "robustness")),
    "mix_loss": Method("mix_loss", SYNTHETIC, "mix_loss_real", ("alpha",), pairs=True),
    "mix_loss_real": Method("mix_loss", RESAMPLED, None, ("alpha",), pairs=True),
    "mix_representation": Method(
        "mix_representation", SYNTHETIC, "mix_representation_real", ("alpha",), pairs=True, soft_targets=True
    ),
    "mix_representation_real": Method("mix_representation", RESAMPLED, None, ("alpha",), pairs=True, soft_targets=True),
    "authentic": Method("pool", AUTHENTIC, "resample_real", ("ratio",)),
    "filtered": Method("pool", FILTERED, "resample_real", ("ratio", "keep"), needs_baseline=True),
    "relabel": Method("pool", RELABELLED, "relabel_real", ("ratio", "trust"), needs_baseline=True, soft_targets=True),
    "relabel_real": Method("pool", RELABELLED_REAL, None, ("ratio", "trust"), needs_baseline=True, soft_targets=True),
    "weighted": Method("weighted", WEIGHED, "weighted_real", ("ratio",), needs_baseline=True),
    "weighted_real": Method("weighted", WEIGHED_REAL, None, ("ratio",), needs_baseline=True),
    # Placebos of what is pooled.
    "blend_real": Method("pool", BLENDED, None, ("ratio", "blend")),
    "nearest_real": Method("pool", NEAREST, None, ("ratio",)),
    "shuffled_labels": Method("pool", SHUFFLED, None, ("ratio",)),
    "phase_real": Method("pool", PHASE, None, ("ratio",)),
    "noise": Method("pool", NOISE, None, ("ratio",)),
}


# Steps in which `ratio` says how many images of a batch are real, the same at every step.
POOLING = ("pool", "weighted", "robust", "split_batchnorm")


@dataclass(frozen=True)
class Backbone:
    """What must be known of a network before it is built."""

    has_batchnorm: bool
    smallest: int  # image size in pixels
    multiple: int = 1  # what the image size must be a multiple of
    published: bool = True  # whether there are weights of others to start from


BACKBONES = {
    "small": Backbone(True, 16, published=False),
    "resnet18": Backbone(True, 32),
    "resnet34": Backbone(True, 32),
    "resnet50": Backbone(True, 32),
    # Patches of 16 px: two by two of them is the least that attention can tell apart.
    "vit_b_16": Backbone(False, 32, 16),
    "swin_t": Backbone(False, 32, 4),
    "swin_b": Backbone(False, 32, 4),
}

# Backbones that there are weights of, and what `weights` says to have those of ImageNet fetched.
PUBLISHED = tuple(name for name, backbone in BACKBONES.items() if backbone.published)
IMAGENET = "imagenet"

LOSSES = ("bce", "focal", "asymmetric", "class_balanced", "reweighted", "arcface")
SAMPLINGS = ("each_once", "balanced")  # which real images come
BLENDS = ("union", "weighted")  # labels of a blend of two images
# Losses that are defined for labels 0 and 1 alone.
HARD_LOSSES = ("arcface",)

# Settings of train_classifier that every arm may replace by its own.
COMMON_OPTIONS = ("backbone", "weights", "frozen", "loss", "channels", "sampling", "budget")
# A budget that gives an arm as many real images, repeats counted, as an arm of real images alone has.
EQUAL_EXPOSURES = "equal_exposures"
# Settings of train_classifier that only some methods read.
METHOD_OPTIONS = tuple(sorted({option for method in METHODS.values() for option in method.options}))
# What names an arm, its relations, and how many settings of it were tried on the validation part; the rest of an entry
# are options.
NAMING = ("name", "method", "synthetic_set", "control", "baseline", "trials")


def synthetic_fraction(batch: int, ratio: float) -> int:
    """Partner images in a batch at `ratio` partners to one real image."""
    return round(batch * ratio / (1 + ratio))


def effective(entry: dict[str, Any], section: dict[str, Any]) -> dict[str, Any]:
    """Everything that decides how an arm is trained: its own options over those of `train_classifier`.

    What does not act in its method is left out, and so is what it is compared with: neither re-trains it."""
    method = METHODS[entry["method"]]
    options = {key: value for key, value in entry.items() if key not in NAMING}
    common = {key: value for key, value in section.items() if key not in METHOD_OPTIONS or key in method.options}
    out = common | options | {key: entry[key] for key in ("name", "method", "synthetic_set") if key in entry}
    # Of the parameters of losses, those of its own.
    out["losses"] = {name: values for name, values in section.get("losses", {}).items() if name == out["loss"]}
    out["steps"] = steps_within_budget(out)
    if method.balanced:
        out["sampling"] = "balanced"
    if "strong" in out:
        out["augment"] = section["augment"] | {key: out["strong"][key] for key in ("scale", "aspect", "intensity")}
    return out


def steps_within_budget(settings: dict[str, Any]) -> int:
    """Optimiser steps of an arm with these settings: those of all arms, times its budget."""
    budget, batch = settings["budget"], settings["batch"]
    if budget == EQUAL_EXPOSURES:
        real = real_in_batch(settings)
        return math.ceil(settings["steps"] * batch / real) if real else settings["steps"]
    return round(settings["steps"] * budget)


def real_in_batch(settings: dict[str, Any]) -> int:
    """Images of a batch that come from the train part as such; 0 where their number is not the same at every step."""
    method, batch = METHODS[settings["method"]], settings["batch"]
    if method.pairs:
        return batch // 2
    if method.step in POOLING:
        return batch - synthetic_fraction(batch, settings["ratio"])
    return batch if method.partners is None else 0


def cosine_scale(settings: dict[str, Any]) -> float | None:
    """What the cosines of the head are multiplied by, in an arm that has such a head (`effective` settings)."""
    return settings.get("losses", {}).get("arcface", {}).get("scale")


def problem(entry: dict[str, Any], section: dict[str, Any], channels: list[str], size: int | None = None) -> str | None:
    """What is wrong with an arm beside the settings `train_classifier`, in one line; None where nothing is.

    `channels` and `size` are those of the images; `size` where it is known."""
    method = METHODS[entry["method"]]
    allowed = (*COMMON_OPTIONS, *method.options)
    for key in entry:
        if key not in NAMING and key not in allowed:
            return f"{key} is given, but the method {entry['method']!r} does not use it (it uses {', '.join(allowed)})"
    if method.balanced and entry.get("sampling", "balanced") != "balanced":
        return f"sampling = {entry['sampling']!r} contradicts the method {entry['method']!r}: take real_only"
    settings = effective(entry, section)
    for key, known in (("backbone", BACKBONES), ("loss", LOSSES)):
        if settings[key] not in known:
            return f"{key} = {settings[key]!r} is not known; known: {', '.join(known)}"
    for name in settings["channels"] or ():
        if name not in channels:
            return f"channels names {name!r}, which the images do not have; they have {', '.join(channels)}"
    return _network_problem(settings, size) or _combination_problem(settings) or _steps_problem(settings)


def _network_problem(settings: dict[str, Any], size: int | None) -> str | None:
    """Whether the backbone takes images of this size, and can have the weights that it is to start from."""
    name, weights = settings["backbone"], settings.get("weights")
    backbone = BACKBONES[name]
    if size is not None and size < backbone.smallest:
        return f"backbone {name!r} needs images of {backbone.smallest} px or more, not {size}"
    if size is not None and size % backbone.multiple:
        return f"backbone {name!r} needs images whose size is a multiple of {backbone.multiple} px, not {size}"
    if weights and not backbone.published:
        return f"weights are given, but nobody has published any of the backbone {name!r}; take a resnet, vit or swin"
    if weights and weights != IMAGENET and not os.path.isfile(weights_path(weights)):  # noqa: PTH113
        fetched = weights_path(weights).name == published_path("", name)
        again = "; have it fetched again by --forcerun fetch_weights" if fetched else ""
        return f"weights = {weights!r}: there is no such file{again}"
    if settings.get("frozen") and not weights:
        return "frozen: a network that is not trained needs weights to start from; give the file in weights"
    return None


def _combination_problem(settings: dict[str, Any]) -> str | None:
    """Whether method, backbone and loss go together."""
    name, method = settings["method"], METHODS[settings["method"]]
    together = f"method {name!r} and {{}} do not go together: "
    if method.needs_batchnorm and not BACKBONES[settings["backbone"]].has_batchnorm:
        return together.format(f"backbone {settings['backbone']!r}") + "it has no BatchNorm"
    if method.needs_batchnorm and settings.get("frozen"):
        return together.format("frozen") + "the BatchNorm of a frozen network takes no statistics"
    soft = method.soft_targets or settings.get("blend") == "weighted"
    if soft and settings["loss"] in HARD_LOSSES:
        return together.format(f"loss {settings['loss']!r}") + "its margin has no meaning for labels between 0 and 1"
    return None


def _steps_problem(settings: dict[str, Any]) -> str | None:
    """Whether batch and steps can be divided as the method wants it."""
    method, batch, steps = METHODS[settings["method"]], settings["batch"], settings["steps"]
    if settings["budget"] == EQUAL_EXPOSURES and not real_in_batch(settings):
        return (
            f"budget = {EQUAL_EXPOSURES!r} and method {settings['method']!r} do not go together: its steps have "
            "not all the same number of real images; give a number"
        )
    if method.pairs and batch % 2:
        return f"train_classifier.batch = {batch} must be even: half of it is real, half its partners"
    # Images that are normalised by themselves must be two or more.
    least = 2 if method.needs_batchnorm else 1
    if "ratio" in method.options and not least <= synthetic_fraction(batch, settings["ratio"]) <= batch - least:
        return (
            f"ratio = {settings['ratio']:g} leaves a batch of {batch} with fewer than {least} real images or others: "
            "take a ratio nearer to 1 or a larger train_classifier.batch"
        )
    if "pretrain" in method.options and not 0 < pretraining_steps(settings) < steps:
        return f"pretrain = {settings['pretrain']:g} leaves one of its two parts without any of the {steps} steps"
    if settings["checkpoints"] > steps:
        return f"train_classifier.checkpoints = {settings['checkpoints']} is more than its {steps} steps"
    return None


def pretraining_steps(settings: dict[str, Any]) -> int:
    """Steps that `pretrain_finetune` spends on the second source before it turns to real images."""
    return round(settings["pretrain"] * settings["steps"])


def published_path(folder: str, backbone: str) -> str:
    """Where fetch_weights puts the weights of a backbone, as `weights` may name it."""
    return os.path.join(folder, f"{backbone}-imagenet1k_v1.pth")  # noqa: PTH118


def weights_path(weights: str) -> Path:
    """The file that `weights` names; the environment's variables may stand in it."""
    # pathlib would raise an error of its own for the home of somebody unknown.
    return Path(os.path.expanduser(os.path.expandvars(weights)))  # noqa: PTH111
