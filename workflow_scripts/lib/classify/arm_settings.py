"""Settings of an arm: its options, its full settings beside those of `train_classifier`, and what follows from these.

Which methods and second sources there are stands in `arm_choices.py`. This module does not import torch."""

from __future__ import annotations

import math
from typing import Any

from workflow_scripts.lib.classify.arm_choices import METHODS

SAMPLINGS = ("each_once", "balanced")  # sampling of real images
BLENDS = ("union", "weighted")  # labels of a blend of two images

# Settings of train_classifier that every arm may replace by its own.
COMMON_OPTIONS = ("backbone", "weights", "frozen", "loss", "channels", "sampling", "budget")
# A budget that gives an arm as many real images, repeats counted, as an arm of real images alone has.
EQUAL_EXPOSURES = "equal_exposures"
# Settings of train_classifier that only some methods read.
METHOD_OPTIONS = tuple(sorted({option for method in METHODS.values() for option in method.options}))
# Name, label regime and relations of an arm, and how many settings of it were tried on the validation part. The rest of
# an entry are options.
NAMING = (
    "name", "method", "regime", "synthetic_set", "generator", "pseudo_labels_from", "control", "baseline",
    "only_simulated", "trials",
)  # fmt: skip
# What of this is part of its training.
TRAINED_WITH = ("name", "method", "regime", "synthetic_set", "generator", "pseudo_labels_from")


def synthetic_fraction(batch: int, ratio: float) -> int:
    """Images of the second source in a batch, at `ratio` of them to one real image."""
    return round(batch * ratio / (1 + ratio))


def effective(entry: dict[str, Any], section: dict[str, Any]) -> dict[str, Any]:
    """Full settings of an arm: its own options override those of `train_classifier`.

    Options that do not act in its method are left out, and so is the choice of its comparisons: neither re-trains
    it."""
    method = METHODS[entry["method"]]
    options = {key: value for key, value in entry.items() if key not in NAMING}
    common = {key: value for key, value in section.items() if key not in METHOD_OPTIONS or key in method.options}
    out = common | options | {key: entry[key] for key in TRAINED_WITH if key in entry}
    # Of the parameters of losses, those of its own.
    out["losses"] = {name: values for name, values in section.get("losses", {}).items() if name == out["loss"]}
    out["steps"] = steps_within_budget(out)
    if method.balanced:
        out["sampling"] = "balanced"
    if method.on_baseline:
        out |= {"frozen": True, "weights": None}
    if method.generator:
        out |= {"backbone": "generator_scores" if method.scores else "generator", "weights": None}
    if method.scores:
        # Nothing is trained: its head is linear, whatever loss and sampling the other arms have.
        out |= {"frozen": False, "loss": "bce", "losses": {}, "sampling": "each_once"}
    if "strong" in out and not method.views:
        out["augment"] = section["augment"] | {key: out["strong"][key] for key in ("scale", "aspect", "intensity")}
    return out


def second_view(settings: dict[str, Any]) -> dict[str, Any]:
    """How second views are augmented: as `strong` says, or by the fraction `weaker` of that (`effective` settings)."""
    strong, by = settings["strong"], settings.get("weaker", 1)
    if by == 1:
        return strong
    return {
        "scale": [1 - by * (1 - bound) for bound in strong["scale"]],
        "aspect": [bound**by for bound in strong["aspect"]],
        "intensity": by * strong["intensity"],
        "erase": by * strong["erase"],
    }


def labels_others(settings: dict[str, Any]) -> bool:
    """Whether an arm (`effective` settings) answers for unlabelled images, where some are shown: real images alone,
    and those whose answers a generator is trained with."""
    regime = settings.get("regime") or {}
    if settings.get("answers_unlabelled"):
        return True
    method = METHODS[settings["method"]]
    plain = method.second_source is None and settings.get("real_fraction", 1) == 1
    return plain and not (method.scores or method.averaged) and regime.get("unlabelled") == "seen"


def steps_within_budget(settings: dict[str, Any]) -> int:
    """Optimiser steps of an arm with these settings: the common number times its budget."""
    budget, batch = settings["budget"], settings["batch"]
    if budget == EQUAL_EXPOSURES:
        real = real_in_batch(settings)
        return math.ceil(settings["steps"] * batch / real) if real else settings["steps"]
    return round(settings["steps"] * budget)


def real_in_batch(settings: dict[str, Any]) -> int:
    """Images of a batch drawn directly from the train part; 0 where their number varies from step to step."""
    method, batch = METHODS[settings["method"]], settings["batch"]
    if method.pairs:
        return batch // 2
    if "ratio" in method.options and not method.changing:
        return batch - synthetic_fraction(batch, settings["ratio"])
    return batch if method.second_source is None else 0


def seen_in_batch(settings: dict[str, Any]) -> int:
    """Images that pass the network at a step: the batch, and second views of those of which there are two."""
    twice = METHODS[settings["method"]].views and "ratio" in settings
    return settings["batch"] + (synthetic_fraction(settings["batch"], settings["ratio"]) if twice else 0)


def pretraining_steps(settings: dict[str, Any]) -> int:
    """Steps of `pretrain_finetune` on the second source, before those on real images."""
    return round(settings["pretrain"] * settings["steps"])
