"""train_judge: the judge speaks of the classes that the images of the run have."""

import sys

import pytest

from tests.helpers.configs import DEFAULT
from workflow_scripts import train_judge
from workflow_scripts.lib.images import label_maps
from workflow_scripts.lib.simulate import simulator

CELLS = DEFAULT["simulate_cells"]
DATA = {"label_map": None, "unmapped": "refuse", "emptied": "keep"}


def test_fresh_cells_have_the_classes_of_the_label_map():
    settings = {"simulate_cells": CELLS | {"genes": 30}, "data": DATA, "channels": list(simulator.CHANNELS)}
    plain, classes = train_judge._simulate(settings, 1, train_judge.FIT, 24)
    assert classes == list(simulator.COMPARTMENTS)
    merged, coarse = train_judge._simulate(settings | {"data": DATA | {"label_map": "coarse"}}, 1, train_judge.FIT, 24)
    assert coarse == list(label_maps.COARSE)
    assert (merged.pixels == plain.pixels).all()
    nuclear = [classes.index(name) for name in ("Nucleoplasm", "Nuclear membrane", "Nucleoli", "Nuclear bodies")]
    assert (merged.labels[:, 0] == plain.labels[:, nuclear].max(axis=1)).all()


def test_a_judge_is_not_resumed_in_another_number_format(tmp_path, monkeypatch):
    """Killed and resumed equals undisturbed: a checkpoint of the other format is left alone."""
    seen = []
    monkeypatch.setattr(train_judge, "train", lambda *args: seen.append(args[5].digest) or sys.exit("stopped"))
    monkeypatch.setattr(train_judge, "_simulate", lambda *args: (None, ["a"]))
    settings = {"threads": 1, "simulate_cells": CELLS, "training": {"steps": 2}, "channels": ["c"]}
    for name in ("float32", "bfloat16", "float32"):
        monkeypatch.setenv("MIXLOC_DTYPE", name)
        with pytest.raises(SystemExit):
            train_judge.train_judge(tmp_path / "judge.safetensors", 1, settings)
    assert seen[0] == seen[2] != seen[1]
