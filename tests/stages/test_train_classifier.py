"""The stage: pairing of arms, equal shares, resuming, re-use, and what the files say about themselves."""

import itertools
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.helpers.arms_data import ENTRIES, SECTION, cells, write_fold
from workflow_scripts import train_classifier as stage_program
from workflow_scripts.lib.base.errors import UserError
from workflow_scripts.lib.classify import (
    arm_choices,
    arm_run,
    arm_settings,
    backbones,
    classifier_file,
    classifier_training,
    training_step,
)
from workflow_scripts.lib.classify.arm_job import Arm, FoldImages
from workflow_scripts.lib.compute import schedule
from workflow_scripts.lib.images.access_record import AccessRecord
from workflow_scripts.lib.images.image_set import ImageSet
from workflow_scripts.lib.images.image_set_writer import write_images
from workflow_scripts.lib.scores import ranking_metrics
from workflow_scripts.lib.scores.prediction_file import read_predictions
from workflow_scripts.lib.split import role_table

pytestmark = pytest.mark.usefixtures("one_thread")

# Every kind of partner images that needs something of the stage, and each study's own methods.
FINISHED = ("real_only", "synthetic_only", "pool", "resample_real", "mix_loss", "mix_representation_real", "filtered")


def command(paths, folder, arms_list, section=SECTION, seed=1, baseline=None):
    settings = {"arms": arms_list, "train_classifier": section, "threads": 1}
    return [
        "--images", str(paths["images"]), "--folds", str(paths["folds"]), "--repeat", "0", "--fold", "0",
        "--synthetic", f"p={paths['synthetic']}", "--arms-dir", str(folder), "--manifest", str(folder / "job0.json"),
        "--seed", str(seed), "--settings", json.dumps(settings), "--log", str(folder / "log.txt"),
        *(["--baseline", str(baseline)] if baseline else []),
    ]  # fmt: skip


def run(*args, **more):
    assert stage_program.main(command(*args, **more)) == 0
    folder = args[1]
    return {entry["arm"]: entry for entry in json.loads((folder / "job0.json").read_text())["arms"]}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("arms")
    torch.set_num_threads(1)
    paths = write_fold(folder)
    run(paths, folder / "first", [ENTRIES["real_only"]])
    chosen = [ENTRIES[name] for name in FINISHED]
    return paths, folder / "arms", run(paths, folder / "arms", chosen, baseline=folder / "first" / "job0.json")


def test_the_course_of_a_training_is_told_and_changes_no_weight(finished, tmp_path):
    paths, folder, _ = finished
    line = [*command(paths, tmp_path / "arms", [ENTRIES["real_only"]]), "--progress", str(tmp_path / "progress")]
    assert stage_program.main(line) == 0
    told = json.loads((tmp_path / "progress" / "classifier_repeat0_fold0_real_only.json").read_text())
    history = read_predictions(tmp_path / "arms/real_only/predictions.h5", parts=()).history
    assert [point["step"] for point in told["points"]] == np.ravel(history["step"]).tolist()
    assert [point["validation_map"] for point in told["points"]] == np.ravel(history["validation_map"]).tolist()
    alone, watched = (
        classifier_file.read(place / "real_only/classifier.safetensors").weights
        for place in (folder, tmp_path / "arms")
    )
    assert all(torch.equal(alone[name], watched[name]) for name in alone)


def test_every_arm_is_written_with_ids_and_equal_effort(finished):
    paths, folder, entries = finished
    with ImageSet(paths["images"]) as source:
        ids, labels = source.ids, source.labels(None, "inspect")
    for name in FINISHED:
        found = read_predictions(folder / entries[name]["predictions"])
        for role, part in found.parts.items():
            rows = role_table.rows(paths["folds"], 0, ids, role)
            assert np.array_equal(part.ids, ids[rows])
            assert np.array_equal(part.labels, labels[rows])
        numbers = found.numbers
        assert numbers["images_seen"] == numbers["real_seen"] + numbers["synthetic_seen"] == 12 * 8
        uses_synthetic = arm_choices.METHODS[name].second_source in ("synthetic", "filtered")
        assert (numbers["synthetic_seen"] > 0) == uses_synthetic
        assert list(found.history["step"]) == [4, 8, 12]
        best = found.history["validation_map"].max()
        assert numbers["best_step"] == max(found.history["step"][found.history["validation_map"] == best])
        assert found.digest == entries[name]["digest"]
        assert not (folder / name / "resume.pt").exists()


