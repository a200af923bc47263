"""Several sets of a fold in one process: the same images and records as sets made apart, and each network once."""

import json

import numpy as np
import pytest
import torch

from tests.helpers.generating import SYNTHETIC_SET, UNET, make_data, sample_line, train_line
from workflow_scripts import sample_ddpm, sample_fold, train_ddpm
from workflow_scripts.lib.generate import sampling, synthetic_set
from workflow_scripts.lib.images.image_set import ImageSet

# Tiny tensors gain nothing from threads, and lose much where other processes want the cores.
torch.set_num_threads(1)

KEPT = UNET | {"snapshot": 0.25, "steps": 4}
AUTO = {"scale": 2.0, "interval": [0.1, 10.0], "against": "earlier"}
SETS = [
    SYNTHETIC_SET | {"name": "plain"},
    SYNTHETIC_SET | {"name": "away", "guidance": AUTO},
    SYNTHETIC_SET | {"name": "even", "labels": "balanced", "count": 6},
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("together")
    make_data(place)
    assert train_ddpm.main(train_line(place, KEPT)) == 0
    return place


def together_line(folder, sets=SETS, end="h5"):
    return [
        *("--generators", f"unet={folder / 'g.safetensors'}", "--images", str(folder / "images.h5")),
        *("--folds", str(folder / "folds.csv"), "--repeat", "0", "--fold", "0", "--seed", "6"),
        *("--synthetic", *(f"{one['name']}={folder / one['name']}.{end}" for one in sets)),
        *("--settings", json.dumps({"threads": 1, "sets": sets}), "--log", str(folder / "log.txt")),
    ]


def read(path):
    with ImageSet(path) as source:
        part = source.read(None, "inspect")
        return part.images, part.labels, source.attrs["access_record"], source.digest


def test_sets_are_those_that_are_made_apart_from_networks_loaded_once(folder, monkeypatch):
    loaded = []
    real = synthetic_set.CapturedNetwork
    monkeypatch.setattr(synthetic_set, "CapturedNetwork", lambda *given: loaded.append(1) or real(*given))
    assert sample_fold.main(together_line(folder)) == 0
    assert len(loaded) == 2, "the generator and its snapshot, for three sets"
    for one in SETS:
        assert sample_ddpm.main(sample_line(folder, one, out=f"{one['name']}_alone.h5")) == 0
        together, alone = read(folder / f"{one['name']}.h5"), read(folder / f"{one['name']}_alone.h5")
        assert all(np.array_equal(a, b) for a, b in zip(together, alone, strict=True)), one["name"]


def test_after_a_kill_finished_sets_are_kept(folder, monkeypatch):
    monkeypatch.setenv("MIXLOC_CHECKPOINT_SECONDS", "0")
    real, calls = sampling.sample, []

    def dies_in_the_fifth_batch(*arguments):
        calls.append(1)
        if len(calls) == 5:
            raise KeyboardInterrupt
        return real(*arguments)

    monkeypatch.setattr(sampling, "sample", dies_in_the_fifth_batch)
    with pytest.raises(KeyboardInterrupt):
        sample_fold.main(together_line(folder, end="killed.h5"))
    assert not list(folder.glob("*.killed.h5")), "Snakemake deletes the outputs of a job that it starts again"
    assert [path.name for path in (folder / ".together").glob("*.h5")] == ["plain.killed.h5"]
    assert sample_fold.main(together_line(folder, end="killed.h5")) == 0
    # Three batches, three and two; four were done before the kill.
    assert len(calls) == 5 + 4 and not (folder / ".together").exists()
    for one in SETS:
        assert read(folder / f"{one['name']}.h5")[3] == read(folder / f"{one['name']}.killed.h5")[3]


def test_a_set_whose_file_or_generator_is_not_named_is_refused(folder, capsys):
    other = SYNTHETIC_SET | {"name": "plain", "generator": "absent"}
    assert sample_fold.main(together_line(folder, [other], "x.h5")) == 1
    assert "--generators absent=… is missing" in capsys.readouterr().err
    line = together_line(folder, SETS[:1], "x.h5")
    line[line.index("--synthetic") + 1] = f"other={folder / 'x.h5'}"
    assert sample_fold.main(line) == 1
    assert "--synthetic plain=… is missing" in capsys.readouterr().err
