"""Further images that came without labels: their list, and near-duplicates of labelled images among them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from workflow_scripts.lib.images import further_images
from workflow_scripts.lib.images.image_list import Listed
from workflow_scripts.lib.images.known_datasets import COLUMNS

DATA = {"columns": COLUMNS, "columns_given": []}


def test_a_label_that_the_table_of_further_images_has_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "more.csv").write_text("Id,Target,gene\nx,0,G1\n../y,1,G2\nz,1,G3\nz,1,G4\n")
    found = further_images.from_table(tmp_path / "more.csv", DATA, ["Nucleus", "Cytosol"])
    assert found.ids == ["x"] and not found.labels.any()
    assert found.columns == {"gene": ["G1"]}, "the labels are no column either"
    assert sorted(entry.kind for entry in found.bad) == ["Id that is no file name", "conflicting rows"]


def test_further_images_follow_the_labelled_ones_and_give_way_to_them() -> None:
    labelled = Listed(["a", "b"], np.ones((2, 1), dtype=np.uint8), ["K"], {"gene": ["G1", "G2"]})
    further = Listed(["b", "c"], np.zeros((2, 1), dtype=np.uint8), ["K"], {"well": ["w1", "w2"]})
    further_images.leave_out_labelled(labelled, further)
    further_images.append(labelled, further)
    assert labelled.ids == ["a", "b", "c"] and labelled.labels.ravel().tolist() == [1, 1, 0]
    assert labelled.columns == {"gene": ["G1", "G2", ""], "well": ["", "", "w2"], "labelled": ["1", "1", "0"]}
    assert [(entry.id, entry.kind) for entry in labelled.dropped] == [("b", "labelled already")]


@pytest.fixture
def grids() -> np.ndarray:
    return np.random.default_rng(5).integers(0, 256, (6, 2, 8, 8)).astype(np.uint8)


def test_copies_of_labelled_images_are_found_also_through_others(grids: np.ndarray) -> None:
    def mixed(one: np.ndarray, other: np.ndarray, part: float) -> np.ndarray:
        return np.round(part * one + (1 - part) * other.astype(float)).astype(np.uint8)

    near = mixed(grids[0], grids[5], 0.93)
    through = mixed(grids[0], grids[5], 0.85)
    further = np.stack([np.rot90(near, axes=(1, 2)), grids[3], through, grids[4], np.rot90(grids[4], axes=(1, 2))])
    every = np.concatenate([grids[:3], further])
    alone, _ = further_images.like_labelled(grids[:3], further[[2]], 0.99, lambda places: every[[0, 1, 2, 5]][places])
    assert not alone.any(), "by itself it is not alike enough"
    close, pairs = further_images.like_labelled(grids[:3], further, 0.99, lambda places: every[places])
    assert close.tolist() == [True, False, True, False, False]
    assert pairs == [(1, 2)], "the two that are left and alike, by their places among those that are left"


def test_without_a_limit_none_is_looked_for(grids: np.ndarray) -> None:
    close, pairs = further_images.like_labelled(grids, grids, 0, lambda places: grids[places])
    assert not close.any() and not pairs
