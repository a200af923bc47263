"""Panels of real images beside generated ones, and pairs of a generated image and its closest training image."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from workflow_scripts.lib.base.errors import UserError
from workflow_scripts.lib.images import orientation
from workflow_scripts.lib.images.image_set import ImageSet, Part, select_channels
from workflow_scripts.lib.page import figure_style, image_legend, image_strips
from workflow_scripts.lib.page.figure_style import LOSS, MUTED
from workflow_scripts.lib.page.image_legend import Legend

SPACES = {"pixels": "closest in pixels", "features": "closest in features of the encoder"}
PAIRS_A_LINE = 5


@dataclass
class Row:
    """What one row shows: its title, the set of classes, and the images (n, C, H, W) of both kinds."""

    title: str
    real: np.ndarray
    generated: np.ndarray


def collect(
    real: ImageSet, held: np.ndarray, generated: ImageSet, rng: np.random.Generator, settings: dict[str, Any]
) -> list[Row]:
    """The rows of the panel: each class by itself, then the combinations that both sides have most of."""
    labels, asked = real.labels(held, "inspect"), generated.labels(None, "inspect")
    wanted = [(name, np.eye(len(real.classes), dtype=np.uint8)[k]) for k, name in enumerate(real.classes)]
    seen, made = (Counter(tuple(row) for row in part.tolist() if sum(row) > 1) for part in (labels, asked))
    # Of equally common combinations the first in the order of classes.
    common = sorted(seen | made, key=lambda row: (-min(seen[row], made[row]), -made[row], [-value for value in row]))
    for row in common[: settings["combinations"]]:
        names = [name for name, on in zip(real.classes, row, strict=True) if on]
        wanted.append((" + ".join(names), np.array(row, dtype=np.uint8)))
    count, out = settings["per_class"], []
    drawn, drawn_made, everything = rng.permutation(len(held)), rng.permutation(len(asked)), np.arange(len(asked))
    for title, target in wanted:
        shown = held[image_strips.choose(labels, target, drawn, real.groups[held], count)]
        other = image_strips.choose(asked, target, drawn_made, everything, count)
        if len(shown) or len(other):
            out.append(Row(title, _read(real, shown).images, _read(generated, other).images))
    return out


@dataclass
class Pair:
    """A generated image and the training image closest to it, both (C, H, W) of the channels that were compared."""

    space: str
    generated: np.ndarray
    train: np.ndarray
    ratio: float  # their distance by that of the training image to the nearest other one
    authentic: bool
    channels: list[str]


def closest(table: Path, real: ImageSet, generated: ImageSet) -> list[Pair]:
    """The pairs of the table, the generated image turned as it lies best on the other."""
    rows = pd.read_csv(table, dtype={"generated": str, "train": str}, keep_default_na=False)
    given = json.loads(generated.attrs.get("synthetic_set", "{}")).get("reference_channels") or []
    channels = [name for name in real.channels if name not in given]
    at = [{name: place for place, name in enumerate(source.ids)} for source in (generated, real)]
    out = []
    for row in rows.to_dict("records"):
        if row["generated"] not in at[0] or row["train"] not in at[1]:
            raise UserError(f"{table} names images that the sets do not hold: delete it and run again")
        made, train = (
            select_channels(_read(source, np.array([place[row[key]]])).images, real.channels, channels)
            for source, place, key in ((generated, at[0], "generated"), (real, at[1], "train"))
        )
        made = orientation.mirror_then_rotate(made, int(row["turn"]))[0]
        out.append(Pair(row["space"], made, train[0], float(row["ratio"]), str(row["authentic"]) == "True", channels))
    return out


def _read(source: ImageSet, rows: np.ndarray) -> Part:
    return source.read(rows, "inspect")


def draw_panel(rows: list[Row], channels: list[str], settings: dict[str, Any], legend: Legend) -> Figure:
    """All rows: a colour strip and a protein strip, real on the left, generated on the right."""
    count, protein = settings["per_class"], image_strips.protein_index(channels, settings["protein_channel"])
    left, gap = 1.08, 0.14
    half = (figure_style.WIDTH - left - gap - 0.04) / 2
    tile = half / count
    double = len(channels) > 1
    pitch = tile * (2 if double else 1) + 0.09
    head = image_legend.height(legend)
    fig = figure_style.figure(head + 0.34 + max(1, len(rows)) * pitch)
    image_legend.draw(fig, legend, tile)
    for index, text in enumerate(("real, held out", "generated")):
        fig.text(
            (left + index * (half + gap)) / figure_style.WIDTH,
            1 - (head + 0.2) / fig.get_figheight(),
            text,
            fontweight="bold",
            va="baseline",
        )
    shown = [row.real for row in rows if len(row.real)] or [row.generated for row in rows]
    scale = image_strips.brightest(shown, len(channels)) if rows else np.ones(len(channels))
    for line, row in enumerate(rows):
        top = head + 0.3 + line * pitch
        fig.text(
            0,
            1 - (top + 0.04) / fig.get_figheight(),
            image_strips.wrap(row.title),
            va="top",
            fontsize=7.5,
            linespacing=1.15,
        )
        for side, images in enumerate((row.real, row.generated)):
            start = left + side * (half + gap)
            if not len(images):
                fig.text(
                    (start + 0.04) / figure_style.WIDTH,
                    1 - (top + 0.12) / fig.get_figheight(),
                    "none",
                    va="top",
                    color=MUTED,
                )
                continue
            image_strips.show(
                figure_style.inches(fig, start, top, half, tile),
                image_strips.strip(image_strips.compose(images, channels, scale, settings.get("colours")), count),
            )
            if double:
                alone = image_strips.grey(images, protein, scale)
                image_strips.show(
                    figure_style.inches(fig, start, top + tile, half, tile), image_strips.strip(alone, count)
                )
    return fig


def draw_pairs(pairs: list[Pair], legend: Legend, chosen: Mapping[str, str] | None = None) -> Figure:
    """The closest pairs, generated on the left of each; below one, what their distance is of that between real ones."""
    gap, words, head = 0.14, 0.24, 0.3
    width = (figure_style.WIDTH - (PAIRS_A_LINE - 1) * gap) / PAIRS_A_LINE
    tile = width / 2
    spaces = {name: [pair for pair in pairs if pair.space == name] for name in SPACES}
    lines = {name: -(-len(shown) // PAIRS_A_LINE) for name, shown in spaces.items()}
    top = image_legend.height(legend) if pairs else 0.0
    fig = figure_style.figure(max(0.4, top + sum(head + count * (tile + words) for count in lines.values() if count)))
    if pairs:
        image_legend.draw(fig, legend, tile)
    for name, shown in spaces.items():
        if not shown:
            continue
        fig.text(0, 1 - (top + 0.18) / fig.get_figheight(), SPACES[name], fontweight="bold", va="baseline")
        top += head
        scale = image_strips.brightest([np.stack([pair.train for pair in shown])], len(shown[0].channels))
        for index, pair in enumerate(shown):
            left = index % PAIRS_A_LINE * (width + gap)
            high = top + index // PAIRS_A_LINE * (tile + words)
            both = image_strips.compose(np.stack([pair.generated, pair.train]), pair.channels, scale, chosen)
            image_strips.show(figure_style.inches(fig, left, high, width, tile), image_strips.strip(both, 2))
            fig.text(
                left / figure_style.WIDTH,
                1 - (high + tile + 0.14) / fig.get_figheight(),
                f"{pair.ratio:.2f}" + ("" if pair.authentic else ", closer"),
                color=MUTED if pair.authentic else LOSS,
                fontsize=7.5,
                va="baseline",
            )
        top += lines[name] * (tile + words)
    return fig
