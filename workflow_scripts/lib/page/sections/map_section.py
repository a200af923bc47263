"""The section *When it pays*: label regimes by what the generator saw, if the run has such a map."""

from __future__ import annotations

from typing import Any

from workflow_scripts.lib.judge import regime_map
from workflow_scripts.lib.judge.wording import map_sentences
from workflow_scripts.lib.page.html_page import Column, PageTable
from workflow_scripts.lib.page.run_tables import Results

SAW = {
    regime_map.LABELLED: "labelled only",
    regime_map.UNLABELLED: "all, no labels",
    regime_map.PSEUDO_LABELLED: "all, pseudo-labels",
    regime_map.EVERYTHING: "all, labelled",
}
STATES = {
    regime_map.HELPS: "helps",
    regime_map.UNCONTROLLED: "no control",
    regime_map.NO_MORE: "like control",
    regime_map.HURTS: "hurts",
    regime_map.UNDECIDED: "undecided",
}
SERIES = {
    "real_only": "real images alone",
    "pseudo_label": "pseudo-labelled",
    "fixmatch": "FixMatch",
    "ssl_pretrain": "pre-trained",
    "ssl_pretrain_weak": "pre-trained, weaker views",
    "resample_real": "resampled",
    "more_real": "ceiling: more real",
    regime_map.SIMULATOR: "ceiling: true generator",
}


def series_name(part: str, series: str) -> str:
    """What a legend calls a series of the figure."""
    return f"generated ({SAW[series]})" if part == regime_map.GENERATED else SERIES.get(series, series)


def sentences(results: Results, unit: str) -> list[str]:
    """Below how many labelled groups generated images help, one sentence for each kind of generator."""
    worth = {row["arm"]: row["sentence"] for row in results.facts.get("worth", {}).get("arms", [])}
    said = map_sentences.sentences(results.facts["map"], worth, unit) if "map" in results.facts else []
    return [f"{text}{results.caveat}" for text in said]


def table(results: Results, unit: str) -> PageTable | None:
    """A row for each cell of the map; None where the run has no map."""
    facts = results.facts.get("map")
    if not facts:
        return None
    rows = [
        {"regime": cell["regime"], "groups": cell["groups"], "saw": SAW[cell["saw"]], "arm": cell["arm"]}
        | {"gain": _triple(cell, "gain"), "control": cell["control"], "state": cell["state"]}
        | ({"beyond": _triple(cell, "beyond")} if "beyond" in cell else {})
        for cell in facts["cells"]
    ]
    columns = [
        Column("saw", "the generator saw"),
        Column("regime", "regime", "name"),
        Column("groups", f"labelled {unit}s", "count"),
        Column("arm", "arm", "name"),
        Column("gain", "against its baseline", "difference"),
        Column("control", "best control", "name"),
        Column("beyond", "against the best control", "difference"),
        Column("state", "state"),
    ]
    note = (
        "The best control of a regime is the one with the highest validation score. Intervals are simultaneous over "
        "this table, those of the primary arm single."
    )
    note += results.caveat
    if len({(cell["regime"], cell["arm"]) for cell in facts["cells"]}) < len(facts["cells"]):
        note += " With all labels every kind of generator saw the same images, so one arm stands for all."
    return PageTable(
        "map", "Generated images by label regime, and by what their generator saw", columns, rows, note,
        mark=lambda row: "primary" if row["arm"] == results.primary else "",
    )  # fmt: skip


def _triple(cell: dict[str, Any], name: str) -> tuple[float, float, float]:
    return cell[name], cell[f"{name}_low"], cell[f"{name}_high"]
