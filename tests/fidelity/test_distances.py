"""The estimators of fidelity against closed forms and constructed sets."""

from __future__ import annotations

import tracemalloc
from functools import partial

import numpy as np
import pytest

from tests.helpers.blobs import blobs
from tests.helpers.peak import peak_bytes
from workflow_scripts.lib.base import pairwise
from workflow_scripts.lib.fidelity import distances
from workflow_scripts.lib.fidelity.distances import Sample
from workflow_scripts.lib.images import spectra


def sample(features: np.ndarray, groups: np.ndarray | None = None) -> Sample:
    features = np.asarray(features, dtype=np.float32)
    none = np.zeros((len(features), 1), dtype=np.float32)
    return Sample(features, features, none, none, np.arange(len(features)) if groups is None else groups)


def compared(real: Sample, made: Sample) -> dict[str, float]:
    return distances.compare(distances.summarise(real), distances.summarise(made))


def gaussian(rng: np.random.Generator, count: int, mean: np.ndarray, spread: np.ndarray) -> np.ndarray:
    return mean + spread * rng.standard_normal((count, len(mean)))


def test_frechet_distance_of_gaussians_has_a_closed_form() -> None:
    dimensions, count = 32, 160
    mean, one, two = np.zeros(dimensions), np.linspace(2, 0.2, dimensions), np.linspace(0.4, 1.5, dimensions)
    shifted = mean + 0.2
    # Independent coordinates: |m1 - m2|^2 + sum of (s1 - s2)^2, here by the variance of real images.
    truth = ((mean - shifted) ** 2 + (one - two) ** 2).sum() / (one**2).sum()
    corrected, plain = [], []
    for seed in range(6):
        rng = np.random.default_rng(seed)
        real, made = sample(gaussian(rng, count, mean, one)), sample(gaussian(rng, count, shifted, two))
        plain.append(compared(real, made)["frechet"])
        corrected.append(distances.estimates(real, {"made": made}, rng, 20, 0.95)["made"]["frechet"].value)
    assert np.mean(plain) > 1.1 * truth, "five images a dimension are too few without a correction"
    assert np.mean(corrected) == pytest.approx(truth, rel=0.04)


def test_frechet_distance_sees_rotated_covariances() -> None:
    rng = np.random.default_rng(1)
    turn = np.linalg.qr(rng.standard_normal((4, 4)))[0]
    spread = np.diag([4.0, 1.0, 0.5, 0.1])
    one, two = spread, turn @ spread @ turn.T
    inner = distances.root(one) @ two @ distances.root(one)
    truth = np.trace(one + two) - 2 * np.sqrt(np.linalg.eigvalsh(inner)).sum()
    # Samples with exactly these covariances and mean zero.
    white = rng.standard_normal((400, 4))
    white -= white.mean(axis=0)
    white = white @ np.linalg.inv(np.linalg.cholesky(np.cov(white, rowvar=False)).T)
    real, made = sample(white @ np.linalg.cholesky(one).T), sample(white @ np.linalg.cholesky(two).T)
    assert compared(real, made)["frechet"] == pytest.approx(truth / np.trace(one), rel=1e-3)


@pytest.mark.parametrize("shift", [0.0, 4.0])
def test_a_frechet_distance_in_fewer_dimensions_is_comparable(shift: float) -> None:
    # Generated images have half of the spread in every direction, whichever of these the distance sees.
    rng, spread = np.random.default_rng(2), 1 / np.arange(1, 65) ** 0.5
    spread /= np.sqrt(np.mean(spread**2))  # in units of the mean variance, as the judge measures
    real, made = rng.standard_normal((4000, 64)) * spread, rng.standard_normal((4000, 64)) * 0.5 * spread
    made[:, 40] += shift
    found = []
    for kept in (64, 16, 4):
        axes = distances.main_axes([real.astype(np.float32), made.astype(np.float32)], kept)
        both = [Sample(part, part @ axes, part[:, :1], part[:, :1], np.arange(4000)) for part in
                (real.astype(np.float32), made.astype(np.float32))]  # fmt: skip
        found.append(compared(*both)["frechet"])
    assert found == pytest.approx([0.25 + shift**2 / 64] * 3, rel=0.1)


