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
    Some,
    Text,
    key,
    matching,
    number,
    one_of,
    optional,
    text,
    whole,
)  # fmt: skip
from workflow_scripts.lib.fidelity import encoder_choices
from workflow_scripts.lib.generate import generator_choices as choices

BelowOne = number(ge=0, lt=1)
SixAtMost = Field(min_length=1, max_length=6)
OnePerChannel = Field(min_length=1, max_length=64)
WEIGHTS = matching(r"\.safetensors$", "a file of weights that ends in .safetensors: other formats are not read")


class Generator(Section):
    """A generator, trained once per repeat and fold (stage train_ddpm) if a synthetic set uses it."""

    name: Name = key("Name of the generator; part of file names.")
    base: Name = optional("Generator of this list or of config.yaml; keys that are not given here are taken from it.")
    regime: Name = optional("Label regime. Left out: the first of regimes.")
    sees: Literal[choices.SEES] = optional(
        "Train images that it learns from: those that its regime labels; also the others, without labels; also the "
        "others, with the probabilities of the regime's baseline as soft labels. Left out: labelled."
    )
    pseudo_labels_from: Name = optional(
        "sees pseudo_labelled: arm of the same regime that gives the pseudo-labels. Left out: the regime's baseline."
    )
    from_: Annotated[str, WEIGHTS] = key(
        "File of a generator of another run to start from; keys not given here are those of the file. {repeat} "
        "and {fold} in the path stand for each fold's. Left out: none.",
        default=None,
        alias="from",
    )
    network: one_of(choices.NETWORKS) = key("The network.")
    widths: Annotated[list[whole(16, 1024)], SixAtMost] = optional(
        "unet: channels at each resolution, the finest first."
    )
    blocks: Annotated[list[whole(1, 16)], SixAtMost] = optional("unet: residual blocks at each resolution, each way.")
    patch: whole(1, 8) = optional(
        "unet: side of the blocks of pixels that are folded into channels. Left out: 1 below 32 px, 2 below 128 px, 4.",
        "px",
    )
    attention: Flag = optional("unet: self-attention at the lowest resolution. Left out: false.")
    objective: one_of(choices.OBJECTIVES) = key("What the network is trained to predict, and its noise schedule.")
    noise_level: number(gt=0, le=100) = optional(
        "One noise level for all examples: a denoising auto-encoder, for generator_autoencoder. Left out: those of the "
        "objective."
    )
    weighting: one_of(choices.WEIGHTINGS) = optional("How losses at different noise levels count. Left out: plain.")
    pixels: Literal[choices.PIXELS] = key(
        "Pixel values that the network sees: mean 0 and deviation 1 per channel, -1 to 1, or 0 to 1."
    )
    labels: Literal[choices.CONDITIONS] = key(
        "All labels of an image at once, or one (image, label) pair for each label."
    )
    label_sampling: Literal[choices.SAMPLINGS] = key("Each image once an epoch, or classes equally often.")
    label_dropout: BelowOne = key("Fraction of examples shown without labels; above 0 makes guidance possible.")
    condition_on: Distinct[Text] = optional(
        "unet: columns of the image set, such as cell_line, on which the network is conditioned beside the labels."
    )
    reference_fraction: Fraction = optional(
        "Fraction of examples with channels given; reference_channels need it above 0."
    )
    reference_channels: Distinct[Text] | Literal[choices.OTHERS] = optional(
        "Channels that are given in these examples; the network learns to generate the rest. others: all but the "
        "protein's. Left out: any channels."
    )
    turn_images: Flag = key("Show each image in one of its eight orientations.")
    steps: whole(0, 10**7) = key("Optimiser steps. 0: it is taken from its file as it is.", "steps")
    batch: whole(1, 65_536) = key("Images per step.", "images")
    learning_rate: number(gt=0, le=1) = key(
        "Learning rate of Adam; the U-Net's filters have unit norm, so it is large."
    )
    warmup: BelowOne = key("Fraction of the steps over which the learning rate rises.")
    decay: Flag = key("Whether the learning rate then falls to zero along half a cosine.")
    beta1: BelowOne = key("Adam's decay rate of the mean gradient.")
    beta2: BelowOne = key("Adam's decay rate of the mean squared gradient; a lower one suits short trainings.")
    gradient_limit: number(ge=0) = key("Largest norm of a gradient. 0: no limit.")
    ema_width: number(ge=0, le=0.28) = key(
        "Width of the weight average, relative to the steps so far. 0: last weights."
    )
    ema_widths: Annotated[Distinct[number(ge=0.03, le=0.25)], Field(min_length=2, max_length=20)] = optional(
        "Widths to choose from after training, by the loss on the validation part, in place of ema_width. Left out: "
        "ema_width."
    )
    snapshot: number(gt=0, lt=1) = optional(
        "Fraction of the steps after which averaged weights are also kept, for guidance against earlier. Left out: "
        "none."
    )


