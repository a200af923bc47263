"""Parts of benchmarks.gpu that measure quality: the distance of generated cells after some minutes, and of variants."""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks import generator_data, generator_runs, gpu_peers, peers
from benchmarks.generator_data import Cells, Encoder
from benchmarks.gpu_bench import Bench
from benchmarks.gpu_speed import run_for
from workflow_scripts.lib.fidelity import distances
from workflow_scripts.lib.fidelity.distances import Sample
from workflow_scripts.lib.images import nearest_images

CONFIDENCE = 0.95
SHOWN = ("frechet", "precision", "recall")  # of the measures of fidelity/distances.py

PLAIN = {"scale": 1.0, "interval": [0, 1000]}  # no guidance

# Variants of the large generator: names, and the settings that differ.
VARIANTS: dict[str, dict[str, Any]] = {
    "as it is": {},
    "average over 5 %": {"ema_width": 0.05},
    "average over 20 %": {"ema_width": 0.2},
    "velocity, cosine schedule": {"objective": "velocity_cosine"},
    "half the learning rate": {"learning_rate": 0.03},
    "every image equally often": {"label_sampling": "as_train"},
    "loss by learned uncertainty": {"weighting": "uncertainty"},
    "attention at the lowest resolution": {"attention": True},
    "pixels not folded": {"patch": 1},
    "patches of 4 px": {"patch": 4},
}
# Variants of its sampling: guidance, from one training that keeps a snapshot.
SNAPSHOT = 0.25
GUIDED: dict[str, dict[str, Any]] = {
    "guidance 2": {"scale": 2.0},
    "autoguidance 2 by the snapshot at a quarter": {"scale": 2.0, "against": "earlier"},
}


