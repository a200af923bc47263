"""The stage on tiny predictions: what it writes, that it repeats, and what it refuses."""

import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import average_precision_score, f1_score

from tests.helpers.judging import OUTPUTS, declare, run, write_world
from tests.helpers.worlds import ANALYSIS, ARMS, CLASSES, World
from workflow_scripts import aggregate_metrics
from workflow_scripts.lib.images.access_record import AccessRecord
from workflow_scripts.lib.judge import comparisons
from workflow_scripts.lib.judge import experiment as judged_experiment
from workflow_scripts.lib.judge.question import Question
from workflow_scripts.lib.judge.wording import analysis_report
from workflow_scripts.lib.scores.prediction_file import Scored, read_predictions, write_predictions


@pytest.fixture(scope="module")
def judged(tmp_path_factory):
    folder = tmp_path_factory.mktemp("judged")
    prevalence = np.array([0.5, 0.3, 0.2, 0.03])  # the last class has too few groups
    write_world(folder, prevalence=prevalence)
    assert run(folder) == 0
    return folder


def tables(folder):
    read = {name: pd.read_csv(folder / "out" / name, keep_default_na=False, na_values=[""]) for name in OUTPUTS[:3]}
    return read | {"analysis": json.loads((folder / "out" / "analysis").read_text())}


def test_scores_are_those_of_scikit_learn(judged):
    found = tables(judged)
    thresholds = found["thresholds"].query("arm == 'mix' and level == 'image'")
    truth, decisions, maps = [], [], []
    kept = [CLASSES.index(name) for name in found["analysis"]["judged"]]
    for fold in (0, 1):
        part = read_predictions(judged / f"mix-0-{fold}.h5").parts["test"]
        cuts = thresholds[thresholds.fold == fold].set_index("class").loc[CLASSES, "threshold"].to_numpy()
        truth.append(part.labels)
        decisions.append(part.probabilities >= cuts)
        maps.append(average_precision_score(part.labels[:, kept], part.logits[:, kept], average="macro"))
    expected = f1_score(np.concatenate(truth)[:, kept], np.concatenate(decisions)[:, kept], average="macro")
    rows = found["metrics"].query("arm == 'mix' and part == 'test' and level == 'image' and repeat == 'mean'")
    rows = rows[rows["class"].isna()].set_index("metric")
    assert rows.loc["macro_f1", "value"] == pytest.approx(expected, rel=1e-6)
    assert rows.loc["map", "value"] == pytest.approx(np.mean(maps), rel=1e-6)
    assert (rows.loc["macro_f1", "low"] < expected) and (expected < rows.loc["macro_f1", "high"])


def test_only_arms_that_are_no_controls_can_lack_one():
    size, judged = {"repeats": 2}, np.ones(3, dtype=bool)

    def told(arms):
        return [
            note for note in analysis_report.notes(Question(ANALYSIS, arms, 1), size, judged) if "No control" in note
        ]

    assert told(ARMS) == []
    alone = {"name": "alone", "method": "synthetic_only"}
    assert told([*ARMS, alone]) == ["No control is declared for: alone."]


def test_the_order_of_testing_is_told():
    def row(against, low, high, standing, family="primary"):
        ends = {"against": against, "low": low, "high": high}
        return ends | {"standing": standing, "family": family, "repeats": 2}

    first = {("mix", "baseline"): row("real_only", 0.1, 0.2, "confirmed")}
    control = {("mix", "control"): row("mix_real", -0.1, 0.2, "confirmed")}
    other = {("pool", "baseline"): row("real_only", 0.1, 0.2, "exploratory")}
    outside = {("late", "baseline"): row("real_only", None, None, "exploratory", "outside")}
    assert analysis_report.order(ANALYSIS, first | outside).endswith("mix against real_only.")
    told = analysis_report.order(ANALYSIS, first | control | other | outside)
    assert "mix against real_only, then against mix_real" in told
    assert "(1)" in told and "showed no difference from mix_real" in told and told.endswith("are exploratory.")
    once = {key: row | {"repeats": 1} for key, row in (first | other).items()}
    assert analysis_report.order(ANALYSIS, once).endswith("All are exploratory: a single repeat confirms nothing.")


