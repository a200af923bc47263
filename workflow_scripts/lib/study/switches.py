"""Switches for the reference study's suspicious choices: on (true) as in the study, off as in MixLoc.

Each acts at one place. `data`: on the pixels, or on the images trained on; `generator`: on the generator or its
requests; `training`: on the classifier's training; `after`: on how a trained classifier is tested, which costs no
training. The test images are the same under all switches: images of proteins that nothing was fitted on.

The config check reads this module before any job starts, so it imports neither torch nor numpy."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from workflow_scripts.lib.base.names import meant
from workflow_scripts.lib.classify import arm_checks, arm_choices, arm_settings, network_choices, source_choices
from workflow_scripts.lib.generate import generator_checks

DATA, GENERATOR, TRAINING, AFTER = "data", "generator", "training", "after"
TRANSFORMERS = ("vit_b_16", "swin_t", "swin_b")


@dataclass(frozen=True)
class Switch:
    """One choice of the study."""

    acts: str
    about: str  # one sentence: what the study did, and what MixLoc does
    violation: str = ""  # purpose whose rule it breaks (certify_leaks); empty: none
    methods: tuple[str, ...] = ()  # the methods on which it acts; empty: all
    synthetic: bool = False  # acts where generated images are used, and nowhere else
    batchnorm: bool = False  # acts on networks with BatchNorm, and on no other
    backbones: tuple[str, ...] = ()  # the backbones on which it acts; empty: all
    losses: tuple[str, ...] = ()  # the losses on which it acts; empty: all


# In the order in which a design uses them: switches that change the generator first, so that few generators are needed.
SWITCHES = {
    "no_time": Switch(
        GENERATOR,
        "The generator is the study's three convolutions, blind to the noise level, with its schedule and sampler; "
        "off: MixLoc's U-Net with its own.",
        synthetic=True,
    ),
    "single_label": Switch(
        GENERATOR,
        "The generator learns every (image, label) pair as if the image had that label alone; off: all labels of an "
        "image at once.",
        synthetic=True,
    ),
    "shown_larger": Switch(
        GENERATOR,
        "Synthetic images are made at a smaller size and scaled up for the classifier; off: made at its size.",
        synthetic=True,
    ),
    "image_split": Switch(
        DATA,
        "Within the outer parts that are not tested, validation images are drawn image by image, so that one protein "
        "stands on both sides; off: group by group.",
        violation="fit",
    ),
    "shared_batchnorm": Switch(
        TRAINING,
        "Real and synthetic images are normalised together by BatchNorm; off: each kind by itself, and the network "
        "keeps the statistics of the real ones.",
        methods=("mix_loss", "mix_representation"),
        synthetic=True,
        batchnorm=True,
    ),
    "premultiplied_alpha": Switch(
        DATA,
        "Images are resized as RGBA, which multiplies by the fourth channel and divides again: where it is 0 the other "
        "channels vanish; off: every channel by itself.",
    ),
    "uniform_prior": Switch(
        GENERATOR,
        "Synthetic images have one class each, all classes equally often; off: labels as in the train part.",
        synthetic=True,
    ),
    "scheduler_minimises": Switch(
        TRAINING,
        "The learning rate is cut whenever the validation score has not fallen for some checks, though it should rise; "
        "off: it falls along a cosine.",
    ),
    "warmup_late": Switch(
        TRAINING,
        "The learning rate warms up after the first epoch, which is trained at the full rate; off: at the first step.",
    ),
    "lambda_averaged": Switch(
        TRAINING,
        "In Mix Loss the batch means of the two losses are mixed, so that only the mean of λ acts; off: each pair has "
        "its own λ.",
        methods=("mix_loss",),
    ),
    "test_in_training_mode": Switch(
        AFTER,
        "Test images are predicted in training mode, so that BatchNorm normalises them by their own batch; off: in "
        "evaluation mode.",
        batchnorm=True,
    ),
    "test_batch_of_one": Switch(
        AFTER,
        "Test images are predicted one at a time, which matters in training mode alone: there each is normalised by "
        "itself; off: in batches.",
        batchnorm=True,
    ),
    "last_epoch": Switch(AFTER, "The last weights are tested; off: those that were best on validation."),
    "thresholds_on_reported": Switch(
        AFTER,
        "Decision thresholds are tuned on the validation part that is reported; off: on the calibration part.",
        violation="threshold",
    ),
    "normalisation_mismatch": Switch(
        AFTER,
        "Test images of transformers are normalised by mean and deviation 0.5; off: as in training, by those of the "
        "train part.",
        backbones=TRANSFORMERS,
    ),
    "arcface_test_dropout_and_scale": Switch(
        AFTER,
        "ArcFace is tested with its dropout active, and on cosines without the scale that thresholds were tuned with; "
        "off: neither.",
        losses=("arcface",),
    ),
}


def acts_on(name: str, model: dict[str, Any]) -> bool:
    """Whether a switch changes anything about a model (`effective` settings of an arm)."""
    switch, method = SWITCHES[name], arm_choices.METHODS[model["method"]]
    if switch.synthetic and not method.learns_from_generated:
        return False
    if switch.batchnorm and not network_choices.BACKBONES[model["backbone"]].has_batchnorm:
        return False
    return all(
        not wanted or model[key] in wanted
        for key, wanted in (("method", switch.methods), ("backbone", switch.backbones), ("loss", switch.losses))
    )


def of_model(names: Iterable[str], model: dict[str, Any], after: bool) -> list[str]:
    """Those of these switches that act on a model, after its training or before it."""
    return [name for name in names if (SWITCHES[name].acts == AFTER) == after and acts_on(name, model)]


def needs_generator(names: Iterable[str]) -> list[str]:
    """Those of these switches that change the generator: its own and those of its training images.

    `uniform_prior` changes the labels that are requested, not the generator."""
    return [name for name in names if SWITCHES[name].acts in (DATA, GENERATOR) and name != "uniform_prior"]


def varied(section: dict[str, Any]) -> list[str]:
    """The switches that a `forensics` section varies, in the registry's order."""
    chosen = SWITCHES if section["switches"] == "all" else section["switches"]
    return [name for name in SWITCHES if name in chosen]


