"""forensics: which of the study's choices move validation, which move test, and which the gap between them.

Reads the scores of replay_study and takes them apart: main effects of the switches that act before or in training, by
least squares on the ±1 design; of those that act after it, from all their combinations at every training; how the two
kinds act together; exact Shapley fractions of the after-training switches; and all as the study against all as MixLoc.

Writes the table of effects with intervals and aliases (CSV), the design with its resolution and what it aliases (JSON),
and a figure (svg, pdf, png under one stem).

Example:
    python -m workflow_scripts.forensics --scores repeat0/fold0/replay/0.csv --leaks forensics_leaks.csv --seed 1 \\
        --table forensics.csv --facts forensics.json --figure figures/forensics --settings '{"forensics": {...}, ...}'
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from workflow_scripts.lib.base import arguments, stage
from workflow_scripts.lib.base.errors import UserError
from workflow_scripts.lib.base.files import atomic, write_json
from workflow_scripts.lib.page import figure_style
from workflow_scripts.lib.page.figure_style import CYCLE, GRID, INK, MUTED
from workflow_scripts.lib.study import designs, effect_estimates, switches

METRICS = {
    "macro_f1": "macro-F1 at tuned thresholds",
    "macro_f1_half": "macro-F1 at 0.5, else the most probable class",
    "map": "mAP",
}
MARKERS = "osD^v<>"
NOTES = (
    "An effect is the mean score with a switch on (as the study) minus the mean with it off (as MixLoc), over all "
    "states of the others.",
    "Intervals hold each for itself, not all together: of twenty switches that do nothing, about one would seem to do "
    "something. Each is the wider of two: over places (repeats and folds, from "
    "three on), and from the residuals of places and main effects. Folds of one repeat share training images.",
    "Rows of a design at one place start from the same weights and see the same real images: differences are paired.",
    "Interactions of two training switches are aliased with others and are not estimated; main effects are aliased "
    "with interactions of three switches or more alone.",
)


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    out = arguments.parser(__doc__)
    out.add_argument("--scores", type=Path, nargs="+", required=True, help="scores of replay_study (CSV)")
    out.add_argument("--leaks", type=Path, required=True, help="the certificate of what the replay was fitted on (CSV)")
    out.add_argument("--seed", type=int, required=True, help="seed of the run, for the record")
    out.add_argument("--table", type=Path, required=True, help="effects to write (CSV)")
    out.add_argument("--facts", type=Path, required=True, help="design, aliases and words to write (JSON)")
    out.add_argument("--figure", type=Path, required=True, help="stem of the figure to write")
    return out.parse_args(argv)


def forensics(
    scores: list[Path], leaks: Path, seed: int, table: Path, facts: Path, figure: Path, settings: dict[str, Any]
) -> None:
    """Take the scores apart; write table, facts and figure."""
    section, base = settings["forensics"], settings["train_classifier"]
    lines = pd.concat([_read(path) for path in scores], ignore_index=True)
    design = designs.fraction(switches.acting(section, base, after=False), section["runs"])
    idle = switches.idle_switches(section, base)
    names, found, described = [name for name in switches.varied(section) if name not in idle], [], {}
    for model in switches.models(section, base):
        training, after = (switches.of_model(names, model, after=kind) for kind in (False, True))
        for metric in METRICS:
            own = effect_estimates.response(lines, design, model["name"], metric, training, after)
            found += effect_estimates.effects(own, section["confidence"])
        described[model["name"]] = effect_estimates.named(own.design) | {"after": after, "trainings": own.size}
    effects = effect_estimates.table_of(found)
    with atomic(table) as part:
        effects.to_csv(part, index=False, float_format="%.6f")
    metric, certificate = section["metric"], pd.read_csv(leaks)
    about = {name: {"about": switches.SWITCHES[name].about, "acts": switches.SWITCHES[name].acts} for name in names}
    notes = [f"Not varied, for want of a model that they act on: {', '.join(idle)}."] if idle else []
    sentences = [effect_estimates.sentence(effects, name, metric) for name in described]
    broken = certificate[certificate["status"] == "declared"]
    write_json(
        facts,
        {
            "design": effect_estimates.named(design) | {"rows": _rows(design)},
            "settings": {name: settings[name] for name in ("forensics", "synthetic_sets", "generators")},
            "models": described,
            "switches": about,
            "held": {name: level for name, level in settings["replay"].items() if name not in (*names, *idle)},
            "places": [list(place) for place in sorted(set(zip(lines["repeat"], lines["fold"], strict=True)))],
            "confidence": section["confidence"],
            "metric": metric,
            "metric_name": METRICS[metric],
            "seed": seed,
            "violations": sorted({f"{row.artefact}:{row.purpose}" for row in broken.itertuples()}),
            "notes": [*NOTES, *notes],
            "sentence": " ".join(sentences),
        },
    )  # fmt: skip
    with figure_style.style():
        figure_style.save(draw(effects, metric, section["confidence"]), figure)
    for text in sentences:
        stage.log.info("%s", text)


def _rows(design: designs.Design) -> list[list[str]]:
    """The switches that are on in each row."""
    return [[name for name, sign in zip(design.factors, row, strict=True) if sign > 0] for row in design.signs]


def _read(path: Path) -> pd.DataFrame:
    try:
        return pd.read_csv(path)
    except (OSError, ValueError) as error:
        raise UserError(f"{path} is no table of scores ({error}): delete it and run again") from None


def draw(effects: pd.DataFrame, metric: str, confidence: float) -> Figure:
    """Main effects, a row a switch, a panel an outcome: a dot a model with its interval; filled where 0 is outside."""
    shown = effects[(effects["metric"] == metric) & (effects["kind"] == "main") & (effects["at"] == "mean")]
    names = [name for name in switches.SWITCHES if (shown["switch"] == name).any()]
    models = list(dict.fromkeys(shown["model"]))
    row = 0.15 + 0.085 * len(models)
    left, height = figure_style.label_column(names, 7.6, 2.2), row * len(names)
    gap = 0.22  # the numbers at the ends of two panels stand beside each other
    width = (figure_style.WIDTH - left - 0.1 - 2 * gap) / 3
    fig = figure_style.figure(0.3 + height + 0.75 + 0.16 * -(-len(models) // 3))
    axes = [figure_style.inches(fig, left + place * (width + gap), 0.3, width, height) for place in range(3)]
    wide = 1.06 * float(shown[["effect", "low", "high"]].abs().max().max())
    for own, outcome in zip(axes, effect_estimates.OUTCOMES, strict=True):
        _panel(own, shown[shown["outcome"] == outcome], names, models)
        own.set_title(outcome, fontsize=8.6)
        own.set_xlim(-wide, wide)
    axes[0].set_yticks(range(len(names)), names, fontsize=7.6)
    for own in axes[1:]:
        own.set_yticks(range(len(names)), [])
    axes[1].set_xlabel(f"change of {METRICS[metric]}")
    looks = [
        Line2D([], [], color=CYCLE[place % len(CYCLE)], marker=MARKERS[place % len(MARKERS)], ms=4, lw=1, label=name)
        for place, name in enumerate(models)
    ]
    fig.legend(handles=looks, loc="lower left", bbox_to_anchor=(0.01, 0.0), ncols=3, handlelength=1.6)
    return fig


def _panel(axes: Axes, shown: pd.DataFrame, names: list[str], models: list[str]) -> None:
    axes.axvline(0, color=MUTED, lw=0.7)
    for index, name in enumerate(names):
        if index and switches.SWITCHES[name].acts == switches.AFTER != switches.SWITCHES[names[index - 1]].acts:
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


def main(argv: list[str] | None = None) -> int:
    """The program."""
    args = parse_args(argv)
    return stage.run(
        "forensics",
        args,
        lambda: forensics(args.scores, args.leaks, args.seed, args.table, args.facts, args.figure, args.settings),
    )


if __name__ == "__main__":
    sys.exit(main())
