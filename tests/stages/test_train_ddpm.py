"""Training and sampling of generators: kill and resume, determinism, what they read, what they refuse."""

import json
import math

import numpy as np
import pandas as pd
import pytest
import torch

from tests.helpers.generating import CLASSES, MINIMAL, SYNTHETIC_SET, UNET, make_data, sample_line, train_line
from workflow_scripts import sample_ddpm, train_ddpm
from workflow_scripts.lib.base.errors import UserError
from workflow_scripts.lib.compute import schedule
from workflow_scripts.lib.compute.checkpoint import Resume
from workflow_scripts.lib.generate import generator_file, generator_training, label_plans, sampling
from workflow_scripts.lib.generate.generator_training import Pixels
from workflow_scripts.lib.generate.weight_averages import ema_exponent
from workflow_scripts.lib.images.image_set import ImageSet

# Tiny tensors gain nothing from threads, and lose much where other processes want the cores.
torch.set_num_threads(1)


@pytest.fixture
def folder(tmp_path):
    make_data(tmp_path)
    return tmp_path


def weights(path):
    return generator_file.read(path).weights


def test_train_then_sample(folder):
    assert train_ddpm.main(train_line(folder, UNET)) == 0
    made = generator_file.read(folder / "g.safetensors")
    assert made.classes == CLASSES and made.size == 16 and made.settings["steps"] == 12 and made.seconds > 0
    # Only the training rows were read, and for fitting.
    assert made.access_record.of("fit").tolist() == [i for i in range(40) if i % 4]
    assert list(made.access_record.rows) == ["fit"]
    history = pd.read_csv(folder / "g.safetensors.csv")
    assert list(history) == ["step", "images", "loss", "learning_rate", "seconds"]
    assert history["step"].tolist() == list(range(1, 13)) and history["images"].iloc[-1] == 96
    assert not list(folder.glob("*.resume.pt"))

    assert sample_ddpm.main(sample_line(folder, SYNTHETIC_SET)) == 0
    with ImageSet(folder / "s.h5") as synthetic, ImageSet(folder / "images.h5") as real:
        assert len(synthetic) == 10 and synthetic.size == 16 and synthetic.channels == real.channels
        assert synthetic.ids[0] == "syn-000000" and set(synthetic.groups) == {"synthetic"}
        inherited = synthetic.inherited()
        assert inherited.images == real.digest
        assert inherited.of("fit").tolist() == made.access_record.of("fit").tolist()
        assert synthetic.attrs["generator_digest"] == made.digest
        assert json.loads(synthetic.attrs["synthetic_set"])["name"] == "synthetic_set"
        part = synthetic.read(None, "inspect")
    # Another fold of batches, the same seed: the same images.
    assert sample_ddpm.main(sample_line(folder, SYNTHETIC_SET, out="again.h5")) == 0
    with ImageSet(folder / "again.h5") as again:
        assert np.array_equal(again.read(None, "inspect").images, part.images)
    assert sample_ddpm.main(sample_line(folder, SYNTHETIC_SET, out="other.h5", seed=7)) == 0
    with ImageSet(folder / "other.h5") as other:
        assert not np.array_equal(other.read(None, "inspect").images, part.images)


def test_minimal_trains_and_samples_with_the_same_code(folder):
    assert train_ddpm.main(train_line(folder, MINIMAL)) == 0
    synthetic_set = SYNTHETIC_SET | {
        "labels": "single",
        "per_class": 2,
        "sampler": "ancestral",
        "evaluations": 50,
        "clip": False,
    }
    del synthetic_set["count"]
    synthetic_set |= {"guidance": {"scale": 1.0, "interval": [0.0, 100.0]}}
    assert sample_ddpm.main(sample_line(folder, synthetic_set)) == 0
    with ImageSet(folder / "s.h5") as synthetic:
        assert np.array_equal(synthetic.labels(None, "inspect").sum(axis=0), [2, 2, 2])
        assert (synthetic.labels(None, "inspect").sum(axis=1) == 1).all()


def test_same_seed_same_weights_other_seed_other_weights(folder):
    for out, seed in (("a.safetensors", 5), ("b.safetensors", 5), ("c.safetensors", 6)):
        assert train_ddpm.main(train_line(folder, UNET, out, seed)) == 0
    a, b, c = (weights(folder / f"{name}.safetensors") for name in "abc")
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert any(not torch.equal(a[name], c[name]) for name in a)


