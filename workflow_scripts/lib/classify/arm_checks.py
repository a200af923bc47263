"""Checks of an arm's settings before any job starts: options, images, network, and their combination.

Every check returns its error in one line, or None. This module does not import torch."""

from __future__ import annotations

import os
from typing import Any

from workflow_scripts.lib.base.names import meant
from workflow_scripts.lib.classify.arm_choices import METHODS
from workflow_scripts.lib.classify.arm_settings import (
    COMMON_OPTIONS,
    EQUAL_EXPOSURES,
    NAMING,
    effective,
    pretraining_steps,
    real_in_batch,
    synthetic_fraction,
)
from workflow_scripts.lib.classify.network_choices import (
    BACKBONES,
    EMBEDDED_STEPS,
    FITTED_STEPS,
    IMAGENET,
    LOSSES,
    BackboneFacts,
    published_path,
    weights_path,
)
from workflow_scripts.lib.classify.source_choices import NEW_PIXELS, UNLABELLED


def regime_problem(entry: dict[str, Any], regime: dict[str, Any]) -> str | None:
    """Error in an arm's method for a label regime, in one line, or None."""
    method = METHODS[entry["method"]]
    if method.second_source in UNLABELLED and regime["unlabelled"] != "seen":
        return (
            f"the method {entry['method']!r} learns from unlabelled images, and the regime {regime['name']!r} shows "
            "none: take one with unlabelled: seen, and with labelled below 1 or further images (data.unlabelled)"
        )
    return None


def problem(entry: dict[str, Any], section: dict[str, Any], channels: list[str], size: int | None = None) -> str | None:
    """Error in an arm's settings beside `train_classifier`, in one line, or None.

    `channels` and `size` are those of the images; `size` where it is known."""
    method = METHODS[entry["method"]]
    allowed = (*COMMON_OPTIONS, *method.options)
    for key in entry:
        if key not in NAMING and key not in allowed:
            return f"{key} is given, but the method {entry['method']!r} does not use it (it uses {', '.join(allowed)})"
    if method.balanced and entry.get("sampling", "balanced") != "balanced":
        return f"sampling = {entry['sampling']!r} contradicts the method {entry['method']!r}: take real_only"
    if method.step == "second_only" and entry.get("sampling") == "balanced":
        return (
            f"sampling is given, but the method {entry['method']!r} draws no real images: say it in its synthetic set"
        )
    for place, own in (("the fold's baseline", method.on_baseline), ("a generator", bool(method.generator))):
        fixed = ("weights", "frozen") if method.on_baseline else ("weights", "backbone", "channels")
        fixed += ("frozen", "loss", "sampling", "budget") if method.scores else ()
        for key in fixed if own else ():
            if key in entry:
                return f"{key} is given, but the method {entry['method']!r} has the trunk of {place}"
    settings = effective(entry, section)
    facts = BACKBONES.get(settings["backbone"], BACKBONES["small"])
    if (facts.of_generator and not method.generator) or facts.of_pair:
        return f"backbone {settings['backbone']!r} is that of some methods alone: take {_methods_of(facts)}"
    if method.generator and settings["channels"]:
        return f"channels and method {entry['method']!r} do not go together: a generator has all channels"
    for known in (BACKBONES, LOSSES):
        if settings[known.kind] not in known:
            return known.unknown(settings[known.kind])
    for name in settings["channels"] or ():
        if name not in channels:
            told = f"{', '.join(channels)}{meant(name, channels)}"
            return f"channels names {name!r}, which the images do not have; they have {told}"
    return _network_problem(settings, size) or _combination_problem(settings) or _steps_problem(settings)


