"""plot_training: training curves of generators and classifiers, from their histories.

generators: training loss of every generator of every fold. classifiers: training loss and validation scores of every
arm by step. Each is written as svg, pdf and png under the stem of its path; the table holds every number drawn.

Example:
    python -m workflow_scripts.plot_training --histories 'unet/repeat0/fold0=unet.history.csv' --arms job0.json \\
        --generators figures/training_generators.svg --classifiers figures/training_classifiers.svg \\
        --table training.csv --settings '{"controls": {"mix_loss": "mix_loss_real"}}'
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from workflow_scripts.lib.base import arguments, stage
from workflow_scripts.lib.base.errors import UserError, raise_if_passing
from workflow_scripts.lib.base.files import atomic
from workflow_scripts.lib.page import figure_style
from workflow_scripts.lib.page.training_figures import SHOWN, draw_classifiers, draw_generators
from workflow_scripts.lib.scores import arm_list, prediction_file

COLUMNS = ["kind", "name", "repeat", "fold", "step", "quantity", "value"]


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    p = arguments.parser(__doc__)
    p.add_argument(
        "--histories", nargs="*", default=[], metavar="NAME/REPEAT/FOLD=CSV", help="course of each generator's training"
    )
    p.add_argument("--arms", type=Path, nargs="+", required=True, help="lists of trained arms (job*.json)")
    p.add_argument("--generators", type=Path, required=True, help="figure to write: generators")
    p.add_argument("--classifiers", type=Path, required=True, help="figure to write: classifiers")
    p.add_argument("--table", type=Path, required=True, help="table to write: every number drawn (CSV)")
    return p.parse_args(argv)


def plot_training(
    histories: list[str], arms: list[Path], generators: Path, classifiers: Path, table: Path, settings: dict[str, Any]
) -> None:
    """Collect the histories into one table, and draw it. `settings["controls"]`: arm -> its control."""
    parts = [_generator_history(text) for text in histories] + [_arm_history(path) for path in _predictions(arms)]
    courses = pd.concat([part for part in parts if len(part)] or [pd.DataFrame(columns=COLUMNS)], ignore_index=True)
    with atomic(table) as part:
        courses.to_csv(part, index=False)
    controls = settings["controls"]
    with figure_style.style():
        figure_style.save(draw_generators(courses[courses["kind"] == "generator"]), generators)
        figure_style.save(draw_classifiers(courses[courses["kind"] == "classifier"], controls), classifiers)


def _generator_history(text: str) -> pd.DataFrame:
    where, _, path = text.partition("=")
    try:
        name, repeat, fold = where.rsplit("/", 2)
        table = pd.read_csv(path)
    except (ValueError, OSError) as error:
        raise_if_passing(error)
        raise UserError(f"--histories {text!r} is not name/repeat/fold=table: {error}") from None
    if "step" not in table or "loss" not in table:
        raise UserError(f"{path} has no columns step and loss: delete it and run again")
    numbers = {"step": table["step"], "quantity": "loss", "value": table["loss"]}
    return pd.DataFrame({"kind": "generator", "name": name, "repeat": int(repeat), "fold": int(fold)} | numbers)


def _predictions(manifests: list[Path]) -> list[Path]:
    return [entry["predictions"] for manifest in manifests for entry in arm_list.read(manifest)]


def _arm_history(path: Path) -> pd.DataFrame:
    predictions = prediction_file.read_predictions(path, parts=())
    history = {name: np.ravel(np.asarray(values)) for name, values in predictions.history.items()}
    frames = []
    for quantity in SHOWN:
        if quantity not in history:
            continue
        values = history[quantity]
        # Losses are kept by step, validation scores by checkpoint: the axis of the same length belongs to them.
        steps = next(
            (
                history[name]
                for name in ("step", "checkpoint", "loss_step")
                if len(history.get(name, ())) == len(values)
            ),
            np.arange(1, len(values) + 1),
        )
        where = {"kind": "classifier", "name": predictions.arm, "repeat": predictions.repeat, "fold": predictions.fold}
        frames.append(pd.DataFrame(where | {"step": steps, "quantity": quantity, "value": values}))
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame(columns=COLUMNS)


def main(argv: list[str] | None = None) -> int:
    """The program."""
    args = parse_args(argv)
    return stage.run(
        "plot_training",
        args,
        lambda: plot_training(args.histories, args.arms, args.generators, args.classifiers, args.table, args.settings),
    )


if __name__ == "__main__":
    sys.exit(main())
