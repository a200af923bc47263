"""Samples during training: at fixed seeds, for every kind of generator, and without a trace in the weights."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.helpers.generating import MINIMAL, UNET, make_data, train_line
from workflow_scripts import train_ddpm
from workflow_scripts.lib.compute.live_course import LiveCourse
from workflow_scripts.lib.generate import generator_file, live_strips
from workflow_scripts.lib.generate.generator_training import Pixels, Training

torch.set_num_threads(1)
STRIPS_OF_ALL_STEPS = ["--strip-minutes", "1e-9"]


@pytest.mark.parametrize(
    "settings", [UNET, MINIMAL, UNET | {"reference_fraction": 0.5}], ids=["unet", "minimal", "ref"]
)
def test_weights_are_the_same_bit_for_bit_with_and_without_strips(tmp_path: Path, settings: dict) -> None:
    make_data(tmp_path)
    torch.manual_seed(7)
    before = torch.random.get_rng_state()
    live = ["--progress", str(tmp_path / "progress"), *STRIPS_OF_ALL_STEPS]
    assert train_ddpm.main([*train_line(tmp_path, settings, "watched.safetensors"), *live]) == 0
    assert torch.equal(torch.random.get_rng_state(), before)
    assert train_ddpm.main(train_line(tmp_path, settings, "alone.safetensors")) == 0
    watched, alone = (generator_file.read(tmp_path / f"{name}.safetensors").weights for name in ("watched", "alone"))
    assert all(torch.equal(watched[name], alone[name]) for name in alone)

    stem = f"generator_repeat0_fold0_{settings['name']}"
    strips = sorted((tmp_path / "progress").glob("*.npy"))
    assert [strips[place].name for place in (0, -1)] == [
        f"{stem}.step{step:09d}.npy" for step in (1, settings["steps"])
    ]
    first, last = (np.load(strips[place], allow_pickle=False) for place in (0, -1))
    assert first.dtype == np.uint8 and first.shape == (8, 4, 16, 16) and not np.array_equal(first, last)
    told = json.loads((tmp_path / "progress" / f"{stem}.json").read_text())
    assert (told["step"], told["steps"], told["channels"]) == (12, 12, ["ch0", "ch1", "ch2", "ch3"])
    assert [point["step"] for point in told["points"]] == [1, 12]


def test_a_short_training_has_one_strip_at_its_end_and_none_where_none_is_wanted(tmp_path: Path) -> None:
    make_data(tmp_path)
    for minutes, names in (("60", ["generator_repeat0_fold0_unet.step000000012.npy"]), ("0", [])):
        live = ["--progress", str(tmp_path / minutes), "--strip-minutes", minutes]
        assert train_ddpm.main([*train_line(tmp_path, UNET, f"{minutes}.safetensors"), *live]) == 0
        assert [path.name for path in (tmp_path / minutes).glob("*.npy")] == names


def test_the_same_weights_give_the_same_samples(tmp_path: Path) -> None:
    images, labels = make_data(tmp_path)
    pixels = Pixels.fitted("standardised", images)
    training = Training(images, labels, UNET, pixels, 3, torch.device("cpu"), torch.float32)
    one, again = (live_strips.draw(training, torch.float32) for _ in range(2))
    assert np.array_equal(one, again)
    asked = live_strips.condition(training)
    assert torch.equal(asked.labels, training.examples.labels[[0, 6, 11, 17, 22, 28, 33, 39]])


def test_reference_channels_of_a_strip_are_those_of_real_images(tmp_path: Path) -> None:
    images, labels = make_data(tmp_path)
    settings = UNET | {"reference_fraction": 1, "reference_places": [0, 1, 3]}
    pixels = Pixels.fitted("standardised", images)
    training = Training(images, labels, settings, pixels, 3, torch.device("cpu"), torch.float32)
    rows = training.examples.rows[[0, 6, 11, 17, 22, 28, 33, 39]].numpy()
    shown = live_strips.draw(training, torch.float32)
    assert np.array_equal(shown[:, [0, 1, 3]], images[rows][:, [0, 1, 3]])
    assert not np.array_equal(shown[:, 2], images[rows][:, 2])


def test_a_killed_training_goes_on_where_its_course_ended(tmp_path: Path) -> None:
    images, _ = make_data(tmp_path)
    about = {"kind": "generator", "name": "unet", "repeat": 0, "fold": 0}

    def course(digest: str) -> LiveCourse:
        return LiveCourse(tmp_path / "progress", about, 12, digest)

    killed = course("a")
    for step in (2, 4, 6):
        killed.add(step, loss=float(step))
    killed._write(6)
    killed.keep_strip(6, images[:8])
    resumed = course("a")
    resumed.add(5, loss=50.0)
    assert [(point["step"], point["loss"]) for point in resumed.points] == [(2, 2.0), (4, 4.0), (5, 50.0)]
    assert len(list((tmp_path / "progress").glob("*.npy"))) == 1
    assert course("b").points == [] and not list((tmp_path / "progress").iterdir()), "another task starts afresh"


def test_points_and_strips_are_thinned_out(tmp_path: Path) -> None:
    about = {"kind": "generator", "name": "unet", "repeat": 0, "fold": 0}
    course = LiveCourse(tmp_path, about, 10_000, "a")
    for step in range(1, 3001):
        course.add(step, loss=float(step))
    assert 200 <= len(course.points) < 400 and course.points[-1]["step"] >= 2980
    assert course.points[0]["loss"] == pytest.approx(np.mean(range(1, course.points[0]["step"] + 1)))
    for step in range(1, 30):
        course.keep_strip(step, np.zeros((8, 1, 4, 4), dtype=np.uint8))
    kept = [int(path.stem[-9:]) for path in sorted(tmp_path.glob("*.npy"))]
    assert len(kept) <= 6 and (kept[0], kept[-1]) == (1, 29)


def test_a_folder_that_cannot_be_written_stops_no_training(tmp_path: Path) -> None:
    (tmp_path / "progress").write_text("in the way")
    course = LiveCourse(tmp_path / "progress", {"kind": "generator", "name": "u", "repeat": 0, "fold": 0}, 1, "a")
    course.add(1, loss=1.0)
    course.keep_strip(1, np.zeros((8, 1, 4, 4), dtype=np.uint8))
