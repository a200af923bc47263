"""Figure of the map of when generated images pay: scores, gains over the best control, and the state of each cell."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from workflow_scripts.lib.judge import regime_map
from workflow_scripts.lib.page import figure_style
from workflow_scripts.lib.page.figure_style import BAND, CYCLE, GAIN, GRID, INK, LOSS, MUTED, PAPER
from workflow_scripts.lib.page.run_tables import SHORT_NAMES, Results
from workflow_scripts.lib.page.sections.map_section import SAW, STATES, series_name

LEFT, TOP, GAP = 0.62, 0.26, 0.62  # inches
SCORES, GAINS, ROW = 2.1, 1.5, 0.42  # inches of height
SAW_COLOURS = dict(zip(regime_map.SAW, CYCLE, strict=False))
CEILING_LINES = ((0, (1, 1.4)), (0, (4, 1.2, 1, 1.2)))
SHADE = 0.13  # opacity of a band

Look = dict[str, Any]


def draw_map(results: Results) -> Figure:
    """Score and gain by number of labelled groups (logarithmic), and below them the cells by regime."""
    facts = results.facts.get("map")
    if not facts:
        return figure_style.nothing("Fewer than two label regimes have a baseline and generated images.")
    looks = series_looks(facts["points"])
    handles = [Line2D([], [], label=series_name(*key), **look) for key, look in looks.items()]
    columns = figure_style.legend_columns([str(handle.get_label()) for handle in handles])
    legend = 0.2 * -(-len(handles) // columns) + 0.02
    saws = [saw for saw in regime_map.SAW if any(cell["saw"] == saw for cell in facts["cells"])]
    gains = TOP + SCORES + legend + GAP
    cells = gains + GAINS + GAP + 0.1
    fig = figure_style.figure(cells + ROW * len(saws) + 0.4)
    wide = figure_style.WIDTH - LEFT - 0.15
    axes = figure_style.inches(fig, LEFT, TOP, wide, SCORES)
    _draw_scores(axes, results, facts["points"], looks)
    height = fig.get_size_inches()[1]
    fig.legend(handles=handles, loc="upper left", bbox_to_anchor=(0.01, 1 - (TOP + SCORES + 0.3) / height),
               ncols=columns, handlelength=2.0)  # fmt: skip
    _draw_gains(figure_style.inches(fig, LEFT, gains, wide, GAINS), results, facts, saws)
    names = [SAW[saw] for saw in saws]
    aside = figure_style.label_column(names, 8.0)
    _draw_cells(figure_style.inches(fig, aside, cells, figure_style.WIDTH - aside - 0.15, ROW * len(saws)), facts, saws,
                results.confirms)  # fmt: skip
    return fig


def series_looks(points: list[dict[str, Any]]) -> dict[tuple[str, str], Look]:
    """How each series is drawn, by part and name: real images black, generated ones solid, controls dashed."""
    keys = list(dict.fromkeys((point["part"], point["series"]) for point in points))
    order = [regime_map.BASELINE, regime_map.CONTROL, regime_map.GENERATED, regime_map.CEILING]
    looks: dict[tuple[str, str], Look] = {}
    free = CYCLE[len(regime_map.SAW) :] + [MUTED]
    counts = dict.fromkeys(order, 0)
    for part, series in sorted(keys, key=lambda key: order.index(key[0])):
        place = counts[part]
        counts[part] += 1
        looks[part, series] = {
            regime_map.BASELINE: {"color": INK, "marker": "o", "lw": 1.6},
            regime_map.CONTROL: {
                "color": free[place % len(free)],
                "marker": "s^Dv"[place % 4],
                "ls": (0, (4, 1.6)),
                "mfc": PAPER,
            },
            regime_map.GENERATED: {"color": SAW_COLOURS.get(series, CYCLE[0]), "marker": "o"},
            regime_map.CEILING: {"color": MUTED, "ls": CEILING_LINES[place % 2], "lw": 1.0},
        }[part]
    return looks


def _draw_scores(
    axes: Axes, results: Results, points: list[dict[str, Any]], looks: dict[tuple[str, str], Look]
) -> None:
    for (part, series), look in looks.items():
        own = [point for point in points if (point["part"], point["series"]) == (part, series)]
        groups, score, low, high = (
            np.array([point[name] for point in own]) for name in ("groups", "score", "score_low", "score_high")
        )
        if len(own) > 1:
            axes.fill_between(groups, low, high, color=look["color"], alpha=SHADE, lw=0, zorder=1)
        else:
            axes.plot(np.repeat(groups, 2), [low[0], high[0]], color=look["color"], lw=0.9, zorder=2)
        # A series in one regime is a point; a ceiling has no mark of its own.
        mark = {"marker": "_", "ms": 9} if part == regime_map.CEILING and len(own) == 1 else {}
        axes.plot(groups, score, zorder=4 if part == regime_map.BASELINE else 3, **(look | mark))
    _number_axis(axes, [point["groups"] for point in points])
    axes.yaxis.set_major_locator(MaxNLocator(5))
    axes.set_ylabel(SHORT_NAMES.get(results.metric, results.metric))
    axes.set_title("Score")
    axes.grid(True, axis="y", color=GRID, lw=0.4)


def _draw_gains(axes: Axes, results: Results, facts: dict[str, Any], saws: list[str]) -> None:
    axes.axhspan(-results.smallest_effect, results.smallest_effect, color=BAND, lw=0, zorder=0)
    axes.axhline(0, color=MUTED, lw=0.8, zorder=1)
    drawn = set()
    for place, saw in enumerate(saws):
        own = [cell for cell in facts["cells"] if cell["saw"] == saw and (saw, cell["arm"]) not in drawn]
        # An arm that stands for several kinds of generator is drawn once for each, side by side.
        aside = 1.035 ** (place - (len(saws) - 1) / 2)
        beyond = [cell for cell in own if "beyond" in cell]
        axes.plot([cell["groups"] * aside for cell in beyond], [cell["beyond"] for cell in beyond],
                  color=SAW_COLOURS[saw], lw=0.8, zorder=2)  # fmt: skip
        for cell in own:
            name = "beyond" if "beyond" in cell else "gain"
            at, look = cell["groups"] * aside, {"color": SAW_COLOURS[saw]}
            axes.plot([at, at], [cell[f"{name}_low"], cell[f"{name}_high"]], lw=1.2, solid_capstyle="butt", **look)
            axes.plot(at, cell[name], "o", mec=SAW_COLOURS[saw], mfc=SAW_COLOURS[saw] if name == "beyond" else PAPER,
                      zorder=3)  # fmt: skip
    _number_axis(axes, [point["groups"] for point in facts["points"]])
    axes.yaxis.set_major_locator(MaxNLocator(5))
    axes.set_xlabel("labelled groups (logarithmic)")
    axes.set_ylabel("difference")
    lacking = any("beyond" not in cell for cell in facts["cells"])
    axes.set_title("Gain over the best control" + (" (rings: over the baseline, no control)" if lacking else ""))


def _number_axis(axes: Axes, groups: list[float]) -> None:
    ticks = sorted(set(groups))
    axes.set_xscale("log")
    axes.set_xlim(ticks[0] / 1.25, ticks[-1] * 1.25)
    axes.set_xticks(ticks, [f"{tick:,.0f}" for tick in ticks])
    axes.minorticks_off()


def _draw_cells(axes: Axes, facts: dict[str, Any], saws: list[str], confirms: bool) -> None:
    regimes = [entry["regime"] for entry in facts["regimes"]]
    axes.set_xlim(0, len(regimes))
    axes.set_ylim(len(saws), 0)
    known = {(cell["saw"], cell["regime"]): cell for cell in facts["cells"]}
    for y, saw in enumerate(saws):
        for x, regime in enumerate(regimes):
            cell = known.get((saw, regime))
            face, edge, letters = _paint((cell["state"] if confirms else regime_map.UNDECIDED) if cell else "")
            axes.add_patch(Rectangle((x + 0.03, y + 0.05), 0.94, 0.9, fc=face, ec=edge, lw=1.1))
            text = f"{STATES[cell['state']]}\n{figure_style.signed(cell['gain'])}" if cell else "–"
            axes.text(x + 0.5, y + 0.5, text, ha="center", va="center", color=letters, fontsize=7.0, linespacing=1.25)
    counts = [f"{entry['groups']:,.0f}" for entry in facts["regimes"]]
    names = [figure_style.fit(regime, 12) for regime in regimes]
    axes.set_xticks(np.arange(len(regimes)) + 0.5, [f"{name}\n{n}" for name, n in zip(names, counts, strict=True)])
    axes.set_yticks(np.arange(len(saws)) + 0.5, [SAW[saw] for saw in saws])
    axes.tick_params(length=0)
    for side in axes.spines.values():
        side.set_visible(False)
    axes.set_title("State of each cell, and gain over the baseline", x=0.0)


def _paint(state: str) -> tuple[str, str, str]:
    """Fill, edge and letters of a cell."""
    return {
        regime_map.HELPS: (GAIN, GAIN, PAPER),
        regime_map.UNCONTROLLED: (PAPER, GAIN, INK),
        regime_map.NO_MORE: (BAND, GAIN, INK),
        regime_map.HURTS: (LOSS, LOSS, PAPER),
        regime_map.UNDECIDED: (BAND, BAND, INK),
    }.get(state, (PAPER, GRID, MUTED))
