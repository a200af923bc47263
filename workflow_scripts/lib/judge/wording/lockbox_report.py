"""The result of a lockbox opening: the answer in the words of the run's, and the notes a reader needs."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from workflow_scripts.lib.judge.analysis_choices import THESE_PROTEINS
from workflow_scripts.lib.judge.lockbox_ledger import Box, Openings
from workflow_scripts.lib.judge.question import Question
from workflow_scripts.lib.judge.wording import analysis_report

NOTES = (
    "Thresholds were fitted on the calibration parts of the run's folds and on nothing else; the lockbox changes none.",
    "A score is the average over the classifiers of all folds and repeats, each of which predicted all lockbox images.",
    "Thresholds are the same in every draw: the intervals do not contain the variance of fitting them.",
)
FROM_ELSEWHERE = "A generator came from elsewhere; whether it saw the proteins of the lockbox is unknown."
Row = dict[str, Any]


def conclude(rows: list[Row], question: Question, box: Box, repeats: int, judged: int) -> dict[str, Any]:
    """What the ledger and the page tell: the answer, as that of the run is put, and the scores behind it."""
    analysis = question.analysis
    declared = [row for row in rows if (row["metric"], row["level"]) == (analysis["metric"], analysis["level"])]
    primary = {
        (row["arm"], row["relation"]): row | {"difference": row["value"], "verdict": row.get("verdict", "")}
        for row in declared
        if row["what"] == "difference"
    }
    sizes = {"repeats": repeats, "test_images": len(box.rows), "test_groups": box.groups}
    # Its intervals hold with these training groups, whatever was declared: repeats share most of them.
    narrow = replace(question, analysis=analysis | {"claim": THESE_PROTEINS})
    answer = analysis_report.answer(narrow, primary, sizes, judged)
    scores = {row["arm"]: row["value"] for row in declared if row["what"] == "score"}
    return {"answer": answer, "sizes": sizes, "judged_classes": judged, "scores": scores}


def history(declared: dict[str, Any], before: Openings, entry: Row) -> list[str]:
    """What a reader must know of earlier declarations and openings; `entry` is the line of this opening."""
    out = []
    if declared["predictions"] or declared["earlier"]:
        out.append(analysis_report.registered(declared))
    if before.ended:
        out.append(f"These images had been {before.words()} before: this is not the first look at them.")
    others = sorted({opening["declaration"] for opening in before.ended} - {entry["declaration"]})
    if others:
        out.append(f"Then another analysis was declared (hash {', '.join(others)}; now {entry['declaration']}).")
    if before.of_other_boxes:
        out.append(f"Of the same image set, other lockboxes had been opened before: {before.of_other_boxes} openings.")
    if before.unfinished:
        out.append(f"{len(before.unfinished)} earlier openings were begun and never came to a result.")
    return out
