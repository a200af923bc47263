"""plot_data: what the images of a run are: classes, co-occurrence, groups, intensities, and a contact sheet.

classes: images of every class, and its groups, those that are tested among them. cooccurrence: how often one class
stands beside another. groups: how many images a group has. intensity: pixel values of every channel. samples: the
first images of every class by id, one of each group, chosen by nobody. Each is written as svg, pdf and png under the
stem of its path; the table holds the statistics of the pixel values.

Example:
    python -m workflow_scripts.plot_data --images images.h5 --folds 0=repeat0/folds.csv \\
        --classes figures/data_classes.svg --cooccurrence figures/data_cooccurrence.svg \\
        --groups figures/data_groups.svg --intensity figures/data_intensity.svg --samples figures/data_samples.svg \\
        --table intensity.csv --settings '{"per_class": 10, "protein_channel": "green", "minimum_positive_groups": 5}'
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from workflow_scripts.lib.base import arguments, stage
from workflow_scripts.lib.base.files import atomic
from workflow_scripts.lib.images.image_set import ImageSet
from workflow_scripts.lib.page import figure_style, image_strips
from workflow_scripts.lib.page.figure_style import CYCLE, GRID, INK, MUTED, THEME
from workflow_scripts.lib.page.sections import data_section
from workflow_scripts.lib.page.sections.data_section import Data

BLUE, PALE = THEME["blue"][0], THEME["sky"][0]
# A channel that is called by a colour is drawn in it.
NAMED = {"red": "vermilion", "green": "green", "blue": "blue", "yellow": "ochre", "magenta": "purple", "cyan": "sky"}
CHANNEL_COLOURS = {name: THEME[shown][0] for name, shown in NAMED.items()}
SAMPLED = 2000  # images whose pixels are counted, evenly spaced over the set
BLOCK = 200  # of these in memory at a time
COLUMNS = ["channel", *(name for name, _, _ in data_section.INTENSITY)]
FIGURES = ("classes", "cooccurrence", "groups", "intensity", "samples")


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    p = arguments.parser(__doc__)
    p.add_argument("--images", type=Path, required=True, help="the image set")
    p.add_argument("--folds", nargs="+", required=True, metavar="REPEAT=CSV", help="each repeat's table of roles")
    for name in FIGURES:
        p.add_argument(f"--{name}", type=Path, required=True, help=f"figure to write: {name}")
    p.add_argument("--table", type=Path, required=True, help="statistics of the pixel values to write (CSV)")
    return p.parse_args(argv)


def plot_data(args: argparse.Namespace) -> None:
    """Draw and save all figures, and the table."""
    settings = args.settings
    data = data_section.read(args.images, data_section.numbered(args.folds))
    with ImageSet(args.images) as source:
        counts = pixel_counts(source)
        rows = samples(source, data, settings["per_class"])
    with atomic(args.table) as part:
        pd.DataFrame(statistics(counts, data.channels), columns=COLUMNS).to_csv(part, index=False, float_format="%.6g")
    with figure_style.style():
        figure_style.save(draw_classes(data, settings["minimum_positive_groups"]), args.classes)
        figure_style.save(draw_cooccurrence(data), args.cooccurrence)
        figure_style.save(draw_groups(data.groups), args.groups)
        figure_style.save(draw_intensity(counts, data.channels), args.intensity)
        figure_style.save(draw_samples(rows, data.channels, settings), args.samples)


def pixel_counts(source: ImageSet) -> np.ndarray:
    """How many pixels have each value, channel by channel: int (C, 256)."""
    chosen = np.unique(np.linspace(0, len(source) - 1, min(SAMPLED, len(source))).astype(np.int64))
    out = np.zeros((len(source.channels), 256), dtype=np.int64)
    for start in range(0, len(chosen), BLOCK):
        images = source.read(chosen[start : start + BLOCK], "inspect").images
        for channel in range(len(out)):
            out[channel] += np.bincount(images[:, channel].ravel(), minlength=256)
    return out


def statistics(counts: np.ndarray, channels: list[str]) -> list[dict[str, Any]]:
    """Mean, deviation, percentiles, and the shares at either end, of every channel."""
    values, out = np.arange(256), []
    for name, own in zip(channels, counts, strict=True):
        fraction = own / max(1, own.sum())
        mean = float(fraction @ values)
        row = {"channel": name, "mean": mean, "deviation": float(np.sqrt(fraction @ (values - mean) ** 2))}
        row |= {f"p{p}": int(np.searchsorted(np.cumsum(fraction), p / 100 - 1e-12)) for p in (1, 50, 99)}
        out.append(row | {"black": float(fraction[0]), "saturated": float(fraction[255])})
    return out


def samples(source: ImageSet, data: Data, count: int) -> list[tuple[str, np.ndarray]]:
    """The first images of every class by id (title, images (n, C, H, W))."""
    out = []
    for k, name in enumerate(data.classes):
        target = np.eye(len(data.classes), dtype=np.uint8)[k]
        rows = image_strips.choose(data.labels, target, source.ids, source.groups, count)
        if len(rows):
            out.append((name, source.read(rows, "inspect").images))
    return out


def draw_classes(data: Data, minimum: int) -> Figure:
    """Images of every class on the left; its groups on the right, those tested in some fold filled."""
    tested, (_, member) = data_section.tested_groups(data), np.unique(data.groups, return_inverse=True)
    groups, images = data_section.groups_with(data.labels, member), data.labels.sum(axis=0)
    left = figure_style.label_column(data.classes, 8.0)
    row, top, gap = 0.19, 0.46, 0.42
    width = (figure_style.WIDTH - left - gap - 0.34) / 2
    height = row * max(1, len(data.classes))
    fig = figure_style.figure(top + height + 0.42)
    places = np.arange(len(data.classes))
    length = int((left - 0.1) * 72 / (0.62 * 8.0))
    for side, (title, values) in enumerate((("images", images), ("groups", groups))):
        axes = figure_style.inches(fig, left + side * (width + gap), top, width, height)
        axes.barh(places, values, height=0.62, color=PALE if side else MUTED, lw=0)
        if side:
            axes.barh(places, tested, height=0.62, color=BLUE, lw=0)
        for place, value in enumerate(values):
            axes.annotate(
                f"{value:,}", (value, place), (3, 0), textcoords="offset points", va="center", fontsize=6.8, color=MUTED
            )
        axes.set_xlim(0, max(1, values.max(initial=1)) * 1.02)
        axes.set_ylim(len(places) - 0.5, -0.5)
        axes.set_yticks(places, [figure_style.fit(name, length) for name in data.classes] if not side else [])
        axes.tick_params(axis="y", length=0)
        axes.xaxis.set_major_locator(MaxNLocator(3, integer=True))
        axes.xaxis.set_major_formatter("{x:,.0f}")
        axes.spines["left"].set_visible(False)
        axes.set_title(title)
        for label, enough in zip(axes.get_yticklabels(), tested >= minimum, strict=False):
            label.set_color(INK if enough else MUTED)
    handles = [Line2D([], [], color=colour, lw=5, solid_capstyle="butt") for colour in (BLUE, PALE)]
    names = ["tested in some fold", "never tested"]
    fig.legend(handles, names, loc="upper right", ncols=2, handlelength=0.9, borderaxespad=0.1, columnspacing=1.2)
    return fig


def draw_cooccurrence(data: Data) -> Figure:
    """Of the images with the class of a row, the share that also has the class of a column: the darker, the more."""
    both, fraction = data_section.cooccurrence(data.labels)
    number = len(data.classes)
    left = figure_style.label_column(data.classes, 7.5, most=1.75)
    length = int((left - 0.08) * 72 / (0.62 * 7.5))
    cell = min(0.34, (figure_style.WIDTH - left - 0.05) / max(1, number))
    top = left  # the names of the columns stand upright and need as much
    fig = figure_style.figure(top + cell * number + 0.12)
    axes = figure_style.inches(fig, left, top, cell * number, cell * number)
    size = min(8.0, 72 * cell * 0.82, 7.5)
    for row in range(number):
        for column in range(number):
            if row == column:
                axes.plot(column, row, marker="o", ms=max(1.5, 8 * cell), color=GRID, mew=0)
                continue
            if not both[row, column]:
                continue
            # Colour with opacity, so that the figure follows a dark page.
            opacity = float(0.08 + 0.92 * fraction[row, column])
            axes.add_patch(Rectangle((column - 0.5, row - 0.5), 1, 1, facecolor=BLUE, alpha=opacity, lw=0))
            if cell > 0.25:
                strong = fraction[row, column] > 0.55
                text = f"{100 * fraction[row, column]:.0f}"
                axes.text(
                    column,
                    row,
                    text,
                    ha="center",
                    va="center",
                    fontsize=6.8,
                    color=THEME["paper"][0] if strong else INK,
                )
    axes.set_xlim(-0.5, number - 0.5)
    axes.set_ylim(number - 0.5, -0.5)
    names = [figure_style.fit(name, length) for name in data.classes]
    axes.set_yticks(range(number), names, fontsize=size)
    axes.set_xticks(range(number), names, rotation=90, fontsize=size)
    axes.xaxis.tick_top()
    axes.tick_params(length=0, pad=2)
    for spine in axes.spines.values():
        spine.set_visible(False)
    return fig


def draw_groups(names: np.ndarray) -> Figure:
    """Groups by their number of images."""
    rows = data_section.group_sizes(names)
    fig = figure_style.figure(1.75)
    axes = figure_style.inches(fig, 0.55, 0.22, figure_style.WIDTH - 0.65, 0.95)
    places = np.arange(len(rows))
    axes.bar(places, [row["groups"] for row in rows], width=0.72, color=BLUE, lw=0)
    for place, row in enumerate(rows):
        axes.annotate(
            f"{row['groups']:,}", (place, row["groups"]), (0, 2), textcoords="offset points", ha="center",
            fontsize=6.8, color=MUTED,
        )  # fmt: skip
    short = [row["size"].replace(" to ", "–").replace(" or more", "+") for row in rows]
    axes.set_xticks(places, short, fontsize=7.2 if len(rows) > 8 else 8.0, rotation=30 if len(rows) > 10 else 0)
    axes.tick_params(axis="x", length=0)
    axes.yaxis.set_major_locator(MaxNLocator(3, integer=True))
    axes.set_ylabel("groups")
    axes.set_xlabel("images in a group")
    return fig


def draw_intensity(counts: np.ndarray, channels: list[str]) -> Figure:
    """Share of the pixels by value, one line a channel, on a logarithmic axis."""
    rows = -(-len(channels) // 4)
    fig = figure_style.figure(2.05 + 0.16 * rows)
    axes = figure_style.inches(fig, 0.8, 0.12, figure_style.WIDTH - 0.95, 1.45)
    handles = []
    for index, (name, own) in enumerate(zip(channels, counts, strict=True)):
        colour = CHANNEL_COLOURS.get(name.lower(), CYCLE[index % len(CYCLE)])
        look = {"color": colour, "ls": ("-", (0, (4, 1.2)), (0, (1, 1)))[index // len(CYCLE) % 3]}
        # Four values at a time, as single ones are ragged; a logarithmic axis has no place for none at all.
        fraction = own.reshape(64, 4).sum(axis=1) / max(1, own.sum())
        axes.plot(np.arange(64) * 4 + 1.5, np.where(fraction > 0, fraction, np.nan), **look)
        handles.append(Line2D([], [], label=name, **look))
    axes.set_yscale("log")
    axes.minorticks_off()
    axes.yaxis.set_major_formatter("{x:g}")
    axes.grid(True, axis="y", color=GRID)
    axes.set_xlim(0, 255)
    axes.set_xticks([0, 64, 128, 192, 255])
    axes.set_xlabel("pixel value")
    axes.set_ylabel("share of pixels")
    fig.legend(handles=handles, loc="lower left", bbox_to_anchor=(0.01, 0.0), ncols=4, handlelength=1.6)
    return fig


def draw_samples(rows: list[tuple[str, np.ndarray]], channels: list[str], settings: dict[str, Any]) -> Figure:
    """A row of images a class: all channels in colour above, the protein channel alone below."""
    count, protein = settings["per_class"], image_strips.protein_index(channels, settings["protein_channel"])
    left = 1.08
    wide = figure_style.WIDTH - left - 0.04
    tile = wide / count
    double = len(channels) > 1
    pitch = tile * (2 if double else 1) + 0.09
    fig = figure_style.figure(0.06 + max(1, len(rows)) * pitch)
    scale = image_strips.brightest([images for _, images in rows], len(channels)) if rows else np.ones(len(channels))
    for line, (title, images) in enumerate(rows):
        top = 0.03 + line * pitch
        fig.text(
            0,
            1 - (top + 0.03) / fig.get_figheight(),
            image_strips.wrap(title),
            va="top",
            fontsize=7.5,
            linespacing=1.15,
        )
        colours = image_strips.strip(image_strips.compose(images, channels, scale), count)
        image_strips.show(figure_style.inches(fig, left, top, wide, tile), colours)
        if double:
            alone = image_strips.strip(image_strips.grey(images, protein, scale), count)
            image_strips.show(figure_style.inches(fig, left, top + tile, wide, tile), alone)
    return fig


def main(argv: list[str] | None = None) -> int:
    """The program."""
    args = parse_args(argv)
    return stage.run("plot_data", args, lambda: plot_data(args))


if __name__ == "__main__":
    sys.exit(main())
