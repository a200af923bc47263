"""Which methods, backbones and losses an arm of the experiment may have, and which of them go together.

Read when the config is checked, before any job starts, so it must stay light: no torch. A new method is a function in
`strategies.py` and a line in METHODS here; a new backbone one in `backbones.py` and BACKBONES; a new loss one in
`losses.py` and LOSSES."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

# Where the second source of images of a method comes from.
SYNTHETIC = "synthetic"  # the synthetic set of the arm's plan
RESAMPLED = "resampled"  # real train images drawn to the label combinations of that set
REAL = "real"  # all real train images


@dataclass(frozen=True)
class Method:
    """How an arm uses its images."""

    step: str  # the function in strategies.py that makes the loss of one optimiser step
    partners: str | None = None  # source of the images beside the real ones
    control: str | None = None  # the method that adds the same amount of nothing new
    options: tuple[str, ...] = ()  # settings of train_classifier that act in this method; an arm may give its own
    pairs: bool = False  # half of each batch is real, each image with a partner
    needs_batchnorm: bool = False

    @property
    def needs_plan(self) -> bool:
        """Whether an arm must name the plan of a synthetic set."""
        return self.partners in (SYNTHETIC, RESAMPLED)


METHODS = {
    "real_only": Method("real_only"),
    "synthetic_only": Method("partners_only", SYNTHETIC),
    "pool": Method("pool", SYNTHETIC, "resample_real", ("ratio",)),
    "resample_real": Method("pool", RESAMPLED, None, ("ratio",)),
    "mix_loss": Method("mix_loss", SYNTHETIC, "mix_loss_real", ("alpha",), pairs=True),
    "mix_loss_real": Method("mix_loss", REAL, None, ("alpha",), pairs=True),
    "mix_representation": Method("mix_representation", SYNTHETIC, "mix_representation_real", ("alpha",), pairs=True),
    "mix_representation_real": Method("mix_representation", REAL, None, ("alpha",), pairs=True),
}


@dataclass(frozen=True)
class Backbone:
    """What must be known of a network before it is built."""

    has_batchnorm: bool
    smallest: int  # image size in pixels


BACKBONES = {
    "small": Backbone(True, 16),
    "resnet18": Backbone(True, 32),
    "resnet34": Backbone(True, 32),
    "resnet50": Backbone(True, 32),
}

LOSSES = ("bce",)

# Settings of train_classifier that every arm may replace by its own.
COMMON_OPTIONS = ("backbone", "loss", "channels")
# Settings of train_classifier that only some methods read.
METHOD_OPTIONS = tuple(sorted({option for method in METHODS.values() for option in method.options}))
# What names an arm and its relations; the rest of an entry are options.
NAMING = ("name", "method", "plan", "control", "baseline")


def synthetic_share(batch: int, ratio: float) -> int:
    """Partner images in a batch at `ratio` partners to one real image."""
    return round(batch * ratio / (1 + ratio))


def effective(entry: dict[str, Any], section: dict[str, Any]) -> dict[str, Any]:
    """Everything that decides how an arm is trained: its own options over those of `train_classifier`.

    What does not act in its method is left out, and so is what it is compared with: neither re-trains it."""
    method = METHODS[entry["method"]]
    options = {key: value for key, value in entry.items() if key not in NAMING}
    common = {key: value for key, value in section.items() if key not in METHOD_OPTIONS or key in method.options}
    return common | options | {key: entry[key] for key in ("name", "method", "plan") if key in entry}


def problem(entry: dict[str, Any], section: dict[str, Any], channels: list[str], size: int | None = None) -> str | None:
    """What is wrong with an arm beside the settings `train_classifier`, in one line; None where nothing is.

    `channels` and `size` are those of the images; `size` where it is known."""
    method = METHODS[entry["method"]]
    allowed = (*COMMON_OPTIONS, *method.options)
    for key in entry:
        if key not in NAMING and key not in allowed:
            return f"{key} is given, but the method {entry['method']!r} does not use it (it uses {', '.join(allowed)})"
    settings = effective(entry, section)
    for key, known in (("backbone", BACKBONES), ("loss", LOSSES)):
        if settings[key] not in known:
            return f"{key} = {settings[key]!r} is not known; known: {', '.join(known)}"
    for name in settings["channels"] or ():
        if name not in channels:
            return f"channels names {name!r}, which the images do not have; they have {', '.join(channels)}"
    backbone, batch = BACKBONES[settings["backbone"]], settings["batch"]
    if method.needs_batchnorm and not backbone.has_batchnorm:
        return (
            f"method {entry['method']!r} and backbone {settings['backbone']!r} do not go together: it has no BatchNorm"
        )
    if size is not None and size < backbone.smallest:
        return f"backbone {settings['backbone']!r} needs images of {backbone.smallest} px or more, not {size}"
    if method.pairs and batch % 2:
        return f"train_classifier.batch = {batch} must be even: half of it is real, half its partners"
    if "ratio" in method.options and not 0 < synthetic_share(batch, settings["ratio"]) < batch:
        return (
            f"ratio = {settings['ratio']:g} leaves a batch of {batch} without real images or without others: "
            "take a ratio nearer to 1 or a larger train_classifier.batch"
        )
    if settings["checkpoints"] > settings["steps"]:
        return f"train_classifier.checkpoints = {settings['checkpoints']} is more than its {settings['steps']} steps"
    return None


def analysis_problem(analysis: dict[str, Any], strategies: list[dict[str, Any]]) -> str | None:
    """What is wrong with the declared analysis beside the list of arms, in one line; None where nothing is."""
    names = [entry["name"] for entry in strategies]
    listed = [] if analysis["family"] == "all" else list(analysis["family"])
    wanted = [("primary_arm", analysis["primary_arm"]), ("baseline", analysis["baseline"])]
    for key, name in wanted + [("family", name) for name in listed]:
        if name not in names:
            return f"analysis.{key} = {name!r} is not among the strategies: {', '.join(names)}"
    if analysis["baseline"] in (analysis["primary_arm"], *listed):
        return f"analysis.baseline = {analysis['baseline']!r} is what arms are compared with: it cannot be one of them"
    if listed and analysis["primary_arm"] not in listed:
        return f"analysis.family must hold the primary arm {analysis['primary_arm']!r}"
    known = {entry["name"]: entry for entry in strategies}
    for entry in strategies:
        for key in ("control", "baseline"):
            other = entry.get(key)
            if other is not None and (other not in names or other == entry["name"]):
                return f"strategies ({entry['name']}).{key} = {other!r} is no other arm; known: {', '.join(names)}"
        problem = control_problem(entry, known)
        if problem:
            return f"strategies ({entry['name']}).{problem}"
    return None


def control_problem(entry: dict[str, Any], known: dict[str, dict[str, Any]]) -> str | None:
    """Why an arm's control does not add the same amount of nothing new, in one line; None where it does."""
    control = known.get(entry.get("control", ""))
    if control is None:
        return None
    wanted = METHODS[entry["method"]].control if entry["method"] in METHODS else None
    if control["method"] != wanted:
        takes = f"{entry['method']!r} is controlled by {wanted!r}" if wanted else f"{entry['method']!r} has no control"
        return f"control = {control['name']!r} has the method {control['method']!r}; {takes}"
    for key in ("plan", *COMMON_OPTIONS, *METHOD_OPTIONS):
        # A control that draws from real images alone names no plan.
        if (key != "plan" or "plan" in control) and entry.get(key) != control.get(key):
            values = f"{control.get(key)!r} instead of {entry.get(key)!r}"
            return f"control = {control['name']!r} has another {key}: {values}"
    return None
