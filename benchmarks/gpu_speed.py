"""Parts of benchmarks.gpu that measure speed: training, classifiers, sampling, waiting, and what the device runs."""

from __future__ import annotations

import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.profiler import ProfilerActivity, profile
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks import generator_data, generator_runs, generator_speed, gpu_peers, peers
from benchmarks.gpu_bench import Bench
from workflow_scripts.lib.classify import arm_settings, classifier_training
from workflow_scripts.lib.compute.checkpoint import Resume
from workflow_scripts.lib.generate import generator_training
from workflow_scripts.lib.generate.generator_file import Generator
from workflow_scripts.lib.generate.generator_training import Pixels, Training
from workflow_scripts.lib.images.access_record import AccessRecord

CONVERSIONS = ("nchwtonhwc", "nhwctonchw")  # in the names of kernels that change a layout
VIEWS = ("view", "detach", "split", "permute", "expand", "select", "slice", "alias", "unsqueeze", "empty", "transpose")


def product(bench: Bench) -> None:
    """Rate of a matrix product, beside which everything else stands."""
    bench.rate = generator_speed.product_rate(bench.where, min(1.0, bench.scale.seconds), bench.scale.products)
    bench.add("product", f"matrix product, {str(bench.dtype).removeprefix('torch.')}", bench.rate / 1e12, "TFLOP/s")


# Generators -----------------------------------------------------------------------------------------------------------


def steps_a_second(bench: Bench, trainings: list[Training], seconds: float | None = None) -> float:
    """Steps a second of trainings that take turns, all together."""

    def turn() -> None:
        for training in trainings:
            training.advance()
            training.losses.clear()

    return bench.pace(turn, seconds) * len(trainings)


def _speed(bench: Bench, name: str, trainings: list[Training], settings: dict[str, Any], aim: str) -> None:
    started = time.perf_counter()
    pace = steps_a_second(bench, trainings)
    images = pace * settings["batch"]
    flops = images * bench.network(settings).training
    how = trainings[0].graph.describe().removeprefix("train: ")
    bench.add("train", f"{name}: steps", pace, "1/s", remark=f"{how}; {time.perf_counter() - started:.0f} s in all")
    bench.add("train", f"{name}: images", images, "1/s")
    bench.add("train", f"{name}: rate", flops / 1e12, "TFLOP/s")
    bench.add("train", f"{name}: fraction of the product rate", flops / bench.rate, "", aim)


def train(bench: Bench) -> None:
    """Generator training: the large network, the default one alone, and several at once."""
    scale = bench.scale
    large, small = bench.settings(scale.large, scale.large_batch), bench.settings(scale.small, scale.small_batch)
    apart = bench.training(large)
    apart.graph.reason = apart.graph.reason or "the benchmark asked for it"
    _speed(bench, "large, operation by operation", [apart], large, "")
    del apart
    ways = [("", False)] + ([(", compiled", True)] if bench.where.type == "cuda" else [])
    for name, settings, aim in (("large", large, ">= 0.4"), ("default", small, ">= 0.15")):
        for how, compiled in ways:
            bench.free()
            _speed(bench, name + how, [bench.training(settings, compiled=compiled)], settings, aim)
    bench.free()
    several = [bench.training(small, seed) for seed in range(scale.together)]
    _speed(bench, f"default, {scale.together} at once", several, small, ">= 0.25")
    _peers(bench)
    bench.free()


def _peers(bench: Bench) -> None:
    """Networks of other code and about as many weights: diffusers' U-Net where it is installed, and EDM2 blocks."""
    for peer in gpu_peers.ready(bench):
        images, kinds = gpu_peers.batch(bench, bench.cells)
        pace = bench.pace(lambda peer=peer, images=images, kinds=kinds: peer.step(images, kinds))
        remark = f"{peers.weights_of(peer.network) / 1e6:.1f} M weights"
        bench.add("train", f"{peer.name}, equal size: images", pace * len(images), "1/s", remark=remark)
        bench.free()


def waiting(bench: Bench) -> None:
    """Input wait: the part of a step that is gone when every step has the same, prepared examples."""
    scale = bench.scale
    shapes = (("large", scale.large, scale.large_batch), ("default", scale.small, scale.small_batch))
    for name, shape, batch in shapes:
        training = bench.training(bench.settings(shape, batch))
        with training.graph.stream():
            prepared = list(vars(training.examples.take(training.objective, 0)).values())

        def fed(training: Training = training, prepared: list[Any] = prepared) -> None:
            with training.graph.stream():
                training.graph(*prepared)

        whole, same = [], []
        for _ in range(3):
            whole.append(1 / steps_a_second(bench, [training], bench.scale.seconds / 3))
            same.append(1 / bench.pace(fed, bench.scale.seconds / 3))
        share = max(0.0, 1 - float(np.median(same)) / float(np.median(whole)))
        bench.add("input", f"{name}: wait for examples, fraction of a step", share, "", "<= 0.02")
        del training, fed
        bench.free()


# What the device runs -------------------------------------------------------------------------------------------------


