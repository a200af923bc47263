"""train_ddpm: trains one class-conditional diffusion model on the train part of one fold, as its label regime shows it.

    python -m workflow_scripts.train_ddpm --images images.h5 --folds folds.csv --repeat 0 --fold 0 --seed 1 \\
        --out generators/unet.safetensors --history generators/unet.history.csv --settings '{...}'

Writes the averaged weights with settings, channels, classes, pixel scaling, seconds and the record of the rows read
(safetensors with metadata), and the course of the training: step, images, loss, learning_rate, seconds. Where the
settings have a `snapshot`, its weights are in the file too. With `ema_widths` the width of the average is chosen by the
loss on the validation part. With `--origin` it goes on from the weights of another run's generator; with `steps: 0` it
takes that one as it is. Under torchrun several processes share the training; the result is the same but for
rounding."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from workflow_scripts.lib.base import arguments
from workflow_scripts.lib.compute import multiprocess
from workflow_scripts.lib.compute.live_course import Live
from workflow_scripts.lib.generate import generator_run
from workflow_scripts.lib.generate.generator_run import Wish
from workflow_scripts.lib.generate.training_images import Fold


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line; see --help."""
    p = arguments.parser(__doc__)
    p.add_argument("--images", type=Path, required=True, help="image set (HDF5)")
    p.add_argument("--folds", type=Path, required=True, help="roles of the images in each fold (CSV)")
    p.add_argument("--repeat", type=int, required=True, help="number of the repeat")
    p.add_argument("--fold", type=int, required=True, help="number of the fold")
    p.add_argument("--baseline", type=Path, help="list of arms (JSON) that begins with the regime's baseline, if asked")
    p.add_argument("--origin", type=Path, help="generator of another run to start from (safetensors)")
    p.add_argument("--seed", type=int, required=True, help="seed of the run")
    p.add_argument("--out", type=Path, required=True, help="generator to write (safetensors)")
    p.add_argument("--history", type=Path, required=True, help="course of the training to write (CSV)")
    arguments.add_progress(p)
    p.add_argument("--strip-minutes", type=float, default=0, help="minutes between strips of samples; 0: none")
    return p.parse_args(argv)


def train_ddpm(args: argparse.Namespace) -> None:
    """Train the generator that the command line describes."""
    fold = Fold(args.folds, args.repeat, args.fold, args.baseline)
    live = Live(args.progress, args.strip_minutes)
    generator_run.make(Wish(args.images, fold, args.seed, args.out, args.history, args.origin, live), args.settings)


def main(argv: list[str] | None = None) -> int:
    """Entry point; returns the exit status."""
    args = parse_args(argv)
    return multiprocess.run("train_ddpm", args, lambda: train_ddpm(args))


if __name__ == "__main__":
    sys.exit(main())
