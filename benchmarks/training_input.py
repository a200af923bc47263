"""What it costs to feed training: from images.h5, beside opening the PNGs of every image in every epoch.

    OMP_NUM_THREADS=1 python -m benchmarks.training_input --images 200 --seconds 5

Makes four-channel PNGs of 512 px and, from them, a set of --size px. The reference study's way is to open four PNGs,
stack and resize them for each image in each epoch. Printed are:
    seconds of one epoch of batches before augmentation, from the set and in the study's way, and their ratio
    batches a second of the loader with augmentation, beside the steps a second that the default network can take
    memory that a batch needs while it is made"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import yaml
from PIL import Image

from benchmarks.preprocess_images import CHANNELS, ROOT, make_folder, stage
from workflow_scripts.lib.classify import backbones, classifier_training, losses
from workflow_scripts.lib.compute import device
from workflow_scripts.lib.images.image_set import ImageSet


def study_epoch(folder: Path, names: list[str], batch: int, size: int) -> int:
    """The study's way: every image from its four files, at full size and then resized."""
    seen = 0
    for start in range(0, len(names), batch):
        images = []
        for name in names[start : start + batch]:
            planes = [np.asarray(Image.open(folder / f"{name}_{channel}.png")) for channel in CHANNELS]
            stacked = Image.fromarray(np.stack(planes, axis=2))
            images.append(np.asarray(stacked.resize((size, size), Image.Resampling.BILINEAR)))
        seen += len(torch.as_tensor(np.stack(images)))
    return seen


def set_epoch(pixels: torch.Tensor, order: classifier_training.Order, batch: int) -> int:
    """Training's way: shuffled rows of the set in memory."""
    return sum(len(pixels[torch.as_tensor(order.batch(step, batch))]) for step in range(-(-len(pixels) // batch)))


def rate(work: Callable[[int], object], seconds: float) -> float:
    """Calls a second of the process's own time, which a busy machine stretches little; the first one not counted."""
    work(0)
    start, calls = time.process_time(), 0
    while time.process_time() - start < seconds:
        calls += 1
        work(calls)
    return calls / (time.process_time() - start)


def largest(work: Callable[[int], object]) -> int:
    """Bytes that one call holds at its fullest, what it returns included."""
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # the profiler would tell that it begins and ends
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as seen:
        work(0)
    held = most = 0
    for event in seen.profiler.kineto_results.events():
        if event.name() == "[memory]":
            held += event.nbytes()
            most = max(most, held)
    return most


def main() -> None:
    """Print both ratios."""
    out = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    out.add_argument("--images", type=int, default=200)
    out.add_argument("--size", type=int, default=128)
    out.add_argument("--seconds", type=float, default=5.0)
    args = out.parse_args()
    torch.set_num_threads(1)
    settings = yaml.safe_load((ROOT / "config.yaml").read_text(encoding="utf-8"))["train_classifier"]
    batch = settings["batch"]
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        make_folder(folder, args.images, 512)
        stage(folder, 1, args.size)
        with ImageSet(folder / "out" / "images.h5") as source:
            part = source.read(None, "fit")
        start = time.perf_counter()
        study_epoch(folder / "train", list(part.ids), batch, args.size)
        study = time.perf_counter() - start
    pixels, order = torch.as_tensor(part.images), classifier_training.Order(len(part), 0)
    ours = 1 / rate(lambda _: set_epoch(pixels, order, batch), args.seconds)
    print(f"one epoch of {len(part)} images at {args.size} px, before augmentation, one thread")
    print(f"  four PNGs an image  {study:9.4f} s\n  from images.h5      {ours:9.4f} s\n  ratio {study / ours:14.0f}")
    mean, std = classifier_training.statistics(part.images)
    loader = classifier_training.Source(
        classifier_training.Images(part.images, part.labels), "real", settings, 0, mean, std
    )
    network = backbones.build(settings["backbone"], len(CHANNELS), part.labels.shape[1], args.size, 0)
    network = network.to(memory_format=torch.channels_last)
    loss = losses.make(settings["loss"], torch.as_tensor(part.labels.sum(axis=0)), len(part))
    optimiser = torch.optim.AdamW(network.parameters(), fused=True)
    held, dtype = loader.batch(0, batch), device.fast_dtype(torch.device("cpu"))

    def load(number: int) -> None:
        loader.batch(number, batch)

    def step(_: int) -> None:
        # As `training` does it: the trunk in the fast type, the head in float32.
        with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
            features = network.features(held.images)
        optimiser.zero_grad(set_to_none=True)
        loss(network.head(features.float()), held.targets).mean().backward()
        optimiser.step()

    # In turn, so that whatever else the machine does slows both.
    both = [(rate(load, args.seconds / 5), rate(step, args.seconds / 5)) for _ in range(5)]
    loaded, trained = (statistics.median(column) for column in zip(*both, strict=True))
    print(f"batches of {batch} a second: loader with augmentation {loaded:.2f}, training step {trained:.2f}")
    print(f"  ratio {statistics.median(one / other for one, other in both):14.1f}")
    print(f"  a batch takes {held.images.nbytes / 1e6:.1f} MB, making it {largest(load) / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
