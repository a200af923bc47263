"""Figures of the training of generators and classifiers, by optimiser step."""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, MaxNLocator

from workflow_scripts.lib.page import figure_style
from workflow_scripts.lib.page.figure_style import CYCLE, GRID, INK, MUTED

# The quantities of a classifier's history that are drawn, in this order, where they are there.
SHOWN = {
    "loss": "training loss",
    "validation_map": "validation mAP",
    "validation_macro_f1": "validation macro-F1",
}
CONTROL = (0, (2, 1.2))
DASHES = ("-", (0, (6, 1.2)), (0, (6, 1.2, 1, 1.2)), (0, (0.8, 1.6)))  # of arms of one colour


def draw_generators(courses: pd.DataFrame) -> Figure:
    """Loss by step on logarithmic axes: one thin line a fold, one colour a generator."""
    folds = courses.drop_duplicates(["name", "repeat", "fold"])["name"].value_counts(sort=False).sort_index()
    labels = [
        f"{figure_style.fit(str(name), figure_style.LEGEND_NAME - 11)} ({count} fold{'s' if count > 1 else ''})"
        for name, count in folds.items()
    ]
    columns = figure_style.legend_columns(labels, 4)
    fig = figure_style.figure(2.32 + 0.18 * -(-len(labels) // columns))
    axes = figure_style.inches(fig, 0.62, 0.12, figure_style.WIDTH - 0.75, 1.7)
    if not len(courses):
        return _nothing(fig, axes, "No generator was trained.")
    handles = []
    for index, (label, name) in enumerate(zip(labels, folds.index, strict=True)):
        colour = CYCLE[index % len(CYCLE)]
        for _, course in courses[courses["name"] == name].groupby(["repeat", "fold"]):
            axes.plot(course["step"], figure_style.smooth(course["value"], 0.05), color=colour, lw=1.0, alpha=0.85)
        handles.append(Line2D([], [], color=colour, label=label))
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.grid(True, which="major", color=GRID)
    narrow = courses["value"].max() < 8 * courses["value"].min()
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 1.5, 2, 3, 4, 6, 8) if narrow else (1, 2, 5)))
    axes.minorticks_off()
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter("{x:g}")
    axes.set_xlabel("optimiser step")
    axes.set_ylabel("training loss")
    fig.legend(handles=handles, loc="lower left", bbox_to_anchor=(0.01, 0.0), ncols=columns, handlelength=1.6)
    return fig


def draw_classifiers(courses: pd.DataFrame, controls: dict[str, str]) -> Figure:
    """One panel a quantity: the mean over folds of each arm; a control has the colour of its arm."""
    quantities = [name for name in SHOWN if (courses["quantity"] == name).any()]
    names = list(dict.fromkeys(courses["name"]))
    columns = figure_style.legend_columns(names)
    rows = -(-len(names) // columns)
    panel = 1.5
    fig = figure_style.figure(max(1, len(quantities)) * (panel + 0.42) + 0.42 + 0.16 * rows)
    looks = line_looks(names, controls)
    if not quantities:
        return _nothing(fig, figure_style.inches(fig, 0.6, 0.2, 4.6, panel), "No classifier left a history.")
    for index, quantity in enumerate(quantities):
        axes = figure_style.inches(fig, 0.62, 0.24 + index * (panel + 0.42), figure_style.WIDTH - 0.75, panel)
        shown = courses[courses["quantity"] == quantity]
        for name in names:
            mean = shown[shown["name"] == name].groupby("step", as_index=False)["value"].mean()
            values = figure_style.smooth(mean["value"].to_numpy(), 0.05 if quantity == "loss" else 0.0)
            marker = "." if len(values) <= 30 and quantity != "loss" else ""
            axes.plot(mean["step"], values, marker=marker, ms=4, **looks[name])
        axes.grid(True, axis="y", color=GRID)
        axes.set_title(SHOWN[quantity])
        axes.yaxis.set_major_locator(MaxNLocator(4))
        axes.xaxis.set_major_locator(MaxNLocator(7, integer=True))
        if index == len(quantities) - 1:
            axes.set_xlabel("optimiser step")
        else:
            axes.tick_params(axis="x", labelbottom=False)
    handles = [Line2D([], [], label=figure_style.fit(name, figure_style.LEGEND_NAME), **looks[name]) for name in names]
    place = {"loc": "lower left", "bbox_to_anchor": (0.01, 0.0)}
    fig.legend(handles=handles, **place, ncols=columns, handlelength=figure_style.LEGEND_LINE, columnspacing=1.2)
    return fig


def line_looks(names: list[str], controls: dict[str, str]) -> dict[str, dict]:
    """Colour, dashes and width by name: arms with one control share its colour, and it has short dashes; arms without
    are ink or grey. Where there are more arms than colours or dashes, these begin anew with thicker lines."""
    serving = list(dict.fromkeys(controls[name] for name in names if controls.get(name) in names))
    colours = {control: (CYCLE[index % len(CYCLE)], index // len(CYCLE)) for index, control in enumerate(serving)}
    looks: dict[str, dict] = {}
    seen: dict[str | None, int] = {}
    for name in names:
        if name in colours:
            colour, turn = colours[name]
            looks[name] = {"color": colour, "ls": CONTROL, "lw": 1.1 + turn}
            continue
        control = controls.get(name) if controls.get(name) in colours else None
        earlier = seen.get(control, 0)
        seen[control] = earlier + 1
        if control is not None:
            colour, turn = colours[control]
            looks[name] = {"color": colour, "ls": DASHES[earlier % len(DASHES)], "lw": 1.4 + turn}
        elif not earlier:
            looks[name] = {"color": INK, "ls": "-", "lw": 1.7}
        else:
            turn, place = divmod(earlier - 1, len(DASHES))
            looks[name] = {"color": MUTED, "ls": DASHES[place], "lw": 1.3 + turn}
    return looks


def _nothing(fig: Figure, axes: Axes, text: str) -> Figure:
    axes.axis("off")
    axes.text(0.5, 0.5, text, ha="center", va="center", color=MUTED, transform=axes.transAxes)
    return fig
