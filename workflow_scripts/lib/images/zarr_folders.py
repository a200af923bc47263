"""OME-Zarr (NGFF 0.4 and 0.5) in a local folder, by the optional package zarr.

A chunk is small on disk and may unpack to any size. So the store looks at each file before it is unpacked, and only
compressions whose size can be told beforehand are read. Nothing outside of the folder is read."""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from math import ceil, prod
from pathlib import Path
from typing import Any

import numpy as np

from workflow_scripts.lib.images import planes
from workflow_scripts.lib.images.planes import Unusable
from workflow_scripts.lib.images.stacks import Stack

LARGEST_CHUNK = 2**28  # bytes, unpacked
MOST_CHUNKS = 2**16  # of a plane
METADATA = 2**24  # bytes of a file of metadata
UNTOLD = 2**30  # bytes of a Zstandard frame that does not tell its size
MOST_LEVELS = 32
# What the package calls codecs that change no size, and those that compress.
_PLAIN = {"BytesCodec", "TransposeCodec", "Crc32cCodec"}
_COMPRESSIONS = {"BloscCodec": "blosc", "ZstdCodec": "zstd", "GzipCodec": "zlib"}


@contextmanager
def ome_zarr(path: str | Path, least: int) -> Iterator[Stack]:
    """Open an image: the smallest level whose sides have `least` pixels; 0: the full resolution."""
    import zarr

    if not Path(path).is_dir():
        raise Unusable("not an image", "is no folder of OME-Zarr")
    store = _guarded_store()(os.path.realpath(path), read_only=True)
    try:
        group = zarr.open_group(store, mode="r", use_consolidated=False)
        about = _about(group)
        if "bioformats2raw.layout" in about and "multiscales" not in about:
            if "1" in group:
                raise Unusable("wrong shape", "holds several images; one is expected")
            group = group["0"]
            about = _about(group)
        yield _stack(store, group, about, least)
    finally:
        store.close()


def _about(group: Any) -> dict[str, Any]:
    """The metadata of an image; from 0.5 on they have a key of their own."""
    found = dict(group.attrs)
    return found["ome"] if isinstance(found.get("ome"), dict) else found


def _stack(store: Any, group: Any, about: dict[str, Any], least: int) -> Stack:
    if "multiscales" not in about:
        what = "a plate; name its images in data.files" if "plate" in about else "no multiscale image"
        raise Unusable("wrong shape", f"is {what}")
    image = about["multiscales"][0]
    axes = "".join(str(axis["name"] if isinstance(axis, dict) else axis).upper() for axis in image["axes"])
    if set(axes) - set("TCZYX") or len(set(axes)) < len(axes):
        raise Unusable("wrong shape", f"has the axes {axes}; some of T, C, Z, Y and X are expected")
    array = _level([group[entry["path"]] for entry in image["datasets"][:MOST_LEVELS]], axes, least)
    planes.check_depth(array.dtype.name)
    store.compression, store.unpacked = _compression(array), _chunk_bytes(array, axes)

    def plane(place: dict[str, int]) -> np.ndarray:
        found = array[tuple(slice(None) if axis in "YX" else place.get(axis, 0) for axis in axes)]
        return found if axes.index("Y") < axes.index("X") else found.T

    channels = about.get("omero", {}).get("channels", [])
    names = planes.distinct([str(channel.get("label", "")) for channel in channels])
    return Stack(axes, array.shape, array.dtype.name, plane, names)


def _level(arrays: list[Any], axes: str, least: int) -> Any:
    """The smallest level that is large enough; the largest where none is."""
    if any(len(array.shape) != len(axes) for array in arrays):
        raise Unusable("damaged file", f"has levels of another number of axes than {axes}")
    sides = [(array.shape[axes.index("Y")], array.shape[axes.index("X")]) for array in arrays]
    enough = [at for at, side in enumerate(sides) if least and min(side) >= least]
    order = sorted(range(len(arrays)), key=lambda at: prod(sides[at]))
    return arrays[next((at for at in order if at in enough), order[-1])]


def _chunk_bytes(array: Any, axes: str) -> int:
    """Bytes of an unpacked chunk, where they and the number of chunks are within the limits."""
    planes.check_size(array.shape[axes.index("X")], array.shape[axes.index("Y")])
    size = prod(array.chunks) * array.dtype.itemsize
    if size > LARGEST_CHUNK:
        raise Unusable("decompression bomb", f"has chunks of {size} bytes; {LARGEST_CHUNK} are allowed")
    across = prod(ceil(array.shape[axes.index(axis)] / array.chunks[axes.index(axis)]) for axis in "YX")
    if across > MOST_CHUNKS:
        raise Unusable("wrong shape", f"has {across} chunks in a plane; {MOST_CHUNKS} are allowed")
    return size