def test_access_record_says_what_was_read_and_inherits_the_generators(finished):
    paths, folder, entries = finished
    with ImageSet(paths["images"]) as source:
        ids = source.ids
    role = {name: set(role_table.rows(paths["folds"], 0, ids, name)) for name in ("train", "validation", "test")}
    for name in ("pool", "filtered"):
        record = AccessRecord.from_json(read_predictions(folder / entries[name]["predictions"]).access_record)
        assert set(record.of("fit")) == role["train"]
        assert set(record.of("select")) == role["validation"]
        assert set(record.of("score")) == role["test"]
    fitted = AccessRecord.from_json(classifier_file.read(folder / "pool" / "classifier.safetensors").access_record)
    assert not len(fitted.of("score")), "test images are read when training is over"


def test_an_arm_that_looks_at_some_channels_does_not_know_the_others(finished, tmp_path):
    paths = finished[0]
    entries = [
        {"name": "green_only", "method": "real_only", "channels": ["green"]},
        {"name": "pool_green", "method": "pool", "synthetic_set": "p", "channels": ["green"]},
    ]
    run(paths, tmp_path / "arms", entries, SECTION | {"steps": 3})
    dark = dict(paths, images=tmp_path / "dark.h5")
    with ImageSet(paths["images"]) as source:
        part = source.read(None, "inspect")
        part.images[:, source.channels.index("red")] = 0
        with write_images(dark["images"], source.channels, source.classes, source.size) as writer:
            writer.append(part.images, part.labels, list(part.ids), list(part.groups))
    run(dark, tmp_path / "again", entries[:1], SECTION | {"steps": 3})
    found, again = (
        read_predictions(tmp_path / folder / "green_only" / "predictions.h5").parts["test"].logits
        for folder in ("arms", "again")
    )
    assert np.array_equal(found, again)
    assert classifier_file.read(tmp_path / "arms" / "pool_green" / "classifier.safetensors").channels == ["green"]


def test_a_generator_fitted_on_test_rows_is_not_forgotten(finished, tmp_path):
    paths = dict(finished[0])
    with ImageSet(paths["images"]) as source:
        record, test = AccessRecord(source.digest, len(source)), role_table.rows(paths["folds"], 0, source.ids, "test")
        classes, channels = source.classes, source.channels
    record.record("fit", test[:2])
    paths["synthetic"] = tmp_path / "leaky.h5"
    images, labels = cells(10, 5)
    with write_images(paths["synthetic"], channels, classes, 16, {"access_record": record.to_json()}) as writer:
        writer.append(images, labels, [f"syn-{index}" for index in range(10)], ["synthetic"] * 10)
    run(paths, tmp_path / "arms", [ENTRIES["synthetic_only"]], SECTION | {"steps": 3})
    found = read_predictions(tmp_path / "arms" / "synthetic_only" / "predictions.h5")
    assert set(test[:2]) <= set(AccessRecord.from_json(found.access_record).of("fit"))


def test_saved_classifier_gives_the_saved_logits(finished):
    paths, folder, entries = finished
    saved = classifier_file.read(folder / entries["mix_loss"]["classifier"])
    part = read_predictions(folder / entries["mix_loss"]["predictions"]).parts["test"]
    with ImageSet(paths["images"]) as source:
        images = source.read(role_table.rows(paths["folds"], 0, source.ids, "test"), "score").images
    network = saved.network(torch.device("cpu"))
    assert np.array_equal(classifier_file.predict(network, images, saved.mean, saved.std), part.logits)
    # Evaluation mode: an image by itself gets what it got among others.
    alone = np.concatenate([classifier_file.predict(network, image[None], saved.mean, saved.std) for image in images])
    assert np.abs(alone - part.logits).max() < 0.05 * np.abs(part.logits).max()