def baseline_problem(settings: dict[str, Any], baseline: dict[str, Any]) -> str | None:
    """Error in an arm that has the baseline's trunk, in one line, or None; both by their `effective` settings."""
    method = METHODS[settings["method"]]
    alike = {"backbone", "channels"} if method.on_baseline else set()
    if method.averaged:
        alike = {"channels"} if method.scores else {"backbone", "channels", "loss", "weights", "frozen", "sampling"}
    why = "has the baseline's trunk" if method.on_baseline else "is averaged with it"
    for key in sorted(alike):
        if settings[key] != baseline[key]:
            return (
                f"{key} = {settings[key]!r} is not that of its baseline, {baseline[key]!r}: the method "
                f"{settings['method']!r} {why}"
            )
    return None


def _methods_of(facts: BackboneFacts) -> str:
    """Names of the methods that have a backbone of methods alone."""
    scores = facts is BACKBONES["generator_scores"]
    own = (
        name
        for name, method in METHODS.items()
        if (method.averaged if facts.of_pair else method.generator and method.scores == scores)
    )
    return " or ".join(own)


def _network_problem(settings: dict[str, Any], size: int | None) -> str | None:
    """Error in the image size or the initial weights for the backbone, or None."""
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
    if settings.get("frozen") and METHODS[settings["method"]].self_supervised:
        return f"method {settings['method']!r} and frozen do not go together: it is there to train the backbone"
    if (
        settings.get("frozen")
        and not weights
        and not (METHODS[settings["method"]].on_baseline or backbone.of_generator)
    ):
        return "frozen: a network that is not trained needs weights to start from; give the file in weights"
    return None


def _combination_problem(settings: dict[str, Any]) -> str | None:
    """Error in the combination of method, backbone and loss, or None."""
    name, method = settings["method"], METHODS[settings["method"]]
    together = f"method {name!r} and {{}} do not go together: "
    if method.needs_batchnorm and not BACKBONES[settings["backbone"]].has_batchnorm:
        return together.format(f"backbone {settings['backbone']!r}") + "it has no BatchNorm"
    if method.needs_batchnorm and settings.get("frozen"):
        return together.format("frozen") + "the BatchNorm of a frozen network takes no statistics"
    if BACKBONES[settings["backbone"]].embedded:
        pixels = method.step not in EMBEDDED_STEPS or method.second_source in NEW_PIXELS or method.averaged
        if pixels:
            return together.format(f"backbone {settings['backbone']!r}") + "it works on pixels"
        if settings["channels"]:
            return f"channels and backbone {settings['backbone']!r} do not go together: embeddings have none"
    if BACKBONES[settings["backbone"]].hand_made:
        if method.step not in FITTED_STEPS:
            return together.format(f"backbone {settings['backbone']!r}") + "its features are fitted, not trained"
        if method.averaged:
            return together.format(f"backbone {settings['backbone']!r}") + "another seed fits it to the same weights"
        if settings["loss"] != "bce":
            return (
                f"backbone {settings['backbone']!r} and loss {settings['loss']!r} do not go together: it is fitted by "
                "logistic regression; give the arm loss: bce"
            )
    soft = method.soft_targets or settings.get("blend") == "weighted"
    if soft and LOSSES[settings["loss"]].hard_labels:
        return together.format(f"loss {settings['loss']!r}") + "its margin has no meaning for labels between 0 and 1"
    return None


def _steps_problem(settings: dict[str, Any]) -> str | None:
    """Error in batch or steps that the method cannot divide, or None."""
    method, batch, steps = METHODS[settings["method"]], settings["batch"], settings["steps"]
    if settings["budget"] == EQUAL_EXPOSURES and not real_in_batch(settings):
        return (
            f"budget = {EQUAL_EXPOSURES!r} and method {settings['method']!r} do not go together: its steps have "
            "not all the same number of real images; give a number"
        )
    if method.pairs and batch % 2:
        return f"train_classifier.batch = {batch} must be even: half of it is real, half of the second source"
    if method.self_supervised and batch < 4:
        return f"train_classifier.batch = {batch} has fewer than two pairs of views: {settings['method']!r} needs 4"
    # BatchNorm over one image is undefined, so separately normalised images must be two or more.
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