def test_gap_is_validation_minus_test(judged):
    rows = tables(judged)["metrics"].query("arm == 'mix' and level == 'image' and repeat == 'mean' and metric == 'map'")
    value = rows.set_index("part")["value"]
    assert value["gap"] == pytest.approx(value["validation"] - value["test"], abs=1e-8)


def test_answer_verdicts_and_what_is_not_judged(judged):
    found = tables(judged)
    analysis, rows = found["analysis"], found["comparisons"]
    assert analysis["verdicts"] == {"mix": "helps", "mix_real": analysis["verdicts"]["mix_real"]}
    assert [row["class"] for row in analysis["not_judged"]] == [CLASSES[3]]
    assert "5 needed" in analysis["not_judged"][0]["reason"]
    primary = rows[(rows.family == "primary") & (rows.arm == "mix") & (rows.relation == "baseline")].iloc[0]
    assert analysis["answer"]["difference"] == pytest.approx(primary["difference"])
    assert analysis["answer"]["gain_not_excluded"] == pytest.approx(primary["high"])
    assert analysis["answer"]["beyond_control"]["low"] > 0
    assert "mix changed macro-F1 by +" in analysis["answer"]["sentence"]
    assert len(rows[rows.family == "primary"]) == analysis["comparisons_in_family"] == 3
    assert not rows.training_luck.any() and any("One repeat" in note for note in analysis["notes"])
    assert set(rows[rows.family == "exploratory"]["class"]) == set(CLASSES[:3])
    assert rows[rows.family == "exploratory"]["q"].notna().all()
    declared = rows[rows.family == "primary"].set_index(["arm", "relation"])
    # The primary arm is tested first, by itself; it showed a difference to both, but a single repeat confirms nothing.
    first = declared.loc["mix"]
    assert (first.high == first.high_single).all() and (declared.high >= declared.high_single).all()
    assert (rows.standing == "exploratory").all() and "a single repeat" in analysis["order"]
    assert "Verdict, with these training groups: helps (exploratory: a single repeat)" in analysis["answer"]["sentence"]
    assert len(analysis["cross_check"]) == 3 and analysis["cross_check"][0]["folds"] == 2
    assert list(rows.columns) == comparisons.COLUMNS


def test_what_thresholds_were_fitted_on_is_recorded_from_the_rows_read(judged):
    entries = tables(judged)["analysis"]["thresholds_fitted_on"]
    for entry in entries:
        cell = read_predictions(judged / f"real_only-{entry['repeat']}-{entry['fold']}.h5")
        assert set(entry["ids"]) == set(cell.parts["calibration"].ids)
        assert not set(entry["groups"]) & set(cell.parts["test"].groups)
    assert len(entries) == 2


def test_same_seed_same_bytes_whatever_the_order_of_files_and_threads(judged):
    first = {name: (judged / "out" / name).read_bytes() for name in OUTPUTS}
    assert run(judged, sorted(judged.glob("*.h5"))[::-1], out="again", declared=judged / "out-declared", threads=3) == 0
    assert {name: (judged / "again" / name).read_bytes() for name in OUTPUTS} == first
    assert run(judged, seed=2, out="other") == 0
    assert (judged / "other" / "comparisons").read_bytes() != first["comparisons"]


def test_lists_of_arms_repeats_and_no_calibration_part(tmp_path):
    write_world(tmp_path, repeats=2)
    for path in tmp_path.glob("*.h5"):
        arm = read_predictions(path)
        empty = Scored([], [], np.zeros((0, 4)), np.zeros((0, 4)))
        write_predictions(path, arm.__class__(**(vars(arm) | {"parts": arm.parts | {"calibration": empty}})))
    listed = tmp_path / "job0.json"
    listed.write_text(json.dumps({"arms": [{"predictions": path.name} for path in tmp_path.glob("*.h5")]}))
    assert run(tmp_path, [listed]) == 0
    found = tables(tmp_path)
    assert found["comparisons"].training_luck.all() and set(found["comparisons"].repeats) == {2}
    longer = found["analysis"]["longer_runs"]
    assert [run["repeats"] for run in longer["runs"]] == [4, 8]
    own = found["comparisons"].query("arm == 'mix' and relation == 'baseline' and family == 'primary'").iloc[0]
    assert 0 < longer["least_half_width"] < longer["runs"][1]["half_width"] < longer["runs"][0]["half_width"]
    assert longer["runs"][0]["half_width"] < 0.55 * (own.high - own.low)
    assert longer["runs"][1]["detectable"] < longer["runs"][0]["detectable"] < 1.1 * own.detectable
    assert "confirmed" in set(found["comparisons"].standing)
    assert set(found["metrics"].repeat.astype(str)) == {"0", "1", "mean"}
    entry = found["analysis"]["thresholds_fitted_on"][0]
    cell = read_predictions(tmp_path / f"mix-{entry['repeat']}-{entry['fold']}.h5")
    assert set(entry["ids"]) == set(cell.parts["validation"].ids)


