"""write_submission: the table that the competition takes, from classifiers and images on disk."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from workflow_scripts import write_submission as stage_program
from workflow_scripts.lib.classify import backbones, classifier_file
from workflow_scripts.lib.classify.classifier_file import Classifier
from workflow_scripts.lib.images.known_datasets import COLUMNS

CLASSES = ["Cytosol", "Golgi"]  # of the classifiers
NUMBERED = ["Nucleus", "Golgi", "Cytosol"]  # of the competition
CHANNELS = ["red", "green"]
IDS = ["t9", "t1", "t5", "t3", "t7"]
DATA = {
    "files": "{id}_{channel}.png", "file_channels": None, "stack": "refuse", "planes": None, "bits": [8],
    "pixel_size": None,
    "class_names": NUMBERED, "on_invalid": "fail", "invalid_limit": 0.5, "columns": COLUMNS,
}  # fmt: skip
READING = {
    "channels": CHANNELS, "size": 16, "intensity": "fixed", "pixel_size": None,
    "white_level": {"uint16": 65535, "float": 1}, "data": DATA,
}  # fmt: skip


@pytest.fixture
def run(tmp_path):
    """Test images, a sample, two folds with an arm each, and their thresholds."""
    (tmp_path / "test").mkdir()
    rng = np.random.default_rng(0)
    for name in IDS:
        for channel in CHANNELS:
            # Unlike each other in brightness, so that random weights tell them apart.
            pixels = rng.integers(0, 40, (32, 32)) + rng.integers(0, 215)
            Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / "test" / f"{name}_{channel}.png")
    (tmp_path / "sample.csv").write_text("Id,Predicted\n" + "".join(f"{name},0\n" for name in IDS))
    for fold in range(2):
        classifier(tmp_path, fold)
    thresholds(tmp_path, 0.5, 0.5)
    return Run(tmp_path)


def classifier(folder: Path, fold: int, classes: list[str] = CLASSES, channels: list[str] = CHANNELS) -> None:
    """An arm with random weights."""
    network = backbones.build("small", len(channels), len(classes), 16, seed=fold)
    with torch.no_grad():
        network.head.weight.mul_(30)
    write = classifier_file.write
    place = folder / f"fold{fold}" / "arms"
    about = {"backbone": "small", "name": "mine", "method": "real_only"}
    mean, std = (torch.full((len(channels),), value) for value in (0.4 + fold / 10, 0.3))
    write(
        place / "mine" / "classifier.safetensors",
        Classifier("mine", 0, fold, classes, channels, 16, about, mean, std, network.state_dict()),
    )
    arms = [
        {"arm": "other", "classifier": "nowhere"},
        {"arm": "mine", "classifier": "mine/classifier.safetensors"},
    ]
    (place / "job0.json").write_text(json.dumps({"arms": arms}))


def thresholds(folder: Path, *values: float, spread: float = 0.0) -> None:
    """Thresholds of the two folds, whose mean is given; other arms and levels have others."""
    rows = ["arm,repeat,fold,level,class,threshold,pooled,positive_groups"]
    for name, value in zip(CLASSES, values, strict=True):
        for fold, sign in enumerate((-1, 1)):
            rows.append(f"mine,0,{fold},image,{name},{value + sign * spread},False,9")
            rows += [f"mine,0,{fold},protein,{name},0.99,False,9", f"other,0,{fold},image,{name},0.01,False,9"]
    (folder / "thresholds.csv").write_text("\n".join(rows) + "\n")


class Run:
    """The stage in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.out = folder, folder / "submission.csv"

    def __call__(self, arm: str = "mine", data: dict | None = None, **reading: object) -> int:
        settings = {"arm": arm, "batch": 2, "threads": 1}
        settings["preprocess_images"] = READING | {"data": DATA | (data or {})} | reading
        return stage_program.main(
            ["--arms", *(str(self.folder / f"fold{fold}" / "arms" / "job0.json") for fold in range(2))]
            + ["--thresholds", str(self.folder / "thresholds.csv"), "--images-dir", str(self.folder / "test")]
            + [
                "--sample",
                str(self.folder / "sample.csv"),
                "--out",
                str(self.out),
                "--log",
                str(self.folder / "log.txt"),
            ]
            + ["--settings", json.dumps(settings)]
        )

    def rows(self) -> list[tuple[str, str]]:
        """Ids and predictions, in order."""
        with self.out.open(newline="") as handle:
            found = list(csv.reader(handle))
        assert found[0] == ["Id", "Predicted"]
        return [tuple(row) for row in found[1:]]

    def probabilities(self) -> np.ndarray:
        """What the two classifiers say, by a way of its own: (n, K)."""
        stack = []
        for name in IDS:
            planes = [np.asarray(Image.open(self.folder / "test" / f"{name}_{channel}.png")) for channel in CHANNELS]
            stack.append(np.rint(np.stack(planes).reshape(2, 16, 2, 16, 2).mean((2, 4))))
        images = torch.tensor(np.stack(stack), dtype=torch.float32) / 255
        means = []
        for fold in range(2):
            made = classifier_file.read(self.folder / f"fold{fold}" / "arms" / "mine" / "classifier.safetensors")
            with torch.no_grad():
                network = made.network(torch.device("cpu"))
                logits = network.head(network.features(classifier_file.standardise(images, made.mean, made.std)))
            means.append(torch.sigmoid(logits.double()).numpy())
        return np.mean(means, axis=0)


