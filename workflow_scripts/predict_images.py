"""predict_images: what an arm says about new images, averaged over its classifiers of all folds and repeats.

Images are read as preprocess_images reads those of the run. Decisions use the thresholds that were calibrated in the
run, averaged over folds. Writes into --out:
    images.csv    Id, labels, probabilities; unlike_training marks images that are unlike the training set; in_run marks
                  images that the run itself has, whose answers are too good
    groups.csv    the same for each group of the table: the mean over its images
    left_out.csv  images that cannot be used, and why
    about.json    the arm, its thresholds, counts and warnings

Example:
    python -m workflow_scripts.predict_images --images images.h5 --folds 0=repeat0/folds.csv \\
        --arms repeat0/fold0/arms/job0.json --thresholds thresholds.csv --images-dir new --table new.csv \\
        --out predicted/new --settings '{"arm": "pool", "batch": 128, "unlike": 0.99, "preprocess_images": {...},
        "threads": 1}'
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from workflow_scripts.lib.base import arguments, files, stage
from workflow_scripts.lib.base.errors import UserError
from workflow_scripts.lib.base.progress import Progress
from workflow_scripts.lib.classify import ensemble
from workflow_scripts.lib.compute import device
from workflow_scripts.lib.fidelity import new_predictions
from workflow_scripts.lib.fidelity.new_predictions import Answers, Predictor
from workflow_scripts.lib.images import invalid_input, new_images
from workflow_scripts.lib.images.image_set import ImageSet
from workflow_scripts.lib.images.invalid_input import Fault
from workflow_scripts.lib.images.read_image import Reader


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    out = arguments.parser(__doc__)
    out.add_argument("--images", type=Path, required=True, help="the image set of the run")
    arguments.add_role_tables(out)
    out.add_argument("--arms", type=Path, nargs="+", required=True, help="lists of arms (JSON) of all folds")
    out.add_argument("--thresholds", type=Path, required=True, help="thresholds of all arms and folds (CSV)")
    out.add_argument("--images-dir", type=Path, required=True, help="folder of the new images")
    out.add_argument("--table", type=Path, help="CSV with their Ids and perhaps groups; without it: all in the folder")
    out.add_argument(
        "--left-out", type=Path, help="CSV of what was left out before, such as whole fields without cells"
    )
    out.add_argument("--out", type=Path, required=True, help="folder to write")
    return out.parse_args(argv)


def predict_images(args: argparse.Namespace) -> None:
    """Write the folder `args.out`."""
    settings = args.settings
    device.use_threads(settings["threads"])
    if not args.images_dir.is_dir():
        raise UserError(f"{args.images_dir} is no folder of images (predict.images)")
    data = settings["preprocess_images"]["data"]
    reader = Reader(args.images_dir, settings["preprocess_images"])
    listed = new_images.listed(reader, args.table, data)
    reader.learn_depth(listed.ids)
    members = ensemble.members_of(args.arms, settings["arm"], "predict.arm")
    with ImageSet(args.images) as source:
        predictor = Predictor(members, source, dict(args.folds), reader)
    bad: list[Fault] = []
    answers = Answers(predictor.classes)
    with Progress("images", len(listed.ids)) as bar:
        for names, images in new_images.blocks(
            reader, listed.ids, int(settings["batch"]), int(settings["threads"]), bad, listed.pixel_sizes
        ):
            answers.add(names, *predictor.answer(images))
            bar.update(len(answers.ids) + len({entry.id for entry in bad}))
    faults = (args.log or args.out).with_suffix(".bad_input.csv")
    invalid_input.leave_out(bad, len(listed.ids), faults)
    before = invalid_input.read_list(args.left_out) if args.left_out else []
    cuts = {
        level: ensemble.mean_thresholds(args.thresholds, settings["arm"], predictor.classes, level)
        for level in (ensemble.IMAGE, ensemble.PROTEIN)
    }
    groups = dict(zip(listed.ids, listed.groups, strict=True)) if listed.groups else {}
    about = new_predictions.describe(answers, settings["arm"], members, cuts, settings["unlike"])
    about["left_out"] = len({entry.id for entry in before + bad})
    with files.atomic(args.out) as part:
        part.mkdir()
        new_predictions.write_images(part / "images.csv", answers, groups, cuts[ensemble.IMAGE], settings["unlike"])
        new_predictions.write_groups(part / "groups.csv", answers, groups, cuts[ensemble.PROTEIN])
        invalid_input.write_list(part / "left_out.csv", before + bad)
        files.write_json(part / "about.json", about)
    for warning in about["warnings"]:
        stage.log.warning("%s", warning)
    told = np.unique(list(groups.values())).size if groups else 0
    stage.log.info("%d images, %d groups: %s", len(answers.ids), told, args.out)


def main(argv: list[str] | None = None) -> int:
    """The program."""
    args = parse_args(argv)
    return stage.run("predict_images", args, lambda: predict_images(args))


if __name__ == "__main__":
    stage.leave(main())
