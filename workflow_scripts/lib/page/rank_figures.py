"""Critical-difference picture: mean ranks of the arms over trainings, with bars over those that do not differ."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from workflow_scripts.lib.judge import mean_ranks
from workflow_scripts.lib.judge.mean_ranks import MeanRanks
from workflow_scripts.lib.page import figure_style
from workflow_scripts.lib.page.figure_style import GAIN, INK, MUTED
from workflow_scripts.lib.page.run_tables import SHORT_NAMES, Results

ROW, TOP, NAME = 0.2, 0.78, 18  # inches a row of names, inches above the axis, letters of a name
BAR = 0.11  # inches between two bars
FEWEST, MOST = 2, 30  # trainings, and arms, without which there is nothing to rank; arms that a picture can show
TICKS = 12  # numbers along the axis


def draw_ranks(results: Results) -> Figure:
    """Mean rank of each arm over folds and repeats by the primary metric."""
    scores = results.by_training(results.metric)
    if len(scores) < FEWEST or len(next(iter(scores.values()))) < FEWEST:
        return figure_style.nothing("Ranks need two arms and two trainings.")
    if len(scores) > MOST:
        return figure_style.nothing(f"{len(scores)} arms are too many for a picture of ranks.")
    found = mean_ranks.measure(scores, results.confidence)
    bars = found.alike()
    half = -(-len(found.arms) // 2)
    below = 0.14 + BAR * len(bars)
    fig = figure_style.figure(TOP + below + ROW * half + 0.2)
    side = 1.75
    width = figure_style.WIDTH - 2 * side
    axes = figure_style.inches(fig, side, TOP, width, below + ROW * half + 0.1)
    depth = below + ROW * half + 0.1
    axes.set_xlim(1 - 0.02, len(found.arms) + 0.02)
    axes.set_ylim(depth, 0)
    axes.xaxis.tick_top()
    axes.set_xticks(range(1, len(found.arms) + 1, -(-len(found.arms) // TICKS)))
    axes.set_yticks([])
    for name in ("left", "right", "bottom"):
        axes.spines[name].set_visible(False)
    axes.spines["top"].set_visible(True)
    metric = SHORT_NAMES.get(results.metric, results.metric)
    axes.set_title(f"mean rank by {metric}; 1 is the best", pad=17, loc="center")
    _names(axes, found, half, below, results.primary)
    for place, (first, last) in enumerate(bars):
        y = 0.1 + BAR * place
        axes.plot(found.ranks[[first, last]] + [-0.04, 0.04], [y, y], color=INK, lw=2.4, solid_capstyle="butt")
    _scale(fig, found, side, width)
    return fig


def _names(axes: Axes, found: MeanRanks, half: int, below: float, primary: str) -> None:
    """Names of the better half at the left and of the others at the right, each with a line to its rank."""
    for place, (arm, rank) in enumerate(zip(found.arms, found.ranks, strict=True)):
        left = place < half
        row = place if left else len(found.arms) - 1 - place
        y, end = below + ROW * (row + 0.5), 1.0 if left else float(len(found.arms))
        colour = GAIN if arm == primary else MUTED
        axes.plot([rank, rank, end], [0, y, y], color=colour, lw=0.9, clip_on=False)
        axes.annotate(
            f"{figure_style.fit(arm, NAME)}  {rank:.1f}" if left else f"{rank:.1f}  {figure_style.fit(arm, NAME)}",
            (end, y), xytext=(-4 if left else 4, 0), textcoords="offset points", va="center", fontsize=7.6,
            ha="right" if left else "left", color=INK, annotation_clip=False,
        )  # fmt: skip


def _scale(fig: Figure, found: MeanRanks, side: float, width: float) -> None:
    """The critical difference as a length above the axis, as far as it fits."""
    inches = min(width, width * found.critical / max(1, len(found.arms) - 1))
    axes = figure_style.inches(fig, side, 0.2, width, 0.16)
    axes.set_xlim(0, width)
    axes.set_ylim(0, 1)
    axes.axis("off")
    axes.plot([0, inches], [0.3, 0.3], color=INK, lw=1.2)
    for end in (0, inches):
        axes.plot([end, end], [0, 0.6], color=INK, lw=1.2)
    more = "" if inches < width else ", more than all ranks here"
    axes.annotate(
        f"critical difference {found.critical:.1f}{more}", (np.mean([0, inches]), 0.75), fontsize=7.2, color=INK,
        ha="center", va="bottom", annotation_clip=False,
    )  # fmt: skip
