"""How fast a generator trains and samples, beside two other packages, on the same images in one run.

    PYTHONPATH=PEERS python -m benchmarks.generator_speed
    PYTHONPATH=PEERS python -m benchmarks.generator_speed --device cuda --size 128 --batches 128 256 512 --seconds 20

Printed are, for the project's own loop with the settings of config.yaml and for each package:
    images a second of training, weights, and FLOPs an image by torch's counter
    GFLOP/s, and their fraction of the matrix-product rate measured in between
    seconds that 1,000 images take at 20 evaluations, each with guidance (40 network calls an image)
and the ratios to the other packages.

Every contestant uses the batch size, and the peers also the number format, that suits it best of those tried. Rounds
are interleaved, so that a busy machine slows all; a figure is the median of rounds of medians of steps. Needs what
benchmarks/peers.py says, or --contestants unet; pandas, or --samples 0; scipy, or --images."""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import generator_data, generator_runs, peers
from benchmarks.generator_data import Cells
from workflow_scripts.lib.compute import device
from workflow_scripts.lib.generate import generator_file, generator_training

AIMS = {"ratio": 5.0, "weights": 1.5e6, "fraction": {"cpu": 0.5, "cuda": 0.4}, "sampling": 40.0}
SKIPPED = 3  # steps at the start of a measurement that are not counted


@dataclass
class Way:
    """A contestant with one batch size and one number format."""

    name: str
    batch: int
    dtype: torch.dtype

    def __str__(self) -> str:
        return f"{self.name}, batch {self.batch}, {str(self.dtype).removeprefix('torch.')}"


class Bench:
    """The images, and how long a step of each contestant takes on them."""

    def __init__(self, cells: Cells, settings: dict[str, Any], where: torch.device) -> None:
        self.cells, self.settings, self.where = cells, settings, where
        self.classes, self.numbers = peers.combinations(cells.labels)
        self.chunk = 10 if where.type == "cuda" else 1  # steps between looks at the clock
        self._peers: dict[str, peers.Peer] = {}

    def train(
        self, batch: int, steps: int, where: torch.device, dtype: torch.dtype
    ) -> tuple[generator_file.Generator, generator_training.Trained]:
        """The project's training loop, whole."""
        return generator_runs.train(self.cells, self.settings | {"batch": batch, "steps": steps}, 1, where, dtype)

    def peer(self, name: str, where: torch.device) -> peers.Peer:
        """One of the packages, made once."""
        key = f"{name} {where}"
        if key not in self._peers:
            channels, size = self.cells.images.shape[1], self.cells.images.shape[-1]
            self._peers[key] = peers.PEERS[name](channels, len(self.numbers), size, where)
        return self._peers[key]

    def peer_step(self, peer: peers.Peer, batch: int, rng: np.random.Generator) -> torch.Tensor:
        """One step on images drawn at random."""
        rows = torch.from_numpy(rng.integers(len(self.cells), size=batch))
        return peer.step(torch.from_numpy(self.cells.images)[rows], self.classes[rows])

    def seconds(self, way: Way, steps: int) -> float:
        """Median seconds of a training step."""
        steps = max(steps, SKIPPED + 3) * self.chunk
        if way.name not in peers.PEERS:
            rows = np.array(self.train(way.batch, steps, self.where, way.dtype)[1].history)
            done, clock = rows[:, 0], rows[:, -1]
            return float(np.median((np.diff(clock) / np.diff(done))[min(SKIPPED, len(rows) - 2) :]))
        peer, rng = self.peer(way.name, self.where), np.random.default_rng(0)
        peer.dtype = way.dtype
        taken, started = [], time.monotonic()
        for number in range(steps):
            loss = self.peer_step(peer, way.batch, rng)
            if (number + 1) % self.chunk == 0:
                float(loss)  # waits for a GPU
                now = time.monotonic()
                taken.append((now - started) / self.chunk)
                started = now
        return float(np.median(taken[min(SKIPPED, len(taken) - 1) :]))

    def flops(self, name: str, batch: int = 8) -> float:
        """FLOPs of a training step, an image, forward and backward; counted on the CPU, where nothing is compiled."""
        cpu = torch.device("cpu")
        peer = self.peer(name, cpu) if name in peers.PEERS else None
        with FlopCounterMode(display=False) as counter:
            if peer is None:
                self.train(batch, 1, cpu, torch.float32)
            else:
                self.peer_step(peer, batch, np.random.default_rng(0))
        return counter.get_total_flops() / batch

    def weights(self, name: str) -> int:
        """How many numbers are trained."""
        if name in peers.PEERS:
            network = self.peer(name, self.where).network
        else:
            shape, classes = self.cells.images.shape, self.cells.labels.shape[1]
            network = generator_training.make_network(self.settings, shape[1], classes, shape[-1], torch.float32)
        return sum(value.numel() for value in network.parameters())


def product_rate(where: torch.device, seconds: float = 1.0, sides: tuple[int, ...] = ()) -> float:
    """FLOP/s of the best matrix product of a few sizes, in the numbers that networks are trained in here.

    Processors without bfloat16 emulate it a hundred times slower than float32."""
    best = 0.0
    for side in sides or ((1024, 2048) if where.type == "cpu" else (4096, 8192)):
        a, b = (torch.randn(side, side, device=where, dtype=device.fast_dtype(where)) for _ in range(2))
        taken: list[float] = []
        until = time.monotonic() + seconds / 2
        while time.monotonic() < until or len(taken) < 3:
            started = time.perf_counter()
            for _ in range(5):
                product = a @ b
            float(product[0, 0])
            taken.append((time.perf_counter() - started) / 5)
        best = max(best, 2 * side**3 / float(np.median(taken)))
    return best


