"""Registries of generators: networks, objectives, samplers and label plans, and their valid combinations.

A new network is a function in `networks.py` and an entry in NETWORKS. Likewise: objective, `diffusion.py` and
OBJECTIVES; sampler, `sampling.py` and SAMPLERS; label plan, `label_plans.py` and LABEL_PLANS. Checks, schema and
documentation read these entries before any job starts, so this module imports neither torch nor numpy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from workflow_scripts.lib.base.registry import Registry


@dataclass(frozen=True)
class NetworkFacts:
    """Facts about a network that are needed before it is built."""

    about: str
    resolutions: bool = True  # its settings are `widths` and `blocks`
    noise_level: bool = True  # has an input for the noise level
    reference_channels: bool = True  # has inputs for channels of a real image
    several_labels: bool = True  # takes any number of labels an image
    missing_labels: bool = True  # can be told that nothing is said about the labels
    columns: bool = True  # can be told values of columns, such as the cell line


NETWORKS = Registry(
    "network",
    {
        "unet": NetworkFacts("conditional U-Net that sees the noise level"),
        "minimal": NetworkFacts(
            "the reference study's three convolutions, blind to the noise level",
            resolutions=False,
            noise_level=False,
            reference_channels=False,
            several_labels=False,
            missing_labels=False,
            columns=False,
        ),
    },
)


@dataclass(frozen=True)
class ObjectiveFacts:
    """Facts about an objective that are needed before a network is trained."""

    about: str
    chain: bool = True  # noise levels are those of a discrete schedule of CHAIN steps
    predicts_noise: bool = False
    unit_deviation: bool = False  # counts on pixels of standard deviation 1
    highest: float = 157.0  # noise level that sampling begins at, about


CHAIN = 1000  # steps of the discrete schedules

OBJECTIVES = Registry(
    "objective",
    {
        "epsilon_linear": ObjectiveFacts(
            "predict the noise, linear schedule: plain DDPM (Ho et al. 2020)", predicts_noise=True
        ),
        "epsilon_cosine": ObjectiveFacts(
            "predict the noise, cosine schedule (Nichol & Dhariwal 2021)", predicts_noise=True
        ),
        "velocity_linear": ObjectiveFacts("predict the velocity (Salimans & Ho 2022), linear schedule"),
        "velocity_cosine": ObjectiveFacts("predict the velocity (Salimans & Ho 2022), cosine schedule"),
        "edm": ObjectiveFacts(
            "EDM preconditioning and log-normal noise levels (Karras et al. 2022)",
            chain=False,
            unit_deviation=True,
            highest=80.0,
        ),
    },
)


@dataclass(frozen=True)
class WeightingFacts:
    """Facts about how losses at different noise levels are weighted."""

    about: str
    learned: bool = False  # by an output of the network, which must see the noise level


WEIGHTINGS = Registry(
    "loss weighting",
    {
        "plain": WeightingFacts("losses at all noise levels count alike"),
        "uncertainty": WeightingFacts(
            "each loss divided by its expected size, learned for every noise level (Karras et al. 2024)", learned=True
        ),
    },
)


@dataclass(frozen=True)
class SamplerFacts:
    """Facts about a sampler that are needed before it is used."""

    about: str
    fewest: int  # calls of the denoiser below which its result is not worth having
    calls: int = 1  # of the denoiser a step; the last step, to noise level 0, always takes one
    chain: bool = False  # visits the levels of a discrete schedule, where the objective has one
    second_order: bool = False  # compares estimates at two noise levels


SAMPLERS = Registry(
    "sampler",
    {
        "ancestral": SamplerFacts("the DDPM chain (Ho et al. 2020), up to 1000 steps", fewest=50, chain=True),
        "ddim": SamplerFacts("deterministic Euler steps of the flow (Song et al. 2021)", fewest=5),
        "heun": SamplerFacts(
            "second-order steps, two calls each (Karras et al. 2022)", fewest=5, calls=2, second_order=True
        ),
        "dpmpp_2m": SamplerFacts("DPM-Solver++(2M), one call a step (Lu et al. 2022)", fewest=4, second_order=True),
        "dpmpp_2m_sde": SamplerFacts(
            "DPM-Solver++(2M) with fresh noise at every step (Lu et al. 2022)", fewest=10, second_order=True
        ),
    },
)


@dataclass(frozen=True)
class LabelPlanFacts:
    """Facts about a label plan that are needed before labels are drawn."""

    about: str
    needs: tuple[str, ...] = ("count",)  # keys of the synthetic set that it takes, of COUNTS
    asks_baseline: bool = False  # draws by the errors of the fold's baseline
    as_real: bool = True  # there are train images with exactly these labels
    one_label: bool = False  # one label an image
    none: str = "there is no image to make"  # why it may come to no image at all; may name keys of the synthetic set


COUNTS = ("count", "target", "per_class")

LABEL_PLANS = Registry(
    "label plan",
    {
        "as_train": LabelPlanFacts("rows of the training table, in their proportions"),
        "balanced": LabelPlanFacts("every class in turn"),
        "tail_fill": LabelPlanFacts(
            "classes filled up to `target` images, real and synthetic together; at most `count` are made",
            ("count", "target"),
            none="every class has {target} images already; raise target",
        ),
        "single": LabelPlanFacts(
            "one label an image, `per_class` images of each class", ("per_class",), as_real=False, one_label=True
        ),
        "unseen": LabelPlanFacts(
            "combinations of classes that no training image has",
            as_real=False,
            none="no combination of classes is unseen, each one class larger than another occurs among the training "
            "images already; take other labels",
        ),
        "feedback": LabelPlanFacts("classes as often as the fold's baseline errs on them", asks_baseline=True),
    },
)


@dataclass(frozen=True)
class ColumnPlanFacts:
    """Facts about a column plan that are needed before values are drawn."""

    about: str
    none: str = "there is no image to make"  # why it may come to no image at all


COLUMN_PLANS = Registry(
    "column plan",
    {
        "as_real": ColumnPlanFacts("the values of a train image with the same labels"),
        "uniform": ColumnPlanFacts("every value equally often, whatever the labels"),
        "unseen": ColumnPlanFacts(
            "values with which no train image has these labels (as in MeDi, 2025)",
            none="every planned label combination occurs with every value of the columns among the train images",
        ),
        "unlabelled": ColumnPlanFacts(
            "values that unlabelled images alone have, such as a new cell line",
            none="every value of the columns that the generator knows occurs among labelled train images",
        ),
    },
)

# Pixel values as the network sees them (`generator_training.Pixels`), and how an image's labels are given to it.
PIXELS = ("standardised", "signed", "unit")
CONDITIONS = ("multi_hot", "single")
SAMPLINGS = ("as_train", "balanced")  # sampling of training images into batches
# Train images that a generator sees: those labelled in its regime; also the others, without a condition; or also the
# others, with the answers of the regime's baseline.
LABELLED, UNLABELLED, PSEUDO_LABELLED = "labelled", "unlabelled", "pseudo_labelled"
SEES = (LABELLED, UNLABELLED, PSEUDO_LABELLED)
CONFUSED, EARLIER = "confused", "earlier"
AGAINST = (CONFUSED, EARLIER)  # what guidance pushes away from besides dropped labels

# Name of the simulator in place of a generator: its cells are the best that any generator could make.
SIMULATOR = "simulator"


def folding(size: int) -> int:
    """Block size of the pixel unshuffle that moves pixels into channels; small images are not folded."""
    return 1 if size < 32 else 2 if size < 128 else 4


# Reference channels by a word: all channels but the protein's.
OTHERS = "others"


def takes_references(generator: dict[str, Any]) -> bool:
    """Whether a generator's network has inputs for reference channels."""
    return generator.get("reference_fraction", 0) > 0


