"""Do samplers of 20 evaluations make images as good as those of 1,000 ancestral steps, from the same weights?

    python -m benchmarks.sampler_distance
    python -m benchmarks.sampler_distance --objectives velocity_cosine epsilon_linear --device cuda
    python -m benchmarks.sampler_distance --trained generators/unet.safetensors --images images.h5

Trains the generator of config.yaml on some groups (or takes a trained one), and a classifier on others. Prints the
Fréchet distance in the classifier's features between images of each sampler and real ones of groups that neither has
seen, corrected for sample size. All samplers have the same labels, those of the real images, and the same first noise.
The ratio is that of the means over several seeds; its error comes from the seeds.

Needs torch, numpy, pandas, h5py, safetensors and PyYAML; without --images also scipy."""

from __future__ import annotations

import argparse
import math
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks import generator_data, generator_runs
from benchmarks.generator_data import Cells, Encoder
from workflow_scripts.lib.base.seeds import derive
from workflow_scripts.lib.compute import device
from workflow_scripts.lib.generate import generator_checks, generator_choices
from workflow_scripts.lib.generate.generator_file import Generator

AIM = 1.05
SAMPLERS = tuple(name for name in generator_choices.SAMPLERS if name != "ancestral")


def ready(args: argparse.Namespace, cells: Cells, objective: str | None, where: torch.device) -> tuple[Generator, dict]:
    """A trained generator, and the rows of the parts: encoder, select, train, held."""
    if args.trained is not None:
        made = generator_runs.read(args.trained)
        if made.access_record.count != len(cells) or made.classes != cells.classes:
            raise SystemExit(f"{args.trained} was not trained on {cells.source}: give its own image set (--images)")
        fitted = np.zeros(len(cells), dtype=bool)
        fitted[made.access_record.of("fit")] = True
        return made, generator_data.split(cells, args.seed, fitted)
    parts = generator_data.split(cells, args.seed)
    settings = generator_data.generator_settings(args.generator, args.settings)
    if objective is not None:
        settings |= {"objective": objective}
    problem = generator_checks.generator_problem(
        settings, cells.images.shape[-1], [str(number) for number in range(cells.images.shape[1])]
    )
    if problem:
        raise SystemExit(problem)
    dtype = device.fast_dtype(where)
    made, trained = generator_runs.train(cells.part(parts["train"]), settings, args.seed, where, dtype)
    print(f"{settings['objective']}: {settings['steps']} steps of {settings['batch']} in {trained.seconds:.0f} s")
    return made, parts


def measure(
    args: argparse.Namespace, made: Generator, encode: Encoder, held: Cells, where: torch.device
) -> dict[str, list[float]]:
    """Distance of each sampler's images, a value a seed; pairs of sampler and evaluations in words are the keys."""
    ways = {"ancestral": args.reference} | dict.fromkeys(args.samplers, args.evaluations)
    real = encode(held.images)
    found: dict[str, list[float]] = {name: [] for name in ways}
    for repeat in range(args.repeats):
        seed = derive(args.seed, "repeat", repeat)
        rows = np.random.default_rng(seed).choice(len(held), args.count, replace=args.count > len(held))
        features: dict[str, Any] = {}
        for name, evaluations in ways.items():
            settings = generator_runs.synthetic_set(
                sampler=name,
                evaluations=evaluations,
                guidance={"scale": args.guidance, "interval": [0.2, 20]},
                clip=args.clip,
                batch=args.batch,
            )
            problem = generator_checks.set_problem(settings, made.settings, made.channels)
            if problem:
                raise SystemExit(problem)
            started = time.monotonic()
            images = generator_runs.sample(made, held.labels[rows], settings, seed, where)
            features[name] = (encode(images), None)
            print(f"  seed {repeat}: {name}, {evaluations} evaluations, {time.monotonic() - started:.1f} s", flush=True)
            if args.sheets is not None:
                sheet = args.sheets / f"{made.settings['objective']}-{name}-{repeat}.png"
                generator_data.contact_sheet(sheet, images[:96])
        for name, distance in generator_runs.distances(real, held.groups, features).items():
            found[name].append(distance.value)
    return found


def table(found: dict[str, list[float]], evaluations: int) -> None:
    """Distances, and their ratios to that of the ancestral chain."""
    chain = np.array(found["ancestral"])
    print(f"{'sampler':12} {'distance':>9} {'by seed':>28} {'ratio':>7} {'error':>6}")
    for name, values in found.items():
        by_seed = " ".join(f"{value:.4f}" for value in values)
        ratio = float(np.mean(values) / chain.mean())
        # Of a ratio of means: from the seeds' residuals, which are paired.
        left = np.array(values) - ratio * chain
        error = float(left.std(ddof=1) / math.sqrt(len(left)) / chain.mean()) if len(left) > 1 else float("nan")
        said = ""
        if name != "ancestral":
            said = f"  (aim: at most {AIM}: {'holds' if ratio <= AIM else 'DOES NOT HOLD'})"
        print(f"{name:12} {np.mean(values):9.4f} {by_seed:>28} {ratio:7.3f} {error:6.3f}{said}", flush=True)


def main(argv: list[str] | None = None) -> None:
    """Print a table for each objective."""
    out = generator_data.common_flags(__doc__)
    out.add_argument("--trained", type=Path, help="a generator of stage train_ddpm; needs --images, its image set")
    out.add_argument("--hpa", action="store_true", help="the cells of presets/hpa_cells.yaml (MIXLOC_HPA_CELLS)")
    out.add_argument(
        "--objectives", nargs="+", default=[None], choices=generator_choices.OBJECTIVES, help="one after the other"
    )
    out.add_argument("--samplers", nargs="+", default=list(SAMPLERS), choices=generator_choices.SAMPLERS)
    out.add_argument("--evaluations", type=int, default=20)
    out.add_argument("--reference", type=int, default=1000, help="steps of the ancestral chain")
    out.add_argument("--count", type=int, default=1000, help="images of each sampler and seed")
    out.add_argument("--repeats", type=int, default=3)
    out.add_argument("--guidance", type=float, default=1.0, help="1: none")
    out.add_argument("--no-clip", dest="clip", action="store_false", help="let estimates leave the range of pixels")
    out.add_argument("--batch", type=int, default=125)
    out.add_argument("--encoder-steps", type=int, default=600)
    out.add_argument("--sheets", type=Path, help="folder for contact sheets")
    args = out.parse_args(argv)
    if args.trained is not None and args.images is None:
        out.error("--trained needs --images, the image set that it was trained on")
    where = generator_data.use_device(args.device, args.threads)
    cells = generator_data.load_cells(args, hpa=args.hpa)
    print(f"{cells.source}; {generator_data.machine(where)}", flush=True)
    for objective in args.objectives:
        made, parts = ready(args, cells, objective, where)
        encode, score = generator_data.train_encoder(cells, parts, args.encoder_steps, args.seed, where)
        held = cells.part(parts["held"])
        print(
            f"encoder: mean average precision {score:.3f}; {len(held)} real images of {len(np.unique(held.groups))} "
            f"groups; guidance {args.guidance:g}, estimates {'kept in range' if args.clip else 'left as they are'}"
        )
        table(measure(args, made, encode, held, where), args.evaluations)


if __name__ == "__main__":
    main()