def test_what_arms_of_a_fold_have_in_common_is_held_once(tmp_path):
    write_world(tmp_path, repeats=2)
    found = judged_experiment.read_experiment(sorted(tmp_path.glob("*.h5")), [arm["name"] for arm in ARMS])
    first, *others = found.arms.values()
    for arm in others:
        for cell, same in zip(arm, first, strict=True):
            for name, part in cell.parts.items():
                for column in ("ids", "groups", "labels"):
                    assert getattr(part, column) is getattr(same.parts[name], column)
                assert not np.array_equal(part.logits, same.parts[name].logits)


def spoil(folder, change):
    path = folder / "mix-0-1.h5"
    arm = read_predictions(path)
    change(arm)
    write_predictions(path, arm)


def drop_row(arm):
    part = arm.parts["test"]
    arm.parts["test"] = Scored(part.ids[1:], part.groups[1:], part.labels[1:], part.logits[1:])


def nan_logit(arm):
    arm.parts["test"].logits[0, 0] = np.nan


def other_classes(arm):
    arm.classes = arm.classes[::-1]


def other_label(arm):
    arm.parts["calibration"].labels[0, 0] ^= 1


def twice(arm):
    arm.parts["test"].ids[1] = arm.parts["test"].ids[0]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (drop_row, ["'mix'", "ids", "test"]),
        (nan_logit, ["'mix'", "no numbers", "fold 1"]),
        (other_classes, ["'mix'", "other classes"]),
        (other_label, ["'mix'", "labels", "calibration"]),
        (twice, ["mix-0-1.h5", "twice"]),
        (lambda arm: setattr(arm, "arm", "stranger"), ["'stranger'"]),
        (lambda arm: setattr(arm, "images", "elsewhere"), ["'mix'", "different images"]),
    ],
)
def test_predictions_that_cannot_be_paired_are_refused(tmp_path, capsys, change, words):
    write_world(tmp_path)
    spoil(tmp_path, change)
    assert run(tmp_path) == 1
    first = capsys.readouterr().err.split("aggregate_metrics failed:")[1].splitlines()[0]
    assert all(word in first for word in words), first
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"primary_arm": "nobody"}, ["primary_arm", "'nobody'"]),
        ({"family": ["mix_real"]}, ["family", "'mix'"]),
        ({"primary_arm": "real_only"}, ["baseline"]),
        ({"minimum_positive_groups": 500}, ["500", "minimum_positive_groups"]),
    ],
)
def test_settings_that_make_no_sense_are_refused(judged, capsys, changes, words):
    assert run(judged, out="refused", **changes) == 1
    first = capsys.readouterr().err.split("aggregate_metrics failed:")[1].splitlines()[0]
    assert all(word in first for word in words), first


def test_a_missing_fold_is_named(judged, capsys):
    assert run(judged, [p for p in judged.glob("*.h5") if p.name != "mix_real-0-1.h5"], out="refused") == 1
    assert "arm 'mix_real' has no predictions of repeat 0, fold 1" in capsys.readouterr().err


def test_a_file_of_another_kind_is_named(judged, capsys, tmp_path):
    other = Path(tmp_path) / "notes.h5"
    other.write_text("not HDF5")
    assert run(judged, [other], out="refused") == 1
    assert "notes.h5" in capsys.readouterr().err


