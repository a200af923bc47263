"""Copies are found, however they are turned; and images that are none are not called so."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
from scipy.spatial.distance import cdist, pdist

from tests.helpers.blobs import blobs
from tests.helpers.peak import peak_bytes
from workflow_scripts.lib.images import nearest_images, orientation


@pytest.mark.parametrize("turn", range(8))
@pytest.mark.parametrize(("channels", "side"), [(1, 16), (3, 50)])
def test_a_planted_copy_is_found_however_it_is_turned(turn: int, channels: int, side: int) -> None:
    train, made = blobs(40, channels, side, 1), blobs(12, channels, side, 2)
    rng = np.random.default_rng(3)
    noisy = train[7] + rng.normal(0, 3, train[7].shape)
    made[5] = orientation.mirror_then_rotate(np.clip(noisy, 0, 255).astype(np.uint8)[None], turn)[0]
    found = nearest_images.nearest(made, train, nearest_images.pixels)
    assert found.train[5] == 7
    assert found.ratio[5] < 0.5 and found.ratio.argmin() == 5
    assert not found.authentic[5]
    assert np.delete(found.authentic, 5).mean() > 0.3
    # The turn it names lays the image on the training image.
    laid = orientation.mirror_then_rotate(made[5:6], int(found.turn[5]))[0]
    assert np.abs(laid.astype(float) - train[7]).mean() < 4


def test_exact_copies_are_never_authentic_also_of_doubled_training_images() -> None:
    train = blobs(20, 2, 16, 4)
    train[1] = train[0]
    found = nearest_images.nearest(train[:3].copy(), train, nearest_images.pixels)
    assert found.distance[:2] == pytest.approx([0, 0], abs=1e-6)
    assert not found.authentic.any() and (found.ratio[:2] == 0).all(), "the first of the closest pairs"


def test_distances_are_those_of_the_definition() -> None:
    train, made = blobs(15, 2, 16, 5), blobs(4, 2, 16, 6)
    found = nearest_images.nearest(made, train, nearest_images.pixels)

    def apart(one: np.ndarray, other: np.ndarray) -> float:
        turns = [orientation.mirror_then_rotate(one[None], turn)[0] for turn in range(8)]
        return min(float(np.sqrt((((turn.astype(float) - other) / 255) ** 2).mean())) for turn in turns)

    for index in range(4):
        distances = [apart(made[index], image) for image in train]
        nearest = int(np.argmin(distances))
        own = min(apart(train[nearest], image) for row, image in enumerate(train) if row != nearest)
        assert found.train[index] == nearest
        assert found.distance[index] == pytest.approx(distances[nearest], rel=1e-4)
        assert found.own[index] == pytest.approx(own, rel=1e-4)
    assert len({orientation.mirror_then_rotate(made[:1], turn).tobytes() for turn in range(8)}) == 8


def test_given_channels_are_no_sign_of_copying() -> None:
    train, made = blobs(30, 3, 16, 7), blobs(6, 3, 16, 8)
    made[:, :2] = train[:6, :2]
    blind = nearest_images.nearest(made, train, nearest_images.pixels)
    assert (blind.train == np.arange(6)).all() and not blind.authentic.any()
    alone = nearest_images.nearest(made[:, 2:], train[:, 2:], nearest_images.pixels)
    for describe in (
        partial(nearest_images.pixels, black=[0, 1]),
        nearest_images.blind(nearest_images.pixels, [0, 1]),
    ):
        found = nearest_images.nearest(made, train, describe)
        assert np.array_equal(found.train, alone.train)
        assert np.array_equal(found.authentic, alone.authentic)
    assert nearest_images.blind(nearest_images.pixels, []) is nearest_images.pixels
    assert made[0, 0].any(), "the images themselves stay as they are"


def test_features_are_searched_like_pixels() -> None:
    train, made = blobs(20, 1, 16, 9), blobs(5, 1, 16, 10)
    made[2] = orientation.mirror_then_rotate(train[3:4], 6)[0]

    def corner(images: np.ndarray) -> np.ndarray:
        return images[:, 0, :8].reshape(len(images), -1).astype(np.float32)

    found = nearest_images.nearest(made, train, corner)
    assert found.train[2] == 3 and found.distance[2] == 0


def test_features_are_searched_upright_and_as_each_image_matches_best_in_pixels() -> None:
    train, made = blobs(20, 1, 16, 9), blobs(6, 1, 16, 10)
    for row, way in ((1, 0), (2, 6), (4, 3)):
        made[row] = orientation.mirror_then_rotate(train[row : row + 1], way)[0]
    seen = []

    def corner(images: np.ndarray) -> np.ndarray:
        seen.append(len(images))
        return images[:, 0, :8].reshape(len(images), -1).astype(np.float32)

    pixels = nearest_images.pixels
    by_pixels = nearest_images.nearest(made, train, pixels)
    turns = nearest_images.Turns([by_pixels.turn], lambda places: nearest_images.turns_of(train, places, pixels))
    [found] = nearest_images.nearest_of_each([made], train, corner, turns=turns)
    assert (found.train[[1, 2, 4]] == [1, 2, 4]).all() and (found.distance[[1, 2, 4]] == 0).all(), "copies are found"
    assert sum(seen) <= 20 + 2 * (len(made) + len(np.unique(found.train))), "and each is described twice at most"
    apart = cdist(corner(made), corner(train))
    for row, way in enumerate(by_pixels.turn):
        turned = cdist(corner(orientation.mirror_then_rotate(made[row : row + 1], way)), corner(train))[0]
        assert found.distance[row] == pytest.approx(min(apart[row].min(), turned.min()), rel=1e-5)
    [whole] = nearest_images.nearest_of_each([made], train, corner)
    assert (whole.distance <= found.distance + 1e-5).all(), "in all orientations something nearer may be found"


def test_large_images_are_compared_at_a_smaller_size() -> None:
    assert nearest_images.pixels(blobs(2, 2, 128, 11)).shape == (2, 2 * 32 * 32)
    assert nearest_images.pixels(blobs(2, 2, 50, 11)).shape == (2, 2 * 25 * 25)


def test_several_sets_are_searched_as_each_by_itself() -> None:
    train, one, two = blobs(20, 1, 16, 12), blobs(5, 1, 16, 13), blobs(7, 1, 16, 14)
    together = nearest_images.nearest_of_each([one, two], train, nearest_images.pixels)
    for part, found in zip((one, two), together, strict=True):
        alone = nearest_images.nearest(part, train, nearest_images.pixels)
        assert np.array_equal(found.train, alone.train) and np.array_equal(found.turn, alone.turn)
        assert np.array_equal(found.distance, alone.distance) and np.array_equal(found.own, alone.own)


def test_channels_that_are_black_everywhere_add_nothing_to_a_distance_and_may_be_left_out() -> None:
    images = blobs(6, 4, 50, 12)
    images[:, [0, 2]] = 0
    whole, short = nearest_images.pixels(images), nearest_images.pixels(images, [0, 2])
    assert short.shape[1] == whole.shape[1] // 2
    np.testing.assert_allclose(pdist(short), pdist(whole), rtol=1e-6)
    assert nearest_images.pixels(images, [0, 1, 2, 3]).shape == (6, 0)


def test_many_images_are_never_floats_at_once() -> None:
    train = np.random.default_rng(1).integers(0, 256, (1500, 1, 128, 128), dtype=np.uint8)
    made, vectors = train[:1300], 32 * 32 * 4  # bytes of the vector of an image
    # As floats the images alone would take four times their own size.
    assert peak_bytes(lambda: nearest_images.pixels(train)) < vectors * len(train) + 0.8 * train.nbytes

    def coarse(images: np.ndarray) -> np.ndarray:
        return images[:, 0, ::16, ::16].reshape(len(images), -1).astype(np.float32)

    # A block of turned images and one of distances, whatever the number of images.
    block = 1024 * (128 * 128 + 4 * len(train))
    assert peak_bytes(lambda: nearest_images.nearest(made, train, coarse)) < 2.5 * block
