"""The work of reading images, cut into pieces that are kept on disk until the set is whole.

A piece is a run of images of about 8 MB: small enough to hold in memory, large enough to be worth a file. It is made
by one process, so pixels never travel between processes; it carries a digest of all that it was made from, so an
interrupted run takes up what is done, and a mended file makes its own piece anew and no other. The jobs of a cluster
make pieces of the same kind; whoever writes the set appends each of them once."""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import __version__ as pillow_version

from workflow_scripts.lib import duplicates, files, pixels, reading
from workflow_scripts.lib.bad_input import Bad
from workflow_scripts.lib.reading import Reader

PIECE_BYTES = 2**23
_CODE = [Path(module.__file__) for module in (pixels, reading, duplicates)] + [Path(__file__)]
_BROKEN = (OSError, ValueError, KeyError, TypeError)


@dataclass(frozen=True)
class Task:
    """One piece to be made."""

    reader: Reader
    ids: list[str]
    pixel_sizes: list[str]  # µm a pixel of each image, empty where not known
    first: int  # row of the first image among all that the tables name
    path: Path


@dataclass
class Piece:
    """Images that could be read, and what is wrong with the others."""

    images: np.ndarray  # uint8 (n, C, H, W)
    grids: np.ndarray  # uint8 (n, C, 8, 8), for finding near-duplicates
    rows: np.ndarray  # int64 (n,), where the images stand among all that the tables name
    bad: list[Bad]


def tasks(reader: Reader, ids: Sequence[str], pixel_sizes: Sequence[str], folder: Path) -> list[Task]:
    """All pieces of a set; where they are cut does not depend on how many processes make them."""
    count = max(1, PIECE_BYTES // (len(reader.channels) * reader.size**2))
    return [
        Task(reader, list(ids[at : at + count]), list(pixel_sizes[at : at + count]), at, folder / f"{number:06d}.piece")
        for number, at in enumerate(range(0, len(ids), count))
    ]


def made(wanted: Sequence[Task], processes: int) -> Iterator[Piece]:
    """The pieces in order, made by so many processes or taken from disk."""
    if processes == 1 or len(wanted) == 1:
        yield from map(make, wanted)
        return
    with ProcessPoolExecutor(min(processes, len(wanted)), mp_context=get_context("spawn")) as pool:
        try:
            for task, digest in zip(wanted, pool.map(make_file, wanted), strict=True):
                # The process that made or found it has checked it.
                yield load(task, digest, check=False) or make(task)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def make_file(task: Task) -> str:
    """Make a piece for another process; the answer is the digest under which it will be found."""
    wanted = digest(task)
    make(task, wanted)
    return wanted


def make(task: Task, wanted: str | None = None) -> Piece:
    """The piece, from disk if it is there."""
    wanted = wanted or digest(task)
    found = load(task, wanted)
    if found is not None:
        return found
    size = task.reader.size
    images = np.empty((len(task.ids), len(task.reader.channels), size, size), dtype=np.uint8)
    rows: list[int] = []
    bad: list[Bad] = []
    for place, (name, pixel_size) in enumerate(zip(task.ids, task.pixel_sizes, strict=True)):
        image, faults = task.reader.read(name, pixel_size)
        bad += faults
        if image is not None:
            images[len(rows)] = image
            rows.append(task.first + place)
    images = images[: len(rows)]
    piece = Piece(images, duplicates.grid_means(images), np.array(rows, dtype=np.int64), bad)
    _save(task.path, piece, wanted)
    return piece


def digest(task: Task) -> str:
    """All that a piece follows from: settings, ids, the state of the files, and the code that reads them."""
    reader = task.reader
    keys = ("channels", "size", "intensity", "white_level", "pixel_size")
    known = {key: reader.data[key] for key in ("files", "file_channels", "planes", "bits", "pixel_size")}
    stamps = [reader.stamps(name) for name in task.ids]
    settings = [{key: reader.settings[key] for key in keys}, known, sorted(reader.bits), str(reader.folder.resolve())]
    code = [files.code_digest(_CODE), pillow_version]
    return files.digest([settings, task.ids, task.pixel_sizes, task.first, stamps, code])


def _save(path: Path, piece: Piece, digest: str) -> None:
    # Without waiting for the disk: a piece that a power cut has spoiled fails its checksum and is made again.
    with files.room(path) as own:
        part = own / path.name
        with part.open("wb") as handle:
            _write(handle, piece, digest)
        part.replace(path)


def _write(handle: BinaryIO, piece: Piece, digest: str) -> None:
    """A line of JSON, then the bare arrays: an archive of them would be copied twice on its way."""
    arrays = (piece.images, piece.grids, piece.rows)
    bad = [asdict(entry) for entry in piece.bad]
    about = {"digest": digest, "images": len(piece.rows), "sums": [zlib.crc32(array) for array in arrays], "bad": bad}
    handle.write(json.dumps(about).encode() + b"\n")
    for array in arrays:
        handle.write(array)


def load(task: Task, digest: str, check: bool = True) -> Piece | None:
    """A piece from disk; None if it is not there, damaged, or made from something else."""
    try:
        with task.path.open("rb") as handle:
            about = json.loads(handle.readline())
            if about["digest"] != digest or not 0 <= about["images"] <= len(task.ids):
                return None
            count, channels, size = about["images"], len(task.reader.channels), task.reader.size
            arrays = (
                np.empty((count, channels, size, size), dtype=np.uint8),
                np.empty((count, channels, duplicates.GRID, duplicates.GRID), dtype=np.uint8),
                np.empty(count, dtype=np.int64),
            )
            for array, total in zip(arrays, about["sums"], strict=True):
                if handle.readinto(array) != array.nbytes or (check and zlib.crc32(array) != total):
                    return None
        return Piece(*arrays, [Bad(**entry) for entry in about["bad"]])
    except _BROKEN:
        return None