def test_equal_distributions_have_no_distance_also_with_few_groups() -> None:
    # Images of a group are alike: an estimate that took them for independent would find a distance.
    found = {"frechet": [], "kid": []}
    for seed in range(30):
        rng = np.random.default_rng(seed)
        both = []
        for _ in range(2):
            groups = np.repeat(np.arange(40), 4)
            features = rng.standard_normal((40, 8))[groups] + 0.3 * rng.standard_normal((160, 8))
            both.append(sample(features, groups))
        estimate = distances.estimates(both[0], {"made": both[1]}, rng, 16, 0.95)["made"]
        for name, values in found.items():
            values.append(estimate[name].value)
    for name, values in found.items():
        assert abs(np.mean(values)) < 4 * np.std(values) / np.sqrt(len(values)), name
    assert abs(np.mean(found["frechet"])) < 0.01


def test_kernel_distance_is_that_of_the_definition() -> None:
    rng = np.random.default_rng(3)
    x, y = rng.standard_normal((30, 5)), rng.standard_normal((20, 5)) + 0.5

    def kernel(a: np.ndarray, b: np.ndarray) -> float:
        return (a @ b / 5 + 1) ** 3

    within = [np.mean([kernel(a, b) for i, a in enumerate(z) for j, b in enumerate(z) if i != j]) for z in (x, y)]
    truth = sum(within) - 2 * np.mean([kernel(a, b) for a in x for b in y])
    assert compared(sample(x), sample(y))["kid"] == pytest.approx(truth, rel=1e-4)


def test_gaussian_mmd_is_that_of_the_definition_and_of_gaussians() -> None:
    rng = np.random.default_rng(3)
    x, y = rng.standard_normal((30, 5)), rng.standard_normal((20, 5)) + 0.5
    groups = np.arange(30) // 2

    def kernel(a: np.ndarray, b: np.ndarray) -> float:
        return float(np.exp(-((a - b) ** 2).sum() / 10))

    own = np.mean([kernel(a, b) for i, a in enumerate(x) for j, b in enumerate(x) if groups[i] != groups[j]])
    other = np.mean([kernel(a, b) for i, a in enumerate(y) for j, b in enumerate(y) if i != j])
    truth = own + other - 2 * np.mean([kernel(a, b) for a in x for b in y])
    assert compared(sample(x, groups), sample(y))["mmd"] == pytest.approx(truth, rel=1e-4)
    # Of normal features, (D / (D + 2)) ** (D / 2) times 2 (1 - exp(-|shift|^2 / (2 D + 4))).
    shift, dimensions = 0.6, 8
    x, y = rng.standard_normal((2000, dimensions)), rng.standard_normal((2000, dimensions)) + shift
    closed = (dimensions / (dimensions + 2)) ** (dimensions / 2)
    closed *= 2 * (1 - np.exp(-dimensions * shift**2 / (2 * dimensions + 4)))
    assert compared(sample(x), sample(y))["mmd"] == pytest.approx(closed, rel=0.05)


@pytest.mark.parametrize("repeats", [1, 30])
def test_vendi_score_counts_different_images(repeats: int) -> None:
    # So many times each of ten directions, whatever their lengths: ten images in effect.
    ten = np.repeat(3 * np.eye(10, 20), repeats, axis=0)
    assert distances.vendi(ten) == pytest.approx(10)
    assert distances.vendi(np.ones((5 * repeats, 3))) == pytest.approx(1)
    # Two directions with frequencies 1/4 and 3/4.
    uneven = np.repeat(np.eye(2), [repeats, 3 * repeats], axis=0)
    assert distances.vendi(uneven) == pytest.approx(4 / 27**0.25, rel=1e-6)


@pytest.fixture
def clusters() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(4)
    return rng.uniform(0, 1, (200, 2)), rng.uniform(0, 1, (200, 2)) + 100


