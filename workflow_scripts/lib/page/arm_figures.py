"""Figures of the arms: forest plot, class by class, and validation against test."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from workflow_scripts.lib.page import arm_categories, figure_style, run_tables
from workflow_scripts.lib.page.figure_style import BAND, GAIN, GRID, INK, LOSS, MUTED, PAPER
from workflow_scripts.lib.page.run_tables import METRIC_NAMES, SHORT_NAMES, Difference, Results

ROW = 0.22  # inches a row of a forest plot
INTERVAL = 1.66  # inches for an estimate and its interval in words
HEADING = 0.9  # rows that a heading takes
TICK = 0.5  # inches from one number of an axis to the next, at least
NAME = 27  # letters of an arm's name that are shown
CLASS_ROW = 0.175
STEPS = (1, 1.5, 2, 2.5, 3, 4, 5, 6, 8)  # of a tick, times a power of ten
FACETS = 3  # columns of small multiples
UNCHANGED = 0.0005  # a smaller change is none


def by_category(results: Results, config: dict[str, Any]) -> list[tuple[str, list[list[str]]]]:
    """Groups of arms by category; the category of the primary arm comes first.

    Arms of several categories may share a control: it stands with those of the first category."""
    entries = {entry["name"]: entry for entry in config.get("arms", [])}
    synthetic_sets = {synthetic_set["name"]: synthetic_set for synthetic_set in config.get("synthetic_sets", [])}
    order = arm_categories.CATEGORIES.index

    def category(arm: str) -> str:
        return arm_categories.category(entries.get(arm, {}), synthetic_sets)

    sections: dict[str, list[list[str]]] = {}
    for group in results.groups():
        members, control = (group[:-1], group[-1:]) if len(group) > 1 else (group, [])
        parts: dict[str, list[str]] = {}
        for arm in members:
            parts.setdefault(category(arm), []).append(arm)
        parts[min(parts, key=order)] += control
        for name, part in parts.items():
            sections.setdefault(name, []).append(part)
    first = category(results.primary) if sections else None
    return sorted(sections.items(), key=lambda item: (item[0] != first, order(item[0])))


def draw_forest(results: Results, config: dict[str, Any]) -> Figure:
    """Differences to the baseline in the primary metric: an arm is a disc, its control a ring beneath it. Rivals that
    know real images alone, placebos and ceilings have headings of their own."""
    # Arms with fewer real images answer another question, and would stretch the axis: they have a figure of their own.
    curve = results.facts.get("worth") or {"points": [], "images": 0}
    fewer = {point["arm"] for point in curve["points"] if point["images"] < curve["images"]}
    sections = []
    for category, groups in by_category(results, config):
        shown = [[arm for arm in group if results.difference(arm) and arm not in fewer] for group in groups]
        sections += [(category, kept)] if (kept := [group for group in shown if group]) else []
    serving = set(results.controls.values())
    groups = [group for _, kept in sections for group in kept]
    rows = sum(map(len, groups)) + (HEADING * len(sections) if len(sections) > 1 else 0)
    # Rows of a group stand together; a third of a row parts the groups.
    height = (rows + 0.35 * max(0, len(groups) - 1) + 0.6) * ROW
    fig = figure_style.figure(height + 0.84)
    headings = [category for category, _ in sections] if len(sections) > 1 else []
    left = figure_style.label_column([arm for group in groups for arm in group] + headings)
    wide = figure_style.WIDTH - left - INTERVAL
    axes = figure_style.inches(fig, left, 0.12, wide, height)
    place, ticks = 0.0, []
    for category, kept in sections:
        if len(sections) > 1:
            look = {"transform": axes.get_yaxis_transform(), "va": "center", "ha": "right", "fontsize": 7.4}
            axes.text(-0.03, place, category, color=MUTED, style="italic", **look)
            place += HEADING
        for group in kept:
            for arm in group:
                difference = results.difference(arm)
                draw_interval(axes, place, difference, arm in serving)
                ticks.append((place, arm, arm in serving, difference))
                place += 1
            place += 0.35
    # Width of the band that nobody would care about.
    small = results.smallest_effect
    axes.axvspan(-small, small, color=BAND, lw=0, zorder=0)
    axes.axvline(0, color=MUTED, lw=0.8, zorder=1)
    axes.set_ylim(max(place - 0.35, 1) - 0.2, -0.8)
    for position, arm, control, difference in ticks:
        colour = MUTED if control else INK
        look = {"transform": axes.get_yaxis_transform(), "va": "center", "color": colour}
        weight = "bold" if arm == results.primary else "normal"
        axes.text(-0.03, position, figure_style.fit(arm, NAME), ha="right", weight=weight, **look)
        text = f"{figure_style.signed(difference.value)} ({figure_style.span(difference.low, difference.high)})"
        axes.text(1.04, position, text, ha="left", fontsize=7.4, **look)
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    axes.xaxis.set_major_locator(MaxNLocator(min(5, int(wide / TICK)), symmetric=False))
    what = METRIC_NAMES.get(results.metric, results.metric)
    axes.set_xlabel(f"difference in {what} from {results.compared_with}")
    _forest_legend(fig, results, bool(serving))
    return fig


def draw_interval(axes: Axes, place: float, difference: Difference, control: bool) -> None:
    """One row: the interval as a line (dashed outside the declared family) and the estimate upon it."""
    colour = MUTED if control else figure_style.shade(difference)
    line = "-" if difference.in_family else (0, (2, 1.5))
    axes.plot([difference.low, difference.high], [place, place], color=colour, ls=line, solid_capstyle="butt")
    face = PAPER if control else colour
    axes.plot(difference.value, place, "o", mfc=face, mec=colour, mew=1.2, ms=4.5, zorder=3)


def _forest_legend(fig: Figure, results: Results, controls: bool) -> None:
    percent = f"{100 * results.confidence:g} % interval"
    handles = [Line2D([], [], color=INK, marker="o", label=f"arm, {percent}")]
    if controls:
        handles.append(Line2D([], [], color=MUTED, marker="o", mfc=PAPER, label="its control"))
    if results.smallest_effect:
        handles.append(Patch(color=BAND, label=f"below the smallest effect of interest, {results.smallest_effect:g}"))
    fig.legend(
        handles=handles, loc="lower left", bbox_to_anchor=(0.01, 0.0), ncols=3, handlelength=1.6, columnspacing=1.2
    )


def draw_classes(results: Results) -> Figure:
    """Small multiples: one arm each, one row a judged class, the change against the baseline with its interval."""
    metric = run_tables.BY_CLASS.get(results.metric, "f1")
    arms = [arm for group in results.groups() for arm in group if results.difference(arm)]
    kinds = results.judged
    lines = -(-max(1, len(arms)) // FACETS)
    panel = (len(kinds) + 0.6) * CLASS_ROW
    label, gap = 1.25, 0.1
    wide = (figure_style.WIDTH - label - 0.08 - gap * (FACETS - 1)) / FACETS
    pitch = panel + 0.58
    fig = figure_style.figure(0.04 + lines * pitch + 0.38)
    changes = {(arm, kind): results.difference(arm, metric=metric, kind=kind) for arm in arms for kind in kinds}
    limit = max(_limit([change for change in changes.values() if change]), 1.5 * results.smallest_effect)
    step = _round_step(limit)
    for index, arm in enumerate(arms):
        line, column = divmod(index, FACETS)
        axes = figure_style.inches(fig, label + column * (wide + gap), 0.34 + line * pitch, wide, panel)
        axes.axvline(0, color=MUTED, lw=0.8, zorder=1)
        axes.axvspan(-results.smallest_effect, results.smallest_effect, color=BAND, lw=0, zorder=0)
        for row, kind in enumerate(kinds):
            _class_row(axes, row, changes[arm, kind], limit, (1 - results.confidence) if results.confirms else -1.0)
        axes.set_xlim(-limit, limit)
        axes.set_ylim(len(kinds) - 0.3, -0.7)
        axes.set_xticks([-step, 0, step], [f"{value:g}".replace("-", "−") for value in (-step, 0, step)])
        axes.set_title(_two_lines(arm, 22), fontsize=8.0, fontweight="normal", pad=3, linespacing=1.1)
        axes.set_yticks(range(len(kinds)), [figure_style.fit(kind, 20) for kind in kinds] if column == 0 else [])
        axes.tick_params(axis="y", length=0, labelsize=8.0)
        axes.tick_params(axis="x", labelsize=8.0)
        axes.spines["left"].set_visible(False)
    name = SHORT_NAMES.get(metric, metric)
    high, left = fig.get_figheight(), label / figure_style.WIDTH
    fig.text(left, 0.22 / high, f"change in {name} of the class against {results.compared_with}")
    if results.unjudged:
        fig.text(
            left,
            0.05 / high,
            figure_style.fit(f"not judged: {', '.join(results.unjudged)}", 76),
            fontsize=7,
            color=MUTED,
        )
    return fig


def _class_row(axes: Axes, row: int, change: Difference | None, limit: float, false: float) -> None:
    axes.axhline(row, color=GRID, lw=0.5, zorder=0.5)
    if change is None or np.isnan(change.value):
        return
    # Others are drawn thin and without colour: nothing is claimed about these classes, nor from one repeat.
    clear = change.q <= false and abs(change.value) >= UNCHANGED
    colour = MUTED if not clear else GAIN if change.value > 0 else LOSS
    ends = np.clip([change.low, change.high], -limit, limit)
    axes.plot(ends, [row, row], color=colour, lw=1.6 if clear else 0.8, solid_capstyle="butt")
    axes.plot(
        np.clip(change.value, -limit, limit),
        row,
        "o",
        ms=3.6,
        mfc=colour if clear else PAPER,
        mec=colour,
        mew=0.9,
        zorder=3,
    )


def _limit(changes: list[Difference]) -> float:
    # Wide enough for 95 % of the ends: one wild interval must not flatten all the others.
    ends = np.abs([end for change in changes for end in (change.low, change.high) if np.isfinite(end)])
    values = np.abs([change.value for change in changes if np.isfinite(change.value)])
    widest = max(float(np.quantile(ends, 0.95)) if len(ends) else 0.0, float(values.max(initial=0.0)))
    return 1.08 * widest or 0.1


def _round_step(limit: float) -> float:
    """The largest round number within three quarters of the axis: farther from zero, numbers have room."""
    power = 10.0 ** np.floor(np.log10(0.75 * limit))
    return float(max(factor * power for factor in STEPS if factor * power <= 0.75 * limit))


def _two_lines(name: str, length: int) -> str:
    """A long arm's name broken after an underscore, as near to its middle as can be."""
    cuts = [index + 1 for index, letter in enumerate(name[:-1]) if letter == "_"]
    if len(name) <= length or not cuts:
        return figure_style.fit(name, length)
    cut = min(cuts, key=lambda place: (max(place, len(name) - place), -place))
    return f"{figure_style.fit(name[:cut], length)}\n{figure_style.fit(name[cut:], length)}"


