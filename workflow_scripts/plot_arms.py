"""plot_arms: the arms as figures, from the tables that aggregate_metrics made.

forest: every arm and its control against the baseline, with intervals, the zero line and the smallest effect of
interest. classes: the change of each judged class under each arm. gap: validation beside test scores. worth: a learning
curve over real images, and the arms upon it. usefulness: what arms gained by how good their synthetic set is by itself.
sweeps: what arms gained by the fraction of synthetic images, and by the strength of the guidance, where they differ in
nothing else. Each is written as svg, pdf and png under the stem of its path.

Example:
    python -m workflow_scripts.plot_arms --metrics metrics.csv --comparisons comparisons.csv --analysis analysis.json \\
        --fidelity balanced/0/0=repeat0/fold0/synthetic/balanced.fidelity.csv \\
        --forest figures/arms_forest.svg --classes figures/arms_classes.svg --gap figures/arms_gap.svg \\
        --worth figures/arms_worth.svg --usefulness figures/arms_usefulness.svg --sweeps figures/arms_sweeps.svg \\
        --settings '{"arms": [...], "synthetic sets": [...], "train_classifier": {"ratio": 0.5}}'
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from workflow_scripts.lib.base import arguments, stage
from workflow_scripts.lib.page import arm_categories, curve_figures, figure_style, run_tables
from workflow_scripts.lib.page.figure_style import BAND, GAIN, GRID, INK, LOSS, MUTED, PAPER
from workflow_scripts.lib.page.run_tables import METRIC_NAMES, SHORT_NAMES, Difference, Results
from workflow_scripts.lib.page.sections import curves_section

ROW = 0.22  # inches a row of a forest plot
INTERVAL = 1.66  # inches for an estimate and its interval in words
HEADING = 0.9  # rows that a heading takes
TICK = 0.5  # inches from one number of an axis to the next, at least
NAME = 27  # letters of an arm's name that are shown
CLASS_ROW = 0.165
FACETS = 4  # columns of small multiples
UNCHANGED = 0.0005  # a smaller change is none


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    p = arguments.parser(__doc__)
    p.add_argument("--metrics", type=Path, required=True, help="scores of all arms")
    p.add_argument("--comparisons", type=Path, required=True, help="arms beside their baseline and controls")
    p.add_argument("--analysis", type=Path, required=True, help="what was declared, and which classes are judged")
    p.add_argument("--forest", type=Path, required=True, help="figure to write: arms with intervals")
    p.add_argument("--classes", type=Path, required=True, help="figure to write: change of each class")
    p.add_argument("--gap", type=Path, required=True, help="figure to write: validation beside test")
    p.add_argument("--worth", type=Path, required=True, help="figure to write: a learning curve over real images")
    p.add_argument(
        "--fidelity", nargs="*", default=[], metavar="SET/REPEAT/FOLD=CSV", help="how good the synthetic sets are"
    )
    p.add_argument("--usefulness", type=Path, required=True, help="figure to write: gain by fidelity")
    p.add_argument("--sweeps", type=Path, required=True, help="figure to write: gain by ratio and by guidance")
    return p.parse_args(argv)


def plot_arms(args: argparse.Namespace) -> None:
    """Draw and save the figures."""
    found, config = run_tables.read(args.metrics, args.comparisons, args.analysis), args.settings
    points = curves_section.usefulness(found, config, arguments.of_sets(args.fidelity, "--fidelity"))
    drawn: list[tuple[Path, Callable[[], Figure]]] = [
        (args.forest, lambda: draw_forest(found, config)),
        (args.classes, lambda: draw_classes(found)),
        (args.gap, lambda: draw_gap(found)),
        (args.worth, lambda: draw_worth(found)),
        (args.usefulness, lambda: curve_figures.draw_usefulness(found, points)),
        (args.sweeps, lambda: curve_figures.draw_sweeps(found, curves_section.sweeps(found, config))),
    ]
    with figure_style.style():
        for path, draw in drawn:
            figure_style.save(draw(), path)
            stage.log.info("%s", path)


def by_purpose(found: Results, config: dict[str, Any]) -> list[tuple[str, list[list[str]]]]:
    """Groups of arms under what they are there for; that of the primary arm comes first."""
    entries = {entry["name"]: entry for entry in config.get("arms", [])}
    synthetic_sets = {synthetic_set["name"]: synthetic_set for synthetic_set in config.get("synthetic_sets", [])}
    sections: dict[str, list[list[str]]] = {}
    for group in found.groups():
        sections.setdefault(arm_categories.purpose(entries.get(group[0], {}), synthetic_sets), []).append(group)
    first = next(iter(sections), None)
    return sorted(sections.items(), key=lambda item: (item[0] != first, arm_categories.PURPOSES.index(item[0])))


def draw_forest(found: Results, config: dict[str, Any]) -> Figure:
    """Differences to the baseline in the primary metric: an arm is a disc, its control a ring beneath it. Rivals that
    know real images alone, placebos and ceilings have headings of their own."""
    # Arms with fewer real images answer another question, and would stretch the axis: they have a figure of their own.
    curve = found.facts.get("worth") or {"points": [], "images": 0}
    fewer = {point["arm"] for point in curve["points"] if point["images"] < curve["images"]}
    sections = []
    for purpose, groups in by_purpose(found, config):
        shown = [[arm for arm in group if found.difference(arm) and arm not in fewer] for group in groups]
        sections += [(purpose, kept)] if (kept := [group for group in shown if group]) else []
    serving = set(found.controls.values())
    groups = [group for _, kept in sections for group in kept]
    rows = sum(map(len, groups)) + (HEADING * len(sections) if len(sections) > 1 else 0)
    # Rows of a group stand together; a third of a row parts the groups.
    height = (rows + 0.35 * max(0, len(groups) - 1) + 0.6) * ROW
    fig = figure_style.figure(height + 0.84)
    left = figure_style.label_column([arm for group in groups for arm in group])
    wide = figure_style.WIDTH - left - INTERVAL
    axes = figure_style.inches(fig, left, 0.12, wide, height)
    place, ticks = 0.0, []
    for purpose, kept in sections:
        if len(sections) > 1:
            look = {"transform": axes.get_yaxis_transform(), "va": "center", "ha": "right", "fontsize": 7.4}
            axes.text(-0.03, place, purpose, color=MUTED, style="italic", **look)
            place += HEADING
        for group in kept:
            for arm in group:
                difference = found.difference(arm)
                draw_interval(axes, place, difference, arm in serving)
                ticks.append((place, arm, arm in serving, difference))
                place += 1
            place += 0.35
    # Width of the band that nobody would care about.
    small = found.smallest_effect
    axes.axvspan(-small, small, color=BAND, lw=0, zorder=0)
    axes.axvline(0, color=MUTED, lw=0.8, zorder=1)
    axes.set_ylim(max(place - 0.35, 1) - 0.2, -0.8)
    for position, arm, control, difference in ticks:
        colour = MUTED if control else INK
        look = {"transform": axes.get_yaxis_transform(), "va": "center", "color": colour}
        weight = "bold" if arm == found.primary else "normal"
        axes.text(-0.03, position, figure_style.fit(arm, NAME), ha="right", weight=weight, **look)
        text = f"{figure_style.signed(difference.value)} ({figure_style.span(difference.low, difference.high)})"
        axes.text(1.04, position, text, ha="left", fontsize=7.4, **look)
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    axes.xaxis.set_major_locator(MaxNLocator(min(5, int(wide / TICK)), symmetric=False))
    what = METRIC_NAMES.get(found.metric, found.metric)
    axes.set_xlabel(f"difference in {what} to {found.compared_with}")
    _forest_legend(fig, found, bool(serving))
    return fig


def draw_interval(axes: Axes, place: float, difference: Difference, control: bool) -> None:
    """One row: the interval as a line (dashed outside the declared family) and the estimate upon it."""
    colour = MUTED if control else figure_style.shade(difference)
    line = "-" if difference.in_family else (0, (2, 1.5))
    axes.plot([difference.low, difference.high], [place, place], color=colour, ls=line, solid_capstyle="butt")
    face = PAPER if control else colour
    axes.plot(difference.value, place, "o", mfc=face, mec=colour, mew=1.2, ms=4.5, zorder=3)


def _forest_legend(fig: Figure, found: Results, controls: bool) -> None:
    percent = f"{100 * found.confidence:g} % interval"
    handles = [Line2D([], [], color=INK, marker="o", label=f"arm, {percent}")]
    if controls:
        handles.append(Line2D([], [], color=MUTED, marker="o", mfc=PAPER, label="its control"))
    if found.smallest_effect:
        handles.append(Patch(color=BAND, label=f"below the smallest effect of interest, {found.smallest_effect:g}"))
    fig.legend(
        handles=handles, loc="lower left", bbox_to_anchor=(0.01, 0.0), ncols=3, handlelength=1.6, columnspacing=1.2
    )


def draw_classes(found: Results) -> Figure:
    """Small multiples: one arm each, one row a judged class, the change against the baseline with its interval."""
    metric = run_tables.BY_CLASS.get(found.metric, "f1")
    arms = [arm for group in found.groups() for arm in group if found.difference(arm)]
    kinds = found.judged
    lines = -(-max(1, len(arms)) // FACETS)
    panel = (len(kinds) + 0.6) * CLASS_ROW
    label, gap = 1.25, 0.1
    wide = (figure_style.WIDTH - label - 0.08 - gap * (FACETS - 1)) / FACETS
    pitch = panel + 0.58
    fig = figure_style.figure(0.04 + lines * pitch + 0.38)
    changes = {(arm, kind): found.difference(arm, metric=metric, kind=kind) for arm in arms for kind in kinds}
    limit = max(_limit([change for change in changes.values() if change]), 1.5 * found.smallest_effect)
    step = _round_step(limit)
    for index, arm in enumerate(arms):
        line, column = divmod(index, FACETS)
        axes = figure_style.inches(fig, label + column * (wide + gap), 0.34 + line * pitch, wide, panel)
        axes.axvline(0, color=MUTED, lw=0.8, zorder=1)
        axes.axvspan(-found.smallest_effect, found.smallest_effect, color=BAND, lw=0, zorder=0)
        for row, kind in enumerate(kinds):
            _class_row(axes, row, changes[arm, kind], limit, 1 - found.confidence)
        axes.set_xlim(-limit, limit)
        axes.set_ylim(len(kinds) - 0.3, -0.7)
        axes.set_xticks([-step, 0, step], [f"{value:g}".replace("-", "−") for value in (-step, 0, step)])
        axes.set_title(_two_lines(arm, 19), fontsize=6.8, fontweight="normal", pad=3, linespacing=1.1)
        axes.set_yticks(range(len(kinds)), [figure_style.fit(kind, 20) for kind in kinds] if column == 0 else [])
        axes.tick_params(axis="y", length=0, labelsize=7.6)
        axes.tick_params(axis="x", labelsize=7.2)
        axes.spines["left"].set_visible(False)
    name = SHORT_NAMES.get(metric, metric)
    high, left = fig.get_figheight(), label / figure_style.WIDTH
    fig.text(left, 0.22 / high, f"change in {name} of the class against {found.compared_with}")
    if found.unjudged:
        fig.text(
            left, 0.05 / high, figure_style.fit(f"not judged: {', '.join(found.unjudged)}", 76), fontsize=7, color=MUTED
        )
    return fig


def _class_row(axes: Axes, row: int, change: Difference | None, limit: float, false: float) -> None:
    axes.axhline(row, color=GRID, lw=0.5, zorder=0.5)
    if change is None or np.isnan(change.value):
        return
    colour = MUTED if abs(change.value) < UNCHANGED else GAIN if change.value > 0 else LOSS
    # Others are drawn thin: nothing is claimed about these classes.
    clear = change.q <= false
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
    """The largest of 1, 2, 5 times a power of ten within three quarters of the axis."""
    power = 10.0 ** np.floor(np.log10(0.75 * limit))
    return float(max(factor * power for factor in (1, 2, 5) if factor * power <= 0.75 * limit))


def _two_lines(name: str, length: int) -> str:
    """A long arm's name broken after an underscore, as near to its middle as can be."""
    cuts = [index + 1 for index, letter in enumerate(name[:-1]) if letter == "_"]
    if len(name) <= length or not cuts:
        return figure_style.fit(name, length)
    cut = min(cuts, key=lambda place: (max(place, len(name) - place), -place))
    return f"{figure_style.fit(name[:cut], length)}\n{figure_style.fit(name[cut:], length)}"


