"""lib.split.assignment: groups stay whole, parts are disjoint, and each gets its fraction of every class."""

import time

import numpy as np
import pytest

from workflow_scripts.lib.split import assignment
from workflow_scripts.lib.split.roles import ROLES, Role

FRACTIONS = {"test": 0.2, "calibration": 0.1, "validation": 0.1, "reserve": 0.0, "lockbox": 0.05}
# Those of whole groups; reserve_same takes images out of train groups.
PLAYED = tuple(role for role in ROLES if role not in (Role.UNUSED, Role.RESERVE_SAME))
PREVALENCE = np.array([0.4, 0.3, 0.2, 0.1, 0.05, 0.02, 0.01])


def long_tailed(groups: int, seed: int = 0) -> np.ndarray:
    """Images per group and class (groups, 7): each group has 1 to 5 images and a few classes, the last ones rare."""
    rng = np.random.default_rng(seed)
    kinds = rng.random((groups, len(PREVALENCE))) < PREVALENCE
    return kinds * rng.integers(1, 6, groups)[:, None]


def sizes_of(counts: np.ndarray) -> np.ndarray:
    """Images per group: all images of a group have the same classes here, and some groups have none."""
    return np.maximum(counts.max(1), 1)


def fractions_of(counts: np.ndarray, roles: np.ndarray) -> dict[str, np.ndarray]:
    """The part of each class that each role has."""
    return {role: counts[roles == role].sum(0) / counts.sum(0) for role in PLAYED}


@pytest.fixture(scope="module")
def many():
    counts = long_tailed(1500)
    return counts, [
        assignment.roles(counts, sizes_of(counts), 4, FRACTIONS, seed=1, repeat=repeat) for repeat in range(2)
    ]


def test_every_group_has_one_role_and_tests_are_disjoint(many):
    counts, repeats = many
    for roles in repeats:
        assert roles.shape == (len(counts), 4)
        assert set(np.unique(roles.astype(str))) == set(PLAYED) - {"reserve"}
        assert (roles == "test").sum(1).max() == 1


def test_tests_cover_everything_when_the_shares_allow_it():
    roles = assignment.roles(
        long_tailed(200), np.ones(200), 4, FRACTIONS | {"test": 0.25, "lockbox": 0.0}, seed=1, repeat=0
    )
    assert ((roles == "test").sum(1) == 1).all()


def test_the_lockbox_is_the_same_in_all_folds_and_repeats(many):
    _, (first, second) = many
    locked = first == "lockbox"
    assert locked.any()
    assert (locked == locked[:, :1]).all()
    assert (locked == (second == "lockbox")).all()
    # Everything else is drawn anew.
    for role in ("test", "validation", "calibration"):
        assert ((first == role) != (second == role)).any(1).mean() > 0.1
    other = assignment.roles(many[0], sizes_of(many[0]), 4, FRACTIONS, seed=2, repeat=0) == "lockbox"
    assert (other != locked).any()


def test_same_seed_and_repeat_same_roles(many):
    counts, (first, _) = many
    assert (assignment.roles(counts, sizes_of(counts), 4, FRACTIONS, seed=1, repeat=0) == first).all()


def test_shares_are_met_and_every_class_gets_its_part(many):
    counts, repeats = many
    for roles in repeats:
        for fold in range(4):
            found = fractions_of(counts, roles[:, fold])
            sizes = {role: counts[roles[:, fold] == role].sum() / counts.sum() for role in PLAYED}
            for role, fraction in FRACTIONS.items():
                assert sizes[role] == pytest.approx(fraction, abs=0.01)
                np.testing.assert_allclose(found[role][:5], fraction, atol=0.02)
                # The rarest classes have few groups: a part may be one group too large or too small.
                assert (np.abs(found[role] - fraction) <= counts.max(0) / counts.sum(0) + 0.01).all()
            assert sizes["train"] == pytest.approx(0.55, abs=0.015)


def test_stratified_is_better_than_random(many):
    counts, (roles, _) = many
    target = np.array([FRACTIONS.get(role, 0.55) for role in PLAYED])[:, None]

    def error(assigned: np.ndarray) -> float:
        return np.abs(np.stack(list(fractions_of(counts, assigned).values())) - target).mean()

    rng = np.random.default_rng(0)
    by_chance = [error(rng.permutation(roles[:, 0])) for _ in range(20)]
    assert error(roles[:, 0]) < min(by_chance) / 3


