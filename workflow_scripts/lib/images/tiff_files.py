"""TIFF, OME-TIFF and hyperstacks of ImageJ, with any order of axes."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import tifffile
from PIL import Image

from workflow_scripts.lib.base.errors import file_system_failed
from workflow_scripts.lib.images import planes, stacks
from workflow_scripts.lib.images.planes import Planes, Unusable, Wanted

# tifffile warns about unusual files; what matters is checked here.
logging.getLogger("tifffile").setLevel(logging.CRITICAL)


def tiff(path: str | Path, wanted: Wanted) -> Planes:
    """The planes of a TIFF file."""
    with tifffile.TiffFile(path, _multifile=False) as file:
        _check_pages(file, wanted)
        if pages := _pages_apart(file, wanted.expected):
            values, axes = np.stack([_values(path, file, page) for page in pages]), "IYX"
        else:
            series = _series(file)
            axes = _axes(series, wanted.expected)
            stacks.check(_described(series, axes), wanted)
            values = _values(path, file, series)
        names = _ome_names(file) or _imagej_names(file)
    return stacks.read(stacks.of_array(values, axes, names), wanted)


def _values(path: str | Path, file: tifffile.TiffFile, series: tifffile.TiffPageSeries) -> np.ndarray:
    """The array of an image, in the order of its axes."""
    _check_strips(file, series)
    try:
        return series.asarray().reshape(series.shape)
    except ValueError as error:
        if "imagecodecs" not in str(error):
            raise
        return _by_pillow(path, series, str(error))


def _pages_apart(file: tifffile.TiffFile, expected: int) -> list[tifffile.TiffPageSeries]:
    """Pages that were written one by one, each as an image, where there is one for each channel."""
    found = file.series
    if len(found) != expected or expected == 1 or file.is_ome:
        return []
    alike = {(series.axes, series.shape, str(series.dtype)) for series in found}
    if len(alike) > 1 or found[0].axes != "YX":
        return []
    stacks.check(_described(found[0], "YX"), Wanted(1))
    return list(found)


def _described(series: tifffile.TiffPageSeries, axes: str) -> stacks.Stack:
    """The stack before its pixels are read."""
    dtype = np.dtype(series.dtype).name if series.dtype is not None else "unknown"
    return stacks.Stack(axes, series.shape, dtype, lambda place: np.empty(0))


def _check_pages(file: tifffile.TiffFile, wanted: Wanted) -> None:
    """The pages are counted before any is read: in a damaged file one may lead to the next without end."""
    most = planes.MOST_PLANES if wanted.stack == "refuse" else planes.MOST_PAGES
    if _channels_last(_written_shape(file), wanted.expected):
        most = planes.MOST_PAGES
    if len(file.pages) > most:
        raise Unusable("wrong shape", f"holds more than {most} pages; one plane for each channel is expected")


def _series(file: tifffile.TiffFile) -> tifffile.TiffPageSeries:
    """The image of a file; further ones may be smaller, such as previews."""
    first = file.series[0]
    if sum((series.shape, series.dtype) == (first.shape, first.dtype) for series in file.series) > 1:
        raise Unusable("wrong shape", f"holds several images ({len(file.series)}); one is expected")
    return first


def _written_shape(file: tifffile.TiffFile) -> tuple[int, ...]:
    """The shape of the array that a file was written from, where it says so."""
    told = file.shaped_metadata if file.is_shaped else None
    return tuple(told[0].get("shape", ())) if told else ()


def _channels_last(shape: tuple[int, ...], expected: int) -> bool:
    return len(shape) == 3 and shape[2] == expected != shape[0]


def _axes(series: tifffile.TiffPageSeries, expected: int) -> str:
    """The axes of an image. An array without named axes has its channels in front, or behind if their number fits."""
    if series.axes == "QYX" and _channels_last(series.shape, expected):
        return "YXQ"
    return series.axes


def _check_strips(file: tifffile.TiffFile, series: tifffile.TiffPageSeries) -> None:
    """All pieces of the image must lie in the file; a reader might fill a gap with black."""
    size = file.filehandle.size
    for page in series.pages:
        if page is None:
            raise Unusable("damaged file", "is incomplete: a plane is missing")
        for start, count in zip(page.dataoffsets, page.databytecounts, strict=False):
            if not start or not count or start + count > size:
                raise Unusable("damaged file", "is incomplete: pixels are missing")


def _by_pillow(path: str | Path, series: tifffile.TiffPageSeries, why: str) -> np.ndarray:
    """Compressions that tifffile leaves to a large package, LZW above all."""
    found = []
    try:
        with Image.open(path, formats=["TIFF"]) as picture:
            for page in series.pages:
                picture.seek(page.index)
                values = np.asarray(picture)
                values = values.transpose(2, 0, 1) if values.ndim == 3 and page.axes[0] == "S" else values
                if values.shape != page.shape or values.dtype.newbyteorder("=") != page.dtype:
                    raise ValueError(picture.mode)
                found.append(values)
    except Exception as error:
        if file_system_failed(error):
            raise
        raise Unusable("unknown compression", f"cannot be unpacked ({why}); save it without compression") from None
    return np.stack(found).reshape(series.shape)


def _ome_names(file: tifffile.TiffFile) -> list[str] | None:
    """Channel names of an OME-TIFF."""
    if not file.ome_metadata:
        return None
    image = tifffile.xml2dict(file.ome_metadata).get("OME", {}).get("Image", {})
    image = image[0] if isinstance(image, list) else image
    channels = image.get("Pixels", {}).get("Channel", [])
    channels = channels if isinstance(channels, list) else [channels]
    return planes.distinct([str(channel.get("Name", "")) for channel in channels])


def _imagej_names(file: tifffile.TiffFile) -> list[str] | None:
    """Labels of an ImageJ stack, where there is one for each channel."""
    labels = (file.imagej_metadata or {}).get("Labels")
    return planes.distinct([str(label) for label in labels]) if isinstance(labels, (list, tuple)) else None
