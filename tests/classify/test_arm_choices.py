"""Every method in training: as many images at each step as every other, paired with them, and the same after a kill."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.helpers.arms_data import CHANNELS, ENTRIES, SECTION, cells
from workflow_scripts.lib.classify import (
    arm_checks,
    arm_choices,
    arm_settings,
    classifier_training,
    network_choices,
    source_choices,
    training_step,
)
from workflow_scripts.lib.compute.checkpoint import Resume

pytestmark = pytest.mark.usefixtures("one_thread")

SHORT = SECTION | {"steps": 6, "checkpoints": 2}
REAL = classifier_training.Images(*cells(24, 1))
MADE = classifier_training.Images(*cells(10, 2), synthetic=True, weights=np.linspace(0.5, 1.5, 10))
FILLED = classifier_training.Images(
    MADE.pixels[:0], MADE.labels, True, features=np.random.default_rng(1).normal(size=(10, 128)).astype(np.float32)
)
CHECK = classifier_training.Images(*cells(12, 3))
# Methods that take other real images than the rest, or them otherwise, by what they are.
UNPAIRED = [
    name
    for name, method in arm_choices.METHODS.items()
    if method.balanced or method.step in ("second_only", "strong_augment")
]

# One method of each kind of step: with the same second source here, others of its kind would be the same twice.
DIFFERENT = {
    (method.step, method.balanced): name for name, method in arm_choices.METHODS.items() if not method.generator
}.values()


def settings_of(name, **changes):
    return arm_settings.effective(ENTRIES[name], SHORT | changes)


def made_for(name):
    """The second source of a method: images, or features of these."""
    return FILLED if arm_choices.METHODS[name].second_source in source_choices.FEATURES else MADE


def observe(name, monkeypatch):
    """Initial weights, and by step what was asked of each source and the real images that were given."""
    asked, given, initial = [{} for _ in range(SHORT["steps"])], {}, {}
    batch, start = training_step.Source.batch, classifier_training.Trainer.__init__
    strong, points = training_step.Source.strong, training_step.Source.points

    def spy(self, step, count):
        out = batch(self, step, count)
        asked[step][self.name] = asked[step].get(self.name, 0) + count
        if self.name == "real":
            given[step] = out.images.clone()
        return out

    def viewed(self, step, count):
        asked[step][self.name] = asked[step].get(self.name, 0) + count
        return strong(self, step, count)

    def filled(self, step, count):
        asked[step][self.name] = asked[step].get(self.name, 0) + count
        return points(self, step, count)

    def started(self, *args, **more):
        start(self, *args, **more)
        initial.update({key: value.clone() for key, value in self.network.state_dict().items()})

    with monkeypatch.context() as patch:
        patch.setattr(training_step.Source, "batch", spy)
        patch.setattr(training_step.Source, "strong", viewed)
        patch.setattr(training_step.Source, "points", filled)
        patch.setattr(classifier_training.Trainer, "__init__", started)
        patch.setattr(Resume, "load", lambda self: None)
        patch.setattr(Resume, "save", lambda self, state: None)
        nowhere = Resume(Path(os.devnull), "none")
        found = classifier_training.train(settings_of(name), REAL, made_for(name), CHECK, 5, nowhere)
    return initial, asked, given, found


@pytest.fixture(scope="module")
def baseline():
    with pytest.MonkeyPatch.context() as patch:
        return observe("real_only", patch)


# Those with the encoder of a generator do as real_only does, with another network.
@pytest.mark.parametrize("name", [name for name in ENTRIES if not arm_choices.METHODS[name].generator])
def test_same_steps_same_images_a_step_same_start_and_the_same_real_images(name, monkeypatch, baseline):
    weights, asked, given, found = observe(name, monkeypatch)
    method = arm_choices.METHODS[name]
    # FixMatch alone sees images of the second source twice over; the costs count on it.
    each = SHORT["batch"] + (4 if name == "fixmatch" else 0)
    assert [sum(step.values()) for step in asked] == [each] * SHORT["steps"]
    assert found.numbers["images_seen"] == each * SHORT["steps"]
    assert arm_settings.seen_in_batch(settings_of(name)) == each
    assert found.numbers["real_seen"] == sum(step.get("real", 0) for step in asked)
    assert any("partners" in step for step in asked) == (method.second_source is not None)
    assert all(torch.equal(weights[key], value) for key, value in baseline[0].items())
    if name not in UNPAIRED:
        assert given, "it sees real images"
        for step, images in given.items():
            assert torch.allclose(images, baseline[2][step][: len(images)], atol=1e-6)
    assert all(np.isfinite(found.history["loss"]))
    # What else it does, it does not do what the baseline does; two_baselines is told another seed, not here.
    if name not in ("real_only", "two_baselines"):
        assert not torch.equal(found.weights["head.weight"], baseline[3].weights["head.weight"])


def test_the_second_source_comes_and_goes_as_they_should(monkeypatch):
    asked = observe("pretrain_finetune", monkeypatch)[1]
    assert [sorted(step) for step in asked] == [["partners"]] * 2 + [["real"]] * 4
    fractions = [step.get("partners", 0) for step in observe("anneal", monkeypatch)[1]]
    assert fractions[0] == 4
    assert fractions == sorted(fractions, reverse=True)
    assert fractions[-1] <= 1


@pytest.mark.parametrize("name", DIFFERENT)
def test_killed_and_resumed_equals_undisturbed(tmp_path, monkeypatch, name):
    resumed(tmp_path, monkeypatch, settings_of(name), 60.0)


def test_so_it_does_with_another_loss_saved_at_every_step(tmp_path, monkeypatch):
    resumed(tmp_path, monkeypatch, settings_of("mix_loss", loss="arcface"), 0.0)


def resumed(tmp_path, monkeypatch, settings, save_every):
    monkeypatch.setenv("MIXLOC_CHECKPOINT_SECONDS", str(save_every))
    made = made_for(settings["name"])
    whole = classifier_training.train(settings, REAL, made, CHECK, 5, Resume(tmp_path / "a.pt", "d"))

    def killed(step, numbers):
        if step == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        classifier_training.train(settings, REAL, made, CHECK, 5, Resume(tmp_path / "b.pt", "d"), killed)
    # Whatever was drawn meanwhile must not matter.
    torch.rand(7)
    steps = []
    resume = Resume(tmp_path / "b.pt", "d")
    again = classifier_training.train(settings, REAL, made, CHECK, 5, resume, lambda number, _: steps.append(number))
    # From the checkpoint after step 3, or, saved after every step, from the middle between two checkpoints.
    assert steps[0] == (4 if save_every else 6)
    assert all(torch.equal(whole.weights[key], again.weights[key]) for key in whole.weights)
    for key in classifier_training.HISTORY:
        if key != "seconds":
            assert whole.history[key] == again.history[key], key
    first, second = ({k: v for k, v in found.numbers.items() if k != "seconds"} for found in (whole, again))
    assert first == second


def test_a_head_on_the_baseline_leaves_its_trunk_as_it_is(tmp_path):
    first = classifier_training.train(settings_of("real_only"), REAL, None, CHECK, 5, Resume(tmp_path / "a.pt", "d"))
    trunk = {key.removeprefix("trunk."): value for key, value in first.weights.items() if key.startswith("trunk.")}
    mean, std = first.mean + 0.1, 2 * first.std
    start = classifier_training.Start(trunk, mean, std)
    settings, resume = settings_of("feature_fill"), Resume(tmp_path / "b.pt", "d")
    found = classifier_training.train(settings, REAL, FILLED, CHECK, 5, resume, start=start)
    for key, value in first.weights.items():
        assert torch.equal(found.weights[key], value) == key.startswith("trunk."), key
    assert torch.equal(found.mean, mean) and torch.equal(found.std, std), "the scale of pixels that the trunk knows"


def test_balanced_sampling_shows_every_class_equally_often(tmp_path):
    labels = np.zeros((30, 3), dtype=np.uint8)
    labels[:24, 0], labels[24:28, 1], labels[28:, 2] = 1, 1, 1
    real = classifier_training.Images(cells(30, 1)[0], labels)
    for sampling, low, high in (("balanced", 0.9, 1.1), ("each_once", 5, 7)):
        step = classifier_training.Trainer(
            settings_of("pool", sampling=sampling), real, MADE, 5, torch.device("cpu")
        ).step
        seen = 0
        for step.number in range(90):
            seen = seen + step.real(8).targets.sum(dim=0)
        assert low < float(seen[0] / seen[1]) < high, sampling
    # Each of the images of the commonest class comes as often as the others.
    rows = classifier_training.Trainer(
        settings_of("balanced_real"), real, None, 5, torch.device("cpu")
    ).step.real_source.images.rows
    assert set(np.bincount(rows, minlength=30)) == {1, 6, 12}


def test_weights_follow_their_images():
    step = classifier_training.Trainer(settings_of("weighted"), REAL, MADE, 5, torch.device("cpu")).step
    for number in range(4):
        step.number = number
        batch, weights = step.second(4), step.weights(4)
        index = step.second_source.order.batch(number, SHORT["batch"])[:4]
        assert np.allclose(weights.numpy(), MADE.weights[index])
        assert np.array_equal(batch.targets.numpy(), MADE.labels[index])


def test_partner_images_leave_no_trace_in_the_statistics():
    step = classifier_training.Trainer(settings_of("split_batchnorm"), REAL, MADE, 5, torch.device("cpu")).step
    norms = {key: value.clone() for key, value in step.network.state_dict().items() if "running" in key}
    images = step.second(6).images
    with torch.no_grad():
        apart, together = step.features_apart(images), step.network.trunk(images)
    assert torch.allclose(apart, together.float(), atol=0.1), "normalised by themselves, as any batch"
    after = step.network.state_dict()
    moved = [key for key, value in norms.items() if not torch.equal(after[key], value)]
    assert moved, "an ordinary batch does leave a trace"
    step.network.load_state_dict(norms, strict=False)
    with torch.no_grad():
        step.features_apart(images)
    assert all(torch.equal(step.network.state_dict()[key], value) for key, value in norms.items())


@pytest.mark.parametrize("loss", network_choices.LOSSES)
def test_every_loss_learns(tmp_path, loss):
    settings = settings_of("real_only", loss=loss, steps=40, batch=16, learning_rate=0.005)
    real, check = classifier_training.Images(*cells(100, 1)), classifier_training.Images(*cells(60, 2))
    found = classifier_training.train(settings, real, None, check, 5, Resume(tmp_path / "a.pt", "d"))
    # By chance about 0.4, the prevalence.
    assert found.numbers["best_validation_map"] > 0.8


def steps_of(method: str, **options) -> int:
    return arm_settings.effective(ENTRIES[method] | options, SECTION | {"steps": 100})["steps"]


def test_a_budget_multiplies_the_steps() -> None:
    assert steps_of("pool") == 100 and steps_of("pool", budget=1.5) == 150
    # A batch of 8 at ratio 1 has four real images, at ratio 3 two; pairs have a half.
    assert steps_of("pool", budget="equal_exposures") == 200
    assert steps_of("robust", budget="equal_exposures", ratio=3.0) == 400
    assert steps_of("mix_loss", budget="equal_exposures") == 200
    assert steps_of("real_only", budget="equal_exposures") == 100
    for method in ("anneal", "pretrain_finetune", "synthetic_only"):
        problem = arm_checks.problem(ENTRIES[method] | {"budget": "equal_exposures"}, SECTION, CHANNELS)
        assert "equal_exposures" in problem and method in problem