@pytest.mark.parametrize("seed", range(10))
def test_every_class_with_enough_groups_is_in_every_role(seed):
    # The rarest classes have as many groups as a fold has roles and tests, and stand beside common ones.
    rng = np.random.default_rng(seed)
    counts = rng.random((60, 6)) < [0.6, 0.5, 0.4, 0.0, 0.0, 0.0]
    for kind in (3, 4, 5):
        counts[rng.choice(60, 8, replace=False), kind] = True
    fractions = FRACTIONS | {"lockbox": 0.0}
    roles = assignment.roles(counts.astype(int), np.ones(60), 3, fractions, seed, repeat=0)
    for fold in range(3):
        assert assignment.missing(counts, roles[:, fold], list("abcdef")) == []


def test_missing_names_class_and_role():
    counts = np.array([[1, 1], [1, 0], [1, 0]])
    roles = np.array(["train", "test", "validation"], dtype=object)
    assert assignment.missing(counts, roles, ["a", "b"]) == [("b", "validation"), ("b", "test")]


def test_groups_without_labels_are_spread_too():
    roles = assignment.roles(
        np.zeros((100, 3), dtype=int), np.ones(100), 4, FRACTIONS | {"lockbox": 0.0}, seed=1, repeat=0
    )
    for fold in range(4):
        assert (roles[:, fold] == "test").sum() == 20
        assert (roles[:, fold] == "validation").sum() == pytest.approx(10, abs=1)


def test_thousands_of_groups_take_seconds():
    # 10,000 groups of 3 images each on average: 30,000 rows.
    counts = long_tailed(10_000)
    started = time.process_time()
    assignment.roles(counts, sizes_of(counts), 4, FRACTIONS, seed=1, repeat=0)
    assert time.process_time() - started < 10


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(("count", "test"), [(2, 0.25), (3, 0.3), (4, 0.25), (5, 0.2)])
def test_rare_classes_beside_each_other_reach_every_role(seed, count, test):
    # Eight classes with as few groups as can do, in a pool so small that they stand on each other's groups.
    fractions = FRACTIONS | {"test": test, "lockbox": 0.0}
    few = assignment.fewest_groups(count, fractions)
    rng = np.random.default_rng(seed)
    counts = np.zeros((40, 8), dtype=int)
    for kind in range(8):
        counts[rng.choice(40, few, replace=False), kind] = rng.integers(1, 9, few)
    roles = assignment.roles(counts, counts.sum(1) + 1, count, fractions, seed, repeat=0)
    for fold in range(count):
        assert assignment.missing(counts, roles[:, fold], list("abcdefgh")) == []


def test_fewest_groups_by_hand():
    fractions = {"test": 0.25, "calibration": 0.1, "validation": 0.1, "reserve": 0.0, "lockbox": 0.0}
    assert assignment.fewest_groups(1, fractions) == 4  # test, calibration, validation, train
    assert assignment.fewest_groups(2, fractions) == 4
    assert assignment.fewest_groups(4, fractions) == 4
    # Every group is tested in one of two folds: half of six leaves one for each of the other roles.
    assert assignment.fewest_groups(2, fractions | {"test": 0.5}) == 6
    assert assignment.fewest_groups(2, fractions | {"lockbox": 0.1, "reserve": 0.1}) == 6


def test_sizes_are_images_not_labels():
    # Groups of the first kind have many labels an image, those of the second one.
    counts = np.zeros((200, 3), dtype=int)
    counts[:100] = 4
    counts[100:, 0] = 4
    roles = assignment.roles(counts, np.full(200, 4), 4, FRACTIONS | {"lockbox": 0.0}, seed=1, repeat=0)
    for fold in range(4):
        assert (roles[:, fold] == "test").sum() == 40
        assert (roles[:100, fold] == "test").sum() == 20


@pytest.fixture(scope="module")
def lines():
    """600 images of 150 groups; a group has images of one or two of five cell lines, one image has none."""
    rng = np.random.default_rng(1)
    member = np.repeat(np.arange(150), 4)
    values = np.array([f"line {k}" for k in "abcde"], dtype=object)[
        (member + (np.arange(600) % 2) * (member % 3 == 0)) % 5
    ]
    values[7] = ""
    labels = (rng.random((150, 3)) < [0.6, 0.4, 0.2])[member].astype(int)
    return labels, member, values


