"""The config's sections about classifiers: how an arm is trained, and the list of arms."""

import copy
from typing import Any, Literal

from pydantic import create_model

from workflow_scripts.lib.classify import arm_choices, arm_settings, network_choices
from workflow_scripts.lib.config.fields import (
    Flag,
    Fraction,
    Maybe,
    Name,
    Pair,
    Section,
    Some,
    Text,
    key,
    number,
    one_of,
    optional,
    whole,
)  # fmt: skip
from workflow_scripts.lib.config.models_generate import Encoder, Packaged

Gamma = number(ge=0, le=10)
Area = Pair[number(ge=0.1, le=1)]
Aspect = Pair[number(ge=0.25, le=4)]
Intensity = number(ge=0, le=2)
Part = number(gt=0, le=1)


class Focal(Section):
    """Focal loss (Lin et al. 2017)."""

    gamma: Gamma = key("Exponent of the weight (1 - p)^gamma of an answer of probability p.")


class Asymmetric(Section):
    """Asymmetric loss (Ridnik et al. 2021)."""

    gamma_positive: Gamma = key("Focal exponent for labels that an image has.")
    gamma_negative: Gamma = key("Focal exponent for labels that it does not have.")
    clip: number(ge=0, le=0.5) = key("Probability up to which a negative costs nothing.")


class ClassBalanced(Section):
    """Class-balanced loss (Cui et al. 2019)."""

    beta: number(ge=0, lt=1) = key("Weights are about 1 / images of a class, up to 1 / (1 - beta) images.")


class Reweighted(Section):
    """Binary cross-entropy whose positives weigh negatives / positives."""

    limit: number(ge=1, le=10_000) = key("Largest weight of the positives of a class.")


class Arcface(Section):
    """ArcFace (Deng et al. 2019)."""

    scale: number(gt=0, le=1000) = key("Factor on the cosines.")
    margin: number(ge=0, le=1.5) = key("Additive angular margin.", "rad")


class Losses(Section):
    """Parameters of the losses that have some."""

    focal: Focal = key("Focal loss.")
    asymmetric: Asymmetric = key("Asymmetric loss.")
    class_balanced: ClassBalanced = key("Class-balanced loss.")
    reweighted: Reweighted = key("Reweighted binary cross-entropy.")
    arcface: Arcface = key("ArcFace.")


class Strong(Section):
    """Stronger augmentation: of strong_augment, and of the second view of fixmatch and ssl_pretrain."""

    scale: Area = key("Lowest and highest fraction of the area that a crop keeps.")
    aspect: Aspect = key("Lowest and highest ratio of width to height of the crop.")
    intensity: Intensity = key("Each channel's brightness is multiplied by exp(±intensity).")
    erase: Fraction = key("Fraction of the images from which a square is cut.")


class Augment(Section):
    """Augmentation: the same draws for the same real images in every arm."""

    turn: Flag = key("Quarter turns.")
    flip: Flag = key("Mirror images.")
    scale: Area = key("Lowest and highest fraction of the area that a crop keeps. [1, 1]: no crop.")
    aspect: Aspect = key("Lowest and highest ratio of width to height of the crop.")
    intensity: Intensity = key("Each channel's brightness is multiplied by exp(±intensity). 0: none.")


class Scoring(Section):
    """Noise for the scores of a generator that is used as a classifier."""

    levels: Some[number(gt=0, le=80)] = key("Noise levels, relative to pixels of standard deviation 1.")
    draws: whole(1, 1000) = key("Draws of noise at each level, the same for all images and classes.", "draws")


class Embeddings(Section):
    """Features of images that arms with the backbone embedding_linear or embedding_mlp take in place of pixels."""

    table: Maybe[Text] = key(
        "Your own features by Id: .npy (with ids), .h5 (arrays ids and features), .csv or .parquet (column Id). They "
        "are of real images alone."
    )
    ids: Maybe[Text] = key("CSV table with the column Id, a row for each row of a .npy file.")
    encoder: Maybe[Packaged | Encoder] = key(
        "Network that computes features, of synthetic images too: of an optional package, or your own."
    )


