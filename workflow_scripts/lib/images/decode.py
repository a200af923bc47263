"""Decoding of one image file into its planes: PNG, JPEG, TIFF and OME-TIFF, NPY. Doubtful files are refused.

A plane is a Pillow image: mode L (8 bits) or F (anything deeper, exact up to 24 bits), because Pillow averages areas of
both. Planes are never mixed, so transparency never affects colour."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tifffile
from PIL import Image, ImageSequence

from workflow_scripts.lib.base.errors import file_system_failed

FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".tif": "TIFF", ".tiff": "TIFF", ".npy": "NPY"}
# Above this many pixels Pillow takes a file for a decompression bomb; the same holds for the other formats.
LARGEST = Image.MAX_IMAGE_PIXELS or 2**26
MOST_PLANES = 64
DEPTHS = {"uint8": 8, "uint16": 16, "float16": 32, "float32": 32, "float64": 32}
_GREY = {"L": 8, "I;16": 16, "I;16B": 16, "I;16L": 16, "F": 32}

# tifffile warns about unusual files; what matters is checked here.
logging.getLogger("tifffile").setLevel(logging.CRITICAL)
warnings.filterwarnings("error", category=Image.DecompressionBombWarning)
# Pillow keeps the memory of a few images for the next ones; fresh pages for each cost a few per cent of the time.
Image.core.set_blocks_max(8)


class Unusable(Exception):
    """Error for a file that cannot be used: a kind to count by, and a reason that follows the file's name."""

    def __init__(self, kind: str, reason: str) -> None:
        super().__init__(reason)
        self.kind, self.reason = kind, reason


@dataclass
class Planes:
    """Planes of one file, of the same size and depth, with their names where the file has them."""

    images: list[Image.Image]
    bits: int  # 8, 16, or 32 for floating point
    names: list[str] | None = None


def decode(path: str | Path, expected: int) -> Planes:
    """Planes of a file; `expected`, their number, decides which axis of an array counts them."""
    kind = FORMATS.get(os.path.splitext(path)[1].lower())  # noqa: PTH122 (a Path of each file stays in memory)
    if kind is None:
        raise Unusable("unknown format", f"is of no format that can be read ({', '.join(sorted(FORMATS))})")
    try:
        if kind == "TIFF":
            return _tiff(path)
        return _npy(path, expected) if kind == "NPY" else _picture(path, kind)
    except Unusable:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise Unusable("decompression bomb", f"unpacks to more than {LARGEST} pixels") from None
    except Image.UnidentifiedImageError:
        raise Unusable("not an image", f"is no {kind} file") from None
    except Exception as error:
        if file_system_failed(error):
            raise
        # Decoders raise whatever a damaged file leads them to: struct.error, KeyError, zlib.error ...
        if isinstance(error, OSError) and error.errno is not None:
            raise Unusable("cannot be read", f"cannot be read: {error.strerror}") from None
        raise Unusable("damaged file", f"is damaged or incomplete: {_first_line(error)}") from None


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]


def _check_count(width: int, height: int, planes: int = 1) -> None:
    if width * height > LARGEST or planes > MOST_PLANES:
        raise Unusable("decompression bomb", f"unpacks to more than {LARGEST} pixels")
    if not width * height * planes:
        raise Unusable("damaged file", "has no pixels")


def _picture(path: str | Path, kind: str) -> Planes:
    with Image.open(path, formats=[kind]) as picture:
        _check_count(*picture.size)
        if picture.mode in _GREY:
            picture.load()
            deep = _GREY[picture.mode]
            return Planes([picture if deep == 8 else _float(np.asarray(picture))], deep)
        if picture.mode not in ("RGB", "RGBA", "LA"):
            raise Unusable("colour file", f"is {kind} with mode {picture.mode}; grey levels are expected")
        if any("16" in str(tile[3]) for tile in picture.tile):
            # Pillow would cut the lower eight bits off.
            raise Unusable("wrong bit depth", f"is {kind} with several channels of 16 bits; save it as TIFF")
        return Planes(list(picture.split()), 8)


def _float(values: np.ndarray) -> Image.Image:
    return Image.fromarray(np.ascontiguousarray(values, dtype=np.float32))


def _planes(stack: np.ndarray, names: list[str] | None = None) -> Planes:
    """Planes of an array (planes, H, W)."""
    bits = DEPTHS[stack.dtype.name]
    if bits == 32 and not np.isfinite(stack).all():
        raise Unusable("NaN or infinity", "holds values that are no numbers (NaN or infinity)")
    if bits == 8:
        return Planes([Image.fromarray(np.ascontiguousarray(plane)) for plane in stack], 8, names)
    return Planes([_float(plane) for plane in stack], bits, names)


def _check_depth(name: str) -> None:
    if name not in DEPTHS:
        raise Unusable("wrong bit depth", f"holds values of type {name}; 8 or 16 bits or floating point are expected")


