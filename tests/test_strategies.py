"""The methods against values worked out by hand, and the rules for which arms may exist."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from arms_data import CHANNELS, SECTION

from workflow_scripts.lib import arms, losses, strategies
from workflow_scripts.lib.resampling import matching_rows
from workflow_scripts.lib.strategies import Batch


class HandStep:
    """A step with known images, λ and network: the representation is the image's mean, one logit is twice it."""

    number, steps, batch = 0, 10, 4

    def __init__(self, **settings):
        self.settings = settings
        self.asked = {"real": 0, "partners": 0}

    def _batch(self, values, targets, count):
        images = torch.tensor(values)[:count, None, None, None].expand(-1, 1, 2, 2)
        return Batch(images, torch.tensor(targets)[:count, None])

    def real(self, count):
        self.asked["real"] += count
        return self._batch([0.5, -1.0, 2.0, 0.0], [1.0, 0.0, 1.0, 0.0], count)

    def partners(self, count):
        self.asked["partners"] += count
        return self._batch([-0.5, 3.0, 1.0, 1.0], [0.0, 1.0, 1.0, 1.0], count)

    def lambdas(self, count):
        return torch.tensor([0.9, 0.2, 0.5, 0.5])[:count]

    def features(self, images):
        return images.mean(dim=(2, 3))

    def head(self, features):
        return 2 * features

    def loss(self, logits, targets):
        return losses.LOSSES["bce"](torch.ones(1), 1)(logits, targets)


def bce(value, target):
    """Binary cross-entropy of the hand network."""
    probability = 1 / (1 + np.exp(-2 * value))
    return -(target * np.log(probability) + (1 - target) * np.log(1 - probability))


def run(name, **settings):
    step = HandStep(**settings)
    return float(strategies.of(name)(step)), step.asked


def test_mix_loss_weighs_each_pair_by_its_own_lambda():
    found, asked = run("mix_loss")
    pairs = [0.9 * bce(0.5, 1) + 0.1 * bce(-0.5, 0), 0.2 * bce(-1.0, 0) + 0.8 * bce(3.0, 1)]
    assert found == pytest.approx(np.mean(pairs), rel=1e-5)
    # What is left when losses are averaged before they are weighed is another number.
    real, partner = np.mean([bce(0.5, 1), bce(-1.0, 0)]), np.mean([bce(-0.5, 0), bce(3.0, 1)])
    assert found != pytest.approx(0.55 * real + 0.45 * partner, rel=1e-3)
    assert asked == {"real": 2, "partners": 2}


def test_mix_representation_mixes_features_and_targets():
    found, asked = run("mix_representation")
    pairs = [bce(0.9 * 0.5 - 0.1 * 0.5, 0.9), bce(0.2 * -1.0 + 0.8 * 3.0, 0.8)]
    assert found == pytest.approx(np.mean(pairs), rel=1e-5)
    assert asked == {"real": 2, "partners": 2}


def test_pool_and_single_sources():
    found, asked = run("pool", ratio=1 / 3)
    expected = [bce(0.5, 1), bce(-1.0, 0), bce(2.0, 1), bce(-0.5, 0)]
    assert found == pytest.approx(np.mean(expected), rel=1e-5)
    assert asked == {"real": 3, "partners": 1}
    assert run("real_only")[1] == {"real": 4, "partners": 0}
    assert run("synthetic_only")[1] == {"real": 0, "partners": 4}


@pytest.mark.parametrize("name", arms.METHODS)
def test_every_method_uses_equally_many_images(name):
    asked = run(name, ratio=1.0)[1]
    assert sum(asked.values()) == HandStep.batch
    assert (asked["partners"] > 0) == (arms.METHODS[name].partners is not None)


def test_controls_do_the_same_with_other_images():
    for method in arms.METHODS.values():
        if method.control:
            control = arms.METHODS[method.control]
            assert (control.step, control.options) == (method.step, method.options)
            assert method.partners == arms.SYNTHETIC
            assert control.partners in (arms.REAL, arms.RESAMPLED)


