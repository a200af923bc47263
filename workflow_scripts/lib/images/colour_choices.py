"""Colours in which channels are shown: those of the config, else by the channel's name.

A colour is a name of COLOURS, or `#rrggbb`."""

from __future__ import annotations

import re
from collections.abc import Mapping

Rgb = tuple[float, float, float]  # each from 0 to 1

# The first four follow the Human Protein Atlas.
COLOURS: dict[str, Rgb] = {
    "green": (0.0, 1.0, 0.0),
    "blue": (0.15, 0.35, 1.0),
    "red": (1.0, 0.1, 0.1),
    "yellow": (0.5, 0.45, 0.0),
    "magenta": (1.0, 0.0, 1.0),
    "cyan": (0.0, 1.0, 1.0),
    "grey": (1.0, 1.0, 1.0),
}
# Dyes, and what they stain, by the colour in which microscopists show them; a word of the channel's name.
DYES = {
    "green": ("egfp", "gfp", "fitc", "alexa488", "yfp", "tubulin"),
    "red": ("rfp", "mcherry", "tdtomato", "tritc", "dsred", "cy3", "actin"),
    "blue": ("dapi", "hoechst", "bfp", "dna", "nuclei"),
    "cyan": ("cfp",),
    "magenta": ("cy5", "alexa647"),
    "grey": ("dic", "brightfield", "phase", "bf"),
}
PATTERN = rf"^({'|'.join(COLOURS)}|#[0-9a-fA-F]{{6}})$"
READABLE = 4.5  # contrast of text to its background that WCAG 2.2 asks
VISIBLE = 3.0  # contrast that it asks of what is drawn
PAGES = (0.01, 1.0)  # luminance of a dark and of a light page


def colours_of(channels: list[str], chosen: Mapping[str, str] | None = None) -> list[str]:
    """Colour of each channel: the one chosen for it, else by its name, else one that no other channel has."""
    wanted = chosen or {}
    if len(channels) == 1:
        return [wanted.get(channels[0], "grey")]
    told = [wanted.get(name) or _colour_by_name(name) for name in channels]
    spare = [name for name in COLOURS if name not in told] or list(COLOURS)
    return [name or spare[index % len(spare)] for index, name in enumerate(told)]


def rgb(colour: str) -> Rgb:
    """Red, green and blue of a colour."""
    if colour in COLOURS:
        return COLOURS[colour]
    red, green, blue = (int(colour[start : start + 2], 16) / 255 for start in (1, 3, 5))
    return red, green, blue


def on_black(colour: str) -> str:
    """The colour as `#rrggbb` for text on black: mixed with white until it can be read."""
    parts, white = rgb(colour), 0.0
    while white < 1 and (_luminance(parts) + 0.05) / 0.05 < READABLE:
        white += 0.05
        parts = tuple(part + (1 - part) * white for part in rgb(colour))
    # White itself is the page's colour in a figure, which a dark page exchanges.
    return "#" + "".join(f"{min(255, round(255 * part)):02x}" for part in parts).replace("ffffff", "fdfdfd")


def on_any_page(colour: str) -> str:
    """The colour as `#rrggbb` for what is drawn on light and on dark pages: mixed with black or white until both show
    it."""
    dark, light = PAGES
    parts, step = rgb(colour), 0.0
    least, most = VISIBLE * (dark + 0.05) - 0.05, (light + 0.05) / VISIBLE - 0.05
    towards = 0.0 if _luminance(parts) > most else 1.0
    while step < 1 and not least <= _luminance(parts) <= most:
        step += 0.02
        parts = tuple(part + (towards - part) * step for part in rgb(colour))
    return "#" + "".join(f"{round(255 * part):02x}" for part in parts)


def _luminance(parts: Rgb) -> float:
    # Relative luminance, WCAG 2.2.
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def _colour_by_name(channel: str) -> str | None:
    lower = channel.lower()
    if lower in COLOURS:
        return lower
    words = set(re.split("[_-]+", lower))
    return next((colour for colour, dyes in DYES.items() if any(dye in words for dye in dyes)), None)