def test_prediction_is_in_evaluation_mode_and_leaves_training_as_it_was():
    network = backbones.build("small", 2, 3, 16, seed=1).train()
    images = cells(12, 1)[0]
    mean, std = classifier_training.statistics(images)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    together = classifier_file.predict(network, images, mean, std, batch=12)
    apart = classifier_file.predict(network, images, mean, std, batch=1)
    assert np.abs(together - apart).max() < 0.05 * np.abs(together).max()
    assert network.training
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())


def test_partners_are_drawn_independently_of_the_real_images():
    images, labels = cells(40, 1)
    mean, std = classifier_training.statistics(images)
    made = [
        training_step.Source(classifier_training.Images(images, labels), name, SECTION, 3, mean, std)
        for name in ("real", "partners")
    ]
    real, partners = (np.concatenate([source.order.batch(step, 8) for step in range(500)]) for source in made)
    assert 0.01 < (real == partners).mean() < 0.05, "by chance alone: 1 in 40"
    assert set(np.bincount(real, minlength=40)) == {100}, "every image as often as every other"


def test_order_is_the_same_from_any_step():
    forward, later = training_step.Order(10, 3), training_step.Order(10, 3)
    steps = [forward.batch(step, 7) for step in range(9)]
    assert all(np.array_equal(later.batch(step, 7), steps[step]) for step in (8, 0, 5, 4))
    assert sorted(np.concatenate(steps)[:10]) == list(range(10))


def test_lambdas_are_beta_and_shared():
    settings = arm_settings.effective(ENTRIES["mix_loss"], SECTION | {"batch": 512})
    real = classifier_training.Images(*cells(8, 1))
    step = classifier_training.Trainer(settings, real, real, 5, torch.device("cpu")).step
    values = []
    for number in range(20):
        step.number = number
        values.append(step.lambdas(512))
    values = torch.cat(values)
    assert float(values.mean()) == pytest.approx(0.5, abs=0.02)
    # Variance of Beta(a, a) is 1 / (4 (2a + 1)).
    assert float(values.var()) == pytest.approx(1 / (4 * 1.6), rel=0.05)


def test_sigkill_then_the_same_command(tmp_path):
    paths = write_fold(tmp_path)
    # Long after the first checkpoint, also where the machine is busy.
    section = SECTION | {"steps": 400, "checkpoints": 100}
    arguments = command(paths, tmp_path / "killed", [ENTRIES["real_only"]], section)
    root = Path(__file__).resolve().parents[2]
    process = subprocess.Popen(
        [sys.executable, "-m", "workflow_scripts.train_classifier", *arguments], cwd=root,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    resume = tmp_path / "killed" / "real_only" / "resume.pt"
    end = time.monotonic() + 60
    while not resume.exists() and process.poll() is None and time.monotonic() < end:
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert resume.exists(), "killed while it trained"
    assert not (tmp_path / "killed" / "real_only" / "classifier.safetensors").exists()
    run(paths, tmp_path / "killed", [ENTRIES["real_only"]], section)
    run(paths, tmp_path / "whole", [ENTRIES["real_only"]], section)
    assert "going on from" in (tmp_path / "killed" / "log.txt").read_text()
    first, second = (
        classifier_file.read(tmp_path / name / "real_only" / "classifier.safetensors") for name in ("killed", "whole")
    )
    assert all(torch.equal(first.weights[name], second.weights[name]) for name in first.weights)
    one, two = (read_predictions(tmp_path / name / "real_only" / "predictions.h5") for name in ("killed", "whole"))
    assert np.array_equal(one.parts["test"].logits, two.parts["test"].logits)


def stamps(folder):
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.suffix in (".h5", ".safetensors")}


