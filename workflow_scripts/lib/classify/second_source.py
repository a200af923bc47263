"""Second source of images of an arm: synthetic images, real ones in their place, or placebos made of either.

A source is a function of the `Material` of the arm's fold that returns `Images`; its facts are in
`source_choices.SOURCES`. Its random numbers derive from the fold's seed and its own purpose, so arms with the same
source see the same images. Only train images and the synthetic set can be reached from here, and for `more_real` and
`more_real_same` images in reserve. Where the label regime shows unlabelled images, their pixels are there too."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np

from workflow_scripts.lib.base.errors import UserError
from workflow_scripts.lib.base.seeds import derive
from workflow_scripts.lib.classify import arm_choices, classifier_file, feature_space, source_choices
from workflow_scripts.lib.classify.classifier_file import Classifier
from workflow_scripts.lib.classify.classifier_training import Images
from workflow_scripts.lib.classify.embedded import Embedded
from workflow_scripts.lib.classify.resampling import balanced_rows, matching_pairs, matching_rows
from workflow_scripts.lib.compute import device
from workflow_scripts.lib.images import nearest_images, spectra
from workflow_scripts.lib.images.image_set import ImageSet, Part, select_channels
from workflow_scripts.lib.scores.decisions import probabilities

BLOCK = 256  # images that are worked on at a time


@dataclass
class Material:
    """Inputs of a source; images with all their channels."""

    settings: dict[str, Any]  # of the arm, `arm_settings.effective`
    real: Part  # the train part
    channels: list[str]
    seed: int  # of the fold
    synthetic: Path | None = None  # the synthetic set
    baseline: Classifier | None = None  # the fold's own
    reserve: Part | None = None  # real images kept aside for this arm
    unlabelled: Part | None = None  # real images without their labels
    column: np.ndarray | None = None  # text (n,): values of a column of the train part
    embedded: Embedded | None = None  # embeddings that the arm has in place of pixels

    @cached_property
    def made(self) -> Part:
        """The synthetic images."""
        with ImageSet(self.synthetic) as source:
            return source.read(None, "fit")

    @cached_property
    def wanted(self) -> np.ndarray:
        """Labels of the synthetic images (m, K), without reading these."""
        with ImageSet(self.synthetic) as source:
            return source.labels(None, "fit")

    @cached_property
    def synthetic_set(self) -> dict[str, Any]:
        """Settings of the synthetic set."""
        with ImageSet(self.synthetic) as source:
            return json.loads(source.attrs.get("synthetic_set", "{}"))

    @property
    def reference_channels(self) -> list[int]:
        """Channels that the synthetic set took from train images instead of generating them."""
        names = self.synthetic_set.get("reference_channels") or []
        return [self.channels.index(name) for name in names if name in self.channels]

    def rng(self, purpose: str) -> np.random.Generator:
        """Random numbers for one purpose."""
        return np.random.default_rng(derive(self.seed, purpose))

    def asked(self, images: np.ndarray) -> np.ndarray:
        """Baseline's probabilities (n, K) for images uint8 (n, C, H, W)."""
        seen = select_channels(images, self.channels, self.baseline.channels)
        network = self.baseline.network(device.device())
        logits = classifier_file.predict(network, seen, self.baseline.mean, self.baseline.std)
        return probabilities(logits)

    def features(self, images: np.ndarray) -> np.ndarray:
        """Baseline's features (n, D) of images uint8 (n, C, H, W)."""
        seen = select_channels(images, self.channels, self.baseline.channels)
        network = self.baseline.network(device.device())
        return classifier_file.features(network, seen, self.baseline.mean, self.baseline.std)


def second_images(material: Material, wanted_channels: list[str]) -> Images | None:
    """Images of the second source with the channels that the arm uses; None where its method has none."""
    kind = arm_choices.METHODS[material.settings["method"]].second_source
    if kind is None:
        return None
    images = source_choices.SOURCES.function(kind, globals())(material)
    if material.embedded is not None:
        return replace(images, pixels=_embeddings(images.pixels, material, kind))
    pixels = select_channels(images.pixels, material.channels, wanted_channels)
    return replace(images, pixels=pixels)


