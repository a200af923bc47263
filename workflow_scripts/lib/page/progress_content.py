"""Content of the page of a run in progress: jobs by stage, curves of the trainings, and their strips of samples.

Everything is read from small files that the trainings replace as a whole. One that cannot be read is left out."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from workflow_scripts.lib.base.progress import duration
from workflow_scripts.lib.cost.time_left import StageState, Watch
from workflow_scripts.lib.page import image_legend, image_strips, pictures

REFRESH = 30  # seconds
SAMPLED = 6  # trainings whose samples are shown, the latest ones
CYCLE = ("blue", "vermilion", "green", "purple", "ochre", "sky")
WIDE, HIGH, LEFT, LOW = 340, 150, 42, 20  # of a chart, and its margins, in units of its drawing
KINDS = {"generator": "generators", "classifier": "arms"}


@dataclass(frozen=True)
class Course:
    """What a training has told of itself."""

    path: Path
    told: dict[str, Any]
    written: float

    @property
    def title(self) -> str:
        """Which training it is."""
        return f"{self.told['name']}, repeat {self.told['repeat']}, fold {self.told['fold']}"

    def curve(self, quantity: str) -> list[tuple[float, float]]:
        """Steps and values of a quantity."""
        points = self.told["points"]
        pairs = [(float(point["step"]), float(point[quantity])) for point in points if quantity in point]
        return [pair for pair in pairs if all(map(math.isfinite, pair))]


def context(folder: Path, watch: Watch, now: float, state: str, about: dict[str, Any]) -> dict[str, Any]:
    """The values of the template."""
    found = courses(folder / "progress", about)
    left = watch.left(now)
    return {
        "run": about["run"],
        "state": state,
        "refresh": REFRESH,
        "written": time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(now)),
        "done": sum(one.seconds is not None for one in watch.states.values()),
        "jobs": len(watch.planned),
        "left": None if left is None else duration(left),
        "report": (folder / "report.html").is_file(),
        "stages": [_row(stage) for stage in watch.stages(now)],
        "charts": charts(found, about),
        "samples": samples(found, about),
        "more": max(0, sum(bool(strips(one)) for one in found) - SAMPLED),
    }


def courses(folder: Path, about: dict[str, Any]) -> list[Course]:
    """Courses of the run's generators and arms, the latest first."""
    out = []
    for path in sorted(folder.glob("*.json")):
        try:
            told = json.loads(path.read_text(encoding="utf-8"))
            course = Course(path, told, path.stat().st_mtime)
            if told["name"] in about[KINDS[told["kind"]]] and course.title and course.curve("loss"):
                out.append(course)
        except (OSError, ValueError, KeyError, TypeError):
            continue
    return sorted(out, key=lambda course: -course.written)


def _row(stage: StageState) -> dict[str, Any]:
    total = stage.done + len(stage.running) + stage.waiting
    part = (stage.done + sum(stage.running.values())) / max(1, total)
    return {
        "stage": stage.stage,
        "done": stage.done,
        "running": [f"{name} {100 * fraction:.0f} %" for name, fraction in stage.running.items()],
        "waiting": stage.waiting,
        "percent": round(100 * part, 1),
        "left": duration(stage.left) if stage.left and stage.left >= 1 else "",
    }


# ---- curves ----------------------------------------------------------------------------------------------------------


def charts(found: list[Course], about: dict[str, Any]) -> list[dict[str, Any]]:
    """Loss of generators, and loss and validation mAP of arms: a line a training, a colour a name."""
    asked = (
        ("Generators: training loss", "generator", "loss"),
        ("Classifiers: training loss", "classifier", "loss"),
        ("Classifiers: validation mAP", "classifier", "validation_map"),
    )
    out = []
    for title, kind, quantity in asked:
        colours = {name: CYCLE[place % len(CYCLE)] for place, name in enumerate(about[KINDS[kind]])}
        lines = [
            (one.told["name"], one.curve(quantity))
            for one in sorted(found, key=lambda one: one.title)
            if one.told["kind"] == kind and one.curve(quantity)
        ]
        if lines:
            out.append({"title": title} | chart(lines, colours, falls=quantity == "loss"))
    return out


def chart(lines: list[tuple[str, list[tuple[float, float]]]], colours: dict[str, str], falls: bool) -> dict[str, Any]:
    """A drawing: points of each line, and the ends of both axes; logarithmic for what `falls` by much."""
    values = [value for _, line in lines for _, value in line]
    last = max(step for _, line in lines for step, _ in line)
    low, high = min(values), max(values)
    scale: Callable[[float], float] = math.log if falls and low > 0 and high > 3 * low else float
    span = scale(high) - scale(low)

    def place(step: float, value: float) -> str:
        part = (scale(value) - scale(low)) / span if span else 0.5
        return f"{LEFT + (WIDE - LEFT - 6) * step / last:.1f},{8 + (HIGH - LOW - 8) * (1 - part):.1f}"

    return {
        "lines": [
            {
                "colour": colours[name],
                "points": " ".join(place(*pair) for pair in line),
                "end": place(*line[-1]).split(","),
            }
            for name, line in lines
        ],
        "names": [{"name": name, "colour": colours[name]} for name in dict.fromkeys(name for name, _ in lines)],
        "low": f"{low:.3g}",
        "high": f"{high:.3g}",
        "last": f"{last:,.0f}",
        "logarithmic": scale is math.log,
    }


# ---- samples ---------------------------------------------------------------------------------------------------------


def strips(course: Course) -> list[Path]:
    """Files of a training's strips of samples, by step."""
    return sorted(course.path.parent.glob(f"{course.path.stem}.step*.npy")) if "channels" in course.told else []


def samples(found: list[Course], about: dict[str, Any]) -> list[dict[str, Any]]:
    """Strips of the latest trainings, with their legend."""
    sampled = [course for course in found if strips(course)]
    return [one for course in sampled[:SAMPLED] if (one := _shown(course, about)) is not None]


def _shown(course: Course, about: dict[str, Any]) -> dict[str, Any] | None:
    channels, read = list(course.told["channels"]), []
    for path in strips(course):
        try:
            images = np.load(path, allow_pickle=False)
        except (OSError, ValueError):
            continue
        if images.dtype == np.uint8 and images.ndim == 4 and images.shape[1] == len(channels):
            read.append((int(path.stem[-9:]), images))
    if not read:
        return None
    scale = image_strips.brightest([read[-1][1]], len(channels))
    side = read[-1][1].shape[-1]
    return {
        "title": course.title,
        "steps": f"{course.told['steps']:,}",
        "count": len(read[-1][1]),
        "legend": image_legend.make(channels, side, about["colours"], about["pixel_size"]).told(),
        "strips": [
            {"step": f"{step:,}", "uri": pictures.strip(images, channels, scale, about["colours"])}
            for step, images in read
        ],
    }
