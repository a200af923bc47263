"""Both stages of the stress test: answers of trained arms, and the tables, figure and certificate made of them."""

import csv
import json
import shutil

import numpy as np
import pytest
import torch

from tests.helpers.arms_data import ENTRIES, SECTION, write_fold
from tests.helpers.worlds import ANALYSIS
from workflow_scripts import aggregate_metrics, aggregate_stress, declare_analysis, stress_test, train_classifier
from workflow_scripts.lib.images import corruptions
from workflow_scripts.lib.images.access_record import AccessRecord
from workflow_scripts.lib.images.image_set import ImageSet
from workflow_scripts.lib.scores import stress_file
from workflow_scripts.lib.scores.prediction_file import read_predictions
from workflow_scripts.lib.split import role_table

pytestmark = pytest.mark.usefixtures("one_thread")

ARMS = [
    ENTRIES["real_only"],
    ENTRIES["pool"] | {"control": "resample_real", "channels": ["green"]},
    ENTRIES["resample_real"] | {"channels": ["green"]},
    ENTRIES["real_only"] | {"name": "classical", "backbone": "classical"},
]
NAMES = ["defocus", "bleed_through"]


def place(paths) -> list[str]:
    return ["--images", str(paths["images"]), "--folds", str(paths["folds"]), "--repeat", "0", "--fold", "0"]


def answer(paths, folder, out, names=NAMES, seed=1) -> int:
    settings = json.dumps({"corruptions": names, "threads": 1})
    lists = ["--arms", str(folder / "job0.json"), "--seed", str(seed), "--out", str(out)]
    return stress_test.main([*place(paths), *lists, "--settings", settings, "--log", str(out.with_suffix(".log"))])


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("stress")
    torch.set_num_threads(1)
    paths = write_fold(folder, 200)
    settings = {"arms": ARMS, "train_classifier": SECTION, "threads": 1}
    command = [*place(paths), "--synthetic", f"p={paths['synthetic']}", "--arms-dir", str(folder), "--seed", "1"]
    command += ["--manifest", str(folder / "job0.json"), "--settings", json.dumps(settings)]
    assert train_classifier.main(command) == 0
    out = folder / "fold0" / stress_file.NAME
    out.parent.mkdir()
    assert answer(paths, folder, out) == 0
    return paths, folder, out


def test_answers_are_for_the_test_images_which_are_read_for_scoring_alone(trained):
    paths, folder, out = trained
    found = stress_file.read(out)
    with ImageSet(paths["images"]) as source:
        rows = role_table.rows(paths["folds"], 0, source.ids, "test")
        assert list(found.ids) == list(source.ids[rows])
        record = AccessRecord.from_json(found.access_record)
        assert record.images == source.digest and list(record.of("score")) == list(rows)
    assert not any(len(record.of(purpose)) for purpose in ("fit", "select", "threshold"))
    assert found.conditions == [(name, level) for name in NAMES for level in range(1, 6)]
    for arm in ARMS:
        predicted = read_predictions(folder / arm["name"] / "predictions.h5")
        assert found.digests[arm["name"]] == predicted.digest
        assert found.logits[arm["name"]].shape == (10, len(rows), 3)
        assert not np.array_equal(found.logits[arm["name"]][4], predicted.parts["test"].logits)


def test_unchanged_images_get_the_answers_of_the_predictions(trained, tmp_path, monkeypatch):
    paths, folder, _ = trained
    monkeypatch.setattr(corruptions, "defocus", lambda images, strength, draws: images)
    assert answer(paths, folder, tmp_path / "stress.h5", ["defocus"]) == 0
    found = stress_file.read(tmp_path / "stress.h5")
    for arm in ARMS:
        predicted = read_predictions(folder / arm["name"] / "predictions.h5").parts["test"]
        assert all(np.array_equal(logits, predicted.logits) for logits in found.logits[arm["name"]])


