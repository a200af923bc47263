"""What the parts of benchmarks.gpu share: the images, the clock of a device, trainings on it, and the table.

A row of the table has a part, a name, a value with its unit, the aim where there is one, and a remark."""

from __future__ import annotations

import csv
import gc
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks import generator_data
from benchmarks.generator_data import Cells
from workflow_scripts.lib.base import process_pool
from workflow_scripts.lib.compute import device
from workflow_scripts.lib.cost.flops import Counted
from workflow_scripts.lib.cost.workloads import Network
from workflow_scripts.lib.generate.generator_training import Pixels, Training
from workflow_scripts.lib.simulate import simulator

CHANNELS = ("red", "green", "blue", "yellow")
LONG = 10**7  # steps of a training that is only timed: it never comes to an end


@dataclass
class Row:
    """One measured value."""

    part: str
    name: str
    value: float
    unit: str
    aim: str = ""  # such as ">= 0.4"
    remark: str = ""

    def holds(self) -> str:
        """Whether the aim holds: yes, no, or nothing where there is none."""
        if not self.aim:
            return ""
        sign, bound = self.aim.split()
        return "yes" if (self.value >= float(bound) if sign == ">=" else self.value <= float(bound)) else "no"


@dataclass
class Scale:
    """Sizes and times of the measurements: those of a GPU, or small ones to see that everything runs."""

    size: int = 64
    large: tuple[list[int], list[int]] = field(default_factory=lambda: ([128, 192, 256], [2, 2, 2]))
    small: tuple[list[int], list[int]] = field(default_factory=lambda: ([64, 128, 192], [1, 1, 1]))
    large_batch: int = 256
    small_batch: int = 128
    together: int = 8  # generators at once
    arms: int = 16  # classifiers at once
    arm_batch: int = 64
    images: int = 10_000  # sampled
    evaluations: int = 20
    sampling_batch: int = 500
    cells: int = 4000
    judged: int = 1000  # images a distance is computed of
    seconds: float = 5.0  # of each timing
    encoder_steps: int = 600
    draws: int = 20  # random halves for a distance
    products: tuple[int, ...] = (4096, 8192)  # sides of the matrices whose product is timed
    warm_up: int = 8  # calls before a timing, more than a step needs to be captured


TOY = Scale(
    size=16, large=([16, 16], [1, 1]), small=([16, 16], [1, 1]), large_batch=4, small_batch=4, together=2, arms=2,
    arm_batch=4, images=6, evaluations=4, sampling_batch=4,
    cells=160, judged=24, seconds=0.01, encoder_steps=4, draws=3,
    products=(256,), warm_up=4,
)  # fmt: skip


