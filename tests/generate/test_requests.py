"""Synthetic sets that refer to real images or to the fold's baseline: what they hold, and what they say they read."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from tests.helpers.generating import CLASSES, SYNTHETIC_SET, UNET, make_baseline, make_data, sample_line, train_line
from workflow_scripts import certify_leaks, sample_ddpm, train_ddpm
from workflow_scripts.lib.generate import generator_file, sampling
from workflow_scripts.lib.generate.generator_training import Pixels
from workflow_scripts.lib.generate.requests import Requests, make_requests
from workflow_scripts.lib.images.access_record import AccessRecord
from workflow_scripts.lib.images.image_set import ImageSet, Part
from workflow_scripts.lib.images.image_set_writer import write_images
from workflow_scripts.lib.images.orientation import oriented

# Tiny tensors gain nothing from threads, and lose much where other processes want the cores.
torch.set_num_threads(1)

GIVING = UNET | {"reference_fraction": 0.7}
GIVEN = SYNTHETIC_SET | {"reference_channels": ["ch0", "ch2"]}
AGAINST = SYNTHETIC_SET | {"guidance": {"scale": 3.0, "interval": [0.0, 99.0], "against": "confused"}, "count": 12}
COUNT = 80
VALIDATION = list(range(0, COUNT, 8))
SAID = np.random.default_rng(1).normal(size=(len(VALIDATION), 3))


def rewrite(folder, images, labels):
    ids = [f"im{row}" for row in range(len(images))]
    with write_images(folder / "images.h5", [f"ch{c}" for c in range(4)], CLASSES, images.shape[-1]) as writer:
        writer.append(images, labels, ids, ids)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder with an image set and a generator that has seen given channels."""
    folder = tmp_path_factory.mktemp("requests")
    images, labels = make_data(folder, COUNT)
    # Every class with and without every other one, so that all confusions are known.
    labels[VALIDATION] = [[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 0], [0, 1, 1]] * 2
    rewrite(folder, images, labels)
    assert train_ddpm.main(train_line(folder, GIVING)) == 0
    return folder


def made(path):
    with ImageSet(path) as source:
        columns = {name: source.column(name) for name in source.columns()}
        return source.read(None, "inspect"), columns, source.attrs, source.inherited()


def test_given_channels_are_those_of_a_real_train_image_in_one_of_its_orientations(trained):
    assert sample_ddpm.main(sample_line(trained, GIVEN, out="given.h5")) == 0
    part, columns, _, record = made(trained / "given.h5")
    with ImageSet(trained / "images.h5") as source:
        at = {name: row for row, name in enumerate(source.ids)}
        rows = [at[name] for name in columns["reference"]]
        real = source.read(rows, "inspect")
    assert all(row % 4 for row in rows), "train images"
    assert set(rows) <= set(record.of("fit"))
    assert np.array_equal(part.labels, real.labels), "images with the very labels"
    ways = []
    for one, other in zip(torch.from_numpy(part.images), torch.from_numpy(real.images), strict=True):
        turned = oriented(other.expand(8, -1, -1, -1), torch.arange(8))
        equal = [way for way in range(8) if torch.equal(one[[0, 2]], turned[way, [0, 2]])]
        ways += equal[:1]
        assert not torch.equal(one[1], turned[equal[0], 1]), "the others are generated"
    assert len(ways) == len(part) and len(set(ways)) > 2


def test_given_channels_change_what_is_generated_beside_them(trained):
    # Same noise, same labels: only what is given differs.
    for out, synthetic_set in (("one.h5", GIVEN), ("none.h5", SYNTHETIC_SET)):
        assert sample_ddpm.main(sample_line(trained, synthetic_set, out=out)) == 0
    one, none = made(trained / "one.h5")[0], made(trained / "none.h5")[0]
    assert np.array_equal(one.labels, none.labels)
    assert not np.array_equal(one.images[:, [1, 3]], none.images[:, [1, 3]])