class TrainClassifier(Section):
    """How an arm is trained. All arms have the same steps and images per step, except those with a budget."""

    backbone: one_of(network_choices.BACKBONES) = key("The network.")
    weights: Maybe[Text] = key(
        "imagenet, or a file of weights as torchvision names them, with ${VARIABLES} in its path. null: from scratch."
    )
    frozen: Flag = key("Train only the head; the backbone keeps its weights.")
    loss: one_of(network_choices.LOSSES) = key("The loss of one image.")
    losses: Losses = key("Parameters of the losses that have some.")
    channels: Maybe[Some[str]] = key("Channels that the classifier gets. null: all.")
    sampling: Literal[arm_settings.SAMPLINGS] = key(
        "Real images come each once an epoch, or every class equally often."
    )
    steps: whole(1, 10**7) = key("Optimiser steps.", "steps")
    budget: number(ge=0.01, le=100) | Literal[arm_settings.EQUAL_EXPOSURES] = key(
        "An arm trains for steps times this. equal_exposures: until it has seen as many real images as real_only."
    )
    batch: whole(2, 65_536) = key("Images per step, real and others together; even.", "images")
    learning_rate: number(gt=0, le=1) = key("Highest learning rate of AdamW; it falls to zero along a cosine.")
    weight_decay: number(ge=0, le=10) = key("Weight decay, on weights but not on biases and BatchNorm.")
    warmup: number(ge=0, le=0.9) = key("Fraction of the steps over which the learning rate rises.")
    checkpoints: whole(1, 100_000) = key("Times the arm is scored on the validation part; the best mAP is kept.")
    real_fraction: Part = key("real_only, balanced_real: fraction of the train groups that the arm has.")
    ratio: number(ge=0.01, le=20) = key(
        "pool and its like: images of the second source per real one; anneal: at first."
    )
    alpha: number(ge=0.01, le=100) = key("mix_*, mixup, cutmix: λ ~ Beta(alpha, alpha); small: mostly one of the two.")
    pretrain: number(gt=0, lt=1) = key(
        "pretrain_finetune, ssl_pretrain: fraction of the steps before those on labelled real images."
    )
    keep: Part = key("filtered: fraction of the synthetic images that is kept.")
    trust: Part = key("relabel: weight of the baseline's probability in a label.")
    confidence: number(ge=0.5, lt=1) = key(
        "fixmatch: probability, for or against a class, from which on the prediction for a weak view becomes a label."
    )
    robustness: number(ge=0.01, le=1) = key("robust: q of the generalised cross-entropy; 1 is the error rate.")
    blend: Literal[arm_settings.BLENDS] = key("blend_real: labels of both images, or weighted as their pixels are.")
    column: Text = key("reweight: column of the image set whose values come equally often.")
    strong: Strong = key("strong_augment: in place of the same keys of augment; fixmatch, ssl_pretrain: second views.")
    weaker: Part = key("ssl_pretrain_mixed: strength of second views, as a fraction of what strong says.")
    scoring: Scoring = key("generator_classifier, generator_average: noise for the scores of the generator.")
    augment: Augment = key("Augmentation, the same in every arm.")


class _Arm(Section):
    """An arm: one way of training a classifier, compared with others."""

    name: Name = key("Name of the arm; part of file names.")
    base: Name = optional("Arm of this list or of config.yaml; keys that are not given here are taken from it.")
    method: one_of(arm_choices.METHODS) = key("How the arm mixes images.")
    regime: Name = optional("Label regime. Left out: the first of regimes.")
    synthetic_set: Name = optional("Synthetic set that the method mixes in or imitates.")
    generator: Name = optional("Generator of generator_*: its encoder is the backbone, or it classifies itself.")
    pseudo_labels_from: Name = optional(
        "pseudo_label: arm that gives the pseudo-labels of the unlabelled images. Left out: the baseline of the regime."
    )
    control: Name = optional("Arm that adds as many images, but no generated ones.")
    baseline: Name = optional(
        "Arm that this one is compared with. Left out: analysis.baseline, or in another regime its first arm real_only."
    )
    only_simulated: Flag = optional("Leave the arm out where cells are not simulated.")
    trials: whole(0, 10**6) = optional("Number of settings of this arm that were tried before, on the validation part.")


def _options() -> dict[str, Any]:
    """The keys of train_classifier that an arm may replace by its own."""
    out = {}
    for name in (*arm_settings.COMMON_OPTIONS, *arm_settings.METHOD_OPTIONS):
        field = copy.copy(TrainClassifier.model_fields[name])
        field.default = None
        out[name] = (field.annotation, field)
    return out


Arm = create_model("Arm", __base__=_Arm, __doc__=_Arm.__doc__, **_options())