def test_leaving_out_a_value_keeps_its_relatives_away(lines):
    labels, member, values = lines
    fractions = FRACTIONS | {"reserve": 0.1}
    held = assignment.held_out_values(values, 5, 0)
    assert sorted(held) == [f"line {k}" for k in "abcde"]
    roles = assignment.roles_leaving_out(labels, member, values, held, fractions, seed=1, repeat=0)
    for fold, value in enumerate(held):
        own = roles[:, fold]
        locked = own == "lockbox"
        assert (own[(values == value) & ~locked] == "test").all()
        assert (values[own == "test"] == value).all()
        relatives = np.isin(member, member[own == "test"]) & (own != "test")
        assert relatives.any() and (own[relatives] == "unused").all()
        assert own[7] in ("unused", "lockbox")
        # Apart from unused images a group has one role, and whoever learns knows neither the value nor the groups.
        for group in range(150):
            assert len(set(own[member == group]) - {"unused"}) <= 1
        free = ~np.isin(own, ["test", "unused", "lockbox"])
        assert set(own[free]) == {"train", "validation", "calibration", "reserve"}
        for role in ("validation", "calibration", "reserve"):
            assert (own == role).sum() / free.sum() == pytest.approx(0.1 / 0.75, abs=0.02)
        assert assignment.missing(labels, own, list("abc")) == []
    assert (roles == "lockbox").any() and ((roles == "lockbox").sum(1) % 5 == 0).all()


def test_some_groups_of_the_value_may_be_shown_without_labels_and_are_not_tested(lines):
    labels, member, values = lines
    whole, some = (
        assignment.roles_leaving_out(labels, member, values, ["line a"], FRACTIONS, seed=1, repeat=0, shown=shown)[:, 0]
        for shown in (0, 0.4)
    )
    tested, shown = whole == "test", some == "unlabelled"
    assert shown.any() and (values[shown] == "line a").all()
    assert ((some == "test") | shown == tested).all(), "what is not tested is shown, and nothing else changes"
    assert np.array_equal(some[~tested], whole[~tested])
    groups = [set(member[rows]) for rows in (shown, some == "test")]
    assert not groups[0] & groups[1]
    assert len(groups[0]) == round(0.4 * len(groups[0] | groups[1]))
    for group in groups[0]:
        assert set(some[member == group]) <= {"unlabelled", "unused"}, "its other images are read by nobody"
    with pytest.raises(ValueError, match="leaves none of them to test"):
        assignment.roles_leaving_out(labels, member, values, ["line a"], FRACTIONS, 1, 0, shown=0.999)


def test_repeats_leave_out_one_value_after_another():
    values = np.array(["c"] * 5 + ["a"] * 3 + ["b"] * 3 + [""] * 9, dtype=object)
    assert [assignment.held_out_values(values, 2, repeat) for repeat in range(3)] == [
        ["c", "a"],
        ["b", "c"],
        ["a", "b"],
    ]
    assert assignment.held_out_values(values, 4, 0) == []
    assert assignment.held_out_values(np.array(["x", "x", ""], dtype=object), 1, 0) == []


def test_leaving_out_what_all_groups_have_is_refused():
    member = np.repeat(np.arange(10), 2)
    values = np.array(["a", "b"] * 10, dtype=object)
    with pytest.raises(ValueError, match="leaving out 'a' leaves 0 groups"):
        assignment.roles_leaving_out(np.ones((20, 1), dtype=int), member, values, ["a"], FRACTIONS, 1, 0)


def test_smaller_shares_of_groups_lie_within_larger_ones_and_keep_the_classes() -> None:
    rng = np.random.default_rng(2)
    sizes = rng.integers(1, 9, 160)
    counts = (rng.random((160, 4)) < [0.5, 0.3, 0.15, 0.1]) * sizes[:, None]
    chosen = {fraction: assignment.nested(counts, sizes, fraction, 7) for fraction in (0.1, 0.125, 0.25, 0.5, 0.7, 1)}
    for (less, small), (more, large) in zip(list(chosen.items())[:-1], list(chosen.items())[1:], strict=True):
        assert (small <= large).all() and less < more
        assert small.sum() == round(less * 160)
    assert chosen[1].all()
    for fraction in (0.25, 0.5):
        part = counts[chosen[fraction]].sum(axis=0) / counts.sum(axis=0)
        assert np.allclose(part, fraction, atol=0.12), "every class has its fraction"
    assert (assignment.nested(counts, sizes, 0.5, 8) != chosen[0.5]).any()
