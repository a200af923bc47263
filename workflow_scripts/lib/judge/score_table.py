"""Rows of metrics.csv and thresholds.csv: what every arm scored, and the thresholds it was scored at."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from workflow_scripts.lib.judge import inference, scoring
from workflow_scripts.lib.judge.analysis_choices import LEVELS
from workflow_scripts.lib.judge.scoring import BY_CLASS, MACRO, ArmScores, ScoredRun, Summary
from workflow_scripts.lib.judge.thresholds import fit_thresholds

METRIC_COLUMNS = ["arm", "repeat", "fold", "part", "level", "metric", "class", "value", "low", "high"]
METRIC_COLUMNS += ["positives", "positive_groups", "judged"]
THRESHOLD_COLUMNS = ["arm", "repeat", "fold", "level", "class", "threshold", "pooled", "positive_groups"]
Row = dict[str, Any]
Place = tuple[int | str, int | str, str]  # repeat (or mean), fold (or pooled, mean), part (or gap)


def metric_rows(run: ScoredRun) -> list[Row]:
    """Rows of metrics.csv: scores per arm, level, part, repeat, fold and class.

    Intervals (of the mean over repeats, on the test part) are single ones: comparisons.csv is for comparing arms."""
    return [
        row
        for level in LEVELS
        for name, summary in run.summaries[level].items()
        for row in _ArmRows(run, name, level, summary).all()
    ]


@dataclass
class _ArmRows:
    """Rows of one arm at one level, added one metric after another."""

    run: ScoredRun
    arm: str
    level: str
    summary: Summary
    rows: list[Row] = field(default_factory=list)

    def all(self) -> list[Row]:
        """Averages of folds, repeats and the mean over repeats; the gap; classes; the score of chance."""
        judged, parts = self.run.judged, {"validation": self.summary.validation, "test": self.summary.test}
        self.single = _single_intervals(self.run, self.summary)
        values: dict[str, dict[str, np.ndarray]] = {}
        for part, scores in parts.items():
            values[part] = {key: value[..., 0] for key, value in scoring.metric_values(scores, judged).items()}
            self._add_averages(part, scores, values[part])
        for metric in MACRO:
            means = [scoring.mean(values[part][metric], axis=0) for part in ("validation", "test")]
            self._add(("mean", _over(metric), "gap"), metric, means[0] - means[1])
        for metric in BY_CLASS:
            for part, by_metric in values.items():
                self._add_classes(part, metric, by_metric[metric])
        chance = self.summary.test.prevalence()
        self._add(("mean", "mean", "test"), "prevalence", scoring.mean(chance[judged], axis=0))
        for k, value in enumerate(chance):
            self._add(("mean", "mean", "test"), "prevalence", value, k)
        return self.rows

    def _add_averages(self, part: str, scores: ArmScores, values: dict[str, np.ndarray]) -> None:
        judged = self.run.judged
        for metric, by_fold in (("macro_f1", scores.fold_macro_f1(judged)), ("map", scores.fold_map(judged))):
            for i, (repeat, fold) in enumerate(scores.places):
                self._add((repeat, fold, part), metric, by_fold[i, 0])
        for metric in MACRO:
            for r, repeat in enumerate(scores.repeats):
                self._add((repeat, _over(metric), part), metric, values[metric][r])
            self._add(("mean", _over(metric), part), metric, scoring.mean(values[metric], axis=0))

    def _add_classes(self, part: str, metric: str, values: np.ndarray) -> None:
        for k in range(values.shape[1]):
            for r, repeat in enumerate(self.summary.test.repeats):
                self._add((repeat, _over(metric), part), metric, values[r, k], k)
            self._add(("mean", _over(metric), part), metric, scoring.mean(values[:, k], axis=0), k)

    def _add(self, place: Place, metric: str, value: float, k: int | None = None) -> None:
        """Add a row, of class `k` or of an average."""
        repeat, fold, part = place
        low, high = self.single.get((metric, k), (None, None)) if (repeat, part) == ("mean", "test") else (None, None)
        counts = self.run.counts[self.level] if k is not None and part == "test" else {}
        self.rows.append(
            {"arm": self.arm, "repeat": repeat, "fold": fold, "part": part, "level": self.level, "metric": metric}
            | {"class": "" if k is None else self.run.experiment.classes[k], "value": float(value)}
            | {"low": low, "high": high}
            | {name: int(counts[name][k]) if counts else None for name in ("positives", "positive_groups")}
            | {"judged": "" if k is None else bool(self.run.judged[k])}
        )


def _over(metric: str) -> str:
    # F1 pools decisions over folds; average precision is averaged over them.
    return "mean" if metric in ("map", "ap") else "pooled"


def _single_intervals(run: ScoredRun, summary: Summary) -> dict[tuple[str, int | None], tuple[float, float]]:
    """(metric, class number or None) -> the interval of a single score."""
    out: dict[tuple[str, int | None], tuple[float, float]] = {}
    confidence, seed = run.question.analysis["confidence"], run.question.seed
    for metric in MACRO + BY_CLASS:
        macro = metric in MACRO
        plain = summary.macro[metric][None] if macro else summary.classes[metric].T
        draws = summary.macro_draws[metric][None] if macro else summary.class_draws[metric].transpose(1, 0, 2)
        ends = inference.intervals(plain, draws, confidence, seed)
        for k in range(len(ends.se)):
            out[metric, None if macro else k] = (ends.low_single[k], ends.high_single[k])
    return out


def threshold_rows(run: ScoredRun) -> list[Row]:
    """Rows of thresholds.csv: the threshold of every arm, fold and class, at both levels."""
    rows = []
    for level in LEVELS:
        for name in run.experiment.arms:
            for fold in run.experiment.fold_scores(name, level):
                fitted = fit_thresholds(fold.calibration, run.rule)
                for k, label in enumerate(run.experiment.classes):
                    rows.append(
                        {"arm": name, "repeat": fold.repeat, "fold": fold.fold, "level": level, "class": label}
                        | {"threshold": float(fitted.values[k]), "pooled": bool(fitted.pooled[k])}
                        | {"positive_groups": int(fitted.positive_groups[k])}
                    )
    return rows