class Killed(Exception):
    pass


@pytest.mark.parametrize(
    "settings", [UNET, UNET | {"reference_fraction": 0.5}, MINIMAL | {"label_sampling": "balanced"}]
)
def test_killed_and_resumed_equals_undisturbed(tmp_path, monkeypatch, settings):
    monkeypatch.setenv("MIXLOC_CHECKPOINT_SECONDS", "0")
    images, labels = make_data(tmp_path)
    pixels, seen = Pixels.fitted(settings["pixels"], images), []

    def go(path, stop=None):
        def progress(step, loss):
            seen.append(step)
            if step == stop:
                raise Killed

        # A checkpoint after every step; the kill comes between a step and its checkpoint.
        resume = Resume(path, "task")
        arguments = (images, labels, settings, pixels, 3, torch.device("cpu"), torch.float32, resume, progress)
        return generator_training.train(*arguments)

    whole = go(tmp_path / "a.resume.pt")
    generator_training.CHECK_EVERY, before = 1, generator_training.CHECK_EVERY
    try:
        for stop in (4, 9):
            with pytest.raises(Killed):
                go(tmp_path / "b.resume.pt", stop)
    finally:
        generator_training.CHECK_EVERY = before
    seen.clear()
    resumed = go(tmp_path / "b.resume.pt")
    assert seen and 1 not in seen, "it went on, and did not start again"
    assert all(torch.equal(whole.weights[name], resumed.weights[name]) for name in whole.weights)
    assert [row[:4] for row in whole.history] == [row[:4] for row in resumed.history]
    assert resumed.history[-1][0] == settings["steps"]


def test_sampling_goes_on_where_it_was_killed(folder, monkeypatch):
    assert train_ddpm.main(train_line(folder, UNET)) == 0
    assert sample_ddpm.main(sample_line(folder, SYNTHETIC_SET)) == 0
    monkeypatch.setenv("MIXLOC_CHECKPOINT_SECONDS", "0")
    real_sample, calls = sampling.sample, []

    def dies_in_the_third_batch(*arguments):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return real_sample(*arguments)

    monkeypatch.setattr(sampling, "sample", dies_in_the_third_batch)
    with pytest.raises(KeyboardInterrupt):
        sample_ddpm.main(sample_line(folder, SYNTHETIC_SET, out="killed.h5"))
    assert not (folder / "killed.h5").exists() and (folder / "killed.resume.pt").exists()
    assert sample_ddpm.main(sample_line(folder, SYNTHETIC_SET, out="killed.h5")) == 0
    # Three batches in all; two were done before the kill.
    assert len(calls) == 4 and not (folder / "killed.resume.pt").exists()
    with ImageSet(folder / "s.h5") as whole, ImageSet(folder / "killed.h5") as resumed:
        assert whole.digest == resumed.digest


def test_other_settings_do_not_take_over_a_checkpoint(folder):
    state = {"step": 3}
    Resume(folder / "g.resume.pt", "other task").save(state)
    assert train_ddpm.main(train_line(folder, UNET)) == 0
    assert "belongs to other settings" in (folder / "log.txt").read_text()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"widths": [16] * 5, "blocks": [1] * 5, "steps": 1}, None),
        ({"widths": [16] * 6, "blocks": [1] * 6}, "multiples of"),
        ({"widths": [16]}, "widths has 1"),
        ({"learning_rate": 1e30, "gradient_limit": 0.0, "warmup": 0.0}, "no longer a number"),
    ],
)
def test_bad_settings_end_in_one_line(folder, capsys, change, words):
    status = train_ddpm.main(train_line(folder, MINIMAL | change if "learning_rate" in change else UNET | change))
    assert status == (0 if words is None else 1)
    if words:
        error = capsys.readouterr().err
        assert words in error and "Traceback" not in error
        assert not (folder / "g.safetensors").exists()


def test_a_plan_must_fit_its_generator(folder, capsys):
    assert train_ddpm.main(train_line(folder, UNET | {"label_dropout": 0.0})) == 0
    assert sample_ddpm.main(sample_line(folder, SYNTHETIC_SET)) == 1
    assert "guidance" in capsys.readouterr().err and not (folder / "s.h5").exists()


