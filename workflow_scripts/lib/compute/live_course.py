"""Course of a training in progress: small files for the progress page, under results/{run}/progress/.

Files are written by the clock, and no result rests on them. A training that cannot write them goes on."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from workflow_scripts.lib.base import files
from workflow_scripts.lib.base.files import atomic
from workflow_scripts.lib.base.stage import log

EVERY = 10.0  # seconds between two writes
POINTS = 200  # of a curve, at most; more are averaged in pairs
STRIPS = 6  # sample strips that are kept of a training


@dataclass(frozen=True)
class Live:
    """Where trainings tell their course (None: nowhere), and minutes between strips of samples (0: none)."""

    folder: Path | None = None
    minutes: float = 0


NOWHERE = Live()


class LiveCourse:
    """The course of one training: numbers by step, and strips of samples.

    It goes on from the file of a killed training with the same `digest`."""

    def __init__(self, folder: Path | None, about: dict[str, Any], steps: int, digest: str) -> None:
        self.about, self.steps, self.digest = about, steps, digest
        name = f"{about['kind']}_repeat{about['repeat']}_fold{about['fold']}_{about['name']}"
        self.path = None if folder is None else folder / f"{name}.json"
        self.points: list[dict[str, float]] = []
        self._last: dict[str, float] = {}
        self._sums, self._count, self._width = {}, 0, 1  # of a point that is being averaged
        self._written = self._drawn = time.monotonic()
        if self.path is not None and not self._earlier():
            self._forget()

    def add(self, step: int, **numbers: float) -> None:
        """Numbers of a step, where they are new; later ones that a killed training left are dropped."""
        if self.path is None:
            return
        if numbers and numbers != self._last:
            self._last = numbers
            self._point(step, numbers)
        if step >= self.steps or time.monotonic() - self._written >= EVERY:
            self._write(step)

    def _point(self, step: int, numbers: dict[str, float]) -> None:
        while self.points and self.points[-1]["step"] >= step:
            self.points.pop()
        for name, value in numbers.items():
            self._sums[name] = self._sums.get(name, 0.0) + value
        self._count += 1
        if self._count >= self._width:
            self.points.append({"step": step} | {name: value / self._count for name, value in self._sums.items()})
            self._sums, self._count = {}, 0
        if len(self.points) >= 2 * POINTS:
            self.points = [_mean(*pair) for pair in zip(self.points[::2], self.points[1::2], strict=False)]
            self._width *= 2

    def strip_due(self, minutes: float, last: bool) -> bool:
        """Whether so many minutes have passed since the last strip, or since the start, or it is the last step.

        0 minutes: never."""
        if self.path is None or minutes <= 0:
            return False
        return last or time.monotonic() - self._drawn >= 60 * minutes

    def keep_strip(self, step: int, images: np.ndarray) -> None:
        """Keep samples of a step, uint8 (n, C, s, s); of many strips every other one goes."""
        self._drawn = time.monotonic()
        try:
            with atomic(self._strip(step)) as part, part.open("wb") as handle:
                np.save(handle, images, allow_pickle=False)
            kept = sorted(self.path.parent.glob(f"{self.path.stem}.step*.npy"))
            if len(kept) > STRIPS:
                for path in kept[1:-1:2]:
                    path.unlink(missing_ok=True)
        except OSError as error:
            log.warning("no strip of samples was written: %s", error)

    def _strip(self, step: int) -> Path:
        return self.path.with_name(f"{self.path.stem}.step{step:09d}.npy")

    def _earlier(self) -> bool:
        """Take over the points of a killed training of the same task."""
        try:
            told = json.loads(self.path.read_text(encoding="utf-8"))
            same = told["digest"] == self.digest
            self.points = [dict(point) for point in told["points"]] if same else []
            return same
        except (OSError, ValueError, KeyError, TypeError):
            return False

    def _forget(self) -> None:
        for path in self.path.parent.glob(f"{self.path.stem}.*"):
            path.unlink(missing_ok=True)

    def _write(self, step: int) -> None:
        self._written = time.monotonic()
        told = self.about | {"digest": self.digest, "step": step, "steps": self.steps, "points": self.points}
        try:
            files.write_json(self.path, told)
        except OSError as error:
            log.warning("the course of the training was not written: %s", error)


def _mean(one: dict[str, float], other: dict[str, float]) -> dict[str, float]:
    both = {name: (one[name] + other[name]) / 2 for name in one if name in other}
    return both | {"step": other["step"]}