def _embeddings(pixels: np.ndarray, material: Material, kind: str) -> np.ndarray:
    """Embeddings of the images of a source, which are those of one of the parts."""
    for part in (material.real, material.reserve, material.unlabelled):
        if part is not None and pixels is part.images:
            return material.embedded.of(part)
    if kind in source_choices.OF_SET and pixels is material.made.images:
        return material.embedded.of(material.made, synthetic=True)
    raise UserError(f"arm {material.settings['name']}: of the images of {kind!r} there are no embeddings")


def balanced(material: Material) -> Images:
    """Train images, every class equally often."""
    rows = balanced_rows(material.real.labels, material.rng("balance"))
    return Images(material.real.images, material.real.labels, rows=rows)


def reweighted(material: Material) -> Images:
    """Train images, every value of the column equally often; images without a value are one of their own."""
    known = np.array(sorted({str(value) for value in material.column} - {""}), dtype=object)
    rows = balanced_rows(material.column[:, None] == known, material.rng("reweight"))
    return Images(material.real.images, material.real.labels, rows=rows)


def synthetic(material: Material) -> Images:
    """Synthetic set, unchanged."""
    return Images(material.made.images, material.made.labels, synthetic=True)


def resampled(material: Material) -> Images:
    """Train images drawn to the label combinations of the synthetic set."""
    rows = matching_rows(material.real.labels, material.wanted, material.rng("resample"))
    return Images(material.real.images, material.real.labels, rows=rows)


def blended(material: Material) -> Images:
    """Blends of two train images whose labels together are those of a synthetic one.

    Pixels are λ : (1 − λ), λ uniform in [1/4, 3/4], so that both are visible. Labels are the union (`blend: union`), or
    mixed as the pixels are (`weighted`)."""
    rng, labels = material.rng("blend"), material.real.labels
    pairs = matching_pairs(labels, material.wanted, rng)
    fraction = rng.uniform(0.25, 0.75, len(pairs))

    def mixed(rows: slice) -> np.ndarray:
        first, second = (material.real.images[pairs[rows, side]].astype(np.float32) for side in (0, 1))
        weight = fraction[rows, None, None, None].astype(np.float32)
        return weight * first + (1 - weight) * second

    first, second = (labels[pairs[:, side]].astype(np.float32) for side in (0, 1))
    targets = np.maximum(first, second)
    if material.settings["blend"] == "weighted":
        targets = (fraction[:, None] * first + (1 - fraction[:, None]) * second).astype(np.float32)
    return Images(_drawn(len(pairs), material.real.images, mixed), targets, synthetic=True)


def shuffled(material: Material) -> Images:
    """The synthetic images, labels exchanged among them at random."""
    order = material.rng("shuffle").permutation(len(material.made))
    return Images(material.made.images, material.made.labels[order], synthetic=True)


def noise(material: Material) -> Images:
    """White noise with each channel's mean and standard deviation in the train images."""
    return _spoiled(material, spectra.noise, "noise")


def phase_randomised(material: Material) -> Images:
    """Resampled train images with randomised Fourier phases.

    They keep brightness and power spectrum of each channel, and the correlations between channels."""
    return _spoiled(material, spectra.phase_randomised, "phase")


def nearest(material: Material) -> Images:
    """For each synthetic image its nearest train image in any orientation, with that image's own labels."""
    return Images(material.real.images, material.real.labels, rows=_nearest(material).train)


def authentic(material: Material) -> Images:
    """Synthetic images that are authentic: farther from the nearest train image than that is from its own nearest.

    They replace the others of the same labels, so that the label combinations stay those of the set, as in the control.
    A combination without authentic images is left out."""
    fine = _nearest(material).authentic
    _, owner = np.unique(material.made.labels, axis=0, return_inverse=True)
    alike = [np.flatnonzero(owner.ravel() == index) for index in range(owner.max() + 1)]
    kept = [np.resize(rows[fine[rows]], len(rows)) for rows in alike if fine[rows].any()]
    if not kept:
        cure = (
            "raise start_noise in its synthetic set"
            if material.synthetic_set.get("start_noise")
            else "train the generator for fewer steps"
        )
        raise UserError(
            f"{material.synthetic}: every image is nearer to a train image than these are to each other, so the arm "
            f"{material.settings['name']} has none left: {cure}, or leave the arm out"
        )
    return Images(material.made.images, material.made.labels, synthetic=True, rows=np.sort(np.concatenate(kept)))


