"""The page of `snakemake check`: pictures and tables that go with the findings of data_check."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from workflow_scripts.lib.images import intensity_limits, user_tables
from workflow_scripts.lib.images.colour_choices import colours_of
from workflow_scripts.lib.images.intensity_limits import Limits
from workflow_scripts.lib.images.known_datasets import TRAIN_PART
from workflow_scripts.lib.page import (
    data_figures,
    figure_style,
    html_page,
    image_legend,
    image_strips,
    intensity_histograms,
    pictures,
)
from workflow_scripts.lib.page.data_check import Checked
from workflow_scripts.lib.page.html_page import Column, PageTable
from workflow_scripts.lib.page.intensity_histograms import IntensityHistograms
from workflow_scripts.lib.page.pictures import Chosen
from workflow_scripts.lib.page.sections import data_section
from workflow_scripts.lib.split.roles import Role

SHOWN = 8  # images in a strip
CLASSES = 30  # of which images are shown
PAIRS = 24  # near-duplicates that are shown
JOINED = 40  # groups in the table of those that near-duplicates made
EXAMPLES = 3  # values of a column
FAULTS = 50  # rows of the table of faults


def context(checked: Checked, settings: dict[str, Any], tables: Sequence[Path]) -> dict[str, Any]:
    """What the template shows."""
    reading = settings["preprocess_images"]
    channels, size = list(reading["channels"]), int(reading["size"])
    images, chosen = checked.preview.images, settings.get("colours")
    scale = image_strips.brightest([images], len(channels)) if len(images) else np.ones(len(channels))
    data = checked.data(channels, size)
    shown = [columns_table(path, checked, settings) for path in tables]
    if checked.roles:
        shown += [data_section.classes_table(data, settings["minimum_positive_groups"])]
        shown += [data_section.roles_table(data)]
    if len(checked.groups):
        shown += [data_section.groups_table(data)]
    return {
        "run": settings["run"],
        "findings": checked.findings,
        "problem": checked.problem,
        "legend": image_legend.make(channels, size, chosen, reading.get("pixel_size")).told(),
        "channels": _channels(images, channels, scale, chosen),
        "classes": _classes(checked, channels, scale, chosen),
        "pairs": _pairs(checked, channels, scale, chosen),
        "histograms": _histograms(checked, settings),
        "missing": data_section.missing_table(data),
        "tables": {table.name: table for table in [*shown, joined_table(checked), faults_table(checked)]},
        "columns": [table.name for table in shown if table.name.startswith("columns_")],
        "size": size,
    }


def columns_table(path: Path, checked: Checked, settings: dict[str, Any]) -> PageTable:
    """Columns of a table: what each was understood as, how many values it has, and the first of them."""
    table, folds = user_tables.read_table(path), settings["make_folds"]
    meant = {table.find(name): kind for kind, name in settings["preprocess_images"]["data"]["columns"].items()}
    uses = {folds[option]: f"make_folds.{option}" for option in ("stratify_by", "leave_out", "roles_from")}
    rows = []
    for name, values in table.columns.items():
        kind, distinct = meant.get(name, name), dict.fromkeys(value for value in values if value)
        role = {"id": "Ids: the names of the files", "labels": "labels"}.get(kind, "carried along")
        role = "groups: images that share a value stay together" if kind in checked.by else uses.get(kind, role)
        role = f"{role} (as {kind})" if kind != name and kind not in ("id", "labels") else role
        examples = ", ".join(value[:40] for value in list(distinct)[:EXAMPLES])
        rows.append({"column": name, "role": role, "values": len(distinct), "empty": values.count(""), "eg": examples})
    columns = [
        Column("column", "column", "name"),
        Column("role", "understood as"),
        Column("values", "values", "count"),
        Column("empty", "empty", "count"),
        Column("eg", "such as"),
    ]
    return PageTable(f"columns_{path.name}", f"{path.name}: {len(table):,} rows", columns, rows)


def joined_table(checked: Checked) -> PageTable:
    """Groups that near-duplicates made one."""
    names, sizes = np.unique(checked.groups.astype(str), return_counts=True)
    size = dict(zip(names.tolist(), sizes.tolist(), strict=True))
    rows = [
        {"group": name, "parts": len(parts), "images": size[name], "names": ", ".join(part[:30] for part in parts[:6])}
        for name, parts in sorted(checked.joined, key=lambda each: -len(each[1]))[:JOINED]
    ]
    columns = [
        Column("group", "group", "name"),
        Column("parts", "groups joined", "count"),
        Column("images", "images", "count"),
        Column("names", "the first of them"),
    ]
    return PageTable("joined", "Groups that near-duplicates join", columns, rows)


def faults_table(checked: Checked) -> PageTable:
    """Images that cannot be used, and why."""
    bad = checked.listed.bad
    rows = [{"id": each.id, "file": each.file, "reason": each.reason} for each in bad[:FAULTS]]
    columns = [Column("id", "Id", "name"), Column("file", "where"), Column("reason", "reason")]
    return PageTable("faults", f"What cannot be used: {len(rows)} of {len(bad)} faults", columns, rows)


def _histograms(checked: Checked, settings: dict[str, Any]) -> dict[str, str]:
    """Intensities before and after normalisation, by plate or the like; nothing where no image was read."""
    seen, columns, reading = checked.preview, checked.listed.columns, settings["preprocess_images"]
    channels, wanted = list(reading["channels"]), settings.get("intensity_column")
    if not len(seen.images):
        return {}
    column = intensity_histograms.column_of(wanted, columns)
    values = None if column is None else [columns[column][row] for row in checked.read]
    images = seen.images
    if reading["intensity"] == TRAIN_PART:
        images = _normalised(checked, [columns[wanted][row] for row in checked.read] if wanted in columns else None)
    shown = IntensityHistograms(channels, column, values, len(images))
    shown.add(values, images, seen.raw)
    with figure_style.style():
        svg = figure_style.svg_text(data_figures.draw_histograms(shown, settings.get("colours")))
    return {"svg": html_page.inline_svg(svg, "histograms", shown.text), "text": shown.text}


def _normalised(checked: Checked, values: list[str] | None) -> np.ndarray:
    """The images that were read as the first fold would see them, by the train images among them."""
    names, place = np.unique(values or ["all"] * len(checked.read), return_inverse=True)
    seen, train = checked.preview, np.ones(len(checked.read), dtype=bool)
    if checked.roles:
        train = checked.roles[0, 0][checked.read] == Role.TRAIN
    there = seen.present[seen.rows]
    rows = np.flatnonzero(train)
    own = np.where(names[place[rows]] == "", -1, place[rows])  # as in a run: of no plate in particular
    if not (own >= 0).any():
        return seen.images
    limits = intensity_limits.fitted(len(names), own, rows, lambda part: (seen.raw[part], there[part]))
    return Limits(limits, place).spread(seen.raw, there, np.arange(len(place)))


def _channels(images: np.ndarray, channels: list[str], scale: np.ndarray, chosen: Chosen) -> list[dict[str, Any]]:
    """Each channel in its colour, with its intensities."""
    out = []
    first = images[np.unique(np.linspace(0, max(0, len(images) - 1), min(SHOWN, len(images))).astype(int))]
    for index, (name, colour) in enumerate(zip(channels, colours_of(channels, chosen), strict=True)):
        if not len(images):
            break
        own = images[:, index]
        low, middle, high = np.percentile(own, [1, 50, 99])
        text = (
            f"{name}, shown {colour}: 1st percentile {low:.0f}, median {middle:.0f}, 99th percentile {high:.0f} of 255"
        )
        ends = f"{(own == 0).mean():.1%} of the pixels are 0, {(own == 255).mean():.1%} are 255"
        strip = pictures.strip_of_channel(first, channels, scale, index, chosen)
        out.append({"name": name, "text": f"{text}; {ends}", "strip": strip, "count": len(first)})
    return out


def _classes(checked: Checked, channels: list[str], scale: np.ndarray, chosen: Chosen) -> list[dict[str, Any]]:
    """The first images of each class, all channels in their colours."""
    listed, rows = checked.listed, checked.read
    out = []
    for number, name in enumerate(listed.classes[:CLASSES]):
        own = np.flatnonzero(listed.labels[rows, number] > 0)[:SHOWN] if len(rows) else []
        if len(own):
            strip = pictures.strip(checked.preview.images[own], channels, scale, chosen)
            out.append({"name": name, "text": name, "strip": strip, "count": len(own)})
    return out


def _pairs(checked: Checked, channels: list[str], scale: np.ndarray, chosen: Chosen) -> list[dict[str, Any]]:
    """Pairs of near-duplicates side by side, the least alike first: those are the doubtful ones."""
    rows, out = checked.read, []
    for one, other, likeness in sorted(checked.pairs, key=lambda pair: pair[2])[:PAIRS]:
        names = [checked.listed.ids[rows[place]] for place in (one, other)]
        strip = pictures.strip(checked.preview.images[[one, other]], channels, scale, chosen)
        text = f"{names[0]} and {names[1]}: {likeness:.3f}"
        out.append({"name": text, "text": text, "strip": strip, "count": 2})
    return out
