"""Rendering of simulated cells: from a `Specimen` to four 8-bit channels.

Geometry is in continuous coordinates; the image spans [-1, 1] in both directions. It is drawn on a fine grid that is
averaged down to the output size, so a specimen shows the same cell at every size. Intensities are in units of the
sensor's full scale until the last step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy.ndimage import gaussian_filter

from workflow_scripts.lib.simulate.laboratory import Specimen
from workflow_scripts.lib.simulate.protein_labels import COMPARTMENTS

CHANNELS = ("red", "green", "blue", "yellow")  # microtubules, protein, nucleus, endoplasmic reticulum
# Side of the fine grid, at least; small images are drawn on three fine pixels per pixel or more.
FINE = 96
ANGLES = 720  # steps of a contour table
FAINT = 0.02  # compartments weaker than this are not drawn


class FineGrid:
    """Fine grid of one output size, with everything that can be computed once."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.factor = max(2, -(-FINE // size))
        self.side = size * self.factor
        axis = ((np.arange(self.side) + 0.5) * 2 / self.side - 1).astype(np.float32)
        self.x, self.y = axis[None, :], axis[:, None]
        self.axis = axis
        self._bases: dict[int, np.ndarray] = {}

    def noise(self, rng: np.random.Generator, cells: int) -> np.ndarray:
        """(side, side) smooth random texture of unit variance with about `cells` features across the image."""
        if cells not in self._bases:
            knots = np.linspace(-1.2, 1.2, cells + 3, dtype=np.float32)
            basis = np.exp(-0.5 * ((self.axis[:, None] - knots) / (0.75 * (knots[1] - knots[0]))) ** 2)
            self._bases[cells] = basis / np.sqrt((basis**2).sum(1, keepdims=True))
        basis = self._bases[cells]
        grid = rng.standard_normal((cells + 3, cells + 3), dtype=np.float32)
        # einsum without BLAS: its sums do not depend on the number of threads.
        return np.einsum("ri,si->rs", np.einsum("ri,ij->rj", basis, grid), basis)

    def splat(self, x: np.ndarray, y: np.ndarray, weight: np.ndarray, width: float) -> np.ndarray:
        """(side, side) points spread bilinearly and blurred to `width`; one point of weight 1 peaks at about 1."""
        column, row = (x + 1) * self.side / 2 - 0.5, (y + 1) * self.side / 2 - 0.5
        left, top = np.floor(column).astype(np.int64), np.floor(row).astype(np.int64)
        right, down = column - left, row - top
        out = np.zeros((self.side + 2) ** 2)
        inside = (left >= -1) & (left < self.side) & (top >= -1) & (top < self.side)
        left, top, right, down, weight = (part[inside] for part in (left, top, right, down, weight))
        corner = (top + 1) * (self.side + 2) + left + 1
        for step, fraction in (
            (0, (1 - right) * (1 - down)),
            (1, right * (1 - down)),
            (self.side + 2, (1 - right) * down),
            (self.side + 3, right * down),
        ):
            out += np.bincount(corner + step, fraction * weight, len(out))
        sigma = width * self.side / 2
        plane = out.reshape(self.side + 2, -1)[1:-1, 1:-1].astype(np.float32)
        # One point spread over a Gaussian has the peak 1 / (2 pi sigma^2) in fine pixels.
        return gaussian_filter(plane, sigma, mode="constant", truncate=3.0) * np.float32(2 * np.pi * sigma**2)

    def look_up(self, plane: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Values of a plane at points, by nearest neighbour."""
        column = np.clip(((x + 1) * self.side / 2).astype(np.int64), 0, self.side - 1)
        row = np.clip(((y + 1) * self.side / 2).astype(np.int64), 0, self.side - 1)
        return plane[row, column]


@lru_cache(maxsize=8)
def fine_grid(size: int) -> FineGrid:
    """The fine grid of one output size."""
    return FineGrid(size)


def contour(rng: np.random.Generator, radius: float, aspect: float, rough: float, lobes: int) -> np.ndarray:
    """(ANGLES,) radius by angle of a rotated ellipse with random lobes."""
    angle = np.arange(ANGLES) * (2 * np.pi / ANGLES)
    turn = rng.random() * 2 * np.pi
    # Ellipse of the same area as a circle of that radius.
    a, b = radius * np.sqrt(aspect), radius / np.sqrt(aspect)
    out = a * b / np.hypot(b * np.cos(angle - turn), a * np.sin(angle - turn))
    for order in range(2, 2 + lobes):
        out = out * (1 + rough * rng.standard_normal() / order**0.7 * np.cos(order * angle + rng.random() * 2 * np.pi))
    return out


def along(table: np.ndarray, angle: np.ndarray) -> np.ndarray:
    """Contour radius at any angles."""
    return table[(angle * (ANGLES / (2 * np.pi))).astype(np.int64) % ANGLES]


@dataclass
class CellGeometry:
    """One cell's geometry: planes are (side, side) float32 on the fine grid."""

    grid: FineGrid
    rng: np.random.Generator
    traits: dict[str, float]
    outer: np.ndarray  # contour of the cell about the origin
    inner: np.ndarray  # contour of the nucleus about `centre`
    centre: tuple[float, float]
    edge: np.ndarray  # distance to the cell's contour, positive inside
    rim: np.ndarray  # distance to the nucleus' contour, positive inside
    cell: np.ndarray  # 1 inside the cell
    nucleus: np.ndarray  # 1 inside the nucleus
    nucleoli: np.ndarray  # 0 … 1
    pole: tuple[float, float, float]  # x, y and angle of the organising centre beside the nucleus
    filaments: np.ndarray

    @property
    def cytoplasm(self) -> np.ndarray:
        return self.cell * (1 - self.nucleus)

    def between(self, count: int, power: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Points in the cytoplasm and their angles; a higher power keeps them nearer to the nucleus."""
        rng = self.rng
        angle, way = rng.random(count) * 2 * np.pi, 0.1 + 0.78 * rng.random(count) ** power
        near, far = along(self.inner, angle) * 1.1, along(self.outer, angle)
        x = (1 - way) * (self.centre[0] + near * np.cos(angle)) + way * far * np.cos(angle)
        y = (1 - way) * (self.centre[1] + near * np.sin(angle)) + way * far * np.sin(angle)
        return x, y, angle

    def within(self, count: int, reach: float) -> tuple[np.ndarray, np.ndarray]:
        """Points in the nucleus, up to `reach` of the way to its rim."""
        angle, way = self.rng.random(count) * 2 * np.pi, reach * np.sqrt(self.rng.random(count))
        radius = way * along(self.inner, angle)
        return self.centre[0] + radius * np.cos(angle), self.centre[1] + radius * np.sin(angle)

    def strands(
        self, x: np.ndarray, y: np.ndarray, heading: np.ndarray, steps: int, stride: float, wander: float, width: float
    ) -> np.ndarray:
        """Curved lines from given starts; they fade over the nucleus and end at the cell's edge."""
        turns = np.cumsum(self.rng.standard_normal((len(x), steps)) * wander, 1)
        # Slow drift plus jitter, so that lines bend without trembling.
        heading = heading[:, None] + turns
        xs = (x[:, None] + np.cumsum(np.cos(heading), 1) * stride).ravel()
        ys = (y[:, None] + np.cumsum(np.sin(heading), 1) * stride).ravel()
        weight = self.grid.look_up(self.cell, xs, ys) * (1 - 0.6 * self.grid.look_up(self.nucleus, xs, ys))
        # A line of points one stride apart has the peak sqrt(2 pi) width / stride of a single point.
        return self.grid.splat(xs, ys, weight * stride / (2.5 * width), width)


def soft(distance: np.ndarray, width: float) -> np.ndarray:
    """Smooth step from 0 to 1 over a distance."""
    return 1 / (1 + np.exp(np.clip(-distance / np.float32(width), -30, 30)))


def _region(grid: FineGrid, table: np.ndarray, centre: tuple[float, float]) -> tuple[np.ndarray, np.ndarray]:
    """Distance to a contour, positive inside, and the angle about its centre."""
    dx, dy = grid.x - np.float32(centre[0]), grid.y - np.float32(centre[1])
    angle = np.arctan2(dy, dx)
    return along(table, angle).astype(np.float32) - np.hypot(dx, dy), angle


def build(specimen: Specimen, grid: FineGrid, rng: np.random.Generator) -> CellGeometry:
    """Draw a specimen's geometry: contours, nucleoli and filaments."""
    t = specimen.traits
    reach = 0.82 * float(np.exp(np.clip(0.09 * t["cell_size"], -0.25, 0.18)))
    outer = contour(rng, reach, 1 + 0.28 * np.exp(0.5 * t["cell_aspect"]), 0.085 * np.exp(0.25 * t["roughness"]), 7)
    outer = np.minimum(outer, 1.25)
    radius = 0.40 * float(np.exp(np.clip(0.08 * t["nucleus_size"], -0.18, 0.18)))
    inner = contour(rng, radius, 1.05 + 0.14 * np.exp(0.5 * t["nucleus_aspect"]), 0.022, 3)
    # The nucleus keeps a margin to the cell's edge all around.
    shift, towards = 0.07 * np.exp(0.3 * t["offset"]), rng.random() * 2 * np.pi
    centre = (float(shift * np.cos(towards)), float(shift * np.sin(towards)))
    angle = np.arange(ANGLES) * (2 * np.pi / ANGLES)
    inner = np.minimum(inner, 0.86 * outer - shift * np.cos(angle - towards))
    edge, _ = _region(grid, outer, (0.0, 0.0))
    rim, _ = _region(grid, inner, centre)
    side = rng.random() * 2 * np.pi
    at = float(along(inner, np.array(side))) * 1.22
    pole = (centre[0] + at * np.cos(side), centre[1] + at * np.sin(side), side)
    empty = np.zeros((grid.side, grid.side), np.float32)
    out = CellGeometry(
        grid, rng, t, outer, inner, centre, edge, rim, soft(edge, 0.02), soft(rim, 0.012), empty, pole, empty
    )
    count = 2 + int(rng.integers(3))
    x, y = out.within(count, 0.62)
    size = radius * 0.20 * np.exp(0.12 * rng.standard_normal(count))
    blobs = sum(_dot(grid, *spot) for spot in zip(x, y, size, strict=True))
    out.nucleoli = soft(blobs - np.float32(0.55), 0.08) * out.nucleus
    out.filaments = _network(out)
    return out


def _network(cell: CellGeometry) -> np.ndarray:
    """Microtubules: half radiate from the organising centre, half run on from elsewhere in the cell, outwards."""
    rng, lines = cell.rng, int(np.clip(26 * np.exp(0.2 * cell.traits["filaments"]), 14, 44))
    x, y, angle = cell.between(lines, 1.2)
    x, y = np.append(np.full(lines, cell.pole[0]), x), np.append(np.full(lines, cell.pole[1]), y)
    fan = (np.arange(lines) + 0.5 * rng.random(lines)) * 2 * np.pi / lines
    heading = np.append(fan, angle + 0.9 * rng.standard_normal(lines))
    return cell.strands(x, y, heading, 44, 0.026, 0.13, 0.015)


def _dot(grid: FineGrid, x: float, y: float, width: float) -> np.ndarray:
    scale = np.float32(-0.5 / width**2)
    return np.exp((grid.x - np.float32(x)) ** 2 * scale) * np.exp((grid.y - np.float32(y)) ** 2 * scale)


def _many(cell: CellGeometry) -> float:
    return float(np.exp(0.3 * np.clip(cell.traits["number"], -2, 2)))


def _large(cell: CellGeometry) -> float:
    return float(np.exp(0.14 * np.clip(cell.traits["size"], -2, 2)))


def _spread(cell: CellGeometry, power: float) -> float:
    return power * float(np.exp(-0.25 * np.clip(cell.traits["spread"], -2, 2)))


def _grain(cell: CellGeometry) -> np.ndarray:
    """Texture of the protein, with mean around 1: coarse or fine, flat or rough."""
    cells = int(np.clip(round(14 * np.exp(0.35 * cell.traits["grain"])), 6, 30))
    depth = 0.14 * np.exp(0.4 * np.clip(cell.traits["contrast"], -2, 2))
    return np.clip(1 + np.float32(depth) * cell.grid.noise(cell.rng, cells), 0.1, 2.5)


def nucleoplasm(cell: CellGeometry) -> np.ndarray:
    """The nucleus, filled, with dark holes where the nucleoli are."""
    return cell.nucleus * (1 - 0.75 * cell.nucleoli) * _grain(cell)


def nuclear_membrane(cell: CellGeometry) -> np.ndarray:
    """A thin bright ring around a dim nucleus."""
    width = np.float32(0.036 * _large(cell))
    return np.exp(-0.5 * (cell.rim / width) ** 2) * _grain(cell) + 0.10 * cell.nucleus


def nucleoli(cell: CellGeometry) -> np.ndarray:
    """A few large blobs in the nucleus."""
    return cell.nucleoli * _grain(cell) + 0.06 * cell.nucleus


def nuclear_bodies(cell: CellGeometry) -> np.ndarray:
    """Many small dots in the nucleus, off the nucleoli."""
    count = int(np.clip(14 * _many(cell), 8, 24))
    x, y = cell.within(count, 0.86)
    weight = cell.rng.uniform(0.6, 1.0, count) * (1 - 0.8 * cell.grid.look_up(cell.nucleoli, x, y))
    return np.minimum(cell.grid.splat(x, y, weight, 0.030 * _large(cell)), 1.2) + 0.07 * cell.nucleus


def golgi(cell: CellGeometry) -> np.ndarray:
    """A ribbon of short curved pieces, on one side of the nucleus."""
    pieces = int(np.clip(7 * _many(cell), 5, 12))
    angle = cell.pole[2] + cell.rng.standard_normal(pieces) * 0.40 * np.exp(0.2 * cell.traits["spread"])
    radius = along(cell.inner, angle) * (1.12 + 0.30 * cell.rng.random(pieces))
    x, y = cell.centre[0] + radius * np.cos(angle), cell.centre[1] + radius * np.sin(angle)
    heading = angle + np.pi / 2 + cell.rng.standard_normal(pieces) * 0.4
    return np.minimum(1.6 * cell.strands(x, y, heading, 9, 0.02, 0.25, 0.030 * _large(cell)), 1.3)


def microtubules(cell: CellGeometry) -> np.ndarray:
    """The filaments of the red channel, with a haze of free subunits."""
    return np.minimum(1.3 * cell.filaments, 1.6) + 0.05 * cell.cell


def plasma_membrane(cell: CellGeometry) -> np.ndarray:
    """The outline of the cell, uneven, over a faint body."""
    width = np.float32(0.036 * _large(cell))
    uneven = np.clip(1 + 0.3 * cell.grid.noise(cell.rng, 6), 0.4, 1.6)
    line = np.exp(-0.5 * ((cell.edge - 0.03) / width) ** 2) * uneven
    return line + 0.10 * cell.cell * _grain(cell)


def mitochondria(cell: CellGeometry) -> np.ndarray:
    """Many short worms, densest around the nucleus."""
    count = int(np.clip(40 * _many(cell), 22, 80))
    x, y, angle = cell.between(count, _spread(cell, 1.5))
    heading = angle + cell.rng.standard_normal(count) * 0.9
    return np.minimum(1.5 * cell.strands(x, y, heading, 15, 0.02, 0.22, 0.020 * _large(cell)), 1.5)


def cytosol(cell: CellGeometry) -> np.ndarray:
    """The whole cell, smooth, dimmer in the nucleus and towards the thin edge."""
    thick = np.clip(0.45 + cell.edge * 1.3, 0.0, 1.0)
    return cell.cell * thick * (1 - 0.72 * cell.nucleus) * _grain(cell)


def vesicles(cell: CellGeometry) -> np.ndarray:
    """Large round dots all over the cytoplasm, out to its edge."""
    count = int(np.clip(20 * _many(cell), 12, 36))
    x, y, _ = cell.between(count, _spread(cell, 0.75))
    weight = cell.rng.uniform(0.7, 1.0, count) * cell.grid.look_up(cell.cytoplasm, x, y)
    return np.minimum(cell.grid.splat(x, y, weight, 0.048 * _large(cell)), 1.2)


# In the order of COMPARTMENTS, with the brightness that makes the compartments comparable to the eye.
PAINTERS: tuple[tuple[Callable[[CellGeometry], np.ndarray], float], ...] = (
    (nucleoplasm, 0.55),
    (nuclear_membrane, 0.85),
    (nucleoli, 0.95),
    (nuclear_bodies, 1.4),
    (golgi, 1.05),
    (microtubules, 0.85),
    (plasma_membrane, 0.75),
    (mitochondria, 0.55),
    (cytosol, 0.50),
    (vesicles, 1.5),
)
assert len(PAINTERS) == len(COMPARTMENTS)


def protein(cell: CellGeometry, specimen: Specimen) -> np.ndarray:
    """The green channel: the weighted compartments over the antibody's unspecific haze."""
    t = specimen.traits
    out = np.zeros_like(cell.cell)
    for weight, (paint, scale) in zip(specimen.weights, PAINTERS, strict=True):
        # All compartments share a random stream: one that is too faint to be drawn changes the later ones.
        if weight > FAINT:
            out += np.float32(weight * scale) * paint(cell)
    # The signal leans to one side of the cell, more with one protein than with another.
    lean = 0.12 * t["polarity"] * (cell.grid.x * np.cos(cell.pole[2]) + cell.grid.y * np.sin(cell.pole[2]))
    strength = np.exp(0.24 * t["brightness"]) * specimen.staining["strength"] * 0.8
    haze = 0.028 * np.exp(0.5 * t["haze"]) * cell.cell * _grain(cell)
    return out * np.clip(1 + lean, 0.4, 1.6).astype(np.float32) * np.float32(strength) + haze


def references(cell: CellGeometry, specimen: Specimen) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The red, blue and yellow channels: microtubules, nucleus, endoplasmic reticulum."""
    t, grid = specimen.traits, cell.grid
    gain = {name: np.float32(np.exp(0.22 * t[name])) for name in ("red", "blue", "yellow")}
    red = (0.60 * np.minimum(cell.filaments, 1.5) + 0.08 * cell.cytoplasm) * gain["red"]
    chromatin = np.clip(1 + 0.16 * grid.noise(cell.rng, 16), 0.3, 1.7)
    blue = 0.58 * cell.nucleus * (1 - 0.45 * cell.nucleoli) * chromatin * gain["blue"]
    # A net: bright where a smooth random field crosses zero; dense around the nucleus, thin at the edge.
    net = np.exp(-((grid.noise(cell.rng, 13) / 0.55) ** 2))
    fade = np.exp(np.minimum(cell.rim, 0) * np.float32(2.2 * np.exp(-0.3 * t["reticulum"])))
    yellow = cell.cytoplasm * fade * (0.25 + 0.75 * net) + 0.35 * np.exp(-0.5 * (cell.rim / 0.05) ** 2) * cell.cell
    return red, blue, 0.62 * yellow * gain["yellow"] * np.float32(specimen.staining["yellow_gain"])


def surroundings(planes: np.ndarray, cell: CellGeometry, specimen: Specimen, rng: np.random.Generator) -> None:
    """Add a piece of a neighbouring cell and debris to the image, in place."""
    grid, optics = cell.grid, specimen.optics
    draws = rng.random(12)
    if optics["neighbour"]:
        angle, far = draws[0] * 2 * np.pi, 1.45 + 0.25 * draws[1]
        middle = (far * np.cos(angle), far * np.sin(angle))
        edge, _ = _region(grid, contour(rng, 0.85, 1.3, 0.08, 5), middle)
        body = soft(edge, 0.02) * (1 - cell.cell) * np.clip(1 + 0.25 * grid.noise(rng, 12), 0.1, 2)
        # The neighbour carries the same stains; of its inside only the density is drawn.
        means = planes.mean((1, 2)) / max(float(cell.cell.mean()), 1e-3)
        planes += np.minimum(means * np.array([0.8, 0.6, 0.0, 0.7]), 0.3)[:, None, None].astype(np.float32) * body
    if optics["debris"]:
        for piece in range(1 + int(draws[2] * 2)):
            angle, far = draws[3 + piece] * 2 * np.pi, 0.8 + 0.3 * draws[6 + piece]
            spot = _dot(grid, far * np.cos(angle), far * np.sin(angle), 0.035 + 0.03 * draws[9 + piece])
            planes[int(rng.integers(4))] += np.float32(0.9) * spot


def draw(specimen: Specimen, size: int) -> np.ndarray:
    """Image of a specimen: (4, size, size) uint8, channels as in CHANNELS."""
    grid = fine_grid(size)
    # Separate random streams: geometry does not depend on the stain, nor sensor noise on the geometry.
    streams = [np.random.Generator(np.random.PCG64([specimen.seed, number])) for number in range(4)]
    cell = build(specimen, grid, streams[0])
    red, blue, yellow = references(cell, specimen)
    cell.rng = streams[1]
    planes = np.stack([red, protein(cell, specimen), blue, yellow]).astype(np.float32)
    surroundings(planes, cell, specimen, streams[2])
    image = expose(planes, specimen, grid, streams[3])
    if specimen.turn:
        image = np.rot90(image, specimen.turn % 4, (1, 2))
        image = image[:, :, ::-1] if specimen.turn >= 4 else image
    return np.ascontiguousarray(image)


def expose(planes: np.ndarray, specimen: Specimen, grid: FineGrid, rng: np.random.Generator) -> np.ndarray:
    """Image the planes: bleed-through, exposure, vignetting, blur, pixels, noise, and 8 bits that clip."""
    staining, optics = specimen.staining, specimen.optics
    planes[1] *= np.float32(staining["exposure"])
    back = np.float32(staining["bleed_back"]) * planes[1]
    planes[1] += np.float32(staining["bleed_red"]) * planes[0] + np.float32(staining["bleed_yellow"]) * planes[3]
    planes[3] += back
    planes *= np.float32(staining["shift"])
    bright = np.float32(0.5 * optics["vignette_x"]), np.float32(0.5 * optics["vignette_y"])
    off = (grid.x - bright[0]) ** 2 + (grid.y - bright[1]) ** 2
    planes *= 1 - np.float32(optics["vignetting"]) * np.minimum(off / 2, 1)
    sigma = optics["blur"] * grid.side / 2
    planes = gaussian_filter(planes, (0, sigma, sigma), mode="nearest", truncate=2.5)
    count, factor = grid.size, grid.factor
    pixels = planes.reshape(len(planes), count, factor, count, factor).mean((2, 4), dtype=np.float64)
    # A dark level keeps the read noise from being cut off at zero.
    counts = rng.poisson(np.maximum(pixels, 0) * optics["photons"]) / optics["photons"]
    noisy = counts + 0.012 + optics["read_noise"] * rng.standard_normal(counts.shape)
    return np.clip(np.rint(noisy * 255), 0, 255).astype(np.uint8)
