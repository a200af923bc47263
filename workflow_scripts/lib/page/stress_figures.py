"""Figure of the stress test: score against strength, a panel for each corruption."""

from __future__ import annotations

from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from workflow_scripts.lib.images.corruption_choices import CLEAN, LEVELS
from workflow_scripts.lib.judge.question import Question
from workflow_scripts.lib.page import figure_style
from workflow_scripts.lib.page.figure_style import BAND, CYCLE, GAIN, GRID, INK, MUTED
from workflow_scripts.lib.page.run_tables import SHORT_NAMES

COLUMNS = 3  # panels in a row
HEIGHT, PITCH, LEFT, GAP = 1.3, 1.72, 0.56, 0.16  # inches
OWN_COLOUR = 4  # arms beside baseline, primary arm and control that get a colour each; more of them are grey


def draw(scores: pd.DataFrame, question: Question) -> Figure:
    """Mean score over repeats at strengths 0 to 5, for every arm, in the primary metric."""
    metric = question.analysis["metric"]
    shown = scores[(scores["metric"] == metric) & (scores["repeat"] == "mean") & (scores["strength"] != "area")]
    corruptions = [name for name in dict.fromkeys(shown["corruption"]) if name != CLEAN]
    looks = arm_looks(question)
    handles = [
        Line2D([], [], label=figure_style.fit(arm, 30), **look) for arm, look in looks.items() if look["zorder"] > 1.5
    ]
    if len(handles) < len(looks):
        handles.append(Line2D([], [], color=GRID, lw=0.9, label="other arms"))
    handles.append(Patch(facecolor=BAND, label=f"{100 * question.analysis['confidence']:g} % interval of the baseline"))
    columns = figure_style.legend_columns([str(handle.get_label()) for handle in handles])
    rows = -(-len(corruptions) // COLUMNS)
    foot = 0.48 + 0.18 * -(-len(handles) // columns)
    fig = figure_style.figure(0.24 + PITCH * (rows - 1) + HEIGHT + foot)
    width = (figure_style.WIDTH - LEFT - 0.1 - GAP * (COLUMNS - 1)) / COLUMNS
    low, high = shown["value"].min(), shown["value"].max()
    for index, corruption in enumerate(corruptions):
        row, column = divmod(index, COLUMNS)
        axes = figure_style.inches(fig, LEFT + column * (width + GAP), 0.24 + row * PITCH, width, HEIGHT)
        _panel(axes, shown[shown["corruption"].isin([CLEAN, corruption])], question.analysis["baseline"], looks)
        axes.set_title(corruption.replace("_", " "), fontsize=8.6)
        axes.set_ylim(low - 0.04 * (high - low) - 0.01, high + 0.04 * (high - low) + 0.01)
        if column:
            axes.tick_params(labelleft=False)
        else:
            axes.set_ylabel(SHORT_NAMES.get(metric, metric))
        # Below the last panel of each column.
        if index + COLUMNS >= len(corruptions):
            axes.set_xlabel("strength")
    fig.legend(handles=handles, loc="lower left", bbox_to_anchor=(0.01, 0.0), ncols=columns, handlelength=1.6)
    return fig


def arm_looks(question: Question) -> dict[str, dict[str, Any]]:
    """How the line of each arm looks: baseline, primary arm and its control stand out."""
    named = {
        question.analysis["baseline"]: {"color": INK, "lw": 1.4, "zorder": 3},
        question.analysis["primary_arm"]: {"color": GAIN, "lw": 1.6, "zorder": 4},
    }
    if question.primary_control:
        named[question.primary_control] = {"color": MUTED, "lw": 1.1, "ls": (0, (3, 1.5)), "zorder": 2.5}
    others = [name for name in question.names if name not in named]
    for place, name in enumerate(others):
        coloured = {"color": CYCLE[1 + place % (len(CYCLE) - 1)], "lw": 0.9, "zorder": 2}
        named[name] = coloured if len(others) <= OWN_COLOUR else {"color": GRID, "lw": 0.9, "zorder": 1}
    return named


def _panel(axes: Axes, shown: pd.DataFrame, baseline: str, looks: dict[str, dict[str, Any]]) -> None:
    for arm, look in looks.items():
        own = shown[shown["arm"] == arm].sort_values("strength")
        strengths = own["strength"].astype(int).to_numpy()
        if arm == baseline:
            axes.fill_between(strengths, own["low"], own["high"], color=BAND, lw=0, zorder=0)
        axes.plot(strengths, own["value"], marker="o", ms=2.2, **look)
    axes.set_xlim(-0.2, LEVELS + 0.2)
    axes.set_xticks(range(LEVELS + 1))
    axes.yaxis.set_major_locator(MaxNLocator(4))
    axes.grid(True, axis="y", color=GRID, lw=0.4)
