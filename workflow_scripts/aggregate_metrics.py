"""aggregate_metrics: the scores of every arm, every arm beside its baseline and its control, and the verdicts.

Reads the predictions of all arms in all folds and repeats. Makes
  metrics.csv      scores per arm, repeat, fold, part, level and class; `gap` rows hold validation minus test
  comparisons.csv  paired differences: primary and secondary averages with simultaneous intervals, classes exploratory;
                   `standing` says which claims are confirmed by the order of testing (lib/judge/inference.py)
  thresholds.csv   the threshold of every arm, fold and class, at both levels
  strata.csv       the primary question within each cell line and tier of reliability, where images.h5 knows them
  analysis.json    what was declared (and its hash), the classes judged, the verdicts, the answer in numbers and words,
                   and the ids of the images that thresholds were fitted on

    python -m workflow_scripts.aggregate_metrics --arms results/demo/repeat0/fold*/arms/job*.json \\
        --declaration declaration.json --metrics metrics.csv --comparisons comparisons.csv \\
        --thresholds thresholds.csv --images images.h5 --strata strata.csv --analysis analysis.json --seed 1 \\
        --settings '{"primary_arm": "pool", "metric": "macro_f1", ..., "arms": [...]}'
"""

from __future__ import annotations

import argparse
import json
import sys
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from workflow_scripts.lib.base import arguments, stage
from workflow_scripts.lib.base.errors import UserError
from workflow_scripts.lib.base.files import atomic, digest, write_json
from workflow_scripts.lib.judge import (
    comparisons,
    experiment,
    inference,
    real_image_equivalent,
    scoring,
    strata,
    wording,
)
from workflow_scripts.lib.judge import declaration as declared_analysis
from workflow_scripts.lib.judge.scoring import Cell, Rule

METRIC_COLUMNS = ["arm", "repeat", "fold", "part", "level", "metric", "class", "value", "low", "high"]
METRIC_COLUMNS += ["positives", "positive_groups", "judged"]
COMPARISON_COLUMNS = ["arm", "against", "relation", "metric", "level", "class", "difference", "low", "high"]
COMPARISON_COLUMNS += ["low_single", "high_single", "verdict", "family", "standing", "se", "p", "q", "repeats"]
COMPARISON_COLUMNS += ["training_luck", "detectable"]
THRESHOLD_COLUMNS = ["arm", "repeat", "fold", "level", "class", "threshold", "pooled", "positive_groups"]


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    out = arguments.parser(__doc__)
    out.add_argument("--arms", type=Path, nargs="+", required=True, help="lists of arms (.json), or predictions (.h5)")
    out.add_argument("--declaration", type=Path, required=True, help="what was declared beforehand (JSON)")
    out.add_argument("--metrics", type=Path, required=True, help="table of scores to write")
    out.add_argument("--comparisons", type=Path, required=True, help="table of paired differences to write")
    out.add_argument("--thresholds", type=Path, required=True, help="table of thresholds to write")
    out.add_argument("--images", type=Path, help="the image set, for its columns; needed for --strata")
    out.add_argument("--strata", type=Path, help="table of cell lines and tiers of reliability to write")
    out.add_argument("--analysis", type=Path, required=True, help="declaration, verdicts and answer to write (JSON)")
    out.add_argument("--seed", type=int, required=True, help="seed of the run")
    out.add_argument("--threads", type=int, required=False, default=1, help="arms scored at the same time")
    return out.parse_args(argv)