def test_every_id_once_in_the_samples_order_with_the_competitions_numbers(run):
    found = run.probabilities()
    # Thresholds in the widest gap between the values, so that rounding decides nothing.
    ordered = np.sort(found, axis=0)
    gaps, places = np.diff(ordered, axis=0), np.diff(ordered, axis=0).argmax(axis=0)
    assert gaps.max(axis=0).min() > 0.02
    cuts = [float(ordered[place : place + 2, k].mean()) for k, place in enumerate(places)]
    thresholds(run.folder, *cuts, spread=0.001)
    assert run() == 0
    rows = run.rows()
    assert [name for name, _ in rows] == IDS
    for (_, predicted), row in zip(rows, found, strict=True):
        chosen = np.flatnonzero(row >= cuts)
        chosen = chosen if len(chosen) else [row.argmax()]
        assert predicted == " ".join(str(number) for number in sorted({0: 2, 1: 1}[k] for k in chosen))
    assert len({predicted for _, predicted in rows}) > 1


def test_an_image_below_all_thresholds_gets_its_most_probable_class(run):
    thresholds(run.folder, 1.5, 1.5)
    assert run() == 0
    assert [predicted for _, predicted in run.rows()] == [str([2, 1][k]) for k in run.probabilities().argmax(axis=1)]


def test_all_classes_may_be_predicted(run):
    thresholds(run.folder, 0.0, 0.0)
    assert run() == 0
    assert {predicted for _, predicted in run.rows()} == {"1 2"}


def test_images_that_cannot_be_read_stop_it_or_get_the_usual_class(run, capsys):
    (run.folder / "test" / "t5_green.png").write_bytes(b"no picture")
    (run.folder / "test" / "t3_red.png").unlink()
    assert run() == 1
    shown = capsys.readouterr().err
    assert "2 of 5 images cannot be used" in shown
    assert "Traceback" not in shown
    assert "t5_green.png" in (run.folder / "log.bad_input.csv").read_text()
    assert not run.out.exists()
    thresholds(run.folder, 0.0, 1.5)
    assert run(data={"on_invalid": "skip"}) == 0
    rows = dict(run.rows())
    assert list(rows) == IDS
    usual = str([2, 1][run_mean(run).argmax()])
    assert rows["t5"] == rows["t3"] == usual
    assert rows["t1"] == "2"


def run_mean(run: Run) -> np.ndarray:
    (run.folder / "test" / "t5_green.png").unlink()
    kept = [index for index, name in enumerate(IDS) if name not in ("t5", "t3")]
    for name in ("t5", "t3"):
        for channel in CHANNELS:
            Image.new("L", (32, 32), 7).save(run.folder / "test" / f"{name}_{channel}.png")
    return run.probabilities()[kept].sum(axis=0)


def test_an_arm_may_look_at_some_channels_alone(run, capsys):
    for fold in range(2):
        classifier(run.folder, fold, channels=["green"])
    assert run() == 0
    before = run.out.read_bytes()
    for name in IDS:
        Image.fromarray(np.full((32, 32), 100, np.uint8)).save(run.folder / "test" / f"{name}_red.png")
    assert run() == 0 and run.out.read_bytes() == before
    classifier(run.folder, 1)
    assert run() == 1
    assert "other classes, channels or sizes" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("sample", "message"),
    [
        ("Id,Predicted\nt1,0\nt1,0\n", "an Id stands there twice"),
        ("Id,Predicted\n../../etc/passwd,0\n", "cannot be part of a file name"),
        ("Image,Predicted\nt1,0\n", "no column 'Id'"),
        ("Id,Predicted\n", "is no sample"),
    ],
)
def test_bad_samples_are_told(run, capsys, sample, message):
    (run.folder / "sample.csv").write_text(sample)
    assert run() == 1
    assert message in capsys.readouterr().err


def test_what_does_not_fit_is_told(run, capsys):
    assert run(arm="nobody") == 1
    assert "write_submission.arm = 'nobody'" in capsys.readouterr().err
    assert run(size=8) == 1
    assert "other classes, channels or sizes" in capsys.readouterr().err
    assert run(data={"class_names": ["Nucleus", "Cytosol"]}) == 1
    assert "the class 'Golgi' has no number in the competition" in capsys.readouterr().err
    thresholds(run.folder, 0.5, 0.5)
    text = (run.folder / "thresholds.csv").read_text().replace("Golgi", "Vesicles")
    (run.folder / "thresholds.csv").write_text(text)
    assert run() == 1
    assert "no threshold of arm 'mine' for class 'Golgi'" in capsys.readouterr().err
    (run.folder / "sample.csv").unlink()
    assert run() == 1
    assert "there is no such sample table" in capsys.readouterr().err