@dataclass
class Bench:
    """Device, images and sizes of one call, and the rows that it has measured."""

    where: torch.device
    dtype: torch.dtype
    scale: Scale
    cells: Cells
    out: Path
    seed: int = 1
    rate: float = 0.0  # FLOP/s of a matrix product, once it is measured
    rows: list[Row] = field(default_factory=list)

    def add(self, part: str, name: str, value: float, unit: str, aim: str = "", remark: str = "") -> None:
        """Add a row and print it."""
        row = Row(part, name, value, unit, aim, remark)
        self.rows.append(row)
        beside = f"  (aim {aim}: {row.holds()})" if aim else ""
        print(f"{part:9} {name:58} {value:12.4g} {unit}{beside}{'  ' + remark if remark else ''}", flush=True)

    def wait(self) -> None:
        """Wait until the device has nothing left to do."""
        if self.where.type == "cuda":
            torch.cuda.synchronize()

    def pace(self, work: Callable[[], Any], seconds: float | None = None) -> float:
        """Calls a second of some work, after a few that are not counted."""
        for _ in range(self.scale.warm_up):
            work()
        self.wait()
        started, calls, chunk = time.perf_counter(), 0, 1
        limit = self.scale.seconds if seconds is None else seconds
        while time.perf_counter() - started < limit:
            for _ in range(chunk):
                work()
            # A look at the clock waits for the device, so looks become rarer.
            self.wait()
            calls, chunk = calls + chunk, min(2 * chunk, 64)
        return calls / (time.perf_counter() - started)

    def settings(self, shape: tuple[list[int], list[int]], batch: int, **changes: Any) -> dict[str, Any]:
        """Settings of the config's U-Net with other widths, blocks and batch."""
        widths, blocks = shape
        sized = {"widths": widths, "blocks": blocks, "batch": batch, "steps": LONG}
        return generator_data.generator_settings("unet", sized | changes)

    def training(self, settings: dict[str, Any], seed: int = 1, compiled: bool = False) -> Training:
        """A generator in training on the cells."""
        pixels = Pixels.fitted(settings["pixels"], self.cells.images)
        shown = (self.cells.images, self.cells.labels, settings, pixels, seed, self.where, self.dtype)
        return Training(*shown, compiled=compiled)

    def network(self, settings: dict[str, Any]) -> Network:
        """Counts of a generator's network for these cells."""
        _, channels, size, _ = self.cells.images.shape
        return Counted().generator(settings, channels, self.cells.labels.shape[1], size)

    def free(self) -> None:
        """Give back memory of what is no longer used."""
        gc.collect()
        if self.where.type == "cuda":
            torch.compiler.reset()
            torch.cuda.empty_cache()

    def write(self) -> None:
        """Write the table as CSV and as markdown."""
        self.out.mkdir(parents=True, exist_ok=True)
        with (self.out / "gpu.csv").open("w", newline="", encoding="utf-8") as handle:
            writer = csv.writer(handle, lineterminator="\n")
            writer.writerow(["part", "name", "value", "unit", "aim", "holds", "remark"])
            for row in self.rows:
                writer.writerow([row.part, row.name, f"{row.value:.6g}", row.unit, row.aim, row.holds(), row.remark])
        lines = [f"{generator_data.machine(self.where)}; {self.cells.source}", ""]
        lines += ["| part | what | value | aim | holds | remark |", "|---|---|---|---|---|---|"]
        lines += [
            f"| {row.part} | {row.name} | {row.value:.4g} {row.unit} | {row.aim} | {row.holds()} | {row.remark} |"
            for row in self.rows
        ]
        (self.out / "gpu.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


def open_bench(where: torch.device, scale: Scale, cells: Cells, out: Path, seed: int) -> Bench:
    """A bench in the device's fast number format."""
    device.choose_kernels(where)
    return Bench(where, device.fast_dtype(where), scale, cells, out, seed)


def simulated(count: int, size: int, seed: int, processes: int) -> Cells:
    """The cells of generator_data.simulated, drawn by several processes."""
    if processes == 1:
        return generator_data.simulated(count, size, seed)
    bounds = [count * number // processes for number in range(processes + 1)]
    with process_pool.pool(processes) as pool:
        jobs = [pool.submit(_drawn, count, size, seed, *span) for span in pairwise(bounds)]
        blocks = [job.result() for job in jobs]
    images, labels, groups = (np.concatenate(column) for column in zip(*blocks, strict=True))
    return Cells(images, labels, groups, list(simulator.COMPARTMENTS), f"{count} simulated cells")


def _drawn(count: int, size: int, seed: int, start: int, stop: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    made = simulator.cells(simulator.World(generator_data.simulator_settings(count, size), seed), range(start, stop))
    return made.images, made.labels.astype(np.uint8), made.genes


def folder_of_images(folder: Path, table: Path | None, groups: Path | None) -> Cells:
    """Cells from a folder of files {Id}_{channel}.png with a table `Id,Target`, and their groups from another.

    `groups` has the columns Id and one more. Without it each image is a group; without a table all are of one class."""
    from PIL import Image

    ids = sorted(path.name.removesuffix(f"_{CHANNELS[0]}.png") for path in folder.glob(f"*_{CHANNELS[0]}.png"))
    if not ids:
        raise SystemExit(f"{folder} has no files like ID_{CHANNELS[0]}.png")
    images = np.stack([[np.asarray(Image.open(folder / f"{i}_{c}.png").convert("L")) for c in CHANNELS] for i in ids])
    targets = _columns(table) if table else {}
    names = [targets.get(identity, "").replace("|", " ").split() or ["cell"] for identity in ids]
    classes = sorted({name for row in names for name in row})
    labels = np.array([[name in row for name in classes] for row in names], dtype=np.uint8)
    owners = _columns(groups) if groups else {}
    return Cells(
        images, labels, np.array([owners.get(identity, identity) for identity in ids]), classes,
        f"{len(ids)} images of {folder.name}",
    )  # fmt: skip


def _columns(path: Path) -> dict[str, str]:
    with path.open(newline="", encoding="utf-8") as handle:
        return {row[0]: row[1] for row in csv.reader(handle)}
