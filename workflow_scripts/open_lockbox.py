"""open_lockbox: final evaluation of the primary question on the lockbox, on which nothing was fitted or chosen.

Each classifier of the primary arm, its control and its baseline predicts all lockbox images. It decides by the
thresholds that were fitted on its own fold's calibration part; nothing is fitted here. Decisions of a repeat's folds
are pooled before F1; average precision is taken for each classifier and averaged; repeats are averaged. So a score is
an average over classifiers, not that of their ensemble. Intervals resample the lockbox's groups and, with repeats,
contain the variance between repeats. Every opening is a line of the ledger, which no rule owns. Makes
  lockbox.csv    scores and paired differences, per image and per protein
  lockbox.json   what was scored, the classes judged, the answer, notes

    python -m workflow_scripts.open_lockbox --images images.h5 --folds 0=repeat0/folds.csv \\
        --arms repeat0/fold0/arms/job0.json --declaration declaration.json --analysis analysis.json \\
        --thresholds thresholds.csv --leaks leaks.csv --ledger results/lockbox_openings.jsonl --table lockbox.csv \\
        --out lockbox.json --seed 1 \\
        --settings '{"run": "demo", "analysis": {"primary_arm": "pool", ...}, "arms": [...], "threads": 1}'
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import pandas as pd

from workflow_scripts.lib.base import arguments, files, stage
from workflow_scripts.lib.compute import device
from workflow_scripts.lib.images.image_set import ImageSet
from workflow_scripts.lib.judge import lockbox_ledger, lockbox_opening
from workflow_scripts.lib.judge.lockbox_members import from_elsewhere, predict, read_members
from workflow_scripts.lib.judge.lockbox_scores import COLUMNS, judged_classes, score_lockbox
from workflow_scripts.lib.judge.question import Question, arms_of
from workflow_scripts.lib.judge.wording import analysis_report, lockbox_report
from workflow_scripts.lib.judge.wording.lockbox_report import conclude


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    out = arguments.parser(__doc__)
    out.add_argument("--images", type=Path, required=True, help="the image set")
    arguments.add_role_tables(out)
    out.add_argument("--arms", type=Path, nargs="+", required=True, help="lists of arms (JSON) of all folds")
    out.add_argument("--declaration", type=Path, required=True, help="what was declared beforehand (JSON)")
    out.add_argument("--analysis", type=Path, required=True, help="the judged run (JSON)")
    out.add_argument("--thresholds", type=Path, required=True, help="thresholds of all arms and folds (CSV)")
    out.add_argument("--leaks", type=Path, required=True, help="the leak certificate")
    out.add_argument("--ledger", type=Path, required=True, help="all openings of all runs, a line each; added to")
    out.add_argument("--table", type=Path, required=True, help="scores and differences to write (CSV)")
    out.add_argument("--out", type=Path, required=True, help="what was found, to write (JSON)")
    out.add_argument("--seed", type=int, required=True, help="seed of the run")
    return out.parse_args(argv)


def open_lockbox(args: argparse.Namespace) -> None:
    """Check that the run is finished and clean, write down the opening, predict, score, write the result down."""
    question = Question(args.settings["analysis"], args.settings["arms"], args.seed)
    device.use_threads(args.settings["threads"])
    declared, run_judged = lockbox_opening.read_declaration(args.declaration, args.analysis, args.leaks, question)
    with ImageSet(args.images) as source:
        box = lockbox_opening.find_box(args.folds, source)
        members = read_members(args.arms, args.thresholds, arms_of(question.primary_pairs()), source, box)
        judged, left = judged_classes(source, box, run_judged, question.analysis)
        about_run = (args.settings["run"], question, args.thresholds)
        entry = lockbox_opening.ledger_line(*about_run, source, box, declared, members)
        begun = lockbox_ledger.begin(args.ledger, entry)
        stage.log.info(
            "the lockbox is opened: %d images of %d groups, %s", len(box.rows), box.groups, ", ".join(members)
        )
        predicted = predict(source.read(box.rows, "score"), source.channels, members, device.device())
        classes = source.classes
    rows = score_lockbox(predicted, question, judged)
    repeats = len({repeat for own in members.values() for repeat, _ in own})
    result = conclude(rows, question, box, repeats, int(judged.sum()))
    entries = lockbox_ledger.read_ledger(args.ledger)
    before = lockbox_ledger.openings([other for other in entries if other != begun], box, entry["images_digest"])
    history = lockbox_report.history(declared, before, entry)
    if from_elsewhere(members):
        history.append(lockbox_report.FROM_ELSEWHERE)
        result["answer"]["note"] = lockbox_report.FROM_ELSEWHERE
    about = {name: entry[name] for name in ("run", "declaration", "images", "groups", "ids_digest", "arms")}
    about |= {"judged": [name for name, kept in zip(classes, judged, strict=True) if kept], "not_judged": left}
    about |= {"opening": len(before.ended) + 1, "notes": [*lockbox_report.NOTES, *history]}
    with files.atomic(args.table) as part:
        pd.DataFrame(rows, columns=COLUMNS).to_csv(part, index=False, float_format="%.9g", lineterminator="\n")
    files.write_json(args.out, analysis_report.plain(about | result))
    # Last: an opening that is killed before goes on with the line that it began, so that none has two lines.
    lockbox_ledger.finish(args.ledger, begun, analysis_report.plain(result))
    stage.log.info("%s", result["answer"]["sentence"])
    for note in history:
        stage.log.warning("%s", note)
    stage.log.info("the report page shows the result when it is made again: run snakemake once more")


def main(argv: list[str] | None = None) -> int:
    """Run as a program."""
    args = parse_args(argv)
    return stage.run("open_lockbox", args, lambda: open_lockbox(args))


if __name__ == "__main__":
    sys.exit(main())
