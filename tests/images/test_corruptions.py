"""Corruptions against cases worked by hand: what each does to an image, and that it is the same wherever it is made."""

import numpy as np
import pytest
import torch

from workflow_scripts.lib.images import corruption_choices, corruptions
from workflow_scripts.lib.images.corruption_choices import CLEAN, CORRUPTIONS, LEVELS

NAMES = list(CORRUPTIONS)


def flat(count: int = 4, channels: int = 2, value: int = 100, size: int = 32) -> np.ndarray:
    return np.full((count, channels, size, size), value, dtype=np.uint8)


def made(name: str, level: int, images: np.ndarray, seed: int = 3) -> np.ndarray:
    found = corruptions.corrupt(images, name, level, seed)
    assert found.dtype == torch.uint8 and found.shape == images.shape
    return found.numpy().astype(int)


@pytest.mark.parametrize("name", NAMES)
def test_equal_seeds_give_equal_images_and_the_given_ones_stay(name):
    images = np.random.default_rng(1).integers(0, 256, (5, 3, 16, 16)).astype(np.uint8)
    before = images.copy()
    assert np.array_equal(made(name, 3, images), made(name, 3, images))
    assert np.array_equal(images, before)
    assert np.array_equal(made(name, 0, images), images) and np.array_equal(made(CLEAN, 0, images), images)
    assert made(name, 1, images[:0]).shape == (0, 3, 16, 16)


@pytest.mark.parametrize("name", NAMES)
def test_a_higher_level_changes_an_image_more(name):
    images = np.random.default_rng(2).integers(0, 200, (8, 2, 32, 32)).astype(np.uint8)
    images[:, :, :16] //= 4
    changes = [np.abs(made(name, level, images) - images).mean() for level in range(1, LEVELS + 1)]
    assert changes == sorted(changes) and changes[0] > 0.5


def test_defocus_spreads_a_point_to_a_gaussian_and_keeps_its_light():
    images = np.zeros((1, 1, 33, 33), dtype=np.uint8)
    images[0, 0, 16, 16] = 255
    strength = 0.06
    blurred = corruptions.defocus(torch.as_tensor(images).double(), strength, torch.Generator())[0, 0]
    assert float(blurred.sum()) == pytest.approx(255)
    deviation = strength * 33
    assert float(blurred[16, 18] / blurred[16, 16]) == pytest.approx(np.exp(-0.5 * (2 / deviation) ** 2))
    assert torch.allclose(blurred, blurred.T)
    assert (made("defocus", 5, flat()) == 100).all(), "mirrored at the edge, nothing is lost there"


def test_shot_noise_has_the_mean_and_variance_of_photons():
    noisy = made("shot_noise", 2, flat(20, 2, 100))
    photons = 80 * 100 / 255
    assert noisy.mean() == pytest.approx(100, abs=0.5)
    assert noisy.var() == pytest.approx(photons * (255 / 80) ** 2, rel=0.03)
    assert (made("shot_noise", 2, flat(value=0)) == 0).all()


def test_weak_staining_dims_one_channel_of_each_image():
    found = made("weak_staining", 2, flat(40, 3))
    means = found.mean(axis=(2, 3))
    assert (np.sort(means, axis=1) == [50, 100, 100]).all()
    assert len(set(means.argmin(axis=1))) == 3, "not always the same one"


def test_illumination_turns_about_the_middle():
    found = made("illumination_gradient", 3, flat(30, 2))
    assert found.mean(axis=(2, 3)) == pytest.approx(np.full((30, 2), 100), abs=1)
    assert np.array_equal(found[:, 0], found[:, 1]), "light falls on all channels alike"
    edges = found.max(axis=(1, 2, 3))
    assert (edges > 140).all() and (edges < 100 * (1 + 0.45 * 2**0.5) + 1).all()


def test_bleed_through_adds_the_next_channel():
    images = flat(1, 3, 0)
    images[0, 1] = 100
    assert made("bleed_through", 3, images)[0, :, 0, 0].tolist() == [35, 100, 0]
    assert corruption_choices.wanted("all", 1) == [name for name in NAMES if name != "bleed_through"]


def test_the_intensity_scale_is_shifted_both_ways():
    found = made("intensity_scale", 2, flat(40))
    levels = {round(100 * np.exp(0.3)), round(100 * np.exp(-0.3))}
    assert set(np.unique(found)) == levels
    assert (made("intensity_scale", 5, flat(40, value=200)).max(axis=(1, 2, 3)) >= 74).all()
    assert made("intensity_scale", 5, flat(40, value=200)).max() == 255, "bright pixels saturate"


def test_every_corruption_has_five_rising_strengths():
    conditions = corruption_choices.conditions(NAMES)
    assert len(conditions) == 5 * len(NAMES) and conditions[:2] == [(NAMES[0], 1), (NAMES[0], 2)]
    for facts in CORRUPTIONS.values():
        steps = np.diff(facts.strengths)
        assert len(facts.strengths) == LEVELS and ((steps > 0).all() or (steps < 0).all())
