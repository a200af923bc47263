"""One hundred SIGKILLs at random moments of the training stages: are all weights those of undisturbed runs, bit by bit?

    python -m benchmarks.kills                    --kills 100 --seed 1; --only train_ddpm for one stage

Each stage is run once undisturbed. Then it is run again and again in fresh folders. Each time it is killed at a moment
drawn evenly from the time of the undisturbed run, and started anew by the same command until it has ended. Resume
points are written after every step (MIXLOC_CHECKPOINT_SECONDS=0), so that many kills fall into the writing of one. A
run is a process forked from this one, which has imported torch: starting an interpreter would take longer than all
else.

Ends with exit status 1 if anything differs, or if anything half-written is left."""

from __future__ import annotations

import os

# Before torch is imported: a process with several threads cannot be forked soundly.
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["MIXLOC_CHECKPOINT_SECONDS"] = "0"

import argparse
import contextlib
import json
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch  # noqa: F401 - for the processes that are forked from this one
import yaml

from benchmarks import generator_data
from workflow_scripts import sample_ddpm, train_classifier, train_ddpm
from workflow_scripts.lib.classify import torchvision_models  # noqa: F401
from workflow_scripts.lib.images.image_set_writer import write_images
from workflow_scripts.lib.split import role_table

ROOT = Path(__file__).resolve().parent.parent
CLASSES, CHANNELS, SIZE, COUNT = ["a", "b", "c"], ["red", "green"], 16, 80
ROLES = ("train", "train", "validation", "calibration", "test")
PLACE = ("--repeat", "0", "--fold", "0", "--seed", "1")
ARMS = ("pool", "mix_loss", "split_batchnorm")
SPENT = "history/seconds"  # alone may differ
# Moments of a kill, as the folder tells them.
EARLY, BETWEEN, WRITING, LATE = "before a resume point", "between two", "while a file was written", "after the weights"


@dataclass
class Task:
    """A stage with its command line; `finals` are files below its folder, the last of them written last."""

    name: str
    main: Callable[[list[str]], int]
    words: Callable[[Path], list[str]]
    finals: tuple[str, ...]


