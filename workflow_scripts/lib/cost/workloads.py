"""Jobs of a run as the cost model knows them: the work in each, its dependencies, its files and its memory.

This module reads no files and needs no torch; a `Networks` object counts the networks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

Config = dict[str, Any]
GFLOP, MEGAPIXELS, IMAGES, JOBS = "GFLOP", "megapixels", "images", "jobs"
# Stages that the profiles give a GPU.
ON_GPU = ("train_ddpm", "sample_ddpm", "sample_fold", "train_classifier", "train_judge", "stress_test")

TEXT = 48  # bytes of an entry in a text column: its reference, and a few letters
BLOCK = 4096  # disk block: file sizes are rounded up to multiples of this


@dataclass(frozen=True)
class Facts:
    """Facts about the images beside the config."""

    images: int
    classes: int
    side: int | None = None  # pixels a side of an image file; None: not known


@dataclass(frozen=True)
class Network:
    """Operations of a network for one image, and its size."""

    forward: float  # FLOP
    training: float  # FLOP, forward and backward
    bytes: int  # of its weights, in float32


class Networks(Protocol):
    """Interface of what counts networks."""

    def classifier(self, backbone: str, channels: int, classes: int, size: int, frozen: bool) -> Network:
        """Counts of a classifier."""

    def generator(self, settings: Config, channels: int, classes: int, size: int) -> Network:
        """Counts of a generator's network."""

    def calls(self, generator: Config, synthetic_set: Config) -> float:
        """Calls of that network for an image of a synthetic set."""


@dataclass
class Workload:
    """Work of one kind, and the properties that its speed may depend on."""

    kind: str  # the stage by whose rate it goes
    unit: str
    units: float
    traits: Config = field(default_factory=dict)
    part: str = ""  # what of the job it is, such as an arm


@dataclass
class Job:
    """One job of the workflow, named as its log and its benchmark file are."""

    stage: str
    name: str
    works: list[Workload]
    after: list[str] = field(default_factory=list)  # keys of the jobs that it waits for
    threads: int = 1
    gpus: int = 1  # that it takes where there are any
    disk: dict[str, float] = field(default_factory=dict)  # bytes that it leaves, by kind
    files: int = 0  # of the raw images
    held: float = 0.0  # bytes of images and the like that it holds in memory
    since: float = 0.0  # what was measured before this moment was other work

    @property
    def key(self) -> str:
        """Name by which other jobs refer to it."""
        return f"{self.stage}/{self.name}"


def job_of(stage: str, name: str, works: list[Workload], after: Sequence[str] = (), threads: int = 1) -> Job:
    """A job that waits for those of these keys."""
    return Job(stage, name, works, list(after), threads)


def raw_bytes(files: int, side: int, a_pixel: float) -> float:
    """Disk space of raw image files, in whole blocks."""
    return files * -(-(side**2) * a_pixel // BLOCK) * BLOCK
