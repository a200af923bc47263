"""Options of a generator at equal core-seconds: do they make better cells than the default settings?

    OMP_NUM_THREADS=1 python -m benchmarks.generator_options --out options.csv
    OMP_NUM_THREADS=1 python -m benchmarks.generator_options --out options.csv --core-seconds 40 --seeds 1 2 3

Simulated cells of 32 px and the config's first generator, which paints the protein into real cells. For each seed all
options train for as many steps as the core-seconds hold at the pace measured before (processor time of this process).
What an option needs besides is taken from its steps: the choice of a weight average, the training of a weaker network.
Images are drawn for cells of the train part. They are judged beside held-out cells of other proteins:
    frechet, recall    in features of a classifier of further proteins
    label_map          that classifier's mean average precision on the labels that were asked for
Rows are added to --out one by one; what is there already is not done again. The last lines compare with the default."""

from __future__ import annotations

import argparse
import csv
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.metrics import average_precision_score

from benchmarks import generator_data, generator_runs
from benchmarks.generator_data import Cells
from benchmarks.gpu_bench import Bench, Scale
from benchmarks.gpu_quality import Judge
from workflow_scripts.lib.base.seeds import derive
from workflow_scripts.lib.compute import device
from workflow_scripts.lib.generate import average_choice
from workflow_scripts.lib.generate.generator_file import Generator
from workflow_scripts.lib.generate.generator_training import Pixels, Training

COLUMNS = ("seed", "option", "steps", "core_seconds", "frechet", "recall", "precision", "label_map", "about")
DEFAULT = "default"
CHOOSING = [0.05, 0.1, 0.15, 0.2]  # widths of ema_widths
WEAKER = 0.2  # fraction of the core-seconds that a weaker generator takes
EARLIER = {"scale": 2.0, "against": "earlier"}


@dataclass(frozen=True)
class Option:
    """One variant: settings of the generator and of the guidance that differ from the config's."""

    name: str
    generator: dict[str, Any] = field(default_factory=dict)
    guidance: dict[str, Any] = field(default_factory=dict)
    trained_as: str = ""  # another option whose generator it samples from
    weaker: dict[str, Any] | None = None  # settings of the weaker generator that guides it


OPTIONS = (
    Option(DEFAULT, {"snapshot": 0.25}),  # the snapshot serves two options below, and costs nothing
    Option("no guidance", guidance={"scale": 1.0}, trained_as=DEFAULT),
    Option("autoguidance by the snapshot at a quarter", guidance=EARLIER, trained_as=DEFAULT),
    Option("the same, scale 1.5", guidance=EARLIER | {"scale": 1.5}, trained_as=DEFAULT),
    Option("autoguidance by a weaker generator", guidance={"scale": 2.0}, weaker={"widths": [32, 48]}),
    Option("width of the average chosen after training", {"ema_widths": CHOOSING}),
    Option("weighting: uncertainty", {"weighting": "uncertainty"}),
    Option("attention: true", {"attention": True}),
    Option("patch: 1", {"patch": 1}),
    Option("patch: 4", {"patch": 4}),
)


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    out = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    out.add_argument("--out", type=Path, required=True, help="table (CSV), to which rows are added")
    out.add_argument("--core-seconds", type=float, default=40.0, help="of the training of each option")
    out.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    out.add_argument("--only", nargs="*", help="names of options; all where none is given")
    out.add_argument("--cells", type=int, default=3000, help="simulated cells")
    out.add_argument("--size", type=int, default=32, help="side of the cells")
    out.add_argument("--count", type=int, default=300, help="images that are drawn")
    out.add_argument("--encoder-steps", type=int, default=400, help="steps of the classifier that judges")
    out.add_argument("--settings", type=generator_data.json.loads, default={}, help="JSON: settings of the generator")
    return out.parse_args(argv)