def aggregate_metrics(
    arm_lists: list[Path],
    declaration: Path,
    metrics: Path,
    comparisons_out: Path,
    thresholds: Path,
    analysis_out: Path,
    seed: int,
    settings: dict[str, Any],
    threads: int = 1,
    images: Path | None = None,
    strata_out: Path | None = None,
) -> None:
    """Judge the arms; `settings` is the analysis block with the list of arms."""
    analysis = {key: value for key, value in settings.items() if key != "arms"}
    arms: list[dict[str, Any]] = settings["arms"]
    problem = declared_analysis.analysis_problem(analysis, arms)
    if problem:
        raise UserError(problem)
    found = experiment.read_experiment(arm_lists, [arm["name"] for arm in arms])
    judged, counts = count_positives(found, analysis["minimum_positive_groups"])
    if not judged.any():
        raise UserError(
            f"no class has {analysis['minimum_positive_groups']} positive test groups, so nothing can be judged: "
            "use more images, or lower analysis: minimum_positive_groups"
        )
    weights = inference.group_weights(seed, len(found.groups), analysis["draws"])
    rule = Rule(analysis["threshold_rule"], analysis["minimum_calibration_groups"], analysis["refit_thresholds"])
    metric_rows, comparison_rows, threshold_rows, checked = [], [], [], []
    for level in scoring.LEVELS:
        stage.log.info("%d arms per %s: %d draws", len(found.arms), level, analysis["draws"])
        cells = partial(found.cells, level=level)
        summaries = comparisons.summarise_all(found.arms, cells, rule, weights, judged, threads)
        for name, summary in summaries.items():
            metric_rows += comparisons.metric_rows(
                name, summary, level, found.classes, judged, counts[level], analysis, seed
            )
            threshold_rows += _threshold_rows(name, cells(name), rule, level, found.classes)
        comparison_rows += comparisons.macro_rows(summaries, analysis, arms, level, seed)
        comparison_rows += comparisons.class_rows(summaries, analysis, arms, level, found.classes, judged, seed)
        if level == analysis["level"]:
            ratio = found.test_to_train(analysis["baseline"])
            checked = comparisons.cross_check(summaries, analysis, arms, judged, ratio)
            in_images = real_image_equivalent.measured(found, summaries, analysis, arms, seed)
    by_stratum = []
    if strata_out is not None:
        if images is None:
            raise UserError("--strata needs --images: the image set knows the cell lines")
        columns = strata.known_columns(images, found)
        by_stratum = strata.table(found, columns, judged, rule, analysis, arms, weights, seed)
    repeats = len({repeat for repeat, _ in found.places})
    extra = {"repeats": repeats, "training_luck": repeats > 1}
    comparison_rows = [row | extra for row in comparison_rows]
    declared = json.loads(declaration.read_text(encoding="utf-8"))
    if declared["hash"] != declared_analysis.declaration_hash(analysis, arms):
        raise UserError(f"{declaration} declares another analysis: make it again, the ledger keeps both")
    report = wording.report(found, analysis, arms, judged, counts, comparison_rows, declared)
    report |= {"seed": seed, "cross_check": checked, "thresholds_fitted_on": fitted_on(found)}
    report |= {"worth": in_images} if in_images else {}
    _write(metrics, metric_rows, METRIC_COLUMNS)
    _write(comparisons_out, comparison_rows, COMPARISON_COLUMNS)
    _write(thresholds, threshold_rows, THRESHOLD_COLUMNS)
    if strata_out is not None:
        _write(strata_out, by_stratum, strata.TABLE)
    write_json(analysis_out, wording.plain(report))
    stage.log.info("%s", report["answer"]["sentence"])


def count_positives(found: experiment.Experiment, minimum: int) -> tuple[np.ndarray, dict[str, dict[str, np.ndarray]]]:
    """Judged classes, bool (K,), and per level the positives and positive groups of the test part (K,).

    Counts are those of the repeat that has fewest, so that a class is judged in every repeat or in none."""
    counts = {}
    for level in scoring.LEVELS:
        rows: dict[int, list[np.ndarray]] = {}
        owners: dict[int, list[np.ndarray]] = {}
        for cell in found.cells(next(iter(found.arms)), level):
            rows.setdefault(cell.repeat, []).append(cell.test.labels)
            owners.setdefault(cell.repeat, []).append(cell.test.groups)
        pooled = [(np.concatenate(rows[repeat]), np.concatenate(owners[repeat])) for repeat in sorted(rows)]
        positives = np.stack([labels.sum(axis=0) for labels, _ in pooled])
        groups = np.array([[len(np.unique(who[column])) for column in labels.T] for labels, who in pooled])
        counts[level] = {"positives": positives.min(axis=0), "positive_groups": groups.min(axis=0)}
        if level == "image":
            judged = inference.judged_classes(groups, minimum)
    return judged, counts


def fitted_on(found: experiment.Experiment) -> list[dict[str, Any]]:
    """Per repeat and fold the images and groups whose labels the threshold fit has read, and their digests."""
    out = []
    for cell in next(iter(found.arms.values())):
        part = cell.parts["calibration"]
        ids, groups = [str(name) for name in part.ids], sorted({str(name) for name in part.groups})
        out.append(
            {"repeat": cell.repeat, "fold": cell.fold, "images": cell.images, "ids": ids, "groups": groups}
            | {"ids_digest": digest(ids), "groups_digest": digest(groups), "arms": sorted(found.arms)}
        )
    return out


def _threshold_rows(name: str, cells: list[Cell], rule: Rule, level: str, classes: list[str]) -> list[dict[str, Any]]:
    rows = []
    for cell in cells:
        fitted = scoring.fit_thresholds(cell.calibration, rule)
        for k, label in enumerate(classes):
            rows.append(
                {"arm": name, "repeat": cell.repeat, "fold": cell.fold, "level": level, "class": label}
                | {"threshold": float(fitted.values[k]), "pooled": bool(fitted.pooled[k])}
                | {"positive_groups": int(fitted.positive_groups[k])}
            )
    return rows


def _write(path: Path, rows: list[dict[str, Any]], columns: list[str]) -> None:
    table = pd.DataFrame(rows, columns=columns)
    for name in ("positives", "positive_groups"):
        if name in table:
            table[name] = table[name].astype("Int64")
    with atomic(path) as part:
        # Nine digits: more than the draws resolve, fewer than the last bits of a sum.
        table.to_csv(part, index=False, float_format="%.9g", lineterminator="\n")


def main(argv: list[str] | None = None) -> int:
    """Run as a program."""
    args = parse_args(argv)
    return stage.run(
        "aggregate_metrics",
        args,
        lambda: aggregate_metrics(
            args.arms,
            args.declaration,
            args.metrics,
            args.comparisons,
            args.thresholds,
            args.analysis,
            args.seed,
            args.settings,
            args.threads,
            args.images,
            args.strata,
        ),
    )


if __name__ == "__main__":
    sys.exit(main())
