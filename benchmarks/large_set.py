"""100,000 images of 64 px through preprocessing, folds and one epoch: peak memory and seconds of each stage.

    OMP_NUM_THREADS=1 python -m benchmarks.large_set                     # 100,000 images, 400,000 small PNG files
    OMP_NUM_THREADS=1 python -m benchmarks.large_set --images 10000 --folder KEEP

The images are the channels of a few hundred noisy pictures in as many combinations as asked for; their files share
their blocks (hard links). Stages run as programs, one after the other, each with one process. The epoch is that of the
baseline: every train image once. Of a generator, `--generator-steps` steps are trained.

Ends with exit status 1 where a stage takes more than the memory that is aimed at (8 GB)."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from benchmarks.preprocess_images import make_folder
from workflow_scripts.lib.images import known_datasets
from workflow_scripts.lib.images.image_set import ImageSet
from workflow_scripts.lib.split import role_table
from workflow_scripts.lib.split.roles import Role

ROOT = Path(__file__).resolve().parents[1]
SIZE = 64
DISTINCT = 500  # pictures that are drawn
AIM = 8000  # MB


@dataclass
class Taken:
    """What a stage took."""

    stage: str
    seconds: float
    megabytes: int

    def line(self) -> str:
        """As it is printed."""
        verdict = "holds" if self.megabytes <= AIM else "DOES NOT HOLD"
        return f"{self.stage:18} {self.seconds:8.1f} s  {self.megabytes:6d} MB  aim {AIM} MB: {verdict}"


def measured(stage: str, words: list[str], log: Path) -> Taken:
    """Run a stage as a program; its peak memory is that of its process, at least that of this one."""
    started = time.perf_counter()
    command = [sys.executable, "-m", f"workflow_scripts.{stage}", *words]
    with log.open("ab") as told:
        process = subprocess.Popen(command, cwd=ROOT, stdout=told, stderr=told)  # noqa: S603
        _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{stage} failed:\n{log.read_text(encoding='utf-8')[-3000:]}")
    return Taken(stage, time.perf_counter() - started, usage.ru_maxrss // 1024)


def stages(folder: Path, config: dict[str, Any], generator_steps: int, most: int | None) -> Iterator[Taken]:
    """The stages in order; each line is there as soon as its stage has ended."""
    images, folds, log = folder / "images.h5", folder / "folds.csv", folder / "printed.txt"
    data = known_datasets.described(config["data"] | {"source": "kaggle2018"})
    reading = config["preprocess_images"] | {"size": SIZE, "threads": 1, "data": data}
    yield measured(
        "preprocess_images",
        [
            *("--images-dir", str(folder / "set" / "train"), "--table", str(folder / "set" / "train.csv")),
            *("--out", str(images), "--left-out", str(folder / "left_out.csv"), "--settings", json.dumps(reading)),
        ],
        log,
    )
    place = ["--images", str(images), "--repeat", "0", "--seed", "1"]
    yield measured("make_folds", [*place, "--out", str(folds), "--settings", json.dumps(config["make_folds"])], log)
    place += ["--folds", str(folds), "--fold", "0"]
    with ImageSet(images) as source:
        train = role_table.rows(folds, 0, source.ids, Role.TRAIN)
    section = config["train_classifier"]
    epoch = -(-len(train) // section["batch"])
    section |= {"steps": min(epoch, most or epoch), "checkpoints": 1}
    arms = {"arms": [{"name": "real_only", "method": "real_only"}], "train_classifier": section, "threads": 1}
    print(f"one epoch: {len(train)} images, {epoch} steps, of which {section['steps']} are done", flush=True)
    arms_dir = folder / "arms"
    manifest = ["--arms-dir", str(arms_dir), "--manifest", str(arms_dir / "job0.json")]
    yield measured("train_classifier", [*place, *manifest, "--settings", json.dumps(arms)], log)
    if generator_steps:
        [unet] = [entry for entry in config["generators"] if entry["name"] == "unet"]
        generator = unet | {"steps": generator_steps, "threads": 1}
        out = ["--out", str(folder / "unet.safetensors"), "--history", str(folder / "unet.csv")]
        yield measured("train_ddpm", [*place, *out, "--settings", json.dumps(generator)], log)


def main(argv: list[str] | None = None) -> int:
    """The program."""
    out = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    out.add_argument("--images", type=int, default=100_000)
    out.add_argument("--steps", type=int, help="at most so many steps of the epoch: memory shows early")
    out.add_argument("--generator-steps", type=int, default=20)
    out.add_argument("--folder", type=Path, help="work here and keep it; images that it holds are used again")
    args = out.parse_args(argv)
    config = yaml.safe_load((ROOT / "config.yaml").read_text(encoding="utf-8"))
    with tempfile.TemporaryDirectory(prefix="mixloc-large-") as name:
        folder = (args.folder or Path(name)).resolve()
        if not (folder / "set" / "train.csv").exists():
            started = time.perf_counter()
            make_folder(folder / "set", args.images, SIZE, distinct=DISTINCT)
            print(f"{args.images} images of {SIZE} px, made in {time.perf_counter() - started:.0f} s", flush=True)
        most = 0
        for taken in stages(folder, config, args.generator_steps, args.steps):
            print(taken.line(), flush=True)
            most = max(most, taken.megabytes)
    return int(most > AIM)


if __name__ == "__main__":
    sys.exit(main())
