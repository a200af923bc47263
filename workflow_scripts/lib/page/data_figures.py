"""Figures of the images of a run: classes, co-occurrence, groups, intensities and a contact sheet."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from workflow_scripts.lib.images import colour_choices
from workflow_scripts.lib.page import figure_style, image_legend, image_strips
from workflow_scripts.lib.page.figure_style import GRID, INK, MUTED, THEME
from workflow_scripts.lib.page.image_legend import Legend
from workflow_scripts.lib.page.intensity_histograms import EDGES, RAW_EDGES, IntensityHistograms
from workflow_scripts.lib.page.pictures import Chosen
from workflow_scripts.lib.page.sections import data_section
from workflow_scripts.lib.page.sections.data_section import Data

BLUE, PALE = THEME["blue"][0], THEME["sky"][0]
# Colours of channels that have a counterpart among those of the figures.
NAMED = {"red": "vermilion", "green": "green", "blue": "blue", "yellow": "ochre", "magenta": "purple", "cyan": "sky",
         "grey": "muted"}  # fmt: skip


def channel_colours(channels: list[str], chosen: Chosen) -> list[str]:
    """Colours in which channels are drawn, those of their pictures, fit for light and for dark pages."""
    told = colour_choices.colours_of(channels, chosen)
    return [THEME[NAMED[name]][0] if name in NAMED else colour_choices.on_any_page(name) for name in told]


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
    names = ["tested in a repeat", "others"]
    fig.legend(handles, names, loc="upper right", ncols=2, handlelength=0.9, borderaxespad=0.1, columnspacing=1.2)
    return fig


def draw_cooccurrence(data: Data) -> Figure:
    """Of the images with the class of a row, the fraction that also has the class of a column; darker is more."""
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


def draw_intensity(counts: np.ndarray, channels: list[str], chosen: Chosen = None) -> Figure:
    """Fraction of the pixels by value, one line a channel, on a logarithmic axis."""
    rows = -(-len(channels) // 4)
    fig = figure_style.figure(2.05 + 0.16 * rows)
    axes = figure_style.inches(fig, 0.8, 0.12, figure_style.WIDTH - 0.95, 1.45)
    handles, drawn = [], Counter()
    for name, colour, own in zip(channels, channel_colours(channels, chosen), counts, strict=True):
        # Channels of one colour differ by their lines.
        look = {"color": colour, "ls": ("-", (0, (4, 1.2)), (0, (1, 1)))[drawn[colour] % 3]}
        drawn[colour] += 1
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
    axes.set_ylabel("fraction of pixels")
    fig.legend(handles=handles, loc="lower left", bbox_to_anchor=(0.01, 0.0), ncols=4, handlelength=1.6)
    return fig


def draw_histograms(shown: IntensityHistograms, chosen: Chosen = None) -> Figure:
    """A block a channel: for each value of the column a row with its intensities before and after normalisation."""
    both, count, size = bool(shown.before.any()), len(shown.values), 7.5
    names = [figure_style.fit(value or "(unknown)", 16) for value in shown.values]
    left, row, gap, head = figure_style.label_column(names, size, most=1.3), 0.17, 0.22, 0.24
    width = (figure_style.WIDTH - left - gap - 0.1) / 2 if both else figure_style.WIDTH - left - 0.1
    block = head + row * count + 0.3
    fig = figure_style.figure(block * max(1, len(shown.channels)))
    colours = channel_colours(shown.channels, chosen)
    for channel, (name, colour) in enumerate(zip(shown.channels, colours, strict=True)):
        sides = [(shown.before, np.r_[RAW_EDGES[1] / 1.1, RAW_EDGES[2:]], "before")] if both else []
        sides.append((shown.after, (EDGES[1:] + EDGES[:-1]) / 2, "after"))
        for side, (counts, places, title) in enumerate(sides):
            top = channel * block + head
            axes = figure_style.inches(fig, left + side * (width + gap), top, width, row * count)
            for place, own in enumerate(counts[:, channel]):
                heights = 0.88 * own / max(1, own.max())
                axes.fill_between(places, place + 0.5 - heights, place + 0.5, color=colour, lw=0)
            axes.set_ylim(count - 0.5, -0.5)
            axes.set_yticks(range(count), names if not side else [], fontsize=size)
            axes.tick_params(axis="y", length=0)
            axes.spines["left"].set_visible(False)
            axes.set_xlim(places[0], places[-1])
            if title == "before":
                used = np.flatnonzero(counts.any(axis=(0, 1)))
                axes.set_xlim(places[used[0]] / 1.5, places[used[-1]])
                axes.set_xscale("log")
                axes.minorticks_off()
                axes.set_xticks([100, 1000, 10_000], ["100", "1,000", "10,000"])
            else:
                axes.set_xticks([0, 64, 128, 192, 255])
            axes.set_title(f"{name}, {title}", loc="left", fontsize=8)
    return fig


def draw_samples(
    rows: list[tuple[str, np.ndarray]], channels: list[str], settings: dict[str, Any], legend: Legend
) -> Figure:
    """A row of images a class: all channels in colour above, the protein channel alone below."""
    count, protein = settings["per_class"], image_strips.protein_index(channels, settings["protein_channel"])
    left = 1.08
    wide = figure_style.WIDTH - left - 0.04
    tile = wide / count
    double = len(channels) > 1
    pitch = tile * (2 if double else 1) + 0.09
    head = image_legend.height(legend)
    fig = figure_style.figure(head + 0.06 + max(1, len(rows)) * pitch)
    image_legend.draw(fig, legend, tile)
    scale = image_strips.brightest([images for _, images in rows], len(channels)) if rows else np.ones(len(channels))
    for line, (title, images) in enumerate(rows):
        top = head + 0.03 + line * pitch
        fig.text(
            0,
            1 - (top + 0.03) / fig.get_figheight(),
            image_strips.wrap(title),
            va="top",
            fontsize=7.5,
            linespacing=1.15,
        )
        shown = image_strips.compose(images, channels, scale, settings.get("colours"))
        image_strips.show(figure_style.inches(fig, left, top, wide, tile), image_strips.strip(shown, count))
        if double:
            alone = image_strips.strip(image_strips.grey(images, protein, scale), count)
            image_strips.show(figure_style.inches(fig, left, top + tile, wide, tile), alone)
    return fig
