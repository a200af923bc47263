"""Errors in the settings of generators and synthetic sets, each in one line; None where there is none."""

from __future__ import annotations

from typing import Any

from workflow_scripts.lib.base.names import meant
from workflow_scripts.lib.generate.generator_choices import (
    CHAIN,
    COUNTS,
    EARLIER,
    LABEL_PLANS,
    LABELLED,
    NETWORKS,
    OBJECTIVES,
    PSEUDO_LABELLED,
    SAMPLERS,
    SIMULATOR,
    UNLABELLED,
    WEIGHTINGS,
    folding,
    takes_references,
)
from workflow_scripts.lib.images.image_set_layout import MISSING

# What a weaker generator must share with the one that it guides: its pixels, its labels, and what it has read.
SHARED_WITH_WEAKER = (
    "pixels", "labels", "sees", "pseudo_labels_from", "regime", "reference_channels", "condition_on",
)  # fmt: skip


def size_problem(size: int, levels: int, patch: int | None = None) -> str | None:
    """Reason why images of this size do not suit a U-Net with so many resolutions, in one line, or None."""
    if not 16 <= size <= 256:
        return f"images of {size} px: the U-Net takes 16 to 256 px"
    step = (patch or folding(size)) * 2 ** (levels - 1)
    if size % step:
        blocks = f" and patches of {patch} px" if patch else ""
        taken = f"the U-Net takes multiples of {step} px at this size"
        return f"images of {size} px: with {levels} resolutions{blocks} {taken}"
    return None


def generator_problem(generator: dict[str, Any], size: int, channels: list[str]) -> str | None:
    """Error in a generator's settings for images of so many pixels and these channels, in one line, or None."""
    references = generator.get("reference_channels") or []
    if references and not takes_references(generator):
        return "reference_channels needs reference_fraction above 0 (1: they are always given)"
    absent = [name for name in references if name not in channels]
    if absent:
        return _absent(absent[0], channels)
    if references and len(references) == len(channels):
        return f"reference_channels names all of {', '.join(channels)}: nothing is left to learn"
    if takes_references(generator) and len(channels) < 2:
        return (
            "reference_fraction is above 0, but the images have one channel: nothing would be left to generate (take 0)"
        )
    problem = _network_problem(generator)
    if problem or not NETWORKS[generator["network"]].resolutions:
        return problem
    name, widths, blocks = generator["network"], generator.get("widths"), generator.get("blocks")
    if not widths or not blocks:
        return f"network {name} needs widths and blocks"
    if len(widths) != len(blocks):
        return f"widths has {len(widths)} entries, blocks {len(blocks)}: one each a resolution"
    return size_problem(size, len(widths), generator.get("patch"))


def _network_problem(generator: dict[str, Any]) -> str | None:
    """Error in the combination of network, objective and condition, or None."""
    facts, objective = NETWORKS[generator["network"]], OBJECTIVES[generator["objective"]]
    together = f"network {generator['network']} and {{}} do not go together: "
    if takes_references(generator) and not facts.reference_channels:
        return together.format("reference_fraction") + "it has no input for reference channels (take 0)"
    if not facts.noise_level and not objective.predicts_noise:
        return together.format(f"objective {generator['objective']}") + (
            "a network that cannot see the noise level can only tell noise from image (take epsilon_linear)"
        )
    if not facts.several_labels and generator["labels"] != "single":
        return together.format(f"labels {generator['labels']}") + "it embeds exactly one label (take single)"
    if not facts.missing_labels and generator["label_dropout"] > 0:
        return together.format("label_dropout") + "it has no word for a missing label (take 0)"
    if generator.get("condition_on") and generator.get("ema_widths"):
        return "condition_on and ema_widths exclude each other: the validation part is asked without columns"
    if not facts.columns and generator.get("condition_on"):
        return together.format("condition_on") + "it has no input for columns"
    if not facts.missing_labels and generator.get("sees") == UNLABELLED:
        return together.format("sees unlabelled") + "it has no word for a missing label"
    if generator["labels"] == "single" and generator.get("sees") == PSEUDO_LABELLED:
        return "labels single and sees pseudo_labelled do not go together: the baseline's answers are between 0 and 1"
    weighting = generator.get("weighting", "plain")
    if WEIGHTINGS[weighting].learned and not facts.noise_level:
        return together.format(f"weighting {weighting}") + "it cannot see the noise level (take plain)"
    if generator.get("ema_widths") and generator.get("noise_level"):
        return "ema_widths and noise_level do not go together: the encoder of an auto-encoder is not chosen so"
    for key in ("attention", "patch"):
        if generator.get(key) and not facts.resolutions:
            return together.format(key) + "it has one resolution"
    if objective.unit_deviation and generator["pixels"] != "standardised":
        return (
            f"objective {generator['objective']} and pixels {generator['pixels']} do not go together: "
            "it counts on pixels of deviation 1"
        )
    return None