@dataclass
class Trial:
    """One seed: cells, a judge, and the generators trained so far."""

    args: argparse.Namespace
    seed: int

    def __post_init__(self) -> None:
        where = generator_data.use_device("cpu", 1)
        cells = generator_data.simulated(self.args.cells, self.args.size, self.seed)
        scale = Scale(judged=self.args.count, encoder_steps=self.args.encoder_steps, draws=20)
        dtype = device.fast_dtype(where)
        self.bench = Bench(where, dtype, scale, cells, self.args.out.parent, self.seed)
        self.judge = Judge(self.bench)
        self.train: Cells = self.judge.train
        self.base = generator_data.config()["generators"][0] | {"reference_places": [0, 2, 3]} | self.args.settings
        self.set = generator_data.config()["synthetic_sets"][0] | {"batch": 100}
        self._trained: dict[str, tuple[Generator, int, float]] = {}

    # Training ---------------------------------------------------------------------------------------------------------

    def _training(self, settings: dict[str, Any]) -> Training:
        pixels = Pixels.fitted(settings["pixels"], self.train.images)
        shown = (self.train.images, self.train.labels, settings, pixels, derive(self.seed, "generator"))
        return Training(*shown, self.bench.where, self.bench.dtype)

    def _pace(self, settings: dict[str, Any]) -> float:
        """Core-seconds of a step."""
        training = self._training(settings)
        for _ in range(3):
            training.advance()
        limit = max(0.05, self.args.core_seconds / 20)
        started, steps = time.process_time(), 0
        while time.process_time() - started < limit:
            training.advance()
            steps += 1
        return (time.process_time() - started) / steps

    def trained(self, name: str, changes: dict[str, Any], seconds: float) -> tuple[Generator, int, float]:
        """Generator of these settings after so many core-seconds, its steps, and the core-seconds that it took."""
        if name in self._trained:
            return self._trained[name]
        settings = self.base | changes
        pace, reserved = self._pace(settings | {"steps": 10**6}), 0.0
        if widths := settings.get("ema_widths"):
            # The choice looks at the network's answers alone, about a third of a step's work.
            reserved = len(widths) * average_choice.EXAMPLES / settings["batch"] * pace / 3
        steps = max(4, int((seconds - reserved) / pace))
        started = time.process_time()
        training = self._training(settings | {"steps": steps})
        while training.step < steps:
            training.advance()
            training.losses.clear()
        done, about = training.trained(), {}
        if widths:
            # Cells that neither the generator nor the comparison sees.
            selected = self.bench.cells.part(generator_data.split(self.bench.cells, self.seed)["select"])
            held = (selected.images, selected.labels)
            how = (settings, training.pixels, self.seed, self.bench.where, self.bench.dtype)
            weights, about = average_choice.chosen_weights(done, held, *how)
            done = replace(done, weights=weights)
        spent = time.process_time() - started
        made = generator_runs.as_generator(self.train, settings | {"name": name}, done)
        made = replace(made, digest=name, earlier=done.earlier, average=about)
        self._trained[name] = made, steps, spent
        return self._trained[name]

    # Judging ----------------------------------------------------------------------------------------------------------

    def row(self, option: Option) -> dict[str, Any]:
        """What one option reaches."""
        own, weaker, seconds = option.trained_as or option.name, None, self.args.core_seconds
        changes = next(one.generator for one in OPTIONS if one.name == own)
        spent = 0.0
        if option.weaker:
            weaker, _, spent = self.trained(f"weaker of {own}", option.weaker, WEAKER * seconds)
            seconds *= 1 - WEAKER
        made, steps, more = self.trained(own, changes, seconds)
        images, labels = self._drawn(made, weaker, option)
        found = self.judge.judge(images)
        names = {measure: f"made, {measure}" for measure in ("frechet", "recall", "precision")}
        return (
            {"seed": self.seed, "option": option.name, "steps": steps, "core_seconds": round(spent + more, 1)}
            | {measure: round(found[name], 4) for measure, name in names.items()}
            | {"label_map": round(self._label_map(images, labels), 4)}
            | {"about": f"width {made.average['width']:g}" if made.average else ""}
        )

    def _drawn(self, made: Generator, weaker: Generator | None, option: Option) -> tuple[np.ndarray, np.ndarray]:
        rows = np.random.default_rng(self.seed).integers(len(self.train), size=self.args.count)
        some, guidance = self.train.part(rows), self.set["guidance"] | option.guidance
        settings = self.set | {"guidance": guidance | ({"weaker": weaker.settings["name"]} if weaker else {})}
        given = some.images if made.settings["reference_fraction"] else None
        images = generator_runs.sample(made, some.labels, settings, self.seed, self.bench.where, given, weaker)
        return images, some.labels

    def _label_map(self, images: np.ndarray, labels: np.ndarray) -> float:
        with torch.inference_mode():
            features = torch.from_numpy(self.judge.encode(images)).float()
            scores = self.judge.encode.network.head(features).numpy()
        shown = [k for k in range(labels.shape[1]) if 0 < labels[:, k].sum() < len(labels)]
        return float(np.mean([average_precision_score(labels[:, k], scores[:, k]) for k in shown]))


def measured(args: argparse.Namespace, trial: Callable[[argparse.Namespace, int], Trial] = Trial) -> Iterator[dict]:
    """Rows of all seeds and options that the table does not have yet."""
    there = {(row["seed"], row["option"]) for row in read(args.out)}
    for seed in args.seeds:
        left = [one for one in OPTIONS if (str(seed), one.name) not in there]
        left = [one for one in left if not args.only or one.name in args.only]
        if left:
            cells = trial(args, seed)
            for option in left:
                yield cells.row(option)


def read(path: Path) -> list[dict[str, str]]:
    """Rows of a table; none where there is no file."""
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as handle:
        return list(csv.DictReader(handle))


def told(rows: list[dict[str, str]]) -> list[str]:
    """The table in markdown: means over seeds, and each seed's difference from the default."""
    by_name: dict[str, dict[str, dict[str, str]]] = {}
    for row in rows:
        by_name.setdefault(row["option"], {})[row["seed"]] = row
    lines = [
        "| option | core-seconds | steps | Fréchet distance | by seed, beside the default | recall | label mAP |",
        "|---" * 7 + "|",
    ]
    for name, seeds in by_name.items():
        mean = {key: np.mean([float(row[key]) for row in seeds.values()]) for key in COLUMNS[2:8]}
        base = by_name.get(DEFAULT, {})
        apart = [float(row["frechet"]) - float(base[seed]["frechet"]) for seed, row in seeds.items() if seed in base]
        beside = " ".join(f"{value:+.3f}" for value in apart)
        lines.append(
            f"| {name} | {mean['core_seconds']:.0f} | {mean['steps']:.0f} | {mean['frechet']:.3f} | {beside} "
            f"| {mean['recall']:.2f} | {mean['label_map']:.3f} |"
        )
    return lines


def main(argv: list[str] | None = None) -> int:
    """Measure, add to the table, and print it."""
    args = parse_args(argv)
    for row in measured(args):
        fresh = not args.out.exists()
        with args.out.open("a", newline="", encoding="utf-8") as handle:
            writer = csv.DictWriter(handle, COLUMNS, lineterminator="\n")
            if fresh:
                writer.writeheader()
            writer.writerow(row)
        print(", ".join(f"{key} {value}" for key, value in row.items()), flush=True)
    print("\n".join(told(read(args.out))))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