def test_registries_agree():
    assert {method.step for method in arms.METHODS.values()} <= set(strategies.STEPS)
    assert set(losses.LOSSES) == set(arms.LOSSES)


def test_loss_is_one_value_an_image():
    logits, targets = torch.randn(5, 3), torch.rand(5, 3)
    found = losses.LOSSES["bce"](torch.ones(3), 5)(logits, targets)
    expected = torch.nn.functional.binary_cross_entropy_with_logits(logits, targets)
    assert found.shape == (5,)
    assert float(found.mean()) == pytest.approx(float(expected), rel=1e-6)


@pytest.mark.parametrize(
    ("entry", "change", "words"),
    [
        ({"method": "mix_loss", "ratio": 1.0}, {}, "ratio is given"),
        ({"method": "real_only", "colour": 1}, {}, "colour is given"),
        ({"method": "pool", "ratio": 0.01}, {}, "ratio = 0.01"),
        ({"method": "mix_loss"}, {"batch": 7}, "must be even"),
        ({"method": "real_only", "backbone": "vgg"}, {}, "'vgg' is not known"),
        ({"method": "real_only", "loss": "hinge"}, {}, "'hinge' is not known"),
        ({"method": "real_only", "backbone": "resnet18"}, {}, "32 px"),
        ({"method": "real_only", "channels": ["red", "gold"]}, {}, "'gold'"),
        ({"method": "real_only"}, {"checkpoints": 99}, "more than its 12 steps"),
    ],
)
def test_impossible_arms_are_named(entry, change, words):
    problem = arms.problem({"name": "a"} | entry, SECTION | change, CHANNELS, size=16)
    assert problem is not None
    assert words in problem
    assert "\n" not in problem


def test_networks_without_batchnorm_are_refused_where_it_is_needed(monkeypatch):
    monkeypatch.setitem(arms.METHODS, "split", arms.Method("real_only", needs_batchnorm=True))
    monkeypatch.setitem(arms.BACKBONES, "plain", arms.Backbone(has_batchnorm=False, smallest=8))
    assert arms.problem({"name": "a", "method": "split"}, SECTION, CHANNELS) is None
    assert "no BatchNorm" in arms.problem({"name": "a", "method": "split", "backbone": "plain"}, SECTION, CHANNELS)


def test_only_what_acts_in_an_arm_is_part_of_it():
    pool = arms.effective({"name": "p", "method": "pool", "plan": "x", "control": "c", "ratio": 2.0}, SECTION)
    assert pool["ratio"] == 2.0
    assert "alpha" not in pool
    assert "control" not in pool
    assert arms.effective({"name": "p", "method": "mix_loss"}, SECTION)["alpha"] == SECTION["alpha"]


def test_description_of_arms_needs_no_torch():
    text = "import sys; from workflow_scripts.lib import arms; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", text], check=False).returncode == 0


def test_resampling_keeps_label_combinations_and_variety():
    available = np.array([[1, 0, 0]] * 6 + [[1, 1, 0]] * 2 + [[0, 0, 1]] * 3)
    wanted = np.array([[1, 0, 0]] * 4 + [[1, 1, 0]] * 5 + [[0, 1, 0]] * 2 + [[0, 1, 1]] * 3)
    rows = matching_rows(available, wanted, np.random.default_rng(1))
    assert np.array_equal(available[rows[:9]], wanted[:9])
    assert len(set(rows[:4])) == 4, "no image twice while others are left"
    assert sorted(np.bincount(rows[4:9])[6:8]) == [2, 3], "as equally often as possible"
    # Unknown combinations: {1} overlaps {0, 1} by 1/2; {1, 2} overlaps {2} by 1/2 and {0, 1} by 1/3.
    assert set(rows[9:11]) <= {6, 7}
    assert set(rows[11:]) == {8, 9, 10}


def test_resampling_of_images_without_labels():
    available = np.array([[0, 0], [1, 0], [0, 0]])
    rows = matching_rows(available, np.zeros((4, 2)), np.random.default_rng(1))
    assert set(rows) == {0, 2}
