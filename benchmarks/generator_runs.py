"""Training, sampling and judging a generator in one process, by the project's own code, for the benchmarks."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.generator_data import Cells, config
from workflow_scripts.lib.compute.checkpoint import Resume
from workflow_scripts.lib.fidelity import distances as fidelity_distances
from workflow_scripts.lib.fidelity.distances import Estimate, Sample
from workflow_scripts.lib.generate import generator_file, generator_training
from workflow_scripts.lib.generate.generator_file import Generator
from workflow_scripts.lib.generate.generator_training import Pixels, Trained
from workflow_scripts.lib.images.access_record import AccessRecord

DRAWS = 100  # random halves for the correction and the interval of a distance
CONFIDENCE = 0.95


def train(
    cells: Cells,
    settings: dict[str, Any],
    seed: int,
    where: torch.device,
    dtype: torch.dtype,
    report: Callable[[int, float], None] = lambda step, loss: None,
) -> tuple[Generator, Trained]:
    """The project's training loop; what it leaves, and the same as the stages write it."""
    pixels = Pixels.fitted(settings["pixels"], cells.images)
    with tempfile.TemporaryDirectory() as place:
        resume = Resume(Path(place) / "resume.pt", "")
        trained = generator_training.train(
            cells.images, cells.labels, settings, pixels, seed, where, dtype, resume, report
        )
    return as_generator(cells, settings, trained), trained


def as_generator(cells: Cells, settings: dict[str, Any], trained: Trained) -> Generator:
    """What a training left, as the stages write it."""
    return Generator(
        repeat=0, fold=0, settings=settings, channels=[str(number) for number in range(cells.images.shape[1])],
        classes=cells.classes, size=cells.images.shape[-1], pixels=Pixels.fitted(settings["pixels"], cells.images),
        access_record=AccessRecord("", 0), digest="", seconds=trained.seconds, weights=trained.weights,
    )  # fmt: skip


def read(path: Path) -> Generator:
    """A generator that the stage train_ddpm wrote."""
    return generator_file.read(path)


def synthetic_set(**changes: Any) -> dict[str, Any]:
    """The config's synthetic set `balanced`, with single settings replaced; no channel is given."""
    return (
        {entry["name"]: entry for entry in config()["synthetic_sets"]}["balanced"]
        | {"reference_channels": []}
        | changes
    )


def sample(
    made: Generator,
    labels: np.ndarray,
    settings: dict[str, Any],
    seed: int,
    where: torch.device,
    given: np.ndarray | None = None,
    weaker: Generator | None = None,
) -> np.ndarray:
    """Images uint8 (n, C, s, s) with these labels (n, K), by the loop of the stage sample_ddpm.

    `given`: real images whose channels are kept, but for the second, the protein's. `weaker`: as in `make_images`."""
    # Imported here, as they need pandas: training can then be measured on a machine that has none.
    from workflow_scripts.lib.generate.requests import Requests
    from workflow_scripts.lib.generate.synthetic_set import make_images

    with tempfile.TemporaryDirectory() as place:
        orders = Requests(labels, made.access_record)
        if given is not None:
            orders.real = torch.from_numpy(given)
            orders.shown = torch.tensor([number != 1 for number in range(given.shape[1])])
        return make_images(made, orders, settings, seed, where, Resume(Path(place) / "resume.pt", ""), weaker)


def distances(
    reference: np.ndarray, groups: np.ndarray, others: dict[str, tuple[np.ndarray, np.ndarray | None]], seed: int = 1
) -> dict[str, Estimate]:
    """Fréchet distance of each set of features (n, D) from the reference, corrected for sample size, with an interval.

    Beside the features stand the groups of their images; None: each image by itself, as generated ones are."""
    centre, scale = reference.mean(axis=0), np.sqrt(max(float(reference.var(axis=0).mean()), 1e-12))
    scaled = {name: ((features - centre) / scale).astype(np.float32) for name, (features, _) in others.items()}
    real = ((reference - centre) / scale).astype(np.float32)
    # Where there are too few images for all dimensions, the directions are those of all sets together.
    every = [real, *scaled.values()]
    axes = fidelity_distances.main_axes(every, fidelity_distances.reduced(real.shape[1], min(map(len, every))))

    def described(features: np.ndarray, owners: np.ndarray | None) -> Sample:
        owners = np.arange(len(features)) if owners is None else owners
        return Sample(features, features @ axes, np.zeros((len(features), 1)), np.zeros((len(features), 0)), owners)

    samples = {name: described(features, others[name][1]) for name, features in scaled.items()}
    rng = np.random.default_rng(seed)
    found = fidelity_distances.estimates(described(real, groups), samples, rng, DRAWS, CONFIDENCE)
    return {name: measures["frechet"] for name, measures in found.items()}
