"""The config's sections about generated images: generators, synthetic sets, and how these are assessed."""

from typing import Annotated, Literal

from pydantic import Field

from workflow_scripts.lib.config.fields import (
    Distinct,
    Flag,
    Fraction,
    Maybe,
    Name,
    Pair,
    Section,
    ShortText,
    Text,
    key,
    matching,
    number,
    whole,
)
from workflow_scripts.lib.generate import generator_choices as choices


class Generator(Section):
    """A generator, trained once per repeat and fold (stage train_ddpm) if a synthetic set uses it."""

    name: Name = key("Name of the generator; part of file names.")
    network: Literal[tuple(choices.NETWORKS)] = key(
        "unet: conditional U-Net that sees the noise level; minimal: the reference study's three layers."
    )
    widths: Annotated[list[whole(16, 1024)], Field(min_length=1, max_length=6)] = key(
        "U-Net channels at each resolution, the finest first; multiples of 16 are fast.", default=None
    )
    blocks: Annotated[list[whole(1, 16)], Field(min_length=1, max_length=6)] = key(
        "Residual blocks at each resolution, on the way down and again on the way up.", default=None
    )
    objective: Literal[tuple(choices.OBJECTIVES)] = key(
        "What the network is trained to predict, and at which noise levels; epsilon_linear is plain DDPM."
    )
    pixels: Literal[choices.PIXELS] = key(
        "Pixel values that the network sees: standardised (mean 0, deviation 1 per channel), signed (-1 to 1), "
        "unit (0 to 1)."
    )
    labels: Literal[choices.CONDITIONS] = key(
        "multi_hot: all labels of an image at once; single: one (image, label) pair for each label."
    )
    label_sampling: Literal[choices.SAMPLINGS] = key(
        "Which images a batch holds. as_train: each once an epoch; balanced: classes equally often."
    )
    label_dropout: number(ge=0, lt=1) = key(
        "Fraction of examples shown without labels; above 0 makes guidance possible."
    )
    reference_fraction: Fraction = key(
        "Fraction of examples shown with some channels given, so that a synthetic set may have reference channels.",
        default=None,
    )
    turn_images: Flag = key("Show each image in one of its eight orientations.")
    steps: whole(1, 10**7) = key("Optimiser steps.", "steps")
    batch: whole(1, 65_536) = key("Images per step; small batches learn more from the same number of images.", "images")
    learning_rate: number(gt=0, le=1) = key("Learning rate of Adam.")
    warmup: number(ge=0, lt=1) = key("Fraction of the steps over which the learning rate rises.")
    decay: Flag = key("Whether the learning rate then falls to zero along half a cosine.")
    beta1: number(ge=0, lt=1) = key("Adam's decay rate of the mean gradient.")
    beta2: number(ge=0, lt=1) = key("Adam's decay rate of the mean squared gradient; lower suits short trainings.")
    gradient_limit: number(ge=0) = key("Largest norm of a gradient. 0: no limit.")
    ema_width: number(ge=0, le=0.28) = key(
        "Width of the moving average of weights, relative to the steps so far. 0: the last weights."
    )


class Guidance(Section):
    """Classifier-free guidance."""

    scale: number(ge=0, le=50) = key("How strongly images are pushed towards their labels. 1: no guidance.")
    interval: Pair[number(ge=0)] = key(
        "Lowest and highest noise level at which guidance acts, in units of the pixels that the network sees."
    )
    against: Maybe[Literal[choices.AGAINST]] = key(
        "What guidance pushes away from. null: images without a label; confused: the class that the fold's baseline "
        "confuses most with those wanted.",
        default=None,
    )


