"""Registry of methods: how an arm mixes images.

A new method is an entry in METHODS, whose step is a function in `method_steps.py`. Checks, schema and documentation
read these entries before any job starts, so this module does not import torch."""

from __future__ import annotations

from dataclasses import dataclass

from workflow_scripts.lib.base.registry import Registry
from workflow_scripts.lib.classify.source_choices import (
    FEATURES,
    NOTHING_NEW,
    PHOTOGRAPHS,
    PSEUDO_LABELLED,
    RESAMPLED,
    RESERVE,
    RESERVE_SAME,
    RESERVES,
    SEEN,
    SOURCES,
    SYNTHETIC,
    UNLABELLED,
)


@dataclass(frozen=True)
class Method:
    """Method of an arm: how real images and those of a second source are used."""

    about: str
    step: str  # the function in method_steps.py that makes the loss of one optimiser step
    second_source: str | None = None  # where the images beside the real ones come from
    control: str | None = None  # the method that adds the same amount of nothing new
    options: tuple[str, ...] = ()  # settings of train_classifier that act in this method; an arm may give its own
    pairs: bool = False  # half of each batch is real, each image paired with one of the second source
    changing: bool = False  # the number of real images of a batch is not the same at every step
    needs_batchnorm: bool = False
    soft_targets: bool = False  # labels between 0 and 1
    balanced: bool = False  # the real images are sampled so that every class comes equally often
    needs_baseline: bool = False  # the fold's own trained baseline must be there first
    views: bool = False  # sees images of the second source in two views; `strong` acts on these alone
    self_supervised: bool = False  # learns representations without labels, through a projector that is dropped
    generator: str | None = None  # has the encoder of a generator as backbone: its weights, or fresh ones
    on_baseline: bool = False  # learns a new head alone, on the trunk of the fold's baseline
    scores: bool = False  # trains nothing: answers by the denoising losses of a generator
    averaged: bool = False  # its answers are averaged with those of the fold's baseline

    @property
    def needs_set(self) -> bool:
        """Whether an arm must name a synthetic set."""
        return self.second_source is not None and SOURCES[self.second_source].needs_set

    @property
    def takes_set(self) -> bool:
        """Whether an arm may name a synthetic set; reserve or pseudo-labelled images are then drawn to its labels."""
        return self.needs_set or self.second_source in (*RESERVES, PSEUDO_LABELLED)

    @property
    def learns_from_generated(self) -> bool:
        """Whether an arm learns from generated images or features, rather than from a control or a placebo."""
        made = self.needs_set or self.second_source in FEATURES
        return made and self.second_source not in (*PHOTOGRAPHS, *NOTHING_NEW)


# Weights of an encoder: those of a generator, of one that is a denoising auto-encoder, or fresh ones of its shape.
TRAINED, AUTOENCODER, FRESH = "trained", "autoencoder", "fresh"