def test_precision_recall_density_and_coverage_of_constructed_sets(clusters: tuple[np.ndarray, np.ndarray]) -> None:
    here, there = clusters
    rng = np.random.default_rng(5)
    again = rng.uniform(0.05, 0.95, (200, 2))
    same = compared(sample(here), sample(here.copy()))
    assert (same["precision"], same["recall"], same["coverage"]) == (1, 1, 1)
    # In every ball lie its own image and BALL_DENSE neighbours, the last on its edge.
    assert same["density"] == pytest.approx((distances.BALL_DENSE + 1) / distances.BALL_DENSE, abs=0.03)
    apart = compared(sample(here), sample(there))
    assert (apart["precision"], apart["recall"], apart["density"], apart["coverage"]) == (0, 0, 0, 0)
    one_of_two = compared(sample(np.concatenate([here, there])), sample(again))
    assert one_of_two["precision"] > 0.9
    assert one_of_two["recall"] == pytest.approx(0.5, abs=0.05)
    assert one_of_two["coverage"] == pytest.approx(0.5, abs=0.05)
    half_rubbish = compared(sample(here), sample(np.concatenate([again, there])))
    assert half_rubbish["precision"] == pytest.approx(0.5, abs=0.05)
    assert half_rubbish["recall"] > 0.9
    # Naeem et al. 2020: of equal distributions density is 1 and coverage about 1 - 2^-k in expectation.
    equal = [compared(sample(here), sample(rng.uniform(0, 1, (200, 2)))) for _ in range(20)]
    assert np.mean([found["density"] for found in equal]) == pytest.approx(1, abs=0.1)
    assert np.mean([found["coverage"] for found in equal]) == pytest.approx(1 - 2.0**-distances.BALL_DENSE, abs=0.03)


def test_one_outlier_does_not_make_density_but_makes_precision(clusters: tuple[np.ndarray, np.ndarray]) -> None:
    here, there = clusters
    real = np.concatenate([here, [[100.5, 100.5]]])
    found = compared(sample(real), sample(there))
    assert found["precision"] == 1, "the ball around the outlier reaches back to the others"
    assert found["density"] <= 1 / distances.BALL_DENSE + 1e-9


def test_blocks_change_nothing_and_bound_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(6)
    real, made = (sample(rng.standard_normal((3000, 4))) for _ in range(2))
    whole = compared(real, made)
    monkeypatch.setattr(pairwise, "BLOCK", 64)
    tracemalloc.start()
    parts = compared(real, made)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 3000 * 3000 * 4 / 4, "a quarter of one whole matrix of distances"
    assert all(parts[name] == pytest.approx(whole[name], abs=1e-5, nan_ok=True) for name in whole)


def test_intervals_hold_the_truth_as_often_as_they_say() -> None:
    # A share that differs from group to group: intervals over images would be far too short.
    held = 0
    for seed in range(120):
        rng = np.random.default_rng(seed)
        groups = np.repeat(np.arange(30), 10)
        values = (rng.random(300) < rng.beta(0.5, 0.5, 30)[groups]).astype(float)
        found = distances.average(values, groups, rng, 60, 0.9)
        held += found.low <= 0.5 <= found.high
    assert 0.82 <= held / 120 <= 0.97


def test_intervals_of_a_frechet_distance_hold_the_truth() -> None:
    held, mean, spread = 0, np.zeros(6), np.ones(6)
    for seed in range(40):
        rng = np.random.default_rng(seed)
        real, made = sample(gaussian(rng, 120, mean, spread)), sample(gaussian(rng, 120, mean + 0.4, spread))
        found = distances.estimates(real, {"made": made}, rng, 40, 0.9)["made"]["frechet"]
        held += found.low <= 0.16 <= found.high
    assert 0.8 <= held / 40 <= 1


def test_too_few_images_give_nothing_rather_than_nonsense() -> None:
    rng = np.random.default_rng(7)
    few, many = sample(rng.standard_normal((5, 3))), sample(rng.standard_normal((50, 3)))
    one_group = sample(rng.standard_normal((50, 3)), np.zeros(50))
    for real, made in ((few, many), (many, few), (one_group, many)):
        found = distances.estimates(real, {"made": made}, rng, 10, 0.95)["made"]
        assert all(np.isnan(estimate.value) for estimate in found.values())
    assert np.isnan(distances.average(np.array([np.nan]), np.array([0]), rng, 10, 0.95).value)


def test_reduction_keeps_directions_in_which_only_generated_images_vary() -> None:
    rng = np.random.default_rng(8)
    real = rng.standard_normal((100, 10)) * ([1.0] * 3 + [0.01] * 7)
    made = rng.standard_normal((100, 10)) * ([1.0] * 3 + [0.01] * 6 + [5.0])
    axes = distances.main_axes([real, made], 4)
    assert axes.shape == (10, 4)
    assert np.linalg.norm(axes[9]) > 0.99
    assert distances.reduced(128, 100) == 25 and distances.reduced(128, 4000) == 128
    assert np.array_equal(distances.main_axes([real, made], 10), np.eye(10))


