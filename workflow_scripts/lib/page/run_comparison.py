"""Comparison of two finished runs: settings that differ, scores, verdicts and pictures, from the files of both."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from workflow_scripts.lib.base.errors import UserError, raise_if_passing
from workflow_scripts.lib.images.image_set import ImageSet
from workflow_scripts.lib.page import html_page, run_tables
from workflow_scripts.lib.page.html_page import Column, PageTable

SETTINGS = "tables/settings.json"  # of a run, written with its report
NOT_TOLD = "not set"
# Figures beside each other: stem or pattern of the file, caption.
FIGURES = (
    ("arms_forest", "The arms beside their baseline"),
    ("images_repeat0_fold0_*", "Real beside generated images, first repeat and fold"),
    ("training_generators", "Training loss of the generators"),
)
SHOWN = 2  # figures of a pattern, at most


@dataclass
class Run:
    """A finished run, read from its folder."""

    name: str
    folder: Path
    metrics: pd.DataFrame
    comparisons: pd.DataFrame
    facts: dict[str, Any]  # analysis.json
    settings: dict[str, Any] | None  # None: written by a MixLoc that did not keep them


def read(name: str, folder: Path) -> Run:
    """The tables of a run; UserError where it is not finished."""
    try:
        text = {"arm": str, "repeat": str, "fold": str, "class": str}
        metrics, comparisons = (
            pd.read_csv(folder / f"{stem}.csv", dtype=text, keep_default_na=False, na_values={"value": [""]})
            for stem in ("metrics", "comparisons")
        )
        facts = json.loads((folder / "analysis.json").read_text(encoding="utf-8"))
        kept = folder / SETTINGS
        settings = json.loads(kept.read_text(encoding="utf-8")) if kept.exists() else None
    except (OSError, ValueError) as error:
        raise_if_passing(error)
        raise UserError(f"{folder} is no finished run ({error}): run the workflow to its end") from None
    return Run(name, folder, metrics, comparisons, facts, settings)


def flat(value: Any, key: str = "") -> dict[str, str]:
    """Settings as text by their full key; entries of lists that have a name stand under it."""
    if isinstance(value, dict) and value:
        parts = ((str(name), part) for name, part in value.items())
    elif isinstance(value, list) and value and all(isinstance(part, dict) and "name" in part for part in value):
        parts = ((part["name"], {name: own for name, own in part.items() if name != "name"}) for part in value)
    else:
        return {key: json.dumps(value, ensure_ascii=False)}
    out: dict[str, str] = {}
    for name, part in parts:
        out |= flat(part, f"{key}.{name}" if key else name)
    return out


def settings_table(one: Run, other: Run) -> PageTable:
    """Settings that differ between the runs."""
    mine, theirs = (flat(run.settings or {}) for run in (one, other))
    rows = [
        {"key": key, "one": mine.get(key, NOT_TOLD), "other": theirs.get(key, NOT_TOLD)}
        for key in sorted(mine.keys() | theirs.keys())
        if mine.get(key) != theirs.get(key) and key != "run"
    ]
    columns = [Column("key", "setting", "name"), Column("one", one.name), Column("other", other.name)]
    lacking = [run.name for run in (one, other) if run.settings is None]
    if lacking:
        note = f"Unknown for {' and '.join(lacking)}, until snakemake has made the report again."
        return PageTable("settings", "Settings that differ", columns, [], note)
    return PageTable("settings", f"Settings that differ: {len(rows)}", columns, rows)


def _scores(run: Run) -> dict[tuple[str, str, str], tuple[float, float, float]]:
    table = run.metrics
    rows = table[(table["repeat"] == "mean") & (table["part"] == "test") & (table["class"] == "")]
    return {
        (row["arm"], row["metric"], row["level"]): tuple(_number(row[end]) for end in ("value", "low", "high"))
        for row in rows.to_dict("records")
    }


def _number(value: Any) -> float:
    return float(value) if value not in ("", None) else float("nan")


def scores_table(one: Run, other: Run) -> PageTable:
    """Test scores of all arms of both runs."""
    mine, theirs = _scores(one), _scores(other)
    rows = []
    for arm, metric, level in dict.fromkeys([*mine, *theirs]):
        if metric not in run_tables.METRIC_NAMES:
            continue  # such as the prevalence, which is no score
        values = [scores.get((arm, metric, level)) for scores in (mine, theirs)]
        change = values[1][0] - values[0][0] if all(values) else None
        name = f"{run_tables.METRIC_NAMES.get(metric, metric)}, per {level}"
        rows.append({"arm": arm, "metric": name, "one": values[0], "other": values[1], "change": change})
    columns = [
        Column("arm", "arm", "name"),
        Column("metric", "score"),
        Column("one", one.name, "estimate"),
        Column("other", other.name, "estimate"),
        Column("change", f"{other.name} minus {one.name}", "signed"),
    ]
    note = "Beneath a score: its interval in its own run. A change has no interval: runs are not resampled together."
    return PageTable("scores", "Test scores, mean over repeats", columns, rows, note)


def verdicts_table(one: Run, other: Run) -> PageTable:
    """Differences between arms in the primary metric, with their verdicts."""
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for place, run in (("one", one), ("other", other)):
        table, declared = run.comparisons, run.facts["answer"]
        chosen = table[(table["metric"] == declared["metric"]) & (table["class"] == "")]
        if "level" in declared:
            chosen = chosen[chosen["level"] == declared["level"]]
        for row in chosen.to_dict("records"):
            entry = found.setdefault((row["arm"], row["against"]), {"arm": row["arm"], "against": row["against"]})
            entry[place] = tuple(_number(row[end]) for end in ("difference", "low", "high"))
            standing = "" if row["standing"] == "confirmed" or row["verdict"] == "inconclusive" else " (exploratory)"
            entry[f"{place}_verdict"] = f"{row['verdict']}{standing}" if row["verdict"] else ""
    columns = [
        Column("arm", "arm", "name"),
        Column("against", "against"),
        Column("one", one.name, "difference"),
        Column("one_verdict", "verdict"),
        Column("other", other.name, "difference"),
        Column("other_verdict", "verdict"),
    ]
    return PageTable("verdicts", "Differences in the primary metric of each run", columns, list(found.values()))


def sameness(one: Run, other: Run) -> str:
    """Whether the scores of the runs can be compared: a sentence about their images and folds."""
    gone = [run.name for run in (one, other) if not (run.folder / "images.h5").is_file()]
    if gone:
        return f"Whether the images are the same is not known: no image set any more in {' and '.join(gone)}."
    with ImageSet(one.folder / "images.h5") as mine, ImageSet(other.folder / "images.h5") as theirs:
        if mine.digest == theirs.digest:
            alike = _folds(one.folder) == _folds(other.folder)
            if alike and one.facts.get("judged") != other.facts.get("judged"):
                return "Both runs have the same images and folds, but judge other classes: averages cannot be compared."
            if alike:
                return "Both runs have the same images and the same folds: their scores can be compared."
            return "Both runs have the same images and other folds: scores differ by the draw of the test parts too."
        common = len(np.intersect1d(mine.ids.astype(str), theirs.ids.astype(str)))
        return (
            f"The runs have other images ({len(mine):,} and {len(theirs):,}, {common:,} Ids in common): "
            "a difference between their scores says little."
        )


def _folds(folder: Path) -> list[str]:
    tables = sorted(folder.glob("repeat*/folds.csv"))
    return [hashlib.blake2b(path.read_bytes(), digest_size=8).hexdigest() for path in tables]


def pictures(one: Run, other: Run) -> list[dict[str, Any]]:
    """Figures of both runs, ready for the page: caption, and for each run its name and drawings."""
    out = []
    for number, (pattern, caption) in enumerate(FIGURES):
        sides = []
        for place, run in enumerate((one, other)):
            paths = sorted((run.folder / "figures").glob(f"{pattern}.svg"))[:SHOWN]
            drawn = [
                html_page.inline_svg(
                    path.read_text(encoding="utf-8"), f"figure{number}{place}{index}", f"{caption}, run {run.name}"
                )
                for index, path in enumerate(paths)
            ]
            sides.append({"run": run.name, "drawn": drawn})
        if any(side["drawn"] for side in sides):
            out.append({"caption": caption, "sides": sides})
    return out


def context(one: Run, other: Run) -> dict[str, Any]:
    """The values of the page's template."""
    tables = [settings_table(one, other), verdicts_table(one, other), scores_table(one, other)]
    answers = [{"run": run.name, "sentence": run.facts["answer"]["sentence"]} for run in (one, other)]
    return {
        "one": one.name,
        "other": other.name,
        "answers": answers,
        "sameness": sameness(one, other),
        "tables": {table.name: table for table in tables},
        "pictures": pictures(one, other),
    }
