"""The pixels of a set to be: every image is written once, by whichever process read it, to where it will stay.

A canvas is a file with room at its front, in which HDF5 will say what the file holds (`dataset.enclose`), and then a
place for each image that the tables name. Places whose image cannot be used are closed up at the end."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from workflow_scripts.lib import files

_BLOCK = 2**23


@dataclass(frozen=True)
class Canvas:
    """A file of images uint8 (C, H, W)."""

    path: Path
    shape: tuple[int, int, int]
    begin: int  # byte at which the first image begins (`dataset.images_begin`)

    @property
    def image_bytes(self) -> int:
        """What one image takes."""
        return int(np.prod(self.shape))

    def write(self, first: int, images: np.ndarray) -> None:
        """Write images uint8 (n, C, H, W) to the places from `first` on; others may write to other places meanwhile."""
        files.private_folder(self.path.parent)
        handle = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        try:
            left = memoryview(np.ascontiguousarray(images, dtype=np.uint8).reshape(-1))
            at = self.begin + first * self.image_bytes
            while left:
                done = os.pwrite(handle, left, at)
                left, at = left[done:], at + done
        finally:
            os.close(handle)

    def read(self, first: int, images: np.ndarray) -> bool:
        """Fill an array uint8 (n, C, H, W) from the places from `first` on; whether they are all there."""
        with self.path.open("rb", buffering=0) as handle:
            return _fill(handle.fileno(), images, self.begin + first * self.image_bytes)

    def close_up(self, runs: Iterable[tuple[int, int]]) -> None:
        """Move runs of images, (place of the first, number) in their order, to the front, one after the other."""
        to = 0
        for first, count in runs:
            self._move(first, to, count)
            to += count

    def _move(self, first: int, to: int, count: int) -> None:
        if first == to:
            return
        step = max(1, _BLOCK // self.image_bytes)
        for at in range(0, count, step):
            images = np.empty((min(step, count - at), *self.shape), dtype=np.uint8)
            if not self.read(first + at, images):
                raise OSError(f"{self.path} has become shorter")
            self.write(to + at, images)


def _fill(handle: int, images: np.ndarray, at: int) -> bool:
    left = memoryview(images.reshape(-1))
    while left:
        done = os.preadv(handle, [left], at)
        if not done:
            return False
        left, at = left[done:], at + done
    return True
