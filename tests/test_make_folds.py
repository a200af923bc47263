"""make_folds: the table of roles of a repeat, from an image set."""

import json

import numpy as np
import pandas as pd
import pytest

from workflow_scripts import make_folds as stage_program
from workflow_scripts.lib import fold_table
from workflow_scripts.lib.dataset import write_images
from workflow_scripts.lib.stage import UserError

SHARES = {"test": 0.25, "calibration": 0.15, "validation": 0.15, "reserve": 0.0, "lockbox": 0.0}


@pytest.fixture
def images(tmp_path):
    """120 images of 40 groups, scattered; labels belong to the group, the last class to one group only."""
    member = np.random.default_rng(0).permutation(np.arange(120) % 40)
    labels = np.stack([member % 2 == 0, member % 3 == 0, member == 7], axis=1)
    path = tmp_path / "images.h5"
    with write_images(path, ["green"], ["a", "b", "rare"], 4) as writer:
        ids, groups = [f"{row:03d}" for row in range(120)], [f"g{number}" for number in member]
        writer.append(np.zeros((120, 1, 4, 4)), labels, ids, groups)
    return path


def run(images, repeat: int = 0, folds: int = 3, **shares: float) -> int:
    return stage_program.main(
        ["--images", str(images), "--out", str(images.with_name("folds.csv")), "--repeat", str(repeat), "--seed", "1"]
        + ["--settings", json.dumps({"folds": folds, "shares": SHARES | shares})]
        + ["--log", str(images.with_name("log.txt"))]
    )


def test_roles_go_by_group_and_keep_the_order_of_the_images(images, capsys):
    assert run(images) == 0
    table = pd.read_csv(images.with_name("folds.csv"), dtype=str)
    assert list(table.columns) == ["id", "group", "fold0", "fold1", "fold2"]
    assert list(table["id"]) == [f"{row:03d}" for row in range(120)]
    for fold in ("fold0", "fold1", "fold2"):
        assert (table.groupby("group")[fold].nunique() == 1).all()
        assert set(table[fold]) == {"train", "validation", "calibration", "test"}
        assert (table[fold] == "test").sum() == pytest.approx(30, abs=3)
    assert ((table.filter(like="fold") == "test").sum(axis=1) <= 1).all()
    # A class that no split can put everywhere is told.
    assert "class 'rare' has no image in" in capsys.readouterr().err


def test_repeats_differ_and_runs_do_not(images):
    contents = []
    for repeat in (0, 0, 1):
        assert run(images, repeat) == 0
        contents.append(images.with_name("folds.csv").read_bytes())
    assert contents[0] == contents[1] != contents[2]


def test_reserve_and_lockbox_on_request(images):
    found = []
    for repeat in (0, 1):
        assert run(images, repeat, folds=2, reserve=0.1, lockbox=0.1) == 0
        table = pd.read_csv(images.with_name("folds.csv"), dtype=str)
        found.append(set(table["id"][table["fold0"] == "lockbox"]))
        assert found[-1] == set(table["id"][table["fold1"] == "lockbox"])
        assert (table["fold0"] == "reserve").any()
    assert found[0] == found[1] != set()


def test_too_few_groups(images, capsys):
    assert run(images, folds=40, test=0.02) == 1
    assert "has 40 groups, too few for 40 folds of 4 parts" in capsys.readouterr().err
    assert not images.with_name("folds.csv").exists()


def test_a_table_is_read_only_for_its_own_image_set(world):
    np.testing.assert_array_equal(fold_table.read(world.folds, 1, world.ids), world.roles[:, 1])
    np.testing.assert_array_equal(fold_table.rows(world.folds, 0, world.ids, "test"), world.rows("test"))
    with pytest.raises(UserError, match="no fold 2"):
        fold_table.read(world.folds, 2, world.ids)
    for other in (world.ids[::-1], world.ids[:-1]):
        with pytest.raises(UserError, match="another image set"):
            fold_table.read(world.folds, 0, other)


def test_without_a_calibration_part_thresholds_come_from_validation(world):
    roles = np.where(world.roles == "calibration", "train", world.roles)
    fold_table.write(world.folds, world.ids, world.groups, roles)
    np.testing.assert_array_equal(
        fold_table.rows(world.folds, 0, world.ids, "calibration"), np.flatnonzero(roles[:, 0] == "validation")
    )
