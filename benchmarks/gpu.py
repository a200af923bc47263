"""What a GPU makes of the networks here: speed beside its product rate, and quality after some minutes.

    python -m benchmarks.gpu --out gpu
    python -m benchmarks.gpu --out gpu --only train,profile
    python -m benchmarks.gpu --out gpu --images cells/train --table cells/train.csv --groups cells/groups.csv

One process, without Snakemake and without a network; about eight minutes on a data-centre GPU. Parts, in this order:
    train      generators: FLOP/s beside the product rate, alone and several at once; beside peers of equal size
    classify   small classifiers, alone and several that take turns
    sample     10,000 images
    input      the part of a step that waits for its examples
    profile    operations and kernels of a step, layout conversions among them
    quality    Fréchet distance, recall and copies after --minutes; contact sheets
    peers      the same distance for networks of equal size: diffusers' where it is there, and EDM2 blocks
    variants   the same distance for variants of the generator (only where it is asked for)

Prints each value, and writes gpu.csv, gpu.md and contact sheets (PNG) to --out. A part that fails says so, and the
others go on. On a CPU it takes tiny networks, to see that everything runs."""

from __future__ import annotations

import argparse
import functools
import os
import time
import traceback
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from benchmarks import generator_data, gpu_bench, gpu_quality, gpu_speed
from benchmarks.gpu_bench import TOY, Bench, Scale
from workflow_scripts.lib.base import stage
from workflow_scripts.lib.base.progress import duration

PARTS = ("train", "classify", "sample", "input", "profile", "quality", "peers")
ALL = (*PARTS, "variants")


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    out = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    out.add_argument("--out", type=Path, required=True, help="folder for the table and the contact sheets")
    out.add_argument("--only", default=",".join(PARTS), help=f"parts, separated by commas, of {', '.join(ALL)}")
    out.add_argument("--minutes", type=float, default=2.0, help="of training in the part quality")
    out.add_argument("--variant-minutes", type=float, default=0.5, help="of training of each variant")
    out.add_argument("--peer-minutes", type=float, default=0.4, help="of training of each network in the part peers")
    out.add_argument("--seconds", type=float, help="of each timing")
    out.add_argument("--images", type=Path, help="folder of {Id}_{channel}.png; simulated cells where none is given")
    out.add_argument("--table", type=Path, help="CSV of Id,Target for --images")
    out.add_argument("--groups", type=Path, help="CSV of Id and a group for --images")
    out.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    out.add_argument("--threads", type=int, default=2, help="threads on a CPU")
    out.add_argument("--seed", type=int, default=1)
    args = out.parse_args(argv)
    args.only = args.only.split(",")
    unknown = [name for name in args.only if name not in ALL]
    if unknown:
        out.error(f"--only names {unknown[0]!r}; parts are {', '.join(ALL)}")
    return args


def parts(bench: Bench, args: argparse.Namespace) -> dict[str, Callable[[], None]]:
    """What each part does."""
    judge = functools.cache(lambda: gpu_quality.Judge(bench))
    return {
        "train": lambda: gpu_speed.train(bench),
        "classify": lambda: gpu_speed.classify(bench),
        "sample": lambda: gpu_speed.sample(bench),
        "input": lambda: gpu_speed.waiting(bench),
        "profile": lambda: gpu_speed.profiled(bench),
        "quality": lambda: gpu_quality.quality(bench, judge(), args.minutes),
        "peers": lambda: gpu_quality.beside_peers(bench, judge(), args.peer_minutes),
        "variants": lambda: gpu_quality.variants(bench, judge(), args.variant_minutes),
    }


def open_bench(args: argparse.Namespace) -> Bench:
    """The bench of a command line: its device, its sizes and its images."""
    where = generator_data.use_device(args.device, args.threads)
    scale = Scale() if where.type == "cuda" else TOY
    if args.seconds is not None:
        scale = replace(scale, seconds=args.seconds)
    started = time.monotonic()
    if args.images is not None:
        cells = gpu_bench.folder_of_images(args.images, args.table, args.groups)
    else:
        processes = (os.cpu_count() or 1) if where.type == "cuda" else 1
        cells = gpu_bench.simulated(scale.cells, scale.size, args.seed, processes)
    print(f"{generator_data.machine(where)}; {cells.source}, {duration(time.monotonic() - started)}", flush=True)
    return gpu_bench.open_bench(where, scale, cells, args.out, args.seed)


def main(argv: list[str] | None = None) -> int:
    """Measure, and write what was found; 1 where a part failed."""
    args = parse_args(argv)
    # Which way steps run, and what had to be given up, in lines of the log.
    stage.log.addHandler(stage.logging.StreamHandler())
    bench, failed, began = open_bench(args), [], time.monotonic()
    bench.out.mkdir(parents=True, exist_ok=True)
    gpu_speed.product(bench)
    for name, work in parts(bench, args).items():
        if name not in args.only:
            continue
        started = time.monotonic()
        try:
            work()
        except Exception:
            # The machine may be at hand only once: whatever else can be measured is.
            traceback.print_exc()
            failed.append(name)
        bench.free()
        bench.write()
        took, whole = (duration(time.monotonic() - since) for since in (started, began))
        print(f"{name}: {'FAILED' if name in failed else 'done'} in {took}, {whole} in all", flush=True)
    print(f"table and sheets: {bench.out}")
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
