"""Whole fields of view made of MixLoc's simulated cells, with the label image of their nuclei.

Cells lie at random, overlap at their rims, and their nuclei may touch but not overlap. The field is then lit unevenly,
blurred and read by a noisy sensor."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter

from workflow_scripts.lib.simulate import drawing
from workflow_scripts.lib.simulate.laboratory import Specimen, World

TRIES = 60  # places that are tried for a cell


@dataclass
class Field:
    """A field (4, side, side) uint8, channels as in drawing.CHANNELS, and its nuclei (side, side), 0 for none."""

    pixels: np.ndarray
    nuclei: np.ndarray


@dataclass
class Cell:
    """A cell before the sensor: planes float32 (4, s, s), and where its nucleus is, (s, s)."""

    planes: np.ndarray
    nucleus: np.ndarray


def cells(world: World, count: int, size: int) -> list[Cell]:
    """The first cells of a world, `size` pixels a side; they are turned and used again within fields."""
    grid = drawing.fine_grid(size)
    return [_cell(world.specimen(number), grid, size) for number in range(count)]


def draw(made: list[Cell], side: int, count: int, vignetting: float, rng: np.random.Generator) -> Field:
    """A field of at most `count` cells."""
    size = len(made[0].nucleus)
    planes = np.zeros((4, side + 2 * size, side + 2 * size), dtype=np.float32)
    nuclei = np.zeros(planes.shape[1:], dtype=np.int32)
    for number in range(1, count + 1):
        cell, turn = made[rng.integers(len(made))], int(rng.integers(4))
        painted, nucleus = np.rot90(cell.planes, turn, (1, 2)), np.rot90(cell.nucleus, turn)
        bright = np.float32(np.exp(0.3 * rng.standard_normal()))
        for _ in range(TRIES):
            top, left = rng.integers(size // 2, side + size // 2, 2)
            place = (slice(top, top + size), slice(left, left + size))
            if not nuclei[place][nucleus].any():
                np.maximum(planes[:, *place], bright * painted, out=planes[:, *place])
                nuclei[place][nucleus] = number
                break
    inside = (slice(size, size + side), slice(size, size + side))
    return Field(_exposed(planes[:, *inside], vignetting, rng), nuclei[inside])


def _cell(specimen: Specimen, grid: drawing.FineGrid, size: int) -> Cell:
    made = drawing.build(specimen, grid, np.random.Generator(np.random.PCG64([specimen.seed, 0])))
    red, blue, yellow = drawing.references(made, specimen)
    fine = np.stack([red, drawing.protein(made, specimen), blue, yellow, made.nucleus]).astype(np.float32)
    small = fine.reshape(5, size, grid.factor, size, grid.factor).mean((2, 4))
    return Cell(small[:4], small[4] > 0.5)


def _exposed(planes: np.ndarray, vignetting: float, rng: np.random.Generator) -> np.ndarray:
    """Uneven light, blur, photons and 8 bits."""
    side = planes.shape[1]
    axis = np.linspace(-1, 1, side, dtype=np.float32)
    bright = rng.uniform(-0.4, 0.4, 2)
    off = (axis[None] - bright[0]) ** 2 + (axis[:, None] - bright[1]) ** 2
    light = 1 - vignetting * np.minimum(off / 2, 1)
    haze = 0.05 * gaussian_filter(planes, (0, side / 12, side / 12))
    seen = gaussian_filter((planes + haze) * light, (0, 1, 1))
    counts = rng.poisson(np.maximum(seen, 0) * 150) / 150 + 0.012 + 0.012 * rng.standard_normal(planes.shape)
    return np.clip(np.rint(counts * 255), 0, 255).astype(np.uint8)
