"""Which labels a synthetic set carries: rows of a label table made from those of the training images."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from workflow_scripts.lib.stage import UserError


def as_train(labels: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """Rows of the training table in their own proportions: whole copies of it, and a random rest."""
    rest = rng.permutation(len(labels))[: count % len(labels)]
    return labels[np.concatenate([np.tile(np.arange(len(labels)), count // len(labels)), rest])]


def balanced(labels: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """Every class that has training images in turn; the combination is that of a random image which carries it."""
    carriers = [found for column in labels.T if len(found := np.flatnonzero(column))]
    return labels[[rng.choice(carriers[number % len(carriers)]) for number in range(count)]]


def tail_fill(labels: np.ndarray, count: int, target: int, rng: np.random.Generator) -> np.ndarray:
    """Fill classes up to `target` images, real and synthetic together: always the one that lacks most, at most `count`.

    A class without training images cannot be filled and is left alone."""
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


def single(labels: np.ndarray, per_class: int) -> np.ndarray:
    """One label an image, as many images of each class that has training images."""
    return np.repeat(np.eye(labels.shape[1], dtype=labels.dtype)[labels.any(axis=0)], per_class, axis=0)


def planned(settings: dict, labels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Label rows (n, K) of a plan, in random order, from the labels of the fold's training images."""
    if not labels.any():
        raise UserError("no training image of this fold carries a label: nothing to plan from")
    makers: dict[str, Callable[[], np.ndarray]] = {
        "as_train": lambda: as_train(labels, settings["count"], rng),
        "balanced": lambda: balanced(labels, settings["count"], rng),
        "tail_fill": lambda: tail_fill(labels, settings["count"], settings["target"], rng),
        "single": lambda: single(labels, settings["per_class"]),
    }
    rows = makers[settings["labels"]]()
    if not len(rows):
        raise UserError(f"plan {settings['name']}: every class has {settings['target']} images already; raise target")
    # Shuffled, so that any leading part of the set has about the same labels.
    return rows[rng.permutation(len(rows))]
