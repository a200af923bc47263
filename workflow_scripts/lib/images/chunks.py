"""Reading of images in pieces, each of which is read once and cached in a file.

A piece is a run of images of about 4 MB: worth a file of its own, and small enough that processes finish together. One
process reads it and writes a file: pixels, faults of the other images, checksums, and a digest of all inputs.
preprocess_images takes the pixels from these files. So an interrupted run resumes where it stopped. After an image file
was repaired, only its own piece is read again."""

from __future__ import annotations

import json
import uuid
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from PIL import __version__ as pillow_version

from workflow_scripts.lib.base import files, process_pool, source_code
from workflow_scripts.lib.base.errors import UserError
from workflow_scripts.lib.images import (
    czi_files,
    decode,
    duplicates,
    nd2_files,
    planes,
    read_image,
    scaling,
    stacks,
    tiff_files,
    zarr_folders,
)
from workflow_scripts.lib.images.invalid_input import Fault
from workflow_scripts.lib.images.read_image import Reader

PIECE_BYTES = 2**22
_MODULES = (decode, planes, stacks, tiff_files, zarr_folders, czi_files, nd2_files, read_image, scaling, duplicates)
# Code that decides about the pixels of an image.
CODE = [Path(module.__file__) for module in _MODULES] + [Path(__file__)]
_BROKEN = (OSError, ValueError, KeyError, TypeError)


@dataclass(frozen=True)
class Task:
    """Description of one piece that is to be read."""

    reader: Reader
    ids: list[str]
    pixel_sizes: list[str]  # µm a pixel of each image, empty where not known
    first: int  # row of the first image among all images of the tables
    path: Path


@dataclass
class Piece:
    """Result of reading a piece: the n usable images, and the faults of the others."""

    images: np.ndarray  # uint8 (n, C, H, W)
    grids: np.ndarray  # uint8 (n, C, 8, 8), for finding near-duplicates
    present: np.ndarray  # uint8 (n, C), 1 where the file of a channel is there
    raw: np.ndarray  # uint16 (n, C, H, W), where the reader keeps raw values; (n, 0, H, W) elsewhere
    rows: np.ndarray  # int64 (n,), rows of the images among all images of the tables
    bad: list[Fault]


