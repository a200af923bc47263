"""The page of `snakemake cells`: some fields with the outlines of their nuclei, and cells that were cut out of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from skimage.segmentation import find_boundaries

from workflow_scripts.lib.images import nuclei, whole_fields
from workflow_scripts.lib.images.nuclei import KEPT
from workflow_scripts.lib.images.whole_fields import Cells, Task
from workflow_scripts.lib.page import image_strips, pictures
from workflow_scripts.lib.page.html_page import Column, PageTable

SHOWN = 8  # fields, evenly spaced over the table
CELLS = 8  # of each field
WIDE = 900  # pixels of a field's picture, at most
SIDE = 96  # pixels of a cell's picture, at most
GAMMA = 0.6  # brightens dim nuclei
KEPT_COLOUR, LEFT_COLOUR = (0.0, 1.0, 0.2), (1.0, 0.55, 0.0)


def context(fields: Sequence[tuple[Task, Cells]], run: str) -> dict[str, Any]:
    """What the template shows."""
    chosen = np.unique(np.linspace(0, len(fields) - 1, min(SHOWN, len(fields))).astype(int))
    counts = Counter(nucleus.verdict for _, cells in fields for nucleus in cells.found)
    first = fields[0][0]
    by_masks = bool(first.reader.data["masks"])
    return {
        "run": run,
        "fields": len(fields),
        "kept": counts[KEPT],
        "side": first.cut.side,
        "diameter": first.cut.limits.diameter,
        "channel": "the masks" if by_masks else f"the channel {first.cut.nucleus_channel}",
        "verdicts": _verdicts(counts),
        "shown": [_shown(*fields[row]) for row in chosen],
    }


def _verdicts(counts: Counter[str]) -> PageTable:
    """How many nuclei were kept, and why the others were not."""
    total = sum(counts.values())
    rows = [{"verdict": name, "nuclei": count, "part": count / total} for name, count in counts.most_common()]
    columns = [
        Column("verdict", "nuclei", "name"),
        Column("nuclei", "number", "count"),
        Column("part", "of all", "percent"),
    ]
    return PageTable("verdicts", "Nuclei of all fields", columns, rows)


def _shown(task: Task, cells: Cells) -> dict[str, Any]:
    """A field with outlines, and its first cells."""
    channels, _ = task.reader.field(task.id)
    assert channels is not None
    labels = whole_fields.labels_of(task, channels)
    behind = channels[task.cut.nucleus_channel or next(iter(channels))]
    kept = [nucleus for nucleus in cells.found if nucleus.verdict == KEPT]
    count = len(cells.found)
    return {
        "name": task.id,
        "text": f"{task.id}: {count} nucle{'us' if count == 1 else 'i'}, {len(kept)} kept",
        "picture": pictures.photograph(outlined(behind, labels, {nucleus.label for nucleus in kept})),
        "cells": _strip(task, channels, kept[:CELLS]),
        "count": min(len(kept), CELLS),
    }


def outlined(field: np.ndarray, labels: np.ndarray, kept: set[int]) -> np.ndarray:
    """Picture (h, w, 3) in [0, 1] of a channel (H, W) with the outlines of nuclei: green where kept, else orange."""
    step = max(1, -(-max(field.shape) // WIDE))
    low, high = np.percentile(field, [1, 99.8])
    grey = np.clip((field - low) / max(1e-9, float(high - low)), 0, 1) ** GAMMA
    out = np.repeat(grey[..., None], 3, axis=2).astype(np.float32)
    own = np.isin(labels, list(kept))
    height, width = (length // step for length in field.shape)

    def blocks(values: np.ndarray) -> np.ndarray:
        return values[: height * step, : width * step].reshape(height, step, width, step, -1)

    small = blocks(out).mean(axis=(1, 3))
    for part, colour in ((labels * ~own, LEFT_COLOUR), (labels * own, KEPT_COLOUR)):
        edge = find_boundaries(part, mode="inner")
        small[blocks(edge)[..., 0].any(axis=(1, 3))] = colour
    return small


def _strip(task: Task, channels: dict[str, np.ndarray], kept: Sequence[nuclei.Nucleus]) -> str:
    """Cells side by side, all channels in their colours."""
    if not kept:
        return ""
    side, names = task.cut.side, list(channels)
    step = max(1, -(-side // SIDE))
    cells = np.stack([whole_fields.square(channels, nucleus, side) for nucleus in kept]).astype(np.float32)
    size = side // step
    small = cells[..., : size * step, : size * step].reshape(len(kept), len(names), size, step, size, step).mean((3, 5))
    return pictures.strip(small, names, image_strips.brightest([small], len(names)))