def test_variations_resemble_the_train_image_that_they_start_from_the_less_the_more_it_was_noised(trained):
    likeness = {}
    for start_noise in (0.02, 1.0, 30.0):
        synthetic_set = SYNTHETIC_SET | {
            "start_noise": start_noise,
            "guidance": SYNTHETIC_SET["guidance"] | {"scale": 1.0},
        }
        assert sample_ddpm.main(sample_line(trained, synthetic_set, out="varied.h5")) == 0
        part, columns, _, record = made(trained / "varied.h5")
        with ImageSet(trained / "images.h5") as source:
            at = {name: row for row, name in enumerate(source.ids)}
            rows = [at[name] for name in columns["reference"]]
            real = source.read(rows, "inspect")
        assert all(row % 4 for row in rows) and set(rows) <= set(record.of("fit")), "train images"
        assert np.array_equal(part.labels, real.labels)
        pairs = zip(torch.from_numpy(part.images), torch.from_numpy(real.images).float(), strict=True)
        apart = [
            (one - oriented(other.expand(8, -1, -1, -1), torch.arange(8))).square().mean((1, 2, 3))
            for one, other in pairs
        ]
        nearest = torch.stack(apart).min(dim=1)
        likeness[start_noise] = float(nearest.values.mean().sqrt())
        if start_noise == 0.02:
            assert len(set(nearest.indices.tolist())) > 2, "in several orientations"
            assert likeness[start_noise] < 4, "of 255"
    assert likeness[0.02] < likeness[1.0] < likeness[30.0]


def test_a_variation_may_keep_channels_too(trained):
    assert sample_ddpm.main(sample_line(trained, GIVEN | {"start_noise": 1.0}, out="both.h5")) == 0
    assert sample_ddpm.main(sample_line(trained, GIVEN, out="given_alone.h5")) == 0
    both, alone = made(trained / "both.h5"), made(trained / "given_alone.h5")
    assert np.array_equal(both[1]["reference"], alone[1]["reference"])
    assert np.array_equal(both[0].images[:, [0, 2]], alone[0].images[:, [0, 2]])
    assert not np.array_equal(both[0].images[:, [1, 3]], alone[0].images[:, [1, 3]])


def test_unseen_combinations_can_be_given_channels_too(tmp_path):
    images, labels = make_data(tmp_path)
    train = np.arange(40) % 4 != 0
    # No image has both b and c.
    labels[(labels[:, 1] & labels[:, 2]) == 1, 2] = 0
    rewrite(tmp_path, images, labels)
    assert train_ddpm.main(train_line(tmp_path, GIVING)) == 0
    assert sample_ddpm.main(sample_line(tmp_path, GIVEN | {"labels": "unseen"})) == 0
    part, columns, _, _ = made(tmp_path / "s.h5")
    known = {tuple(row) for row in labels[train]}
    assert all(tuple(row) not in known and row[1] and row[2] for row in part.labels)
    assert all(columns["reference"])


def test_killed_and_resumed_sampling_from_real_images_equals_undisturbed(trained, monkeypatch):
    monkeypatch.setenv("MIXLOC_CHECKPOINT_SECONDS", "0")
    baseline = make_baseline(trained, SAID)
    synthetic_set = AGAINST | {
        "reference_channels": ["ch1"],
        "start_noise": 2.0,
        "sampler": "ancestral",
        "evaluations": 50,
    }
    assert sample_ddpm.main(sample_line(trained, synthetic_set, out="whole.h5", baseline=baseline)) == 0
    real_sample, calls = sampling.sample, []

    def dies_in_the_second_batch(*arguments):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real_sample(*arguments)

    monkeypatch.setattr(sampling, "sample", dies_in_the_second_batch)
    with pytest.raises(KeyboardInterrupt):
        sample_ddpm.main(sample_line(trained, synthetic_set, out="killed.h5", baseline=baseline))
    assert sample_ddpm.main(sample_line(trained, synthetic_set, out="killed.h5", baseline=baseline)) == 0
    assert len(calls) == 4
    with ImageSet(trained / "whole.h5") as whole, ImageSet(trained / "killed.h5") as resumed:
        assert whole.digest == resumed.digest


