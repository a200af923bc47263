"""Figure of the study's choices: the main effect of each switch on validation, on test and on the gap between them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from workflow_scripts.lib.page import figure_style
from workflow_scripts.lib.page.figure_style import CYCLE, GRID, INK, MUTED

MARKERS = "osD^v<>"


def draw(effects: pd.DataFrame, outcomes: Sequence[str], switches: Mapping[str, bool], metric_name: str) -> Figure:
    """Main effects of one metric with intervals: a row per switch, a panel per outcome, a dot per model.

    A dot is filled where its interval excludes 0. `switches` says of each switch, in the order of the rows, whether it
    acts after training."""
    shown = effects[(effects["kind"] == "main") & (effects["at"] == "mean")]
    names = [name for name in switches if (shown["switch"] == name).any()]
    models = list(dict.fromkeys(shown["model"]))
    row = 0.15 + 0.085 * len(models)
    left, height = figure_style.label_column(names, 7.6, 2.2), row * len(names)
    gap = 0.22  # the numbers at the ends of two panels stand beside each other
    width = (figure_style.WIDTH - left - 0.1 - 2 * gap) / 3
    fig = figure_style.figure(0.3 + height + 0.75 + 0.16 * -(-len(models) // 3))
    axes = [figure_style.inches(fig, left + place * (width + gap), 0.3, width, height) for place in range(3)]
    wide = 1.06 * float(shown[["effect", "low", "high"]].abs().max().max())
    for own, outcome in zip(axes, outcomes, strict=True):
        _panel(own, shown[shown["outcome"] == outcome], {name: switches[name] for name in names}, models)
        own.set_title(outcome, fontsize=8.6)
        own.set_xlim(-wide, wide)
    axes[0].set_yticks(range(len(names)), names, fontsize=7.6)
    for own in axes[1:]:
        own.set_yticks(range(len(names)), [])
    axes[1].set_xlabel(f"change of {metric_name}")
    looks = [
        Line2D([], [], color=CYCLE[place % len(CYCLE)], marker=MARKERS[place % len(MARKERS)], ms=4, lw=1, label=name)
        for place, name in enumerate(models)
    ]
    fig.legend(handles=looks, loc="lower left", bbox_to_anchor=(0.01, 0.0), ncols=3, handlelength=1.6)
    return fig


def _panel(axes: Axes, shown: pd.DataFrame, switches: dict[str, bool], models: list[str]) -> None:
    names = list(switches)
    axes.axvline(0, color=MUTED, lw=0.7)
    for index, name in enumerate(names):
        # A line parts the switches that act after training from those before.
        if index and switches[name] and not switches[names[index - 1]]:
            axes.axhline(index - 0.5, color=INK, lw=0.5)
    for row in shown.itertuples():
        place = models.index(row.model)
        y = names.index(row.switch) + (place - (len(models) - 1) / 2) * 0.6 / max(1, len(models))
        colour, sure = CYCLE[place % len(CYCLE)], row.low > 0 or row.high < 0
        axes.plot([row.low, row.high], [y, y], color=colour, lw=1.6 if sure else 0.8, solid_capstyle="butt")
        axes.plot(
            row.effect, y, color=colour, marker=MARKERS[place % len(MARKERS)], ms=3.6, mfc=colour if sure else "none"
        )
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.grid(True, axis="x", color=GRID)
    axes.xaxis.set_major_locator(MaxNLocator(3, symmetric=True))
    axes.tick_params(axis="y", length=0)
