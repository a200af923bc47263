"""Near-duplicates: planted copies are found however they are turned, and nothing else is."""

from __future__ import annotations

import numpy as np
import pytest

from workflow_scripts.lib.images import duplicates, grouping, orientation


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
    found = duplicates.near_duplicates(duplicates.grid_means(images), 0.95)
    assert [(one, other) for one, other, _ in found] == [(7, 41)]
    assert found[0][2] > 0.999


def test_a_copy_made_brighter_and_noisier_is_found_and_a_cell_alike_is_not() -> None:
    images = pictures(60)
    rng = np.random.default_rng(0)
    images[20] = np.clip(images[5] + rng.normal(scale=6, size=images[5].shape), 0, 255).astype(np.uint8)
    # One channel of another cell: two of three channels in common are not the same image.
    images[30] = images[6]
    images[30, 0] = images[9, 0]
    found = {(one, other) for one, other, _ in duplicates.near_duplicates(duplicates.grid_means(images), 0.95)}
    assert found == {(5, 20)}


def test_copies_are_found_across_the_blocks_that_are_compared_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    images = pictures(60)
    images[41], images[50], images[12] = images[7], images[7, :, ::-1], images[59]
    grids = duplicates.grid_means(images)
    whole = duplicates.near_duplicates(grids, 0.95)
    monkeypatch.setattr(duplicates, "BLOCK", 7)
    assert duplicates.near_duplicates(grids[:0], 0.95) == []
    assert [(one, other) for one, other, _ in duplicates.near_duplicates(grids, 0.95)] == [
        (one, other) for one, other, _ in whole
    ]
    assert [(one, other) for one, other, _ in whole] == [(7, 41), (7, 50), (12, 59), (41, 50)]


def test_images_without_content_are_not_copies_of_each_other() -> None:
    images = pictures(20)
    images[3] = images[4] = 0
    assert duplicates.near_duplicates(duplicates.grid_means(images), 0.95) == []


def test_pairs_join_groups_through_any_chain() -> None:
    genes = ["a", "a", "b", "c", "c"]
    found = grouping.connected([genes], 5, [(1, 2), (2, 4)])
    assert len(set(found)) == 1
    assert len(set(grouping.connected([genes], 5))) == 3