def test_guidance_away_from_the_confused_class_says_which_and_what_it_read(trained):
    said = np.full(SAID.shape, -3.0)
    with ImageSet(trained / "images.h5") as source:
        labels = source.labels(VALIDATION, "inspect")
    # The baseline believes in c wherever there is a, and in nothing else that is not there.
    said[labels == 1] = 3.0
    said[(labels[:, 0] == 1) & (labels[:, 2] == 0), 2] = 2.0
    baseline = make_baseline(trained, said)
    assert sample_ddpm.main(sample_line(trained, AGAINST, out="away.h5", baseline=baseline)) == 0
    part, columns, _, record = made(trained / "away.h5")
    for row, name in zip(part.labels, columns["against"], strict=True):
        assert name == ("c" if row[0] and not row[2] else "")
    assert record.of("select").tolist() == VALIDATION
    assert set(record.of("fit")) == {row for row in range(COUNT) if row % 4}
    assert not {"score", "threshold"} & set(record.rows)
    # It acts: without it the images are others where a class is confused, and the same elsewhere.
    plain = AGAINST | {"guidance": AGAINST["guidance"] | {"against": None}}
    assert sample_ddpm.main(sample_line(trained, plain, out="plain.h5")) == 0
    same = (made(trained / "plain.h5")[0].images == part.images).reshape(len(part), -1).all(axis=1)
    assert same.tolist() == (columns["against"] == "").tolist() and not same.all()


def test_the_certificate_tells_what_a_plan_learned_from_validation(trained):
    baseline = make_baseline(trained, SAID)
    synthetic_set = SYNTHETIC_SET | {"labels": "feedback"}
    assert sample_ddpm.main(sample_line(trained, synthetic_set, out="feedback.h5", baseline=baseline)) == 0
    weights = json.loads(made(trained / "feedback.h5")[2]["class_weights"])
    assert sorted(weights) == CLASSES and sum(weights.values()) == pytest.approx(1, abs=1e-5)

    def certify(*artefacts):
        tables, out = {0: trained / "folds.csv"}, trained / "leaks.csv"
        certify_leaks.certify_leaks(trained / "images.h5", tables, list(artefacts), None, out, {"violations": []})
        return out.read_text()

    assert "synthetic feedback,0,0,select,10,train or validation,0,0" in certify(trained / "feedback.h5")
    # A baseline that learned from the test part makes the synthetic set a leak too.
    with ImageSet(trained / "images.h5") as source:
        record = source.access_record()
    record.record("select", [4])
    baseline = make_baseline(trained, SAID, access_record=record.to_json())
    assert sample_ddpm.main(sample_line(trained, synthetic_set, out="leaky.h5", baseline=baseline)) == 0
    with pytest.raises(certify_leaks.UserError, match="LEAK: synthetic leaky"):
        certify(trained / "leaky.h5")


def test_a_plan_that_asks_the_baseline_needs_one(trained, capsys):
    assert sample_ddpm.main(sample_line(trained, AGAINST, out="lonely.h5")) == 1
    assert "--baseline" in capsys.readouterr().err


def test_the_same_opinion_makes_the_same_images_and_another_one_others(trained):
    synthetic_set = SYNTHETIC_SET | {"labels": "feedback"}
    digests = []
    for out, said in (("f1.h5", SAID), ("f2.h5", SAID), ("f3.h5", -SAID)):
        assert (
            sample_ddpm.main(sample_line(trained, synthetic_set, out=out, baseline=make_baseline(trained, said))) == 0
        )
        with ImageSet(trained / out) as source:
            digests.append(source.digest)
    assert digests[0] == digests[1] != digests[2]


def test_given_channels_need_a_generator_that_has_learned_to_use_them(tmp_path, capsys):
    make_data(tmp_path)
    assert train_ddpm.main(train_line(tmp_path, UNET | {"steps": 2})) == 0
    assert sample_ddpm.main(sample_line(tmp_path, GIVEN)) == 1
    assert "reference_fraction" in capsys.readouterr().err


