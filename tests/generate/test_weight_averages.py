"""Averages of weights whose width is chosen after training, against closed forms and averages that were followed."""

import logging

import numpy as np
import pytest
import torch

from tests.helpers.generating import UNET, make_data, train_line
from workflow_scripts import train_ddpm
from workflow_scripts.lib.compute import multiprocess
from workflow_scripts.lib.generate import average_choice, generator_file, weight_averages
from workflow_scripts.lib.generate.generator_training import Pixels, Trained
from workflow_scripts.lib.generate.weight_averages import PowerAverage, TrackedAverages, ema_exponent

# Tiny tensors gain nothing from threads, and lose much where other processes want the cores.
torch.set_num_threads(1)

STEPS = 2000
WIDTHS = (0.05, 0.08, 0.12, 0.2, 0.25)


def course(step):
    """Weights of a training at a step: three powers of time, whose averages are known, and an oscillation."""
    t = step / STEPS
    return torch.tensor([1.0, t, t**3, 0.1 * float(np.cos(40 * t))])


@pytest.fixture(scope="module")
def tracked():
    averages = TrackedAverages(course(0), STEPS)
    for step in range(1, STEPS + 1):
        for average in averages.live:
            average.prepare(step)
            average.update(course(step))
        averages.keep(step)
    return averages


@pytest.mark.parametrize("width", WIDTHS)
def test_a_formed_average_of_powers_of_time_has_its_closed_form(tracked, width):
    # The average of t^k under the profile (g + 1) t^g on [0, 1] is (g + 1) / (g + k + 1).
    gamma = ema_exponent(width)
    expected = [(gamma + 1) / (gamma + k + 1) for k in (0, 1, 3)]
    assert tracked.formed(width)[:3].tolist() == pytest.approx(expected, rel=3e-3)


@pytest.mark.parametrize("width", WIDTHS)
def test_a_formed_average_is_that_which_would_have_been_followed(tracked, width):
    followed = PowerAverage(course(0), width)
    for step in range(1, STEPS + 1):
        followed.prepare(step)
        followed.update(course(step))
    assert torch.allclose(tracked.formed(width), followed.values, atol=3e-3)


def test_an_average_of_a_followed_width_is_the_followed_one(tracked):
    for width, average in zip(weight_averages.TRACKED, tracked.live, strict=True):
        assert torch.allclose(tracked.formed(width), average.values, atol=1e-6)


def test_profiles_of_copies_add_up_to_the_wanted_profile():
    steps = [round(STEPS * number / 16) for number in range(1, 17)]
    copies = [(width, step) for step in steps for width in weight_averages.TRACKED]
    time = np.linspace(1e-3, STEPS, 20_001)

    def profile(width, end):
        gamma = ema_exponent(width)
        return np.where(time <= end, (gamma + 1) * (time / end) ** gamma / end, 0.0)

    for width, most in ((0.03, 0.05), (0.05, 0.001), (0.1, 0.01), (0.25, 0.02)):
        parts = weight_averages.combination(copies, width, STEPS)
        wanted = profile(width, STEPS)
        error = sum(part * profile(*copy) for part, copy in zip(parts, copies, strict=True)) - wanted
        assert np.sqrt((error**2).mean() / (wanted**2).mean()) < most, width


# In a training -------------------------------------------------------------------------------------------------------

CHOOSING = UNET | {"steps": 20, "ema_widths": [0.05, 0.1, 0.25]}


def test_the_width_of_lowest_validation_loss_is_taken_and_its_images_are_on_record(tmp_path, monkeypatch):
    monkeypatch.setattr(average_choice, "EXAMPLES", 64)
    make_data(tmp_path)
    assert train_ddpm.main(train_line(tmp_path, CHOOSING)) == 0
    made = generator_file.read(tmp_path / "g.safetensors")
    losses = dict(made.average["losses"])
    assert set(losses) == {0.05, 0.1, 0.25} and losses[made.average["width"]] == min(losses.values())
    assert made.access_record.of("select").tolist() == list(range(0, 40, 8)), "the validation part, for selection"
    assert made.access_record.of("fit").tolist() == [i for i in range(40) if i % 4]
    # Nothing of the training itself depends on it.
    assert train_ddpm.main(train_line(tmp_path, UNET | {"steps": 20, "ema_width": 0.05}, "plain.safetensors")) == 0
    plain = generator_file.read(tmp_path / "plain.safetensors")
    assert plain.average == {} and "select" not in plain.access_record.rows
    if made.average["width"] == 0.05:
        assert all(torch.allclose(made.weights[name], plain.weights[name], atol=1e-5) for name in plain.weights)


def test_the_choice_follows_the_loss(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(average_choice, "EXAMPLES", 64)
    images, labels = make_data(tmp_path)
    pixels = Pixels.fitted("standardised", images)
    assert train_ddpm.main(train_line(tmp_path, UNET | {"steps": 40})) == 0
    good = generator_file.read(tmp_path / "g.safetensors").weights
    bad = good | {"head_gain": -good["head_gain"]}
    trained = Trained(good, [], 0.0, None, {0.05: bad, 0.1: good})
    monkeypatch.setattr(logging.getLogger("mixloc"), "propagate", True)
    how = (UNET, pixels, 1, torch.device("cpu"), torch.float32)
    with caplog.at_level(logging.INFO, "mixloc"):
        weights, about = average_choice.chosen_weights(trained, (images[::4], labels[::4]), *how)
    assert weights is good and about["width"] == 0.1 and "validation part: 0.1 (" in caplog.text
    again = average_choice.validation_losses(trained.candidates, (images[::4], labels[::4]), *how)
    assert list(again.items()) == about["losses"]
    # The first of several processes chooses alone: on all noise levels, and not on its part of them.
    monkeypatch.setattr(multiprocess, "part", lambda count: slice(0, count // 2))
    assert average_choice.validation_losses(trained.candidates, (images[::4], labels[::4]), *how) == again