def tasks(
    reader: Reader, ids: Sequence[str], pixel_sizes: Sequence[str], folder: Path, start: int = 0, prefix: str = ""
) -> list[Task]:
    """Tasks for all pieces of a set; the cuts do not depend on the number of processes.

    `start` is the row of the first image among all images of the tables, `prefix` begins the names of the files."""
    count = max(1, PIECE_BYTES // (len(reader.channels) * reader.size**2))
    cuts = [slice(at, at + count) for at in range(0, len(ids), count)]
    return [
        Task(reader, list(ids[cut]), list(pixel_sizes[cut]), start + cut.start, folder / f"{prefix}{number:06d}.piece")
        for number, cut in enumerate(cuts)
    ]


def made(wanted: Sequence[Task], processes: int) -> Iterator[Piece]:
    """Pieces in order, read by this many processes or loaded from their files."""
    if processes == 1 or len(wanted) <= 1:
        yield from map(make, wanted)
        return
    with process_pool.pool(min(processes, len(wanted))) as pool:
        try:
            # Pixels are passed through the piece's file, still in the page cache, rather than between processes.
            for task, _ in zip(wanted, pool.map(_leave, wanted), strict=True):
                yield make(task)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _leave(task: Task) -> None:
    make(task)


def make(task: Task) -> Piece:
    """Piece of a task: loaded from its file if that is valid, read otherwise."""
    wanted = digest(task)
    kept = load(task, wanted)
    if kept is not None:
        return kept
    size = task.reader.size
    images = np.empty((len(task.ids), len(task.reader.channels), size, size), dtype=np.uint8)
    present = np.zeros(images.shape[:2], dtype=np.uint8)
    raw = np.zeros(_raw_shape(task.reader, len(images)), dtype=np.uint16)
    rows: list[int] = []
    bad: list[Fault] = []
    for place, (name, pixel_size) in enumerate(zip(task.ids, task.pixel_sizes, strict=True)):
        read = task.reader.look(name, pixel_size)
        bad += read.bad
        if read.pixels is not None:
            images[len(rows)], present[len(rows)] = read.pixels, read.present
            if read.raw is not None:
                raw[len(rows)] = read.raw
            rows.append(task.first + place)
    images, present, raw = images[: len(rows)], present[: len(rows)], raw[: len(rows)]
    piece = Piece(images, duplicates.grid_means(images), present, raw, np.array(rows, dtype=np.int64), bad)
    _save(task, piece, wanted)
    return piece


def images_of(task: Task, rows: np.ndarray) -> np.ndarray:
    """Images of some valid rows, uint8 (n, C, H, W), of a piece that this process has made or loaded before.

    They alone are read from its file, which was checked then: a search for copies asks for a few of each, often."""
    channels, size = len(task.reader.channels), task.reader.size
    out = np.empty((len(rows), channels, size, size), dtype=np.uint8)
    try:
        with task.path.open("rb") as handle:
            count = json.loads(handle.readline())["images"]
            raw = 2 * int(np.prod(_raw_shape(task.reader, count)))
            handle.seek(count * channels * (duplicates.GRID**2 + 1) + raw, 1)
            own = np.empty(count, dtype=np.int64)
            handle.readinto(own)
            start, places = handle.tell(), np.searchsorted(own, rows)
            if not count or not np.array_equal(own[np.minimum(places, count - 1)], rows):
                raise ValueError
            for image, place in zip(out, places.tolist(), strict=True):
                handle.seek(start + place * image.nbytes)
                if handle.readinto(image) != image.nbytes:
                    raise ValueError
    except _BROKEN:
        piece = make(task)
        return piece.images[np.searchsorted(piece.rows, rows)]
    return out


def _raw_shape(reader: Reader, count: int) -> tuple[int, int, int, int]:
    """Shape of the raw values of so many images."""
    return count, len(reader.channels) if reader.keeps_raw else 0, reader.size, reader.size


def digest(task: Task) -> str:
    """Digest of all inputs of a piece: settings, ids, size and time of the files, and the code that reads them."""
    stamps = [task.reader.stamps(name) for name in task.ids]
    return files.digest([_settings(task.reader), task.ids, task.pixel_sizes, task.first, stamps])


def _settings(reader: Reader) -> list[Any]:
    """Settings and versions that determine the pixels of every image, code included."""
    keys = ("channels", "size", "intensity", "white_level", "pixel_size")
    own = {key: reader.settings[key] for key in keys}
    known = {key: reader.data[key] for key in ("files", "file_channels", "planes", "bits", "pixel_size", "stack")}
    known["missing_channel"] = reader.missing_channel
    where = str(reader.folder.resolve())
    return [own, known, sorted(reader.bits), where, source_code.digest(CODE), pillow_version]


def _save(task: Task, piece: Piece, digest: str) -> None:
    # No fsync: a file damaged by a power cut fails its checksum and is made again. A folder that is gone is not created
    # again, because nothing would remove it.
    part = task.path.with_suffix(f".{uuid.uuid4().hex}.part")
    try:
        with part.open("xb") as handle:
            _write(handle, piece, digest)
        part.replace(task.path)
    except FileNotFoundError:
        raise UserError(f"{part.parent} was cleared away: another run has finished the set, or somebody") from None
    finally:
        part.unlink(missing_ok=True)


def _write(handle: BinaryIO, piece: Piece, digest: str) -> None:
    """Write a line of JSON, then the raw arrays."""
    arrays = (piece.grids, piece.present, piece.raw, piece.rows, piece.images)
    about = {
        "digest": digest,
        "images": len(piece.images),
        "sums": [zlib.crc32(array) for array in arrays],
        "bad": [asdict(entry) for entry in piece.bad],
    }
    handle.write(json.dumps(about).encode() + b"\n")
    for array in arrays:
        handle.write(array)


def load(task: Task, digest: str) -> Piece | None:
    """Piece from its file; None if the file is missing, damaged, or made from other inputs."""
    try:
        with task.path.open("rb") as handle:
            about = json.loads(handle.readline())
            if about["digest"] != digest or not 0 <= about["images"] <= len(task.ids):
                return None
            count, channels, size = about["images"], len(task.reader.channels), task.reader.size
            grids = np.empty((count, channels, duplicates.GRID, duplicates.GRID), dtype=np.uint8)
            present = np.empty((count, channels), dtype=np.uint8)
            rows = np.empty(count, dtype=np.int64)
            images = np.empty((count, channels, size, size), dtype=np.uint8)
            raw = np.empty(_raw_shape(task.reader, count), dtype=np.uint16)
            arrays = (grids, present, raw, rows, images)
            if any(handle.readinto(array) != array.nbytes for array in arrays):
                return None
        if [zlib.crc32(array) for array in arrays] != about["sums"]:
            return None
        return Piece(images, grids, present, raw, rows, [Fault(**entry) for entry in about["bad"]])
    except _BROKEN:
        return None
