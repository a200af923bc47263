"""Break-even law in the section *When it pays*: its coefficients, how well it held, and what it predicts."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from workflow_scripts.lib.judge import break_even, regime_map
from workflow_scripts.lib.judge.break_even import HeldOut, Law, LawPoint
from workflow_scripts.lib.page.html_page import Column, PageTable
from workflow_scripts.lib.page.run_tables import SHORT_NAMES, Results

DECIMALS = 3


def read(
    results: Results, config: Mapping[str, Any], divergences: Mapping[str, float], unit: str
) -> dict[str, Any] | None:
    """The law's sentences and tables; None where the run has no map, or too few points for a law.

    `divergences` are those of the synthetic sets."""
    points = law_points(results, config, divergences)
    law = break_even.fit(points, results.confidence)
    checked = break_even.held_out(points, results.confidence) if law else None
    if law is None or checked is None:
        return None
    tables = {"law": _terms(law, unit)}
    if checked.predicts:
        tables["law_predictions"] = _predictions(law, checked, points, unit)
    return {"sentences": list(_sentences(results, law, checked, points, unit)), "tables": tables}


def law_points(results: Results, config: Mapping[str, Any], divergences: Mapping[str, float]) -> list[LawPoint]:
    """All generated arms of the map, each once, as far as they were compared and their images were assessed.

    None where there are further images without labels: how many groups a generator saw of these is not known here."""
    facts = results.facts.get("map")
    if not facts or config.get("data", {}).get("unlabelled"):
        return []
    sets = {entry["name"]: entry.get("synthetic_set", "") for entry in config.get("arms", [])}
    fraction = {entry["name"]: entry["labelled"] for entry in config.get("regimes", [])}
    every = max(regime["groups"] / fraction.get(regime["regime"], 1) for regime in facts["regimes"])
    out: dict[str, LawPoint] = {}
    for regime in facts["regimes"]:
        for saw, names in regime.get("generated", {}).items():
            seen = regime["groups"] if saw == regime_map.LABELLED else every
            for name in names:
                found, divergence = results.difference(name), divergences.get(sets.get(name, ""), math.nan)
                if found is not None and math.isfinite(divergence) and math.isfinite(found.value):
                    out[name] = LawPoint(regime["regime"], found.value, divergence, regime["groups"], seen)
    return list(out.values())


def _terms(law: Law, unit: str) -> PageTable:
    names = {
        "constant": "constant",
        "divergence": "for a Fréchet distance larger by 1",
        "labelled": f"for ten times as many labelled {unit}s",
        "seen": f"for ten times as many {unit}s that the generator saw",
    }
    rows = [{"term": names[name], "change": ends} for name, ends in law.terms().items()]
    columns = [Column("term", "the gain over the baseline changes", "name"), Column("change", "by", "difference")]
    note = "Generalised least squares over all generated arms. They share test images, so intervals are approximate."
    return PageTable("law", "Break-even law", columns, rows, note)


def _predictions(law: Law, checked: HeldOut, points: list[LawPoint], unit: str) -> PageTable:
    """Predicted gains within the range of the points: numbers of labelled groups by the closest and farthest images."""
    every = max(point.seen for point in points)
    distances = sorted(point.divergence for point in points)
    rows = [
        {"labelled": labelled, "seen": seen, "divergence": divergence}
        | {"gain": law.predict(divergence, labelled, seen, checked.error)}
        for labelled in sorted({point.labelled for point in points})
        for seen in sorted({labelled, every})
        for divergence in (distances[0], distances[len(distances) // 2])
    ]
    columns = [
        Column("labelled", f"labelled {unit}s", "count"),
        Column("seen", f"{unit}s that the generator saw", "count"),
        Column("divergence", "Fréchet distance", "number", 2),
        Column("gain", "predicted gain over real images alone", "difference"),
    ]
    note = (
        "Predictions, not measurements: for images like those of this run, classifiers and generators trained as here. "
        "Distances are the smallest of this run and the median."
    )
    return PageTable("law_predictions", "Expected gain for your set (prediction)", columns, rows, note)


def _sentences(results: Results, law: Law, checked: HeldOut, points: list[LawPoint], unit: str) -> Iterator[str]:
    metric, regimes = SHORT_NAMES.get(results.metric, results.metric), len({point.regime for point in points})
    yield (
        f"A linear law of the gain in {metric} was fitted to {len(points)} generated arms of {regimes} regimes, and "
        f"checked by leaving out each regime in turn. There its error is {checked.error:.{DECIMALS}f}, and that of "
        f"the mean gain of the other regimes is {checked.error_of_mean:.{DECIMALS}f} (root mean square)."
    )
    if not checked.predicts:
        yield "So the law is not clearly better than that mean, and nothing is predicted for other sets."
        return
    distances, every = sorted(point.divergence for point in points), max(point.seen for point in points)
    closest, numbers = distances[0], [point.labelled for point in points]
    found = law.break_even(closest, every, numbers)
    subject = f"With images as close to real ones as the closest here (Fréchet distance {closest:.2f})"
    if found is None:
        between = f"between {min(numbers):,.0f} and {max(numbers):,.0f} labelled {unit}s"
        yield f"{subject}, the law has no break-even {between}."
        return
    low = f"{found[1]:,.0f}" if found[1] else f"fewer than {min(numbers):,.0f}"
    high = f"{found[2]:,.0f}" if math.isfinite(found[2]) else f"more than {max(numbers):,.0f}"
    yield (
        f"{subject} of a generator that saw {every:,.0f} {unit}s, it predicts a gain below about {found[0]:,.0f} "
        f"labelled {unit}s ({100 * law.confidence:g} % interval: {low} to {high})."
    )
