"""Data-copying test C_T: do generated images lie nearer to the train images than held-out real images do?

Meehan, Chaudhuri and Dasgupta 2020, arXiv:2004.05675. In each cell of a partition of the feature space, the distances
of m generated and of n held-out images to their nearest train images are compared by the Mann-Whitney statistic:

    Z    = (U - m n / 2) / sqrt(m n (m + n + 1) / 12)    U: pairs whose generated image is the farther one, ties half
    C_T  = sum of P Z over cells / sum of P              P: fraction of the held-out images that lie in the cell

About 0: as far as held-out images. Strongly negative: copies, or new images of the train groups, to which held-out
images do not belong. Strongly positive: far from all train images. Z grows with the root of the number of images. By
chance C_T of k equal cells spreads by about 1 / sqrt(k), and by more where images of a group are alike: the interval
over groups says what chance does.

Cells are k-means clusters of the train images. An image belongs to the cell of its nearest train image, so whoever has
found that image needs no further distance. Cells with fewer than SMALLEST images on either side are left out, as in the
paper. Where that leaves none, all images are one cell."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy.cluster import vq

from workflow_scripts.lib.fidelity import distances
from workflow_scripts.lib.fidelity.distances import Estimate, Halves, Measure

COPYING = "copying"  # as tables name it
MOST_CELLS, PER_CELL = 10, 50  # cells, at most; held-out images for each of them
SMALLEST = 20  # generated, and held-out, images of a cell that counts
ROUNDS = 20  # of k-means
MEASURE = Measure("data copying (C_T)", "", "near 0")


@dataclass(frozen=True)
class Apart:
    """Distances of images to their nearest train images."""

    distance: np.ndarray  # (n,)
    cell: np.ndarray  # (n,), of the nearest train image
    groups: np.ndarray  # (n,), resampled as a whole

    def __len__(self) -> int:
        return len(self.distance)

    def take(self, rows: np.ndarray) -> Apart:
        """Some of the images."""
        return Apart(self.distance[rows], self.cell[rows], self.groups[rows])


@dataclass(frozen=True)
class _Cell:
    weight: float  # fraction of the held-out images
    scale: float  # Z of a cell whose generated images are the farther ones in all pairs, doubled
    number: int | None  # None: all images

    def rows(self, part: Apart) -> np.ndarray:
        return np.full(len(part), True) if self.number is None else part.cell == self.number


def cells(train: np.ndarray, held_out: int, rng: np.random.Generator) -> np.ndarray:
    """Cell (n,) of each train image, by features (n, D), for so many held-out images."""
    count = min(MOST_CELLS, held_out // PER_CELL, len(train))
    if count < 2:
        return np.zeros(len(train), dtype=int)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of an empty cluster, which does no harm
        return vq.kmeans2(train, count, iter=ROUNDS, minit="points", rng=rng)[1]


def farther(made: np.ndarray, held_out: np.ndarray) -> float:
    """Fraction of pairs whose generated image is the farther one, ties half: U / m n."""
    order = np.sort(made)
    below, upto = np.searchsorted(order, held_out, "left"), np.searchsorted(order, held_out, "right")
    return float(1 - (below + upto).mean() / 2 / len(made))


def estimate(made: Apart, held_out: Apart, rng: np.random.Generator, draws: int, level: float) -> Estimate:
    """C_T and its interval over groups; NaN where there are too few images.

    Halves keep the weights and sizes of the whole: what varies is the fraction U / m n of each cell."""
    if min(len(made), len(held_out)) < distances.FEWEST_IMAGES:
        return distances.NOTHING
    counted = _counted(made, held_out)
    value = _statistic(made, held_out, counted)
    theirs, own = Halves(made.groups), Halves(held_out.groups)
    if min(theirs.fraction, own.fraction) == 0:
        return Estimate(value, float("nan"), float("nan"))
    halves = [_statistic(made.take(theirs.draw(rng)), held_out.take(own.draw(rng)), counted) for _ in range(draws)]
    fraction = float(np.mean([theirs.fraction, own.fraction]))
    return distances.estimate(value, np.array(halves), fraction, MEASURE, level)


def floor(held_out: Apart, rng: np.random.Generator, draws: int, level: float) -> Estimate:
    """C_T of half of the held-out groups, in the place of generated images, beside the other half."""
    half = Halves(held_out.groups).draw(rng)
    return estimate(held_out.take(half), held_out.take(np.delete(np.arange(len(held_out)), half)), rng, draws, level)


def _counted(made: Apart, held_out: Apart) -> list[_Cell]:
    found = list(_large(made, held_out))
    return found or [_Cell(1.0, _scale(len(made), len(held_out)), None)]


def _large(made: Apart, held_out: Apart) -> Iterator[_Cell]:
    for number in np.unique(held_out.cell).tolist():
        m, n = int((made.cell == number).sum()), int((held_out.cell == number).sum())
        if min(m, n) >= SMALLEST:
            yield _Cell(n / len(held_out), _scale(m, n), number)


def _scale(m: int, n: int) -> float:
    return float(np.sqrt(12 * m * n / (m + n + 1)))


def _statistic(made: Apart, held_out: Apart, counted: list[_Cell]) -> float:
    total = weights = 0.0
    for cell in counted:
        theirs, own = made.distance[cell.rows(made)], held_out.distance[cell.rows(held_out)]
        if len(theirs) and len(own):  # a half may miss a small cell
            total += cell.weight * cell.scale * (farther(theirs, own) - 0.5)
            weights += cell.weight
    return total / weights if weights else 0.0
