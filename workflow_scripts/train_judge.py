"""train_judge: trains an independent judge of generated cells, where the data are simulated.

A classifier of freshly simulated cells: the same laboratory, other proteins, labels without errors. It has seen no
image of the run, so it can say whether generated cells show the compartments that they were asked to show.

Example:
    python -m workflow_scripts.train_judge --out judge.safetensors --seed 1 \\
        --settings '{"simulate_cells": {...}, "data": {...}, "channels": [...], "training": {...}, "threads": 1}'
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np

from workflow_scripts.lib.base import arguments, files, source_code, stage
from workflow_scripts.lib.base.progress import Progress
from workflow_scripts.lib.base.seeds import derive
from workflow_scripts.lib.classify import classifier_file
from workflow_scripts.lib.classify.classifier_file import Classifier
from workflow_scripts.lib.classify.classifier_training import Images, train
from workflow_scripts.lib.compute import device
from workflow_scripts.lib.compute.checkpoint import Resume
from workflow_scripts.lib.images import label_maps
from workflow_scripts.lib.images.image_set import select_channels
from workflow_scripts.lib.simulate import simulator

FIT, SELECT = 1, 2  # cohorts of proteins; the run's own is 0
SELECT_FRACTION = 0.2  # images to select the checkpoint on, relative to those to fit on


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    out = arguments.parser(__doc__)
    out.add_argument("--out", type=Path, required=True, help="the classifier to write")
    out.add_argument("--seed", type=int, required=True, help="seed of the run")
    return out.parse_args(argv)


def train_judge(out: Path, seed: int, settings: dict[str, Any]) -> None:
    """Simulate fresh cells and train a classifier on them."""
    device.use_threads(settings["threads"])
    cells = settings["simulate_cells"]
    with files.lock(out, lambda holder: stage.log.info("waiting for process %s, which writes %s", holder, out)):
        digest = files.digest([settings, seed, source_code.stage_digest("train_judge")])
        if classifier_file.read_digest(out) == digest:
            stage.log.info("%s was finished meanwhile by another process: kept", out)
            return
        fit, classes = _simulate(settings, seed, FIT, cells["images"])
        select, _ = _simulate(settings, seed, SELECT, max(1, round(SELECT_FRACTION * cells["images"])))
        entry = settings["training"]
        task = files.digest([digest, device.rounding(device.device())])
        resume = Resume(out.with_name(f"{out.stem}.resume.pt"), task)
        with Progress("train", total=entry["steps"]) as bar:

            def report(step: int, numbers: dict[str, float]) -> None:
                bar.update(step, **numbers)

            trained = train(entry, fit, None, select, derive(seed, "judge"), resume, report)
        classifier_file.write(
            out,
            Classifier(
                arm="judge", repeat=-1, fold=-1, classes=classes,
                channels=settings["channels"], size=cells["size"], settings=entry, mean=trained.mean,
                std=trained.std, weights=trained.weights, digest=digest, history=trained.history,
                numbers=trained.numbers,
            ),
        )  # fmt: skip
        resume.clear()
    stage.log.info("mean average precision on other fresh cells: %.3f", trained.numbers["best_validation_map"])


def _simulate(settings: dict[str, Any], seed: int, cohort: int, images: int) -> tuple[Images, list[str]]:
    """Fresh cells with the channels and classes that the images of the run have, and the names of these classes."""
    pixels, labels, data = [], [], settings["data"]
    with Progress(f"simulate cohort {cohort}", total=images) as bar:
        for batch in simulator.simulate(settings["simulate_cells"] | {"images": images}, seed, cohort):
            pixels.append(select_channels(batch.images, list(simulator.CHANNELS), settings["channels"]))
            labels.append(batch.true)
            bar.update(sum(map(len, labels)))
    mapped = label_maps.apply(
        np.concatenate(labels).astype(np.uint8), simulator.COMPARTMENTS,
        data["label_map"], data["unmapped"], data["emptied"],
    )  # fmt: skip
    return Images(np.concatenate(pixels)[mapped.kept], mapped.labels), mapped.classes


def main(argv: list[str] | None = None) -> int:
    """The program."""
    args = parse_args(argv)
    return stage.run("train_judge", args, lambda: train_judge(args.out, args.seed, args.settings))


if __name__ == "__main__":
    sys.exit(main())