def draw_gap(results: Results) -> Figure:
    """Validation score (ring) and test score (disc) of each arm; the line between them is the gap."""
    arms = [results.baseline] + [arm for group in results.groups() for arm in group]
    arms = [arm for arm in arms if np.isfinite(results.score(arm, results.metric))]
    shown = list(dict.fromkeys([results.metric, "macro_f1", "map"]))[:2]
    height = (len(arms) + 0.4) * ROW
    fig = figure_style.figure(height + 1.0)
    left = figure_style.label_column(arms, 8.0)
    wide = (figure_style.WIDTH - left - 0.22) / len(shown)
    for index, metric in enumerate(shown):
        axes = figure_style.inches(fig, left + index * (wide + 0.1), 0.28, wide, height)
        axes.margins(x=0.08)
        for row, arm in enumerate(arms):
            held, seen = results.score(arm, metric), results.score(arm, metric, "validation")
            axes.axhline(row, color=GRID, lw=0.5, zorder=0.5)
            axes.plot([held, seen], [row, row], color=MUTED, lw=1.2, zorder=2)
            axes.plot(seen, row, "o", mfc=PAPER, mec=MUTED, mew=1.2, zorder=3)
            axes.plot(held, row, "o", color=GAIN, zorder=4)
        # The chance level of average precision is the fraction of positives.
        chance = results.score(results.baseline, "prevalence") if metric == "map" else np.nan
        if np.isfinite(chance):
            axes.axvline(chance, color=MUTED, lw=0.8, ls=(0, (1, 2)))
            # The word stands on the side with more room.
            right = chance < np.mean(axes.get_xlim())
            axes.text(
                chance, -0.62, " chance ", fontsize=6.5, color=MUTED, va="center", ha="left" if right else "right"
            )
        axes.set_ylim(len(arms) - 0.4, -0.9)
        axes.set_yticks(range(len(arms)), [figure_style.fit(arm, NAME) for arm in arms] if index == 0 else [])
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
        axes.xaxis.set_major_locator(MaxNLocator(4))
        axes.set_title(SHORT_NAMES.get(metric, metric))
    handles = [
        Line2D([], [], ls="", marker="o", mfc=PAPER, mec=MUTED, mew=1.2, label="validation part"),
        Line2D([], [], ls="", marker="o", color=GAIN, label="test part (unseen groups)"),
    ]
    fig.legend(handles=handles, loc="lower left", bbox_to_anchor=(0.01, 0.0), ncols=2, handlelength=1.2)
    return fig
