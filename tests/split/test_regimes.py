"""Label regimes: the order in which groups get labels, and the roles that follow from it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from workflow_scripts.lib.base.errors import UserError
from workflow_scripts.lib.split import role_table
from workflow_scripts.lib.split.label_order import label_order, label_ranks
from workflow_scripts.lib.split.regimes import WHOLE, Regime, regime_of, roles_under
from workflow_scripts.lib.split.roles import Role


def test_classes_are_covered_first_and_kept_in_proportion() -> None:
    # Eight groups of a, two of b, one of c alone, and one of b and c.
    counts = np.array([[1, 0, 0]] * 8 + [[0, 1, 0]] * 2 + [[0, 0, 1]] + [[0, 1, 1]])
    order = label_order(counts, 1)
    assert sorted(order) == list(range(12))
    assert order[0] == 11, "the group with most classes that have none"
    assert order[1] < 8, "then the class that is left"
    # Two thirds of the groups have a, whatever the length of the beginning.
    for length in range(3, 13):
        assert np.count_nonzero(order[:length] < 8) == pytest.approx(8 * length / 12, abs=1)


def test_a_rare_class_keeps_a_group_as_long_as_any_order_allows() -> None:
    rng = np.random.default_rng(3)
    counts = (rng.random((60, 6)) < [0.6, 0.4, 0.3, 0.1, 0.05, 0.05]).astype(int)
    counts[0, 4] = counts[1, 5] = 1
    order = label_order(counts, 7)
    assert counts[order[:6]].any(axis=0).all(), "six groups suffice for six classes"
    assert np.array_equal(order, label_order(counts, 7)) and not np.array_equal(order, label_order(counts, 8))
    had = np.cumsum(counts[order] > 0, axis=0)
    wanted = (counts > 0).sum(axis=0) * np.arange(1, 61)[:, None] / 60
    assert np.abs(had - wanted)[20:].max() < 2, "longer beginnings are stratified"


def world(folder: Path) -> tuple[Path, np.ndarray, np.ndarray]:
    """A table of one fold: 40 groups of two images each; ten of every role."""
    member = np.repeat(np.arange(40), 2)
    cycle = np.array([Role.TRAIN, Role.VALIDATION, Role.CALIBRATION, Role.TEST], dtype=object)
    roles = cycle[member % 4]
    labels = np.stack([member % 3 == 0, member % 5 == 0], axis=1).astype(np.uint8)
    ids = np.array([f"i{row}" for row in range(80)], dtype=object)
    ranks = label_ranks(labels, member, roles, 5)
    path = folder / "folds.csv"
    role_table.write(path, ids, np.array([f"g{number}" for number in member]), roles[:, None], ranks[:, None])
    return path, ids, member


def test_regimes_are_nested_and_label_as_many_groups_as_they_say(tmp_path: Path) -> None:
    path, ids, member = world(tmp_path)
    before: set[int] = set()
    for count in range(1, 11):
        regime = Regime("few", count / 10, "seen")
        for role in (Role.TRAIN, Role.VALIDATION, Role.CALIBRATION):
            rows = role_table.rows(path, 0, ids, role, regime)
            assert len(set(member[rows])) == count and len(rows) == 2 * count, "whole groups"
        labelled = set(role_table.rows(path, 0, ids, Role.TRAIN, regime))
        assert before < labelled
        before = labelled
        hidden = role_table.rows(path, 0, ids, Role.UNLABELLED, regime)
        assert len(hidden) == 20 - 2 * count and labelled.isdisjoint(hidden)
        assert len(role_table.rows(path, 0, ids, Role.TEST, regime)) == 20, "tests are the same"
    assert np.array_equal(role_table.read(path, 0, ids), role_table.read(path, 0, ids, regime))
    assert role_table.count_folds(path) == 1


def test_what_is_not_labelled_is_unused_unless_it_may_be_seen(tmp_path: Path) -> None:
    path, ids, _ = world(tmp_path)
    unused = role_table.read(path, 0, ids, Regime("few", 0.3))
    counts = {str(role): int((unused == role).sum()) for role in set(unused)}
    assert counts == {"train": 6, "validation": 6, "calibration": 6, "test": 20, "unused": 42}
    full = role_table.read(path, 0, ids, Regime("few", 0.3, "seen", "full"))
    counts = {str(role): int((full == role).sum()) for role in set(full)}
    assert counts == {"train": 6, "validation": 20, "calibration": 20, "test": 20, "unlabelled": 14}


def test_images_kept_aside_follow_their_group() -> None:
    roles = np.array([Role.TRAIN, Role.RESERVE_SAME, Role.TRAIN, Role.RESERVE_SAME, Role.RESERVE], dtype=object)
    member, labels = np.array([0, 0, 1, 1, 2]), np.ones((5, 1), dtype=np.uint8)
    rank = label_ranks(labels, member, roles, 1)
    assert rank[0] == rank[1] and rank[2] == rank[3] and np.isnan(rank[4])
    found = roles_under(Regime("half", 0.5, "seen"), roles, rank)
    first = int(rank[0] > 0.5)
    halves = [found[:2].tolist(), found[2:4].tolist()]
    assert halves[first] == ["train", "reserve_same"] and halves[1 - first] == ["unlabelled", "unused"]
    assert found[4] == Role.RESERVE, "ceilings are those of everybody"


def test_a_table_without_ranks_has_no_regimes(tmp_path: Path) -> None:
    ids = np.array(["a", "b"], dtype=object)
    role_table.write(tmp_path / "folds.csv", ids, ids, np.array([["train"], ["test"]], dtype=object))
    assert "rank" not in (tmp_path / "folds.csv").read_text(encoding="utf-8")
    with pytest.raises(UserError, match="ranks no groups of fold 0"):
        role_table.read(tmp_path / "folds.csv", 0, ids, Regime("few", 0.5))


def test_settings_without_a_regime_have_all_labels() -> None:
    assert regime_of({"name": "pool"}) is WHOLE and WHOLE.whole
    few = Regime("few", 0.25, "seen", "full")
    assert regime_of({"regime": few.settings()}) == few and not few.whole
    assert (few.record_name, Regime("everything").record_name) == ("few", "all")


def test_further_images_are_unlabelled_in_regimes_that_see_and_unused_in_the_others() -> None:
    roles = np.array([Role.TRAIN, Role.TRAIN, Role.UNLABELLED, Role.TEST], dtype=object)
    rank = np.array([0.5, 1.0, np.nan, np.nan])
    shown, alone = [Role.UNLABELLED], [Role.UNUSED]
    assert roles_under(WHOLE, roles, rank).tolist() == [Role.TRAIN] * 2 + alone + [Role.TEST]
    everything = Regime("more", 1, "seen")
    assert not everything.whole and everything.record_name == "more"
    assert roles_under(everything, roles, rank).tolist() == roles.tolist()
    assert roles_under(Regime("few", 0.5, "seen"), roles, rank).tolist() == [Role.TRAIN, *shown, *shown, Role.TEST]
    assert roles_under(Regime("few", 0.5), roles, rank).tolist() == [Role.TRAIN, *alone, *alone, Role.TEST]