def regime_problem(generator: dict[str, Any], regime: dict[str, Any]) -> str | None:
    """Error in what a generator sees under a label regime, in one line, or None."""
    sees = generator.get("sees", LABELLED)
    if sees != LABELLED and regime["unlabelled"] != "seen":
        return (
            f"sees {sees}, and the regime {regime['name']!r} shows no unlabelled images: take one with unlabelled: "
            "seen, and with labelled below 1 or further images (data.unlabelled)"
        )
    return None


def encoder_problem(generator: dict[str, Any], one_level: bool) -> str | None:
    """Error in a generator whose encoder is to be a backbone, in one line, or None; `one_level`: an auto-encoder's."""
    name = generator["name"]
    if not NETWORKS[generator["network"]].resolutions:
        return f"generator {name!r} has the network {generator['network']}, which has no encoder: take a unet"
    if not generator["label_dropout"] and generator.get("sees") != UNLABELLED:
        return f"generator {name!r} has label_dropout 0, and its encoder is asked without labels: train it with some"
    if generator.get("reference_fraction", 0) >= 1:
        return (
            f"generator {name!r} was always given reference channels (reference_fraction 1), and its network is asked "
            "without: train it with less than 1"
        )
    # Which channels are missing it was told without being asked: here images count as whole.
    if [column for column in generator.get("condition_on") or [] if column != MISSING]:
        return f"generator {name!r} has condition_on, and its network is asked without columns: take one that has none"
    if one_level != bool(generator.get("noise_level")):
        return f"generator {name!r} {'needs a' if one_level else 'has a'} noise_level, which makes it an auto-encoder"
    return None


def set_problem(
    synthetic_set: dict[str, Any],
    generator: dict[str, Any],
    channels: list[str],
    weaker: dict[str, Any] | None = None,
) -> str | None:
    """Error in a synthetic set's own settings, apart from generator and channels, in one line, or None.

    `weaker`: the settings of the generator that guides it, where it names one."""
    if generator.get("noise_level"):
        return f"generator {generator['name']} has a noise_level, so it can make no images: it has learned one alone"
    if synthetic_set.get("columns") and not generator.get("condition_on"):
        return f"columns needs a generator with condition_on, and {generator['name']} has none"
    return (
        _sampler_problem(synthetic_set, generator)
        or _guidance_problem(synthetic_set, generator)
        or _autoguidance_problem(synthetic_set, generator, weaker)
        or _reference_problem(synthetic_set, generator, channels)
        or _labels_problem(synthetic_set, generator)
    )


def simulator_problem(synthetic_set: dict[str, Any]) -> str | None:
    """Error in a synthetic set whose cells the simulator itself draws, in one line, or None."""
    for key in ("reference_channels", "start_noise", "sampler", "evaluations", "guidance", "clip", "batch", "columns"):
        if synthetic_set.get(key):
            return f"generator {SIMULATOR} has no use for {key}: fresh cells are drawn as simulate_cells says"
    labels = synthetic_set["labels"]
    if LABEL_PLANS[labels].asks_baseline:
        return f"generator {SIMULATOR} and labels {labels} do not go together: it asks no baseline"
    return _count_problem(synthetic_set)


def _sampler_problem(synthetic_set: dict[str, Any], generator: dict[str, Any]) -> str | None:
    name, evaluations, objective = synthetic_set["sampler"], synthetic_set["evaluations"], generator["objective"]
    sampler = SAMPLERS[name]
    if sampler.second_order and not NETWORKS[generator["network"]].noise_level:
        return (
            f"sampler {name} and network {generator['network']} do not go together: second-order steps compare "
            "estimates at two noise levels, which it cannot tell apart (take ancestral or ddim)"
        )
    if evaluations < sampler.fewest:
        return f"sampler {name} needs at least {sampler.fewest} evaluations, not {evaluations}"
    if sampler.chain and OBJECTIVES[objective].chain and evaluations > CHAIN:
        return f"sampler {name} and objective {objective}: the chain has {CHAIN} steps, not {evaluations}"
    return None


