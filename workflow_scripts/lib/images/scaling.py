"""From the planes of an image to its pixels in the set: size and intensities.

Size: without a target pixel size, a square image is scaled to `size` × `size`. With one, the image is scaled to that
many micrometres a pixel, and its centre is cut out. An image that shows less than that is refused, because a black
frame would reveal the microscope to a network. Images are never scaled up."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from PIL import Image
from skimage.exposure import rescale_intensity

from workflow_scripts.lib.images.invalid_input import printable
from workflow_scripts.lib.images.planes import Unusable, to_array

Window = tuple[float, float, float, float]  # left, top, right, bottom, in pixels of the file


@dataclass(slots=True)
class Plane:
    """One channel of an image, already averaged to the set's size where whole blocks of pixels make a pixel."""

    image: Image.Image
    size: tuple[int, int]  # as it was in the file
    bits: int
    highest: float  # of floating point values; 0 for whole numbers


class Scaling:
    """Scaling of the planes of an image by the settings of preprocess_images."""

    def __init__(self, settings: dict[str, Any]) -> None:
        self.settings, self.size = settings, int(settings["size"])

    def window(self, size: tuple[int, int], pixel_size: str) -> Window | None:
        """Window of an image that becomes the pixels of the set; None: all of it."""
        width, height = size
        wanted = self.settings["pixel_size"]
        if wanted is None:
            if width != height:
                raise Unusable("not square", f"{width} × {height} pixels; square images are expected")
            if width < self.size:
                raise Unusable("too small", f"{width} pixels wide, less than preprocess_images.size = {self.size}")
            return None
        if fault := size_fault(pixel_size):
            raise Unusable("unknown pixel size", fault)
        known = positive(pixel_size) or self.settings["data"]["pixel_size"]
        if not known:
            raise Unusable("unknown pixel size", "no pixel size: set data.pixel_size or give a column of them")
        if known > wanted * 1.001:
            raise Unusable("too coarse", f"{known:g} µm a pixel; preprocess_images.pixel_size = {wanted:g} is finer")
        side = self.size * wanted / known
        if side > min(width, height) + 0.5:
            shown, needed = min(width, height) * known, self.size * wanted
            raise Unusable("too small", f"shows {shown:.4g} µm; {needed:.4g} µm are needed at this size and pixel size")
        left, top = max(0.0, (width - side) / 2), max(0.0, (height - side) / 2)
        return left, top, min(left + side, float(width)), min(top + side, float(height))

    def averaged(self, image: Image.Image, bits: int) -> Plane:
        """Plane of an image, averaged now if whole blocks of pixels make a pixel."""
        blocks, rest = divmod(image.width, self.size)
        highest = float(image.getextrema()[1]) if bits == 32 else 0.0
        small = image
        if self.settings["pixel_size"] is None and blocks > 1 and not rest and image.width == image.height:
            # Pillow averages whole numbers in one fast pass, but rounds them well only in blocks of 2, 4, 8 ...
            small = (image if blocks & (blocks - 1) == 0 else image.convert("F")).reduce(blocks)
        return Plane(small, image.size, bits, highest)

    def pixels(self, planes: list[Plane], window: Window | None) -> np.ndarray:
        """The channels of an image, scaled by area averaging, as uint8 (C, size, size)."""
        fixed = self.settings["intensity"] == "fixed"
        out = np.empty((len(planes), self.size, self.size), dtype=np.uint8)
        for place, plane in enumerate(planes):
            values = self._means(plane, window)
            if fixed and values.dtype != np.uint8:
                values = spread(values, 0, self._white(plane))
            out[place] = values if fixed else stretch(values)
        return out

    def _means(self, plane: Plane, window: Window | None) -> np.ndarray:
        """Intensities of a channel, averaged to the set's size."""
        values = to_array(plane.image)
        if window is not None or values.shape != (self.size, self.size):
            values = area_means(values.astype(np.float32), self.size, window or (0, 0, *plane.size))
        return values

    def raw(self, planes: list[Plane], window: Window | None) -> np.ndarray:
        """Averaged intensities of all channels on the scale of 16 bits, uint16 (C, size, size)."""
        out = np.empty((len(planes), self.size, self.size), dtype=np.uint16)
        for place, plane in enumerate(planes):
            white = 65_535.0 if plane.bits == 16 else self._white(plane)
            scaled = self._means(plane, window).astype(np.float32) * (65_535 / white)
            out[place] = np.rint(scaled.clip(0, 65_535))
        return out

    def _white(self, plane: Plane) -> float:
        if plane.bits == 8:
            return 255.0
        white = float(self.settings["white_level"]["uint16" if plane.bits == 16 else "float"])
        if self.settings["intensity"] == "percentile":
            return max(white, plane.highest)  # each image is stretched by itself; only histograms ask for this
        # A few values above white are clipped where it was chosen on purpose; with floats the unit itself is a guess.
        if plane.highest > white * 1.0001:
            raise Unusable(
                "brighter than white",
                f"values up to {plane.highest:g}, above preprocess_images.white_level.float = {white:g}",
            )
        return white


def constant(channel: np.ndarray) -> bool:
    """Whether all pixels have the same value, by a fast comparison of bytes."""
    data = channel.tobytes()
    return data == data[:1] * len(data)


def positive(text: str) -> float | None:
    """A size that a table tells, perhaps with a decimal comma; None where it tells none."""
    try:
        value = float(text if "." in text else text.replace(",", ".", 1))
    except ValueError:
        return None
    return value if 0 < value < 1e6 else None


def size_fault(text: str) -> str:
    """What is wrong about a pixel size in a table; empty where nothing is, or where there is none."""
    if not text.strip() or positive(text) is not None:
        return ""
    return f"has the pixel size {printable(text)[:20]!r}; a number of micrometres is expected, such as 0.325"


def area_means(values: np.ndarray, size: int, window: Window) -> np.ndarray:
    """Means over the cells of a grid `size` × `size` laid over a window (left, top, right, bottom) of an image (H, W).

    A pixel on the border of two cells counts in each by its fraction. `skimage.transform.resize_local_mean` gives the
    same pixels in twice the time, and takes no window that begins within a pixel."""
    left, top, right, bottom = window
    down, across = _fractions(values.shape[0], size, top, bottom), _fractions(values.shape[1], size, left, right)
    return down @ values @ across.T


@lru_cache(maxsize=16)
def _fractions(length: int, size: int, start: float, stop: float) -> np.ndarray:
    """The fraction of each pixel of a row in each cell, (size, length); the fractions of a cell add up to one."""
    edges = np.linspace(start, stop, size + 1)[:, None]
    pixels = np.arange(length)[None]
    covered = np.minimum(edges[1:], pixels + 1) - np.maximum(edges[:-1], pixels)
    return (np.clip(covered, 0, None) / ((stop - start) / size)).astype(np.float32)


def spread(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """Intensities from `low` to `high` as uint8 from 0 to 255, clipped outside."""
    scaled = rescale_intensity(values.astype(np.float32), in_range=(low, high), out_range=(0.0, 255.0))
    return np.rint(scaled).astype(np.uint8)


def stretch(values: np.ndarray) -> np.ndarray:
    """Intensities between the image's own 0.1 and 99.9 percentile, spread over 0 to 255."""
    low, high = (float(value) for value in np.percentile(values, [0.1, 99.9]))
    # A constant channel becomes black: its noise must not be amplified.
    return spread(values, low, high) if high - low > 1e-6 * max(1.0, abs(high)) else np.zeros(values.shape, np.uint8)