def test_only_what_changed_is_trained_again(tmp_path):
    paths, folder = write_fold(tmp_path), tmp_path / "arms"
    chosen = [ENTRIES["real_only"], ENTRIES["pool"] | {"control": "resample_real"}, ENTRIES["mix_loss"]]
    run(paths, folder, chosen, SECTION | {"steps": 3})
    before = stamps(folder)
    # Another order, other batches of arms, another control: nothing to do.
    entries = run(paths, folder, [ENTRIES["mix_loss"], ENTRIES["pool"]], SECTION | {"steps": 3})
    assert [entry["reused"] for entry in entries.values()] == [True, True]
    assert stamps(folder) == before
    # alpha acts in mix_loss alone.
    entries = run(paths, folder, chosen, SECTION | {"steps": 3, "alpha": 1.0})
    assert {name: entry["reused"] for name, entry in entries.items()} == {
        "real_only": True, "pool": True, "mix_loss": False,
    }  # fmt: skip
    # Killed between its two files: the weights are kept, and what the training left behind goes.
    (folder / "pool" / "predictions.h5").unlink()
    (folder / "pool" / "resume.pt").write_bytes(b"left")
    assert not run(paths, folder, chosen, SECTION | {"steps": 3, "alpha": 1.0})["pool"]["reused"]
    assert not (folder / "pool" / "resume.pt").exists()
    # A damaged file is not taken for whole, and weights that are there are not trained again.
    (folder / "pool" / "predictions.h5").write_bytes(b"half")
    weights = (folder / "pool" / "classifier.safetensors").stat().st_mtime_ns
    entries = run(paths, folder, chosen, SECTION | {"steps": 3, "alpha": 1.0})
    assert not entries["pool"]["reused"]
    assert (folder / "pool" / "classifier.safetensors").stat().st_mtime_ns == weights
    damaged = folder / "real_only" / "classifier.safetensors"
    damaged.write_bytes(damaged.read_bytes()[:-9])
    assert not run(paths, folder, chosen, SECTION | {"steps": 3, "alpha": 1.0})["real_only"]["reused"]


def test_other_code_data_roles_or_seed_are_another_task(tmp_path, monkeypatch):
    paths, folder, short = write_fold(tmp_path), tmp_path / "arms", SECTION | {"steps": 3}

    def reused(seed=1):
        return run(paths, folder, [ENTRIES["synthetic_only"]], short, seed=seed)["synthetic_only"]["reused"]

    assert [reused(), reused(), reused(seed=2), reused(seed=2)] == [False, True, False, True]
    paths["folds"].write_text(paths["folds"].read_text().replace(",validation", ",calibration", 1))
    assert [reused(2), reused(2)] == [False, True]
    images, labels = cells(30, 9)
    with write_images(paths["synthetic"], ["red", "green"], ["left", "right", "top"], 16) as writer:
        writer.append(images, labels, [f"syn-{index}" for index in range(30)], ["synthetic"] * 30)
    assert [reused(2), reused(2)] == [False, True]
    monkeypatch.setattr(stage_program.source_code, "stage_digest", lambda stage: "edited")
    assert not reused(2)


def test_weights_of_another_task_are_not_asked(tmp_path):
    paths, folder = write_fold(tmp_path), tmp_path / "arms"
    run(paths, folder, [ENTRIES["real_only"]], SECTION | {"steps": 3})
    fold = FoldImages(paths["images"], paths["folds"], 0, 0)
    arm = Arm(arm_settings.effective(ENTRIES["real_only"], SECTION), "other", folder / "real_only")
    with pytest.raises(UserError, match="another run"):
        arm_run.predict_arm(arm, fold)


def test_the_classifier_learns(tmp_path):
    paths = write_fold(tmp_path, count=300)
    section = SECTION | {"steps": 60, "batch": 32, "checkpoints": 2, "learning_rate": 0.005}
    run(paths, tmp_path / "arms", [ENTRIES["real_only"], ENTRIES["mix_representation"]], section)
    for name in ("real_only", "mix_representation"):
        part = read_predictions(tmp_path / "arms" / name / "predictions.h5").parts["test"]
        assert classifier_training.mean_average_precision(part.logits, part.labels) > 0.9


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda paths: paths.update(synthetic=Path("no.h5")), "no.h5"),
        (lambda paths: paths.update(folds=paths["images"].with_name("none.csv")), "none.csv"),
    ],
)
def test_missing_inputs_are_named(tmp_path, capsys, change, words):
    paths = write_fold(tmp_path)
    change(paths)
    assert stage_program.main(command(paths, tmp_path / "arms", [ENTRIES["synthetic_only"]])) == 1
    assert words in capsys.readouterr().err


