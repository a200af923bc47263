"""Memorisation: the nearest training image of every generated one, over rotations and mirror images.

A generated image is authentic if it is farther from its nearest training image than that image is from the nearest
other training image (AuthPct; Alaa et al. 2022, arXiv:2102.08921). Distances are taken in pixels, averaged down to at
most SIDE a side, and in the features of an encoder. Both cover the eight orientations that a cell may have."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from workflow_scripts.lib.base.pairwise import blocks, squared_distances
from workflow_scripts.lib.images import orientation

SIDE = 32  # pixels a side, at most: fine noise hides a copy, and large images would take long


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
        return np.divide(self.distance, self.own, out=np.full(len(self.own), np.inf), where=self.own > 0)

    @property
    def authentic(self) -> np.ndarray:
        """Authenticity of each image, bool (n,); an exact copy never is, not even where training images are equal."""
        return (self.distance > self.own) & (self.distance > 0)


def pixels(images: np.ndarray, black: Sequence[int] = ()) -> np.ndarray:
    """Pixels as vectors float32 (n, C · s · s), values 0 to 1, root mean square: comparable over sizes and channels.

    Channels that are `black` in every image are left out: they add nothing to a distance but its time."""
    step = -(-images.shape[-1] // SIDE)
    channels = images.shape[1]
    small = np.delete(images, black, axis=1).astype(np.float32) / 255
    if step > 1:
        # Sides that are no multiple of the step are padded with their edge.
        extra = -images.shape[-1] % step
        small = np.pad(small, ((0, 0), (0, 0), (0, extra), (0, extra)), mode="edge")
        count, kept, side = small.shape[:3]
        small = small.reshape(count, kept, side // step, step, side // step, step).mean(axis=(3, 5))
    flat = small.reshape(len(small), int(np.prod(small.shape[1:])))
    return flat / np.float32(np.sqrt(channels * small.shape[-1] ** 2))


def without(images: np.ndarray, given: list[int]) -> np.ndarray:
    """Images with some channels set to black: a channel taken from a training image is no sign of copying."""
    if not given:
        return images
    out = images.copy()
    out[:, given] = 0
    return out


def closest(vectors: np.ndarray, known: np.ndarray, selves: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """Known vector closest to each one, and where there is none; `selves` are places that do not count."""
    apart = squared_distances(vectors, known)
    rows = np.arange(len(vectors))
    if selves is not None:
        apart[rows, selves] = np.inf
    place = apart.argmin(axis=1)
    return place, ~np.isfinite(apart[rows, place])


def nearest(made: np.ndarray, train: np.ndarray, describe: Callable[[np.ndarray], np.ndarray]) -> Nearest:
    """Nearest training image of each image, both uint8 (n, C, s, s), by vectors that `describe` computes."""
    return nearest_of_each([made], train, describe)[0]


def nearest_of_each(
    parts: list[np.ndarray], train: np.ndarray, describe: Callable[[np.ndarray], np.ndarray], closest: Closest = closest
) -> list[Nearest]:
    """Nearest training images of several sets of images, which share what training images need."""
    known = describe(train)
    found = [_search(images, known, describe, closest, None) for images in parts]
    # Only training images that are the nearest of some image need their own nearest neighbour.
    asked = np.unique(np.concatenate([place for place, _, _ in found]))
    own = _search(train[asked], known, describe, closest, asked)[2]
    return [Nearest(place, turn, distance, own[np.searchsorted(asked, place)]) for place, turn, distance in found]


def as_they_are(vectors: np.ndarray, known: np.ndarray, closest: Closest = closest) -> tuple[np.ndarray, np.ndarray]:
    """Place among the known vectors and distance of the nearest of each vector, in no other orientation."""
    found = [(place, square) for _, place, square in _by_block(vectors, known, closest, None)]
    places, squares = (np.concatenate(parts) for parts in zip(*found, strict=True))
    return places, np.sqrt(squares)


def _by_block(
    vectors: np.ndarray, known: np.ndarray, closest: Closest, selves: np.ndarray | None
) -> Iterator[tuple[slice, np.ndarray, np.ndarray]]:
    """Rows, the place of their nearest known vector, and its squared distance, infinite where there is none."""
    for rows in blocks(len(vectors)):
        place, alone = closest(vectors[rows], known, None if selves is None else selves[rows])
        # Distances from inner products have rounding errors where vectors are equal, so the nearest is measured
        # directly.
        square = ((vectors[rows] - known[place]) ** 2).sum(axis=1)
        square[alone] = np.inf
        yield rows, place, square


def _search(
    images: np.ndarray,
    known: np.ndarray,
    describe: Callable[[np.ndarray], np.ndarray],
    closest: Closest,
    selves: np.ndarray | None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Place among the known, orientation and distance of the nearest; `selves` are places of the images themselves."""
    count = len(images)
    place, turn = np.zeros(count, dtype=np.int64), np.zeros(count, dtype=np.int64)
    best = np.full(count, np.inf, dtype=np.float32)
    for way in range(orientation.COUNT):
        if way == 0:
            vectors = describe(images) if selves is None else known[selves]
        else:
            vectors = describe(np.ascontiguousarray(orientation.mirror_then_rotate(images, way)))
        for rows, candidate, square in _by_block(vectors, known, closest, selves):
            better = square < best[rows]
            place[rows][better], turn[rows][better] = candidate[better], way
            best[rows][better] = square[better]
    return place, turn, np.sqrt(best)