def reserve(material: Material) -> Images:
    """Real images in reserve: all of them or, where the arm names a synthetic set, drawn to its labels."""
    kept, rows = material.reserve, None
    if material.synthetic is not None:
        rows = matching_rows(kept.labels, material.wanted, material.rng("resample"))
    return Images(kept.images, kept.labels, rows=rows)


reserve_same = reserve  # the images differ, what is done with them does not


def pseudo_labelled(material: Material) -> Images:
    """Unlabelled train images with the probabilities that the regime's baseline gives them.

    Of an arm that names a synthetic set they are drawn to the labels of that set, by the baseline's answers: so they
    control it as `resampled` images control one."""
    answers, rows = material.asked(material.unlabelled.images).astype(np.float32), None
    if material.synthetic is not None:
        rows = matching_rows(answers >= source_choices.SURE, material.wanted, material.rng("resample"))
    return Images(material.unlabelled.images, answers, rows=rows)


def unlabelled(material: Material) -> Images:
    """Unlabelled train images; their labels are 0 and mean nothing."""
    return _nameless(material.unlabelled.images, material)


def seen(material: Material) -> Images:
    """All train images that the label regime shows; their labels are 0 and mean nothing."""
    others = [] if material.unlabelled is None else [material.unlabelled.images]
    return _nameless(np.concatenate([material.real.images, *others]), material)


def seen_and_synthetic(material: Material) -> Images:
    """What `seen` holds, and the synthetic images after these; labels are 0 and mean nothing."""
    real = seen(material).pixels
    found = _nameless(np.concatenate([real, material.made.images]), material)
    return replace(found, synthetic=True, photographs=len(real))


def _nameless(pixels: np.ndarray, material: Material) -> Images:
    return Images(pixels, np.zeros((len(pixels), material.real.labels.shape[1]), dtype=np.float32))


def filtered(material: Material) -> Images:
    """Fraction `keep` of the synthetic images that the baseline agrees with most, within each label combination.

    Within combinations, so that classes that the baseline knows well do not crowd out the others. What is kept is
    repeated as often as the combination has images: its labels stay those of the set, which its control has, too."""
    scores = agreement(material.asked(material.made.images), material.made.labels)
    _, owner = np.unique(material.made.labels, axis=0, return_inverse=True)
    kept = []
    for index in range(owner.max() + 1):
        rows = np.flatnonzero(owner.ravel() == index)
        best = np.argsort(-scores[rows], kind="stable")[: max(1, round(material.settings["keep"] * len(rows)))]
        kept.append(np.resize(rows[best], len(rows)))
    return Images(material.made.images, material.made.labels, synthetic=True, rows=np.sort(np.concatenate(kept)))


def relabelled(material: Material) -> Images:
    """Synthetic set with labels shifted by the fraction `trust` towards the baseline's probabilities."""
    return _relabelled(synthetic(material), material)


def relabelled_real(material: Material) -> Images:
    """Resampled train images with labels shifted in the same way."""
    return _relabelled(resampled(material), material)


def distilled(material: Material) -> Images:
    """Synthetic images with the baseline's probabilities as labels: the images of a distillation."""
    return _distilled(synthetic(material), material)


def distilled_real(material: Material) -> Images:
    """Resampled train images with the baseline's probabilities as labels."""
    return _distilled(resampled(material), material)


def diffused_features(material: Material) -> Images:
    """Features from a diffusion model of those of the train images, given their labels."""
    features, labels, rows = _features(material)
    made = feature_space.diffused(features, labels, labels[rows], derive(material.seed, "feature_fill"))
    return _filled(material, made, labels[rows])


