"""Scores under stress: equal to the judge's where nothing is corrupted, areas by hand, and refusals."""

from dataclasses import replace

import numpy as np
import pytest

from tests.helpers.worlds import ANALYSIS, ARMS, World
from workflow_scripts.lib.base.errors import UserError
from workflow_scripts.lib.images import corruption_choices
from workflow_scripts.lib.judge import scoring, stress_scores
from workflow_scripts.lib.judge.experiment import read_experiment
from workflow_scripts.lib.judge.question import Question
from workflow_scripts.lib.judge.thresholds import Rule
from workflow_scripts.lib.scores import stress_file
from workflow_scripts.lib.scores.prediction_file import write_predictions
from workflow_scripts.lib.scores.stress_file import Stress

CONDITIONS = corruption_choices.conditions(["defocus", "shot_noise"])
QUESTION = Question(ANALYSIS | {"draws": 100}, ARMS, 1)


def answers(folder, worsen=lambda logits, level: logits, **changes):
    """Predictions of every arm in both repeats, and beside them answers under stress made of their test logits."""
    world, paths = World(3), []
    for repeat in range(2):
        folds: dict[int, Stress] = {}
        for entry, skill in zip(ARMS, (1.0, 3.5, 1.0), strict=True):
            for arm in world.arm(entry["name"], skill, repeat=repeat):
                arm.numbers, arm.digest = {"seconds": 2.0}, f"{entry['name']} {repeat} {arm.fold}"
                write_predictions(folder / f"{arm.arm}-{repeat}-{arm.fold}.h5", arm)
                test, own = arm.parts["test"], np.random.default_rng(1).permutation(len(arm.parts["test"]))
                made = folds.setdefault(
                    arm.fold, Stress(repeat, arm.fold, arm.images, "", CONDITIONS, test.ids[own], test.groups[own])
                )
                made.digests[arm.arm] = arm.digest
                made.logits[arm.arm] = np.stack([worsen(test.logits[own], level) for _, level in CONDITIONS])
        for fold, made in folds.items():
            paths.append(folder / f"repeat{repeat}-fold{fold}" / stress_file.NAME)
            paths[-1].parent.mkdir()
            stress_file.write(paths[-1], replace(made, **changes))
    return read_experiment(sorted(folder.glob("*.h5")), QUESTION.names), paths


def scored(folder, **more):
    experiment, paths = answers(folder, **more)
    return experiment, stress_scores.score_run(QUESTION, experiment, paths, 100, 1)


def test_unchanged_images_score_as_the_judge_scores_them(tmp_path):
    experiment, run = scored(tmp_path)
    judged = scoring.score_experiment(QUESTION, experiment, 1)
    for arm, found in run.arms.items():
        clean = judged.primary_level[arm]
        for metric in stress_scores.METRICS:
            assert len(found.plain[metric]) == 1 + len(CONDITIONS)
            for place in range(1 + len(CONDITIONS)):
                assert np.array_equal(found.plain[metric][place], clean.macro[metric])
                assert np.array_equal(found.draws[metric][place], clean.macro_draws[metric]), "the same draws"
            assert run.areas(arm, "all").macro[metric] == pytest.approx(clean.macro[metric])


def test_thresholds_stay_those_of_clean_images(tmp_path):
    """Answers that are all less sure pass fewer of them: they are not calibrated again. Ranks stay, and so does AP."""
    experiment, run = scored(tmp_path, worsen=lambda logits, level: logits - level / 2)
    rule = Rule(ANALYSIS["threshold_rule"], ANALYSIS["minimum_calibration_groups"], True)
    _, judged = scoring.count_positives(experiment, ANALYSIS["minimum_positive_groups"])
    found = run.arms["real_only"]
    assert np.allclose(found.plain["map"], found.plain["map"][0], atol=1e-6)
    assert (np.diff(found.plain["macro_f1"][run.curve("defocus")].mean(axis=1)) < 0).all()
    folds = experiment.fold_scores("real_only", ANALYSIS["level"])
    for fold in folds:
        fold.test.scores[:] = 1 / (1 + np.exp(-(np.log(fold.test.scores / (1 - fold.test.scores)) - 1)))
    ones = np.ones((len(experiment.groups), 1))
    expected = scoring.score_arm(folds, rule, ones).macro_f1(judged)[:, 0]
    assert found.plain["macro_f1"][run.conditions.index(("defocus", 2))] == pytest.approx(expected)


