"""The data-copying test C_T against values computed by hand and constructed sets."""

from __future__ import annotations

import numpy as np
import pytest

from workflow_scripts.lib.fidelity import data_copying
from workflow_scripts.lib.fidelity.data_copying import Apart
from workflow_scripts.lib.fidelity.distances import Estimate
from workflow_scripts.lib.images import nearest_images


def apart(distance: np.ndarray, cell: int | np.ndarray = 0, groups: np.ndarray | None = None) -> Apart:
    distance = np.asarray(distance, dtype=float)
    count = len(distance)
    return Apart(distance, np.broadcast_to(cell, count).copy(), np.arange(count) if groups is None else groups)


def joined(*parts: Apart) -> Apart:
    distance, cell = (np.concatenate([getattr(part, name) for part in parts]) for name in ("distance", "cell"))
    return apart(distance, cell)


def statistic(made: Apart, held_out: Apart) -> Estimate:
    return data_copying.estimate(made, held_out, np.random.default_rng(0), 20, 0.95)


def test_pairs_are_counted_and_ties_are_half() -> None:
    assert data_copying.farther(np.array([1.0, 3.0]), np.array([2.0, 2.0, 3.0])) == pytest.approx(2.5 / 6)
    assert data_copying.farther(np.zeros(3), np.zeros(4)) == 0.5


def test_of_one_cell_it_is_the_z_of_mann_whitney() -> None:
    # 12 copies, 10 held-out images: U = 0, its mean 60, its variance 12 * 10 * 23 / 12.
    copies, held_out = apart(np.zeros(12)), apart(np.arange(1, 11))
    z = 60 / np.sqrt(230)
    found = statistic(copies, held_out)
    assert found.value == pytest.approx(-z)
    assert (found.low, found.high) == pytest.approx((-z, -z)), "all pairs of all halves agree"
    assert statistic(apart(np.full(12, 99)), held_out).value == pytest.approx(z)


def test_cells_are_averaged_by_their_held_out_images_and_small_ones_left_out() -> None:
    near, far = np.zeros(20), np.full(20, 9.0)
    # In cell 0 copies, in cell 1 far images; in cell 2 too few images to count, all copies.
    made = joined(apart(near, 0), apart(far, 1), apart(near[:19], 2))
    held_out = joined(apart(np.ones(20), 0), apart(np.ones(40), 1), apart(np.ones(40), 2))
    copied, distant = -200 / np.sqrt(400 * 41 / 12), 400 / np.sqrt(800 * 61 / 12)
    assert statistic(made, held_out).value == pytest.approx((20 * copied + 40 * distant) / 60)


def test_where_all_cells_are_small_the_whole_is_one_cell() -> None:
    made, held_out = apart(np.zeros(30), np.arange(30) % 3), apart(np.ones(30), np.arange(30) % 3)
    assert statistic(made, held_out).value == pytest.approx(-450 / np.sqrt(900 * 61 / 12))
    assert np.isnan(statistic(apart(np.zeros(5)), held_out).value), "too few to say anything"


def test_images_of_one_group_have_no_interval() -> None:
    found = statistic(apart(np.zeros(12), groups=np.zeros(12)), apart(np.ones(12)))
    assert np.isfinite(found.value) and np.isnan(found.low) and np.isnan(found.high)


def test_cells_are_clusters_of_the_train_images() -> None:
    rng = np.random.default_rng(1)
    train = rng.standard_normal((60, 3)).astype(np.float32) + 50 * np.repeat(np.eye(3), 20, axis=0)
    found = [len(np.unique(data_copying.cells(train, 150, np.random.default_rng(seed)))) for seed in range(3)]
    assert set(found) <= {2, 3}
    cell = data_copying.cells(train, 150, np.random.default_rng(0))
    assert all(len(np.unique(cell[start : start + 20])) <= 2 for start in (0, 20, 40))
    assert (data_copying.cells(train, 99, rng) == 0).all(), "of fewer than two times 50 held-out images, one cell"
    assert (data_copying.cells(np.ones((5, 2), dtype=np.float32), 500, rng) < 5).all(), "equal images do no harm"


@pytest.fixture
def sets() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(2)
    centres = 4 * rng.standard_normal((4, 6))
    parts = {"train": 600, "held_out": 250, "fresh": 400}
    made = {name: centres[rng.integers(0, 4, count)] + rng.standard_normal((count, 6)) for name, count in parts.items()}
    made["copies"] = made["train"][:400] + 0.01 * rng.standard_normal((400, 6))
    made["distant"] = made["fresh"] + 3 * rng.standard_normal((400, 6))
    return {name: values.astype(np.float32) for name, values in made.items()}


def test_copies_are_negative_real_images_near_zero_and_distant_ones_positive(sets: dict[str, np.ndarray]) -> None:
    cell = data_copying.cells(sets["train"], 250, np.random.default_rng(0))

    def placed(name: str) -> Apart:
        place, distance = nearest_images.as_they_are(sets[name], sets["train"])
        return apart(distance, cell[place])

    held_out = placed("held_out")
    found = {name: statistic(placed(name), held_out) for name in ("fresh", "copies", "distant")}
    assert found["fresh"].low < 0 < found["fresh"].high and abs(found["fresh"].value) < 2
    assert found["copies"].high < -5
    assert found["distant"].low > 5
    floor = data_copying.floor(held_out, np.random.default_rng(0), 20, 0.95)
    assert floor.low < 0 < floor.high


def test_intervals_hold_zero_as_often_as_they_say() -> None:
    held = 0
    for seed in range(100):
        rng = np.random.default_rng(seed)
        # Distances of a group are alike: intervals over images would be too short.
        parts = [np.repeat(rng.random(count), 5) + 0.1 * rng.random(5 * count) for count in (60, 50)]
        made, held_out = (
            apart(values, np.arange(len(values)) % 5, np.arange(len(values)) // 5) for values in parts
        )  # fmt: skip
        found = data_copying.estimate(made, held_out, rng, 40, 0.9)
        held += found.low <= 0 <= found.high
    assert 0.8 <= held / 100 <= 0.98