def _compression(array: Any) -> str:
    """The one compression of an array, or nothing; others are refused."""
    about = array.metadata
    if about.zarr_format == 2:
        codec = about.compressor.codec_id if about.compressor is not None else ""
        if codec in ("", "blosc", "zstd", "zlib", "gzip", "lz4") and not about.filters:
            return "zlib" if codec == "gzip" else codec
        raise Unusable("unknown compression", f"has chunks that cannot be read ({codec or 'with filters'})")
    kinds = [type(codec).__name__ for codec in about.codecs]
    found = [_COMPRESSIONS[kind] for kind in kinds if kind in _COMPRESSIONS]
    if len(found) > 1 or not set(kinds) <= _PLAIN | set(_COMPRESSIONS):
        raise Unusable("unknown compression", f"has chunks that cannot be read ({', '.join(kinds)})")
    return found[0] if found else ""


@cache
def _guarded_store() -> type:
    """A store of the package that looks at every file before it is unpacked; made late, as the package is optional."""
    import zarr
    from zarr.storage import LocalStore

    zarr.config.set({"async.concurrency": 2, "threading.max_workers": 2})  # chunks in memory at a time

    class GuardedStore(LocalStore):
        compression, unpacked = "", None  # of chunks; None while only metadata is read

        async def get(self, key: str, prototype: Any = None, byte_range: Any = None) -> Any:
            place = self.root / key
            if not place.is_file():
                return None
            if not place.resolve().is_relative_to(self.root):
                raise Unusable("link out of the folder", f"leads out of its folder ({key})")
            most = METADATA if self.unpacked is None else self.unpacked + METADATA
            if place.stat().st_size > most:
                raise Unusable("decompression bomb", f"has a file of more than {most} bytes ({key})")
            found = await super().get(key, prototype, byte_range)
            if found is not None and self.unpacked is not None:
                size = unpacked_size(self.compression, found.to_bytes(), most)
                if size > most:
                    raise Unusable("decompression bomb", f"unpacks to more than its metadata says ({key})")
            return found

    return GuardedStore


def unpacked_size(compression: str, content: bytes, most: int) -> int:
    """At most how many bytes a chunk unpacks to; counting ends above `most`."""
    if compression == "blosc":
        if len(content) < 16 or int.from_bytes(content[12:16], "little") > len(content):
            raise Unusable("damaged file", "is incomplete: a chunk was cut off")  # its unpacker would read on
        return int.from_bytes(content[4:8], "little")
    if compression == "lz4":
        return int.from_bytes(content[:4], "little")
    if compression == "zlib":
        return _inflated_size(content, most)
    return _zstd_size(content, most) if compression == "zstd" else len(content)


def _inflated_size(content: bytes, most: int) -> int:
    """Bytes of a zlib or gzip stream, by unpacking it in parts that are thrown away."""
    total = 0
    while content and total <= most and (not total or content.startswith(b"\x1f\x8b")):
        unpacker = zlib.decompressobj(zlib.MAX_WBITS | 32)
        while content and not unpacker.eof and total <= most:
            total += len(unpacker.decompress(content, 2**20))
            content = unpacker.unconsumed_tail
        content = unpacker.unused_data
    return total


def _zstd_size(content: bytes, most: int) -> int:
    """Bytes of Zstandard frames as their headers claim (RFC 8878); the unpacker holds them to it.

    A frame without a claim counts only if its blocks, 128 KiB at most each, may hold more than UNTOLD."""
    total = at = 0
    while at < len(content) and total <= most:
        number = int.from_bytes(content[at : at + 4], "little")
        if number & 0xFFFFFFF0 == 0x184D2A50:  # a frame to skip
            at += 8 + int.from_bytes(content[at + 4 : at + 8], "little")
            continue
        if number != 0xFD2FB528:
            break
        told = content[at + 4]
        single, kind = told >> 5 & 1, told >> 6
        at += 5 + (not single) + (0, 1, 2, 4)[told & 3]
        length = (single, 2, 4, 8)[kind]
        claimed = int.from_bytes(content[at : at + length], "little") + 256 * (kind == 1)
        at, held, last = at + length, 0, False
        while not last and at < len(content) and held <= UNTOLD:
            header = int.from_bytes(content[at : at + 3], "little")
            last, form, size = bool(header & 1), header >> 1 & 3, header >> 3
            at += 3 + (1 if form == 1 else size)
            held += 2**17 if form == 2 else size
        at += 4 * (told >> 2 & 1)
        total += claimed if length else held * (held > UNTOLD)
    return total
