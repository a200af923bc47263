"""A label table of the size and shape of the Kaggle 2018 table: 28 classes that occur together, rows of proteins.

Class counts are rounded summaries of that table (31,072 images). Classes occur together as their compartments do in
`simulate.protein_labels`; of pairs of other classes nothing is assumed. All images of a protein have its labels."""

from __future__ import annotations

import csv
from itertools import combinations
from pathlib import Path

import numpy as np

from workflow_scripts.lib.simulate.protein_labels import CARDINALITY, lift_matrix

# Images of each class among 31,072, in the order of label_maps.KAGGLE_2018.
COUNTS = np.array([
    12900, 1250, 3600, 1560, 1860, 2500, 1000, 2800, 50, 45, 30, 1100, 690, 540, 1070, 20, 530, 210, 900, 1480, 170,
    3800, 800, 3000, 320, 8200, 330, 11,
])  # fmt: skip
OF = 31_072
# Number of the compartment of protein_labels.COMPARTMENTS that a class belongs to; other classes belong to none.
COMPARTMENT = {
    0: 0, 1: 1, 2: 2, 3: 2, 4: 3, 5: 3, 7: 4, 8: 9, 9: 9, 10: 9, 14: 5, 20: 9, 21: 6, 22: 6, 23: 7, 25: 8,
}  # fmt: skip
ROUNDS = 100  # of iterative scaling; counts are then met within a part in a thousand


def label_sets() -> tuple[np.ndarray, np.ndarray]:
    """All sets of one to four classes, bool (sets, 28), and their probabilities: prevalence and cardinality are met."""
    count = len(COUNTS)
    members = [chosen for size in range(1, 1 + len(CARDINALITY)) for chosen in combinations(range(count), size)]
    sets = np.zeros((len(members), count), bool)
    for row, chosen in enumerate(members):
        sets[row, list(chosen)] = True
    lifts = lift_matrix()
    pairs = {
        pair: lifts[COMPARTMENT[pair[0]], COMPARTMENT[pair[1]]]
        for pair in combinations(range(count), 2)
        if pair[0] in COMPARTMENT and pair[1] in COMPARTMENT
    }
    weight = np.array([np.prod([pairs.get(pair, 1.0) for pair in combinations(chosen, 2)]) for chosen in members])
    has, size = sets.astype(float), sets.sum(1) - 1
    # The marginals must add up to the mean cardinality, which was rounded on its own.
    target = COUNTS / COUNTS.sum() * (CARDINALITY @ np.arange(1, 1 + len(CARDINALITY)))
    probability = weight * np.prod(np.where(sets, target, 1.0), 1)
    for _ in range(ROUNDS):
        probability *= (CARDINALITY / np.bincount(size, probability))[size]
        # Half steps (the root) keep the two kinds of margin from overshooting each other.
        probability *= np.exp(has @ (0.5 * np.log(target / (probability @ has))))
    return sets, probability / probability.sum()


def drawn(images: int, a_protein: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Labels bool (images, 28) and the number of the protein of each image (images,), in random order.

    A class that no protein has got by chance is given to one, so that none is without images."""
    rng = np.random.default_rng(seed)
    proteins = max(1, images // a_protein)
    sets, probability = label_sets()
    labels = sets[rng.choice(len(sets), proteins, p=probability)]
    protein = rng.permutation(np.arange(images) % proteins)
    for absent in np.flatnonzero(~labels.any(0)):
        labels[rng.integers(proteins), absent] = True
    return labels[protein], protein


def write(path: Path, images: int, a_protein: int, seed: int) -> None:
    """Write a table of images with the Ids i0, i1, ..., `a_protein` of each protein."""
    labels, protein = drawn(images, a_protein, seed)
    targets = (" ".join(map(str, np.flatnonzero(row))) for row in labels)
    _write(path, [[target, f"protein{number}"] for target, number in zip(targets, protein, strict=True)])


def copy(path: Path, images: int, table: Path) -> None:
    """The same from the first rows of a table with the columns Id and Target, and perhaps gene."""
    with table.open(newline="", encoding="utf-8") as handle:
        rows = list(csv.DictReader(handle))[:images]
    # Without proteins each image is a group of its own, as in the competition's table.
    _write(path, [[row["Target"], row.get("gene", f"image{number}")] for number, row in enumerate(rows)])


def _write(path: Path, rows: list[list[str]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as handle:
        writer = csv.writer(handle)
        writer.writerow(["Id", "Target", "gene"])
        writer.writerows([f"i{number}", *row] for number, row in enumerate(rows))