def _guidance_problem(synthetic_set: dict[str, Any], generator: dict[str, Any]) -> str | None:
    guidance = synthetic_set["guidance"]
    unconditional = not guidance.get("weaker") and guidance.get("against") != EARLIER
    if guidance["scale"] != 1 and generator["label_dropout"] == 0 and unconditional:
        return (
            f"guidance.scale {guidance['scale']:g} and label_dropout 0 do not go together: guidance needs a generator "
            "trained with label_dropout above 0"
        )
    if guidance.get("against") and guidance["scale"] == 1:
        return f"guidance.against {guidance['against']} does nothing at guidance.scale 1: raise scale, or take null"
    if guidance.get("weaker") and guidance["scale"] == 1:
        return f"guidance.weaker {guidance['weaker']} does nothing at guidance.scale 1: raise scale, or take null"
    low, high = guidance["interval"]
    if low >= high:
        return f"guidance.interval {low:g} to {high:g} is empty"
    start_noise = synthetic_set.get("start_noise")
    begin = start_noise or OBJECTIVES[generator["objective"]].highest
    if guidance["scale"] != 1 and low >= begin:
        what = "start_noise" if start_noise else f"where sampling with {generator['objective']} begins,"
        return (
            f"guidance.interval begins at {low:g}, above {what} {begin:g}: guidance would act nowhere; lower its begin"
        )
    return None


def _autoguidance_problem(
    synthetic_set: dict[str, Any], generator: dict[str, Any], weaker: dict[str, Any] | None
) -> str | None:
    """Error in the snapshot or the weaker generator that guides the set, or None."""
    guidance = synthetic_set["guidance"]
    against, name = guidance.get("against"), guidance.get("weaker")
    if against and name:
        return f"guidance.against {against} and guidance.weaker {name} exclude each other: take null for one"
    if against == EARLIER and not generator.get("snapshot"):
        return f"guidance.against {EARLIER} needs generator {generator['name']} to have a snapshot, such as 0.25"
    if not name:
        return None
    if weaker is None or name == generator["name"]:
        told = "is the set's own generator" if weaker else "is not defined"
        return f"guidance.weaker {name} {told}: name another one of generators"
    if weaker.get("noise_level"):
        return f"guidance.weaker {name} has a noise_level, so it has learned one alone"
    # Which channels are missing is told where a network can be told, whatever the config says.
    pair = [
        {"sees": LABELLED}
        | entry
        | {"condition_on": [name for name in entry.get("condition_on") or [] if name != MISSING]}
        for entry in (generator, weaker)
    ]
    differing = next((key for key in SHARED_WITH_WEAKER if pair[0].get(key) != pair[1].get(key)), None)
    if differing:
        return f"guidance.weaker {name} has another {differing} than generator {generator['name']}: give it the same"
    if synthetic_set.get("reference_channels") and not takes_references(weaker):
        return f"guidance.weaker {name} takes no reference_channels: train it with reference_fraction above 0"
    if not synthetic_set.get("reference_channels") and weaker.get("reference_fraction", 0) >= 1:
        return f"guidance.weaker {name} was always given reference channels: train it with reference_fraction below 1"
    return None


def _reference_problem(synthetic_set: dict[str, Any], generator: dict[str, Any], channels: list[str]) -> str | None:
    """Error in the real images, or their channels, that the synthetic set starts from, or None."""
    labels = synthetic_set["labels"]
    if synthetic_set.get("start_noise") and not LABEL_PLANS[labels].as_real:
        return (
            f"start_noise and labels {labels} do not go together: there are no real images with exactly these labels, "
            "and a variation shows what its image shows"
        )
    references = synthetic_set.get("reference_channels") or []
    absent = [name for name in references if name not in channels]
    if absent:
        return _absent(absent[0], channels)
    if references and not takes_references(generator):
        return "reference_channels needs a generator trained with reference_fraction above 0"
    if not references and generator.get("reference_fraction", 0) >= 1:
        return (
            f"generator {generator['name']} was always given reference channels (reference_fraction 1), and would be "
            "asked without: name reference_channels, or train it with less than 1"
        )
    learned = generator.get("reference_channels")
    if references and learned and set(references) != set(learned):
        return f"reference_channels must be those that the generator has learned with: {', '.join(learned)}"
    if len(references) == len(channels):
        return f"reference_channels names all of {', '.join(channels)}: nothing is left to generate"
    return None


def _labels_problem(synthetic_set: dict[str, Any], generator: dict[str, Any]) -> str | None:
    labels = synthetic_set["labels"]
    if not LABEL_PLANS[labels].one_label and generator["labels"] == "single":
        return f"labels {labels} and a generator trained on single labels do not go together (take single)"
    return _count_problem(synthetic_set)


def _count_problem(synthetic_set: dict[str, Any]) -> str | None:
    labels = synthetic_set["labels"]
    for key in COUNTS:
        if key in LABEL_PLANS[labels].needs and synthetic_set.get(key) is None:
            return f"labels {labels} needs {key}"
        if key not in LABEL_PLANS[labels].needs and synthetic_set.get(key) is not None:
            return f"labels {labels} has no use for {key}"
    return None


def _absent(name: str, channels: list[str]) -> str:
    told = f"{', '.join(channels)}{meant(name, channels)}"
    return f"reference_channels names {name!r}, which the images do not have; they have {told}"
