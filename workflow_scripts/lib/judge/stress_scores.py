"""Score all arms under stress: the judge's metrics at every strength of every corruption, and the area under the curve.

Thresholds stay those of the clean calibration part, as in a laboratory that does not know that its microscope is out of
focus. The area is the mean score over strengths 0 to 5 by the trapezoidal rule. Groups are drawn as in the judge's
bootstrap: with the same weights under all conditions, so differences between conditions and between arms are paired."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from workflow_scripts.lib.base import stage
from workflow_scripts.lib.base.errors import UserError
from workflow_scripts.lib.images.corruption_choices import CLEAN, CORRUPTIONS, LEVELS
from workflow_scripts.lib.judge import comparisons, inference, scoring
from workflow_scripts.lib.judge.analysis_choices import THESE_PROTEINS
from workflow_scripts.lib.judge.comparisons import SECONDARY
from workflow_scripts.lib.judge.experiment import Experiment
from workflow_scripts.lib.judge.fold_scores import FoldScores, ScoredRows
from workflow_scripts.lib.judge.question import Question
from workflow_scripts.lib.judge.scoring import BLOCK, ArmScores
from workflow_scripts.lib.judge.thresholds import Rule, count_decisions
from workflow_scripts.lib.scores import stress_file
from workflow_scripts.lib.scores.prediction_file import Predictions, Scored

METRICS = ("macro_f1", "map")
EVERY, AREA = "all", "area"  # mean over all corruptions; in place of a strength
COLUMNS = ["arm", "corruption", "strength", "setting", "repeat", "fold", "metric", "level", "value", "low", "high"]
AREA_COLUMNS = ["corruption", *comparisons.COLUMNS]
Row = dict[str, Any]
Condition = tuple[str, int]
Curves = dict[str, np.ndarray]


@dataclass(frozen=True)
class StressedArm:
    """Scores of one arm under S conditions, of which the first is the clean image."""

    scores: list[ArmScores]  # at equal weights
    plain: Curves  # metric -> (S, R)
    draws: Curves  # metric -> (S, R, B)


@dataclass(frozen=True)
class Areas:
    """Area under the curve of one arm and one corruption, in the form that comparisons take."""

    macro: Curves  # metric -> (R,)
    macro_draws: Curves  # metric -> (R, B)
    design: None = None  # not taken apart by training


@dataclass(frozen=True)
class StressedRun:
    """All arms of a run under stress, at the level of the primary question."""

    question: Question  # its number of draws is that of these draws
    conditions: list[Condition]
    arms: dict[str, StressedArm]

    @property
    def corruptions(self) -> list[str]:
        """Names of the corruptions."""
        return list(dict.fromkeys(name for name, _ in self.conditions if name != CLEAN))

    def curve(self, corruption: str) -> list[int]:
        """Places of the conditions of a corruption, from strength 0 on."""
        return [0, *(self.conditions.index((corruption, level)) for level in range(1, LEVELS + 1))]

    def areas(self, arm: str, corruption: str) -> Areas:
        """Area of an arm under a corruption, or the mean over all of them."""
        names = self.corruptions if corruption == EVERY else [corruption]
        found = self.arms[arm]
        return Areas(*({key: _mean_area(value, map(self.curve, names)) for key, value in values.items()}
                       for values in (found.plain, found.draws)))  # fmt: skip


def _mean_area(values: np.ndarray, curves: Any) -> np.ndarray:
    return np.mean([np.trapezoid(values[places], axis=0) / LEVELS for places in curves], axis=0)


def score_run(question: Question, experiment: Experiment, paths: list[Path], draws: int, threads: int) -> StressedRun:
    """Score every arm of the experiment under all conditions of the files of answers, one for each fold."""
    answers = _by_place(paths, experiment)
    analysis, level = question.analysis, question.analysis["level"]
    _, judged = scoring.count_positives(experiment, analysis["minimum_positive_groups"])
    weights = scoring.group_weights(question.seed, len(experiment.groups), draws)
    rule = Rule(analysis["threshold_rule"], analysis["minimum_calibration_groups"], analysis["refit_thresholds"])
    conditions = [(CLEAN, 0), *next(iter(answers.values()))[1]]
    stage.log.info("%d arms under %d conditions: %d draws", len(experiment.arms), len(conditions), draws)

    def score(arm: str) -> StressedArm:
        clean = experiment.fold_scores(arm, level)
        tests = [[fold.test for fold in clean]]
        tests += [[fold.test for fold in folds] for folds in _under_stress(experiment, arm, level, answers)]
        return summarise(clean, tests, rule, weights, judged)

    with ThreadPoolExecutor(max(1, threads)) as pool:
        scored = dict(zip(experiment.arms, pool.map(score, experiment.arms), strict=True))
    return StressedRun(replace(question, analysis=analysis | {"draws": draws}), conditions, scored)


def _by_place(paths: list[Path], experiment: Experiment) -> dict[tuple[int, int], tuple[Path, list[Condition]]]:
    """The file and the conditions of each repeat and fold; they belong to these predictions, and are all alike."""
    found: dict[tuple[int, int], tuple[Path, list[Condition]]] = {}
    for path in paths:
        answers = stress_file.read(path, arms=())
        found[answers.repeat, answers.fold] = (path, answers.conditions)
    missing = [place for place in experiment.places if place not in found]
    if missing:
        raise UserError(f"there are no answers under stress of repeat {missing[0][0]}, fold {missing[0][1]}")
    first = found[experiment.places[0]][1]
    for path, conditions in found.values():
        if conditions != first:
            raise UserError(f"{path} has other corruptions than the first fold: delete it and run again")
    return found


def _under_stress(
    experiment: Experiment, arm: str, level: str, answers: dict[tuple[int, int], tuple[Path, list[Condition]]]
) -> list[list[FoldScores]]:
    """The folds of an arm under each condition."""
    folds: list[list[Predictions]] = []
    for clean in experiment.arms[arm]:
        path, _ = answers[clean.repeat, clean.fold]
        found = stress_file.read(path, arms=(arm,))
        if (found.images, found.digests[arm]) != (clean.images, clean.digest):
            raise UserError(f"{path} has answers of another classifier of the arm {arm!r}: delete it and run again")
        test, order = clean.parts["test"], np.argsort(found.ids.astype(str), kind="stable")
        if not np.array_equal(found.ids[order], test.ids):
            raise UserError(f"{path} has answers for other test images than the predictions: delete it and run again")
        folds.append(
            [
                replace(clean, parts=clean.parts | {"test": Scored(test.ids, test.groups, test.labels, logits[order])})
                for logits in found.logits[arm]
            ]
        )
    # Not by fold, but by condition.
    return [replace(experiment, arms={arm: list(one)}).fold_scores(arm, level) for one in zip(*folds, strict=True)]


def summarise(
    clean: list[FoldScores], tests: list[list[ScoredRows]], rule: Rule, weights: np.ndarray, judged: np.ndarray
) -> StressedArm:
    """Score one arm on the test rows of S conditions, each a list over folds: plainly, and in every draw (G, B)."""
    plain = score_conditions(clean, tests, rule, np.ones((len(weights), 1)))
    widened = [scoring.widenings(rows, scores) for rows, scores in zip(tests, plain, strict=True)]
    blocks: dict[str, list[np.ndarray]] = {metric: [] for metric in METRICS}
    for start in range(0, weights.shape[1], BLOCK):
        drawn = score_conditions(clean, tests, rule, np.ascontiguousarray(weights[:, start : start + BLOCK]))
        for one, other, (widening, widening_f1) in zip(drawn, plain, widened, strict=True):
            one.precision = other.precision + widening * (one.precision - other.precision)
            one.widening = widening_f1
        for metric in METRICS:
            blocks[metric].append(np.stack([_values(one, judged)[metric] for one in drawn]).astype(np.float32))
    return StressedArm(
        plain,
        {metric: np.stack([_values(one, judged)[metric][:, 0] for one in plain]) for metric in METRICS},
        {metric: np.concatenate(parts, axis=-1) for metric, parts in blocks.items()},
    )


def _values(scores: ArmScores, judged: np.ndarray) -> Curves:
    return {"macro_f1": scores.macro_f1(judged), "map": scores.map(judged)}


def score_conditions(
    clean: list[FoldScores], tests: list[list[ScoredRows]], rule: Rule, weights: np.ndarray
) -> list[ArmScores]:
    """`scoring.score_arm` for the test rows of each condition, at the thresholds of the clean calibration part."""
    thresholds = [scoring.fold_thresholds(fold, rule, weights) for fold in clean]
    places = [(fold.repeat, fold.fold) for fold in clean]
    repeats = sorted({repeat for repeat, _ in places})
    return [
        ArmScores(
            repeats,
            places,
            np.stack([np.stack(count_decisions(rows, own, rule, weights))
                      for rows, own in zip(folds, thresholds, strict=True)]),
            np.stack([scoring.class_precision(rows, weights) for rows in folds]),
            np.array([len(rows.groups) for rows in folds]),
        )
        for folds in tests
    ]  # fmt: skip


# ---- tables ----------------------------------------------------------------------------------------------------------


def score_rows(run: StressedRun, judged: np.ndarray) -> list[Row]:
    """Rows of stress.csv: of every fold and repeat, and their mean with a single interval; then the areas."""
    rows: list[Row] = []
    level, confidence = run.question.analysis["level"], run.question.analysis["confidence"]
    for arm, found in run.arms.items():
        for i, (corruption, strength) in enumerate(run.conditions):
            about = {"arm": arm, "corruption": corruption, "strength": strength, "level": level}
            about["setting"] = CORRUPTIONS[corruption].strengths[strength - 1] if strength else None
            scores = found.scores[i]
            for metric, by_fold in (
                ("macro_f1", scores.fold_macro_f1(judged)), ("map", scores.fold_map(judged))
            ):  # fmt: skip
                about["metric"] = metric
                over = "mean" if metric == "map" else "pooled"
                for (repeat, fold), value in zip(scores.places, by_fold[:, 0], strict=True):
                    rows.append(about | {"repeat": repeat, "fold": fold, "value": float(value)})
                plain, draws = found.plain[metric][i], found.draws[metric][i]
                for repeat, value in zip(scores.repeats, plain, strict=True):
                    rows.append(about | {"repeat": repeat, "fold": over, "value": float(value)})
                rows.append(about | {"repeat": "mean", "fold": over} | _single(run, plain, draws, confidence))
        for corruption in (EVERY, *run.corruptions):
            areas = run.areas(arm, corruption)
            for metric in METRICS:
                about = {"arm": arm, "corruption": corruption, "strength": AREA, "level": level, "metric": metric}
                about |= {"repeat": "mean", "fold": "mean" if metric == "map" else "pooled"}
                rows.append(about | _single(run, areas.macro[metric], areas.macro_draws[metric], confidence))
    return rows


def _single(run: StressedRun, plain: np.ndarray, draws: np.ndarray, confidence: float) -> Row:
    """The mean over repeats of estimates (R,), with its interval from draws (R, B)."""
    ends = inference.intervals(plain[None], draws[None], confidence, run.question.seed)
    value = scoring.mean(plain, axis=0)
    return {"value": float(value), "low": float(ends.low_single[0]), "high": float(ends.high_single[0])}


def area_rows(run: StressedRun, declared: bool) -> list[Row]:
    """Rows of stress_areas.csv: differences in area to baseline and control, over all corruptions and for each.

    The mean over all corruptions is a secondary metric where it was declared. Single corruptions are exploratory."""
    rows: list[Row] = []
    for corruption in (EVERY, *run.corruptions):
        summaries = {arm: run.areas(arm, corruption) for arm in run.arms}
        family = SECONDARY if declared and corruption == EVERY else comparisons.CLASSES
        for metric in METRICS:
            found = comparisons.family_rows(run.question, summaries, metric, run.question.analysis["level"], SECONDARY)
            repeats = len(next(iter(summaries.values())).macro[metric])
            about = {"corruption": corruption, "family": family, "repeats": repeats, "training_luck": repeats > 1}
            # The surplus over repeats that is added here knows nothing of other training groups.
            about |= {"claim": THESE_PROTEINS, "beside_low": None, "beside_high": None, "beside_verdict": ""}
            rows += [row | about for row in found]
    for metric in METRICS:
        single = [row for row in rows if row["metric"] == metric and row["corruption"] != EVERY]
        for row, q in zip(single, inference.discovery_rates(np.array([row["p"] for row in single])), strict=True):
            row["q"] = float(q)
    return rows
