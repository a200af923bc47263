"""Procedural fluorescence cells in memory: `World` describes them, `cells` draws them.

    world = World(settings, seed)              # settings: the section simulate_cells of the config
    batch = cells(world, range(100))           # batch.images (100, 4, S, S), batch.labels (100, K), ids, rows

Every image derives from (seed, its index) alone, so that any part may be made in any order by any process."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from workflow_scripts.lib.simulate.drawing import CHANNELS, draw
from workflow_scripts.lib.simulate.laboratory import Specimen, World, check
from workflow_scripts.lib.simulate.protein_labels import COMPARTMENTS

__all__ = [
    "CHANNELS", "COMPARTMENTS", "CellBlock", "World",
    "as_asked", "cells", "check", "draw", "metadata", "simulate", "truth",
]  # fmt: skip


@dataclass
class CellBlock:
    """Some simulated images with all that is known about them."""

    images: np.ndarray  # (n, 4, S, S) uint8
    labels: np.ndarray  # (n, K) bool, as the table gives them
    true: np.ndarray  # (n, K) bool, as they are
    ids: np.ndarray  # (n,) str
    genes: np.ndarray  # (n,) str
    metadata: list[dict[str, Any]]
    truth: list[dict[str, Any]]


def metadata(specimen: Specimen) -> dict[str, Any]:
    """Row of metadata.csv: what a laboratory would know of an image."""
    return {"Id": specimen.id, **specimen.names, "shifted": int(specimen.shifted)}


def _numbers(labels: np.ndarray) -> str:
    return " ".join(str(label) for label in np.flatnonzero(labels))


def truth(world: World, specimen: Specimen) -> dict[str, Any]:
    """Row of truth.csv: what only the simulator knows of an image."""
    plants = world.settings["plants"]
    facts, turn = specimen.facts, specimen.turn
    marked = bool(plants["reference_class"]) and bool(specimen.true[COMPARTMENTS.index(plants["reference_class"])])
    off_target = facts["off_target"]
    return {
        "Id": specimen.id,
        "gene": specimen.names["gene"],
        "true": _numbers(specimen.true),
        "given": _numbers(specimen.given),
        "omitted": _numbers(specimen.true & ~specimen.given),
        "added": _numbers(specimen.given & ~specimen.true),
        "weak": int(facts["weak"]),
        "saturated": int(facts["saturated"]),
        "off_target": "" if off_target < 0 else off_target,
        "defocused": int(specimen.optics["blur"] > 0.03),
        "neighbour": int(specimen.optics["neighbour"]),
        "debris": int(specimen.optics["debris"]),
        "shifted": int(specimen.shifted),
        "duplicate_of": "" if specimen.copy_of is None else world.specimen(specimen.copy_of).id,
        "duplicate_turn": "" if specimen.copy_of is None else f"{90 * (turn % 4)}{' mirrored' if turn >= 4 else ''}",
        "picture_gene": facts.get("copied_gene", specimen.names["gene"]),
        "reference_mark": int(marked),
        "class_effect": int(specimen.effect),
    }


def cells(world: World, indices: Iterable[int], size: int | None = None) -> CellBlock:
    """Draw the images of these indices, at the settings' size or another."""
    size = size or int(world.settings["size"])
    specimens = [world.specimen(int(index)) for index in indices]
    images = np.empty((len(specimens), len(CHANNELS), size, size), np.uint8)
    for row, specimen in enumerate(specimens):
        images[row] = draw(specimen, size)
    shape = (len(specimens), len(COMPARTMENTS))
    return CellBlock(
        images=images,
        labels=np.array([s.given for s in specimens], bool).reshape(shape),
        true=np.array([s.true for s in specimens], bool).reshape(shape),
        ids=np.array([s.id for s in specimens], str),
        genes=np.array([s.names["gene"] for s in specimens], str),
        metadata=[metadata(s) for s in specimens],
        truth=[truth(world, s) for s in specimens],
    )


def simulate(settings: dict[str, Any], seed: int, cohort: int = 0, at_once: int = 64) -> Iterator[CellBlock]:
    """All `settings["images"]` images in batches; `cohort` gives other proteins from the same laboratory."""
    world = World(settings, seed, cohort)
    for start in range(0, int(settings["images"]), at_once):
        yield cells(world, range(start, min(start + at_once, int(settings["images"]))))


def as_asked(
    settings: dict[str, Any], seed: int, cohort: int, true: np.ndarray, at_once: int = 64
) -> Iterator[tuple[np.ndarray, CellBlock]]:
    """Draw fresh cells with the requested labels, (n, K) bool: yields batches of their rows and cells.

    Every cell shows a different protein of the run's laboratory, with exactly the locations of its row. No protein
    copies another's image or shares its antibody, because its locations would then be those of the other."""
    count = len(true)
    alone = {"genes": count, "images": count, "shared_antibodies": 0.0}
    world = World(settings | alone | {"plants": settings["plants"] | {"duplicates": 0.0}}, seed, cohort)
    world.true = np.asarray(true, dtype=bool)
    for start in range(0, count, at_once):
        # The first pass through the genes shows each of them once.
        indices = range(start, min(start + at_once, count))
        yield np.array([world.gene_of(index) for index in indices]), cells(world, indices)
