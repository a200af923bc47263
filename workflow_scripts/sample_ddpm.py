"""sample_ddpm: samples one synthetic set for one fold from a trained generator.

    python -m workflow_scripts.sample_ddpm --generator generators/unet.safetensors --images images.h5 \\
        --folds folds.csv --repeat 0 --fold 0 --seed 1 --out synthetic/as_train.h5 --settings '{...}'

Writes an image set (HDF5) in the layout of a real one, with ids syn-000000, syn-000001, ... and group `synthetic`.
Column `reference` names the train image with the reference channels, or that an image started from. Column `against`
names the class that guidance pushed away from. Each exists only where the synthetic set's settings use it.

The access record is that of the generator and the training rows that the set was made from. Where the set depends on
the fold's baseline (--baseline: a list of arms whose first entry it is), the baseline's rows for validation and
training are added.
Images of a batch depend on the seed and the batch's number alone."""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import torch

from workflow_scripts.lib.base import arguments, files, source_code, stage
from workflow_scripts.lib.base.errors import UserError
from workflow_scripts.lib.base.progress import duration
from workflow_scripts.lib.base.seeds import derive
from workflow_scripts.lib.compute import device
from workflow_scripts.lib.compute.checkpoint import Resume
from workflow_scripts.lib.generate import baseline_errors, generator_choices, generator_file
from workflow_scripts.lib.generate.generator_file import Generator
from workflow_scripts.lib.generate.requests import Requests, make_requests
from workflow_scripts.lib.generate.synthetic_set import make_images
from workflow_scripts.lib.images.image_set import ImageSet
from workflow_scripts.lib.images.image_set_writer import write_images
from workflow_scripts.lib.split import role_table
from workflow_scripts.lib.split.regimes import regime_of
from workflow_scripts.lib.split.roles import Role


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line; see --help."""
    p = arguments.parser(__doc__)
    p.add_argument("--generator", type=Path, required=True, help="trained generator (safetensors)")
    p.add_argument("--images", type=Path, required=True, help="image set that the generator was trained on (HDF5)")
    p.add_argument("--folds", type=Path, required=True, help="roles of the images in each fold (CSV)")
    p.add_argument("--repeat", type=int, required=True, help="number of the repeat")
    p.add_argument("--fold", type=int, required=True, help="number of the fold")
    p.add_argument("--baseline", type=Path, help="list of arms (JSON) that begins with the fold's baseline, if asked")
    p.add_argument("--seed", type=int, required=True, help="seed of the run")
    p.add_argument("--out", type=Path, required=True, help="synthetic set to write (HDF5)")
    return p.parse_args(argv)


def sample_ddpm(args: argparse.Namespace) -> None:
    """Make one synthetic set; resumes from a checkpoint beside --out after a kill."""
    settings, out = dict(args.settings), args.out
    seed = derive(args.seed, args.repeat, args.fold, "plan", settings["name"])
    device.use_threads(settings.pop("threads"))
    with files.lock(out, lambda holder: stage.log.info("waiting for process %s, which writes %s", holder, out)):
        generator, requests = _requested(args, settings, seed)
        where = device.device()
        access_record = requests.access_record.to_json()
        task = [settings, seed, generator.digest, access_record, requests.digest(), device.rounding(where)]
        task.append(source_code.stage_digest("sample_ddpm"))
        digest = files.digest(task)
        if _finished(out, digest):
            stage.log.info("%s was finished meanwhile by another process: kept", out)
            return
        resume = Resume(out.with_name(f"{out.stem}.resume.pt"), digest)
        _announce(settings, len(requests.labels), where)
        attrs: dict[str, Any] = {
            "source": f"generator {generator.settings['name']}, synthetic set {settings['name']}",
            "access_record": access_record,
            "generator": json.dumps(generator.settings, sort_keys=True),
            "generator_digest": generator.digest,
            "synthetic_set": json.dumps(settings, sort_keys=True),
            "repeat": args.repeat,
            "fold": args.fold,
            "task_digest": digest,
        }
        started = time.monotonic()
        images = make_images(generator, requests, settings, seed, where, resume)
        spent, count = time.monotonic() - started, len(images)
        form = (generator.channels, generator.classes, generator.size)
        with write_images(out, *form, attrs | requests.attrs) as writer:
            ids = [f"syn-{number:06d}" for number in range(count)]
            writer.append(images, requests.labels, ids, ["synthetic"] * count, requests.columns(generator.classes))
        resume.clear()
    stage.log.info("%d images in %s (%.1f a second)", count, duration(spent), count / max(spent, 1e-9))


def _requested(args: argparse.Namespace, settings: dict[str, Any], seed: int) -> tuple[Generator, Requests]:
    """Generator and sampling requests; UserError where they or the images do not fit."""
    generator, regime = generator_file.read(args.generator), regime_of(settings)
    problem = generator_choices.set_problem(settings, generator.settings, generator.channels)
    if problem:
        raise UserError(f"synthetic set {settings['name']}: {problem}")
    with ImageSet(args.images) as source:
        if (generator.classes, generator.channels, generator.size) != (source.classes, source.channels, source.size):
            raise UserError(
                f"the generator was trained on other classes, channels or sizes than those of {args.images}"
            )
        baseline = None
        if generator_choices.asks_baseline(settings):
            if args.baseline is None:
                raise UserError(
                    f"synthetic set {settings['name']} asks the fold's trained baseline: --baseline arms/job0.json"
                )
            place = (args.folds, args.repeat, args.fold)
            baseline = baseline_errors.read_baseline(args.baseline, source, *place, regime)
        rows = role_table.rows(args.folds, args.fold, source.ids, Role.TRAIN, regime)
        return generator, make_requests(settings, generator, source, rows, baseline, seed)


def _announce(settings: dict[str, Any], count: int, where: torch.device) -> None:
    start = settings.get("start_noise")
    stage.log.info(
        "synthetic set %s: %d images%s, %s, %d evaluations, guidance %g, %s",
        settings["name"],
        count,
        f" varied from noise level {start:g}" if start else "",
        settings["sampler"],
        settings["evaluations"],
        settings["guidance"]["scale"],
        device.describe(where),
    )


def _finished(out: Path, digest: str) -> bool:
    if not out.exists():
        return False
    with ImageSet(out) as source:
        return source.attrs.get("task_digest") == digest


def main(argv: list[str] | None = None) -> int:
    """Entry point; returns the exit status."""
    args = parse_args(argv)
    return stage.run("sample_ddpm", args, lambda: sample_ddpm(args))


if __name__ == "__main__":
    stage.leave(main())
