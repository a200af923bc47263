"""Robustness of the result: over folds and repeats, within each stratum, and on the lockbox."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from workflow_scripts.lib.base.errors import UserError
from workflow_scripts.lib.judge import lockbox_ledger
from workflow_scripts.lib.judge.analysis_choices import OTHER_PROTEINS
from workflow_scripts.lib.judge.lockbox_ledger import Box
from workflow_scripts.lib.judge.wording import page_opening
from workflow_scripts.lib.page import run_tables
from workflow_scripts.lib.page.html_page import Column, PageTable
from workflow_scripts.lib.page.run_tables import Results

METRICS = ("macro_f1", "map")


def spread(results: Results) -> PageTable:
    """Mean, spread over folds and over repeats, and the worst fold of every arm, by itself and beside its baseline."""
    rows = []
    for metric in sorted(METRICS, key=lambda name: name != results.metric):
        for arm in [results.baseline] + [arm for group in results.groups() for arm in group]:
            against = results.difference(arm)
            rows.append(
                {"arm": arm, "metric": run_tables.SHORT_NAMES[metric], "is_baseline": arm == results.baseline}
                | _of_arm(results, arm, against.against if against else None, metric)
            )
    columns = [
        Column("arm", "arm", "name"),
        Column("metric", "metric"),
        Column("mean", "mean", "number"),
        Column("sd_folds", "SD over folds", "number"),
        Column("sd_repeats", "SD over repeats", "number"),
        Column("worst", "worst fold", "number"),
        Column("worst_at", "which fold"),
        Column("worst_difference", "worst difference from the baseline", "signed"),
        Column("worst_difference_at", "in which fold"),
    ]
    note = "Scores of single folds, so F1 is not pooled over folds here. The SD over folds is that within a repeat."
    if results.facts.get("sizes", {}).get("repeats", 1) < 2:
        note += " With one repeat there is no SD over repeats."
    return PageTable(
        "spread", "Test scores over folds and repeats", columns, rows, note,
        mark=lambda row: "primary" if row["is_baseline"] else "",
    )  # fmt: skip


def longer_runs(results: Results, unit: str) -> PageTable | None:
    """How precise the declared comparison would be with more repeats."""
    found, own = results.facts.get("longer_runs"), results.difference(results.primary)
    if not found or own is None:
        return None
    answer, unknown = results.facts["answer"], (math.nan, math.nan)
    present = {"repeats": f"{results.facts['sizes']['repeats']} (this run)", "is_present": True}
    present |= {"half_width": ((own.high - own.low) / 2, *unknown), "detectable": answer["detectable"]}
    longer = [
        {"repeats": f"{run['repeats']}", "half_width": (run["half_width"], run["low"], run["high"])}
        | {"detectable": run["detectable"]}
        for run in found["runs"]
    ]
    rows = [present, *longer, {"repeats": "any number", "half_width": (found["least_half_width"], *unknown)}]
    columns = [
        Column("repeats", "repeats", "name"),
        Column("half_width", "half-width of the interval", "estimate"),
        Column("detectable", f"gain found with a power of {100 * answer['power']:g} %", "number"),
    ]
    choice = f" and the choice of training {unit}s" if answer.get("claim") == OTHER_PROTEINS else ""
    note = (
        "Forecast from the variances that this run shows. Below a half-width that is forecast stands the range of four "
        f"in five such runs. What remains with any number of repeats comes from the test {unit}s{choice}."
    )
    caption = f"The precision of more repeats: {results.primary} beside {own.against}"
    return PageTable(
        "longer_runs", caption, columns, rows, note,
        mark=lambda row: "primary" if row.get("is_present") else "",
    )  # fmt: skip


def _of_arm(results: Results, arm: str, against: str | None, metric: str) -> dict[str, Any]:
    own = results.by_fold(arm, metric)
    repeats = results.by_repeat(arm, metric)
    out = {"mean": results.score(arm, metric), "sd_folds": _within(own), "sd_repeats": repeats.std(ddof=1)}
    out |= dict(zip(("worst", "worst_at"), _lowest(own), strict=True))
    if against:
        beside = own - results.by_fold(against, metric)
        out |= dict(zip(("worst_difference", "worst_difference_at"), _lowest(beside), strict=True))
    return out


def _within(values: pd.Series) -> float:
    variances = values.groupby(level="repeat").var(ddof=1).dropna()
    return float(np.sqrt(variances.mean())) if len(variances) else np.nan


def _lowest(values: pd.Series) -> tuple[float, str]:
    known = values.dropna()
    if not len(known):
        return np.nan, ""
    repeat, fold = known.idxmin()
    return float(known.min()), f"repeat {repeat}, fold {fold}"


def strata(path: Path, results: Results) -> PageTable | None:
    """The primary question within each stratum; None where no column of strata is known."""
    text = dict.fromkeys(("column", "stratum", "arm", "against", "relation", "metric", "verdict", "reason"), str)
    table = pd.read_csv(path, dtype=text | {"judged": str}, keep_default_na=False)
    if "stratum" not in table:
        raise UserError(f"{path} is no table of strata: delete it and run again")
    if not len(table):
        return None
    rows = []
    for _, stratum in table.groupby(["column", "stratum"], sort=False):
        first = stratum.iloc[0]
        about = {"stratum": f"{first['column'].replace('_', ' ')}: {first['stratum']}"}
        about |= {name: int(first[name]) for name in ("images", "groups", "repeats", "classes")}
        if first["judged"] != "True":
            rows.append(about | {"verdict": f"not judged: {first['reason']}"})
            continue
        for metric in sorted(METRICS, key=lambda name: name != results.metric):
            mine = stratum[stratum["metric"] == metric]
            rows.append(about | {"metric": run_tables.SHORT_NAMES[metric]} | _stratum(mine, results.primary))
    control = results.controls.get(results.primary)
    columns = [
        Column("stratum", "where", "name"),
        Column("images", "test images", "count"),
        Column("groups", "groups", "count"),
        Column("repeats", "repeats", "count"),
        Column("classes", "classes", "count"),
        Column("metric", "metric"),
        Column("baseline", "baseline", "number"),
        Column("arm", results.primary, "number"),
    ]
    columns += [Column("control", control, "number")] if control else []
    columns.append(Column("difference", f"{results.primary} against its baseline", "difference"))
    columns += [Column("beyond", "against its control", "difference")] if control else []
    columns += [Column("q", "q", "number"), Column("verdict", "exploratory verdict")]
    note = (
        "Each average is over the classes that have enough positive test groups in the stratum, so scores of different "
        "rows are of different classes. A difference is always over the same classes. Single intervals, at fixed "
        "thresholds; q is the false discovery rate over all rows of a metric, for the difference from the baseline."
    )
    if any(row["repeats"] == 1 for row in rows):
        note += " Where one repeat alone tests the stratum, neither contains the variance between repeats."
    return PageTable(
        "strata", "Exploratory: the primary arm within each cell line and reliability tier", columns, rows, note,
        mark=lambda row: "control" if "metric" not in row else "",
    )  # fmt: skip


def _stratum(rows: pd.DataFrame, primary: str) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for row in rows.to_dict("records"):
        triple = tuple(float(row[name]) for name in ("difference", "low", "high"))
        if row["relation"] == "control":
            out["beyond"] = triple
        elif row["arm"] == primary:
            out |= {"difference": triple, "q": float(row["q"]), "verdict": row["verdict"]}
            out |= {"arm": float(row["score"]), "baseline": float(row["score_against"])}
        else:
            out["control"] = float(row["score"])
    return out


def of_lockbox(
    box: Box | None,
    openings: lockbox_ledger.Openings | None,
    run: str,
    declared: dict[str, Any],
    unit: str,
    subject: str,
) -> tuple[str, PageTable | None]:
    """Whether the lockbox is closed, and what was found in it: a few sentences, and a table of the openings.

    `declared` has the hashes of the page's own analysis and experiment, `unit` is what a group is, `subject` what the
    arm adds."""
    if box is None or openings is None:
        return "Lockbox: none. No images were set aside to be scored once, at the end.", None
    holds = f"{len(box.rows):,} image{'s' * (len(box.rows) != 1)} of {box.groups:,} {unit}{'s' * (box.groups != 1)}"
    others = ""
    if openings.of_other_boxes:
        others = f" Other lockboxes of these images were opened before, {openings.of_other_boxes} in number."
    if openings.unfinished:
        others += f" Openings that were begun and have no result: {len(openings.unfinished)}."
    if not openings.ended:
        return f"Lockbox: closed. {holds} are set aside; the ledger knows of no opening.{others}", None
    own = [entry for entry in openings.ended if entry["run"] == run]
    text = f"Lockbox ({holds}, on which nothing was fitted or chosen): {openings.words()}."
    if not own:
        text += f" Not by this run, but by {', '.join(dict.fromkeys(str(entry['run']) for entry in openings.ended))}."
    for entry in own[:1]:
        result = entry["result"]
        said = page_opening.opening(result["answer"], result["sizes"], result["judged_classes"], unit, subject)
        which = "The first result of this run" if len(own) > 1 else "The result"
        text += f" {which}, of {entry['ended_at'][:10]}: {said.sentence} {said.control}"
        if openings.ended[0] is not entry:
            text += " It was not the first look: another run had opened it before."
        if entry["declaration"] != declared["hash"]:
            text += f" At that time another analysis was declared (hash {entry['declaration']})."
        elif entry.get("experiment", "") != declared["experiment"]:
            text += " Its arms were made with other settings than those on this page."
    return text + others, _openings(openings.ended)


def _openings(entries: list[dict[str, Any]]) -> PageTable:
    rows = []
    for entry in entries:
        said = entry["result"]["answer"]
        rows.append(
            {"opened": entry["ended_at"], "run": entry["run"], "declaration": entry["declaration"], "arm": said["arm"]}
            | {"metric": run_tables.SHORT_NAMES.get(said["metric"], said["metric"])}
            | {"difference": (said["difference"], said["low"], said["high"])}
            | {"verdict": said["verdict"] + page_opening.alone(said)}
        )
    columns = [
        Column("opened", "opened", "name"),
        Column("run", "run"),
        Column("declaration", "hash of the declared analysis"),
        Column("arm", "arm"),
        Column("metric", "metric"),
        Column("difference", "against its baseline", "difference"),
        Column("verdict", "verdict"),
    ]
    note = "From results/lockbox_openings.jsonl. Whoever can write to the folder can change that file."
    return PageTable("lockbox_openings", "Every opening of this lockbox that the ledger knows", columns, rows, note)
