"""The map of when generated images pay, in numbers for analysis.json and in sentences for the page."""

from __future__ import annotations

import math
from typing import Any

from workflow_scripts.lib.judge import regime_map
from workflow_scripts.lib.judge.question import Question
from workflow_scripts.lib.judge.regime_map import Ends, RegimeMap
from workflow_scripts.lib.split.regimes import WHOLE

SAW = {
    regime_map.LABELLED: "the labelled images alone",
    regime_map.UNLABELLED: "the other images as well, without labels,",
    regime_map.PSEUDO_LABELLED: "the other images as well, with pseudo-labels,",
    regime_map.EVERYTHING: "all images with their labels",
}


def report(found: RegimeMap, question: Question) -> dict[str, Any]:
    """The entry `map` of analysis.json. An end of a limit is null where it lies beyond the most labelled groups."""
    analysis = question.analysis
    return {
        "metric": analysis["metric"],
        "confidence": analysis["confidence"],
        "regimes": [
            {"regime": arms.name or WHOLE.name, "groups": arms.groups, "baseline": arms.baseline}
            | {"controls": arms.controls, "generated": arms.generated}
            for arms in found.regimes
        ],
        "cells": [
            {"saw": cell.saw, "regime": cell.regime or WHOLE.name, "groups": cell.groups, "arm": cell.arm}
            | {"control": cell.control, "state": cell.state}
            | _ends("gain", cell.gain)
            | (_ends("beyond", cell.beyond) if cell.beyond else {})
            for cell in found.cells
        ],
        "points": [
            {"part": point.part, "series": point.series, "regime": point.regime or WHOLE.name, "arm": point.arm}
            | {"groups": point.groups}
            | _ends("score", point.score)
            for point in found.points
        ],
        "limits": [
            {"saw": limit.saw, "helps_at": limit.helps_at}
            | {name: None if value == math.inf else value for name, value in _ends("groups", limit.groups).items()}
            for limit in found.limits
        ],
    }


def _ends(name: str, ends: Ends) -> dict[str, float]:
    return dict(zip((name, f"{name}_low", f"{name}_high"), ends, strict=True))


def sentences(facts: dict[str, Any], worth: dict[str, str], unit: str = "protein") -> list[str]:
    """One sentence for each kind of generator, from the entry `map`; `unit` is what a group is, in the singular.

    `worth` holds sentences on what arms are worth in real images, by arm; the one that fits is added."""
    out = []
    for limit in facts["limits"]:
        cells = [cell for cell in facts["cells"] if cell["saw"] == limit["saw"]]
        if not any(cell["control"] for cell in cells):
            out.append(f"Images of a generator that saw {SAW[limit['saw']]} have no control to compare them with.")
            continue
        text = sentence(limit, [cell["groups"] for cell in cells], facts["confidence"], unit)
        helping = next((cell["arm"] for cell in cells if cell["state"] == regime_map.HELPS), "")
        out.append(" ".join(part for part in (text, worth.get(helping, "")) if part))
    return out


def sentence(limit: dict[str, Any], groups: list[float], confidence: float, unit: str) -> str:
    """Below how many labelled groups generated images help, for one entry of `limits`; `groups` are those tried."""
    fewest, most = min(groups), max(groups)
    subject = f"Images of a generator that saw {SAW[limit['saw']]}"
    tried = f"{_count(fewest)} to {_count(most)}"
    if not limit["helps_at"]:
        return (
            f"{subject} are not shown to help more than the best control at any number of {unit}s ({tried} labelled)."
        )
    # Numbers that are smaller than one at which they help, and at which that is not shown.
    gaps = {number for number in groups if number < max(limit["helps_at"])} - {*limit["helps_at"]}
    if limit["groups"] is not None and (gaps or limit["groups"] < max(limit["helps_at"])):
        where = " and ".join(_count(number) for number in limit["helps_at"])
        others = "with fewer" if limit["groups"] == 0 else "with every other number tried"
        return f"{subject} help with {where} labelled {unit}s, but are not shown to help {others}."
    if limit["groups"] is None and len(limit["helps_at"]) < len(set(groups)):
        where = " and ".join(_count(number) for number in limit["helps_at"])
        return f"{subject} help with {where} labelled {unit}s, but that is not shown for all numbers tried ({tried})."
    interval = " to ".join(_end(limit[name], fewest, most) for name in ("groups_low", "groups_high"))
    within = f"({100 * confidence:g} % interval: {interval})"
    if limit["groups"] is None:
        return f"{subject} help at all numbers of labelled {unit}s that were tried, {tried} {within}."
    return f"{subject} help below about {_count(limit['groups'])} labelled {unit}s {within}."


def _end(number: float | None, fewest: float, most: float) -> str:
    if number is None:
        return f"more than {_count(most)}"
    return _count(number) if number else f"fewer than {_count(fewest)}"


def _count(number: float) -> str:
    """A number of groups as precise as it is known: two digits."""
    step = 10 ** max(0, math.floor(math.log10(max(1.0, number))) - 1)
    return f"{round(number / step) * step:,.0f}"