def models(section: dict[str, Any], base: dict[str, Any]) -> list[dict[str, Any]]:
    """Models of a `forensics` section as full settings of an arm, from `train_classifier` and their own changes."""
    training = base | section["training"]
    return [arm_settings.effective(entry, training) for entry in section["models"]]


def acting(section: dict[str, Any], base: dict[str, Any], after: bool) -> list[str]:
    """Varied switches that act on at least one of the models, after training or before it."""
    names = varied(section)
    active = {name for model in models(section, base) for name in of_model(names, model, after)}
    return [name for name in names if name in active]


def idle_switches(section: dict[str, Any], base: dict[str, Any]) -> list[str]:
    """Varied switches that act on none of the models, but on other networks and losses."""
    active = {name for after in (False, True) for name in acting(section, base, after)}
    return [name for name in varied(section) if name not in active]


def stage_settings(config: dict[str, Any]) -> dict[str, Any]:
    """Settings of the replay's stages."""
    section = config["forensics"]
    synthetic_sets = {synthetic_set["name"]: synthetic_set for synthetic_set in config["synthetic_sets"]}
    made = {generator["name"]: generator for generator in config["generators"]}
    used = {key: synthetic_sets[name] for key, name in section["synthetic_sets"].items()}
    return {
        "forensics": section,
        "replay": config["replay"],
        "train_classifier": config["train_classifier"],
        "synthetic_sets": used,
        "generators": {key: made[synthetic_set["generator"]] for key, synthetic_set in used.items()},
        "minimum_calibration_groups": config["analysis"]["minimum_calibration_groups"],
    }


def artefact(model: str, broken: str = "") -> str:
    """Name of a model of the replay in the leak certificate, with the switch by which it breaks a rule."""
    return f"replay {model} {broken}".rstrip()


def violations(config: dict[str, Any]) -> list[str]:
    """Rules that the replay breaks on purpose, in the form of certify_leaks, each declared by its switch."""
    names = varied(config["forensics"])
    out = []
    for model in models(config["forensics"], config["train_classifier"]):
        for name, switch in SWITCHES.items():
            if switch.violation and acts_on(name, model) and (name in names or config["replay"][name]):
                out.append(f"{artefact(model['name'], name)}:{switch.violation}")
    return out


def problem(config: dict[str, Any]) -> str | None:
    """Error in the sections `replay` and `forensics`, in one line, or None."""
    section, images = config["forensics"], config["preprocess_images"]
    if not section["models"]:
        on = [name for name, value in config["replay"].items() if value]
        return f"replay.{on[0]} does nothing: forensics.models names no model to replay with it" if on else None
    if section["switches"] != "all":
        for name in section["switches"]:
            if name not in SWITCHES:
                return f"forensics.switches names {name!r}; known: {', '.join(SWITCHES)}"
    names = [entry["name"] for entry in section["models"]]
    if len(set(names)) < len(names):
        return "forensics.models: a name is given twice"
    used = {name for name in SWITCHES if name in varied(section) or config["replay"][name]}
    if "premultiplied_alpha" in used and len(images["channels"]) != 4:
        return (
            f"premultiplied_alpha multiplies by the fourth channel of four; there are {len(images['channels'])}: "
            "leave it out of forensics.switches and replay"
        )
    return _models_problem(config) or _idle_problem(config) or _sets_problem(config, used) or _design_problem(config)