class SyntheticSet(Section):
    """A synthetic set: images drawn from one generator in one way, per repeat and fold, if an arm uses it."""

    name: Name = key("Name of the synthetic set; part of file names.")
    generator: Name = key(
        "Name of a generator, or simulator: fresh cells of fresh proteins, the best that any generator could make."
    )
    labels: Literal[tuple(choices.LABEL_PLANS)] = key(
        "Which labels the images carry. as_train: as train images; balanced: classes in turn; tail_fill: up to target; "
        "single: one class each; unseen: combinations without train images; feedback: where the baseline errs."
    )
    count: whole(1, 10**7) = key("Number of images; for tail_fill the most that are made.", "images", default=None)
    target: whole(1, 10**7) = key(
        "tail_fill: number of images, real and synthetic, that a class is filled up to.",
        "images",
        default=None,
    )
    per_class: whole(1, 10**6) = key("single: number of images of each class.", "images", default=None)
    reference_channels: Distinct[Text] = key(
        "Channels taken from real train images with these labels; the others are generated.", default=None
    )
    start_noise: Maybe[number(ge=0.02, le=50)] = key(
        "SDEdit: noise level to which real train images are noised before they are denoised. null: start from noise.",
        default=None,
    )
    sampler: Literal[tuple(choices.SAMPLERS)] = key(
        "How images are made from noise. ancestral takes up to 1000 steps; dpmpp_2m_sde adds noise at every step.",
        default=None,
    )
    evaluations: whole(4, 10_000) = key(
        "Denoiser calls per image (ancestral with start_noise: at most); guidance doubles those in its interval.",
        "calls",
        default=None,
    )
    guidance: Guidance = key("Classifier-free guidance towards the labels.", default=None)
    clip: Flag = key("Keep every estimate within the range of pixel values.", default=None)
    batch: whole(1, 65_536) = key("Images sampled at a time; part of the seed.", "images", default=None)


class Normalise(Section):
    """Means and standard deviations by which an encoder's input is normalised, for pixels from 0 to 1."""

    mean: Annotated[list[number()], Field(min_length=1, max_length=64)] = key("Mean of each input channel.")
    std: Annotated[list[number(gt=0)], Field(min_length=1, max_length=64)] = key(
        "Standard deviation of each input channel."
    )


class Encoder(Section):
    """Your own network in whose features images are compared."""

    architecture: ShortText = key("A classifier of torchvision.")
    weights: Annotated[
        str,
        matching(r"\.safetensors$", "a file of weights that ends in .safetensors: other formats are not read"),
    ] = key("File of weights; a variable such as ${MIXLOC_WEIGHTS} may stand in its path.")
    channels: Maybe[Annotated[Distinct[Text], Field(min_length=1)]] = key("Channels that it looks at. null: all.")
    size: Maybe[whole(8, 1024)] = key("Side of the images that it gets. null: as they are.", "px")
    normalise: Maybe[Normalise] = key("How its input is normalised. null: as in the train part.")


class Smallest(Section):
    """Sizes below which a figure is marked as too uncertain to mean anything."""

    images: whole(10, 100_000) = key("Fewest real or generated images.", "images")
    groups: whole(4, 100_000) = key("Fewest groups of real images.", "groups")


class AssessSynthetic(Section):
    """How synthetic sets are compared with real images of groups that neither generator nor encoder has seen."""

    encoder: Literal["baseline", "judge"] | Encoder = key(
        "Network whose features are compared. baseline: the fold's own; judge: the independent one, where cells are "
        "simulated; or your own."
    )
    images: whole(20, 50_000) = key(
        "Most images of each kind that are compared; copies are looked for in all.", "images"
    )
    draws: whole(10, 10_000) = key("Random halves of the groups, for intervals and for the correction for sample size.")
    confidence: number(ge=0.5, le=0.999) = key("Confidence level of the intervals, each for itself.")
    smallest: Smallest = key("Sizes below which a figure is marked as too uncertain.")
    combinations: whole(0, 100) = key("Number of the commonest class combinations assessed by themselves.")
    pairs: whole(1, 50) = key("Number of closest pairs of generated and train images that are shown.")
