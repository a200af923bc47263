"""aggregate_metrics: scores of all arms, comparisons with baseline and control, and verdicts.

Reads the predictions of all arms in all folds and repeats. Makes
  metrics.csv      scores per arm, repeat, fold, part, level and class; `gap` rows hold validation minus test
  comparisons.csv  paired differences: primary and secondary averages with simultaneous intervals, classes exploratory;
                   `standing` says which claims are confirmed by the order of testing (lib/judge/inference.py)
  thresholds.csv   the threshold of every arm, fold and class, at both levels
  strata.csv       the primary question within each cell line and reliability tier, where images.h5 knows them
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
from pathlib import Path
from typing import Any

import pandas as pd

from workflow_scripts.lib.base import arguments, stage
from workflow_scripts.lib.base.errors import UserError
from workflow_scripts.lib.base.files import atomic, write_json
from workflow_scripts.lib.judge import (
    comparisons,
    declaration,
    more_repeats,
    real_image_equivalent,
    regime_map,
    score_table,
    strata,
)
from workflow_scripts.lib.judge.experiment import read_experiment
from workflow_scripts.lib.judge.question import Question
from workflow_scripts.lib.judge.scoring import ScoredRun, score_experiment
from workflow_scripts.lib.judge.wording import analysis_report, equivalents, longer_runs, map_sentences

# Settings beside the declared analysis: the arms, what the generators of synthetic sets saw, and whether folds leave
# out the values of a column in turn.
BESIDE = ("arms", "generators_saw", "leaves_out")


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    out = arguments.parser(__doc__)
    out.add_argument("--arms", type=Path, nargs="+", required=True, help="lists of arms (.json), or predictions (.h5)")
    out.add_argument("--declaration", type=Path, required=True, help="what was declared beforehand (JSON)")
    out.add_argument("--metrics", type=Path, required=True, help="table of scores to write")
    out.add_argument("--comparisons", type=Path, required=True, help="table of paired differences to write")
    out.add_argument("--thresholds", type=Path, required=True, help="table of thresholds to write")
    out.add_argument("--images", type=Path, help="the image set, for its columns; needed for --strata")
    out.add_argument("--strata", type=Path, help="table of cell lines and reliability tiers to write")
    out.add_argument("--analysis", type=Path, required=True, help="declaration, verdicts and answer to write (JSON)")
    out.add_argument("--seed", type=int, required=True, help="seed of the run")
    out.add_argument("--threads", type=int, required=False, default=1, help="arms scored at the same time")
    return out.parse_args(argv)


def aggregate_metrics(args: argparse.Namespace) -> None:
    """Read the predictions, score every arm, compare the arms, and put the answer into words."""
    question, declared = read_question(args)
    experiment = read_experiment(args.arms, question.names)
    run = score_experiment(question, experiment, args.threads)
    rows = comparisons.compare_arms(run)
    report = word(run, rows, declared, args.settings)
    _write(args.metrics, score_table.metric_rows(run), score_table.METRIC_COLUMNS)
    _write(args.comparisons, rows, comparisons.COLUMNS)
    _write(args.thresholds, score_table.threshold_rows(run), score_table.THRESHOLD_COLUMNS)
    if args.strata is not None:
        _write(args.strata, strata.compare_within_strata(run, args.images), strata.COLUMNS)
    write_json(args.analysis, analysis_report.plain(report))
    stage.log.info("%s", report["answer"]["sentence"])


def read_question(args: argparse.Namespace) -> tuple[Question, dict[str, Any]]:
    """The analysis and the arms of the settings, and the declaration of the same analysis."""
    analysis = {key: value for key, value in args.settings.items() if key not in BESIDE}
    arms = args.settings["arms"]
    if problem := declaration.analysis_problem(analysis, arms):
        raise UserError(problem)
    if args.strata is not None and args.images is None:
        raise UserError("--strata needs --images: the image set knows the cell lines")
    declared = json.loads(args.declaration.read_text(encoding="utf-8"))
    if declared["hash"] != declaration.declaration_hash(analysis, arms):
        raise UserError(f"{args.declaration} declares another analysis: make it again, the ledger keeps both")
    return Question(analysis, arms, args.seed), declared


def word(
    run: ScoredRun, rows: list[dict[str, Any]], declared: dict[str, Any], settings: dict[str, Any]
) -> dict[str, Any]:
    """The content of analysis.json."""
    report = analysis_report.report(run, rows, declared)
    report |= {"seed": run.question.seed, "cross_check": comparisons.cross_check(run)}
    report |= {"thresholds_fitted_on": run.experiment.thresholds_fitted_on()}
    saw = settings.get("generators_saw", {})
    report["notes"] += analysis_report.unseen_by_controls(run.question, run.experiment, saw)
    longer = more_repeats.measure(run, settings.get("leaves_out", False))
    report |= {"longer_runs": longer_runs.report(longer)} if longer else {}
    curve = real_image_equivalent.measure(run)
    report |= {"worth": equivalents.report(curve, run.question)} if curve else {}
    found = regime_map.measure(run, saw)
    return report | ({"map": map_sentences.report(found, run.question)} if found else {})


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
    return stage.run("aggregate_metrics", args, lambda: aggregate_metrics(args))


if __name__ == "__main__":
    sys.exit(main())