def make_data(folder: Path) -> None:
    """An image set whose classes are bright sides, and its folds."""
    rng = np.random.default_rng(0)
    labels = (rng.random((COUNT, 3)) < 0.4).astype(np.uint8)
    images = rng.integers(0, 60, (COUNT, len(CHANNELS), SIZE, SIZE))
    images[:, 1, :, :6] += 120 * labels[:, 0, None, None]
    images[:, 1, :, -6:] += 120 * labels[:, 1, None, None]
    images[:, 0, :6, :] += 120 * labels[:, 2, None, None]
    ids = np.array([f"i{index:03d}" for index in range(COUNT)], dtype=object)
    groups = np.array([f"g{index // 4}" for index in range(COUNT)], dtype=object)
    with write_images(folder / "images.h5", CHANNELS, CLASSES, SIZE, {"source": "a benchmark"}) as writer:
        writer.append(images.clip(0, 255), labels, list(ids), list(groups))
    roles = np.array([[ROLES[index // 4 % len(ROLES)]] for index in range(COUNT)], dtype=object)
    role_table.write(folder / "folds.csv", ids, groups, roles)


def tasks(data: Path) -> list[Task]:
    """The stages with tiny settings, those that another one reads before it."""
    config = yaml.safe_load((ROOT / "config.yaml").read_text(encoding="utf-8"))
    given = [*("--images", str(data / "images.h5"), "--folds", str(data / "folds.csv")), *PLACE]
    generator = generator_data.generator_settings(
        "unet", {"widths": [16, 16], "blocks": [1, 1], "steps": 40, "batch": 8}
    )
    [plain] = [entry for entry in config["synthetic_sets"] if entry["name"] == "balanced"]
    synthetic_set = plain | {
        "labels": "as_train", "count": 48, "batch": 4, "sampler": "dpmpp_2m_sde", "evaluations": 10,
    }  # fmt: skip
    section = config["train_classifier"] | {"steps": 16, "batch": 8, "checkpoints": 4}
    arms = [
        {"name": name, "method": name, "synthetic_set": "balanced"} | ({} if name == "mix_loss" else {"ratio": 1.0})
        for name in ARMS
    ]

    def settings(value: dict[str, Any]) -> list[str]:
        return ["--settings", json.dumps(value | {"threads": 1})]

    return [
        Task(
            "train_ddpm",
            train_ddpm.main,
            lambda out: [
                *(*given, "--out", str(out / "unet.safetensors"), "--history", str(out / "unet.history.csv")),
                *(*settings(generator), "--log", str(out / "log.txt")),
            ],
            ("unet.safetensors",),
        ),
        Task(
            "sample_ddpm",
            sample_ddpm.main,
            lambda out: [
                *(*given, "--generator", str(data / "train_ddpm" / "unet.safetensors")),
                *("--out", str(out / "balanced.h5"), *settings(synthetic_set), "--log", str(out / "log.txt")),
            ],
            ("balanced.h5",),
        ),
        Task(
            "train_classifier",
            train_classifier.main,
            lambda out: [
                *(*given, "--synthetic", f"balanced={data / 'sample_ddpm' / 'balanced.h5'}"),
                *("--arms-dir", str(out), "--manifest", str(out / "job0.json")),
                *(*settings({"arms": arms, "train_classifier": section}), "--log", str(out / "log.txt")),
            ],
            (
                *(f"{name}/classifier.safetensors" for name in ARMS),
                *(f"{name}/predictions.h5" for name in ARMS),
                "job0.json",
            ),
        ),
    ]


def start(task: Task, out: Path) -> int:
    """The stage as a process of its own; returns its number."""
    out.mkdir(exist_ok=True)
    sys.stdout.flush()
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            with Path(os.devnull).open("w") as nowhere, contextlib.redirect_stderr(nowhere):
                status = task.main(task.words(out))
        finally:
            os._exit(status)
    return pid


def ended(pid: int, seconds: float) -> bool:
    """Whether a process ends by itself within a time; a failure is one of the benchmark."""
    end = time.monotonic() + seconds
    while True:
        found, status = os.waitpid(pid, os.WNOHANG)
        if found:
            if status:
                raise SystemExit(f"a stage failed with status {os.waitstatus_to_exitcode(status)}: see its log")
            return True
        left = end - time.monotonic()
        if left <= 0:
            return False
        time.sleep(min(0.002, left))


def moment(task: Task, out: Path) -> str:
    """At what moment a stage was killed."""
    if any(".part" in path.name for path in out.rglob("*")):
        return WRITING
    if (out / task.finals[-1]).exists() or (len(task.finals) == 1 and (out / task.finals[0]).exists()):
        return LATE
    return BETWEEN if any(out.rglob("*resume.pt")) else EARLY


def content(path: Path) -> Any:
    """What a file says that may not depend on kills: not how many seconds it took."""
    raw = path.read_bytes()
    if path.suffix == ".safetensors":
        size = int.from_bytes(raw[:8], "little")
        described = json.loads(raw[8 : 8 + size])
        described.pop("__metadata__")
        return described, raw[8 + size :]
    if path.suffix == ".h5":
        arrays: dict[str, bytes] = {}

        def visit(name: str, found: Any) -> None:
            if isinstance(found, h5py.Dataset) and found.dtype.kind in "uif" and name != SPENT:
                arrays[name] = found[:].tobytes()

        with h5py.File(path, "r") as file:
            file.visititems(visit)
        return arrays
    return [arm["digest"] for arm in json.loads(raw)["arms"]]


def kill_often(task: Task, data: Path, kills: int, rng: random.Random) -> tuple[bool, str]:
    """Whether all is equal, and a line that tells what was done to a stage and what came of it."""
    started = time.monotonic()
    whole = data / task.name
    pid = start(task, whole)
    ended(pid, 3600)
    longest = time.monotonic() - started
    moments: Counter[str] = Counter()
    runs = resumed = differing = left = 0
    while moments.total() < kills:
        out = data / f"{task.name}-{runs}"
        runs += 1
        while not ended(pid := start(task, out), rng.uniform(0, longest) if moments.total() < kills else 3600):
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            moments[moment(task, out)] += 1
        resumed += (out / "log.txt").read_text(encoding="utf-8").count("going on from")
        differing += sum(content(out / name) != content(whole / name) for name in task.finals)
        left += sum(".part" in path.name or path.name.endswith("resume.pt") for path in out.rglob("*"))
    told = ", ".join(f"{moments[name]} {name}" for name in (EARLY, BETWEEN, WRITING, LATE))
    files = runs * len(task.finals)
    equal = f"{files} files equal" if not differing else f"{differing} of {files} FILES DIFFER"
    rest = f", {left} FILES LEFT BEHIND" if left else ""
    spent = time.monotonic() - started
    line = f"{task.name}: {kills} kills in {runs} runs ({told}), {resumed} resumes: {equal}{rest}; {spent:.0f} s"
    return not differing and not left, line


def main(argv: list[str] | None = None) -> int:
    """The program."""
    out = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    out.add_argument("--kills", type=int, default=100, help="of all stages together")
    out.add_argument("--seed", type=int, default=1)
    out.add_argument("--only", choices=["train_ddpm", "sample_ddpm", "train_classifier"], help="kill this stage alone")
    args = out.parse_args(argv)
    sound = True
    with tempfile.TemporaryDirectory(prefix="mixloc-kills-") as name:
        data = Path(name)
        make_data(data)
        # Most of them where weights are made.
        fractions = {"train_ddpm": 0.4, "sample_ddpm": 0.2, "train_classifier": 0.4}
        for task in tasks(data):
            chosen = fractions[task.name] if args.only is None else float(args.only == task.name)
            equal, line = kill_often(task, data, round(args.kills * chosen), random.Random(f"{args.seed} {task.name}"))
            print(line, flush=True)
            sound = sound and equal
    print("every file is that of an undisturbed run" if sound else "NOT EQUAL")
    return 0 if sound else 1


if __name__ == "__main__":
    sys.exit(main())