class Guidance(Section):
    """Classifier-free guidance, or autoguidance by a worse network."""

    scale: number(ge=0, le=50) = key("How strongly images are pushed towards their labels. 1: no guidance.")
    interval: Pair[number(ge=0)] = key("Lowest and highest noise level at which guidance acts.")
    against: Maybe[Literal[choices.AGAINST]] = optional(
        "What images are pushed away from. null: images without a label; confused: the class that the baseline "
        "confuses most with those wanted; earlier: what the generator made of the same labels at its snapshot."
    )
    weaker: Maybe[Name] = optional(
        "Autoguidance by another generator, smaller or trained for less time, that gets the same labels. null: none."
    )


class SyntheticSet(Section):
    """A synthetic set: images drawn from one generator in one way, per repeat and fold, if an arm uses it."""

    name: Name = key("Name of the synthetic set; part of file names.")
    base: Name = optional(
        "Synthetic set of this list or of config.yaml; keys that are not given here are taken from it."
    )
    regime: Name = optional("Label regime of the labels that are planned. Left out: that of the generator.")
    generator: Name = key("Name of a generator, or simulator: fresh simulated cells, as from a perfect generator.")
    labels: one_of(choices.LABEL_PLANS) = key("Which labels the images carry.")
    count: whole(1, 10**7) = optional("Number of images; for tail_fill the most that are made.", "images")
    target: whole(1, 10**7) = optional(
        "tail_fill: images, real and synthetic together, up to which a class is filled.", "images"
    )
    per_class: whole(1, 10**6) = optional("single: number of images of each class.", "images")
    columns: one_of(choices.COLUMN_PLANS) = optional(
        "Values of the columns that the generator is conditioned on. Left out: as_real."
    )
    reference_channels: Distinct[Text] | Literal[choices.OTHERS] = optional(
        "Channels taken from real train images; the rest is generated. others: all but the protein's."
    )
    start_noise: Maybe[number(ge=0.02, le=50)] = optional(
        "SDEdit: real train images are noised to this level, then denoised. null: images start from noise alone."
    )
    sampler: one_of(choices.SAMPLERS) = optional("How images are made from noise.")
    evaluations: whole(4, 10_000) = optional("Denoiser calls per image, without those that guidance adds.", "calls")
    guidance: Guidance = optional("Guidance, classifier-free or by a worse network.")
    clip: Flag = optional("Keep every estimate within the range of pixel values.")
    batch: whole(1, 65_536) = optional("Images sampled at a time; part of the seed.", "images")


class Normalise(Section):
    """How an encoder's input is normalised, for pixels from 0 to 1."""

    mean: Annotated[list[number()], OnePerChannel] = key("Mean of each input channel.")
    std: Annotated[list[number(gt=0)], OnePerChannel] = key("Standard deviation of each input channel.")


class Encoder(Section):
    """Your own network in whose features images are compared."""

    architecture: text(80) = key(f"A classifier of torchvision, or one of {', '.join(encoder_choices.ARCHITECTURES)}.")
    weights: Literal[encoder_choices.INSTALLED] | Annotated[str, WEIGHTS] = key(
        "File of weights; a variable such as ${MIXLOC_WEIGHTS} may stand in its path. installed: those of a package "
        f"of {encoder_choices.EXTRA}."
    )
    channels: Maybe[Some[Text]] = key("Channels that it gets. null: all.")
    size: Maybe[whole(8, 1024)] = key("Side of the images that it gets. null: as they are.", "px")
    normalise: Maybe[Normalise] = key(
        "How its input is normalised. null: as in the train part, or as the architecture needs it."
    )


class Smallest(Section):
    """Sizes below which a figure is marked as too uncertain to mean anything."""

    images: whole(10, 100_000) = key("Fewest real or generated images.", "images")
    groups: whole(4, 100_000) = key("Fewest groups of real images.", "groups")


Packaged = one_of(encoder_choices.PACKAGED)


class AssessSynthetic(Section):
    """How synthetic sets are compared with real images of groups that neither generator nor encoder has seen."""

    encoder: Literal["baseline", "judge"] | Packaged | Encoder = key(
        "Whose features are compared: the fold's baseline, the independent judge of simulated cells, an encoder of an "
        "optional package, or your own."
    )
    independent_encoder: Maybe[Packaged | Encoder] = key(
        "A second encoder, whose distances stand beside those of the first: of an optional package, or your own."
    )
    images: whole(20, 50_000) = key(
        "Most images of each kind that are compared; copies are looked for in all.", "images"
    )
    draws: whole(10, 10_000) = key(
        "Random halves of the groups, for intervals and for the sample-size correction.", "draws"
    )
    confidence: number(ge=0.5, le=0.999) = key("Confidence level of the intervals, which are single, not simultaneous.")
    smallest: Smallest = key("Sizes below which a figure is marked as too uncertain.")
    combinations: whole(0, 100) = key("The commonest class combinations, assessed by themselves.", "combinations")
    pairs: whole(1, 50) = key("Closest pairs of a generated and a train image that are shown.", "pairs")
