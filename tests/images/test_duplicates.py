"""Near-duplicates: planted copies are found however they are turned, and nothing else is."""

from __future__ import annotations

import numpy as np
import pytest

from workflow_scripts.lib.images import copy_test, duplicates, grouping, orientation


def near_duplicates(images: np.ndarray, least: float = 0.85) -> list[tuple[int, int, float]]:
    return copy_test.near_duplicates(duplicates.grid_means(images), least, lambda rows: images[rows])


def pictures(count: int, size: int = 32, channels: int = 3) -> np.ndarray:
    """Images that all have the same bright middle and differ in smooth detail, as cells do."""
    rng = np.random.default_rng(3)
    detail = rng.normal(size=(count, channels, 8, 8)).repeat(size // 8, axis=2).repeat(size // 8, axis=3)
    middle = 90 * np.hanning(size)[:, None] * np.hanning(size)
    noise = rng.normal(scale=4, size=detail.shape)
    return np.clip(60 + middle + 25 * detail + noise, 0, 255).astype(np.uint8)


@pytest.mark.parametrize("turn", range(8))
def test_a_turned_copy_is_found(turn: int) -> None:
    images = pictures(60)
    views = list(orientation.all_orientations(images[7]))
    images[41] = views[turn]
    found = near_duplicates(images)
    assert [(one, other) for one, other, _ in found] == [(7, 41)]
    assert found[0][2] > 0.999


def test_a_copy_made_brighter_and_noisier_is_found_and_a_cell_alike_is_not() -> None:
    images = pictures(60)
    rng = np.random.default_rng(0)
    images[20] = np.clip(images[5] + rng.normal(scale=6, size=images[5].shape), 0, 255).astype(np.uint8)
    # One channel of another cell: two of three channels in common are not the same image.
    images[30] = images[6]
    images[30, 0] = images[9, 0]
    found = {(one, other) for one, other, _ in near_duplicates(images)}
    assert found == {(5, 20)}


def test_copies_are_found_across_the_blocks_that_are_compared_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    images = pictures(60)
    images[41], images[50], images[12] = images[7], images[7, :, ::-1], images[59]
    whole = near_duplicates(images)
    monkeypatch.setattr(duplicates, "BLOCK", 7)
    assert near_duplicates(images[:0]) == []
    assert [(one, other) for one, other, _ in near_duplicates(images)] == [(one, other) for one, other, _ in whole]
    assert [(one, other) for one, other, _ in whole] == [(7, 41), (7, 50), (12, 59), (41, 50)]


def test_hashes_may_leave_no_candidate_and_nothing_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    none = np.zeros(0, dtype=np.int64)
    monkeypatch.setattr(duplicates, "candidates", lambda grids, least: iter([(none, none)]))
    assert copy_test.near_duplicates(np.zeros((2, 1, 8, 8), dtype=np.uint8), 0.85, lambda rows: pytest.fail()) == []


def test_no_candidate_is_lost_by_the_bound() -> None:
    """The pairs are those that trying all orientations of all pairs finds."""
    grids = duplicates.grid_means(yeast(60, 1))
    units = duplicates._units(grids, duplicates._common(grids))
    views = [np.ascontiguousarray(view).reshape(60, -1) for view in orientation.all_orientations(units)]
    best = np.max([units.reshape(60, -1) @ view.T for view in views], axis=0)
    wanted = {(int(i), int(j)) for i, j in np.argwhere(best >= 0.8) if i < j}
    pairs = {(i, j) for rows, columns in duplicates.candidates(grids, 0.8) for i, j in zip(rows, columns, strict=True)}
    assert pairs == wanted and len(wanted) > 20


def yeast(count: int, seed: int, size: int = 32) -> np.ndarray:
    """Small, dim and smooth crops in two channels: a round cell with a bud, and a protein in one of three places."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:size, :size] - size / 2
    out = np.empty((count, 2, size, size), dtype=np.uint8)
    for image in out:
        radius, ratio, turn = size * rng.uniform(0.2, 0.26), rng.uniform(0.8, 1), rng.uniform(0, np.pi)
        u, v = x * np.cos(turn) + y * np.sin(turn), y * np.cos(turn) - x * np.sin(turn)
        away = np.hypot(u / radius, v / radius / ratio)
        body = 1 / (1 + np.exp(6 * (away - 1)))
        size_of_bud = radius * rng.uniform(0.3, 0.6)
        bud = 1 / (1 + np.exp(6 * (np.hypot(u - radius - 0.7 * size_of_bud, v) / size_of_bud - 1)))
        whole = np.maximum(body, bud * (rng.random() < 0.5))
        side = radius * rng.normal(0, 0.2, 2)
        nucleus = np.exp(-((u - side[0]) ** 2 + (v - side[1]) ** 2) / (0.25 * radius**2))
        protein = (whole, nucleus, np.exp(-(((away - 1) / 0.2) ** 2)))[rng.integers(3)]
        image[0] = 12 + rng.uniform(20, 40) * whole + rng.normal(0, 0.8, x.shape)
        image[1] = 6 + rng.uniform(10, 25) * protein + rng.normal(0, 0.8, x.shape)
    return out


def test_small_dim_smooth_crops_are_no_near_duplicates_and_their_copies_are() -> None:
    """At most 1 % of the crops are falsely paired, and 99 % of turned, rescaled, slightly noisy copies are found."""
    rng = np.random.default_rng(2)
    crops = yeast(200, 0)
    sources, copies = rng.permutation(200)[:100], []
    for row in sources:
        turned = orientation.mirror_then_rotate(crops[row], int(rng.integers(8))) * rng.uniform(0.8, 1.2)
        noise = rng.normal(size=turned.shape) * 0.05 * turned.std(axis=(1, 2), keepdims=True)
        copies.append(np.clip(turned + noise, 0, 255).round().astype(np.uint8))
    pairs = {pair[:2] for pair in near_duplicates(np.concatenate([crops, copies]))}
    planted = {(int(row), 200 + place) for place, row in enumerate(sources)}
    assert len(pairs & planted) >= 99
    assert len({row for pair in pairs - planted for row in pair}) <= 3, "1 % of 300"


def test_one_stain_in_common_is_no_copy_and_a_larger_image_is_compared_as_a_smaller_one() -> None:
    images = pictures(40, size=64, channels=4)
    images[30] = images[6]
    images[30, 1] = images[9, 1]
    blocks = images[5].reshape(4, 16, 4, 16, 4).mean(axis=(2, 4)).repeat(4, axis=1).repeat(4, axis=2)
    images[20] = blocks.round().astype(np.uint8)
    assert [pair[:2] for pair in near_duplicates(images)] == [(5, 20)]


def test_images_without_content_are_not_copies_of_each_other() -> None:
    images = pictures(20)
    images[3] = images[4] = 0
    assert near_duplicates(images) == []


def test_pairs_join_groups_through_any_chain() -> None:
    genes = ["a", "a", "b", "c", "c"]
    found = grouping.connected([genes], 5, [(1, 2), (2, 4)])
    assert len(set(found)) == 1
    assert len(set(grouping.connected([genes], 5))) == 3
