"""Units of the replay: trainings that rows of the design share, distributed over shards."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from workflow_scripts.lib.study import designs, switches
from workflow_scripts.lib.study.designs import Design

Levels = dict[str, bool]  # state of switches by name
OFF: Levels = dict.fromkeys(switches.SWITCHES, False)


@dataclass(frozen=True)
class Unit:
    """One training of one model, and the rows of the design that share it."""

    model: dict[str, Any]
    levels: Levels  # of all switches that act before or during training; off where one does not act on the model
    after: tuple[str, ...]  # varied switches that act on the model after its training
    rows: tuple[int, ...]
    made: tuple[tuple[str, bool], ...] | None = None  # what decides about its synthetic images; None: it uses none

    @property
    def title(self) -> str:
        """Name in the log."""
        on = [name for name, level in self.levels.items() if level]
        return f"{self.model['name']} ({', '.join(on) or 'as MixLoc'})"


def shard_units(settings: dict[str, Any], shard: int) -> tuple[Design, list[Unit]]:
    """Design, and the units of a shard: units of one generator stay together, generators are distributed in turn."""
    section, base = settings["forensics"], settings["train_classifier"]
    training = switches.acting(section, base, after=False)
    design = designs.fraction(training, section["runs"])
    varied, fixed = switches.varied(section), settings["replay"]
    groups: dict[tuple, list[Unit]] = {}
    for model in switches.models(section, base):
        acting = switches.of_model(switches.SWITCHES, model, after=False)
        after = tuple(switches.of_model(varied, model, after=True))
        states: dict[tuple, list[int]] = {}
        for row, signs in enumerate(design.signs):
            levels = fixed | {name: bool(sign > 0) for name, sign in zip(design.factors, signs, strict=True)}
            states.setdefault(tuple((name, levels[name]) for name in acting), []).append(row)
        for state, rows in states.items():
            levels = {name: level for name, level in OFF.items() if switches.SWITCHES[name].acts != switches.AFTER}
            levels |= dict(state)
            learns = any(switches.SWITCHES[name].acts == switches.GENERATOR for name in acting)
            names = switches.needs_generator(levels) if learns else ("image_split", "premultiplied_alpha")
            key = (learns, *((name, levels[name]) for name in names))
            made = (*key[1:], ("uniform_prior", levels["uniform_prior"])) if learns else None
            groups.setdefault(key, []).append(Unit(model, levels, after, tuple(rows), made))
    order = sorted(groups, key=str)
    return design, [unit for key in order[shard :: section["shards"]] for unit in _sorted(groups[key])]


def _sorted(units: list[Unit]) -> list[Unit]:
    return sorted(units, key=lambda unit: (str(unit.made), unit.model["name"], str(unit.levels)))


def score_lines(
    unit: Unit, design: Design, fixed: Levels, scores: list[dict[str, dict[str, float]]], repeat: int, fold: int
) -> Iterator[dict[str, Any]]:
    """Rows of a unit in the table of scores, for all rows of the design that share it."""
    for row in unit.rows:
        state = fixed | {name: sign > 0 for name, sign in zip(design.factors, design.signs[row], strict=True)}
        for levels, score in zip(designs.combinations_of(list(unit.after)), scores, strict=True):
            states = {name: int(level) for name, level in (state | levels).items()}
            # In one order, whether they were computed now or read from a finished unit.
            for part, values in sorted(score.items()):
                for metric, value in sorted(values.items()):
                    yield {
                        "repeat": repeat, "fold": fold, "row": row, "model": unit.model["name"], "part": part,
                        "metric": metric, "value": value,
                    } | states  # fmt: skip
