"""aggregate_stress: scores of all arms on corrupted test images, the area under score against strength, and a figure.

Makes
  stress.csv        scores per arm, corruption, strength, repeat and fold; strength 0 is the clean image, and `area` the
                    mean over strengths 0 to 5
  stress_areas.csv  paired differences of these areas to baseline and control, in the columns of comparisons.csv
  a figure          score against strength, a panel for each corruption, as svg, pdf and png

Example:
    python -m workflow_scripts.aggregate_stress --arms repeat0/fold0/arms/job0.json --stress repeat0/fold0/stress.h5 \\
        --scores stress.csv --areas stress_areas.csv --figure figures/stress.svg --seed 1 --threads 1 \\
        --settings '{"analysis": {...}, "arms": [...], "declared": false, "draws": 500}'
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import pandas as pd

from workflow_scripts.lib.base import arguments, stage
from workflow_scripts.lib.base.files import atomic
from workflow_scripts.lib.judge import scoring, stress_scores
from workflow_scripts.lib.judge.experiment import read_experiment
from workflow_scripts.lib.judge.question import Question
from workflow_scripts.lib.page import figure_style, stress_figures


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    out = arguments.parser(__doc__)
    out.add_argument("--arms", type=Path, nargs="+", required=True, help="lists of arms (.json), or predictions (.h5)")
    out.add_argument("--stress", type=Path, nargs="+", required=True, help="answers under stress, a file for each fold")
    out.add_argument("--scores", type=Path, required=True, help="table of scores to write")
    out.add_argument("--areas", type=Path, required=True, help="table of differences in area to write")
    out.add_argument("--figure", type=Path, required=True, help="figure to write: score against strength")
    out.add_argument("--seed", type=int, required=True, help="seed of the run")
    out.add_argument("--threads", type=int, default=1, help="arms scored at the same time")
    return out.parse_args(argv)


def aggregate_stress(args: argparse.Namespace) -> None:
    """Score every arm under every condition; write the tables and the figure."""
    settings = args.settings
    question = Question(settings["analysis"], settings["arms"], args.seed)
    experiment = read_experiment(args.arms, question.names)
    run = stress_scores.score_run(question, experiment, args.stress, settings["draws"], args.threads)
    _, judged = scoring.count_positives(experiment, question.analysis["minimum_positive_groups"])
    scores = pd.DataFrame(stress_scores.score_rows(run, judged), columns=stress_scores.COLUMNS)
    areas = stress_scores.area_rows(run, settings["declared"])
    _write(args.scores, scores)
    _write(args.areas, pd.DataFrame(areas, columns=stress_scores.AREA_COLUMNS))
    with figure_style.style():
        figure_style.save(stress_figures.draw(scores, question), args.figure)
    for row in areas:
        if (row["arm"], row["corruption"], row["metric"], row["relation"]) == (
            question.analysis["primary_arm"], stress_scores.EVERY, question.analysis["metric"], "baseline",
        ):  # fmt: skip
            stage.log.info(
                "under stress %s differs from %s by %+.3f (%.3f to %.3f) in mean %s",
                row["arm"], row["against"], row["difference"], row["low"], row["high"], row["metric"],
            )  # fmt: skip


def _write(path: Path, table: pd.DataFrame) -> None:
    with atomic(path) as part:
        # As aggregate_metrics writes its scores.
        table.to_csv(part, index=False, float_format="%.9g", lineterminator="\n")


def main(argv: list[str] | None = None) -> int:
    """The program."""
    args = parse_args(argv)
    return stage.run("aggregate_stress", args, lambda: aggregate_stress(args))


if __name__ == "__main__":
    sys.exit(main())
