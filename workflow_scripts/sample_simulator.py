"""sample_simulator: draws one synthetic set for one fold with the simulator: the ceiling of any generator.

Where cells are simulated, a synthetic set may name the generator `simulator`. Its images are what the best possible
generator would make: cells from the same laboratory with exactly the labels that were asked for. Each shows a protein
of its own that no other image of the run shows, so no test protein is among them. Labels are planned from the train
part, as for any other synthetic set.

Example:
    python -m workflow_scripts.sample_simulator --images images.h5 --folds folds.csv --repeat 0 --fold 0 --seed 1 \\
        --out synthetic/true_cells.h5 \\
        --settings '{"synthetic_set": {"name": "true_cells", ...}, "simulate_cells": {...}}'

Writes an image set (HDF5) as sample_ddpm does. Its access_record is the train rows whose labels were read for it."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np

from workflow_scripts.lib.base import arguments, stage
from workflow_scripts.lib.base.errors import UserError
from workflow_scripts.lib.base.progress import Progress
from workflow_scripts.lib.base.seeds import derive
from workflow_scripts.lib.generate import generator_checks, generator_choices, label_plans
from workflow_scripts.lib.images.image_set import ImageSet, select_channels
from workflow_scripts.lib.images.image_set_writer import write_images
from workflow_scripts.lib.simulate import simulator
from workflow_scripts.lib.split import role_table
from workflow_scripts.lib.split.regimes import regime_of
from workflow_scripts.lib.split.roles import Role

COHORTS = 3  # cohorts of proteins already in use: that of the run, and two of train_judge


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    p = arguments.parser(__doc__)
    p.add_argument("--images", type=Path, required=True, help="image set of the run (HDF5)")
    p.add_argument("--folds", type=Path, required=True, help="roles of the images in each fold (CSV)")
    p.add_argument("--repeat", type=int, required=True, help="number of the repeat")
    p.add_argument("--fold", type=int, required=True, help="number of the fold")
    p.add_argument("--seed", type=int, required=True, help="seed of the run")
    p.add_argument("--out", type=Path, required=True, help="synthetic set to write (HDF5)")
    return p.parse_args(argv)


def sample_simulator(
    images: Path, table: Path, repeat: int, fold: int, seed: int, out: Path, settings: dict[str, Any]
) -> None:
    """Plan labels from the train part, and draw fresh cells that have them."""
    synthetic_set = settings["synthetic_set"]
    problem = generator_checks.simulator_problem(synthetic_set)
    if problem:
        raise UserError(f"synthetic set {synthetic_set['name']}: {problem}")
    own = derive(seed, repeat, fold, "plan", synthetic_set["name"])
    with ImageSet(images) as source:
        if source.classes != list(simulator.COMPARTMENTS):
            raise UserError(
                f"{images} has other classes than the simulator draws: take another generator for synthetic set "
                f"{synthetic_set['name']}"
            )
        rows = role_table.rows(table, fold, source.ids, Role.TRAIN, regime_of(synthetic_set))
        labels = label_plans.planned(
            synthetic_set, source.labels(rows, "fit"), np.random.default_rng(derive(own, "labels")), None
        )
        if not labels.any(axis=1).all():
            raise UserError(f"synthetic set {synthetic_set['name']}: the simulator draws no cells without any class")
        channels, classes, size, record = source.channels, source.classes, source.size, source.access_record()
    pixels = np.empty((len(labels), len(channels), size, size), dtype=np.uint8)
    cells = settings["simulate_cells"] | {"size": size}
    with Progress("simulate", total=len(labels)) as bar:
        done = 0
        for which, batch in simulator.as_asked(cells, seed, COHORTS + own, labels.astype(bool)):
            pixels[which] = select_channels(batch.images, list(simulator.CHANNELS), channels)
            done += len(which)
            bar.update(done)
    attrs = {
        "source": f"generator {generator_choices.SIMULATOR}, synthetic set {synthetic_set['name']}",
        "access_record": record.to_json(),
        "synthetic_set": json.dumps(synthetic_set, sort_keys=True),
        "repeat": repeat,
        "fold": fold,
    }
    with write_images(out, channels, classes, size, attrs) as writer:
        names = [f"syn-{number:06d}" for number in range(len(labels))]
        writer.append(pixels, labels, names, ["synthetic"] * len(labels))
    stage.log.info("%d cells of as many proteins that no other image shows", len(labels))


def main(argv: list[str] | None = None) -> int:
    """The program."""
    args = parse_args(argv)
    return stage.run(
        "sample_simulator",
        args,
        lambda: sample_simulator(args.images, args.folds, args.repeat, args.fold, args.seed, args.out, args.settings),
    )


if __name__ == "__main__":
    stage.leave(main())
