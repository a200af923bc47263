"""Memorisation: the nearest training image of every generated one, over rotations and mirror images.

A generated image is authentic if it is farther from its nearest training image than that image is from the nearest
other training image (AuthPct; Alaa et al. 2022, arXiv:2102.08921). Distances are taken in pixels, averaged down to at
most SIDE a side, and in the features of an encoder. Pixels are compared in the eight orientations that a cell may have,
features in two of them: upright, and as the image matches best in pixels. To encode all eight would take long."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from workflow_scripts.lib.base import pairwise
from workflow_scripts.lib.base.progress import Progress
from workflow_scripts.lib.images import orientation

SIDE = 32  # pixels a side, at most: fine noise hides a copy, and large images would take long
PIXELS_BLOCK = 128  # images whose pixels are floats at a time, before they are averaged down


# Vectors float32 (n, D) of images uint8 (n, C, s, s).
Describe = Callable[[np.ndarray], np.ndarray]
# closest(vectors, known, selves): the caller says which device does it (see fidelity/closest_search.py for a GPU).
Closest = Callable[[np.ndarray, np.ndarray, np.ndarray | None], tuple[np.ndarray, np.ndarray]]


@dataclass(frozen=True)
class Nearest:
    """Nearest training image of every image, the orientation in which they match, and their distance."""

    train: np.ndarray  # (n,), position among the training images
    turn: np.ndarray  # (n,), orientation 0 to 7 of the image (see `orientation.mirror_then_rotate`)
    distance: np.ndarray  # (n,), Euclidean
    own: np.ndarray  # (n,), distance of that training image to the nearest other one

    @property
    def ratio(self) -> np.ndarray:
        """Distance as a multiple of that between training images: 1 or less is not authentic."""
        # An exact copy of an image that the training images hold twice is 0 of 0: nothing lies closer.
        nothing = np.where(self.distance > 0, np.inf, 0.0)
        return np.divide(self.distance, self.own, out=nothing, where=self.own > 0)

    @property
    def authentic(self) -> np.ndarray:
        """Authenticity of each image, bool (n,); an exact copy never is, not even where training images are equal."""
        return (self.distance > self.own) & (self.distance > 0)


def pixels(images: np.ndarray, black: Sequence[int] = ()) -> np.ndarray:
    """Pixels as vectors float32 (n, C · s · s), values 0 to 1, root mean square: comparable over sizes and channels.

    Channels that are to be taken for `black` in every image are left out: they add nothing to a distance."""
    step = -(-images.shape[-1] // SIDE)
    side = -(-images.shape[-1] // step)
    kept = np.delete(np.arange(images.shape[1]), black)
    out = np.empty((len(images), len(kept) * side**2), dtype=np.float32)
    for start in range(0, len(images), PIXELS_BLOCK):
        small = images[start : start + PIXELS_BLOCK, kept].astype(np.float32) / 255
        if step > 1:
            # Sides that are no multiple of the step are padded with their edge.
            extra = -images.shape[-1] % step
            small = np.pad(small, ((0, 0), (0, 0), (0, extra), (0, extra)), mode="edge")
            small = small.reshape(*small.shape[:2], side, step, side, step).mean(axis=(3, 5))
        out[start : start + PIXELS_BLOCK] = small.reshape(len(small), -1)
    out /= np.float32(np.sqrt(images.shape[1] * side**2))
    return out


def blind(describe: Describe, given: Sequence[int]) -> Describe:
    """`describe`, with some channels set to black: a channel taken from a training image is no sign of copying."""
    if not len(given):
        return describe

    def without(images: np.ndarray) -> np.ndarray:
        out = []
        for rows in pairwise.blocks(len(images)):
            block = images[rows].copy()
            block[:, given] = 0
            out.append(describe(block))
        return np.concatenate(out) if out else describe(images)

    return without


def closest(vectors: np.ndarray, known: np.ndarray, selves: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """Known vector closest to each one, and where there is none; `selves` are places that do not count."""
    apart = pairwise.squared_distances(vectors, known)
    rows = np.arange(len(vectors))
    if selves is not None:
        apart[rows, selves] = np.inf
    place = apart.argmin(axis=1)
    return place, ~np.isfinite(apart[rows, place])


def nearest(made: np.ndarray, train: np.ndarray, describe: Describe) -> Nearest:
    """Nearest training image of each image, both uint8 (n, C, s, s), by vectors that `describe` computes."""
    return nearest_of_each([made], train, describe)[0]


@dataclass(frozen=True)
class Turns:
    """The one orientation in which each image is described beside the upright one."""

    parts: list[np.ndarray]  # of several sets of images, (n,) each
    of_train: Callable[[np.ndarray], np.ndarray]  # places of training images (m,) -> theirs (m,)


def nearest_of_each(
    parts: list[np.ndarray],
    train: np.ndarray,
    describe: Describe,
    closest: Closest = closest,
    turns: Turns | None = None,
) -> list[Nearest]:
    """Nearest training images of several sets of images, which share what training images need.

    In all eight orientations, or in those of `turns`."""
    known = describe(train)
    ways = turns.parts if turns else [None] * len(parts)
    found = [_search(images, known, describe, closest, None, way) for images, way in zip(parts, ways, strict=True)]
    # Only training images that are the nearest of some image need their own nearest neighbour.
    asked = np.unique(np.concatenate([place for place, _, _ in found]))
    own = _search(train, known, describe, closest, asked, turns.of_train(asked) if turns else None)[2]
    return [Nearest(place, turn, distance, own[np.searchsorted(asked, place)]) for place, turn, distance in found]


def turns_of(images: np.ndarray, places: np.ndarray, describe: Describe, closest: Closest = closest) -> np.ndarray:
    """The orientation (m,) in which each image at these places matches the nearest other one of the images."""
    return _search(images, describe(images), describe, closest, places)[1]


def as_they_are(vectors: np.ndarray, known: np.ndarray, closest: Closest = closest) -> tuple[np.ndarray, np.ndarray]:
    """Place among the known vectors and distance of the nearest of each vector, in no other orientation."""
    found = [_measured(vectors[rows], known, closest, None) for rows in pairwise.blocks(len(vectors))]
    places, squares = (np.concatenate(parts) for parts in zip(*found, strict=True))
    return places, np.sqrt(squares)


def _measured(
    vectors: np.ndarray, known: np.ndarray, closest: Closest, selves: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    """Place of the nearest known vector of each one, and its squared distance, infinite where there is none.

    Distances from inner products have rounding errors where vectors are equal, so the nearest is measured directly."""
    place, alone = closest(vectors, known, selves)
    square = ((vectors - known[place]) ** 2).sum(axis=1)
    square[alone] = np.inf
    return place, square


def _search(
    images: np.ndarray,
    known: np.ndarray,
    describe: Describe,
    closest: Closest,
    selves: np.ndarray | None,
    beside: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Place among the known, orientation and distance of the nearest.

    With `selves` it is that of these known images, which are the images themselves and do not count. `beside` (n,) is
    the one orientation of each image that is tried beside the upright one, in place of all."""
    count = len(images) if selves is None else len(selves)
    place, turn = np.zeros(count, dtype=np.int64), np.zeros(count, dtype=np.int64)
    best = np.full(count, np.inf, dtype=np.float32)
    upright = describe(images) if selves is None else known
    # Block by block, so that turned images and their vectors are never in memory for all images at once.
    with Progress("search for copies", count) as bar:
        for rows in pairwise.blocks(count):
            for way in range(orientation.COUNT):
                tried: slice | np.ndarray = rows
                if beside is not None and way > 0:
                    tried = rows.start + np.flatnonzero(beside[rows] == way)
                    if not len(tried):
                        continue
                own = None if selves is None else selves[tried]
                asked = tried if own is None else own
                if way == 0:
                    vectors = upright[asked]
                else:
                    vectors = describe(np.ascontiguousarray(orientation.mirror_then_rotate(images[asked], way)))
                candidate, value = _measured(vectors, known, closest, own)
                better = value < best[tried]
                chosen = np.arange(count)[tried][better]
                place[chosen], turn[chosen], best[chosen] = candidate[better], way, value[better]
            bar.update(rows.stop)
    return place, turn, np.sqrt(best)
