"""The config of a rehearsal: every job of a run with its images, networks and batches, and a handful of all else.

Steps, draws and generated images are cut down; what a job holds in memory, and every file that it reads, stay."""

from __future__ import annotations

import copy
from typing import Any

from workflow_scripts.lib.config import bases

STEPS = 30  # of a training; enough for its rate
DRAWS = 400  # of a bootstrap: with fewer the time around them counts more than theirs
SIMULATED = 50  # images of a set from the simulator
OF_A_CLASS = 2  # images of each class, where a set has so many of each
LONGEST = 40  # letters of a run's name
SUFFIX = "-rehearsal"
TEXT = (
    "This is a rehearsal: all jobs of the run with its own images, but with a handful of steps, draws and generated "
    "images. Its scores mean nothing."
)


def name_of(run: str) -> str:
    """Name of the rehearsal of a run; its results lie beside those of the run."""
    return run[: LONGEST - len(SUFFIX)] + SUFFIX


def of(config: dict[str, Any]) -> dict[str, Any]:
    """The config of the rehearsal of a run with this config, complete with defaults."""
    out = copy.deepcopy(bases.fill_in(config))  # what an entry has from its base is cut as well
    out["run"] = name_of(config["run"])
    for generator in out["generators"]:
        _cut(generator, "steps", STEPS)
    # A whole batch is sampled, because it decides about memory. Sets of one size keep one size: the set of an arm and
    # that of its control must have as many labels.
    most: dict[int | None, int] = {}
    for entry in out["synthetic_sets"]:
        most[entry.get("count")] = max(most.get(entry.get("count"), 0), entry.get("batch", SIMULATED))
    for entry in out["synthetic_sets"]:
        _cut(entry, "count", most[entry.get("count")])
        _cut(entry, "per_class", OF_A_CLASS)
    for training in (out["train_classifier"], *out["arms"]):
        _cut(training, "steps", STEPS)
        _cut(training, "checkpoints", 1)
        if training.get("pretrain") is not None:  # of so few steps, too, both parts keep some
            training["pretrain"] = min(max(training["pretrain"], 2 / STEPS), 1 - 2 / STEPS)
    for section in (out["analysis"], out["stress_test"]):
        _cut(section, "draws", DRAWS)
    out["report"] |= {"demonstration": True, "demonstration_text": TEXT}
    return out


def _cut(section: dict[str, Any], key: str, most: int) -> None:
    if section.get(key) is not None:
        section[key] = min(section[key], most)
