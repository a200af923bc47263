"""stress_test: what every trained arm of a fold answers for test images that are corrupted on purpose.

Defocus, shot noise, weak staining and the like (lib/images/corruptions.py), each at five strengths, act on the
preprocessed test images. All arms see the same corrupted images. Nothing is trained or chosen: test images are read for
scoring alone. aggregate_stress makes scores of the answers.

Example:
    python -m workflow_scripts.stress_test --images images.h5 --folds folds.csv --repeat 0 --fold 0 --seed 1 \\
        --arms arms/job0.json --out stress.h5 --settings '{"corruptions": ["defocus"], "threads": 1}'
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from workflow_scripts.lib.base import arguments, stage
from workflow_scripts.lib.base.errors import UserError
from workflow_scripts.lib.base.progress import Progress
from workflow_scripts.lib.classify import stress_run
from workflow_scripts.lib.classify.arm_job import FoldImages
from workflow_scripts.lib.compute import device
from workflow_scripts.lib.images import corruption_choices
from workflow_scripts.lib.scores import stress_file


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    out = arguments.parser(__doc__)
    out.add_argument("--images", type=Path, required=True, help="the image set")
    out.add_argument("--folds", type=Path, required=True, help="the table of roles of this repeat")
    out.add_argument("--repeat", type=int, required=True, help="number of the repeat")
    out.add_argument("--fold", type=int, required=True, help="number of the fold")
    out.add_argument("--arms", type=Path, nargs="+", required=True, help="the lists of arms of this fold")
    out.add_argument("--seed", type=int, required=True, help="seed of the run")
    out.add_argument("--out", type=Path, required=True, help="answers to write")
    return out.parse_args(argv)


def stress_test(args: argparse.Namespace) -> None:
    """Write the answers of all arms under every condition."""
    device.use_threads(args.settings["threads"])
    conditions = corruption_choices.conditions(args.settings["corruptions"])
    if not conditions:
        raise UserError("there is nothing to do: stress_test.corruptions names no corruption")
    fold = FoldImages(args.images, args.folds, args.repeat, args.fold)
    stage.log.info("%d conditions: %s", len(conditions), device.describe(device.device()))
    with fold.source, Progress("conditions", len(conditions)) as bar:
        answers = stress_run.answers(args.arms, fold, conditions, args.seed, bar.update)
    stress_file.write(args.out, answers)


def main(argv: list[str] | None = None) -> int:
    """The program."""
    args = parse_args(argv)
    return stage.run("stress_test", args, lambda: stress_test(args))


if __name__ == "__main__":
    sys.exit(main())
