"""Decoding of one image file into its planes, by the registry of formats. Doubtful files are refused.

The function of a format has its name in `format_choices.FORMATS`. It takes a path and what is wanted of the file, and
returns `Planes`. Where the facts say `opened`, it takes the path and the side that is needed, and is a context manager
that yields a `Stack`: its planes are then read one by one."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image

from workflow_scripts.lib.base.errors import file_system_failed
from workflow_scripts.lib.images import planes, stacks
from workflow_scripts.lib.images.czi_files import czi
from workflow_scripts.lib.images.format_choices import BY_SUFFIX, EXTRA, FORMATS
from workflow_scripts.lib.images.nd2_files import nd2
from workflow_scripts.lib.images.planes import LARGEST, Planes, Unusable, Wanted
from workflow_scripts.lib.images.tiff_files import tiff
from workflow_scripts.lib.images.zarr_folders import ome_zarr

__all__ = ["czi", "decode", "jpeg", "nd2", "npy", "ome_zarr", "png", "size", "tiff"]

_GREY = {"L": 8, "I;16": 16, "I;16B": 16, "I;16L": 16, "F": 32}

warnings.filterwarnings("error", category=Image.DecompressionBombWarning)
# Pillow keeps the memory of a few images for the next ones; fresh pages for each cost a few per cent of the time.
Image.core.set_blocks_max(8)


def decode(path: str | Path, wanted: Wanted) -> Planes:
    """Planes of a file."""
    name = _format(path)
    reader = FORMATS.function(name, globals())
    with _refusing(name):
        if not FORMATS[name].opened:
            return reader(path, wanted)
        with reader(path, wanted.least) as stack:
            return stacks.read(stack, wanted)


def size(path: str | Path) -> tuple[int, int] | None:
    """Width and height by the header of a file; None where the format or this file does not tell them fast."""
    name = _format(path)
    if name == "npy":
        return None
    with _refusing(name):
        if FORMATS[name].opened:
            with FORMATS.function(name, globals())(path, 0) as stack:
                return stack.size
    try:
        with Image.open(path) as picture:
            return picture.size
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError, Image.DecompressionBombWarning):
        # Pillow does not know all forms of TIFF that can be read, so only the reader can tell.
        return None


def _format(path: str | Path) -> str:
    name = BY_SUFFIX.get(os.path.splitext(path)[1].lower())  # noqa: PTH122 (a Path of each file stays in memory)
    if name is None:
        raise Unusable("unknown format", f"is of no format that can be read ({', '.join(sorted(BY_SUFFIX))})")
    return name


@contextmanager
def _refusing(name: str) -> Iterator[None]:
    """Turn whatever a file leads its reader to into the error Unusable."""
    try:
        yield
    except Unusable:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise Unusable("decompression bomb", f"unpacks to more than {LARGEST} pixels") from None
    except Image.UnidentifiedImageError:
        raise Unusable("not an image", f"is no {name.upper()} file") from None
    except ImportError as error:
        raise Unusable("missing package", f"cannot be read ({error}): pip install -r {EXTRA}") from None
    except Exception as error:
        if file_system_failed(error):
            raise
        # Decoders raise whatever a damaged file leads them to: struct.error, KeyError, zlib.error ...
        if isinstance(error, OSError) and error.errno is not None:
            raise Unusable("cannot be read", f"cannot be read: {error.strerror}") from None
        raise Unusable("damaged file", f"is damaged or incomplete: {_first_line(error)}") from None


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]


def png(path: str | Path, wanted: Wanted) -> Planes:
    """The planes of a PNG file."""
    return _picture(path, "PNG")


def jpeg(path: str | Path, wanted: Wanted) -> Planes:
    """The planes of a JPEG file."""
    return _picture(path, "JPEG")


def _picture(path: str | Path, kind: str) -> Planes:
    with Image.open(path, formats=[kind]) as picture:
        planes.check_size(*picture.size)
        if picture.mode in _GREY:
            picture.load()
            deep = _GREY[picture.mode]
            return Planes([picture if deep == 8 else planes.grey(np.asarray(picture))], deep)
        if picture.mode not in ("RGB", "RGBA", "LA"):
            raise Unusable("colour file", f"is {kind} with mode {picture.mode}; grey levels are expected")
        if any("16" in str(tile[3]) for tile in picture.tile):
            # Pillow would cut the lower eight bits off.
            raise Unusable("wrong bit depth", f"is {kind} with several channels of 16 bits; save it as TIFF")
        return Planes(list(picture.split()), 8)


def npy(path: str | Path, wanted: Wanted) -> Planes:
    """The planes of an array of NumPy: (H, W), (C, H, W) or (H, W, C)."""
    stack = np.load(path, mmap_mode="r", allow_pickle=False)
    if not isinstance(stack, np.ndarray) or stack.ndim not in (2, 3):
        raise Unusable("wrong shape", f"holds an array of shape {getattr(stack, 'shape', '?')}; two or three axes fit")
    planes.check_depth(stack.dtype.name)
    if stack.ndim == 3:
        # (C, H, W) or (H, W, C): the axis of the channels is the one as long as there are channels, else the short one.
        first, last = stack.shape[0], stack.shape[2]
        if first != wanted.expected and (last == wanted.expected or last < min(first, 65)):
            stack = stack.transpose(2, 0, 1)
    stack = stack.reshape(-1, *stack.shape[-2:])
    planes.check_size(stack.shape[2], stack.shape[1], stack.shape[0])
    return planes.of_arrays(np.asarray(stack))
