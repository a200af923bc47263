"""sample_fold: samples several synthetic sets of one fold in one process, which loads and captures networks once.

    python -m workflow_scripts.sample_fold --generators unet=generators/unet.safetensors --images images.h5 \\
        --folds folds.csv --repeat 0 --fold 0 --seed 1 --synthetic a=synthetic/a.h5 b=synthetic/b.h5 \\
        --settings '{"sets": [{...}, {...}], "threads": 1}'

Each set has the images and the access record that sample_ddpm gives it. Sets that ask the fold's baseline are not made
here, as the others would wait for it. Snakemake deletes the outputs of a job before it starts it again. Therefore sets
are made in the folder .together beside their places. After a kill finished ones stay, and the one in work goes on."""

from __future__ import annotations

import argparse
import os
import shutil
from pathlib import Path

from workflow_scripts.lib.base import arguments, files, source_code, stage
from workflow_scripts.lib.base.errors import UserError
from workflow_scripts.lib.compute import device
from workflow_scripts.lib.generate import generator_choices
from workflow_scripts.lib.generate.set_sampling import SampledFold, SetFiles, make_set
from workflow_scripts.lib.generate.synthetic_set import Networks

TOGETHER = ".together"


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line; see --help."""
    p = arguments.parser(__doc__)
    p.add_argument("--generators", nargs="+", required=True, metavar="NAME=FILE", help="trained generators")
    p.add_argument("--images", type=Path, required=True, help="image set that the generators were trained on (HDF5)")
    p.add_argument("--folds", type=Path, required=True, help="roles of the images in each fold (CSV)")
    p.add_argument("--repeat", type=int, required=True, help="number of the repeat")
    p.add_argument("--fold", type=int, required=True, help="number of the fold")
    p.add_argument("--seed", type=int, required=True, help="seed of the run")
    p.add_argument("--synthetic", nargs="+", required=True, metavar="SET=FILE", help="synthetic sets to write (HDF5)")
    return p.parse_args(argv)


def sample_fold(args: argparse.Namespace) -> None:
    """Make the sets one after the other, with the same networks."""
    device.use_threads(args.settings["threads"])
    generators = dict(arguments.pairs(args.generators, "--generators"))
    outputs = dict(arguments.pairs(args.synthetic, "--synthetic"))
    code = source_code.stage_digest("sample_fold")
    fold = SampledFold(args.images, args.folds, args.repeat, args.fold, args.seed, code)
    networks = Networks(device.device())
    for settings in args.settings["sets"]:
        name, weaker = settings["name"], generator_choices.weaker_generator(settings)
        needed = [one for one in (settings["generator"], weaker) if one]
        absent = next((one for one in needed if one not in generators), None)
        if absent or name not in outputs:
            flag, missing = ("--generators", absent) if absent else ("--synthetic", name)
            raise UserError(f"synthetic set {name}: {flag} {missing}=… is missing")
        made = _kept(outputs[name])
        made.parent.mkdir(parents=True, exist_ok=True)
        paths = SetFiles(generators[settings["generator"]], made, generators[weaker] if weaker else None)
        make_set(fold, paths, settings, networks)
    _into_place([outputs[settings["name"]] for settings in args.settings["sets"]])


def _kept(out: Path) -> Path:
    """Where a set is until all are made."""
    return out.parent / TOGETHER / out.name


def _into_place(outputs: list[Path]) -> None:
    """Put all sets into their places; a kill in the middle leaves all of them where they were made."""
    for out in outputs:
        with files.atomic(out) as part:
            try:
                os.link(_kept(out), part)
            except OSError:  # a file system without hard links
                shutil.copyfile(_kept(out), part)
    for folder in {_kept(out).parent for out in outputs}:
        shutil.rmtree(folder, ignore_errors=True)


def main(argv: list[str] | None = None) -> int:
    """Entry point; returns the exit status."""
    args = parse_args(argv)
    return stage.run("sample_fold", args, lambda: sample_fold(args))


if __name__ == "__main__":
    stage.leave(main())
