"""Label plans: which labels the images of a synthetic set carry, made from those of the training images.

A plan is a function of the training labels (N, K) and of random numbers. By name it gets the keys of the synthetic set
that it needs (`generator_choices.LABEL_PLANS`) and, if it depends on the baseline, its `errors` (K,)."""

from __future__ import annotations

from typing import Any

import numpy as np

from workflow_scripts.lib.base.errors import UserError
from workflow_scripts.lib.generate.generator_choices import LABEL_PLANS


def as_train(labels: np.ndarray, rng: np.random.Generator, count: int) -> np.ndarray:
    """Rows of the training table in their own proportions: whole copies of it, and a random rest."""
    rest = rng.permutation(len(labels))[: count % len(labels)]
    return labels[np.concatenate([np.tile(np.arange(len(labels)), count // len(labels)), rest])]


def balanced(labels: np.ndarray, rng: np.random.Generator, count: int) -> np.ndarray:
    """Classes with training images in turn; each image has the labels of a random training image of the class."""
    carriers = [rows for column in labels.T if len(rows := np.flatnonzero(column))]
    return labels[[rng.choice(carriers[number % len(carriers)]) for number in range(count)]]


def tail_fill(labels: np.ndarray, rng: np.random.Generator, count: int, target: int) -> np.ndarray:
    """Fill classes up to `target` images, real and synthetic together, with at most `count` images.

    Each image goes to the class that lacks most. A class without training images cannot be filled and is skipped."""
    have = labels.sum(axis=0, dtype=np.int64)
    fillable = have > 0
    chosen: list[int] = []
    while len(chosen) < count:
        lacking = np.where(fillable, target - have, 0)
        if lacking.max() <= 0:
            break
        carriers = np.flatnonzero(labels[:, int(lacking.argmax())])
        row = int(rng.choice(carriers))
        chosen.append(row)
        have = have + labels[row]
    return labels[np.array(chosen, dtype=np.int64)]


def single(labels: np.ndarray, rng: np.random.Generator, per_class: int) -> np.ndarray:
    """One label an image, as many images of each class that has training images."""
    return np.repeat(np.eye(labels.shape[1], dtype=labels.dtype)[labels.any(axis=0)], per_class, axis=0)


def unseen(labels: np.ndarray, rng: np.random.Generator, count: int) -> np.ndarray:
    """Combinations that no training image has, of classes that training images have, as evenly as `count` allows.

    They are the pairs that never occur together. Where every pair occurs, they are combinations that occur plus one
    further class, of the smallest size for which that is unseen. No rows where there are none."""
    carried, alone = np.flatnonzero(labels.any(axis=0)), np.eye(labels.shape[1], dtype=np.int64)
    known = np.unique(labels, axis=0).astype(np.int64)
    for size in range(1, int(known.sum(axis=1).max()) + 1):
        smaller = alone[carried] if size == 1 else known[known.sum(axis=1) == size]
        grown = [row + alone[extra] for row in smaller for extra in carried if not row[extra]]
        # Unseen: no training image carries all of its classes.
        new = [row for row in np.unique(grown, axis=0) if not (known @ row == size + 1).any()] if grown else []
        if new:
            rows = np.array(new, dtype=labels.dtype)
            return rows[rng.permutation(len(rows))][np.arange(count) % len(rows)]
    return labels[:0]


def class_weights(labels: np.ndarray, errors: np.ndarray) -> np.ndarray:
    """Fraction of the draws for each class (K,), proportional to a classifier's errors (K,).

    A class whose error is unknown (NaN) gets the mean error. One without training images cannot be drawn."""
    if np.isnan(errors).all():
        raise UserError("labels feedback: no validation image carries a label, so the baseline's errors are unknown")
    weights = np.where(np.isnan(errors), np.nanmean(errors), errors) * labels.any(axis=0)
    if weights.sum() <= 0:
        weights = labels.any(axis=0).astype(float)
    return weights / weights.sum()


def feedback(labels: np.ndarray, rng: np.random.Generator, count: int, errors: np.ndarray) -> np.ndarray:
    """Classes in proportion to a classifier's errors; each image has the labels of a random image of the class."""
    drawn = rng.choice(labels.shape[1], size=count, p=class_weights(labels, errors))
    return labels[[rng.choice(np.flatnonzero(labels[:, kind])) for kind in drawn]]


def references(labels: np.ndarray, wanted: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """For each wanted combination (m, K) a training image (row of `labels`) that has it, all such images equally often.

    Where no image has it, as with unseen combinations, it is one of those that differ in the fewest classes."""
    out = np.empty(len(wanted), dtype=np.int64)
    combinations, which = np.unique(wanted, axis=0, return_inverse=True)
    for number, combination in enumerate(combinations):
        places = np.flatnonzero(which.ravel() == number)
        distance = (labels != combination).sum(axis=1)
        suitable = rng.permutation(np.flatnonzero(distance == distance.min()))
        out[places] = suitable[np.arange(len(places)) % len(suitable)]
    return out


def planned(
    settings: dict[str, Any], labels: np.ndarray, rng: np.random.Generator, errors: np.ndarray | None
) -> np.ndarray:
    """Label rows (n, K) of a synthetic set, in random order, from the labels of the fold's training images.

    `errors` (K,) are those of the fold's baseline, for label plans that use them."""
    if not labels.any():
        raise UserError("no training image of this fold carries a label: nothing to plan from")
    facts = LABEL_PLANS[settings["labels"]]
    wanted = {key: settings[key] for key in facts.needs} | ({"errors": errors} if facts.asks_baseline else {})
    rows = LABEL_PLANS.function(settings["labels"], globals())(labels, rng, **wanted)
    if not len(rows):
        raise UserError(f"synthetic set {settings['name']}: {facts.none.format(**wanted)}")
    # Shuffled, so that any leading part of the set has about the same labels.
    return rows[rng.permutation(len(rows))]