def draw_gap(found: Results) -> Figure:
    """Validation score (ring) and test score (disc) of each arm; the line between them is the gap."""
    arms = [found.baseline] + [arm for group in found.groups() for arm in group]
    arms = [arm for arm in arms if np.isfinite(found.score(arm, found.metric))]
    shown = list(dict.fromkeys([found.metric, "macro_f1", "map"]))[:2]
    height = (len(arms) + 0.4) * ROW
    fig = figure_style.figure(height + 1.0)
    left = figure_style.label_column(arms, 8.0)
    wide = (figure_style.WIDTH - left - 0.22) / len(shown)
    for index, metric in enumerate(shown):
        axes = figure_style.inches(fig, left + index * (wide + 0.1), 0.28, wide, height)
        axes.margins(x=0.08)
        for row, arm in enumerate(arms):
            held, seen = found.score(arm, metric), found.score(arm, metric, "validation")
            axes.axhline(row, color=GRID, lw=0.5, zorder=0.5)
            axes.plot([held, seen], [row, row], color=MUTED, lw=1.2, zorder=2)
            axes.plot(seen, row, "o", mfc=PAPER, mec=MUTED, mew=1.2, zorder=3)
            axes.plot(held, row, "o", color=GAIN, zorder=4)
        # The chance level of average precision is the fraction of positives.
        chance = found.score(found.baseline, "prevalence") if metric == "map" else np.nan
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


