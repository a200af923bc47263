"""sample_simulator: images of the simulator's own as a synthetic set, asked for by the labels of the train part."""

from __future__ import annotations

import json

import numpy as np
import pytest

from tests.helpers.configs import DEFAULT
from workflow_scripts import sample_simulator
from workflow_scripts.lib.images.image_set import ImageSet
from workflow_scripts.lib.images.image_set_writer import write_images
from workflow_scripts.lib.simulate import simulator
from workflow_scripts.lib.split import role_table


@pytest.fixture(scope="module")
def small_run(tmp_path_factory):
    """A little simulated image set with its folds."""
    folder = tmp_path_factory.mktemp("simulated")
    given = DEFAULT["simulate_cells"] | {"size": 16, "images": 60, "genes": 20}
    batches = list(simulator.simulate(given, 1))
    classes = list(simulator.COMPARTMENTS)
    with write_images(folder / "images.h5", ["red", "green"], classes, 16) as writer:
        for batch in batches:
            writer.append(batch.images[:, :2], batch.labels, list(batch.ids), list(batch.genes))
    with ImageSet(folder / "images.h5") as source:
        roles = np.where(np.isin(source.groups, np.unique(source.groups)[::2]), "train", "test").astype(object)
        role_table.write(folder / "folds.csv", source.ids, source.groups, roles[:, None])
    return folder, given


def sample(folder, given, out, images="images.h5", **synthetic_set) -> int:
    synthetic_set = {"name": "true_cells", "generator": "simulator", "labels": "as_train", "count": 30} | synthetic_set
    line = ["--images", str(folder / images), "--folds", str(folder / "folds.csv"), "--repeat", "0", "--fold", "0"]
    line += [
        "--seed",
        "1",
        "--out",
        str(out),
        "--settings",
        json.dumps({"synthetic_set": synthetic_set, "simulate_cells": given}),
    ]
    return sample_simulator.main([*line, "--log", str(folder / "log")])


def test_a_set_of_the_simulator_is_a_synthetic_set(small_run, tmp_path) -> None:
    folder, given = small_run
    assert sample(folder, given, tmp_path / "one.h5") == sample(folder, given, tmp_path / "two.h5") == 0
    assert sample(folder, given, tmp_path / "other.h5", name="more_cells") == 0
    read = {}
    for name in ("one", "two", "other"):
        with ImageSet(tmp_path / f"{name}.h5") as made, ImageSet(folder / "images.h5") as real:
            read[name] = made.read(None, "inspect")
            assert (made.channels, made.classes, made.size) == (real.channels, real.classes, 16)
            train = role_table.rows(folder / "folds.csv", 0, real.ids, "train")
            assert np.array_equal(made.inherited().of("fit"), train)
            known, pictures = real.labels(train, "inspect"), real.read(None, "inspect").images
    assert len(read["one"]) == 30 and np.array_equal(read["one"].images, read["two"].images)
    assert not np.array_equal(read["one"].images, read["other"].images)
    codes = {tuple(row) for row in known}
    assert {tuple(row) for row in read["one"].labels} <= codes
    same = (read["one"].images[:, None] == pictures[None]).all(axis=(2, 3, 4))
    assert not same.any(), "none of them is an image of the run"


def test_what_the_simulator_cannot_draw_is_told(small_run, tmp_path, capsys) -> None:
    folder, given = small_run
    assert sample(folder, given, tmp_path / "x.h5", sampler="ddim") == 1
    assert "generator simulator has no use for sampler" in capsys.readouterr().err
    with write_images(tmp_path / "other.h5", ["red"], ["a"], 16) as writer:
        writer.append(np.zeros((1, 1, 16, 16)), np.ones((1, 1)), ["i"], ["g"])
    assert sample(folder, given, tmp_path / "x.h5", images=tmp_path / "other.h5") == 1
    assert "other classes than the simulator draws" in capsys.readouterr().err
    assert not (tmp_path / "x.h5").exists()
