"""Gain of an arm by the fidelity of its synthetic set, by the fraction of synthetic images and by the guidance scale.

The numbers of the figures and of the tables beside them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from workflow_scripts.lib.base.errors import UserError
from workflow_scripts.lib.classify import arm_choices
from workflow_scripts.lib.page import run_tables
from workflow_scripts.lib.page.html_page import Column, PageTable
from workflow_scripts.lib.page.run_tables import Difference, Results

MEASURES = {"frechet": "Fréchet distance", "agreement": "label agreement"}
REFERENCES = {"generated": "", "floor": "_real"}  # contender -> end of its key in a point
FEWEST_SETS = 2  # fewer lie on one vertical line
FEWEST_POINTS = 3  # fewer make no curve
# What must not tell apart two arms of a curve: their names, and what serves them.
APART = ("name", "control", "trials")
SWEPT = {"ratio": "synthetic images to one real image", "guidance": "guidance scale"}


@dataclass(frozen=True)
class Point:
    """An arm that learns from a synthetic set, beside how good that set is by itself."""

    arm: str
    synthetic_set: str
    fidelity: dict[str, float]  # measure -> mean over folds; with the end _real what real images reach
    difference: Difference
    too_small: bool


@dataclass(frozen=True)
class Sweep:
    """Arms that differ in one setting only, by its value."""

    of: str  # ratio | guidance
    title: str  # what they have in common
    values: list[float]
    arms: list[str]
    controls: list[str]  # each arm's own; empty where it has none


def usefulness(results: Results, config: dict[str, Any], files: list[tuple[str, Path]]) -> list[Point]:
    """Every compared arm that learns from generated images; `files` are fidelity tables with their synthetic sets."""
    known = {
        synthetic_set: _fidelity([path for name, path in files if name == synthetic_set])
        for synthetic_set in dict(files)
    }
    out = []
    for entry in config.get("arms", []):
        method, synthetic_set = arm_choices.METHODS.get(entry["method"]), entry.get("synthetic_set")
        difference = results.difference(entry["name"])
        if method is None or not method.learns_from_generated or synthetic_set not in known or difference is None:
            continue
        numbers, too_small = known[synthetic_set]
        out.append(Point(entry["name"], synthetic_set, numbers, difference, too_small))
    return out


def _fidelity(paths: list[Path]) -> tuple[dict[str, float], bool]:
    """What a synthetic set's images reach over all classes, and what real ones do; the mean over folds."""
    folds = []
    for path in paths:
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
        lacking = [
            name for name in ("encoder", "scope", "measure", "contender", "value", "too_small") if name not in table
        ]
        if lacking:
            raise UserError(f"{path} has no column {lacking[0]!r}: delete it and run again")
        # An independent encoder has its rows after those of the first.
        first = table["encoder"] == table["encoder"].iloc[0]
        folds.append(table[first & (table["scope"] == "all")])
    whole = pd.concat(folds, ignore_index=True)
    value = pd.to_numeric(whole["value"], errors="coerce")
    out = {}
    for measure in MEASURES:
        for contender, end in REFERENCES.items():
            rows = value[(whole["measure"] == measure) & (whole["contender"] == contender)]
            out[f"{measure}{end}"] = float(rows.mean()) if len(rows) else np.nan
    return out, bool((whole["too_small"] == "True").any())


def sets_of(points: list[Point]) -> list[str]:
    """The synthetic sets of these points, in their order."""
    return list(dict.fromkeys(point.synthetic_set for point in points))


def enough(points: list[Point]) -> bool:
    """Whether there is anything to see in a figure of fidelity against usefulness."""
    return len(sets_of(points)) >= FEWEST_SETS


