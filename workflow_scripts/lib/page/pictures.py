"""Strips of cells as PNG files inside a page, without matplotlib."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping

import numpy as np
from PIL import Image

from workflow_scripts.lib.images.colour_choices import colours_of, rgb
from workflow_scripts.lib.page import image_strips

Chosen = Mapping[str, str] | None  # colours of the config, by channel


def strip(images: np.ndarray, channels: list[str], scale: np.ndarray, chosen: Chosen = None) -> str:
    """Images (n, C, H, W) side by side, all channels in their colours, as a data URI."""
    return _uri(image_strips.strip(image_strips.compose(images, channels, scale, chosen), len(images)))


def strip_of_channel(
    images: np.ndarray, channels: list[str], scale: np.ndarray, index: int, chosen: Chosen = None
) -> str:
    """The same images by one channel alone, in its colour."""
    colour = np.array(rgb(colours_of(channels, chosen)[index]))
    return _uri(image_strips.strip(image_strips.grey(images, index, scale) * colour, len(images)))


def photograph(picture: np.ndarray) -> str:
    """A picture (H, W, 3) in [0, 1] as a JPEG, as a data URI."""
    out = io.BytesIO()
    Image.fromarray(np.rint(255 * picture).astype(np.uint8)).save(out, format="JPEG", quality=88)
    return f"data:image/jpeg;base64,{base64.b64encode(out.getvalue()).decode('ascii')}"


def _uri(strip: np.ndarray) -> str:
    out = io.BytesIO()
    Image.fromarray(strip).save(out, format="PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(out.getvalue()).decode('ascii')}"