def _models_problem(config: dict[str, Any]) -> str | None:
    images, section = config["preprocess_images"], config["forensics"]
    for entry in section["models"]:
        where = f"forensics.models ({entry['name']})"
        method = arm_choices.METHODS.get(entry["method"])
        if method is None:
            return f"{where}.method = {entry['method']!r} is not known; known: {', '.join(arm_choices.METHODS)}"
        elsewhere = method.needs_baseline or method.generator
        if elsewhere or method.second_source not in (None, source_choices.SYNTHETIC):
            return f"{where}.method = {entry['method']!r}: the replay takes methods of real or of generated images"
        if "regime" in entry:
            return f"{where}.regime: the replay labels everything"
        training = config["train_classifier"] | section["training"]
        problem = arm_checks.problem(entry, training, images["channels"], images["size"])
        if problem:
            return f"{where}: {problem}"
        own = arm_settings.effective(entry, training)
        if own["channels"]:
            return f"{where}.channels: the replay looks at all channels"
        if own["weights"]:
            return f"{where}.weights: the replay trains from random weights; give the model weights: null"
        facts = network_choices.BACKBONES[own["backbone"]]
        if facts.hand_made or facts.embedded:
            return f"{where}.backbone = {own['backbone']!r}: the replay trains networks on pixels"
    return None


def _idle_problem(config: dict[str, Any]) -> str | None:
    section = config["forensics"]
    idle = idle_switches(section, config["train_classifier"])
    if section["switches"] == "all" or not idle:
        return None
    return f"forensics.switches names {idle[0]}, which acts on none of forensics.models"


def _sets_problem(config: dict[str, Any], used: set[str]) -> str | None:
    section, synthetic_sets = (
        config["forensics"],
        {synthetic_set["name"]: synthetic_set for synthetic_set in config["synthetic_sets"]},
    )
    known = {generator["name"]: generator for generator in config["generators"]}
    for key, network in (("study", "minimal"), ("mixloc", "unet")):
        name, where = section["synthetic_sets"][key], f"forensics.synthetic_sets.{key}"
        if name not in synthetic_sets:
            told = f"{', '.join(synthetic_sets) or 'none'}{meant(name, synthetic_sets)}"
            return f"{where} = {name!r} is not defined; known: {told}"
        generator = synthetic_sets[name]["generator"]
        actual = known[generator]["network"] if generator in known else generator
        if actual != network:
            return f"{where} = {name!r} samples from a generator of network {actual}; it takes {network}"
        if known[generator].get("from"):
            return f"{where} = {name!r} samples from a generator of another run; the replay trains its own"
        asks = {word: synthetic_sets[name].get(word) for word in ("reference_channels", "start_noise")}
        asks["guidance.against"] = synthetic_sets[name]["guidance"].get("against")
        for word in (word for word, value in asks.items() if value):
            return f"{where} = {name!r} asks for {word}; the replay makes whole images from noise alone"
    size, smaller = config["preprocess_images"]["size"], section["shown_from"]
    if "shown_larger" in used:
        if smaller >= size:
            return f"forensics.shown_from = {smaller} must be smaller than preprocess_images.size = {size}"
        widths = known[synthetic_sets[section["synthetic_sets"]["mixloc"]]["generator"]]["widths"]
        problem = generator_checks.size_problem(smaller, len(widths))
        if problem:
            return f"forensics.shown_from: {problem}"
    if "thresholds_on_reported" in used and not config["make_folds"]["fractions"]["calibration"] > 0:
        return (
            "thresholds_on_reported needs make_folds.fractions.calibration above 0: thresholds must come from somewhere"
        )
    return None


def _design_problem(config: dict[str, Any]) -> str | None:
    runs = config["forensics"]["runs"]
    if runs & (runs - 1):
        return f"forensics.runs = {runs} must be a power of two"
    count = len(acting(config["forensics"], config["train_classifier"], after=False))
    base = runs.bit_length() - 1
    if count > max(base, runs // 2):
        return f"forensics.runs = {runs} holds fewer than {count} switches at resolution IV: take {2 * runs}"
    return None
