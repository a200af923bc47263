"""Bracketed fidelity table of one synthetic set: every measure beside its floor and its ceilings.

Rows are for all images, for each class and for each combination of classes. The reference is always the real held-out
part. At equal sizes, three kinds of images are compared with it: the generated images; real images of the train part
(the floor: another sample of real images); and real train images, degraded in three ways (the ceilings).

Measures without a reference (label agreement, those of copy_search.py) have their floor in the held-out part itself.
Their ceilings are degraded held-out images, because the networks used have seen the train part."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from workflow_scripts.lib.base import pairwise
from workflow_scripts.lib.base.seeds import derive
from workflow_scripts.lib.fidelity import distances
from workflow_scripts.lib.fidelity.distances import Estimate, Sample
from workflow_scripts.lib.fidelity.encoders import Encoder
from workflow_scripts.lib.images import spectra

GENERATED, FLOOR = "generated", "floor"
CONTENDERS = (GENERATED, FLOOR, *spectra.CEILINGS)
AGREEMENT = "agreement"


class Rows:
    """Base of tables of arrays with one row an image."""

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, rows: np.ndarray) -> Self:
        """Some of the images."""
        return type(self)(*(getattr(self, name)[rows] for name in self.__dataclass_fields__))


@dataclass(frozen=True)
class Described(Rows):
    """Encoder features and filter responses of images."""

    labels: np.ndarray  # uint8 (n, K)
    groups: np.ndarray  # (n,)
    features: np.ndarray  # float32 (n, D), as the encoder gives them
    curves: np.ndarray  # float32 (n, B)
    links: np.ndarray  # float32 (n, P)


@dataclass(frozen=True)
class Answered(Rows):
    """Baseline's logits of images."""

    labels: np.ndarray  # uint8 (n, K), those asked for or those of the table
    groups: np.ndarray  # (n,)
    logits: np.ndarray  # float32 (n, K)


@dataclass(frozen=True)
class Scope:
    """Subset of images to compare: all, those of a class, or those of exactly one combination of classes."""

    kind: str  # all, class or combination
    name: str
    target: np.ndarray  # uint8 (K,)

    def rows(self, labels: np.ndarray) -> np.ndarray:
        """Rows of labels (n, K) that belong to the scope."""
        if self.kind == "combination":
            return np.flatnonzero((labels == self.target).all(axis=1))
        return np.flatnonzero((labels[:, self.target > 0] > 0).all(axis=1))


@dataclass(frozen=True)
class Draw:
    """Images drawn for one scope, and the random numbers that follow in it."""

    scope: Scope
    real: np.ndarray  # rows of the reference
    others: dict[str, np.ndarray]  # rows of each contender
    asked: int  # generated images of the scope, drawn or not
    rng: np.random.Generator


def describe(
    images: np.ndarray, labels: np.ndarray, groups: np.ndarray, encoder: Encoder, rows: np.ndarray | None = None
) -> Described:
    """Features and descriptors of images uint8 (n, C, s, s); where `rows` are named, all others are NaN."""
    some = images if rows is None else images[rows]
    found = (encoder.encode(some), spectra.power_curves(some), spectra.channel_links(some))
    if rows is not None:
        found = tuple(_spread(values, rows, len(images)) for values in found)
    # Numbers in place of group names, because groups are looked up thousands of times.
    return Described(labels, np.unique(groups, return_inverse=True)[1], *found)


def _spread(values: np.ndarray, rows: np.ndarray, count: int) -> np.ndarray:
    out = np.full((count, *values.shape[1:]), np.nan, dtype=values.dtype)
    out[rows] = values
    return out


def scopes(real: np.ndarray, generated: np.ndarray, classes: list[str], combinations: int) -> list[Scope]:
    """Scopes: all images, every class, and the commonest combinations of several classes on both sides."""
    zero = np.zeros(len(classes), dtype=np.uint8)
    out = [Scope("all", "all images", zero)]
    out += [Scope("class", name, np.eye(len(classes), dtype=np.uint8)[k]) for k, name in enumerate(classes)]
    seen, asked = (Counter(tuple(row) for row in part.tolist() if sum(row) > 1) for part in (real, generated))
    # Combinations without real images come last: only their labels can be assessed.
    order = sorted(asked, key=lambda row: (-min(seen[row], asked[row]), -asked[row], [-value for value in row]))
    for row in order[:combinations]:
        names = [name for name, on in zip(classes, row, strict=True) if on]
        out.append(Scope("combination", " + ".join(names), np.array(row, dtype=np.uint8)))
    return out


def agreement(logits: np.ndarray, labels: np.ndarray, scope: Scope) -> np.ndarray:
    """Label agreement of every image (n,): probability that a wanted class ranks above an unwanted one, ties half.

    It is one minus the ranking loss (Schapire and Singer 2000), of logits standardised for each class (see `usual`).
    Chance is 0.5, and no threshold is needed. In the scope of a class, only that class counts as wanted. NaN where
    there is no such pair."""
    if len(labels) > pairwise.BLOCK:  # numbers of each pair of classes are never in memory for all images
        parts = [agreement(logits[rows], labels[rows], scope) for rows in pairwise.blocks(len(labels))]
        return np.concatenate(parts)
    on = labels.astype(bool)
    wanted = on & (scope.target > 0) if scope.kind == "class" else on
    above = (logits[:, :, None] > logits[:, None]) + 0.5 * (logits[:, :, None] == logits[:, None])
    pairs = wanted[:, :, None] & ~on[:, None]
    count = pairs.sum(axis=(1, 2))
    return np.divide((above * pairs).sum(axis=(1, 2)), count, out=np.full(len(on), np.nan), where=count > 0)