def test_the_area_is_the_mean_by_trapezoids(tmp_path):
    _, run = scored(tmp_path)
    values = np.arange(11.0)  # of conditions: clean, five of defocus, five of shot noise
    arm = replace(
        run.arms["real_only"], plain={"map": values[:, None]}, draws={"map": np.stack([values, 2 * values], 1)[:, None]}
    )
    run = replace(run, arms={"real_only": arm})
    assert run.curve("shot_noise") == [0, 6, 7, 8, 9, 10]
    assert run.areas("real_only", "defocus").macro["map"] == pytest.approx([2.5])  # 0, 1, … 5
    own = ((0 + 6) / 2 + (6 + 7) / 2 + (7 + 8) / 2 + (8 + 9) / 2 + (9 + 10) / 2) / 5
    assert run.areas("real_only", "shot_noise").macro["map"] == pytest.approx([own])
    whole = run.areas("real_only", "all")
    assert whole.macro["map"] == pytest.approx([(2.5 + own) / 2])
    assert whole.macro_draws["map"] == pytest.approx(np.array([[1, 2]]) * (2.5 + own) / 2)


def test_rows_say_what_was_declared_and_what_is_exploratory(tmp_path):
    experiment, run = scored(tmp_path)
    _, judged = scoring.count_positives(experiment, ANALYSIS["minimum_positive_groups"])
    rows = stress_scores.score_rows(run, judged)
    assert {row["strength"] for row in rows} == {0, 1, 2, 3, 4, 5, "area"}
    assert all(row["low"] <= row["value"] <= row["high"] for row in rows if row["repeat"] == "mean")
    assert {row["setting"] for row in rows if row["corruption"] == "shot_noise" and row["strength"] == 5} == {5}
    for declared, expected in ((True, {"secondary"}), (False, {"exploratory"})):
        areas = stress_scores.area_rows(run, declared)
        assert {row["family"] for row in areas if row["corruption"] == "all"} == expected
        assert {row["family"] for row in areas if row["corruption"] != "all"} == {"exploratory"}
        assert {row["standing"] for row in areas} == {"exploratory"}, "it shares no error rate with the primary metric"
        assert all(0 <= row["q"] <= 1 for row in areas if row["corruption"] != "all")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"digests": dict.fromkeys(QUESTION.names, "other")}, "another classifier"),
        ({"ids": np.array([f"x{i}" for i in range(1000)])}, "other test images"),
    ],
)
def test_answers_of_other_arms_or_images_are_refused(tmp_path, changes, said):
    if "ids" in changes:
        count = len(answers_of_one_fold(tmp_path / "first"))
        changes = {"ids": changes["ids"][:count]}
    experiment, paths = answers(tmp_path, **changes)
    with pytest.raises(UserError, match=said):
        stress_scores.score_run(QUESTION, experiment, paths, 100, 1)


def answers_of_one_fold(folder) -> np.ndarray:
    folder.mkdir()
    _, paths = answers(folder)
    return stress_file.read(paths[0], arms=()).ids


def test_a_fold_without_answers_is_named(tmp_path):
    experiment, paths = answers(tmp_path)
    with pytest.raises(UserError, match=r"of repeat 1, fold \d"):
        stress_scores.score_run(QUESTION, experiment, paths[:-1], 100, 1)


def test_a_file_of_another_kind_is_refused(tmp_path):
    _, paths = answers(tmp_path)
    with pytest.raises(UserError, match="no answers of the arm 'nobody'"):
        stress_file.read(paths[0], arms=("nobody",))
    for other in (tmp_path / "text", next(tmp_path.glob("real_only-*.h5"))):
        other.touch()
        with pytest.raises(UserError, match="answers under stress"):
            stress_file.read(other)
