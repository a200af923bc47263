"""The primary question within each cell line and each reliability tier: rows of strata.csv.

Exploratory: single intervals, and a false discovery rate over all strata. Within a stratum the average is over the
classes that have enough positive test groups there, so averages of different strata are over different classes. A
difference between arms is always over the same classes. Thresholds are those of the whole calibration part."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from workflow_scripts.lib.base.errors import UserError
from workflow_scripts.lib.images.image_set import ImageSet
from workflow_scripts.lib.judge import fixed_scoring, inference
from workflow_scripts.lib.judge.analysis_choices import METRICS
from workflow_scripts.lib.judge.experiment import Experiment
from workflow_scripts.lib.judge.fixed_scoring import Decided
from workflow_scripts.lib.judge.fold_scores import ScoredRows, per_protein
from workflow_scripts.lib.judge.question import arms_of
from workflow_scripts.lib.judge.scoring import ScoredRun
from workflow_scripts.lib.judge.thresholds import fit_thresholds

STRATIFIED_BY = ("cell_line", "reliability")  # columns of the image set
DRAWS = 500  # at most: enough for intervals that only explore
COLUMNS = [
    "column",
    "stratum",
    "images",
    "groups",
    "repeats",
    "classes",
    "arm",
    "against",
    "relation",
    "metric",
    "level",
]
COLUMNS += ["score", "score_against", "difference", "low", "high", "se", "p", "q", "verdict", "judged", "reason"]
Row = dict[str, Any]
ColumnValues = dict[str, list[np.ndarray]]  # column -> values (n,) of the test images of each fold, "" where unknown


def compare_within_strata(run: ScoredRun, images: Path) -> list[Row]:
    """All rows of strata.csv; none where the image set knows neither cell lines nor reliability."""
    columns = known_columns(images, run.experiment)
    if not columns:
        return []
    level, decided = run.question.analysis["level"], decided_images(run)
    weights = np.ascontiguousarray(run.weights[:, :DRAWS])
    rows: list[Row] = []
    for column, folds in columns.items():
        values, counts = np.unique(np.concatenate(folds), return_counts=True)
        for value in values[np.lexsort((values, -counts))]:
            if value:
                inside = [fold == value for fold in folds]
                about = {"column": column, "stratum": str(value), "level": level}
                rows += [about | row for row in _stratum_rows(run, decided, inside, weights)]
    _add_discovery_rates(rows, run.question.analysis["confidence"])
    return rows


def known_columns(images: Path, experiment: Experiment) -> ColumnValues:
    """The columns of the image set that have two values or more among the test images."""
    with ImageSet(images) as source:
        ids = source.ids.astype(str)
        columns = {name: source.column(name).astype(str) for name in STRATIFIED_BY if name in source.columns()}
    order = np.argsort(ids)
    rows = []
    for fold in experiment.reference:
        wanted = fold.parts["test"].ids.astype(str)
        at = order[np.minimum(np.searchsorted(ids, wanted, sorter=order), len(ids) - 1)]
        if (ids[at] != wanted).any():
            absent = str(wanted[ids[at] != wanted][0])
            raise UserError(f"{images} has no image {absent!r}, which was predicted: run again")
        rows.append(at)
    out = {name: [values[at] for at in rows] for name, values in columns.items()}
    return {name: folds for name, folds in out.items() if len(set(np.concatenate(folds)) - {""}) > 1}


def decided_images(run: ScoredRun) -> dict[str, list[Decided]]:
    """The arms of the primary question: test images of every fold, with the thresholds of the declared level."""
    out = {}
    for name in arms_of(run.question.primary_pairs()):
        levels = (run.experiment.fold_scores(name, level) for level in (run.question.analysis["level"], "image"))
        # A stratum is cut out of the images; proteins are put together from those that it has.
        out[name] = [
            Decided(fold.repeat, fold.fold, fold.test, fit_thresholds(declared.calibration, run.rule).values)
            for declared, fold in zip(*levels, strict=True)
        ]
    return out


def _stratum_rows(
    run: ScoredRun, decided: dict[str, list[Decided]], inside: list[np.ndarray], weights: np.ndarray
) -> list[Row]:
    """Rows of one stratum: scores and differences of the primary question, or why it is not judged."""
    question, analysis = run.question, run.question.analysis
    pairs = question.primary_pairs()
    decided, inside = _tested(decided, inside)
    own = {name: _restricted(folds, inside, analysis["level"]) for name, folds in decided.items()}
    first, images = own[pairs[0].arm], [np.count_nonzero(rows) for rows in inside]
    positive = fixed_scoring.positive_groups(first).min(axis=0)
    enough = run.judged & (positive >= analysis["minimum_positive_groups"])
    about: Row = {"images": _fewest_images(first, images), "groups": _fewest_groups(first)}
    about |= {"repeats": len({fold.repeat for fold in first}), "classes": int(enough.sum())}
    if not enough.any():
        most = int(positive[run.judged].max(initial=0))
        reason = f"at most {most} positive test groups a class, {analysis['minimum_positive_groups']} needed"
        return [about | {"judged": False, "reason": reason}]
    scores = {name: fixed_scoring.score(folds, run.rule.kind, weights, enough) for name, folds in own.items()}
    rows = []
    for metric in METRICS:
        differences = fixed_scoring.compare(scores, pairs, metric, analysis["confidence"], question.seed)
        p = differences.p
        for i, pair in enumerate(pairs):
            rows.append(
                about
                | {"arm": pair.arm, "against": pair.against, "relation": pair.relation, "metric": metric}
                | {"score": scores[pair.arm].mean(metric), "score_against": scores[pair.against].mean(metric)}
                | {"difference": differences.estimate[i], "se": differences.se[i], "p": float(p[i])}
                | {"low": differences.low_single[i], "high": differences.high_single[i], "judged": True, "reason": ""}
            )
    return rows


def _tested(
    decided: dict[str, list[Decided]], inside: list[np.ndarray]
) -> tuple[dict[str, list[Decided]], list[np.ndarray]]:
    """The same in those repeats alone that test the stratum at all: cell lines may be left out in turn."""
    folds = next(iter(decided.values()))
    there = {fold.repeat for fold, kept in zip(folds, inside, strict=True) if kept.any()}
    kept = [place for place, fold in enumerate(folds) if fold.repeat in there]
    return {name: [own[place] for place in kept] for name, own in decided.items()}, [inside[place] for place in kept]


def _restricted(folds: list[Decided], inside: list[np.ndarray], level: str) -> list[Decided]:
    """The rows of a stratum alone, per image or per protein."""
    out = []
    for fold, kept in zip(folds, inside, strict=True):
        rows = ScoredRows(fold.rows.scores[kept], fold.rows.labels[kept], fold.rows.groups[kept])
        rows = per_protein(rows) if level == "protein" else rows
        out.append(Decided(fold.repeat, fold.fold, rows, fold.thresholds))
    return out


def _fewest_images(folds: list[Decided], images: list[int]) -> int:
    """Images of the stratum in the test parts of a repeat; of the repeat that has fewest."""
    repeats = sorted({fold.repeat for fold in folds})
    totals = [sum(n for fold, n in zip(folds, images, strict=True) if fold.repeat == repeat) for repeat in repeats]
    return int(min(totals))


def _fewest_groups(folds: list[Decided]) -> int:
    """Groups of the stratum in the test parts of a repeat; of the repeat that has fewest."""
    repeats = sorted({fold.repeat for fold in folds})
    groups = [np.concatenate([fold.rows.groups for fold in folds if fold.repeat == repeat]) for repeat in repeats]
    return min(len(np.unique(own)) for own in groups)


def _add_discovery_rates(rows: list[Row], confidence: float) -> None:
    """Add the false discovery rate over all strata, by metric and relation, and the exploratory verdict."""
    for metric in METRICS:
        for relation in ("baseline", "control"):
            mine = [row for row in rows if (row.get("metric"), row.get("relation")) == (metric, relation)]
            if not mine:
                continue
            rates = inference.discovery_rates(np.array([row["p"] for row in mine]))
            for row, q in zip(mine, rates, strict=True):
                verdict = inference.exploratory_verdict(row["difference"], q, confidence, relation)
                row |= {"q": float(q), "verdict": verdict}
