"""sample_ddpm: samples one synthetic set for one fold from a trained generator.

    python -m workflow_scripts.sample_ddpm --generator generators/unet.safetensors --images images.h5 \\
        --folds folds.csv --repeat 0 --fold 0 --seed 1 --out synthetic/as_train.h5 --settings '{...}'

Writes an image set (HDF5) in the layout of a real one, with ids syn-000000, syn-000001, ... and group `synthetic`.
Column `reference` names the train image with the reference channels, or that an image started from. Column `against`
names the class that guidance pushed away from. Each exists only where the synthetic set's settings use it.

The access record is that of the generator, of a weaker one that guides it (--weaker), and the training rows that the
set was made from. Where the set depends on the fold's baseline (--baseline: a list of arms whose first entry it is),
the baseline's rows for validation and training are added.
Images of a batch depend on the seed and the batch's number alone."""

from __future__ import annotations

import argparse
from pathlib import Path

from workflow_scripts.lib.base import arguments, source_code, stage
from workflow_scripts.lib.compute import device
from workflow_scripts.lib.generate.set_sampling import SampledFold, SetFiles, make_set
from workflow_scripts.lib.generate.synthetic_set import Networks


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line; see --help."""
    p = arguments.parser(__doc__)
    p.add_argument("--generator", type=Path, required=True, help="trained generator (safetensors)")
    p.add_argument("--images", type=Path, required=True, help="image set that the generator was trained on (HDF5)")
    p.add_argument("--folds", type=Path, required=True, help="roles of the images in each fold (CSV)")
    p.add_argument("--repeat", type=int, required=True, help="number of the repeat")
    p.add_argument("--fold", type=int, required=True, help="number of the fold")
    p.add_argument("--baseline", type=Path, help="list of arms (JSON) that begins with the fold's baseline, if asked")
    p.add_argument("--weaker", type=Path, help="generator that guidance pushes away from, if the set names one")
    p.add_argument("--seed", type=int, required=True, help="seed of the run")
    p.add_argument("--out", type=Path, required=True, help="synthetic set to write (HDF5)")
    return p.parse_args(argv)


def sample_ddpm(args: argparse.Namespace) -> None:
    """Make one synthetic set."""
    settings = dict(args.settings)
    device.use_threads(settings.pop("threads"))
    code = source_code.stage_digest("sample_ddpm")
    fold = SampledFold(args.images, args.folds, args.repeat, args.fold, args.seed, code)
    paths = SetFiles(args.generator, args.out, args.weaker, args.baseline)
    make_set(fold, paths, settings, Networks(device.device()))


def main(argv: list[str] | None = None) -> int:
    """Entry point; returns the exit status."""
    args = parse_args(argv)
    return stage.run("sample_ddpm", args, lambda: sample_ddpm(args))


if __name__ == "__main__":
    stage.leave(main())