def usefulness_table(results: Results, points: list[Point]) -> PageTable:
    """The numbers of the figure."""
    rows: list[dict[str, Any]] = [
        {"arm": point.arm, "synthetic_set": point.synthetic_set, "difference": _triple(point.difference)}
        | {"verdict": point.difference.said, "warning": "too small" * point.too_small}
        | point.fidelity
        for point in points
    ]
    name = run_tables.SHORT_NAMES.get(results.metric, results.metric)
    columns = [Column("arm", "arm", "name"), Column("synthetic_set", "synthetic set")]
    for measure, title in MEASURES.items():
        columns.append(Column(measure, title, "number"))
        columns.append(Column(f"{measure}_real", "of real images", "number"))
    columns += [
        Column("difference", f"{name} against {results.compared_with}", "difference"),
        Column("verdict", "verdict"),
        Column("warning", "warning"),
    ]
    note = "Fidelity is that of all images together, mean over folds. Arms of one set share its fidelity."
    return PageTable(
        "usefulness", "Fidelity of a synthetic set, and what the arms that learn from it gained", columns, rows, note,
        mark=lambda row: "primary" if row["arm"] == results.primary else "",
    )  # fmt: skip


def sweeps(results: Results, config: dict[str, Any]) -> list[Sweep]:
    """Curves over the ratio and over the guidance: of each, arms that are alike in all else, three or more."""
    synthetic_sets = {synthetic_set["name"]: synthetic_set for synthetic_set in config.get("synthetic_sets", [])}
    usual = config.get("train_classifier", {})
    serving = set(results.controls.values())
    groups: dict[tuple[str, str], list[tuple[float, dict[str, Any]]]] = {}
    for entry in config.get("arms", []):
        method = arm_choices.METHODS.get(entry["method"])
        if method is None or entry["name"] in serving or results.difference(entry["name"]) is None:
            continue
        # What is given as it is anyway is not given.
        alike = {key: value for key, value in entry.items() if key not in APART and value != usual.get(key)}
        if "ratio" in method.options:
            ratio = entry.get("ratio", usual.get("ratio", np.nan))
            rest = {key: value for key, value in alike.items() if key != "ratio"}
            groups.setdefault(("ratio", _key(rest)), []).append((float(ratio), entry))
        synthetic_set = synthetic_sets.get(entry.get("synthetic_set", ""), {})
        if "guidance" in synthetic_set and method.learns_from_generated:
            guidance = {key: value for key, value in synthetic_set["guidance"].items() if key != "scale"}
            made = {key: value for key, value in synthetic_set.items() if key != "name"} | {"guidance": guidance}
            rest = alike | {"synthetic_set": made}
            groups.setdefault(("guidance", _key(rest)), []).append((float(synthetic_set["guidance"]["scale"]), entry))
    return [
        _sweep(results, of, members)
        for (of, _), members in groups.items()
        if len({value for value, _ in members}) >= FEWEST_POINTS
    ]


def _key(settings: dict[str, Any]) -> str:
    return json.dumps(settings, sort_keys=True)


def _sweep(results: Results, of: str, members: list[tuple[float, dict[str, Any]]]) -> Sweep:
    members = sorted(members, key=lambda member: member[0])
    first = members[0][1]
    sets = list(dict.fromkeys(entry["synthetic_set"] for _, entry in members if entry.get("synthetic_set")))
    title = first["method"] + (f", synthetic set{'s' * (len(sets) > 1)} {', '.join(sets)}" if sets else "")
    names = [entry["name"] for _, entry in members]
    return Sweep(of, title, [value for value, _ in members], names, [results.controls.get(name, "") for name in names])


def sweeps_table(results: Results, curves: list[Sweep]) -> PageTable:
    """The numbers of the curves."""
    rows: list[dict[str, Any]] = [
        {"curve": curve.title, "of": curve.of, "value": value, "arm": arm, "control": control}
        | {"difference": _triple(results.difference(arm)), "of_control": _triple(results.difference(control))}
        | {"beyond": _triple(results.difference(arm, "control"))}
        for curve in curves
        for value, arm, control in zip(curve.values, curve.arms, curve.controls, strict=True)
    ]
    name = run_tables.SHORT_NAMES.get(results.metric, results.metric)
    columns = [
        Column("curve", "arms", "name"),
        Column("of", "setting"),
        Column("value", "value", "number", 2),
        Column("arm", "arm"),
        Column("difference", f"{name} against {results.compared_with}", "difference"),
        Column("control", "its control"),
        Column("of_control", f"the control against {results.compared_with}", "difference"),
        Column("beyond", "arm minus control", "difference"),
    ]
    return PageTable("sweeps", "Arms that differ in one setting only", columns, rows)


def _triple(difference: Difference | None) -> tuple[float, float, float] | None:
    return None if difference is None else (difference.value, difference.low, difference.high)