METHODS = Registry(
    "method",
    {
        # Real images alone: the baseline and its rivals.
        "real_only": Method("real images alone", "real_only", options=("real_fraction",)),
        "strong_augment": Method("real images, stronger augmentation", "strong_augment", options=("strong",)),
        "mixup": Method(
            "pairs of real images mixed (Zhang et al. 2018)", "mixup", options=("alpha",), soft_targets=True
        ),
        "cutmix": Method(
            "a square of one real image pasted over another (Yun et al. 2019)",
            "cutmix",
            options=("alpha",),
            soft_targets=True,
        ),
        "one_class": Method("real images, one class a step", "one_class"),
        "balanced_real": Method(
            "real images, every class equally often", "real_only", options=("real_fraction",), balanced=True
        ),
        "pool_balanced_real": Method(
            "real images pooled with real ones of every class equally often", "pool", "balanced", None, ("ratio",)
        ),
        "reweight": Method(
            "real images pooled with real ones of every value of a column equally often",
            "pool",
            "reweighted",
            None,
            ("ratio", "column"),
        ),
        # Unlabelled real images: what generated images must beat where their generator has seen these.
        "pseudo_label": Method(
            "pool with unlabelled real images that the baseline has labelled (Lee 2013)",
            "pool",
            PSEUDO_LABELLED,
            None,
            ("ratio",),
            needs_baseline=True,
            soft_targets=True,
        ),
        "fixmatch": Method(
            "strong views of unlabelled real images learn from confident answers to weak ones (Sohn et al. 2020)",
            "fixmatch",
            "unlabelled",
            None,
            ("ratio", "confidence", "strong"),
            views=True,
        ),
        "ssl_pretrain": Method(
            "VICReg on all real images that may be seen (Bardes et al. 2022), labelled ones alone after that",
            "ssl_pretrain",
            "seen",
            None,
            ("pretrain", "strong"),
            changing=True,
            views=True,
            self_supervised=True,
        ),
        "ssl_pretrain_mixed": Method(
            "ssl_pretrain with the synthetic images added and weaker augmentation (Wang et al. 2024)",
            "ssl_pretrain",
            "seen_and_synthetic",
            "ssl_pretrain_weak",
            ("pretrain", "strong", "weaker"),
            changing=True,
            views=True,
            self_supervised=True,
        ),
        "ssl_pretrain_weak": Method(
            "control of ssl_pretrain_mixed: ssl_pretrain with the same weaker augmentation",
            "ssl_pretrain",
            "seen",
            None,
            ("pretrain", "strong", "weaker"),
            changing=True,
            views=True,
            self_supervised=True,
        ),
        # The generator's own network as backbone: fine-tuned, or a probe on frozen features.
        "generator_features": Method(
            "real images; the encoder of a generator as backbone (Xiang et al. 2023)",
            "real_only",
            control="generator_random",
            generator=TRAINED,
        ),
        "generator_random": Method(
            "control of generator_features: the same network with fresh weights", "real_only", generator=FRESH
        ),
        "generator_autoencoder": Method(
            "control of generator_features: the same network, trained as a denoising auto-encoder",
            "real_only",
            generator=AUTOENCODER,
        ),
        # The generator itself as classifier, alone and beside the baseline.
        "generator_classifier": Method(
            "nothing is trained: classes by a generator's denoising loss with and without their label (Li et al. 2023)",
            "real_only",
            control="two_baselines",
            options=("scoring",),
            generator=TRAINED,
            scores=True,
        ),
        "generator_average": Method(
            "mean of generator_classifier and the fold's baseline",
            "real_only",
            control="two_baselines",
            options=("scoring",),
            needs_baseline=True,
            generator=TRAINED,
            scores=True,
            averaged=True,
        ),
        "two_baselines": Method(
            "control of these: mean of the fold's baseline and one of another seed",
            "real_only",
            needs_baseline=True,
            averaged=True,
        ),
        # Ceilings: further real images in place of synthetic ones.
        "more_real": Method("pool with real images of further groups", "pool", RESERVE, None, ("ratio",)),
        "more_real_same": Method(
            "pool with further real images of the train groups", "pool", RESERVE_SAME, None, ("ratio",)
        ),
        # Synthetic images, each method followed by its control.
        "synthetic_only": Method("synthetic images alone", "second_only", SYNTHETIC),
        "pool": Method("real and synthetic images in one batch", "pool", SYNTHETIC, "resample_real", ("ratio",)),
        "resample_real": Method("control of pool: real images drawn again", "pool", RESAMPLED, None, ("ratio",)),
        "split_batchnorm": Method(
            "pool with BatchNorm statistics of their own for synthetic images",
            "split_batchnorm",
            SYNTHETIC,
            "split_batchnorm_real",
            ("ratio",),
            needs_batchnorm=True,
        ),
        "split_batchnorm_real": Method(
            "control of split_batchnorm", "split_batchnorm", RESAMPLED, None, ("ratio",), needs_batchnorm=True
        ),
        "anneal": Method(
            "pool with fewer synthetic images at every step",
            "anneal",
            SYNTHETIC,
            "anneal_real",
            ("ratio",),
            changing=True,
        ),
        "anneal_real": Method("control of anneal", "anneal", RESAMPLED, None, ("ratio",), changing=True),
        "pretrain_finetune": Method(
            "synthetic images first, real images alone after that",
            "pretrain_finetune",
            SYNTHETIC,
            "pretrain_finetune_real",
            ("pretrain",),
            changing=True,
        ),
        "pretrain_finetune_real": Method(
            "control of pretrain_finetune", "pretrain_finetune", RESAMPLED, None, ("pretrain",), changing=True
        ),
        "robust": Method(
            "pool with generalised cross-entropy on synthetic images",
            "robust",
            SYNTHETIC,
            "robust_real",
            ("ratio", "robustness"),
        ),
        "robust_real": Method("control of robust", "robust", RESAMPLED, None, ("ratio", "robustness")),
        "mix_loss": Method(
            "Mix Loss: losses of a real and a synthetic image mixed",
            "mix_loss",
            SYNTHETIC,
            "mix_loss_real",
            ("alpha",),
            pairs=True,
        ),
        "mix_loss_real": Method("control of mix_loss", "mix_loss", RESAMPLED, None, ("alpha",), pairs=True),
        "mix_representation": Method(
            "Mix Representation: features of a real and a synthetic image mixed",
            "mix_representation",
            SYNTHETIC,
            "mix_representation_real",
            ("alpha",),
            pairs=True,
            soft_targets=True,
        ),
        "mix_representation_real": Method(
            "control of mix_representation",
            "mix_representation",
            RESAMPLED,
            None,
            ("alpha",),
            pairs=True,
            soft_targets=True,
        ),
        "authentic": Method(
            "pool with the synthetic images that are not copies", "pool", "authentic", "resample_real", ("ratio",)
        ),
        "filtered": Method(
            "pool with the synthetic images that the baseline agrees with most",
            "pool",
            "filtered",
            "resample_real",
            ("ratio", "keep"),
            needs_baseline=True,
        ),
        "relabel": Method(
            "pool with synthetic labels moved towards the baseline's answers",
            "pool",
            "relabelled",
            "relabel_real",
            ("ratio", "trust"),
            needs_baseline=True,
            soft_targets=True,
        ),
        "relabel_real": Method(
            "control of relabel",
            "pool",
            "relabelled_real",
            None,
            ("ratio", "trust"),
            needs_baseline=True,
            soft_targets=True,
        ),
        "distill": Method(
            "synthetic images alone, labelled by the baseline's soft answers (Li et al. 2023)",
            "second_only",
            "distilled",
            "distill_real",
            needs_baseline=True,
            soft_targets=True,
        ),
        "distill_real": Method(
            "control of distill: real images alone, labelled in the same way (Hinton et al. 2015)",
            "second_only",
            "distilled_real",
            needs_baseline=True,
            soft_targets=True,
        ),
        # Further features of rare classes, in the features of the baseline; every arm has a new head on these.
        "feature_fill": Method(
            "a new head; rare classes filled by a diffusion model on the baseline's features (Han et al. 2024)",
            "pool_features",
            "diffused_features",
            "feature_smote",
            ("ratio",),
            needs_baseline=True,
            on_baseline=True,
        ),
        "feature_smote": Method(
            "control of feature_fill: filled by SMOTE (Chawla et al. 2002)",
            "pool_features",
            "smote_features",
            None,
            ("ratio",),
            needs_baseline=True,
            on_baseline=True,
        ),
        "feature_mixup": Method(
            "control of feature_fill: filled by mixup (Verma et al. 2019)",
            "pool_features",
            "mixed_features",
            None,
            ("ratio", "alpha"),
            needs_baseline=True,
            soft_targets=True,
            on_baseline=True,
        ),
        "balanced_head": Method(
            "control of feature_fill: the same features, every class equally often (Kang et al. 2020)",
            "pool_features",
            "balanced_features",
            None,
            ("ratio",),
            needs_baseline=True,
            on_baseline=True,
        ),
        "weighted": Method(
            "pool with synthetic images weighed by the baseline's agreement",
            "weighted",
            "weighed",
            "weighted_real",
            ("ratio",),
            needs_baseline=True,
        ),
        "weighted_real": Method(
            "control of weighted", "weighted", "weighed_real", None, ("ratio",), needs_baseline=True
        ),
        # Placebos of what is pooled.
        "blend_real": Method(
            "placebo: two real images, one over the other", "pool", "blended", None, ("ratio", "blend")
        ),
        "nearest_real": Method("placebo: the nearest real images", "pool", "nearest", None, ("ratio",)),
        "shuffled_labels": Method("placebo: synthetic images, labels shuffled", "pool", "shuffled", None, ("ratio",)),
        "phase_real": Method(
            "placebo: real images of which the spectrum alone is left", "pool", "phase_randomised", None, ("ratio",)
        ),
        "noise": Method("placebo: noise", "pool", "noise", None, ("ratio",)),
    },
)


def learning_unlabelled() -> list[str]:
    """The methods that learn from real images without their labels."""
    return [
        name
        for name, method in METHODS.items()
        if method.second_source in (*UNLABELLED, *SEEN) and not method.learns_from_generated
    ]
