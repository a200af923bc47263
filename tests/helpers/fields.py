"""Whole fields of view for tests: discs as nuclei, at known places, in two channels of 16 bits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image
from scipy.ndimage import gaussian_filter

PLACES = ((60, 60), (60, 130), (130, 60), (130, 190), (100, 250), (3, 200))  # row, column; the last one is cut off


def labels(shape: tuple[int, int] = (200, 300), radius: float = 12, places: tuple = PLACES) -> np.ndarray:
    """Label image of discs, numbered by place."""
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    out = np.zeros(shape, dtype=np.int32)
    for number, (row, column) in enumerate(places, 1):
        out[(rows - row) ** 2 + (columns - column) ** 2 <= radius**2] = number
    return out


def lit(discs: np.ndarray, seed: int = 0, low: float = 0.4) -> np.ndarray:
    """A nucleus channel uint16: discs of different brightness, light that falls to `low` at the right, and noise."""
    rng = np.random.default_rng(seed)
    bright = np.append(0, rng.uniform(0.6, 1.4, discs.max(initial=0)))[discs]
    light = np.linspace(1, low, discs.shape[1])
    seen = 8000 * gaussian_filter(bright, 1) * light + 500 + 60 * rng.standard_normal(discs.shape)
    return np.clip(seen, 0, 65535).astype(np.uint16)


def folder(where: Path, count: int = 3) -> Path:
    """Folder fields/ of f0, f1, … with the channels dna and gfp, and its table fields.csv."""
    (where / "fields").mkdir(parents=True)
    rows = ["Id;Target;gene;plate"]
    for number in range(count):
        dna = lit(labels(), number)
        Image.fromarray(dna).save(where / "fields" / f"f{number}_dna.png")
        Image.fromarray(np.roll(dna, 5, axis=1)).save(where / "fields" / f"f{number}_gfp.png")
        rows.append(f"f{number};{('nucleus', 'bud')[number % 2]};G{number};P{number // 2}")
    (where / "fields.csv").write_text("\n".join(rows))
    return where
