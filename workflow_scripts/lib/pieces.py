"""The work of reading images, cut into pieces that are kept on disk until the set is whole.

A piece is a run of images of about 8 MB: small enough to hold in memory, large enough to be worth a file. It is made
by one process, so pixels never travel between processes; it carries a digest of all that it was made from, so an
interrupted run takes up what is done, and a mended file makes its own piece anew and no other. The jobs of a cluster
make pieces of the same kind; whoever writes the set appends each of them once."""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from PIL import __version__ as pillow_version

from workflow_scripts.lib import duplicates, files, pixels, reading
from workflow_scripts.lib.bad_input import Bad
from workflow_scripts.lib.reading import Reader

PIECE_BYTES = 2**23
_CODE = [Path(module.__file__) for module in (pixels, reading, duplicates)] + [Path(__file__)]
_BROKEN = (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile)


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
        Task(reader, list(ids[at : at + count]), list(pixel_sizes[at : at + count]), at, folder / f"{number:06d}.npz")
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
                piece = load(task, digest)
                yield piece if piece is not None else make(task)
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
    images, rows, bad = [], [], []
    for place, (name, pixel_size) in enumerate(zip(task.ids, task.pixel_sizes, strict=True)):
        image, faults = task.reader.read(name, pixel_size)
        bad += faults
        if image is not None:
            images.append(image)
            rows.append(task.first + place)
    size = task.reader.size
    stack = np.stack(images) if images else np.zeros((0, len(task.reader.channels), size, size), np.uint8)
    piece = Piece(stack, duplicates.grid_means(stack), np.array(rows, dtype=np.int64), bad)
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
    path.parent.mkdir(parents=True, exist_ok=True)
    # Without waiting for the disk: a piece that a power cut has spoiled fails its checksum and is made again.
    part = path.with_name(f".{path.stem}.{os.getpid()}.part")
    about = json.dumps({"digest": digest, "bad": [asdict(entry) for entry in piece.bad]})
    try:
        with part.open("wb") as handle:
            np.savez(handle, images=piece.images, grids=piece.grids, rows=piece.rows, about=np.array(about))
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def load(task: Task, digest: str) -> Piece | None:
    """A piece from disk; None if it is not there, damaged, or made from something else."""
    try:
        with np.load(task.path, allow_pickle=False) as held:
            about = json.loads(str(held["about"]))
            if about["digest"] != digest:
                return None
            return Piece(held["images"], held["grids"], held["rows"], [Bad(**entry) for entry in about["bad"]])
    except _BROKEN:
        return None
