"""predict_images: labels of new images, their groups, and marks of those that are unlike the training set."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tests.helpers import image_folders
from tests.helpers.small_run import CHANNELS, CLASSES, SIZE, SmallRun, rows, save_images
from workflow_scripts import predict_images
from workflow_scripts.lib.images import invalid_input

STRANGE = ["odd0", "odd1"]


@pytest.fixture
def run(tmp_path: Path) -> SmallRun:
    """A run, and a folder of new images: some of its own, others brightened a little, two of another kind."""
    made = SmallRun(tmp_path / "run")
    new = np.clip(made.images[:6].astype(int) + 3, 0, 255).astype(np.uint8)
    strange = np.tile(np.array([0, 255], np.uint8), (2, len(CHANNELS), SIZE, SIZE // 2))
    save_images(tmp_path / "new", ["own", *(f"new{row}" for row in range(6)), *STRANGE],
                np.concatenate([made.images[:1], new, strange]))  # fmt: skip
    return made


def predict(run: SmallRun, *more: str, arm: str = "pool", size: int = SIZE, **data: object) -> int:
    reading = image_folders.settings(data=data, size=size, channels=CHANNELS)
    settings = {"arm": arm, "batch": 4, "unlike": 0.99, "preprocess_images": reading, "threads": 1}
    return predict_images.main(
        ["--images", str(run.path("images.h5")), "--folds", f"0={run.path('repeat0/folds.csv')}", "--arms", *run.arms]
        + ["--thresholds", str(run.path("thresholds.csv")), "--images-dir", str(run.folder.parent / "new"), *more]
        + ["--out", str(run.path("predicted")), "--log", str(run.path("log.txt")), "--settings", json.dumps(settings)]
    )


def test_new_images_get_probabilities_labels_and_marks(run: SmallRun) -> None:
    assert predict(run) == 0
    found = {row["Id"]: row for row in rows(run.path("predicted/images.csv"))}
    assert sorted(found) == sorted(["own", *(f"new{row}" for row in range(6)), *STRANGE])
    expected = run.probabilities(run.images[:1])[0]
    told = [float(found["own"][f"p {name}"]) for name in CLASSES]
    # bfloat16, where the processor has it.
    assert told == pytest.approx(expected, abs=0.02)
    # Thresholds are averaged over folds: 0.4 and 0.5.
    for row in found.values():
        values = np.array([float(row[f"p {name}"]) for name in CLASSES])
        chosen = np.flatnonzero(values >= 0.45) if (values >= 0.45).any() else [values.argmax()]
        assert row["labels"] == "|".join(CLASSES[k] for k in chosen)
    assert [name for name, row in found.items() if row["in_run"] == "1"] == ["own"]
    assert [name for name, row in found.items() if row["unlike_training"] == "1"] == STRANGE
    about = json.loads(run.path("predicted/about.json").read_text())
    assert len(about["warnings"]) == 2 and "unlike the training images" in about["warnings"][0]
    assert len(about["classifiers"]) == 2
    assert rows(run.path("predicted/groups.csv")) == [], "nothing says which images belong together"


def test_groups_of_a_table_get_the_mean_over_their_images(run: SmallRun, tmp_path: Path) -> None:
    (tmp_path / "new.csv").write_text("Id,gene\nnew0,A\nnew1,A\nnew2,B\n")
    assert predict(run, "--table", str(tmp_path / "new.csv")) == 0
    images = {row["Id"]: row for row in rows(run.path("predicted/images.csv"))}
    groups = {row["group"]: row for row in rows(run.path("predicted/groups.csv"))}
    assert list(images) == ["new0", "new1", "new2"] and list(groups) == ["A", "B"]
    for name in CLASSES:
        mean = np.mean([float(images[one][f"p {name}"]) for one in ("new0", "new1")])
        assert float(groups["A"][f"p {name}"]) == pytest.approx(mean, abs=1e-5)
    assert groups["A"]["images"] == "2" and images["new2"]["group"] == "B"


def test_what_cannot_be_read_is_left_out(run: SmallRun, capsys: pytest.CaptureFixture, tmp_path: Path) -> None:
    # Another data.on_invalid than that of the run would make the whole run again.
    (run.folder.parent / "new" / "new3_green.png").write_bytes(b"no picture")
    (tmp_path / "new.csv").write_text("Id\nnew3\n")
    assert predict(run, "--table", str(tmp_path / "new.csv")) == 1
    assert "1 of 1 images cannot be used" in capsys.readouterr().err
    assert not run.path("predicted").exists()
    before = tmp_path / "before.csv"
    invalid_input.write_list(before, [invalid_input.Fault("f0", "f0.png", "no nuclei", "shows, so to say, no nucleus")])
    assert predict(run, "--left-out", str(before)) == 0
    assert "1 of 9 images cannot be used" in capsys.readouterr().err
    assert [row["Id"] for row in rows(run.path("predicted/left_out.csv"))] == ["f0", "new3"]
    assert json.loads(run.path("predicted/about.json").read_text())["left_out"] == 2
    assert predict(run) == 0
    assert "new3" not in {row["Id"] for row in rows(run.path("predicted/images.csv"))}
    assert [row["Id"] for row in rows(run.path("predicted/left_out.csv"))] == ["new3"]


def test_what_does_not_fit_is_told(run: SmallRun, capsys: pytest.CaptureFixture, tmp_path: Path) -> None:
    for given, message in (
        ({"arm": "nobody"}, "predict.arm = 'nobody'"),
        ({"size": 8}, "other classes, channels or sizes"),
        ({"files": "{id}_{channel}.tif"}, "holds no file of the form {id}_red.tif"),
    ):
        assert predict(run, **given) == 1
        assert message in capsys.readouterr().err
    (tmp_path / "new.csv").write_text("Id\nnew0\nnew0\n")
    assert predict(run, "--table", str(tmp_path / "new.csv")) == 1
    assert "an Id stands there twice" in capsys.readouterr().err