def test_the_bytes_of_given_channels_are_put_back_exactly():
    rng = np.random.default_rng(0)
    given, made = (torch.from_numpy(rng.integers(0, 256, (3, 2, 4, 4)).astype(np.uint8)) for _ in range(2))
    shown = torch.tensor([False, True])
    requests = Requests(np.zeros((3, 1)), None, real=given, shown=shown)
    out = requests.with_references(made[1:], slice(1, 3))
    assert torch.equal(out[:, 1], given[1:, 1]) and torch.equal(out[:, 0], made[1:, 0])


def test_a_checkpoint_of_other_real_images_is_not_gone_on_from():
    rng = np.random.default_rng(0)
    one = torch.from_numpy(rng.integers(0, 200, (3, 2, 4, 4)).astype(np.uint8))
    # Ids and seed are the same. The limits of intensity are others, and a generator from elsewhere knows of none.
    same, other = (Requests(np.zeros((3, 1)), None, real=real).digest() for real in (one.clone(), one + 1))
    assert Requests(np.zeros((3, 1)), None, real=one).digest() == same != other


def test_the_missing_channels_that_are_told_are_those_of_the_image_that_is_shown():
    """Under every plan of columns: the network has learned from images that lack what they say."""
    count, rng = 60, np.random.default_rng(0)
    labels = np.eye(2, dtype=np.uint8)[np.arange(count) % 2]
    missing = np.array(["yellow" if row % 3 == 0 else "none" for row in range(count)], dtype=object)
    columns = {
        "line": np.array(["AB"[row % 4 // 2] for row in range(count)], dtype=object),
        "missing_channels": missing,
    }
    images = rng.integers(1, 255, (count, 3, 16, 16)).astype(np.uint8)
    ids, record = np.array([f"i{row}" for row in range(count)]), AccessRecord("d", count)
    source = SimpleNamespace(
        path="x", classes=["a", "b"], ids=ids, access_record=lambda: record, labels=lambda rows, purpose: labels[rows],
        values=lambda names, rows, purpose: np.stack([columns[name][rows] for name in names], axis=1),
        read=lambda rows, purpose: Part(images[rows], labels[rows], ids[rows], ids[rows], rows, record),
    )  # fmt: skip
    known = {"line": ["A", "B"], "missing_channels": ["none", "yellow"]}
    generator = SimpleNamespace(
        settings={"condition_on": list(known), "column_values": known, "turn_images": False},
        channels=["green", "blue", "yellow"], access_record=AccessRecord("d", count),
    )  # fmt: skip
    for plan in ("as_real", "uniform"):
        settings = {"name": "s", "labels": "as_train", "count": 120, "columns": plan, "guidance": {"scale": 1}}
        settings["reference_channels"] = ["blue", "yellow"]
        found = make_requests(settings, generator, source, np.arange(count), None, 1)
        shown = [dict(zip(ids, missing, strict=True))[name] for name in found.references]
        assert found.values["missing_channels"] == shown and {*shown} == {"none", "yellow"}
        assert (np.asarray(found.told)[:, 3] == [name == "yellow" for name in shown]).all()


def test_columns_keep_their_order_in_the_file(tmp_path):
    known = {"plate": ["p1", "p2"], "cell_line": ["A", "B"]}
    told = {"name": "g", "condition_on": list(known), "column_values": known}
    pixels = Pixels(torch.zeros(1), torch.ones(1))
    record, weights = AccessRecord("d", 3), {"w": torch.zeros(1)}
    made = generator_file.Generator(0, 0, told, ["a"], ["x"], 16, pixels, record, "d", 1.0, weights)
    generator_file.write(tmp_path / "g.safetensors", made)
    settings = generator_file.read(tmp_path / "g.safetensors").settings
    assert list(settings["column_values"]) == ["plate", "cell_line"]
