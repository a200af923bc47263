"""The pixels of a set to be: every image is written once, by whichever process read it, to where it will stay.

A canvas is a file with room at its front, in which HDF5 will say what the file holds (`dataset.enclose`), and then a
place for each image that the tables name. Places whose image cannot be used are closed up at the end.

It belongs to one run of preprocess_images and the processes that it started. The next run, which comes when that one
is over, gives it a new name: a process that outlived its run finds it gone, and can spoil nothing."""

from __future__ import annotations

import fcntl
import os
import re
import uuid
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from workflow_scripts.lib.base import files
from workflow_scripts.lib.base.errors import UserError

_BLOCK = 2**23
_NAME = re.compile(r"([0-9a-f]{32})\.[0-9a-f]{32}\.canvas")


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
        handle = os.open(self.path, os.O_RDWR | os.O_NOFOLLOW)  # NFS locks what is open for reading and writing
        try:
            # Held while writing, so that nobody renames it meanwhile; and it may have been renamed while it was opened.
            fcntl.flock(handle, fcntl.LOCK_SH)
            if not os.path.samestat(os.fstat(handle), self.path.lstat()):
                raise FileNotFoundError(self.path)
            left = memoryview(np.ascontiguousarray(images, dtype=np.uint8).reshape(-1))
            at = self.begin + first * self.image_bytes
            while left:
                done = os.pwrite(handle, left, at)
                left, at = left[done:], at + done
        finally:
            os.close(handle)

    def read(self, first: int, images: np.ndarray) -> bool:
        """Fill an array uint8 (n, C, H, W) from the places from `first` on; whether they are all there."""
        handle = os.open(self.path, os.O_RDONLY | os.O_NOFOLLOW)
        try:
            left = memoryview(images.reshape(-1))
            at = self.begin + first * self.image_bytes
            while left:
                done = os.preadv(handle, [left], at)
                if not done:
                    return False
                left, at = left[done:], at + done
            return True
        finally:
            os.close(handle)

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
                raise UserError(f"{self.path} has become shorter while it was in use: run again")
            self.write(to + at, images)


def claim(
    folder: Path, name: str, shape: tuple[int, int, int], begin: int, waiting: Callable[[], None] = lambda: None
) -> Canvas:
    """The canvas of this name in `folder` for this run alone, as an earlier run left it or new; those of other names
    go. Only for the holder of the set's lock. `waiting` is called if a process must end its writing first."""
    files.private_folder(folder)
    mine = folder / f"{name}.{uuid.uuid4().hex}.canvas"
    for path in sorted(folder.iterdir()):
        found = _NAME.fullmatch(path.name)
        if not found:
            continue
        if found[1] != name or mine.exists() or path.is_symlink():
            path.unlink()
            continue
        handle = os.open(path, os.O_RDWR | os.O_NOFOLLOW)
        try:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                waiting()
                fcntl.flock(handle, fcntl.LOCK_EX)
            path.rename(mine)
        finally:
            os.close(handle)
    os.close(os.open(mine, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW, 0o600))
    return Canvas(mine, shape, begin)
