"""Planes of an image file, and the limits that hold for files of every format. Knows no format.

A plane is a Pillow image: mode L (8 bits) or F (anything deeper, exact up to 24 bits), because Pillow averages areas of
both. Planes are never mixed, so transparency never affects colour."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

# Above this many pixels Pillow takes a file for a decompression bomb; the same holds for the other formats.
LARGEST = Image.MAX_IMAGE_PIXELS or 2**26
MOST_PLANES = 64  # of one image
MOST_PAGES = 4096  # of a file that holds a stack
MOST_PIXELS = 4 * LARGEST  # of all planes of a stack
DEPTHS = {"uint8": 8, "uint16": 16, "float16": 32, "float32": 32, "float64": 32}


class Unusable(Exception):
    """Error for a file that cannot be used: a kind to count by, and a reason that follows the file's name."""

    def __init__(self, kind: str, reason: str) -> None:
        super().__init__(reason)
        self.kind, self.reason = kind, reason


@dataclass(frozen=True)
class Wanted:
    """What the reader of a file is asked for."""

    expected: int  # number of channels; decides which axis of an array counts them
    stack: str = "refuse"  # one of format_choices.STACKS
    least: int = 0  # side in pixels that a level of a pyramid must have; 0: the full resolution


@dataclass
class Planes:
    """Planes of one file, of the same size and depth, with their names where the file has them."""

    images: list[Image.Image]
    bits: int  # 8, 16, or 32 for floating point
    names: list[str] | None = None


def check_size(width: int, height: int, planes: int = 1) -> None:
    """Raise Unusable for an image with more pixels or planes than are allowed, or with none."""
    if width * height > LARGEST or planes > MOST_PLANES:
        raise Unusable("decompression bomb", f"unpacks to more than {LARGEST} pixels")
    if not width * height * planes:
        raise Unusable("damaged file", "has no pixels")


def check_depth(name: str) -> None:
    """Raise Unusable for a type of values that cannot be used."""
    if name not in DEPTHS:
        raise Unusable("wrong bit depth", f"holds values of type {name}; 8 or 16 bits or floating point are expected")


def grey(values: np.ndarray) -> Image.Image:
    """A plane of values deeper than 8 bits."""
    return Image.fromarray(np.ascontiguousarray(values, dtype=np.float32))


def of_arrays(stack: Sequence[np.ndarray] | np.ndarray, names: list[str] | None = None) -> Planes:
    """Planes of arrays (H, W) of the same size and type."""
    bits = DEPTHS[stack[0].dtype.name]
    if bits == 32 and not all(np.isfinite(plane).all() for plane in stack):
        raise Unusable("NaN or infinity", "holds values that are no numbers (NaN or infinity)")
    if bits == 8:
        return Planes([Image.fromarray(np.ascontiguousarray(plane)) for plane in stack], 8, names)
    return Planes([grey(plane) for plane in stack], bits, names)


def distinct(names: Sequence[str]) -> list[str] | None:
    """Channel names of a file where they tell channels apart; otherwise None."""
    return list(names) if names and all(names) and len(set(names)) == len(names) else None


def to_array(image: Image.Image) -> np.ndarray:
    """The pixels of a plane (H, W), read-only; numpy's own way through a description of the image takes three times as
    long."""
    dtype = np.uint8 if image.mode == "L" else np.float32
    return np.frombuffer(image.tobytes(), dtype).reshape(image.height, image.width)


def blend(images: Sequence[Image.Image]) -> Image.Image:
    """The mean of planes of 8 bits, without rounding."""
    return grey(np.mean([np.asarray(image, dtype=np.float32) for image in images], axis=0))