def pseudo_labels(generator: dict[str, Any]) -> bool:
    """Whether a generator is trained with answers of the baseline of its regime."""
    return generator.get("sees") == PSEUDO_LABELLED


def asks_baseline(synthetic_set: dict[str, Any]) -> bool:
    """Whether a synthetic set depends on the fold's trained baseline: on its errors or on its confusions."""
    away = (synthetic_set.get("guidance") or {}).get("against")
    return LABEL_PLANS[synthetic_set["labels"]].asks_baseline or away == CONFUSED


def most_images(synthetic_set: dict[str, Any], classes: int) -> int:
    """Upper bound of the images of a synthetic set, for this number of classes."""
    per_class = "per_class" in LABEL_PLANS[synthetic_set["labels"]].needs
    return synthetic_set["per_class"] * classes if per_class else synthetic_set["count"]


def weaker_generator(synthetic_set: dict[str, Any]) -> str | None:
    """Name of the weaker generator that guides a synthetic set, if there is one."""
    return (synthetic_set.get("guidance") or {}).get("weaker")


def reference_places(generator: dict[str, Any], channels: list[str]) -> list[int]:
    """Places of the channels that a generator is always given, of all channels of the images; none: it varies."""
    return [channels.index(name) for name in generator.get("reference_channels") or []]
