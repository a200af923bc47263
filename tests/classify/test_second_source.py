"""The second source of images: what each holds, whence, and with which labels."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.helpers.arms_data import CHANNELS, CLASSES, ENTRIES, SECTION, SIZE, cells
from workflow_scripts.lib.base.errors import UserError
from workflow_scripts.lib.classify import (
    arm_choices,
    arm_settings,
    backbones,
    classifier_training,
    second_source,
    source_choices,
    training_step,
)
from workflow_scripts.lib.classify.classifier_file import Classifier
from workflow_scripts.lib.classify.resampling import balanced_rows, matching_pairs
from workflow_scripts.lib.images.access_record import AccessRecord
from workflow_scripts.lib.images.image_set import Part
from workflow_scripts.lib.images.image_set_writer import write_images
from workflow_scripts.lib.scores.decisions import probabilities


def part(count: int, seed: int) -> Part:
    images, labels = cells(count, seed)
    names = np.array([f"i{index}" for index in range(count)])
    return Part(images, labels, names, names, np.arange(count), AccessRecord("x", count))


def hidden(count: int, seed: int) -> Part:
    """Images of which the labels were not read."""
    out = part(count, seed)
    out.labels = None
    return out


PLATES = np.array(["a"] * 40 + ["b"] * 10 + [""] * 10, dtype=object)


@pytest.fixture(scope="module")
def synthetic(tmp_path_factory):
    path = tmp_path_factory.mktemp("made") / "syn.h5"
    images, labels = cells(40, 2)
    with write_images(path, CHANNELS, CLASSES, SIZE) as writer:
        writer.append(images, labels, [f"syn-{index}" for index in range(40)], ["synthetic"] * 40)
    return path


@pytest.fixture(scope="module")
def baseline():
    """A classifier that looks at green alone and knows nothing: two channels would not fit it."""
    mean, std = classifier_training.statistics(cells(50, 1)[0][:, 1:])
    weights = backbones.build("small", 1, 3, SIZE, seed=3).state_dict()
    settings = arm_settings.effective(ENTRIES["real_only"], SECTION)
    return Classifier("real_only", 0, 0, CLASSES, ["green"], SIZE, settings, mean, std, weights)


@pytest.fixture
def material(synthetic, baseline):
    def of(name, seed=7, **changes):
        settings = arm_settings.effective(ENTRIES[name], SECTION | changes)
        return second_source.Material(
            settings, part(60, 1), CHANNELS, seed, synthetic, baseline, part(50, 5), hidden(30, 9), PLATES
        )

    return of


@pytest.fixture(autouse=True)
def short(monkeypatch):
    monkeypatch.setattr(second_source.feature_space, "STEPS", 20)


def listed(found: classifier_training.Images) -> tuple[np.ndarray, np.ndarray]:
    """Pixels and labels image by image."""
    if found.features is not None:
        return found.features, found.labels
    rows = np.arange(len(found.pixels)) if found.rows is None else found.rows
    return found.pixels[rows], found.labels[rows]


def test_every_source_is_made_by_a_function():
    assert {method.second_source for method in arm_choices.METHODS.values()} - {None} == set(source_choices.SOURCES)
    assert all(source_choices.SOURCES.function(name, vars(second_source)) for name in source_choices.SOURCES)
    asking = {name for name, method in arm_choices.METHODS.items() if method.needs_baseline}
    pairs = ("relabel", "weighted", "distill")
    filled = {name for name, method in arm_choices.METHODS.items() if method.on_baseline}
    averaged = {name for name, method in arm_choices.METHODS.items() if method.averaged}
    assert asking == {"filtered", "pseudo_label", *pairs, *(f"{name}_real" for name in pairs)} | filled | averaged


@pytest.mark.parametrize("name", [name for name, method in arm_choices.METHODS.items() if method.second_source])
def test_each_is_drawn_alike_again_and_says_whether_it_is_photographed(name, material):
    first, second = (second_source.second_images(material(name), CHANNELS) for _ in range(2))
    for one, other in zip(listed(first), listed(second), strict=True):
        assert np.array_equal(one, other)
    assert first.pixels.dtype == np.uint8
    assert first.labels.min() >= 0 and first.labels.max() <= 1
    kind = arm_choices.METHODS[name].second_source
    if kind in source_choices.FEATURES:
        assert first.features.shape == (len(first), 128) and first.features.dtype == np.float32
        assert not len(first.pixels) and len(first.labels) == len(first)
        assert first.synthetic == (kind != "balanced_features")
        return
    assert first.synthetic == (kind not in source_choices.PHOTOGRAPHS)
    if kind in source_choices.PHOTOGRAPHS:
        real, unlabelled, kept = (cells(*drawn)[0] for drawn in ((60, 1), (30, 9), (50, 5)))
        expected = (
            unlabelled if kind in source_choices.UNLABELLED else kept if kind in source_choices.RESERVES else real
        )
        expected = np.concatenate([real, unlabelled]) if kind in source_choices.SEEN else expected
        assert np.array_equal(first.pixels, expected)
    if kind in source_choices.NOTHING_NEW and kind != "nearest":
        # A placebo has the labels of the synthetic set, image by image or in another order.
        wanted = np.sort(cells(40, 2)[1] @ [4, 2, 1])
        assert np.array_equal(np.sort(listed(first)[1] @ [4, 2, 1]), wanted)


def test_reweighting_shows_every_value_of_the_column_equally_often(material):
    found = second_source.second_images(material("reweight"), CHANNELS)
    counts = Counter(PLATES[found.rows])
    assert counts == {"a": 40, "b": 40, "": 40} and len(set(found.rows)) == 60


def test_an_arm_sees_only_its_channels(material):
    for name in ("pool", "noise", "relabel_real"):
        whole, green = (second_source.second_images(material(name), channels) for channels in (CHANNELS, ["green"]))
        assert np.array_equal(green.pixels[:, 0], whole.pixels[:, 1]), name


def test_blends_hold_half_of_either_image(material):
    found = second_source.second_images(material("blend_real"), CHANNELS)
    real, labels = cells(60, 1)
    pairs = matching_pairs(labels, cells(40, 2)[1], material("blend_real").rng("blend"))
    for image, (one, other) in zip(found.pixels, pairs, strict=True):
        low, high = np.minimum(real[one], real[other]), np.maximum(real[one], real[other])
        assert (image >= low).all() and (image <= high).all()
        assert one != other
    mixed = second_source.second_images(material("blend_real", blend="weighted"), CHANNELS)
    assert np.array_equal(mixed.pixels, found.pixels)
    different = mixed.labels[(mixed.labels > 0) & (mixed.labels < 1)]
    assert len(different) and different.min() >= 0.25 and different.max() <= 0.75


def test_noise_has_the_mean_and_spread_of_real_pixels_and_no_structure(material):
    found, real = second_source.second_images(material("noise"), CHANNELS).pixels, cells(60, 1)[0]
    assert np.allclose(found.mean(axis=(0, 2, 3)), real.mean(axis=(0, 2, 3)), atol=6)
    neighbours = np.corrcoef(found[..., :-1].ravel(), found[..., 1:].ravel())[0, 1]
    assert abs(neighbours) < 0.1


def test_random_phases_keep_the_spectrum_and_move_the_light(material):
    found = second_source.second_images(material("phase_real"), CHANNELS)
    source = listed(second_source.second_images(material("resample_real"), CHANNELS))[0].astype(float)
    spectra = [np.abs(np.fft.rfft2(images.astype(float))).mean(axis=(0, 1)) for images in (found.pixels, source)]
    inner = [spectrum[1:4, 1:4] for spectrum in spectra]
    assert np.allclose(inner[0], inner[1], rtol=0.25), "but for what is cut off at black and white"
    alike = [np.corrcoef(a.ravel(), b.ravel())[0, 1] for a, b in zip(found.pixels, source, strict=True)]
    assert np.mean(alike) < 0.3


def test_copies_are_found_however_turned_and_are_not_authentic(material, tmp_path):
    real, labels = cells(60, 1)
    made = cells(6, 2)[0]
    made[1], made[4] = np.rot90(real[7], 1, axes=(1, 2)), real[49][..., ::-1]
    wanted = labels[:6].copy()
    wanted[1] = wanted[3]
    path = tmp_path / "copies.h5"

    def write(given, **synthetic_set):
        with write_images(
            path, CHANNELS, CLASSES, SIZE, {"synthetic_set": json.dumps(synthetic_set | {"reference_channels": given})}
        ) as writer:
            writer.append(made, wanted, [f"syn-{index}" for index in range(6)], ["synthetic"] * 6)

    def found(name):
        asked = material(name)
        asked.synthetic = path
        return second_source.second_images(asked, CHANNELS)

    write([])
    near, authentic = found("nearest_real"), found("authentic")
    assert (near.rows[1], near.rows[4]) == (7, 49)
    assert np.array_equal(listed(near)[1], labels[near.rows]), "its own labels"
    assert {1, 4}.isdisjoint(authentic.rows)
    assert set(authentic.rows) <= {0, 2, 3, 5}
    asked, shown = (Counter(map(tuple, rows.tolist())) for rows in (wanted, wanted[authentic.rows]))
    assert shown == {key: asked[key] for key in shown}, "the labels of the set, but for what has none left"
    assert list(authentic.rows).count(3) >= 2, "in the place of a copy with the same labels, too"
    # Where green was given, it is no likeness, and what it resembles is found by the rest.
    made[0] = np.stack([real[9][0], real[3][1]])
    write(["green"])
    assert found("nearest_real").rows[0] == 9
    made[0] = np.stack([255 - real[9][0], real[3][1]])
    write(["green"])
    assert 0 in found("authentic").rows
    made[:] = real[:6]
    write([])
    with pytest.raises(UserError, match=r"copies\.h5.*fewer steps"):
        found("authentic")
    write([], start_noise=0.1)
    with pytest.raises(UserError, match=r"copies\.h5.*raise start_noise"):
        found("authentic")


def test_shuffling_takes_labels_from_their_images(material):
    found = second_source.second_images(material("shuffled_labels"), CHANNELS)
    assert np.array_equal(found.pixels, cells(40, 2)[0])
    assert not np.array_equal(found.labels, cells(40, 2)[1])


def test_agreement_by_hand():
    probabilities = np.array([[0.9, 0.2, 0.4], [0.5, 0.5, 0.5], [0.1, 0.2, 0.3]])
    labels = np.array([[1, 0, 0], [1, 1, 1], [0, 0, 0]])
    found = second_source.agreement(probabilities, labels)
    expected = [np.sqrt(0.9 * np.sqrt(0.8 * 0.6)), 0.5, (0.9 * 0.8 * 0.7) ** (1 / 3)]
    assert np.allclose(found, expected)


def test_the_filter_keeps_the_best_of_each_label_combination(material):
    kept = material("filtered", keep=0.3)
    scores = second_source.agreement(kept.asked(kept.made.images), kept.made.labels)
    rows = second_source.second_images(kept, CHANNELS).rows
    codes = kept.made.labels @ [4, 2, 1]
    for code in np.unique(codes):
        group = np.flatnonzero(codes == code)
        inside = np.isin(group, rows)
        assert inside.sum() == max(1, round(0.3 * len(group)))
        assert np.isin(rows, group).sum() == len(group), "as many of each combination as the set has, and its control"
        if not inside.all():
            assert scores[group[inside]].min() >= scores[group[~inside]].max()


def test_labels_and_weights_follow_the_baseline(material):
    asked = material("relabel", trust=0.25)
    labels = second_source.second_images(asked, CHANNELS).labels
    assert np.allclose(labels, 0.75 * asked.made.labels + 0.25 * asked.asked(asked.made.images), atol=1e-6)
    for name in ("weighted", "weighted_real"):
        found = second_source.second_images(material(name), CHANNELS)
        pixels, given = listed(found)
        scores = second_source.agreement(material(name).asked(pixels), given)
        assert len(found.weights) == len(found)
        assert found.weights.mean() == pytest.approx(1, rel=1e-5)
        assert np.allclose(found.weights / found.weights[0], scores / scores[0], rtol=1e-3)


def test_distillation_takes_the_answers_of_the_baseline_and_no_label(material):
    asked = material("distill")
    found = second_source.second_images(asked, CHANNELS)
    assert np.allclose(found.labels, asked.asked(cells(40, 2)[0]), atol=1e-6)
    real = second_source.second_images(material("distill_real"), CHANNELS)
    assert np.allclose(real.labels, asked.asked(cells(60, 1)[0]), atol=1e-6)
    # The control has the label combinations of the set: which images it draws is decided as in resample_real.
    drawn = second_source.second_images(material("resample_real"), CHANNELS)
    assert np.array_equal(real.rows, drawn.rows)


def test_a_large_set_is_fresh_at_every_step_and_a_small_one_is_drawn_anew():
    steps, batch = 4, 5
    large = training_step.Order(steps * batch, 3)
    assert sorted(np.concatenate([large.batch(step, batch) for step in range(steps)])) == list(range(steps * batch))
    small = np.concatenate([training_step.Order(10, 3).batch(step, batch) for step in range(steps)])
    assert sorted(small[:10]) == sorted(small[10:]) == list(range(10))
    assert list(small[:10]) != list(small[10:])


def test_every_filling_asks_for_the_same_classes_in_the_features_of_the_baseline(material):
    """The head on the features gives what the baseline answers, so they are its own."""
    plain = second_source.second_images(material("balanced_head"), CHANNELS)
    asked = material("balanced_head")
    head = asked.baseline.network(torch.device("cpu")).head
    logits = head(torch.as_tensor(plain.features)).detach().numpy()
    rows = balanced_rows(cells(60, 1)[1], asked.rng("balance"))[: 4 * 60]
    assert np.allclose(probabilities(logits), asked.asked(cells(60, 1)[0])[rows], atol=1e-5)
    for name in ("feature_fill", "feature_smote"):
        assert np.array_equal(second_source.second_images(material(name), CHANNELS).labels, plain.labels), name


def test_pseudo_labels_are_the_answers_of_the_baseline(material):
    named = material("pseudo_label")
    asked = replace(named, synthetic=None)
    found = second_source.second_images(asked, CHANNELS)
    assert np.allclose(found.labels, asked.asked(cells(30, 9)[0]), atol=1e-6) and found.rows is None
    drawn = second_source.second_images(named, CHANNELS)
    assert np.array_equal(drawn.labels, found.labels) and len(drawn) == len(named.wanted)
    for row, label in zip(drawn.rows, named.wanted, strict=True):
        same = ((drawn.labels >= 0.5) == (label > 0)).all(axis=1)
        assert same[row] or not same.any(), "an answer like the label, where there is one"
    for name in ("fixmatch", "ssl_pretrain"):
        assert not second_source.second_images(material(name), CHANNELS).labels.any(), "nothing is said"


def test_the_generated_images_come_after_all_that_may_be_seen(material):
    found = second_source.second_images(material("ssl_pretrain_mixed"), CHANNELS)
    parts = (cells(60, 1)[0], cells(30, 9)[0], cells(40, 2)[0])
    assert np.array_equal(found.pixels, np.concatenate(parts))
    assert not found.labels.any() and found.synthetic
    source = training_step.Source(found, "second", {"batch": 13}, 5, torch.zeros(1), torch.ones(1))
    assert sum(source.made(step, 13) for step in range(10)) == 40, "a pass sees each generated image once"
    source = training_step.Source(
        replace(found, photographs=0), "second", {"batch": 13}, 5, torch.zeros(1), torch.ones(1)
    )
    assert source.made(0, 7) == 7


def test_all_that_may_be_seen_is_the_labelled_images_where_no_others_are(material):
    asked = material("ssl_pretrain")
    asked.unlabelled = None
    assert np.array_equal(second_source.second_images(asked, CHANNELS).pixels, cells(60, 1)[0])


def test_balanced_rows_ask_for_every_class_equally_often():
    labels = np.zeros((30, 3), dtype=np.uint8)
    labels[:20, 0], labels[20:24, 1] = 1, 1  # six images of no class; nobody has the third
    rows = balanced_rows(labels, np.random.default_rng(1))
    counts = np.bincount(rows, minlength=30)
    assert set(counts[:20]) == {1} and set(counts[20:24]) == {5} and set(counts[24:]) == {3, 4}
    thirds = [len(set(range(low, high)) & set(rows[:3])) for low, high in ((0, 20), (20, 24), (24, 30))]
    assert thirds == [1, 1, 1]


def test_pairs_make_up_what_is_wanted():
    available = np.array([[1, 0, 0]] * 3 + [[0, 1, 0]] * 2 + [[0, 1, 1]])
    wanted = np.array([[1, 1, 0]] * 5 + [[1, 0, 0]] * 3 + [[0, 0, 1]] * 2 + [[1, 1, 1]] * 2)
    pairs = matching_pairs(available, wanted, np.random.default_rng(1))
    union = available[pairs[:, 0]] | available[pairs[:, 1]]
    assert np.array_equal(union[:8], wanted[:8])
    assert np.array_equal(union[10:], wanted[10:])
    # Nobody has the third class alone: the image that comes nearest, twice over where there is one of it.
    assert set(pairs[8:10].ravel()) == {5}
    assert all(one != other for one, other in pairs[:8])
