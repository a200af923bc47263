"""Which networks, objectives and samplers there are, and which of them go together.

Read when the config is checked, before any job starts, so it must stay light: no torch."""

from __future__ import annotations

from typing import Any

NETWORKS = ("unet", "minimal")
# Pixel values as the network sees them (`generator_training.Pixels`), and how an image's labels are given to it.
PIXELS = ("standardised", "signed", "unit")
CONDITIONS = ("multi_hot", "single")
SAMPLINGS = ("as_train", "balanced")  # which training images a batch holds
OBJECTIVES = ("epsilon_linear", "epsilon_cosine", "velocity_linear", "velocity_cosine", "edm")
SAMPLERS = ("ancestral", "ddim", "heun", "dpmpp_2m", "dpmpp_2m_sde")
# Which labels a synthetic set has (`label_plans`), and what guidance pushes away from, if not from no label at all.
LABEL_PLANS = ("as_train", "balanced", "tail_fill", "single", "unseen", "feedback")
AGAINST = ("confused",)

# What a synthetic set names in place of a generator for cells from the simulator: the best that any could make.
SIMULATOR = "simulator"

# Calls of the denoiser below which a sampler's result is not worth having.
FEWEST = {"ancestral": 50, "ddim": 5, "heun": 5, "dpmpp_2m": 4, "dpmpp_2m_sde": 10}
CHAIN = 1000  # steps of the discrete schedules


def folding(size: int) -> int:
    """Side of the square of pixels that is folded into channels: small images keep their pixels."""
    return 1 if size < 32 else 2 if size < 128 else 4


def size_problem(size: int, levels: int) -> str | None:
    """Why images of this size do not suit a U-Net with so many resolutions, in one line; None where they do."""
    if not 16 <= size <= 256:
        return f"images of {size} px: the U-Net takes 16 to 256 px"
    step = folding(size) * 2 ** (levels - 1)
    if size % step:
        return f"images of {size} px: with {levels} resolutions the U-Net takes multiples of {step} px at this size"
    return None


def sees_given(generator: dict[str, Any]) -> bool:
    """Whether a generator's network has inputs for given channels."""
    return generator.get("reference_fraction", 0) > 0


def generator_problem(generator: dict[str, Any], size: int, channels: int) -> str | None:
    """What is wrong with a generator's settings for images of so many pixels and channels, in one line, or None."""
    if sees_given(generator) and channels < 2:
        return (
            "reference_fraction is above 0, but the images have one channel: nothing would be left to generate (take 0)"
        )
    if generator["network"] == "minimal":
        if sees_given(generator):
            return (
                "network minimal and reference_fraction do not go together: it has no input for given channels (take 0)"
            )
        if not generator["objective"].startswith("epsilon"):
            return (
                f"network minimal and objective {generator['objective']} do not go together: "
                "a network that cannot see the noise level can only tell noise from image (take epsilon_linear)"
            )
        if generator["labels"] != "single":
            return "network minimal and labels multi_hot do not go together: it embeds exactly one label (take single)"
        if generator["label_dropout"] > 0:
            return "network minimal and label_dropout do not go together: it has no word for a missing label (take 0)"
    elif not generator.get("widths") or not generator.get("blocks"):
        return "network unet needs widths and blocks"
    elif len(generator["widths"]) != len(generator["blocks"]):
        return (
            f"widths has {len(generator['widths'])} entries, blocks {len(generator['blocks'])}: one each a resolution"
        )
    elif generator["objective"] == "edm" and generator["pixels"] != "standardised":
        return f"objective edm and pixels {generator['pixels']} do not go together: it counts on pixels of deviation 1"
    else:
        return size_problem(size, len(generator["widths"]))
    return None


def asks_baseline(synthetic_set: dict[str, Any]) -> bool:
    """Whether a synthetic set asks the fold's trained baseline: where it errs, or what it takes for what."""
    return synthetic_set["labels"] == "feedback" or synthetic_set.get("guidance", {}).get("against") == "confused"


