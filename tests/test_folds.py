"""lib.folds: groups stay whole, parts are disjoint, and each gets its share of every class."""

import csv
import gzip
import os
import time
from pathlib import Path

import numpy as np
import pytest

from workflow_scripts.lib import folds
from workflow_scripts.lib.groups import connected

SHARES = {"test": 0.2, "calibration": 0.1, "validation": 0.1, "reserve": 0.0, "lockbox": 0.05}
PREVALENCE = np.array([0.4, 0.3, 0.2, 0.1, 0.05, 0.02, 0.01])


def long_tailed(groups: int, seed: int = 0) -> np.ndarray:
    """Images per group and class (groups, 7): each group has 1 to 5 images and a few classes, the last ones rare."""
    rng = np.random.default_rng(seed)
    kinds = rng.random((groups, len(PREVALENCE))) < PREVALENCE
    return kinds * rng.integers(1, 6, groups)[:, None]


def shares_of(counts: np.ndarray, roles: np.ndarray) -> dict[str, np.ndarray]:
    """The part of each class that each role has."""
    return {role: counts[roles == role].sum(0) / counts.sum(0) for role in folds.ROLES}


@pytest.fixture(scope="module")
def many():
    counts = long_tailed(1500)
    return counts, [folds.roles(counts, 4, SHARES, seed=1, repeat=repeat) for repeat in range(2)]


def test_every_group_has_one_role_and_tests_are_disjoint(many):
    counts, repeats = many
    for roles in repeats:
        assert roles.shape == (len(counts), 4)
        assert set(np.unique(roles.astype(str))) == set(folds.ROLES) - {"reserve"}
        assert (roles == "test").sum(1).max() == 1


def test_tests_cover_everything_when_the_shares_allow_it():
    roles = folds.roles(long_tailed(200), 4, SHARES | {"test": 0.25, "lockbox": 0.0}, seed=1, repeat=0)
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
    other = folds.roles(many[0], 4, SHARES, seed=2, repeat=0) == "lockbox"
    assert (other != locked).any()


def test_same_seed_and_repeat_same_roles(many):
    counts, (first, _) = many
    assert (folds.roles(counts, 4, SHARES, seed=1, repeat=0) == first).all()


def test_shares_are_met_and_every_class_gets_its_part(many):
    counts, repeats = many
    for roles in repeats:
        for fold in range(4):
            found = shares_of(counts, roles[:, fold])
            sizes = {role: counts[roles[:, fold] == role].sum() / counts.sum() for role in folds.ROLES}
            for role, share in SHARES.items():
                assert sizes[role] == pytest.approx(share, abs=0.01)
                np.testing.assert_allclose(found[role][:5], share, atol=0.02)
                # The rarest classes have few groups: a part may be one group too large or too small.
                assert (np.abs(found[role] - share) <= counts.max(0) / counts.sum(0) + 0.01).all()
            assert sizes["train"] == pytest.approx(0.55, abs=0.015)


def test_stratified_is_better_than_random(many):
    counts, (roles, _) = many
    target = np.array([SHARES.get(role, 0.55) for role in folds.ROLES])[:, None]

    def error(assigned: np.ndarray) -> float:
        return np.abs(np.stack(list(shares_of(counts, assigned).values())) - target).mean()

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
    shares = SHARES | {"lockbox": 0.0}
    roles = folds.roles(counts.astype(int), 3, shares, seed, repeat=0)
    for fold in range(3):
        assert folds.missing(counts, roles[:, fold], list("abcdef")) == []


def test_missing_names_class_and_role():
    counts = np.array([[1, 1], [1, 0], [1, 0]])
    roles = np.array(["train", "test", "validation"], dtype=object)
    assert folds.missing(counts, roles, ["a", "b"]) == [("b", "validation"), ("b", "test")]


def test_groups_without_labels_are_spread_too():
    roles = folds.roles(np.zeros((100, 3), dtype=int), 4, SHARES | {"lockbox": 0.0}, seed=1, repeat=0)
    for fold in range(4):
        assert (roles[:, fold] == "test").sum() == 20
        assert (roles[:, fold] == "validation").sum() == pytest.approx(10, abs=1)


def test_thousands_of_groups_take_seconds():
    # 10,000 groups of 3 images each on average: 30,000 rows.
    counts = long_tailed(10_000)
    started = time.monotonic()
    folds.roles(counts, 4, SHARES, seed=1, repeat=0)
    assert time.monotonic() - started < 10


@pytest.mark.parametrize("name", ["kaggle2018_train.csv", "HPAv18.csv.gz"])
def test_real_label_tables(name):
    if "MIXLOC_SHARED_DATA" not in os.environ:
        pytest.skip("MIXLOC_SHARED_DATA is not set")
    path = Path(os.environ["MIXLOC_SHARED_DATA"]) / "labels" / name
    if not path.exists():
        pytest.skip(f"{path} is absent")
    with gzip.open(path, "rt") if path.suffix == ".gz" else path.open() as handle:
        rows = list(csv.DictReader(handle))
    labels = np.zeros((len(rows), 28), dtype=int)
    for number, row in enumerate(rows):
        labels[number, [int(kind) for kind in row["Target"].split()]] = 1
    # Ids of the second table read gene_antibody_plate_well_field; the first knows no proteins.
    parts = [row["Id"].split("_") for row in rows]
    names = connected([[part[0] for part in parts], [part[1] if len(part) > 1 else "" for part in parts]], len(rows))
    _, member = np.unique(names, return_inverse=True)
    counts = np.zeros((member.max() + 1, 28), dtype=int)
    np.add.at(counts, member, labels)
    roles = folds.roles(counts, 2, SHARES, seed=1, repeat=0)
    images = np.bincount(member)
    for fold in range(2):
        assert folds.missing(counts, roles[:, fold], [str(kind) for kind in range(28)]) == []
        for role, share in SHARES.items():
            assert images[roles[:, fold] == role].sum() / len(rows) == pytest.approx(share, abs=0.01)
        common = counts.sum(0) > 500
        np.testing.assert_allclose(shares_of(counts, roles[:, fold])["test"][common], 0.2, atol=0.04)
