"""write_submission: what an arm says about the unlabelled test images of Kaggle 2018, as the table that Kaggle takes.

Reads the images one block at a time, as preprocess_images reads the others, and averages the probabilities of the arm's
classifiers over all folds and repeats. A class is predicted where its mean probability reaches the mean of its
thresholds; an image that reaches none gets its most probable class. The table (`Id,Predicted`) has every Id of the
sample once, in the sample's order. The images are looked at for nothing else.

Example:
    python -m workflow_scripts.write_submission --arms repeat0/fold0/arms/job0.json repeat0/fold1/arms/job0.json \\
        --thresholds thresholds.csv --images-dir test --sample sample_submission.csv --out submission.csv \\
        --settings '{"arm": "mix_loss", "batch": 128, "preprocess_images": {...}, "threads": 1}'
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np

from workflow_scripts.lib.base import arguments, files, stage
from workflow_scripts.lib.base.errors import UserError
from workflow_scripts.lib.base.progress import Progress
from workflow_scripts.lib.classify import ensemble
from workflow_scripts.lib.compute import device
from workflow_scripts.lib.images import image_list, invalid_input, new_images, user_tables
from workflow_scripts.lib.images.invalid_input import Fault
from workflow_scripts.lib.images.read_image import Reader


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    out = arguments.parser(__doc__)
    out.add_argument("--arms", type=Path, nargs="+", required=True, help="lists of arms (JSON) of all folds")
    out.add_argument("--thresholds", type=Path, required=True, help="thresholds of all arms and folds (CSV)")
    out.add_argument("--images-dir", type=Path, required=True, help="folder of the test images")
    out.add_argument("--sample", type=Path, required=True, help="sample_submission.csv: the Ids and their order")
    out.add_argument("--classes", type=Path, help="CSV with number and name; without it names come from the settings")
    out.add_argument("--out", type=Path, required=True, help="the table to write")
    return out.parse_args(argv)


def write_submission(args: argparse.Namespace) -> None:
    """Write the table `args.out`."""
    settings = args.settings
    device.use_threads(settings["threads"])
    for path, what in ((args.sample, "sample table"), (args.images_dir, "folder of test images")):
        if not path.exists():
            raise UserError(
                f"{path}: there is no such {what}. Name them in write_submission.images and .sample, or let them be "
                "fetched (fetch_images.kaggle.test_images: true)"
            )
    ids = read_ids(args.sample)
    reader = Reader(args.images_dir, settings["preprocess_images"])
    data = settings["preprocess_images"]["data"]
    arm = ensemble.load(args.arms, args.thresholds, settings["arm"], reader, "write_submission.arm")
    numbers = class_numbers(arm.classes, args.classes, list(data["class_names"] or []))
    reader.learn_depth(ids)
    bad: list[Fault] = []
    # Rows are written at the end: an unreadable image gets the class that is most probable over all others.
    predicted: dict[str, str] = {}
    total = np.zeros(len(numbers))
    with Progress("images", len(ids)) as bar:
        for names, images in new_images.blocks(reader, ids, int(settings["batch"]), int(settings["threads"]), bad):
            probabilities = arm.probabilities(images)
            total += probabilities.sum(axis=0)
            for name, row in zip(names, ensemble.decided(probabilities, arm.thresholds), strict=True):
                predicted[name] = " ".join(map(str, sorted(numbers[index] for index in np.flatnonzero(row))))
            bar.update(len(predicted) + len({entry.id for entry in bad}))
    faults = (args.log or args.out).with_suffix(".bad_input.csv")
    invalid_input.settle(bad, len(ids), data["on_invalid"], data["invalid_limit"], faults)
    usual = str(numbers[int(total.argmax())])
    files.write_text(args.out, "Id,Predicted\n" + "".join(f"{name},{predicted.get(name, usual)}\n" for name in ids))
    stage.log.info("%d images, %d of them by the usual class %s", len(ids), len(ids) - len(predicted), usual)


def read_ids(sample: Path) -> list[str]:
    """The Ids of the sample, in its order; each once."""
    ids = user_tables.read_table(sample).need("Id")
    problem = next((text for text in map(image_list.id_problem, ids) if text), None)
    if problem or len(set(ids)) != len(ids) or not ids:
        raise UserError(f"{sample} is no sample of a submission: {problem or 'an Id stands there twice, or none'}")
    return ids


def class_numbers(classes: list[str], table: Path | None, named: list[str]) -> list[int]:
    """The numbers that classes have in the competition, by its table or the names from the settings."""
    names = user_tables.read_classes(table) if table else named
    unknown = [label for label in classes if label not in names]
    if unknown:
        raise UserError(
            f"the class {unknown[0]!r} has no number in the competition: a submission needs its classes as they are, "
            "without data.label_map"
        )
    return [names.index(label) for label in classes]


def main(argv: list[str] | None = None) -> int:
    """The program."""
    args = parse_args(argv)
    return stage.run("write_submission", args, lambda: write_submission(args))


if __name__ == "__main__":
    sys.exit(main())