def draw_worth(found: Results) -> Figure:
    """Score by number of real images (discs), and the other arms where the curve has their score (rings)."""
    facts = found.facts.get("worth")
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
        colour = GAIN if row["arm"] == found.primary else MUTED
        axes.axhline(row["score"], color=GRID, lw=0.6, zorder=0.5)
        # On a curve that does not rise a score has no place.
        if facts["rises"]:
            axes.plot([row["images_low"], row["images_high"]], [row["score"]] * 2, color=colour, lw=1.6, zorder=2.5,
                      solid_capstyle="butt")  # fmt: skip
            axes.plot(row["images"], row["score"], "o", mfc=PAPER, mec=colour, mew=1.2, zorder=4)
        look = {"transform": axes.get_yaxis_transform(), "va": "center", "fontsize": 7.4}
        bold = {"weight": "bold" if row["arm"] == found.primary else "normal"}
        axes.text(1.04, label, figure_style.fit(row["arm"], 20), ha="left", color=colour, **look, **bold)
        axes.plot([1, 1.03], [row["score"], label], color=GRID, lw=0.6, clip_on=False,
                  transform=axes.get_yaxis_transform())  # fmt: skip
    axes.set_xticks(sorted(set(sizes)), [f"{size:,.0f}" for size in sorted(set(sizes))])
    axes.minorticks_off()
    axes.yaxis.set_major_locator(MaxNLocator(5))
    axes.set_xlabel("real training images (mean over folds)")
    axes.set_ylabel(SHORT_NAMES.get(found.metric, found.metric))
    handles = [
        Line2D([], [], color=INK, marker="o", label="real images alone"),
        Line2D([], [], color=MUTED, marker="o", mfc=PAPER, label="arm, placed by its score"),
        Line2D([], [], color=MUTED, lw=0.8, ls=(0, (1, 2)), label="all there are"),
    ]
    fig.legend(handles=handles, loc="lower left", bbox_to_anchor=(0.01, 0.0), ncols=3, handlelength=1.6)
    return fig


def main(argv: list[str] | None = None) -> int:
    """The program."""
    args = parse_args(argv)
    return stage.run("plot_arms", args, lambda: plot_arms(args))


if __name__ == "__main__":
    sys.exit(main())
