"""The section "Fidelity" of the report: the numbers of assess_synthetic for every synthetic set, and warnings."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from workflow_scripts.lib.base.errors import UserError, raise_if_passing
from workflow_scripts.lib.classify import arm_choices
from workflow_scripts.lib.fidelity import data_copying, distances
from workflow_scripts.lib.generate import generator_choices
from workflow_scripts.lib.judge.wording import likeness
from workflow_scripts.lib.judge.wording.likeness import Eye
from workflow_scripts.lib.page.html_page import Column, PageTable

CONTENDERS = {
    "generated": "generated",
    "floor": "real (floor)",
    "noise": "noise",
    "blurred": "blurred real",
    "phase": "random phases",
}
# Measures beyond the distances: title and which way is better.
FURTHER = {
    "agreement": ("label agreement of the baseline", "high"),
    "authentic_pixels": ("authentic, in pixels", "high"),
    "authentic_features": ("authentic, in features", "high"),
    data_copying.COPYING: (data_copying.MEASURE.title, data_copying.MEASURE.better),
}
COUNTS = ("images_real", "groups_real", "images", "asked", "dimensions", "of_dimensions")
TEXT = {"name": str, "scope": str, "measure": str, "contender": str, "encoder": str, "class": str, "synthetic_set": str}
SCORES = {
    "class": ("class", "name"),
    "images_real": ("real images", "count"),
    "images_generated": ("generated", "count"),
    "prevalence_real": ("fraction, real", "percent"),
    "prevalence_generated": ("fraction, generated", "percent"),
    "ap_real": ("AP on real", "number", 2),
    "ap_generated": ("AP on generated", "number", 2),
}
FIRST, INDEPENDENT = 0, 1  # encoders, in the order of their rows
DEGRADED = ("noise", "blurred", "phase")
Placed = list[tuple[str, Path]]  # synthetic set and file, one each fold


def synthetic_sets(scores: Placed, figures: Placed, about: Placed, config: dict[str, Any]) -> list[dict[str, Any]]:
    """What the page says of each synthetic set: its tables, remarks and warnings."""
    out = []
    for index, name in enumerate(dict.fromkeys(synthetic_set for synthetic_set, _ in figures)):
        own = [path for synthetic_set, path in figures if synthetic_set == name]
        table = averaged(own)
        facts = [_facts(path) for synthetic_set, path in about if synthetic_set == name]
        tables = {
            "bracket": _bracket(table, f"fidelity_{index}", name),
            "frechet": _by_scope(table, "frechet", f"fidelity_{index}_frechet", "Fréchet distance", facts),
            "agreement": _by_scope(table, "agreement", f"fidelity_{index}_agreement", "Label agreement", facts),
            "scores": _judged(
                [_read(path) for synthetic_set, path in scores if synthetic_set == name],
                f"fidelity_{index}_judge",
                name,
            ),
            "everything": _everything(table, f"fidelity_{index}_everything", name),
        }
        said = {"remarks": _remarks(facts, table), "warnings": _warnings(table, facts)}
        if facts and "independent_encoder" in facts[0]:
            second = averaged(own, INDEPENDENT)
            tables["independent"] = _independent(table, second, f"fidelity_{index}_independent", name, facts[0])
            said["remarks"] += _second_opinion(table, second, facts[0])
        for text, grave in _hands(name, facts, config):
            said["warnings" if grave else "remarks"].append(text)
        out.append({"synthetic_set": name, "tables": tables, "judge": facts[0]["judge"] if facts else ""} | said)
    return out


def averaged(figures: list[Path], which: int = FIRST) -> pd.DataFrame:
    """Means over folds of the figures of a synthetic set, by its first or its independent encoder."""
    return _averaged([_figures(path, which) for path in figures])


def eye(table: pd.DataFrame, measure: str, name: str) -> Eye | None:
    """Distances of generated, real and degraded images by one measure; None where there are too few images."""
    shown = table[(table["scope"] == "all") & (table["measure"] == measure) & ~table["too_small"]]
    rows = shown.set_index("contender")
    if not {"generated", "floor", *DEGRADED} <= set(rows.index):
        return None
    degraded = rows["value"][list(DEGRADED)]
    # A way of degrading that the measure does not see is no scale for it.
    degraded = degraded[degraded > rows["high"]["floor"]]
    far = float(degraded.min()) if len(degraded) else np.nan
    generated, floor = rows.loc["generated"], rows.loc["floor"]
    return Eye(name, generated["value"], generated["low"], floor["value"], floor["high"], far)


def divergences(figures: Placed) -> dict[str, float]:
    """Fréchet distance of each synthetic set from real images, mean over folds and repeats with enough images."""
    out: dict[str, list[float]] = {}
    for name, path in figures:
        table = _figures(path)
        rows = table[(table["scope"] == "all") & (table["measure"] == "frechet") & (table["contender"] == "generated")]
        rows = rows[rows["too_small"].astype(str) != "True"]
        out.setdefault(name, []).extend(pd.to_numeric(rows["value"]).dropna())
    return {name: float(np.mean(values)) for name, values in out.items() if values}


def _read(path: Path) -> pd.DataFrame:
    return pd.read_csv(
        path, dtype=TEXT, keep_default_na=False, na_values={key: [""] for key in ("value", "low", "high")}
    )


def _figures(path: Path, which: int = FIRST) -> pd.DataFrame:
    table = _read(path)
    names = list(dict.fromkeys(table["encoder"]))
    return table[table["encoder"] == names[which]] if which < len(names) else table[:0]


def _facts(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError) as error:
        raise_if_passing(error)
        raise UserError(f"{path} cannot be read ({error}): delete it and run again") from None


def _averaged(folds: list[pd.DataFrame]) -> pd.DataFrame:
    """The mean over folds; a scope is too small if it is so in any fold."""
    whole = pd.concat(folds, ignore_index=True)
    for column in ("value", "low", "high", *COUNTS):
        whole[column] = pd.to_numeric(whole[column], errors="coerce")
    whole["too_small"] = whole["too_small"].astype(str) == "True"
    how = dict.fromkeys(("value", "low", "high", *COUNTS), "mean") | {"too_small": "max"}
    return whole.groupby(["scope", "name", "measure", "contender"], sort=False).agg(how).reset_index()


def _triples(rows: pd.DataFrame) -> dict[str, tuple[float, float, float]]:
    return {row.contender: (row.value, row.low, row.high) for row in rows.itertuples()}


def _columns() -> list[Column]:
    return [Column(name, title, "estimate") for name, title in CONTENDERS.items()]


def _bracket(table: pd.DataFrame, name: str, synthetic_set: str) -> PageTable:
    every = {key: (kind.title + (f" ({kind.unit})" if kind.unit == "dB" else ""), kind.better)
             for key, kind in distances.MEASURES.items()} | FURTHER  # fmt: skip
    shown = table[table["scope"] == "all"]
    rows = [
        {"measure": title, "better": better} | _triples(shown[shown["measure"] == key])
        for key, (title, better) in every.items()
    ]
    columns = [Column("measure", "measure", "name"), Column("better", "better"), *_columns()]
    return PageTable(
        name,
        f"Synthetic set {synthetic_set}: generated images beside real ones (floor) and degraded ones",
        columns,
        rows,
    )


def _independent(
    table: pd.DataFrame, second: pd.DataFrame, name: str, synthetic_set: str, facts: dict[str, Any]
) -> PageTable:
    rows = []
    for key, kind in (*distances.MEASURES.items(), (data_copying.COPYING, data_copying.MEASURE)):
        for encoder, shown in ((facts["encoder"], table), (facts["independent_encoder"], second)):
            if kind.needs_encoder:
                figures = _triples(shown[(shown["scope"] == "all") & (shown["measure"] == key)])
                rows.append({"measure": kind.title, "encoder": encoder["name"], "better": kind.better} | figures)
    columns = [Column("measure", "measure", "name"), Column("encoder", "encoder", "name"), Column("better", "better")]
    return PageTable(
        name, f"Synthetic set {synthetic_set}: the same images by both encoders", [*columns, *_columns()], rows
    )


def _by_scope(table: pd.DataFrame, measure: str, name: str, title: str, facts: list[dict[str, Any]]) -> PageTable:
    shown, rows = table[table["measure"] == measure], []
    for (_, label), part in shown.groupby(["scope", "name"], sort=False):
        first = part.iloc[0]
        row = {"name": label, "too_small": bool(part["too_small"].any())}
        row |= {key: float(first[key]) for key in ("images_real", "groups_real", "images", "asked")}
        rows.append(row | _triples(part) | {"warning": "too small" if row["too_small"] else ""})
    columns = [
        Column("name", "images of", "name"),
        Column("warning", "warning"),
        Column("images_real", "real images", "count"),
        Column("groups_real", "groups", "count"),
        Column("asked", "generated", "count"),
        *_columns(),
    ]
    caption = f"{title}, class by class and for the commonest combinations"
    note = f"{_limits(facts)}." if facts else ""
    return PageTable(name, caption, columns, rows, note, mark=lambda row: "control" if row["too_small"] else "")


def _limits(facts: list[dict[str, Any]]) -> str:
    least = facts[0]["settings"]["smallest"]
    return (
        f"Too small to mean anything are fewer than {least['images']} real or generated images, or real ones of fewer "
        f"than {least['groups']} groups"
    )


def _everything(table: pd.DataFrame, name: str, synthetic_set: str) -> PageTable:
    keys = ("scope", "name", "measure", "contender", "value", "low", "high", *COUNTS, "too_small")
    rows = table[list(keys)].to_dict("records")
    return PageTable(
        name, f"Synthetic set {synthetic_set}: every figure", [Column(key, key.replace("_", " ")) for key in keys], rows
    )


def _judged(folds: list[pd.DataFrame], name: str, synthetic_set: str) -> PageTable:
    whole = pd.concat(folds, ignore_index=True)
    numbers = [key for key in SCORES if key != "class" and key in whole]
    for key in numbers:
        whole[key] = pd.to_numeric(whole[key], errors="coerce")
    mean = whole.groupby("class", sort=False)[numbers].mean().reset_index()
    rows = mean.to_dict("records")
    if mean["ap_generated"].notna().any():
        last = {key: mean[key].mean() for key in numbers if key.startswith("ap_")}
        rows.append({"class": "mean of the classes", "is_mean": True} | last)
    columns = [Column(key, *SCORES[key]) for key in ("class", *numbers)]
    caption = f"Synthetic set {synthetic_set}: real and generated images, scored by the same judge"
    return PageTable(name, caption, columns, rows, mark=lambda row: "total" if row.get("is_mean") else "")


def _remarks(facts: list[dict[str, Any]], table: pd.DataFrame) -> list[str]:
    """What must be known to read the tables."""
    if not facts:
        return []
    encoder, settings, out = facts[0]["encoder"], facts[0]["settings"], []
    out.append(
        f"Features are those of {encoder['name']}; pre-training overlap: {encoder['overlap']}{_licence(encoder)}."
    )
    whole = table[table["scope"] == "all"].iloc[0]
    if whole["dimensions"] < whole["of_dimensions"]:
        out.append(
            f"The Fréchet distance sees {whole['dimensions']:.0f} of {whole['of_dimensions']:.0f} dimensions, those "
            f"that vary most: there are fewer than {distances.PER_DIMENSION} images for each."
        )
    blind = _not_seen(table)
    if blind:
        out.append(
            f"In these features {' and '.join(blind)} are no farther from held-out images than real ones may be. So "
            "the encoder does not see what such images lack, and would not see it in generated ones. The power "
            "spectrum needs no encoder."
        )
    if facts[0]["knows_train"]:
        out.append(
            "The encoder was fitted on the train part, from which the floor and the degraded images come. So in its "
            "features the floor may be farther from held-out images than in those of a network that knows neither."
        )
    if not all(fact["shares_labels"] for fact in facts):
        out.append(
            "The synthetic set has other class fractions than the real images. Numbers over all images include that "
            "difference; numbers of single classes do not."
        )
    taken, noise = facts[0]["reference_channels"], facts[0]["start_noise"]
    if taken:
        out.append(
            f"The channels {', '.join(taken)} were taken from real training images. Distances and label agreement "
            "include them; the search for copies does not."
        )
    if noise:
        out.append(
            f"The images are variations of real training images, noised to level {noise:g} and denoised. They are "
            "meant to resemble these, so few can be authentic. The fold's baseline has learned from the originals, so "
            "its label agreement is too high."
        )
    out.append(
        f"Intervals ({100 * settings['confidence']:g} %, single) are those of a fold, averaged over folds; at "
        f"most {settings['images']:,} images of each kind are compared."
    )
    return out


def _second_opinion(table: pd.DataFrame, second: pd.DataFrame, facts: dict[str, Any]) -> list[str]:
    """What the independent encoder adds: what it knows, and where it and the first encoder disagree."""
    names = [facts[key]["name"] for key in ("encoder", "independent_encoder")]
    second_facts = facts["independent_encoder"]
    known = f"pre-training overlap: {second_facts['overlap']}{_licence(second_facts)}"
    out = [f"The independent encoder is {names[1]}; {known}."]
    eyes = [eye(figures, "frechet", name) for figures, name in zip((table, second), names, strict=True)]
    if None in eyes:
        return out
    told = [_told_apart(figures) for figures in (table, second)]
    differing = [kind.title for key, kind in distances.MEASURES.items() if told[0].get(key) != told[1].get(key)]
    return [*out, likeness.second_opinion(*eyes, differing)]


def _licence(encoder: dict[str, Any]) -> str:
    return f"; licence of its weights: {encoder['licence']}" if encoder.get("licence") else ""


def _told_apart(table: pd.DataFrame) -> dict[str, bool]:
    """By which measures generated images are worse than real ones: their intervals do not meet."""
    out = {}
    for key, kind in distances.MEASURES.items():
        rows = _triples(table[(table["scope"] == "all") & (table["measure"] == key)])
        if kind.needs_encoder and rows:
            (_, low, high), (_, floor_low, floor_high) = rows["generated"], rows["floor"]
            out[key] = bool(low > floor_high if kind.better == "low" else high < floor_low)
    return out


def _not_seen(table: pd.DataFrame) -> list[str]:
    """Kinds of degraded images within the interval of the floor."""
    shown = table[(table["scope"] == "all") & (table["measure"] == "frechet")].set_index("contender")
    degraded = {"noise": "noise", "blurred": "blurred real images", "phase": "real images with random phases"}
    return [text for name, text in degraded.items() if shown["value"][name] <= shown["high"]["floor"]]


def _hands(name: str, facts: list[dict[str, Any]], config: dict[str, Any]) -> list[tuple[str, bool]]:
    return same_network(name, facts[0]["encoder"]["kind"], facts[0]["judge"], config) if facts else []


def _warnings(table: pd.DataFrame, facts: list[dict[str, Any]]) -> list[str]:
    """Reasons not to trust the tables."""
    out = []
    whole = table[table["scope"] == "all"].iloc[0]
    if whole["too_small"]:
        out.append(
            f"Too small to mean anything: {whole['images_real']:.0f} real images of {whole['groups_real']:.0f} groups "
            f"beside {whole['images']:.0f} generated ones. {_limits(facts) if facts else ''}."
        )
    return out


def same_network(synthetic_set: str, encoder: str, judge: str, config: dict[str, Any]) -> list[tuple[str, bool]]:
    """Notes on a network that has several functions, and whether each note is a warning.

    It may steer or filter what is generated, score the result by its features, and judge its labels."""
    entries = {entry["name"]: entry for entry in config.get("synthetic_sets", [])}
    filtering = [
        entry["name"]
        for entry in config.get("arms", [])
        if entry.get("synthetic_set") == synthetic_set and _filters(entry.get("method", ""))
    ]
    hands = []
    if synthetic_set in entries and generator_choices.asks_baseline(entries[synthetic_set]):
        hands.append("steers what the synthetic set generates")
    if filtering:
        hands.append(f"filters or relabels it for {', '.join(filtering)}")
    acts = bool(hands)
    if encoder == "baseline":
        hands.append("scores it by its features")
    hands.append("judges its labels" if judge == "baseline" else "gives the label agreement")
    if len(hands) < 2:
        return []
    text = f"One network has several functions here: the fold's baseline {', '.join(hands[:-1])} and {hands[-1]}."
    if acts:
        text += " Images that agree with it were favoured, so its scores of them are no independent evidence."
    return [(text, acts)]


def _filters(method: str) -> bool:
    known = arm_choices.METHODS.get(method)
    # Controls handle real images only, and have no control themselves.
    return known is not None and known.needs_baseline and known.control is not None