def usual(answers: dict[str, Answered]) -> dict[str, Answered]:
    """Logits standardised by each class's mean and spread on held-out real images: else common classes would win."""
    logits = answers[FLOOR].logits
    mean, spread = logits.mean(axis=0), np.maximum(logits.std(axis=0), 1e-6)
    return {name: Answered(part.labels, part.groups, (part.logits - mean) / spread) for name, part in answers.items()}


def draws(
    real: np.ndarray, others: dict[str, np.ndarray], classes: list[str], settings: dict[str, Any], seed: int
) -> list[Draw]:
    """Images to compare in every scope, by the labels of the reference and of each contender."""
    out = []
    for scope in scopes(real, others[GENERATED], classes, settings["combinations"]):
        rng = np.random.default_rng(derive(seed, "scope", scope.kind, scope.name))
        chosen = some_of(scope.rows(real), settings["images"], rng)
        within = {name: scope.rows(labels) for name, labels in others.items()}
        # k-NN measures depend on the number of images: everything beside the reference is brought to the same.
        equal = min(settings["images"], *map(len, within.values()))
        rows = {name: some_of(within[name], equal, rng) for name in others}
        out.append(Draw(scope, chosen, rows, len(within[GENERATED]), rng))
    return out


def drawn_rows(drawn: list[Draw], name: str) -> np.ndarray:
    """Rows of a contender that some scope compares."""
    return np.unique(np.concatenate([draw.others[name] for draw in drawn]))


def bracketed(
    drawn: list[Draw],
    reference: Described,
    others: dict[str, Described],
    answers: dict[str, Answered],
    settings: dict[str, Any],
) -> list[dict[str, Any]]:
    """Rows of the table: scope, measure, contender, value, low, high, number of images, and whether it suffices."""
    centre = reference.features.mean(axis=0)
    scale = np.sqrt(np.maximum(reference.features.var(axis=0).mean(), 1e-12))
    out, answers = [], usual(answers) if answers else {}
    for draw in drawn:
        out += _of_scope(draw, reference, others, answers, (centre, scale), settings)
    return out


def _of_scope(
    draw: Draw,
    reference: Described,
    others: dict[str, Described],
    answers: dict[str, Answered],
    units: tuple[np.ndarray, np.ndarray],
    settings: dict[str, Any],
) -> list[dict[str, Any]]:
    scope, rng = draw.scope, draw.rng
    real = reference.take(draw.real)
    parts = {name: part.take(draw.others[name]) for name, part in others.items()}
    equal = len(draw.others[GENERATED])
    samples = _samples(real, parts, units)
    draws, level = settings["draws"], settings["confidence"]
    estimates = distances.estimates(samples.pop(""), samples, rng, draws, level)
    for name, part in answers.items():
        answered = part.take(scope.rows(part.labels))
        values = agreement(answered.logits, answered.labels, scope)
        estimates[name][AGREEMENT] = distances.average(values, answered.groups, rng, draws, level)
    groups, least = len(np.unique(real.groups)), settings["smallest"]
    small = min(len(real), equal) < least["images"] or groups < least["groups"]
    about = {
        "scope": scope.kind, "name": scope.name, "images_real": len(real), "groups_real": groups,
        "images": equal, "asked": draw.asked, "too_small": bool(small),
        "dimensions": samples[GENERATED].axes.shape[1], "of_dimensions": samples[GENERATED].features.shape[1],
    }  # fmt: skip
    return [row(about, measure, name, value) for name in CONTENDERS for measure, value in estimates[name].items()]


def row(about: dict[str, Any], measure: str, contender: str, estimate: Estimate) -> dict[str, Any]:
    """One row of the table."""
    figures = {"value": estimate.value, "low": estimate.low, "high": estimate.high}
    return about | {"measure": measure, "contender": contender} | figures


def some_of(rows: np.ndarray, most: int, rng: np.random.Generator) -> np.ndarray:
    """So many of the rows, at most, in order."""
    return rows if len(rows) <= most else np.sort(rng.choice(rows, most, replace=False))


def _samples(real: Described, parts: dict[str, Described], units: tuple[np.ndarray, np.ndarray]) -> dict[str, Sample]:
    """Samples of the reference (under the name "") and its contenders, in common units and axes."""
    centre, scale = units
    scaled = {name: ((part.features - centre) / scale).astype(np.float32) for name, part in parts.items()}
    scaled[""] = ((real.features - centre) / scale).astype(np.float32)
    dimensions, smallest = scaled[""].shape[1], min(map(len, scaled.values()))
    if smallest < distances.FEWEST_IMAGES:  # nothing will be computed
        axes = np.eye(dimensions, 1, dtype=np.float32)
    else:
        kept = [scaled[name] for name in ("", GENERATED, FLOOR)]
        axes = distances.main_axes(kept, distances.reduced(dimensions, smallest))
    every = parts | {"": real}
    return {
        name: Sample(features, features @ axes, every[name].curves, every[name].links, every[name].groups)
        for name, features in scaled.items()
    }
