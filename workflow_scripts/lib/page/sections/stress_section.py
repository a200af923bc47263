"""The section of the page on the stress test, if the run has one: areas under score against strength."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pandas as pd

from workflow_scripts.lib.base.errors import UserError, raise_if_passing
from workflow_scripts.lib.images.corruption_choices import CORRUPTIONS
from workflow_scripts.lib.judge import inference
from workflow_scripts.lib.page import run_tables
from workflow_scripts.lib.page.html_page import Column, PageTable
from workflow_scripts.lib.page.run_files import RunFiles
from workflow_scripts.lib.page.run_tables import Results

ALT = "Score of every arm by the strength of each corruption; the areas under the curves stand in the table."
EVERY, AREA = "all", "area"
NUMBERS = ("setting", "value", "difference", "low", "high", "low_single", "high_single", "q")


def read(files: RunFiles, found: Results, config: dict[str, Any], out: Path) -> dict[str, Any] | None:
    """What the template shows, from stress.csv and stress_areas.csv; None where the config asks for no stress test."""
    if not config.get("stress_test", {}).get("corruptions"):
        return None
    paths = [files.file(name) for name in ("stress.csv", "stress_areas.csv")]
    try:
        # An arm may be called None or NA.
        blank, names = {name: [""] for name in NUMBERS}, dict.fromkeys(("strength", "arm", "against"), str)
        scores, areas = (pd.read_csv(path, keep_default_na=False, na_values=blank, dtype=names) for path in paths)
        tables = [_areas(scores, areas, found), _by_corruption(scores, areas, found), _settings(scores)]
    except (OSError, ValueError, KeyError) as error:
        raise_if_passing(error)
        raise UserError(f"{paths[0]} and {paths[1]} cannot be read ({error}): delete them and run again") from None
    return {
        "tables": {table.name: table for table in tables},
        "figure": files.file("figures/stress.svg"),
        "declared": bool(config["stress_test"]["declared"]),
        "csv": [(os.path.relpath(path, out.parent), path.name) for path in paths],
    }


def _triple(row: pd.Series, low: str = "low", high: str = "high") -> tuple[float, float, float]:
    return float(row["value" if "value" in row else "difference"]), float(row[low]), float(row[high])


def _areas(scores: pd.DataFrame, areas: pd.DataFrame, found: Results) -> PageTable:
    """Mean over all corruptions: of every arm, and beside its baseline and its control."""
    rows = []
    for metric in sorted(dict.fromkeys(scores["metric"]), key=lambda name: name != found.metric):
        whole = scores[(scores["corruption"] == EVERY) & (scores["strength"] == AREA) & (scores["metric"] == metric)]
        clean = scores[(scores["strength"] == "0") & (scores["repeat"] == "mean") & (scores["metric"] == metric)]
        beside = areas[(areas["corruption"] == EVERY) & (areas["metric"] == metric)]
        for _, own in whole.iterrows():
            row: dict[str, Any] = {"arm": own["arm"], "metric": run_tables.SHORT_NAMES.get(metric, metric)}
            row["clean"] = float(clean[clean["arm"] == own["arm"]]["value"].iloc[0])
            row["area"] = _triple(own)
            for _, other in beside[beside["arm"] == own["arm"]].iterrows():
                row[other["relation"]] = _triple(other)
                if other["relation"] == "baseline":
                    told = other["verdict"] != inference.INCONCLUSIVE and other["standing"] != inference.CONFIRMED
                    row["verdict"] = other["verdict"] + " (exploratory)" * told
            rows.append(row)
    columns = [
        Column("arm", "arm", "name"),
        Column("metric", "metric"),
        Column("clean", "clean images", "number"),
        Column("area", "under stress", "estimate"),
        Column("baseline", "under stress, against its baseline", "difference"),
        Column("control", "against its control", "difference"),
        Column("verdict", "verdict"),
    ]
    note = (
        "Under stress: mean score over strengths 0 to 5 of all corruptions. Differences have simultaneous intervals, "
        "those of the primary arm single ones."
    )
    return PageTable(
        "stress_areas", "Score under stress", columns, rows, note,
        mark=lambda row: "primary" if row["arm"] == found.primary else "",
    )  # fmt: skip


def _by_corruption(scores: pd.DataFrame, areas: pd.DataFrame, found: Results) -> PageTable:
    """Difference of every arm to its baseline under each corruption, in the primary metric."""
    own = areas[(areas["metric"] == found.metric) & (areas["relation"] == "baseline") & (areas["corruption"] != EVERY)]
    names = list(dict.fromkeys(own["corruption"]))
    rows = []
    for arm in dict.fromkeys(own["arm"]):
        mine = own[own["arm"] == arm].set_index("corruption")
        rows.append({"arm": arm} | {name: _triple(mine.loc[name], "low_single", "high_single") for name in names})
    columns = [Column("arm", "arm", "name")]
    columns += [Column(name, name.replace("_", " "), "difference") for name in names]
    short = run_tables.SHORT_NAMES.get(found.metric, found.metric)
    note = "Single intervals; false discovery rates stand in stress_areas.csv."
    return PageTable(
        "stress_corruptions", f"Exploratory: difference in {short} from the baseline, each corruption by itself",
        columns, rows, note,
    )  # fmt: skip


def _settings(scores: pd.DataFrame) -> PageTable:
    names = [name for name in dict.fromkeys(scores["corruption"]) if name in CORRUPTIONS]
    rows = [
        {"corruption": name, "about": CORRUPTIONS[name].about, "unit": CORRUPTIONS[name].unit}
        | {"strengths": ", ".join(f"{value:g}" for value in CORRUPTIONS[name].strengths)}
        for name in names
    ]
    columns = [Column("corruption", "corruption", "name"), Column("about", "what it is")]
    columns += [Column("strengths", "strengths 1 to 5"), Column("unit", "unit")]
    return PageTable("stress_settings", "The corruptions", columns, rows)
