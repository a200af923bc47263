"""CZI files of Zeiss, by Zeiss' own reader (optional package pylibCZIrw)."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from workflow_scripts.lib.images import planes
from workflow_scripts.lib.images.planes import Unusable
from workflow_scripts.lib.images.stacks import Stack

# Types of pixels: of the values, and how many of them a pixel has.
_TYPES = {
    "Gray8": ("uint8", 1), "Gray16": ("uint16", 1), "Gray32Float": ("float32", 1), "Bgr24": ("uint8", 3),
    "Bgr48": ("uint16", 3),
}  # fmt: skip
_AXES = {"H": "phases", "I": "illuminations", "R": "rotations", "V": "views", "B": "blocks"}


@contextmanager
def czi(path: str | Path, least: int) -> Iterator[Stack]:
    """Open a CZI file; always in full resolution."""
    from pylibCZIrw import czi as pyczi

    with pyczi.open_czi(os.fspath(path)) as document:
        yield _stack(document)


def _stack(document: Any) -> Stack:
    if (count := len(document.scenes_bounding_rectangle)) > 1:
        raise Unusable("wrong shape", f"holds several images ({count} scenes); one is expected")
    box, whole = document.total_bounding_box_no_pyramid, document.total_bounding_rectangle_no_pyramid
    sizes = {axis: last - first for axis, (first, last) in box.items()}
    for axis, length in sizes.items():
        if axis not in "TZCYX" and length > 1:
            what = _AXES.get(axis, f"planes along {axis}")
            raise Unusable("wrong shape", f"holds several images ({length} {what}); one is expected")
    if sizes["C"] > planes.MOST_PLANES:  # each would be asked for its type
        raise Unusable("wrong shape", f"holds {sizes['C']} planes; one plane for each channel is expected")
    kinds = set(document.pixel_types.values())
    if len(kinds) != 1:
        raise Unusable("wrong bit depth", f"holds planes of different depth ({', '.join(sorted(kinds)) or 'none'})")
    kind = kinds.pop()
    dtype, samples = _TYPES.get(kind, (kind, 1))
    axes, shape = "TZCYX", (sizes["T"], sizes["Z"], sizes["C"], whole.h, whole.w)

    def plane(place: dict[str, int]) -> np.ndarray:
        at = {axis: box[axis][0] + place.get(axis, 0) for axis in "TZC"}
        values = document.read(roi=tuple(whole), plane=at, pixel_type=kind)
        # Colours lie in the file as blue, green, red.
        return values[..., samples - 1 - place.get("S", 0)]

    names = _names(document.metadata)
    if samples > 1:
        return Stack(f"{axes}S", (*shape, samples), dtype, plane, names)
    return Stack(axes, shape, dtype, plane, names)


def _names(metadata: Any) -> list[str] | None:
    """Channel names from the metadata of a file."""
    for key in ("ImageDocument", "Metadata", "Information", "Image", "Dimensions", "Channels", "Channel"):
        metadata = metadata.get(key) if isinstance(metadata, dict) else None
    entries = metadata if isinstance(metadata, list) else [metadata]
    return planes.distinct([str(entry.get("@Name", "")) if isinstance(entry, dict) else "" for entry in entries])