class Judge:
    """Held-out cells and an encoder that has learned from others; a generator may see the cells of `train` alone."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        parts = generator_data.split(bench.cells, bench.seed)
        steps = bench.scale.encoder_steps
        self.encode, score = generator_data.train_encoder(bench.cells, parts, steps, bench.seed, bench.where)
        self.train, held = bench.cells.part(parts["train"]), bench.cells.part(parts["held"])
        self.held = held.part(np.arange(len(held))[: bench.scale.judged])
        bench.add(
            "quality", "encoder: mean average precision", score, "", remark=f"{len(self.train)} images to train on"
        )

    def judge(self, images: np.ndarray) -> dict[str, float]:
        """Measures of generated images that were asked for with the labels of the held-out ones."""
        rng = np.random.default_rng(self.bench.seed)
        floor = self.train.part(rng.permutation(len(self.train))[: len(images)])
        samples = _samples(self.encode, self.held, {"made": images, "floor": floor.images})
        found = distances.estimates(samples.pop(""), samples, rng, self.bench.scale.draws, CONFIDENCE)
        out = {f"{name}, {measure}": found[name][measure].value for name in ("made", "floor") for measure in SHOWN}
        for name, some in (("made", images), ("held-out", self.held.images)):
            nearest = nearest_images.nearest(some, self.train.images, nearest_images.pixels)
            out[f"{name}, authentic fraction"] = float(nearest.authentic.mean())
        return out

    def made_by(
        self, settings: dict[str, Any], seconds: float, labels: np.ndarray | None = None, **changes: Any
    ) -> tuple[np.ndarray, int]:
        """Images of a generator that trained for so many seconds, and its number of steps.

        `labels`: those that are asked for; None: those of the held-out images."""
        bench = self.bench
        whole, bench.cells = bench.cells, self.train
        try:
            training, made = run_for(bench, settings, seconds)
        finally:
            bench.cells = whole
        plan = generator_runs.synthetic_set(
            batch=bench.scale.sampling_batch, evaluations=bench.scale.evaluations, **changes
        )
        wanted = self.held.labels if labels is None else labels
        images = generator_runs.sample(made, wanted, plan, bench.seed, bench.where)
        return images, training.step


def _samples(encode: Encoder, real: Cells, others: dict[str, np.ndarray]) -> dict[str, Sample]:
    """Samples of the real images (under the name "") and of others, in common units and axes."""
    features = {"": encode(real.images)} | {name: encode(images) for name, images in others.items()}
    centre, scale = features[""].mean(axis=0), np.sqrt(max(float(features[""].var(axis=0).mean()), 1e-12))
    features = {name: ((values - centre) / scale).astype(np.float32) for name, values in features.items()}
    kept = distances.reduced(features[""].shape[1], min(map(len, features.values())))
    axes = distances.main_axes(list(features.values()), kept)
    return {
        name: Sample(
            values, values @ axes, np.zeros((len(values), 1)), np.zeros((len(values), 0)),
            np.unique(real.groups, return_inverse=True)[1] if name == "" else np.arange(len(values)),
        )
        for name, values in features.items()
    }  # fmt: skip


def quality(bench: Bench, judge: Judge, minutes: float) -> None:
    """Distance, recall and copies of the large generator after some minutes, without guidance; contact sheets."""
    settings = bench.settings(bench.scale.large, bench.scale.large_batch)
    images, steps = judge.made_by(settings, 60 * minutes, guidance=PLAIN)
    aims = {"made, frechet": "<= 0.08", "made, recall": ">= 0.8"}
    for name, value in judge.judge(images).items():
        bench.add("quality", f"after {minutes:g} min: {name}", value, "", aims.get(name, ""), f"{steps} steps")
    generator_data.contact_sheet(bench.out / "generated.png", images[:120])
    generator_data.contact_sheet(bench.out / "real.png", judge.held.images[:120])


def variants(bench: Bench, judge: Judge, minutes: float) -> None:
    """The same distance for variants of the generator, each trained for so many minutes."""
    every = [(name, changes, PLAIN) for name, changes in VARIANTS.items()]
    every += [(name, {"snapshot": SNAPSHOT}, PLAIN | guidance) for name, guidance in GUIDED.items()]
    for number, (name, changes, guidance) in enumerate(every):
        settings = bench.settings(bench.scale.large, bench.scale.large_batch, **changes)
        images, steps = judge.made_by(settings, 60 * minutes, guidance=guidance)
        found = judge.judge(images)
        remark = f"recall {found['made, recall']:.2f}, {steps} steps"
        bench.add("variants", f"{name}: Fréchet distance after {minutes:g} min", found["made, frechet"], "", "", remark)
        generator_data.contact_sheet(bench.out / f"variant{number}.png", images[:60])
        bench.free()


def beside_peers(bench: Bench, judge: Judge, minutes: float) -> None:
    """The same distance for the large generator and for peers of its size, after equal times.

    All draw images with the labels of the train part, without guidance."""
    rows = np.random.default_rng(bench.seed).integers(len(judge.train), size=len(judge.held))
    settings = bench.settings(bench.scale.large, bench.scale.large_batch)
    images, steps = judge.made_by(settings, 60 * minutes, judge.train.labels[rows], guidance=PLAIN)
    _compared(bench, judge, "large", images, f"{steps} steps", minutes)
    for peer in gpu_peers.ready(bench):
        trained = gpu_peers.train(bench, peer, judge.train, 60 * minutes)
        kinds, _ = peers.combinations(judge.train.labels)
        images = peer.sample(kinds[rows], bench.scale.evaluations, 1.0, bench.scale.sampling_batch).numpy()
        remark = f"{trained} steps, {peers.weights_of(peer.network) / 1e6:.1f} M weights"
        _compared(bench, judge, peer.name, images, remark, minutes)
        bench.free()


def _compared(bench: Bench, judge: Judge, name: str, images: np.ndarray, remark: str, minutes: float) -> None:
    found = judge.judge(images)
    remark = f"recall {found['made, recall']:.2f}, {remark}"
    bench.add("peers", f"{name}: Fréchet distance after {minutes:g} min", found["made, frechet"], "", "", remark)
    generator_data.contact_sheet(bench.out / f"peer_{name}.png", images[:60])
