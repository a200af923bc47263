"""How well and how fast nuclei of whole fields are found, on fields made of simulated cells with known nuclei.

    python -m benchmarks.cut_cells

A nucleus is found if a region overlaps it by half of their union. Recall: found nuclei of all. Precision: regions that
are such a nucleus, of all regions. Beside it stands a global Otsu threshold with connected components, which neither
follows the light nor parts nuclei that touch. Times are those of one core."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import yaml
from scipy import ndimage
from skimage.filters import threshold_otsu

from benchmarks import simulated_fields
from benchmarks.simulated_fields import Field
from workflow_scripts.lib.images import nuclei
from workflow_scripts.lib.simulate.laboratory import World

ROOT = Path(__file__).resolve().parents[1]
CELLS = 4  # cells that are drawn for each kind of field
FIELDS = 3
BLUE = 2
# Name, side of a field, side of a cell, cells in a field, loss of light far from the middle.
KINDS = (
    ("even light", 1024, 150, 40, 0.0),
    ("crowded, uneven light", 1024, 150, 140, 0.6),
    ("small cells, uneven light", 1024, 60, 200, 0.6),
    ("large field, uneven light", 2048, 300, 100, 0.6),
)
Finder = Callable[[np.ndarray], np.ndarray]


def found(truth: np.ndarray, labels: np.ndarray) -> tuple[int, int, int]:
    """Nuclei that a region overlaps by half of their union, all nuclei, all regions."""
    width = int(labels.max()) + 1
    pairs, counts = np.unique(truth.ravel().astype(np.int64) * width + labels.ravel(), return_counts=True)
    own, other = np.bincount(truth.ravel()), np.bincount(labels.ravel())
    hits = sum(
        count / (own[pair // width] + other[pair % width] - count) >= 0.5
        for pair, count in zip(pairs.tolist(), counts.tolist(), strict=True)
        if pair // width and pair % width
    )
    return hits, int((own[1:] > 0).sum()), int((other[1:] > 0).sum())


def mixloc(field: np.ndarray) -> np.ndarray:
    """MixLoc's way, with the diameter learned from the field itself."""
    return nuclei.segment(field, nuclei.typical_diameter(field) or 1)


def plain(field: np.ndarray) -> np.ndarray:
    """A global threshold and connected components; specks are left out."""
    labels, count = ndimage.label(ndimage.gaussian_filter(field.astype(np.float32), 1) > threshold_otsu(field))
    areas = np.bincount(labels.ravel(), minlength=count + 1)
    return np.where(areas[labels] > 30, labels, 0)


def measured(fields: list[Field], finder: Finder) -> tuple[float, float, float]:
    """Recall, precision and seconds a field."""
    began = time.process_time()
    labels = [finder(field.pixels[BLUE]) for field in fields]
    seconds = (time.process_time() - began) / len(fields)
    hits, all_nuclei, regions = np.sum([found(f.nuclei, own) for f, own in zip(fields, labels, strict=True)], axis=0)
    return hits / all_nuclei, hits / max(1, regions), seconds


def main() -> None:
    """Print a line for each kind of field."""
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    settings = yaml.safe_load((ROOT / "config.yaml").read_text(encoding="utf-8"))["simulate_cells"]
    world, rng = World(settings, seed=1), np.random.default_rng(3)
    print(f"{'fields':28} {'px':>5} {'nuclei':>6}   recall precision  s/field   plain: recall precision")
    for name, side, cell, count, vignetting in KINDS:
        made = simulated_fields.cells(world, CELLS, cell)
        fields = [simulated_fields.draw(made, side, count, vignetting, rng) for _ in range(FIELDS)]
        own, other = measured(fields, mixloc), measured(fields, plain)
        nuclei_count = sum(len(np.unique(field.nuclei)) - 1 for field in fields)
        print(
            f"{name:28} {side:5} {nuclei_count:6}   {own[0]:6.3f} {own[1]:9.3f} {own[2]:8.2f} "
            f"{other[0]:15.3f} {other[1]:9.3f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
