"""The eight orientations of a square image: rotations by 0 to 3 quarter turns, and 4 to 7 the same, mirrored.

Cells have no preferred orientation. There are two conventions, both part of stored results. `mirror_then_rotate` is the
one of comparisons. `oriented`, which training and sampling draw from, rotates first and then mirrors."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from workflow_scripts.lib.base.errors import UserError

if TYPE_CHECKING:  # what only compares images need not load torch
    from torch import Tensor

COUNT = 8


def mirror_then_rotate(images: np.ndarray, way: int) -> np.ndarray:
    """Images (..., s, s) in one orientation, 0 to 7: from 4 on mirrored, then rotated by quarter turns; a view."""
    mirrored = images[..., ::-1] if way >= 4 else images
    return np.rot90(mirrored, way % 4, axes=(-2, -1))


def all_orientations(images: np.ndarray) -> Iterator[np.ndarray]:
    """Images (..., s, s) in each orientation, in order; views."""
    return (mirror_then_rotate(images, way) for way in range(COUNT))


def oriented(images: Tensor, ways: Tensor) -> Tensor:
    """Images (n, C, s, s), each in its orientation (n,): rotated by quarter turns, from 4 on also mirrored."""
    if images.shape[2] != images.shape[3]:
        raise UserError(
            f"images of {images.shape[3]} x {images.shape[2]} px cannot be turned: generators take square images"
        )
    out = images.clone()
    for way in range(1, COUNT):
        chosen = images[ways == way].rot90(way % 4, dims=(2, 3))
        out[ways == way] = chosen.flip(3) if way >= 4 else chosen
    return out
