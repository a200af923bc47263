"""Autoguidance: a snapshot of the same training, or another generator, is what guidance pushes away from."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from tests.helpers.generating import SYNTHETIC_SET, UNET, make_data, sample_line, train_line
from workflow_scripts import sample_ddpm, train_ddpm
from workflow_scripts.lib.compute.checkpoint import Resume
from workflow_scripts.lib.generate import generator_checks, generator_file, generator_run, generator_training
from workflow_scripts.lib.generate.generator_training import Pixels
from workflow_scripts.lib.images.image_set import ImageSet

# Tiny tensors gain nothing from threads, and lose much where other processes want the cores.
torch.set_num_threads(1)

KEPT = UNET | {"snapshot": 0.25, "label_dropout": 0}
SMALL = UNET | {"name": "small", "widths": [16], "blocks": [1], "steps": 4, "label_dropout": 0}
EVERYWHERE = {"interval": [0, 1000]}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("autoguidance")
    make_data(place)
    assert train_ddpm.main(train_line(place, KEPT)) == 0
    assert train_ddpm.main(train_line(place, SMALL, "small.safetensors")) == 0
    return place


def made(folder, guidance, out, weaker=None, generator="g.safetensors"):
    """Images of a set with this guidance."""
    line = sample_line(folder, SYNTHETIC_SET | {"guidance": EVERYWHERE | guidance}, generator, f"{out}.h5")
    assert sample_ddpm.main([*line, *(["--weaker", str(folder / weaker)] if weaker else [])]) == 0
    with ImageSet(folder / f"{out}.h5") as source:
        return source.read(None, "inspect").images, source.inherited()


def test_the_snapshot_is_the_average_of_its_step(tmp_path):
    images, labels = make_data(tmp_path)
    pixels = Pixels.fitted("standardised", images)
    training = generator_training.Training(images, labels, KEPT, pixels, 3, torch.device("cpu"), torch.float32)
    for _ in range(3):
        training.advance()
    then = {name: value.clone() for name, value in training.weights().items()}
    for _ in range(9):
        training.advance()
    done = training.trained()
    assert all(torch.equal(done.earlier[name], then[name]) for name in then)
    assert any(not torch.equal(done.earlier[name], done.weights[name]) for name in then)


def test_snapshots_and_followed_averages_survive_a_kill(tmp_path, monkeypatch):
    monkeypatch.setenv("MIXLOC_CHECKPOINT_SECONDS", "0")
    monkeypatch.setattr(generator_training, "CHECK_EVERY", 1)
    images, labels = make_data(tmp_path)
    settings = KEPT | {"ema_widths": [0.05, 0.15]}
    pixels, seen = Pixels.fitted("standardised", images), []

    def go(name, stop=None):
        def progress(step, loss):
            seen.append(step)
            if step == stop:
                raise KeyboardInterrupt

        resume = Resume(tmp_path / f"{name}.resume.pt", "task")
        how = (images, labels, settings, pixels, 3, torch.device("cpu"), torch.float32, resume, progress)
        return generator_training.train(*how)

    whole = go("whole")
    for stop in (2, 3, 7, 11):
        with pytest.raises(KeyboardInterrupt):
            go("killed", stop)
    seen.clear()
    resumed = go("killed")
    assert seen and 1 not in seen, "it went on, and did not start again"
    pairs = [(whole.weights, resumed.weights), (whole.earlier, resumed.earlier)]
    pairs += [(whole.candidates[width], resumed.candidates[width]) for width in (0.05, 0.15)]
    assert all(torch.equal(one[name], other[name]) for one, other in pairs for name in one)


def test_at_scale_zero_only_the_snapshot_speaks(folder):
    # x0 = away + 0 (towards - away): the images are those of a generator that has the snapshot's weights.
    apart, _ = made(folder, {"scale": 0.0, "against": "earlier"}, "apart")
    generator = generator_file.read(folder / "g.safetensors")
    generator.weights = generator.earlier
    generator_file.write(folder / "early.safetensors", generator)
    alone, _ = made(folder, {"scale": 1.0}, "alone", generator="early.safetensors")
    assert np.abs(apart.astype(int) - alone).max() <= 1
    guided, _ = made(folder, {"scale": 2.0, "against": "earlier"}, "guided")
    assert not np.array_equal(guided, apart)


def test_at_scale_zero_only_the_weaker_generator_speaks_and_its_record_is_kept(folder):
    apart, record = made(folder, {"scale": 0.0, "weaker": "small"}, "by_small", weaker="small.safetensors")
    alone, _ = made(folder, {"scale": 1.0}, "small_alone", generator="small.safetensors")
    assert np.abs(apart.astype(int) - alone).max() <= 1
    small = generator_file.read(folder / "small.safetensors")
    assert record.of("fit").tolist() == small.access_record.of("fit").tolist()


def test_a_generator_without_snapshot_or_of_another_kind_is_refused(folder, capsys):
    line = sample_line(folder, SYNTHETIC_SET | {"guidance": EVERYWHERE | {"scale": 2.0, "against": "earlier"}})
    assert (
        sample_ddpm.main([*line[:1], str(folder / "small.safetensors"), *line[2:], "--out", str(folder / "x.h5")]) == 1
    )
    assert "needs generator small to have a snapshot" in capsys.readouterr().err
    assert not (folder / "x.h5").exists()


@pytest.mark.parametrize(
    ("guidance", "weaker", "words"),
    [
        ({"scale": 2.0, "weaker": "small"}, None, "is not defined"),
        ({"scale": 2.0, "weaker": "unet"}, UNET, "the set's own generator"),
        ({"scale": 1.0, "weaker": "small"}, SMALL, "does nothing at guidance.scale 1"),
        ({"scale": 2.0, "weaker": "small", "against": "earlier"}, SMALL, "exclude each other"),
        ({"scale": 2.0, "weaker": "small"}, SMALL | {"pixels": "signed"}, "has another pixels"),
        ({"scale": 2.0, "weaker": "small"}, SMALL | {"sees": "unlabelled"}, "has another sees"),
        ({"scale": 2.0, "weaker": "small"}, SMALL | {"condition_on": ["line"]}, "has another condition_on"),
        ({"scale": 2.0, "weaker": "small"}, SMALL | {"pseudo_labels_from": "pool"}, "has another pseudo_labels_from"),
        ({"scale": 2.0, "weaker": "small"}, SMALL | {"noise_level": 1.0}, "has a noise_level"),
        ({"scale": 2.0}, None, "label_dropout 0 do not go together"),
        ({"scale": 2.0, "against": "earlier"}, None, None),
        ({"scale": 2.0, "weaker": "small"}, SMALL | {"sees": "labelled"}, None),
    ],
)
def test_what_does_not_go_together_is_refused_before_any_job(guidance, weaker, words):
    synthetic_set = SYNTHETIC_SET | {"guidance": EVERYWHERE | guidance}
    problem = generator_checks.set_problem(synthetic_set, KEPT, ["a", "b"], weaker)
    assert (problem is None) if words is None else (words in problem)


def test_two_scales_of_pixels_are_refused(folder, capsys):
    small = generator_file.read(folder / "small.safetensors")
    small.pixels.scale = small.pixels.scale * 1.5  # as one that comes from other images
    generator_file.write(folder / "far.safetensors", small)
    line = sample_line(folder, SYNTHETIC_SET | {"guidance": EVERYWHERE | {"scale": 2.0, "weaker": "small"}})
    assert sample_ddpm.main([*line, "--weaker", str(folder / "far.safetensors")]) == 1
    assert "other scales of pixels" in capsys.readouterr().err


def test_a_generator_that_was_always_given_channels_is_not_asked_without():
    always = KEPT | {"reference_fraction": 1, "label_dropout": 0.2}
    assert "was always given reference channels" in str(
        generator_checks.set_problem(SYNTHETIC_SET, always, ["a", "b"], None)
    )
    assert generator_checks.set_problem(SYNTHETIC_SET | {"reference_channels": ["a"]}, always, ["a", "b"], None) is None


def test_one_of_a_pair_may_be_told_which_channels_are_missing():
    """One that chooses its average on validation images is told no columns; the other gets a column of its own."""
    source = SimpleNamespace(present=np.array([[1, 1], [1, 0]], dtype=bool), size=16, channels=["a", "b"])
    entries = (UNET | {"name": "big", "ema_widths": [0.05, 0.1]}, UNET | {"name": "small"})
    pair = [generator_run._told_missing(entry, source) for entry in entries]
    assert [entry.get("condition_on", []) for entry in pair] == [[], ["missing_channels"]]
    asked = {"name": "s", "labels": "as_train", "count": 9, "sampler": "heun", "evaluations": 9}
    asked["guidance"] = {"scale": 2, "interval": [0, 99], "weaker": "small"}
    assert generator_checks.set_problem(asked, pair[0], ["a", "b"], pair[1]) is None
    shown = [entry | {"condition_on": ["line", *entry.get("condition_on", [])]} for entry in pair]
    assert "another condition_on" in generator_checks.set_problem(asked, pair[0], ["a", "b"], shown[1])