@pytest.mark.parametrize(("channels", "side"), [(1, 16), (4, 32), (8, 33)])
def test_phases_random_keep_spectrum_and_correlations(channels: int, side: int) -> None:
    images = blobs(40, channels, side, 9)
    shuffled = spectra.phase_randomised(images, np.random.default_rng(0))
    assert shuffled.dtype == np.uint8 and shuffled.shape == images.shape
    assert np.abs(shuffled.astype(int) - images).mean() > 15
    assert np.abs(images.mean(axis=(2, 3)) - shuffled.mean(axis=(2, 3))).max() < 1.5
    curves, again = spectra.power_curves(images), spectra.power_curves(shuffled)
    assert curves.shape == (40, channels * (side // 2))
    low = np.arange(curves.shape[1]) % (side // 2) < side // 8
    assert np.abs(curves.mean(axis=0) - again.mean(axis=0))[low].max() < 1.5
    links, after = spectra.channel_links(images), spectra.channel_links(shuffled)
    assert links.shape == (40, channels * (channels - 1) // 2)
    if channels > 1:
        assert links.mean() > 0.5
        assert np.abs(links - after).max() < 0.1


def test_spectrum_finds_blur_and_noise_and_survives_black_images() -> None:
    images = blobs(40, 2, 32, 10)
    rng = np.random.default_rng(0)
    curves = spectra.power_curves(images).mean(axis=0).reshape(2, 16)
    noisy = spectra.power_curves(spectra.noise(images, rng)).mean(axis=0).reshape(2, 16)
    soft = spectra.power_curves(spectra.blurred(images, rng)).mean(axis=0).reshape(2, 16)
    assert (noisy[:, 8:] > curves[:, 8:] + 10).all()
    assert (soft[:, 3:6] < curves[:, 3:6] - 5).all()
    assert np.abs(np.diff(noisy, axis=1)).max() < 1.5, "the spectrum of white noise is flat"
    black = np.zeros((3, 2, 32, 32), dtype=np.uint8)
    assert np.isfinite(spectra.power_curves(black)).all()
    assert (spectra.channel_links(black) == 0).all()


def test_degraded_images_are_made_block_by_block() -> None:
    images = blobs(100, 4, 128, 11)
    small = np.array_split(images, 4)
    for spoil in spectra.CEILINGS.values():
        # As floats all images together would take four or eight times their own size, and several times over.
        assert peak_bytes(partial(spoil, images, np.random.default_rng(0))) < images.nbytes + 50 * spectra.PIXELS
    for describe in (spectra.power_curves, spectra.channel_links):
        apart = np.concatenate([describe(part) for part in small])
        np.testing.assert_allclose(describe(images), apart, rtol=1e-4, atol=1e-5)
        assert peak_bytes(partial(describe, images)) < 40 * spectra.PIXELS
    assert np.array_equal(spectra.blurred(images, None)[-20:], spectra.blurred(images[-20:], None))
    noisy = spectra.noise(images, np.random.default_rng(0)).astype(float)
    assert noisy.mean(axis=(0, 2, 3)) == pytest.approx(images.mean(axis=(0, 2, 3)), rel=0.02)
    assert not spectra.noise(np.zeros_like(images[:3]), np.random.default_rng(0)).any(), "black stays black"


def test_axes_of_few_images_in_many_dimensions_are_those_of_the_covariance() -> None:
    rng = np.random.default_rng(3)
    spread = np.linspace(3, 0.1, 60)
    parts = [gaussian(rng, count, np.full(60, 0.3 * place), spread) for place, count in enumerate((20, 15, 18))]
    few = distances.main_axes(parts, 6)
    means = np.stack([part.mean(axis=0) for part in parts])
    whole = sum(np.cov(part, rowvar=False) for part in parts) / 3 + np.cov(means, rowvar=False)
    expected = np.linalg.eigh(whole)[1][:, -6:]
    assert np.abs(expected.T @ few) == pytest.approx(np.eye(6), abs=1e-6), "the same axes, but for their signs"
