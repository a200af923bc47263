"""train_classifier: trains the arms of one fold, and predicts validation, calibration and test images.

Writes, for every arm in the settings, under --arms-dir:
    {arm}/classifier.safetensors   the weights that were best on validation, and how to use them
    {arm}/predictions.h5           logits with ids of the validation, calibration and test images
and, as the declared output, a manifest of the arms. An arm whose settings, inputs and code are unchanged is kept as it
is, so changing one re-trains that one, however arms are put together into jobs. Test images are read only when no arm
of the job is left to train. Arms that ask the fold's trained baseline (filtered, relabel, weighted) need --baseline:
the manifest of the job whose first arm it is. Under torchrun several processes share the training of each arm; with
--at-once several arms train side by side in one process. Neither changes what is written, but for rounding.

Example:
    python -m workflow_scripts.train_classifier --images images.h5 --folds folds.csv --repeat 0 --fold 0 --seed 1 \\
        --synthetic as_train=synthetic/as_train.h5 --arms-dir arms --manifest arms/job0.json \\
        --settings '{"arms": [{"name": "real_only", "method": "real_only"}], "train_classifier": {...},
                     "threads": 1}'
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

from workflow_scripts.lib.base import arguments, files, source_code, stage
from workflow_scripts.lib.base.errors import UserError
from workflow_scripts.lib.base.seeds import derive
from workflow_scripts.lib.classify import arm_run
from workflow_scripts.lib.classify.arm_job import Arm, FoldImages, Job
from workflow_scripts.lib.compute import device, multiprocess
from workflow_scripts.lib.compute.live_course import Live
from workflow_scripts.lib.scores import prediction_file


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    out = arguments.parser(__doc__)
    out.add_argument("--images", type=Path, required=True, help="the image set")
    out.add_argument("--folds", type=Path, required=True, help="the table of roles of this repeat")
    out.add_argument("--repeat", type=int, required=True, help="number of the repeat")
    out.add_argument("--fold", type=int, required=True, help="number of the fold")
    out.add_argument("--synthetic", nargs="*", default=[], metavar="SET=PATH", help="synthetic sets by name")
    out.add_argument("--generators", nargs="*", default=[], metavar="NAME=PATH", help="generators by name")
    out.add_argument(
        "--embeddings", nargs="*", default=[], metavar="SET=PATH", help="embeddings; of real images: =PATH"
    )
    out.add_argument("--baseline", type=Path, help="the manifest of the job whose first arm is the fold's baseline")
    out.add_argument("--arms-dir", type=Path, required=True, help="folder of the arms")
    out.add_argument("--manifest", type=Path, required=True, help="list of the arms to write (JSON)")
    out.add_argument("--seed", type=int, required=True, help="seed of the run")
    out.add_argument("--at-once", type=int, default=1, help="arms that train side by side; it changes no result")
    arguments.add_progress(out)
    return out.parse_args(argv)


def train_classifier(args: argparse.Namespace) -> None:
    """Train and predict all arms of the settings that are not finished; write the manifest."""
    device.use_threads(args.settings["threads"])
    if args.at_once > 1 and multiprocess.size() > 1:
        raise UserError("--at-once is for one process; several share one arm after the other: leave it out")
    synthetic, generators, embeddings = (
        {name: Path(path) for name, _, path in (text.partition("=") for text in given)}
        for given in (args.synthetic, args.generators, args.embeddings)
    )
    code = source_code.stage_digest("train_classifier")
    fold, where = FoldImages(args.images, args.folds, args.repeat, args.fold), device.device()
    job = Job(fold, synthetic, args.baseline, args.arms_dir, args.seed, args.settings, code, generators, embeddings)
    with fold.source:
        arms = job.arms()
        kept = {arm.name for arm in arms if multiprocess.decided(arm.finished)}

        def work(arm: Arm) -> None:
            place = f"arm {arm.name} ({arms.index(arm) + 1} of {len(arms)})"
            if arm.name in kept:
                stage.log.info("%s: unchanged, kept", place)
                return
            stage.log.info("%s: %s", place, device.describe(where))
            with multiprocess.held(arm.lock()):
                if not multiprocess.decided(arm.trained):
                    seed = derive(args.seed, args.repeat, args.fold)
                    arm_run.train_arm(arm, fold.under(arm.regime), seed, args.at_once == 1, Live(args.progress))

        arm_run.each(work, arms, args.at_once, where)
        if not multiprocess.first():
            return
        fold.forget_training()
        for arm in arms:
            with arm.lock():
                if not arm.finished:
                    arm_run.predict_arm(arm, fold.under(arm.regime))
    entries = [_entry(arm, args.manifest) | {"reused": arm.name in kept} for arm in arms]
    files.write_json(args.manifest, {"arms": entries})


def _entry(arm: Arm, manifest: Path) -> dict[str, Any]:
    """Entry of an arm in the manifest."""
    if not arm.finished:
        raise UserError(f"{arm.folder} was changed by another run meanwhile: run again when that has ended")
    # Relative to the manifest's folder, so that results can be moved.
    paths = {key: os.path.relpath(getattr(arm, key), manifest.parent) for key in ("predictions", "classifier")}
    seconds = prediction_file.read_predictions(arm.predictions, parts=()).numbers["seconds"]
    return {"arm": arm.name, "digest": arm.digest, "seconds": seconds} | paths


def main(argv: list[str] | None = None) -> int:
    """The program."""
    args = parse_args(argv)
    return multiprocess.run("train_classifier", args, lambda: train_classifier(args))


if __name__ == "__main__":
    stage.leave(main())