def _npy(path: str | Path, expected: int) -> Planes:
    stack = np.load(path, mmap_mode="r", allow_pickle=False)
    if not isinstance(stack, np.ndarray) or stack.ndim not in (2, 3):
        raise Unusable("wrong shape", f"holds an array of shape {getattr(stack, 'shape', '?')}; two or three axes fit")
    _check_depth(stack.dtype.name)
    if stack.ndim == 3:
        # (C, H, W) or (H, W, C): the axis of the channels is the one as long as there are channels, else the short one.
        first, last = stack.shape[0], stack.shape[2]
        if first != expected and (last == expected or last < min(first, 65)):
            stack = stack.transpose(2, 0, 1)
    stack = stack.reshape(-1, *stack.shape[-2:])
    _check_count(stack.shape[2], stack.shape[1], stack.shape[0])
    return _planes(np.asarray(stack))


def _tiff(path: str | Path) -> Planes:
    with tifffile.TiffFile(path, _multifile=False) as file:
        _check_pages(file)
        series = file.series[0]
        axes, shape = series.axes, series.shape
        _check_depth(np.dtype(series.dtype).name if series.dtype is not None else "unknown")
        if "X" not in axes or "Y" not in axes:
            raise Unusable("wrong shape", f"has the axes {axes}; an image is expected")
        _check_count(shape[axes.index("X")], shape[axes.index("Y")])
        other = [(axis, length) for axis, length in zip(axes, shape, strict=True) if axis not in "YX" and length > 1]
        if len(other) > 1 or (other and other[0][0] in "ZT"):
            what = " and ".join(f"{length} along {axis}" for axis, length in other)
            raise Unusable("wrong shape", f"holds a stack ({what}); one plane for each channel is expected")
        _check_strips(file, series)
        try:
            stack = series.asarray()
        except ValueError as error:
            if "imagecodecs" not in str(error):
                raise
            return _tiff_by_pillow(path, str(error))
        names = _ome_names(file)
    # The planes' axis first, whatever its place was; axes of length one fall away.
    order = sorted(range(stack.ndim), key=lambda place: ("YX".find(axes[place]), place))
    stack = stack.transpose(order).reshape(-1, *(shape[axes.index(axis)] for axis in "YX"))
    return _planes(stack, names if names and len(names) == len(stack) else None)


def _check_pages(file: tifffile.TiffFile) -> None:
    """The pages are counted before any is read: in a damaged file one may lead to the next without end."""
    if len(file.pages) > MOST_PLANES:
        raise Unusable("wrong shape", f"holds more than {MOST_PLANES} pages; one plane for each channel is expected")


def _check_strips(file: tifffile.TiffFile, series: tifffile.TiffPageSeries) -> None:
    """All pieces of the image must lie in the file; a reader might fill a gap with black."""
    size = file.filehandle.size
    for page in series.pages:
        if page is None:
            raise Unusable("damaged file", "is incomplete: a plane is missing")
        for start, count in zip(page.dataoffsets, page.databytecounts, strict=False):
            if not start or not count or start + count > size:
                raise Unusable("damaged file", "is incomplete: pixels are missing")


def _tiff_by_pillow(path: str | Path, why: str) -> Planes:
    """Compressions that tifffile leaves to a large package, LZW above all."""
    images, depths = [], set()
    try:
        with Image.open(path, formats=["TIFF"]) as picture:
            for frame in ImageSequence.Iterator(picture):
                deep = _GREY.get(frame.mode)
                if deep is None and frame.mode not in ("RGB", "RGBA"):
                    raise ValueError(frame.mode)
                frame.load()
                depths.add(deep or 8)
                images += [frame.copy() if deep == 8 else _float(np.asarray(frame))] if deep else list(frame.split())
    except Exception as error:
        if file_system_failed(error):
            raise
        raise Unusable("unknown compression", f"cannot be unpacked ({why}); save it without compression") from None
    if len(depths) != 1:
        raise Unusable("wrong bit depth", "holds planes of different bit depth")
    return Planes(images, depths.pop())


def _ome_names(file: tifffile.TiffFile) -> list[str] | None:
    """Channel names of an OME-TIFF."""
    if not file.ome_metadata:
        return None
    image = tifffile.xml2dict(file.ome_metadata).get("OME", {}).get("Image", {})
    image = image[0] if isinstance(image, list) else image
    channels = image.get("Pixels", {}).get("Channel", [])
    channels = channels if isinstance(channels, list) else [channels]
    names = [str(channel.get("Name", "")) for channel in channels]
    return names if all(names) and len(set(names)) == len(names) else None


def to_array(image: Image.Image) -> np.ndarray:
    """The pixels of a plane (H, W), read-only; numpy's own way through a description of the image takes three times as
    long."""
    dtype = np.uint8 if image.mode == "L" else np.float32
    return np.frombuffer(image.tobytes(), dtype).reshape(image.height, image.width)


def blend(images: Sequence[Image.Image]) -> Image.Image:
    """The mean of planes of 8 bits, without rounding."""
    return _float(np.mean([np.asarray(image, dtype=np.float32) for image in images], axis=0))
