"""Column plans: which cell line, plate or other value the images of a synthetic set get, beside their labels.

A plan is a function of the labels (N, K) and the values (N, C) of the labelled train images, of the values of each
column that the generator has learned, of the planned labels (m, K), and of random numbers. It returns labels (m, K) and
values (m, C)."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np

from workflow_scripts.lib.base.errors import UserError
from workflow_scripts.lib.generate.generator_choices import COLUMN_PLANS
from workflow_scripts.lib.generate.label_plans import references

Planned = tuple[np.ndarray, np.ndarray]  # labels (m, K), values (m, C)


@dataclass(frozen=True)
class Material:
    """What a plan is made from."""

    labels: np.ndarray  # (N, K) of the labelled train images
    values: np.ndarray  # text (N, C) of these images
    known: list[list[str]]  # values of each column that the generator was told in training


def as_real(material: Material, wanted: np.ndarray, rng: np.random.Generator) -> Planned:
    """Values of a train image with the labels of each image, or with the nearest ones."""
    return wanted, material.values[references(material.labels, wanted, rng)]


def uniform(material: Material, wanted: np.ndarray, rng: np.random.Generator) -> Planned:
    """Every known value of each column equally often, whatever the labels."""
    return wanted, np.stack([rng.choice(known, len(wanted)) for known in material.known], axis=1)


def unseen(material: Material, wanted: np.ndarray, rng: np.random.Generator) -> Planned:
    """Values with which no labelled train image has exactly these labels.

    Labels that have been seen with all values are replaced by other planned labels. No rows where there are none."""
    carried = material.labels.astype(bool)
    combinations, place = np.unique(wanted.astype(bool), axis=0, return_inverse=True)
    free = []
    for combination in combinations:
        seen = {tuple(row) for row in material.values[(carried == combination).all(axis=1)]}
        free.append([values for values in product(*material.known) if values not in seen])
    place = place.ravel()
    some = np.array([bool(free[index]) for index in place])
    if not some.any():
        return wanted[:0], material.values[:0]
    rows = np.where(some, np.arange(len(wanted)), rng.choice(np.flatnonzero(some), len(wanted)))
    drawn = [free[place[row]][rng.integers(len(free[place[row]]))] for row in rows]
    return wanted[rows], np.array(drawn, dtype=object).reshape(len(rows), len(material.known))


def unlabelled(material: Material, wanted: np.ndarray, rng: np.random.Generator) -> Planned:
    """Values that unlabelled images alone have, such as those of a new cell line. No rows where there are none."""
    labelled = [set(column) for column in material.values.T]
    free = [
        values
        for values in product(*material.known)
        if any(value not in own for value, own in zip(values, labelled, strict=True))
    ]
    if not free:
        return wanted[:0], material.values[:0]
    drawn = np.array(free, dtype=object)[rng.integers(len(free), size=len(wanted))]
    return wanted, drawn


def planned(plan: str, name: str, material: Material, wanted: np.ndarray, rng: np.random.Generator) -> Planned:
    """Labels and values of the images of the synthetic set `name` by a plan of COLUMN_PLANS."""
    out = COLUMN_PLANS.function(plan, globals())(material, wanted, rng)
    if not len(out[0]):
        raise UserError(f"synthetic set {name}: {COLUMN_PLANS[plan].none}; take columns: uniform, or other labels")
    return out