def test_a_second_run_gives_the_same_answers_and_another_seed_others(trained, tmp_path):
    paths, folder, _ = trained
    for name, seed in (("one", 1), ("two", 1), ("other", 2)):
        assert answer(paths, folder, tmp_path / f"{name}.h5", ["shot_noise"], seed) == 0
    one, two, other = (
        stress_file.read(tmp_path / f"{name}.h5").logits["real_only"] for name in ("one", "two", "other")
    )
    assert np.array_equal(one, two) and not np.array_equal(one, other)


def test_a_classifier_that_the_list_does_not_mean_is_refused(trained, tmp_path, capfd):
    paths, folder, _ = trained
    listed = json.loads((folder / "job0.json").read_text())
    listed["arms"][0]["digest"] = "of another training"
    shutil.copytree(folder, tmp_path / "arms")
    (tmp_path / "arms" / "job0.json").write_text(json.dumps(listed))
    assert answer(paths, tmp_path / "arms", tmp_path / "stress.h5") == 1
    assert "is not the classifier that" in capfd.readouterr().err
    assert answer(paths, folder, tmp_path / "stress.h5", []) == 1
    assert "names no corruption" in capfd.readouterr().err


@pytest.fixture(scope="module")
def judged(trained, tmp_path_factory):
    """The tables of both judging stages."""
    _, folder, out = trained
    made = tmp_path_factory.mktemp("judged")
    analysis = ANALYSIS | {"primary_arm": "pool", "draws": 100, "minimum_positive_groups": 1}
    settings = ["--settings", json.dumps(analysis | {"arms": ARMS, "experiment": {}})]
    declaration = made / "declaration.json"
    words = ["--run-folder", str(made), "--ledger", str(made / "ledger.jsonl"), "--out", str(declaration)]
    assert declare_analysis.main([*words, *settings]) == 0
    arms = ["--arms", str(folder / "job0.json"), "--seed", "1"]
    words = [f"--{name}={made / name}" for name in ("metrics", "comparisons", "thresholds", "analysis")]
    settings = ["--settings", json.dumps(analysis | {"arms": ARMS})]
    assert aggregate_metrics.main([*arms, *words, "--declaration", str(declaration), *settings]) == 0
    own = {"analysis": analysis, "arms": ARMS, "declared": True, "draws": 100}
    words = ["--stress", str(out), "--scores", str(made / "stress.csv"), "--areas", str(made / "areas.csv")]
    words += ["--figure", str(made / "stress.svg"), "--settings", json.dumps(own)]
    assert aggregate_stress.main([*arms, *words]) == 0
    return made


def rows(path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8") as handle:
        return list(csv.DictReader(handle))


def test_scores_at_strength_0_are_those_of_the_metrics_to_the_last_digit(judged):
    known = {
        tuple(row[key] for key in ("arm", "repeat", "fold", "metric")): row
        for row in rows(judged / "metrics")
        if (row["part"], row["level"], row["class"]) == ("test", "image", "")
    }
    clean = [row for row in rows(judged / "stress.csv") if row["strength"] == "0"]
    assert len(clean) == len(ARMS) * 2 * 3, "a fold, its repeat and the mean, by two metrics"
    for row in clean:
        other = known[tuple(row[key] for key in ("arm", "repeat", "fold", "metric"))]
        assert [row[key] for key in ("value", "low", "high")] == [other[key] for key in ("value", "low", "high")]


def test_areas_are_compared_with_baseline_and_control(judged):
    found = rows(judged / "areas.csv")
    pairs = {(row["arm"], row["against"], row["relation"]) for row in found}
    assert ("pool", "real_only", "baseline") in pairs and ("pool", "resample_real", "control") in pairs
    scores = {
        (row["arm"], row["corruption"], row["metric"]): float(row["value"])
        for row in rows(judged / "stress.csv")
        if row["strength"] == "area"
    }
    for row in found:
        expected = [scores[row[key], row["corruption"], row["metric"]] for key in ("arm", "against")]
        assert float(row["difference"]) == pytest.approx(expected[0] - expected[1], abs=1e-7)
    assert (judged / "stress.png").stat().st_size > 10_000
