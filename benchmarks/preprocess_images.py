"""What preprocess_images costs beyond decoding: beside processes that only decode and area-average the same files.

    OMP_NUM_THREADS=1 python -m benchmarks.preprocess_images --images 8000 --processes 2
    OMP_NUM_THREADS=1 python -m benchmarks.preprocess_images --memory 2000 20000

The first makes its own four-channel PNGs of 512 px: the channels of 250 images, in as many combinations as asked for.
It brings them to 128 px both ways in turn, start of the program included, and prints the ratio of the throughputs. A
ratio of 1 means that the stage costs nothing beyond decoding. The second prints the peak memory of the stage for sets
of so many images of 64 px."""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import yaml
from PIL import Image

from workflow_scripts.lib.images import known_datasets

ROOT = Path(__file__).resolve().parents[1]
CHANNELS = ["red", "green", "blue", "yellow"]


def make_image(task: tuple[Path, int, int]) -> None:
    """Four channels that compress about as real ones do: soft structures, and noise where there is light."""
    folder, number, side = task
    rng = np.random.default_rng(number)
    for channel in CHANNELS:
        soft = Image.fromarray(rng.random((8, 8), dtype=np.float32) ** 3).resize((side, side), Image.Resampling.BICUBIC)
        light = np.clip(np.asarray(soft), 0, 1)
        pixels = np.clip(light * 120 + light * rng.normal(0, 12, light.shape), 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"i{number}_{channel}.png", compress_level=6)


def make_folder(folder: Path, count: int, side: int, distinct: int | None = None) -> None:
    """A folder in the Kaggle layout. Beyond `distinct` images the files are further names of those of the first ones,
    in other combinations, so that no image is the copy of another."""
    drawn = min(count, distinct or count)
    (folder / "train").mkdir(parents=True)
    with ProcessPoolExecutor() as pool:
        list(pool.map(make_image, [(folder / "train", number, side) for number in range(drawn)], chunksize=16))
    for number in range(drawn, count):
        for place, channel in enumerate(CHANNELS):
            donor = (number + (2**place - 1) * (number // drawn)) % drawn
            (folder / "train" / f"i{number}_{channel}.png").hardlink_to(folder / "train" / f"i{donor}_{channel}.png")
    rows = "".join(f"i{number},{number % 28}\n" for number in range(count))
    (folder / "train.csv").write_text("Id,Target\n" + rows)


def decode_all(names: list[str]) -> int:
    """Decode and average, and nothing else."""
    return sum(Image.open(name).reduce(4).size[0] for name in names)


def bare(folder: Path, processes: int) -> float:
    """Seconds of processes that decode and average all files."""
    names = sorted(str(path) for path in (folder / "train").iterdir())
    start = time.perf_counter()
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        list(pool.map(decode_all, [names[part::processes] for part in range(processes)]))
    return time.perf_counter() - start


def stage(folder: Path, processes: int, size: int) -> float:
    """Seconds of the whole stage, run as a program."""
    config = yaml.safe_load((ROOT / "config.yaml").read_text(encoding="utf-8"))
    given = config["preprocess_images"] | {"size": size, "threads": processes}
    given["data"] = known_datasets.described(config["data"] | {"source": "kaggle2018"})
    command = [
        sys.executable, "-m", "workflow_scripts.preprocess_images", "--images-dir", str(folder / "train"), "--table",
        str(folder / "train.csv"), "--out", str(folder / "out" / "images.h5"), "--left-out",
        str(folder / "out" / "left_out.csv"), "--settings", json.dumps(given),
    ]  # fmt: skip
    start = time.perf_counter()
    subprocess.run(command, cwd=ROOT, check=True, stderr=subprocess.DEVNULL)  # noqa: S603
    return time.perf_counter() - start


def busy(work: Callable[[], float]) -> tuple[float, float]:
    """Seconds by the clock, and CPU seconds of the child processes: a busy machine shows in the clock alone."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    took = work()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return took, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def compare(count: int, processes: int, rounds: int) -> None:
    """Both ways in turn, so that a busy machine slows both; the best round of each counts."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        make_folder(folder, count, 512, distinct=250)
        size = sum(path.stat().st_size for path in (folder / "train").iterdir()) / (4 * count)
        print(f"{count} images of four channels, {size / 1e3:.0f} kB a file; {processes} processes", flush=True)
        times = [
            (*busy(lambda: bare(folder, processes)), *busy(lambda: stage(folder, processes, 128)))
            for _ in range(rounds)
        ]
    only, only_busy, whole, whole_busy = (min(column) for column in zip(*times, strict=True))
    for name, took, worked in (("decode and average only", only, only_busy), ("preprocess_images", whole, whole_busy)):
        print(f"  {name:24} {took:7.2f} s  {count / took:7.1f} images/s  {worked:7.2f} s CPU")
    print(f"  ratio of throughputs     {only / whole:7.2f}    by CPU seconds {only_busy / whole_busy:.2f}")


def measure_memory(count: int) -> None:
    """Runs in a process of its own, whose children are the stage's processes."""
    with tempfile.TemporaryDirectory() as place:
        make_folder(Path(place) / "set", count, 64)
        # The pool that made the folder was a child as well, but a small one.
        before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
        took = stage(Path(place) / "set", 1, 64)
        peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
        told = "" if peak > before else " (at most)"
        print(f"  {count:6} images  {peak / 1024:7.0f} MB{told}  {took:6.1f} s", flush=True)


def main() -> None:
    """Print one or the other."""
    out = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, value in (("images", 8000), ("processes", len(os.sched_getaffinity(0))), ("rounds", 3)):
        out.add_argument(f"--{name}", type=int, default=value)
    out.add_argument("--memory", type=int, nargs="+", help="numbers of images whose peak memory to measure")
    out.add_argument("--one", type=int, help=argparse.SUPPRESS)
    args = out.parse_args()
    if args.one:
        measure_memory(args.one)
    elif args.memory:
        print("peak memory of preprocess_images, one process, 64 px, four channels")
        for count in args.memory:
            subprocess.run([sys.executable, "-m", "benchmarks.preprocess_images", "--one", str(count)], check=True)  # noqa: S603
    else:
        compare(args.images, args.processes, args.rounds)


if __name__ == "__main__":
    main()