def set_problem(synthetic_set: dict[str, Any], generator: dict[str, Any], channels: list[str]) -> str | None:
    """What is wrong with a synthetic set beside its generator and the images' channels, in one line, or None."""
    sampler, evaluations, objective = synthetic_set["sampler"], synthetic_set["evaluations"], generator["objective"]
    guidance = synthetic_set["guidance"]
    if generator["network"] == "minimal" and sampler in ("heun", "dpmpp_2m", "dpmpp_2m_sde"):
        return (
            f"sampler {sampler} and network minimal do not go together: second-order steps compare estimates at two "
            "noise levels, which it cannot tell apart (take ancestral or ddim)"
        )
    if evaluations < FEWEST[sampler]:
        return f"sampler {sampler} needs at least {FEWEST[sampler]} evaluations, not {evaluations}"
    if sampler == "ancestral" and objective != "edm" and evaluations > CHAIN:
        return f"sampler ancestral and objective {objective}: the chain has {CHAIN} steps, not {evaluations}"
    if guidance["scale"] != 1 and generator["label_dropout"] == 0:
        return (
            f"guidance.scale {guidance['scale']:g} and label_dropout 0 do not go together: guidance needs a generator "
            "trained with label_dropout above 0"
        )
    if guidance.get("against") and guidance["scale"] == 1:
        return f"guidance.against {guidance['against']} does nothing at guidance.scale 1: raise scale, or take null"
    low, high = guidance["interval"]
    if low >= high:
        return f"guidance.interval {low:g} to {high:g} is empty"
    start_noise = synthetic_set.get("start_noise")
    if start_noise and synthetic_set["labels"] in ("unseen", "single"):
        return (
            f"start_noise and labels {synthetic_set['labels']} do not go together: there are no real images with exactly "
            "these labels, and a variation shows what its image shows"
        )
    if start_noise and guidance["scale"] != 1 and low >= start_noise:
        return (
            f"guidance.interval begins at {low:g}, above start_noise {start_noise:g}: guidance would act nowhere; "
            "lower its begin"
        )
    return _given_problem(synthetic_set, generator, channels) or _labels_problem(synthetic_set, generator)


def simulator_problem(synthetic_set: dict[str, Any]) -> str | None:
    """What is wrong with a synthetic set whose cells the simulator itself draws, in one line, or None."""
    for key in ("reference_channels", "start_noise", "sampler", "evaluations", "guidance", "clip", "batch"):
        if synthetic_set.get(key):
            return f"generator {SIMULATOR} has no use for {key}: fresh cells are drawn as simulate_cells says"
    if synthetic_set["labels"] == "feedback":
        return f"generator {SIMULATOR} and labels feedback do not go together: it asks no baseline"
    return _count_problem(synthetic_set)


def _given_problem(synthetic_set: dict[str, Any], generator: dict[str, Any], channels: list[str]) -> str | None:
    given = synthetic_set.get("reference_channels") or []
    absent = [name for name in given if name not in channels]
    if absent:
        return f"reference_channels names {absent[0]!r}, which the images do not have; they have {', '.join(channels)}"
    if given and not sees_given(generator):
        return "reference_channels needs a generator trained with reference_fraction above 0"
    if len(given) == len(channels):
        return f"reference_channels names all of {', '.join(channels)}: nothing is left to generate"
    return None


def _labels_problem(synthetic_set: dict[str, Any], generator: dict[str, Any]) -> str | None:
    if synthetic_set["labels"] != "single" and generator["labels"] == "single":
        return f"labels {synthetic_set['labels']} and a generator trained on single labels do not go together (take single)"
    return _count_problem(synthetic_set)


def _count_problem(synthetic_set: dict[str, Any]) -> str | None:
    needed = {"single": ("per_class",), "tail_fill": ("count", "target")}.get(synthetic_set["labels"], ("count",))
    for key in ("count", "target", "per_class"):
        if key in needed and synthetic_set.get(key) is None:
            return f"labels {synthetic_set['labels']} needs {key}"
        if key not in needed and synthetic_set.get(key) is not None:
            return f"labels {synthetic_set['labels']} has no use for {key}"
    return None