class _Operations(TorchDispatchMode):
    """Counts operations that compute something."""

    count = 0

    def __torch_dispatch__(self, call: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if not any(word in str(call) for word in VIEWS):
            self.count += 1
        return call(*args, **(kwargs or {}))


def profiled(bench: Bench) -> None:
    """Operations and kernels of a step, layout conversions among them, and the kernels that take longest."""
    scale = bench.scale
    for name, shape, batch in (("large", scale.large, scale.large_batch), ("default", scale.small, scale.small_batch)):
        training = bench.training(bench.settings(shape, batch))
        training.graph.reason = "the profiler looks at single operations"
        for _ in range(3):
            training.advance()
        with _Operations() as operations:
            training.advance()
        bench.add("profile", f"{name}: operations of a step", operations.count, "")
        if bench.where.type == "cuda":
            _kernels(bench, name, training)
        del training
        bench.free()


def _kernels(bench: Bench, name: str, training: Training, steps: int = 3) -> None:
    bench.wait()
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as seen:
        for _ in range(steps):
            training.advance()
        bench.wait()
    counts, times = Counter[str](), Counter[str]()
    for event in seen.events():
        if event.device_type == torch.autograd.DeviceType.CUDA:
            counts[event.name] += 1
            times[event.name] += event.time_range.elapsed_us() / 1000
    converted = [kernel for kernel in counts if any(word in kernel.lower() for word in CONVERSIONS)]
    bench.add("profile", f"{name}: kernels of a step", sum(counts.values()) / steps, "")
    bench.add("profile", f"{name}: layout conversions of a step", sum(counts[k] for k in converted) / steps, "")
    bench.add("profile", f"{name}: kernel time of a step", sum(times.values()) / steps, "ms")
    bench.add("profile", f"{name}: of it layout conversions", sum(times[k] for k in converted) / steps, "ms")
    for kernel, spent in times.most_common(15):
        short = kernel.replace("void ", "").replace("|", "/")[:50]
        bench.add("profile", f"{name}: {short}", spent / steps, "ms", remark=f"{counts[kernel] / steps:.0f} a step")


# Classifiers and sampling ---------------------------------------------------------------------------------------------


def classify(bench: Bench) -> None:
    """Training of the small classifier, alone and several that take turns."""
    section = generator_data.config()["train_classifier"] | {"batch": bench.scale.arm_batch, "steps": 100_000}
    settings = arm_settings.effective({"name": "arm", "method": "real_only"}, section | {"backbone": "small"})
    images = classifier_training.Images(bench.cells.images, bench.cells.labels)
    trainers = [
        classifier_training.Trainer(settings, images, None, seed, bench.where) for seed in range(bench.scale.arms)
    ]
    number = 0

    def turn(count: int) -> Callable[[], None]:
        def advance() -> None:
            nonlocal number
            for trainer in trainers[:count]:
                trainer.advance(number)
            number += 1

        return advance

    for count, aim in ((1, ">= 400"), (bench.scale.arms, ">= 1500")):
        name = "small, alone" if count == 1 else f"small, {count} at once"
        bench.add("classify", f"{name}: steps", bench.pace(turn(count)) * count, "1/s", aim)
    bench.free()


def fresh_generator(bench: Bench, training: Training) -> Generator:
    """A generator as the stages write it, from a training's weights so far."""
    return Generator(
        repeat=0, fold=0, settings=training.settings, channels=[str(c) for c in range(bench.cells.images.shape[1])],
        classes=bench.cells.classes, size=bench.cells.images.shape[-1],
        pixels=Pixels.fitted(training.settings["pixels"], bench.cells.images),
        access_record=AccessRecord("", 0), digest="",
        seconds=training.seconds, weights=training.weights(),
        earlier=None if training.earlier is None else training.weights(training.earlier),
    )  # fmt: skip


def sample(bench: Bench) -> None:
    """Sampling of many images, every evaluation guided."""
    scale = bench.scale
    made = fresh_generator(bench, bench.training(bench.settings(scale.small, scale.small_batch)))
    rows = np.arange(scale.images) % len(bench.cells)
    settings = generator_runs.synthetic_set(
        batch=scale.sampling_batch, evaluations=scale.evaluations, guidance={"scale": 2.0, "interval": [0, 1000]}
    )
    started = time.perf_counter()
    generator_runs.sample(made, bench.cells.labels[rows], settings, bench.seed, bench.where)
    spent = time.perf_counter() - started
    name = f"{scale.images} images, {scale.evaluations} guided evaluations"
    bench.add("sample", name, spent, "s", "<= 5", remark=f"batches of {scale.sampling_batch}, capture included")
    calls = scale.images * (2 * scale.evaluations)
    flops = calls * bench.network(made.settings).forward / spent
    bench.add("sample", "fraction of the product rate", flops / bench.rate, "")
    bench.free()


def resume_nowhere() -> Resume:
    """A checkpoint that is never due."""
    resume = Resume(Path(tempfile.mkdtemp()) / "resume.pt", "")
    resume._every = float("inf")
    return resume


def run_for(bench: Bench, settings: dict[str, Any], seconds: float) -> tuple[Training, Generator]:
    """A generator trained for about so many seconds, at the pace that it has on this device."""
    pace = steps_a_second(bench, [bench.training(settings)], min(3.0, seconds / 10))
    bench.free()
    steps = max(4, int(pace * seconds))
    training = bench.training(settings | {"steps": steps}, bench.seed)
    generator_training.train_together([training], [resume_nowhere()])
    return training, fresh_generator(bench, training)
