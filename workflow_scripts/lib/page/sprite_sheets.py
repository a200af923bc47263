"""Sprite sheets: many small greyscale images side by side in one WebP file, each channel in sheets of its own."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass

import numpy as np
from PIL import Image

from workflow_scripts.lib.base.errors import UserError

SIDE = 1024  # pixels a side of a sheet, at most; a browser decodes one in milliseconds
LOSSLESS = 101  # above the qualities of WebP, which end at 100
QUALITIES = (LOSSLESS, 95, 90, 80, 70, 60, 50, 40, 30, 20, 10)
TRIED = 6  # sheets by which the size of all is estimated


@dataclass(frozen=True)
class Sheets:
    """Sheets of all images, as base64 text, and how they were made."""

    texts: list[list[str]]  # by channel, then in the order of the images
    across: int  # tiles in a row of a sheet, which has at most as many rows
    tile: int  # pixels a side
    quality: int

    @property
    def bytes(self) -> int:
        """Size of all texts."""
        return sum(len(text) for channel in self.texts for text in channel)


def make(images: np.ndarray, most: int) -> Sheets:
    """Sheets of images uint8 (n, C, t, t), of the best quality of which all texts take at most `most` bytes."""
    tile, channels = images.shape[-1], images.shape[1]
    across = max(1, SIDE // tile)
    starts = range(0, len(images), across**2)
    places = [(channel, start) for channel in range(channels) for start in starts]
    tried = [places[round(place)] for place in np.linspace(0, len(places) - 1, min(TRIED, len(places)))]

    def text(place: tuple[int, int], quality: int) -> str:
        channel, start = place
        return _text(_arranged(images[start : start + across**2, channel], across), quality)

    for quality in QUALITIES:
        seen = np.mean([len(text(place, quality)) for place in tried])
        if seen * len(places) > most:
            continue
        texts = [[text((channel, start), quality) for start in starts] for channel in range(channels)]
        made = Sheets(texts, across, tile, quality)
        if made.bytes <= most:
            return made
    raise UserError(
        f"{len(images)} images of {channels} channels and {tile} px do not fit into {most / 1e6:.1f} MB: show fewer "
        "(gallery.images), smaller (gallery.size), or give them room (gallery.megabytes)"
    )


def _arranged(images: np.ndarray, across: int) -> np.ndarray:
    """Images uint8 (n, t, t) in rows of `across`; the rest of the last row is black."""
    count, tile = len(images), images.shape[-1]
    lines = -(-count // across)
    full = np.zeros((lines * across, tile, tile), dtype=np.uint8)
    full[:count] = images
    return full.reshape(lines, across, tile, tile).swapaxes(1, 2).reshape(lines * tile, across * tile)


def _text(sheet: np.ndarray, quality: int) -> str:
    out = io.BytesIO()
    how = {"lossless": True, "quality": 50} if quality == LOSSLESS else {"quality": quality}
    Image.fromarray(sheet).convert("RGB").save(out, format="WEBP", method=4, **how)
    return base64.b64encode(out.getvalue()).decode("ascii")
