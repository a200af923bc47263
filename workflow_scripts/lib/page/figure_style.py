"""One look for all figures: quiet, readable in print, on a dark page and without colour vision; saved whole.

Figures are as wide as a phone's screen, so that their text keeps its size there. Every colour comes from THEME, which
gives each its counterpart on a dark page: the report swaps them by name. Equal content gives equal files."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from workflow_scripts.lib.base.files import atomic
from workflow_scripts.lib.judge import inference
from workflow_scripts.lib.page.run_tables import Difference

WIDTH = 5.4  # inches; 389 points, one point is about one pixel of a phone
FORMATS = ("svg", "pdf", "png")

# name -> (on white, on dark). Hues after Okabe and Ito, darkened until they carry thin lines on white.
THEME = {
    "paper": ("#ffffff", "#15181c"),
    "ink": ("#1d2126", "#e6e8ea"),
    "muted": ("#68727c", "#98a2ac"),
    "grid": ("#dfe3e7", "#31373d"),
    "band": ("#eef1f4", "#22272c"),
    "blue": ("#0067a6", "#62b0e8"),
    "vermilion": ("#c24a08", "#f59a63"),
    "green": ("#007d5b", "#46cba2"),
    "purple": ("#a04678", "#e3a3c8"),
    "ochre": ("#9a6a00", "#e3b34d"),
    "sky": ("#3d93c6", "#9ad3f5"),
}
INK, MUTED, GRID, BAND, PAPER = (THEME[name][0] for name in ("ink", "muted", "grid", "band", "paper"))
GAIN, LOSS = THEME["blue"][0], THEME["vermilion"][0]
CYCLE = [THEME[name][0] for name in ("blue", "vermilion", "green", "purple", "ochre", "sky")]

# Width of a letter of the measured typeface, in its size; those of other typefaces are narrower.
LETTER = 0.62
LEGEND_LINE = 2.0  # length of a line in a legend, in the size of its letters
LEGEND_NAME = 40  # letters of a name that a legend shows

STYLE: dict[str, Any] = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans", "Helvetica", "Arial"],
    "font.size": 8.6,
    "axes.titlesize": 9.0,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.labelsize": 8.6,
    "axes.labelcolor": INK,
    "axes.edgecolor": MUTED,
    "axes.facecolor": "none",
    "axes.linewidth": 0.6,
    "axes.grid": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.unicode_minus": True,
    "axes.formatter.useoffset": False,
    "text.color": INK,
    # Names come from users: a dollar sign in them is a dollar sign.
    "text.parse_math": False,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.labelsize": 8.0,
    "ytick.labelsize": 8.0,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.major.size": 2.5,
    "ytick.major.size": 2.5,
    "lines.linewidth": 1.3,
    "lines.markersize": 4.5,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "legend.fontsize": 8.0,
    "figure.facecolor": PAPER,
    "savefig.facecolor": PAPER,
    "savefig.dpi": 200,
    # Names inside SVG files are hashes: a fixed salt makes them the same in each run.
    "svg.hashsalt": "mixloc",
    "svg.fonttype": "none",
    "pdf.fonttype": 42,
}
# Dates and program versions would make equal figures differ.
METADATA = {
    "svg": {"Date": None, "Creator": "MixLoc"},
    "pdf": {"CreationDate": None, "Creator": "MixLoc", "Producer": "MixLoc"},
    "png": {"Software": "MixLoc"},
}


def figure(height: float, width: float = WIDTH) -> Figure:
    """An empty figure in the common style, size in inches. Draw inside `style()`."""
    return Figure(figsize=(width, height), facecolor=PAPER)


def style() -> Any:
    """The common style as a context manager."""
    return matplotlib.rc_context(STYLE)


def save(fig: Figure, path: Path) -> None:
    """Write a figure as svg, pdf and png under the stem of `path`, each whole or not at all."""
    with style():
        for kind in FORMATS:
            with atomic(Path(path).with_suffix(f".{kind}")) as part:
                fig.savefig(part, format=kind, metadata=METADATA[kind])


def svg_text(fig: Figure) -> str:
    """A figure as the text of an SVG file. Call inside `style()`."""
    out = io.StringIO()
    fig.savefig(out, format="svg", metadata=METADATA["svg"])
    return out.getvalue()


def inches(fig: Figure, left: float, top: float, width: float, height: float) -> Axes:
    """Axes placed by inches from the left and top edges: figures grow with their rows, their rows do not."""
    wide, high = fig.get_size_inches()
    return fig.add_axes((left / wide, 1 - (top + height) / high, width / wide, height / high))


def label_column(names: list[str], size: float = 8.6, most: float = 2.1) -> float:
    """Inches that these names need as labels to the left of axes."""
    return min(most, max(0.9, LETTER * size / 72 * max(map(len, names), default=0) + 0.12))


def legend_columns(names: list[str], most: int = 3) -> int:
    """How many columns of these names fit below a figure, in the order in which a legend fills them."""
    size = STYLE["legend.fontsize"] / 72
    for columns in range(min(most, len(names)), 1, -1):
        longest = [min(LEGEND_NAME, max(map(len, part))) for part in np.array_split(np.array(names), columns)]
        # A line, and the space before the name and the next column.
        if sum(LETTER * letters + LEGEND_LINE + 2.0 for letters in longest) * size < WIDTH:
            return columns
    return 1


def fit(text: str, length: int) -> str:
    """The text; where it has more letters than that, without its middle, as long names often differ at their ends."""
    if len(text) <= length:
        return text
    tail = (length - 1) // 2
    return f"{text[: length - 1 - tail]}…{text[len(text) - tail :]}"


def signed(value: float, digits: int = 3) -> str:
    """A difference as a person writes it: +0.031, −0.004, 0.000."""
    if value is None or np.isnan(value):
        return "–"
    text = f"{abs(value):.{digits}f}"
    if float(text) == 0:
        return text
    return ("+" if value > 0 else "−") + text


def span(low: float, high: float, digits: int = 3) -> str:
    """An interval in words: −0.004 to +0.066; empty where there is none."""
    if low is None or high is None or np.isnan(low) or np.isnan(high):
        return ""
    return f"{signed(low, digits)} to {signed(high, digits)}"


def smooth(values: np.ndarray, fraction: float = 0.02) -> np.ndarray:
    """Running mean over a fraction of the points, centred; the ends use what there is."""
    values = np.asarray(values, dtype=float)
    half = int(len(values) * fraction / 2)
    if half < 1:
        return values
    total = np.concatenate([[0.0], np.cumsum(values)])
    first = np.maximum(np.arange(len(values)) - half, 0)
    last = np.minimum(np.arange(len(values)) + half + 1, len(values))
    return (total[last] - total[first]) / (last - first)


def shade(difference: Difference) -> str:
    """Colour of a verdict: what is confirmed to help or to hurt stands out, all else is ink."""
    if difference.confirmed and difference.verdict == inference.HELPS:
        return GAIN
    return LOSS if difference.confirmed and difference.verdict == inference.HURTS else INK


def nothing(why: str) -> Figure:
    """A sentence in place of a figure."""
    fig = figure(0.6)
    fig.text(0.02, 0.4, why, color=MUTED)
    return fig


def apart(values: list[float], axes: Axes, height: float) -> list[float]:
    """Places for labels of rising values, moved until a line of text fits between any two, and still centred."""
    low, high = axes.get_ylim()
    line = 0.125 * (high - low) / height
    places = np.array(values, dtype=float)
    for _ in range(200):
        short = line - np.diff(places)
        if not (short > 1e-9 * line).any():
            break
        push = np.maximum(short, 0) / 2
        places[:-1] -= push
        places[1:] += push
    return places.tolist()