def best_way(bench: Bench, name: str, batches: list[int], seconds: float) -> tuple[Way, float]:
    """The batch size and number format with which a contestant is fastest, and its images/s in this short trial."""
    fast = device.fast_dtype(bench.where)
    dtypes = dict.fromkeys([torch.float32, fast]) if name in peers.PEERS else [fast]
    found: list[tuple[float, Way]] = []
    for dtype in dtypes:
        for batch in batches:
            way = Way(name, batch, dtype)
            once = bench.seconds(way, 1)
            found.append((batch / bench.seconds(way, round(seconds / bench.chunk / once)), way))
            print(f"  tried {way}: {found[-1][0]:.0f} images/s", flush=True)
    rate, way = max(found, key=lambda entry: entry[0])
    return way, rate


def training_table(bench: Bench, names: list[str], args: argparse.Namespace) -> None:
    """Throughputs, and what they are worth."""
    ways = [best_way(bench, name, args.batches, args.seconds / 4) for name in names]
    rates: dict[str, list[float]] = {name: [] for name in names}
    products: list[float] = []
    for _ in range(args.rounds):
        for way, rate in ways:
            products.append(product_rate(bench.where, min(1.0, args.seconds)))
            steps = round(args.seconds * rate / way.batch / bench.chunk)
            rates[way.name].append(way.batch / bench.seconds(way, steps))
    top = float(np.median(products))
    numbers = str(device.fast_dtype(bench.where)).removeprefix("torch.")
    print(f"\n{numbers} matrix product {top / 1e9:.0f} GFLOP/s; median of {args.rounds} rounds (lowest to highest)")
    print(f"{'contestant':44} {'images/s':>22} {'weights':>10} {'GFLOP/image':>12} {'GFLOP/s':>8} {'fraction':>6}")
    medians = {name: float(np.median(found)) for name, found in rates.items()}
    fractions = {}
    for way, _ in ways:
        cost, found = bench.flops(way.name), rates[way.name]
        fractions[way.name] = cost * medians[way.name] / top
        spread = f"{medians[way.name]:.0f} ({min(found):.0f} to {max(found):.0f})"
        print(
            f"{way!s:44} {spread:>22} {bench.weights(way.name):10,} {cost / 1e9:12.3f} "
            f"{cost * medians[way.name] / 1e9:8.0f} {fractions[way.name]:6.2f}"
        )
    ours = names[0]
    for name in names[1:]:
        # By rounds, as the machine may change its pace between them.
        ratio = float(np.median(np.array(rates[ours]) / np.array(rates[name])))
        verdict(f"training, {ours} / {name}", f"{ratio:.1f}", ratio >= AIMS["ratio"], f"at least {AIMS['ratio']:g}")
    count = bench.weights(ours)
    verdict("weights", f"{count:,}", count >= AIMS["weights"], f"at least {AIMS['weights']:,.0f}")
    aim = AIMS["fraction"][bench.where.type]
    verdict("fraction of the product rate", f"{fractions[ours]:.2f}", fractions[ours] >= aim, f"at least {aim:g}")


def verdict(what: str, value: str, holds: bool, aim: str) -> None:
    """One line: a figure, and whether it is what is aimed at."""
    print(f"{what}: {value} (aim: {aim}: {'holds' if holds else 'DOES NOT HOLD'})", flush=True)


def sampling(bench: Bench, count: int, rounds: int) -> None:
    """Seconds of the default synthetic set, with guidance at all noise levels."""
    synthetic_set = generator_runs.synthetic_set(
        evaluations=20, guidance={"scale": 2.0, "interval": [0.0, float("inf")]}
    )
    made, _ = bench.train(8, 1, bench.where, device.fast_dtype(bench.where))
    labels = bench.cells.labels[np.arange(count) % len(bench.cells)]
    taken = []
    for number in range(rounds):
        started = time.monotonic()
        generator_runs.sample(made, labels, synthetic_set, number, bench.where)
        taken.append(time.monotonic() - started)
    middle = float(np.median(taken)) * 1000 / count
    spread = f"{middle:.1f} s ({min(taken) * 1000 / count:.1f} to {max(taken) * 1000 / count:.1f})"
    what = f"sampling 1,000 images, {synthetic_set['sampler']}, 20 guided evaluations, batch {synthetic_set['batch']}"
    verdict(what, spread, middle < AIMS["sampling"], f"under {AIMS['sampling']:g} s")


def main(argv: list[str] | None = None) -> None:
    """Print the tables."""
    out = generator_data.common_flags(__doc__)
    out.set_defaults(cells=512)
    out.add_argument("--contestants", nargs="+", default=["unet", *peers.PEERS], help="peers may be left out")
    out.add_argument("--batches", type=int, nargs="+", default=[32, 64, 128])
    out.add_argument("--rounds", type=int, default=5)
    out.add_argument("--seconds", type=float, default=8.0, help="of one measurement")
    out.add_argument("--samples", type=int, default=1000, help="images to sample; 0: do not")
    args = out.parse_args(argv)
    where = generator_data.use_device(args.device, args.threads)
    settings = generator_data.generator_settings(args.generator, args.settings)
    names = [settings["name"], *(name for name in args.contestants if name in peers.PEERS)]
    bench = Bench(generator_data.load_cells(args), settings, where)
    shape = bench.cells.images.shape
    print(f"{bench.cells.source}, {shape[1]} channels of {shape[-1]} px; {generator_data.machine(where)}", flush=True)
    training_table(bench, names, args)
    if where.type == "cuda":
        print(f"peak memory of the GPU over the run: {torch.cuda.max_memory_allocated(where) / 2**30:.1f} GiB")
    if args.samples:
        sampling(bench, args.samples, max(1, min(3, args.rounds)))


if __name__ == "__main__":
    main()
