"""Stacks: image files with named axes, of which one plane for each channel is read. Knows no format.

Axes are letters, as tifffile has them: Y and X; C, S, Q, I for channels (by name, as colours, or unnamed); Z and T for
focus and time; all others count images of their own. Axes of length one are nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import product

import numpy as np

from workflow_scripts.lib.images import planes
from workflow_scripts.lib.images.planes import Planes, Unusable, Wanted

DEPTH = "ZT"
IMAGES = "PRMV"  # positions, tiles, mosaics and views: images of their own


@dataclass
class Stack:
    """An open image file: its axes, and a function that reads one plane (H, W).

    The function takes places along axes; on axes that it is not told, it takes the first."""

    axes: str
    shape: tuple[int, ...]
    dtype: str
    plane: Callable[[dict[str, int]], np.ndarray]
    names: list[str] | None = None

    def __post_init__(self) -> None:
        if "X" not in self.axes or "Y" not in self.axes:
            raise Unusable("wrong shape", f"has the axes {self.axes}; an image is expected")

    @property
    def size(self) -> tuple[int, int]:
        """Width and height."""
        return self.shape[self.axes.index("X")], self.shape[self.axes.index("Y")]

    @property
    def long(self) -> list[tuple[str, int]]:
        """Axes beside Y and X that are longer than one, with their lengths."""
        pairs = zip(self.axes, self.shape, strict=True)
        return [(axis, length) for axis, length in pairs if axis not in "YX" and length > 1]


def of_array(values: np.ndarray, axes: str, names: list[str] | None = None) -> Stack:
    """The stack of an array that is in memory."""
    order = "".join(axis for axis in axes if axis in "YX")

    def plane(place: dict[str, int]) -> np.ndarray:
        found = values[tuple(slice(None) if axis in "YX" else place.get(axis, 0) for axis in axes)]
        return found if order == "YX" else found.T

    return Stack(axes, values.shape, values.dtype.name, plane, names)


def read(stack: Stack, wanted: Wanted) -> Planes:
    """The planes of a stack, one for each channel."""
    check(stack, wanted)
    channel, depth = _roles(stack, wanted.stack)
    count = channel[1] if channel else 1
    found = [_projected(stack, wanted.stack, {channel[0]: at} if channel else {}, depth) for at in range(count)]
    names = stack.names if stack.names and len(stack.names) == count else None
    return planes.of_arrays(found, names)


def check(stack: Stack, wanted: Wanted) -> None:
    """Raise Unusable where the axes, the size or the type of values do not fit, before any plane is read."""
    planes.check_depth(stack.dtype)
    width, height = stack.size
    planes.check_size(width, height)
    channel, depth = _roles(stack, wanted.stack)
    count = channel[1] if channel else 1
    if count > planes.MOST_PLANES:
        raise Unusable("wrong shape", f"holds {count} planes; one plane for each channel is expected")
    for _, length in depth:
        count *= length
    if width * height * count > planes.MOST_PIXELS and depth:
        raise Unusable("decompression bomb", f"unpacks to more than {planes.MOST_PIXELS} pixels")


def _roles(stack: Stack, treatment: str) -> tuple[tuple[str, int] | None, list[tuple[str, int]]]:
    """The axis of the channels, if there is one, and those to project along."""
    depth = [entry for entry in stack.long if entry[0] in DEPTH]
    other = [entry for entry in stack.long if entry[0] not in DEPTH]
    if images := [entry for entry in other if entry[0] in IMAGES]:
        raise Unusable("wrong shape", f"holds several images ({_told(images)}); one is expected")
    if treatment == "channels" and not other and len(depth) == 1:
        other, depth = depth, []
    if len(other) > 1 or (depth and treatment in ("refuse", "channels")):
        advice = "; data.stack says what to do with it" if len(other) < 2 and treatment == "refuse" else ""
        raise Unusable(
            "wrong shape", f"holds a stack ({_told(stack.long)}); one plane for each channel is expected{advice}"
        )
    return (other[0] if other else None), depth


def _told(entries: list[tuple[str, int]]) -> str:
    return " and ".join(f"{length} along {axis}" for axis, length in entries)


def _projected(stack: Stack, treatment: str, place: dict[str, int], depth: list[tuple[str, int]]) -> np.ndarray:
    """The plane of one channel, projected along the axes `depth`."""
    if treatment == "middle" or not depth:
        return stack.plane(place | {axis: length // 2 for axis, length in depth})
    out = None
    for places in product(*(range(length) for _, length in depth)):
        found = stack.plane(place | dict(zip((axis for axis, _ in depth), places, strict=True)))
        out = found.copy() if out is None else np.maximum(out, found, out=out)
    return out
