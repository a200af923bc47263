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
from matplotlib.figure import Figure

from workflow_scripts.lib.base import arguments, stage
from workflow_scripts.lib.base.errors import UserError, raise_if_passing
from workflow_scripts.lib.base.files import atomic, write_json
from workflow_scripts.lib.page import effect_figures, figure_style
from workflow_scripts.lib.study import designs, effect_estimates, switches

METRICS = {
    "macro_f1": "macro-F1 at tuned thresholds",
    "macro_f1_half": "macro-F1 at 0.5, else the most probable class",
    "map": "mAP",
}
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
    names, estimated, described = [name for name in switches.varied(section) if name not in idle], [], {}
    for model in switches.models(section, base):
        training, after = (switches.of_model(names, model, after=kind) for kind in (False, True))
        for metric in METRICS:
            own = effect_estimates.response(lines, design, model["name"], metric, training, after)
            estimated += effect_estimates.effects(own, section["confidence"])
        described[model["name"]] = effect_estimates.named(own.design) | {"after": after, "trainings": own.size}
    effects = effect_estimates.table_of(estimated)
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
        figure_style.save(_figure(effects, metric), figure)
    for text in sentences:
        stage.log.info("%s", text)


def _rows(design: designs.Design) -> list[list[str]]:
    """The switches that are on in each row."""
    return [[name for name, sign in zip(design.factors, row, strict=True) if sign > 0] for row in design.signs]


def _read(path: Path) -> pd.DataFrame:
    try:
        return pd.read_csv(path)
    except (OSError, ValueError) as error:
        raise_if_passing(error)
        raise UserError(f"{path} is no table of scores ({error}): delete it and run again") from None


def _figure(effects: pd.DataFrame, metric: str) -> Figure:
    acts_after = {name: switch.acts == switches.AFTER for name, switch in switches.SWITCHES.items()}
    shown = effects[effects["metric"] == metric]
    return effect_figures.draw(shown, effect_estimates.OUTCOMES, acts_after, METRICS[metric])


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
