"""ND2 files of Nikon, by the optional package nd2."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from workflow_scripts.lib.images import planes
from workflow_scripts.lib.images.planes import Unusable
from workflow_scripts.lib.images.stacks import Stack

_IN_FRAME = "CYXS"  # axes of what the reader calls a frame


@contextmanager
def nd2(path: str | Path, least: int) -> Iterator[Stack]:
    """Open an ND2 file; always in full resolution."""
    from nd2 import ND2File

    with ND2File(os.fspath(path)) as file:
        yield _stack(file)


def _stack(file: Any) -> Stack:
    sizes, samples = dict(file.sizes), int(file.components_per_channel)
    if samples not in (1, 3):
        raise Unusable("wrong shape", f"has {samples} values for each channel of a pixel; 1 or 3 are expected")
    frames = [axis for axis in sizes if axis not in _IN_FRAME]  # frames are counted along these
    lengths = [sizes[axis] for axis in frames]
    channels, height, width = (sizes.get(axis, 1) for axis in "CYX")
    axes = "".join(frames) + "CYX" + "S" * (samples > 1)
    shape = (*lengths, channels, height, width) + (samples,) * (samples > 1)

    def plane(place: dict[str, int]) -> np.ndarray:
        number = 0
        for axis, length in zip(frames, lengths, strict=True):
            number = number * length + place.get(axis, 0)
        frame = np.asarray(file.read_frame(number))
        if frame.size != math.prod((channels, height, width, samples)):
            raise Unusable("damaged file", f"has a frame of another shape: {frame.shape}")
        return frame.reshape(channels, height, width, samples)[place.get("C", 0), :, :, place.get("S", 0)]

    names = planes.distinct([str(entry.channel.name) for entry in file.metadata.channels or []])
    return Stack(axes, shape, np.dtype(file.dtype).name, plane, names)
