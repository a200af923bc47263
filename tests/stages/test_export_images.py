"""export_images: generated images as files and a table, which preprocess_images reads back as they were."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import yaml

from tests.helpers import image_folders
from tests.helpers.small_run import CHANNELS, CLASSES, SIZE, SmallRun, rows
from workflow_scripts import export_images, preprocess_images
from workflow_scripts.lib.images.image_set import ImageSet
from workflow_scripts.lib.images.image_set_writer import write_images


@pytest.fixture
def run(tmp_path: Path) -> SmallRun:
    """A run with a synthetic set in each fold; one image is of no class."""
    made = SmallRun(tmp_path)
    draws = np.random.default_rng(1)
    for fold in range(2):
        path = made.path(f"repeat0/fold{fold}/synthetic/painted.h5")
        attrs = {"repeat": 0, "fold": fold, "synthetic_set": json.dumps({"generator": "unet", "name": "painted"})}
        with write_images(path, CHANNELS, CLASSES, SIZE, attrs) as writer:
            pixels = draws.integers(0, 256, (4, len(CHANNELS), SIZE, SIZE))
            labels = np.array([[1, 0, 0], [0, 1, 1], [0, 0, 0], [0, 0, 1]])
            references = {"reference": made.ids[:4]}
            writer.append(pixels, labels, [f"syn-{row}" for row in range(4)], ["synthetic"] * 4, references)
    return made


def export(run: SmallRun, form: str) -> int:
    settings = {"format": form, "run": "small", "protein_channel": "green"}
    sets = "painted/{repeat}/{fold}=" + str(run.folder) + "/repeat{repeat}/fold{fold}/synthetic/painted.h5"
    return export_images.main(
        ["--places", "1x2", "--images", str(run.path("images.h5")), "--synthetic", sets, "--seed", "7"]
        + ["--out", str(run.path("export")), "--settings", json.dumps(settings), "--log", str(run.path("log.txt"))]
    )


@pytest.mark.parametrize("form", ["png", "ome_tiff"])
def test_what_is_exported_comes_back_as_it_was(run: SmallRun, form: str) -> None:
    assert export(run, form) == 0
    config = yaml.safe_load(run.path("export/mixloc.yaml").read_text(encoding="utf-8"))
    given = image_folders.settings(data=config["data"], **config["preprocess_images"])
    status = preprocess_images.main(
        [
            "--images-dir",
            config["data"]["images"],
            "--table",
            config["data"]["table"],
            "--out",
            str(run.path("back.h5")),
        ]
        + ["--left-out", str(run.path("left_out.csv")), "--settings", json.dumps(given)]
    )
    assert status == 0
    with ImageSet(run.path("back.h5")) as back:
        assert (back.channels, back.classes) == (CHANNELS, CLASSES)
        found = back.read(None, "inspect")
        columns = {name: back.column(name).tolist() for name in ("set", "generator", "fold", "seed", "reference")}
    wanted = []
    for fold in range(2):
        with ImageSet(run.path(f"repeat0/fold{fold}/synthetic/painted.h5")) as made:
            wanted.append(made.read(None, "inspect"))
    assert np.array_equal(found.images, np.concatenate([part.images for part in wanted]))
    assert np.array_equal(found.labels, np.concatenate([part.labels for part in wanted]))
    assert columns["set"] == ["painted"] * 8 and columns["generator"] == ["unet"] * 8
    assert columns["fold"] == ["0"] * 4 + ["1"] * 4 and columns["seed"] == ["7"] * 8
    assert columns["reference"] == [*run.ids[:4]] * 2
    # Images that were made from real ones of a group are of one group.
    assert len(set(found.groups)) == 2 and found.groups[0] == found.groups[5]


def test_the_table_says_what_each_image_is(run: SmallRun) -> None:
    assert export(run, "png") == 0
    first, second, third, _ = rows(run.path("export/labels.csv"))[:4]
    assert first["Id"] == "painted_r0_f0_syn-0" and first["group"] == "gene000"
    assert second["Target"] == "Golgi|Cytosol" and third["Target"] == ""
    assert len(list(run.path("export/images").iterdir())) == 8 * len(CHANNELS)


def test_sets_of_another_size_are_refused(run: SmallRun, capsys: pytest.CaptureFixture) -> None:
    path = run.path("repeat0/fold1/synthetic/painted.h5")
    with write_images(path, CHANNELS, CLASSES, 8, {"repeat": 0, "fold": 1, "synthetic_set": "{}"}) as writer:
        writer.append(np.zeros((1, 2, 8, 8)), np.ones((1, 3)), ["a"], ["a"])
    assert export(run, "png") == 1
    assert "other channels, classes or sizes" in capsys.readouterr().err
    assert not run.path("export").exists()
