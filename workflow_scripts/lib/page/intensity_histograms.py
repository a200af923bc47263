"""Histograms of intensities by channel and by the values of a column such as the plate, before and after
normalisation."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

BINS = 48
MOST = 12  # values that get a row of their own
NAMED = 30  # of the others, how many are named
COLUMNS = ("plate", "batch", "slide", "experiment")  # looked for in this order, where the config names none
# Raw values are on the scale of 16 bits; their bins are equal on a logarithmic axis, as plates may differ 100-fold.
RAW_EDGES = np.concatenate([[0], np.geomspace(16, 65_536, BINS)])
EDGES = np.linspace(0, 256, BINS + 1)
_BIN, _RAW_BIN = (
    (np.searchsorted(edges, np.arange(depth), "right") - 1).clip(0, BINS - 1)
    for edges, depth in ((EDGES, 256), (RAW_EDGES, 65_536))
)


def column_of(wanted: str | None, columns: Mapping[str, Sequence[str]]) -> str | None:
    """The column whose values are told apart: the one that is wanted, or one with a usual name; None: there is none."""
    return next((name for name in (wanted, *COLUMNS) if name and name in columns and any(columns[name])), None)


class IntensityHistograms:
    """Pixels by intensity for each shown value and channel, counted block by block."""

    def __init__(self, channels: Sequence[str], column: str | None, values: Sequence[str] | None, count: int) -> None:
        """`values` are those of the column for all `count` images; None: there is no column."""
        self.channels, self.column = list(channels), column
        images = Counter(map(str, values)) if values is not None else Counter({"all images": count})
        ordered = sorted(images, key=lambda value: (-images[value], value))
        self.values = sorted(ordered[:MOST])
        self.images = [images[value] for value in self.values]
        self.others = sorted(ordered[MOST:])
        shape = (len(self.values), len(self.channels), BINS)
        self.before, self.after = np.zeros(shape, dtype=np.int64), np.zeros(shape, dtype=np.int64)

    def add(self, values: Sequence[str] | None, images: np.ndarray, raw: np.ndarray | None) -> None:
        """Count images uint8 (n, C, H, W) and, where they are kept, their raw values uint16."""
        place = {value: row for row, value in enumerate(self.values)}
        for number in range(len(images)):
            row = place.get(str(values[number]), -1) if values is not None else 0
            if row < 0:
                continue
            for channel in range(len(self.channels)):
                self.after[row, channel] += np.bincount(_BIN[images[number, channel]].ravel(), minlength=BINS)
                if raw is not None:
                    self.before[row, channel] += np.bincount(_RAW_BIN[raw[number, channel]].ravel(), minlength=BINS)

    @property
    def text(self) -> str:
        """What the figure shows, in sentences."""
        return self.told(bool(self.before.any()))

    def told(self, before: bool) -> str:
        """What the figure shows, in sentences; `before`: also intensities before normalisation."""
        kept = "before (left, logarithmic, on the scale of 16 bits) and after normalisation (right)"
        shown = kept if before else "after normalisation"
        if self.column is None:
            return f"Pixels by intensity, {shown}, over all images: no column such as the plate tells them apart."
        text = f"Pixels by intensity, {shown}, by {self.column}; each row is scaled to its own highest bin."
        if self.others:
            names = ", ".join(value or "(unknown)" for value in self.others[:NAMED])
            more = f" and {len(self.others) - NAMED} more" if len(self.others) > NAMED else ""
            text += f" Shown are the {MOST} values with most images. Not shown: {names}{more}."
        return text
