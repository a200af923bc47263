"""Registry of second sources: where the images of an arm come from that are not its real train images.

A new second source is a function in `second_source.py` and an entry in SOURCES. Checks, schema and documentation read
these entries before any job starts, so this module does not import torch."""

from __future__ import annotations

from dataclasses import dataclass

from workflow_scripts.lib.base.registry import Registry

SYNTHETIC = "synthetic"
RESAMPLED = "resampled"
PSEUDO_LABELLED = "pseudo_labelled"
SURE = 0.5  # probability from which on the baseline's answer counts as the class
# Real images kept aside for arms that may have more of them; also the names of their roles in a fold.
RESERVE, RESERVE_SAME = "reserve", "reserve_same"


@dataclass(frozen=True)
class SourceFacts:
    """Facts about a second source of images that are needed before it is read."""

    about: str
    needs_set: bool = True  # it is made of a synthetic set, or has the label combinations of one
    photographs: bool = False  # holds photographs and nothing else
    nothing_new: bool = False  # has the labels of a synthetic set and adds nothing that a generator has learned
    reserve: bool = False  # images that are kept aside for this source
    unlabelled: bool = False  # holds images of train groups of which the label regime withholds the labels
    seen: bool = False  # holds all train images that may be seen, with or without labels
    column: bool = False  # takes values of a column of the image set
    new_pixels: bool = False  # makes images of its own from train images; no embeddings are known of these
    features: bool = False  # representations of train images by the fold's baseline, or made from these; no images


SOURCES = Registry(
    "second source",
    {
        "balanced": SourceFacts("real train images, every class equally often", needs_set=False, photographs=True),
        "reweighted": SourceFacts(
            "real train images, every value of a column equally often", needs_set=False, photographs=True, column=True
        ),
        SYNTHETIC: SourceFacts("the synthetic set of the arm"),
        RESAMPLED: SourceFacts("real train images with the labels of that set", photographs=True, nothing_new=True),
        "blended": SourceFacts("two real train images, one over the other", nothing_new=True, new_pixels=True),
        "shuffled": SourceFacts("the synthetic images, each with the labels of another one", nothing_new=True),
        "noise": SourceFacts("noise with the mean and spread of real pixels", nothing_new=True, new_pixels=True),
        "phase_randomised": SourceFacts(
            "real train images of which the spectrum alone is left", nothing_new=True, new_pixels=True
        ),
        "nearest": SourceFacts(
            "the real train image nearest to each synthetic one, with its own labels",
            photographs=True,
            nothing_new=True,
        ),
        "authentic": SourceFacts("the synthetic images that are not copies of train images"),
        RESERVE: SourceFacts("real images of further groups", needs_set=False, photographs=True, reserve=True),
        RESERVE_SAME: SourceFacts(
            "further real images of the train groups", needs_set=False, photographs=True, reserve=True
        ),
        "filtered": SourceFacts("the synthetic images that the fold's baseline agrees with most"),
        "relabelled": SourceFacts("the synthetic images, labels moved towards the baseline's answers"),
        "relabelled_real": SourceFacts("resampled train images, labels moved in the same way", photographs=True),
        PSEUDO_LABELLED: SourceFacts(
            "unlabelled train images with the baseline's answers", needs_set=False, photographs=True, unlabelled=True
        ),
        "unlabelled": SourceFacts("unlabelled train images", needs_set=False, photographs=True, unlabelled=True),
        "seen": SourceFacts(
            "all train images that may be seen, without labels", needs_set=False, photographs=True, seen=True
        ),
        "distilled": SourceFacts("the synthetic images, labelled by the baseline's answers"),
        "distilled_real": SourceFacts("resampled train images, labelled in the same way", photographs=True),
        "seen_and_synthetic": SourceFacts(
            "all train images that may be seen, and the synthetic set, without labels", seen=True
        ),
        "diffused_features": SourceFacts(
            "features from a diffusion model, every class equally often", needs_set=False, features=True
        ),
        "smote_features": SourceFacts(
            "features between neighbours of the same labels", needs_set=False, nothing_new=True, features=True
        ),
        "mixed_features": SourceFacts("pairs of features mixed", needs_set=False, nothing_new=True, features=True),
        "balanced_features": SourceFacts(
            "features of train images, every class equally often", needs_set=False, nothing_new=True, features=True
        ),
        "weighed": SourceFacts("the synthetic images, weighed by the baseline's agreement"),
        "weighed_real": SourceFacts("resampled train images, weighed in the same way", photographs=True),
    },
)
RESERVES = SOURCES.having("reserve")
UNLABELLED = SOURCES.having("unlabelled")
SEEN = SOURCES.having("seen")
FEATURES = SOURCES.having("features")
PHOTOGRAPHS = SOURCES.having("photographs")
NOTHING_NEW = SOURCES.having("nothing_new")
NEW_PIXELS = SOURCES.having("new_pixels")
# Sources that hold the images of a synthetic set themselves, rather than real ones with its labels.
OF_SET = tuple(
    name for name, source in SOURCES.items()
    if source.needs_set and not (source.photographs or source.new_pixels)
)  # fmt: skip