def test_a_plan_without_a_set_is_named(tmp_path, capsys):
    paths = write_fold(tmp_path)
    assert (
        stage_program.main(command(paths, tmp_path / "arms", [ENTRIES["synthetic_only"] | {"synthetic_set": "other"}]))
        == 1
    )
    assert "other" in capsys.readouterr().err


def test_selection_score_equals_the_judges_average_precision():
    rng = np.random.default_rng(1)
    scores, labels = np.round(rng.normal(size=(200, 4)), 1), (rng.random((200, 4)) < 0.2).astype(np.uint8)
    labels[:, 3] = 0
    expected = [
        ranking_metrics.average_precision(scores[:, k], labels[:, k], *ranking_metrics.unweighted(200))[0]
        for k in range(3)
    ]
    assert classifier_training.mean_average_precision(scores, labels) == pytest.approx(np.mean(expected))


def test_statistics_are_those_of_the_pixels():
    images = np.random.default_rng(1).integers(0, 256, (30, 3, 8, 8)).astype(np.uint8)
    images[:, 2] = 0
    mean, std = classifier_training.statistics(images)
    assert np.allclose(mean, images.mean(axis=(0, 2, 3)) / 255)
    assert np.allclose(std[:2], images.std(axis=(0, 2, 3))[:2] / 255)
    assert std[2] > 0


def test_learning_rate_rises_and_falls():
    settings = {"steps": 100, "warmup": 0.2, "learning_rate": 0.1}
    rates = [schedule.cosine_after_warmup(settings, step) for step in range(100)]
    assert rates[0] == pytest.approx(0.1 / 20)
    assert max(rates) == pytest.approx(0.1)
    assert rates.index(max(rates)) == 19
    assert all(before > after for before, after in itertools.pairwise(rates[19:]))
    assert 0 < rates[-1] < 0.001


def test_what_asks_the_baseline_is_trained_again_with_another_one(finished, tmp_path, capsys):
    paths, short = finished[0], SECTION | {"steps": 3}
    asking, asked = [ENTRIES["filtered"]], [tmp_path / name / "job0.json" for name in ("one", "other")]
    for seed, manifest in enumerate(asked):
        run(paths, manifest.parent, [ENTRIES["real_only"]], short, seed=seed)
    found = [
        run(paths, tmp_path / "arms", asking, short, baseline=manifest)["filtered"]["reused"]
        for manifest in (asked[0], asked[0], asked[1])
    ]
    assert found == [False, True, False]
    # An arm that asks nothing does not mind.
    kept = [run(paths, tmp_path / "arms", [ENTRIES["pool"]], short, baseline=m)["pool"]["reused"] for m in asked]
    assert kept == [False, True]
    assert stage_program.main(command(paths, tmp_path / "arms", asking, short)) == 1
    assert "--baseline" in capsys.readouterr().err
    asked[0].write_text("{}")
    assert stage_program.main(command(paths, tmp_path / "arms", asking, short, baseline=asked[0])) == 1
    assert "is no list of arms" in capsys.readouterr().err


def test_the_baseline_of_another_fold_is_refused(finished, tmp_path, capsys):
    run(finished[0], tmp_path / "one", [ENTRIES["real_only"]], SECTION | {"steps": 3})
    saved = tmp_path / "one" / "real_only" / "classifier.safetensors"
    found = classifier_file.read(saved)
    found.fold = 1
    classifier_file.write(saved, found)
    manifest = tmp_path / "one" / "job0.json"
    arguments = command(finished[0], tmp_path / "arms", [ENTRIES["weighted"]], baseline=manifest)
    assert stage_program.main(arguments) == 1
    assert "repeat 0, fold 0" in capsys.readouterr().err


def test_images_that_arms_were_trained_on_are_let_go_before_others_are_predicted(tmp_path):
    fold = FoldImages(*(write_fold(tmp_path)[name] for name in ("images", "folds")), 0, 0)
    with fold.source:
        train, validation = fold.part("train"), fold.part("validation")
        assert fold.part("train") is train
        fold.forget_training()
        assert fold.part("validation") is validation
        again = fold.part("train")
        assert again is not train and np.array_equal(again.images, train.images)