def test_pixels_go_there_and_back():
    images = np.random.default_rng(0).integers(0, 256, (20, 3, 16, 16)).astype(np.uint8)
    images[:, 2] = 0
    for kind, low, high in (("standardised", None, None), ("signed", -1, 1), ("unit", 0, 1)):
        pixels = Pixels.fitted(kind, images)
        inside = pixels.to_network(torch.from_numpy(images))
        assert np.array_equal(pixels.to_bytes(inside).numpy(), images)
        bounds = pixels.limits(torch.device("cpu"))
        assert bool((inside >= bounds[0] - 1e-5).all()) and bool((inside <= bounds[1] + 1e-5).all())
        if low is not None:
            assert float(bounds[0].min()) == pytest.approx(low) and float(bounds[1].max()) == pytest.approx(high)
    standardised = Pixels.fitted("standardised", images).to_network(torch.from_numpy(images))
    assert torch.allclose(standardised[:, :2].std(dim=(0, 2, 3)), torch.ones(2), atol=1e-3)


def test_learning_rate_rises_and_falls():
    settings = {"steps": 100, "learning_rate": 2.0, "warmup": 0.1, "decay": True}
    rates = [schedule.cosine_throughout(settings, step) for step in range(100)]
    assert rates[0] == pytest.approx(0.2) and max(rates) == rates[9] and rates[-1] < 0.01
    assert schedule.cosine_throughout(settings | {"decay": False}, 99) == 2.0


def test_average_covers_the_asked_share_of_the_training():
    # Weights w(t) = t: the average of profile t^gamma ends at (gamma + 1) / (gamma + 2) of the last one.
    gamma = ema_exponent(0.1)
    assert gamma == pytest.approx(6.94, abs=0.01)
    average, steps = 0.0, 4000
    for t in range(1, steps + 1):
        average += (1 - (1 - 1 / t) ** (gamma + 1)) * (t - average)
    assert average / steps == pytest.approx((gamma + 1) / (gamma + 2), abs=1e-3)


def test_label_plans():
    rng = np.random.default_rng(0)
    labels = np.array([[1, 0, 0, 0]] * 16 + [[1, 1, 0, 0]] * 3 + [[0, 0, 1, 0]], dtype=np.uint8)
    twice = label_plans.as_train(labels, rng, 40)
    assert np.array_equal(twice.sum(axis=0), 2 * labels.sum(axis=0))
    assert label_plans.as_train(labels, rng, 7).shape == (7, 4)
    even = label_plans.balanced(labels, rng, 300)
    # A hundred turns for each of three classes; images of class 1 also carry class 0.
    assert even[:, 2].sum() == 100 and even[:, 1].sum() >= 100
    filled = label_plans.tail_fill(labels, rng, 1000, 10)
    assert ((labels.sum(axis=0) + filled.sum(axis=0))[[1, 2]] == 10).all() and len(filled) == 16
    assert len(label_plans.tail_fill(labels, rng, 5, 10)) == 5
    # Combinations are those of training images; a class without any is left alone.
    known = {tuple(row) for row in labels}
    assert {tuple(row) for row in filled} | {tuple(row) for row in even} <= known
    one = label_plans.single(labels, rng, 4)
    assert one.sum(axis=0).tolist() == [4, 4, 4, 0] and (one.sum(axis=1) == 1).all()


def test_plans_that_plan_nothing_are_refused():
    rng = np.random.default_rng(0)
    with pytest.raises(UserError, match="target"):
        label_plans.planned(
            {"name": "p", "labels": "tail_fill", "count": 5, "target": 1}, np.eye(3, dtype="u1"), rng, None
        )
    with pytest.raises(UserError, match="no training image"):
        label_plans.planned({"name": "p", "labels": "as_train", "count": 5}, np.zeros((3, 3), "u1"), rng, None)


def test_a_black_channel_does_not_break_training(tmp_path):
    images, labels = make_data(tmp_path, channels=1)
    images[:] = 0
    pixels = Pixels.fitted("standardised", images)
    done = generator_training.train(
        *(images, labels, UNET | {"steps": 2}, pixels, 0, torch.device("cpu"), torch.float32),
        Resume(tmp_path / "x.resume.pt", "t"),
    )
    assert all(math.isfinite(row[2]) for row in done.history)