def smote_features(material: Material) -> Images:
    """Features between neighbours that have the same labels."""
    features, labels, rows = _features(material)
    made = feature_space.smote(features, labels, rows, material.rng("feature_smote"))
    return _filled(material, made, labels[rows])


def mixed_features(material: Material) -> Images:
    """Features mixed with those of another image, labels likewise."""
    alpha, rng = material.settings["alpha"], material.rng("feature_mixup")
    return _filled(material, *feature_space.mixed(*_features(material), alpha, rng))


def balanced_features(material: Material) -> Images:
    """Features of the train images, repeated so that every class comes equally often."""
    features, labels, rows = _features(material)
    return _filled(material, features[rows], labels[rows], synthetic=False)


def weighed(material: Material) -> Images:
    """Synthetic set with images weighted by the baseline's agreement."""
    return _weighed(synthetic(material), material)


def weighed_real(material: Material) -> Images:
    """Resampled train images, weighted in the same way."""
    return _weighed(resampled(material), material)


def agreement(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Agreement of a classifier with labels, both (n, K): (n,) in [0, 1], 1 where it is sure of every label.

    It is the geometric mean of the probabilities of the right answers, taken over present and over absent labels, and
    then of these two. Otherwise the many absent labels would hide the few present ones."""
    has = np.asarray(labels, dtype=bool)
    right = np.log(np.where(has, probabilities, 1 - probabilities).clip(1e-12))
    means = [np.where(mask, right, 0).sum(axis=1) / np.maximum(mask.sum(axis=1), 1) for mask in (has, ~has)]
    sides = has.any(axis=1).astype(int) + (~has).any(axis=1)
    return np.exp((means[0] + means[1]) / np.maximum(sides, 1))


def _nearest(material: Material) -> nearest_images.Nearest:
    # Channels that the synthetic set took from train images are no likeness of the generator's making.
    by_pixels = partial(nearest_images.pixels, black=material.reference_channels)
    return nearest_images.nearest(material.made.images, material.real.images, by_pixels)


def _spoiled(
    material: Material, spoil: Callable[[np.ndarray, np.random.Generator], np.ndarray], purpose: str
) -> Images:
    """Resampled train images, degraded, with their own labels."""
    chosen, rng = resampled(material), material.rng(purpose)
    pixels = _drawn(len(chosen), chosen.pixels, lambda rows: spoil(chosen.pixels[chosen.rows[rows]], rng))
    return Images(pixels, chosen.labels[chosen.rows], synthetic=True)


def _drawn(count: int, like: np.ndarray, make: Callable[[slice], np.ndarray]) -> np.ndarray:
    """Pixels uint8 (count, C, H, W) made block by block, so that floats of the whole set are never in memory."""
    out = np.empty((count, *like.shape[1:]), dtype=np.uint8)
    for start in range(0, count, BLOCK):
        rows = slice(start, min(start + BLOCK, count))
        out[rows] = np.round(make(rows)).clip(0, 255)
    return out


def _relabelled(images: Images, material: Material) -> Images:
    trust, probabilities = material.settings["trust"], material.asked(images.pixels)
    images.labels = ((1 - trust) * images.labels + trust * probabilities).astype(np.float32)
    return images


def _features(material: Material) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Features and labels of the train images, and the rows whose labels further features are to have."""
    labels = material.real.labels
    return material.features(material.real.images), labels, feature_space.wanted_rows(labels, material.rng("balance"))


def _filled(material: Material, features: np.ndarray, labels: np.ndarray, synthetic: bool = True) -> Images:
    return Images(material.real.images[:0], labels.astype(np.float32), synthetic, features=features)


def _distilled(images: Images, material: Material) -> Images:
    images.labels = material.asked(images.pixels).astype(np.float32)
    return images


def _weighed(images: Images, material: Material) -> Images:
    scores = agreement(material.asked(images.pixels), images.labels)
    scores = scores if images.rows is None else scores[images.rows]
    # Mean 1: together they weigh as much as without weights.
    images.weights = (scores / max(scores.mean(), 1e-12)).astype(np.float32)
    return images
