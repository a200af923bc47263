"""Legend of pictures of cells: names of channels in their colours, and a scale bar.

Names stand on black, as the images do, so that every colour can be read on a light and on a dark page."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from workflow_scripts.lib.images import colour_choices
from workflow_scripts.lib.images.image_set import ImageSet
from workflow_scripts.lib.page import figure_style
from workflow_scripts.lib.page.figure_style import INK

LONGEST = 0.5  # of the side of an image that the scale bar takes at most
SIZE, LINE = 6.8, 0.19  # points of the letters; inches of a line of the legend


@dataclass(frozen=True)
class Legend:
    """What stands beside pictures: channels with colours in which their names are written, and the scale bar."""

    channels: list[tuple[str, str]]  # name, #rrggbb
    fraction: float  # length of the bar, of the side of an image
    length: str  # that length in words

    def told(self) -> dict[str, Any]:
        """What a page's template shows."""
        return {
            "channels": [{"name": name, "colour": colour} for name, colour in self.channels],
            "fraction": self.fraction,
            "length": self.length,
        }


def make(
    channels: list[str], side: int, chosen: Mapping[str, str] | None = None, pixel_size: float | None = None
) -> Legend:
    """Legend of images of `side` pixels in the colours of the config; `pixel_size` in µm, where it is known."""
    colours = colour_choices.colours_of(channels, chosen)
    names = [(name, colour_choices.on_black(colour)) for name, colour in zip(channels, colours, strict=True)]
    whole = side * (pixel_size or 1)
    length = round_length(LONGEST * whole)
    if not pixel_size:
        length = max(1, length)
    return Legend(names, length / whole, f"{length:g} {'µm' if pixel_size else 'px'}")


def of_set(source: ImageSet, chosen: Mapping[str, str] | None) -> Legend:
    """Legend of the images of a set, which holds their pixel size where preprocessing was told one."""
    return make(source.channels, source.size, chosen, pixel_size(source))


def pixel_size(source: ImageSet) -> float | None:
    """Size of a pixel in µm, or None where images were scaled whole."""
    return float(source.attrs.get("pixel_size") or 0) or None


def round_length(most: float) -> float:
    """The longest of 1, 2 or 5 times a power of ten that is not above `most`."""
    power = 10.0 ** math.floor(math.log10(most))
    return next(step * power for step in (5, 2, 1) if step * power <= most * (1 + 1e-9))


def height(legend: Legend) -> float:
    """Inches that the legend takes above a figure."""
    return LINE * len(_lines(legend)) + 0.05


def draw(fig: Figure, legend: Legend, tile: float) -> None:
    """Draw the legend at the top of a figure whose images are `tile` inches wide."""
    wide, high = fig.get_size_inches()
    for number, line in enumerate(_lines(legend)):
        middle = 1 - (LINE * number + 0.09) / high
        for left, name, colour in line:
            words = {"fontsize": SIZE, "va": "center_baseline", "color": colour}
            box = {"facecolor": "#000000", "edgecolor": "none", "pad": 1.6}
            fig.text((left + 0.03) / wide, middle, name, bbox=box, **words)
    left = figure_style.WIDTH - _bar_room(legend, tile)
    middle = 1 - 0.09 / high
    ends = [left / wide, (left + legend.fraction * tile) / wide]
    fig.add_artist(Line2D(ends, [middle, middle], color=INK, lw=2.2, solid_capstyle="butt"))
    fig.text(ends[1] + 0.05 / wide, middle, legend.length, fontsize=SIZE, va="center_baseline")


def _bar_room(legend: Legend, tile: float) -> float:
    return legend.fraction * tile + 0.1 + _width(legend.length)


def _width(name: str) -> float:
    return figure_style.LETTER * SIZE / 72 * len(name)


def _lines(legend: Legend) -> list[list[tuple[float, str, str]]]:
    """Names with the place of their left edge in inches, line by line."""
    lines: list[list[tuple[float, str, str]]] = [[]]
    left, most = 0.0, figure_style.WIDTH - 1.6  # the bar stands at the right
    for name, colour in legend.channels:
        if lines[-1] and left + _width(name) > most:
            lines.append([])
            left = 0.0
        lines[-1].append((left, name, colour))
        left += _width(name) + 0.14
    return lines