def test_predictions_round_trip(tmp_path):
    arm = World(1).arm("mix")[0]
    arm.history, arm.settings = {"step": np.arange(3)}, {"alpha": 0.3}
    arm.numbers, arm.digest, arm.access_record = {"seconds": 1.5, "best_step": 20}, "d1", "x" * 200_000
    write_predictions(tmp_path / "p.h5", arm)
    back = read_predictions(tmp_path / "p.h5")
    for part in arm.parts:
        np.testing.assert_array_equal(back.parts[part].logits, arm.parts[part].logits)
        np.testing.assert_array_equal(back.parts[part].ids, arm.parts[part].ids)
    assert (back.numbers, back.settings, back.access_record) == (arm.numbers, arm.settings, arm.access_record)
    extreme = Scored(["a"], ["g"], np.zeros((1, 2)), np.array([[-700.0, 700.0]]))
    assert 0 < extreme.probabilities[0, 0] < 1e-300 and extreme.probabilities[0, 1] == 1


def test_a_later_change_of_the_analysis_is_written_down_with_the_predictions_it_has_seen(tmp_path):
    settings = ANALYSIS | {"arms": ARMS}
    first = declare(tmp_path, settings)
    assert (first["predictions"], first["earlier"]) == (0, [])
    # The same analysis again adds nothing; another one is kept beside it.
    arm = tmp_path / "repeat0" / "fold0" / "arms" / "pool"
    arm.mkdir(parents=True)
    (arm / "predictions.h5").touch()
    assert declare(tmp_path, settings) == first
    later = declare(tmp_path, settings | {"smallest_effect": 0.5})
    assert later["predictions"] == 1
    assert [entry["hash"] for entry in later["earlier"]] == [first["hash"]]
    assert len((tmp_path / "declarations.jsonl").read_text().splitlines()) == 2
    assert "before the first test prediction" in analysis_report.registered(first)
    assert first["hash"] in analysis_report.registered(later)
    # Whoever deletes the predictions does not delete what was declared before them.
    (arm / "predictions.h5").unlink()
    again = declare(tmp_path, settings)
    assert again["predictions"] == 0
    assert re.search(
        f"Declared before it: {first['hash']} of .*, {later['hash']} of ", analysis_report.registered(again)
    )


def test_a_later_change_of_what_an_arm_is_is_written_down_too(tmp_path):
    settings = ANALYSIS | {"arms": ARMS}
    first = declare(tmp_path, settings, train_classifier={"steps": 100})
    arm = tmp_path / "repeat0" / "fold0" / "arms" / "pool"
    arm.mkdir(parents=True)
    (arm / "predictions.h5").touch()
    assert declare(tmp_path, settings, train_classifier={"steps": 100}) == first
    later = declare(tmp_path, settings, train_classifier={"steps": 200})
    assert later["hash"] == first["hash"] and later["experiment"] != first["experiment"]
    said = analysis_report.registered(later)
    assert "when 1 test prediction had been made already" in said and first["experiment"] in said
    assert "before the first test prediction" in analysis_report.registered(first)


def test_another_analysis_than_the_declared_one_is_refused(tmp_path, capsys):
    write_world(tmp_path)
    assert run(tmp_path) == 0
    flags = [text for name in OUTPUTS for text in (f"--{name}", str(tmp_path / "out" / name))]
    settings = ANALYSIS | {"draws": 100, "arms": ARMS, "smallest_effect": 0.3}
    argv = ["--arms", *map(str, sorted(tmp_path.glob("*.h5"))), *flags, "--seed", "1"]
    argv += ["--declaration", str(tmp_path / "out-declared" / "declaration.json"), "--settings", json.dumps(settings)]
    assert aggregate_metrics.main(argv) == 1
    assert "another analysis" in capsys.readouterr().err


def test_an_arm_whose_generator_came_from_elsewhere_says_so(tmp_path):
    write_world(tmp_path)
    record = AccessRecord("digest", 9, unknown=frozenset({"theirs"}))
    for path in tmp_path.glob("mix-*.h5"):
        arm = read_predictions(path)
        arm.access_record = record.to_json()
        write_predictions(path, arm)
    assert run(tmp_path) == 0
    found = json.loads((tmp_path / "out" / "analysis").read_text())
    note = "The generator came from elsewhere; whether it saw these test proteins is unknown."
    assert found["arms"]["mix"]["note"] == found["answer"]["note"] == note
    assert found["answer"]["sentence"].endswith(note)
    assert "note" not in found["arms"]["mix_real"]
    assert "mix: the generator came from elsewhere; whether it saw these test proteins is unknown." in found["notes"]
