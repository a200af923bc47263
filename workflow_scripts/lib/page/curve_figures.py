"""Figures of gain by fidelity, ratio and guidance (numbers: `sections.curves_section`), and the learning curve."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator, NullLocator

from workflow_scripts.lib.page import figure_style
from workflow_scripts.lib.page.figure_style import BAND, CYCLE, GAIN, GRID, INK, MUTED, PAPER
from workflow_scripts.lib.page.run_tables import SHORT_NAMES, Difference, Results
from workflow_scripts.lib.page.sections import curves_section
from workflow_scripts.lib.page.sections.curves_section import Point, Sweep

LABEL = 0.176  # inches of height for the name of an arm
ROW = 0.22  # inches of height for an arm on the learning curve


def draw_usefulness(results: Results, points: list[Point]) -> Figure:
    """Difference to the baseline by the fidelity of the synthetic set that an arm learned from, a panel a measure."""
    if not curves_section.enough(points):
        return figure_style.nothing("The arms that were compared learned from fewer than two synthetic sets.")
    # In the panels in the order of the config: sorted, arms of one set would look like a slope.
    listed, points = points, sorted(points, key=lambda point: point.difference.value)
    shades = {
        synthetic_set: CYCLE[index % len(CYCLE)] for index, synthetic_set in enumerate(curves_section.sets_of(listed))
    }
    labels = [f"set {figure_style.fit(synthetic_set, figure_style.LEGEND_NAME - 4)}" for synthetic_set in shades] + [
        "real images"
    ]
    columns = figure_style.legend_columns(labels)
    height, foot = max(2.3, LABEL * len(points)), 0.62 + 0.18 * -(-len(labels) // columns)
    fig = figure_style.figure(height + 0.12 + foot)
    right = figure_style.label_column([point.arm for point in points], 7.4, most=1.5)
    wide = (figure_style.WIDTH - 0.68 - right - 0.3) / len(curves_section.MEASURES)
    for index, measure in enumerate(curves_section.MEASURES):
        axes = figure_style.inches(fig, 0.68 + index * (wide + 0.14), 0.12, wide, height)
        _fidelity_panel(axes, results, listed, measure, shades)
        if index:
            axes.tick_params(labelleft=False)
        else:
            axes.set_ylabel(f"difference in {SHORT_NAMES.get(results.metric, results.metric)}")
    places = figure_style.apart([point.difference.value for point in points], axes, height)
    for point, label in zip(points, places, strict=True):
        bold = {"weight": "bold" if point.arm == results.primary else "normal", "color": shades[point.synthetic_set]}
        look = {"transform": axes.get_yaxis_transform(), "va": "center", "fontsize": 7.4}
        axes.text(1.1, label, figure_style.fit(point.arm, 22), ha="left", **look, **bold)
        axes.plot([1.0, 1.08], [point.difference.value, label], color=GRID, lw=0.6, clip_on=False,
                  transform=axes.get_yaxis_transform())  # fmt: skip
    handles = [
        Line2D([], [], color=colour, marker="o", label=label)
        for label, colour in zip(labels[:-1], shades.values(), strict=True)
    ]
    handles.append(Line2D([], [], color=MUTED, lw=0.8, ls=(0, (1, 2)), label=labels[-1]))
    fig.legend(handles=handles, loc="lower left", bbox_to_anchor=(0.01, 0.0), ncols=columns, handlelength=1.6)
    return fig


def _fidelity_panel(axes: Axes, results: Results, points: list[Point], measure: str, shades: dict[str, str]) -> None:
    axes.axhspan(-results.smallest_effect, results.smallest_effect, color=BAND, lw=0, zorder=0)
    axes.axhline(0, color=MUTED, lw=0.8, zorder=1)
    step = _aside([point.fidelity[measure] for point in points])
    for synthetic_set, colour in shades.items():
        # Arms of one set stand side by side around its value, so that none hides another.
        members = [point for point in points if point.synthetic_set == synthetic_set]
        for index, point in enumerate(members):
            aside = step * (index - (len(members) - 1) / 2)
            _upright(axes, point.fidelity[measure] + aside, point.difference, colour, width=0.9)
    real = [value for point in points if np.isfinite(value := point.fidelity[f"{measure}_real"])]
    if real:
        axes.axvline(np.mean(real), color=MUTED, lw=0.8, ls=(0, (1, 2)), zorder=1)
    axes.margins(x=0.12, y=0.06)
    axes.xaxis.set_major_locator(MaxNLocator(3))
    axes.yaxis.set_major_locator(MaxNLocator(5))
    better = "lower" if measure == "frechet" else "higher"
    axes.set_xlabel(f"{curves_section.MEASURES[measure]}\n({better} is better)")


def _aside(values: list[float]) -> float:
    """How far apart to set marks of equal value, so that they stay nearer to each other than to any others."""
    known, counts = np.unique([value for value in values if np.isfinite(value)], return_counts=True)
    if len(known) < 2:
        return 0.0
    return float(min(0.03 * np.ptp(known), 0.5 * np.diff(known).min() / counts.max()))


def _upright(
    axes: Axes, place: float, difference: Difference, colour: str, control: bool = False, width: float = 1.3
) -> None:
    """An estimate and its interval over a place of the axis; dashed outside the declared family."""
    line = "-" if difference.in_family else (0, (2, 1.5))
    axes.plot([place, place], [difference.low, difference.high], color=colour, ls=line, lw=width,
              solid_capstyle="butt", zorder=2)  # fmt: skip
    axes.plot(place, difference.value, "o", mfc=PAPER if control else colour, mec=colour, mew=1.2, zorder=3)


def draw_sweeps(results: Results, every: list[Sweep]) -> Figure:
    """Difference to the baseline by ratio or by guidance, one panel a set of arms that differ in it alone."""
    if not every:
        return figure_style.nothing("No three arms differ in their ratio alone, or in the guidance of their set alone.")
    height, pitch, left = 1.5, 2.35, 0.86
    fig = figure_style.figure(pitch * len(every) + 0.3)
    for index, curve in enumerate(every):
        axes = figure_style.inches(fig, left, 0.3 + index * pitch, figure_style.WIDTH - left - 0.15, height)
        _sweep_panel(axes, results, curve)
    handles = [Line2D([], [], color=INK, marker="o", label=f"arm, {100 * results.confidence:g} % interval")]
    if any(control for curve in every for control in curve.controls):
        handles.append(Line2D([], [], color=MUTED, marker="o", mfc=PAPER, label="its control"))
    fig.legend(handles=handles, loc="lower left", bbox_to_anchor=(0.01, 0.0), ncols=2, handlelength=1.6)
    return fig


def _sweep_panel(axes: Axes, results: Results, curve: Sweep) -> None:
    axes.axhspan(-results.smallest_effect, results.smallest_effect, color=BAND, lw=0, zorder=0)
    axes.axhline(0, color=MUTED, lw=0.8, zorder=1)
    low, high = curve.values[0], curve.values[-1]
    if curve.of == "ratio":
        axes.set_xscale("log")
    shown = {arm: difference for arm in curve.arms if (difference := results.difference(arm))}
    axes.plot(curve.values, [shown[arm].value for arm in curve.arms], color=GRID, lw=1.2, zorder=1.5)
    for value, arm, control in zip(curve.values, curve.arms, curve.controls, strict=True):
        _upright(axes, value, shown[arm], figure_style.shade(shown[arm]))
        if control and (beside := results.difference(control)):
            # A step aside, the same everywhere, so that neither hides the other.
            aside = value * (high / low) ** 0.018 if curve.of == "ratio" else value + 0.018 * (high - low)
            _upright(axes, aside, beside, MUTED, control=True, width=0.9)
    ticks = sorted(set(curve.values))
    axes.set_xticks(ticks, [f"{value:g}" for value in ticks])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.margins(x=0.05, y=0.08)
    axes.yaxis.set_major_locator(MaxNLocator(5))
    axes.set_title(figure_style.fit(curve.title, 60))
    axes.set_xlabel(curves_section.SWEPT[curve.of])
    axes.set_ylabel(f"difference in\n{SHORT_NAMES.get(results.metric, results.metric)}")


def draw_worth(results: Results) -> Figure:
    """Score by number of real images (discs), and the other arms where the curve has their score (rings)."""
    facts = results.facts.get("worth")
    if not facts:
        return figure_style.nothing("No arm has fewer or more real images than the others.")
    points, placed = facts["points"], sorted(facts["arms"], key=lambda row: row["score"])
    height = max(2.4, ROW * len(placed))
    fig = figure_style.figure(height + 0.9)
    right = figure_style.label_column([row["arm"] for row in placed], most=1.6)
    axes = figure_style.inches(fig, 0.62, 0.12, figure_style.WIDTH - 0.62 - right - 0.12, height)
    axes.set_xscale("log")
    sizes = [point["images"] for point in points]
    axes.plot(sizes, [point["curve"] for point in points], color=INK, zorder=2)
    for point in points:
        axes.plot([point["images"]] * 2, [point["low"], point["high"]], color=INK, lw=0.8, solid_capstyle="butt")
        axes.plot(point["images"], point["score"], "o", color=INK, zorder=3)
    axes.axvline(facts["images"], color=MUTED, lw=0.8, ls=(0, (1, 2)), zorder=1)
    axes.set_xlim(0.93 * min(sizes), 1.07 * max(sizes))
    axes.margins(y=0.08)
    for row, label in zip(placed, figure_style.apart([row["score"] for row in placed], axes, height), strict=True):
        colour = GAIN if row["arm"] == results.primary else MUTED
        axes.axhline(row["score"], color=GRID, lw=0.6, zorder=0.5)
        # On a curve that does not rise a score has no place.
        if facts["rises"]:
            axes.plot([row["images_low"], row["images_high"]], [row["score"]] * 2, color=colour, lw=1.6, zorder=2.5,
                      solid_capstyle="butt")  # fmt: skip
            axes.plot(row["images"], row["score"], "o", mfc=PAPER, mec=colour, mew=1.2, zorder=4)
        look = {"transform": axes.get_yaxis_transform(), "va": "center", "fontsize": 7.4}
        bold = {"weight": "bold" if row["arm"] == results.primary else "normal"}
        axes.text(1.04, label, figure_style.fit(row["arm"], 20), ha="left", color=colour, **look, **bold)
        axes.plot([1, 1.03], [row["score"], label], color=GRID, lw=0.6, clip_on=False,
                  transform=axes.get_yaxis_transform())  # fmt: skip
    axes.set_xticks(sorted(set(sizes)), [f"{size:,.0f}" for size in sorted(set(sizes))])
    axes.minorticks_off()
    axes.yaxis.set_major_locator(MaxNLocator(5))
    axes.set_xlabel("real training images (mean over folds)")
    axes.set_ylabel(SHORT_NAMES.get(results.metric, results.metric))
    handles = [
        Line2D([], [], color=INK, marker="o", label="real images alone"),
        Line2D([], [], color=MUTED, marker="o", mfc=PAPER, label="arm, placed by its score"),
        Line2D([], [], color=MUTED, lw=0.8, ls=(0, (1, 2)), label="all there are"),
    ]
    fig.legend(handles=handles, loc="lower left", bbox_to_anchor=(0.01, 0.0), ncols=3, handlelength=1.6)
    return fig
