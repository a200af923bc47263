"""Label model of simulated proteins: prevalence, cardinality and co-occurrence of compartments, and label errors.

The statistics below are rounded summaries of the Kaggle 2018 HPA training table (31,072 images). They are counted over
the rows with at least one of these ten compartments. Close relatives are merged: nucleoli with their fibrillar centres,
nuclear bodies with speckles, plasma membrane with cell junctions, the small round organelles as vesicles."""

from __future__ import annotations

from itertools import combinations

import numpy as np

# Ordered as classes are numbered.
COMPARTMENTS = (
    "Nucleoplasm",
    "Nuclear membrane",
    "Nucleoli",
    "Nuclear bodies",
    "Golgi apparatus",
    "Microtubules",
    "Plasma membrane",
    "Mitochondria",
    "Cytosol",
    "Vesicles",
)

# Fraction of images that show the compartment; the rarest is rounded up from 0.015.
PREVALENCE = np.array([0.46, 0.044, 0.18, 0.155, 0.10, 0.038, 0.16, 0.105, 0.29, 0.02])
# Fraction of images with one, two, three and four compartments.
CARDINALITY = np.array([0.535, 0.388, 0.072, 0.005])
# Upper triangle of the lift P(a, b) / (P(a) P(b)), row by row; zeros raised to 0.05 so that nothing is impossible.
LIFT = (
    (1.0, 1.0, 0.5, 0.8, 0.4, 0.8, 0.6, 1.0, 0.6),
    (0.7, 0.5, 0.4, 0.1, 0.4, 0.3, 0.7, 0.05),
    (0.2, 0.4, 0.5, 0.4, 0.5, 0.7, 0.5),
    (0.3, 0.3, 0.4, 0.2, 0.7, 0.4),
    (0.1, 0.4, 0.05, 0.5, 0.05),
    (0.3, 0.05, 0.5, 0.05),
    (0.2, 0.8, 0.3),
    (0.2, 0.1),
    (0.5,),
)
# Compartments that an annotator confuses; all are look-alikes at low resolution.
CONFUSED_WITH = {
    0: (3, 2),
    1: (0, 8),
    2: (3, 0),
    3: (2, 0),
    4: (7, 8),
    5: (8, 7),
    6: (8,),
    7: (8, 4),
    8: (7, 6),
    9: (4, 8),
}


def lift_matrix() -> np.ndarray:
    """Symmetric (K, K) lifts with ones on the diagonal."""
    count = len(COMPARTMENTS)
    out = np.ones((count, count))
    for row, values in enumerate(LIFT):
        out[row, row + 1 :] = out[row + 1 :, row] = values
    return out


def label_sets(co_occurrence: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """All label sets of one to four compartments, (sets, K) bool, and their probabilities.

    The distribution is log-linear, with weights for compartments, cardinalities and pairs, fitted by iterative
    scaling until prevalence, cardinality and lifts are met. `co_occurrence` is then the exponent of the pairs'
    weights: at 0 only prevalence and cardinality remain."""
    count = len(COMPARTMENTS)
    members = [c for size in range(1, 1 + len(CARDINALITY)) for c in combinations(range(count), size)]
    sets = np.zeros((len(members), count), bool)
    for row, chosen in enumerate(members):
        sets[row, list(chosen)] = True
    first, second = np.triu_indices(count, 1)
    both = sets[:, first] & sets[:, second]  # (sets, pairs)
    size = sets.sum(1) - 1
    # The marginals must add up to the mean cardinality: rounding left them a little apart.
    target = PREVALENCE * (CARDINALITY @ np.arange(1, 1 + len(CARDINALITY))) / PREVALENCE.sum()
    wanted = (lift_matrix() * np.outer(target, target))[first, second]

    def margins(probability: np.ndarray) -> np.ndarray:
        # Half steps (the square root) keep the two kinds of margin from overshooting each other.
        probability = probability * (CARDINALITY / np.bincount(size, probability, len(CARDINALITY)))[size]
        return probability * np.prod(np.where(sets, np.sqrt(target / (probability @ sets)), 1.0), 1)

    pairs = np.ones(len(first))
    alone = np.prod(np.where(sets, target, 1.0), 1)
    probability = margins(alone)
    for _ in range(300 if co_occurrence > 0 else 0):
        step = np.clip(np.sqrt(wanted / (probability @ both)), 0.5, 2.0)
        pairs *= step
        probability = margins(probability * np.prod(np.where(both, step, 1.0), 1))
    probability = alone * np.prod(np.where(both, pairs**co_occurrence, 1.0), 1)
    for _ in range(300):
        probability = margins(probability)
    return sets, probability / probability.sum()


def assign(leaders: np.ndarray, floor: int, co_occurrence: float, rng: np.random.Generator) -> np.ndarray:
    """True labels of all genes, (genes, K) bool, with class counts as near to the targets as whole genes allow.

    `leaders[g]` names the gene whose labels g shares (itself for most). With independent draws the count of the rarest
    class would vary too much. So genes are redrawn, one at a time, as long as that brings the counts closer."""
    genes, count = len(leaders), len(COMPARTMENTS)
    sets, probability = label_sets(co_occurrence)
    cumulative = np.cumsum(probability)
    floor = max(1, min(floor, genes // count))
    cardinality = sets.sum(1)
    # The statistic to match: compartments first, then the fractions of each cardinality.
    features = np.concatenate([sets, cardinality[:, None] == np.arange(1, 1 + len(CARDINALITY))], 1).astype(float)
    target = np.concatenate([np.maximum(genes * (probability @ sets), floor), genes * CARDINALITY])
    family = np.bincount(leaders, minlength=genes)

    def draw() -> int:
        return min(int(np.searchsorted(cumulative, rng.random())), len(sets) - 1)

    def distance(counts: np.ndarray) -> float:
        # A class below the floor weighs more than any other misfit.
        return float(((counts - target) ** 2 / target).sum() + 10 * np.maximum(floor - counts[:count], 0).sum())

    chosen = np.array([draw() for _ in range(genes)])
    counts = (features[chosen] * family[:, None]).sum(0)
    now, movable = distance(counts), np.flatnonzero(family)
    for _ in range(max(4000, 20 * genes)):
        gene, proposal = int(movable[rng.integers(len(movable))]), draw()
        moved = counts + family[gene] * (features[proposal] - features[chosen[gene]])
        if (then := distance(moved)) < now:
            chosen[gene], counts, now = proposal, moved, then
    return sets[chosen][leaders]


def corrupt(labels: np.ndarray, omission: float, confusion: float, rng: np.random.Generator) -> np.ndarray:
    """Labels with errors for one row of true ones, (K,) bool.

    Each true label is lost with probability `omission`, unless it is the only one left (a table has no empty rows).
    Each that remains is exchanged for a look-alike with probability `confusion`."""
    out = labels.copy()
    present = rng.permutation(np.flatnonzero(labels))
    # All draws are made whatever the rates, so that changing one rate leaves the other errors as they were.
    lost, swapped, choice = rng.random(len(present)), rng.random(len(present)), rng.random(len(present))
    for where, label in enumerate(present):
        if lost[where] < omission and out.sum() > 1:
            out[label] = False
        elif swapped[where] < confusion:
            options = [other for other in CONFUSED_WITH[int(label)] if not labels[other] and not out[other]]
            if options:
                out[label] = False
                out[options[int(choice[where] * len(options))]] = True
    return out
