"""train_judge: the judge speaks of the classes that the images of the run have."""

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
