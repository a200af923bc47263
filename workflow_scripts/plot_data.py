"""plot_data: figures of the data: classes, co-occurrence, groups, intensities, and a contact sheet.

classes: images and groups of every class, with the tested groups. cooccurrence: how often classes occur together.
groups: images per group. intensity: pixel values of every channel. histograms: the same for each plate or the like, and
before normalisation where raw values are kept. samples: the first images of every class by id, one of each group,
without selection. Each is written as svg, pdf and png under the stem of its path. The table holds the
statistics of the pixel values.

Example:
    python -m workflow_scripts.plot_data --images images.h5 --folds 0=repeat0/folds.csv \\
        --classes figures/data_classes.svg --cooccurrence figures/data_cooccurrence.svg \\
        --groups figures/data_groups.svg --intensity figures/data_intensity.svg \\
        --histograms figures/data_histograms.svg --samples figures/data_samples.svg \\
        --table intensity.csv --settings '{"per_class": 10, "protein_channel": "green", "minimum_positive_groups": 5,
        "intensity_column": null}'
"""

from __future__ import annotations

import argparse
import contextlib
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from workflow_scripts.lib.base import arguments, stage
from workflow_scripts.lib.base.files import atomic
from workflow_scripts.lib.images.image_set import ImageSet
from workflow_scripts.lib.page import figure_style, image_legend, image_strips, intensity_histograms
from workflow_scripts.lib.page.data_figures import (
    draw_classes,
    draw_cooccurrence,
    draw_groups,
    draw_histograms,
    draw_intensity,
    draw_samples,
)
from workflow_scripts.lib.page.intensity_histograms import IntensityHistograms
from workflow_scripts.lib.page.sections import data_section
from workflow_scripts.lib.page.sections.data_section import Data

SAMPLED = 2000  # images whose pixels are counted, evenly spaced over the set
BLOCK = 200  # of these in memory at a time
COLUMNS = ["channel", *(name for name, _, _ in data_section.INTENSITY)]
FIGURES = ("classes", "cooccurrence", "groups", "intensity", "histograms", "samples")


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    p = arguments.parser(__doc__)
    p.add_argument("--images", type=Path, required=True, help="the image set")
    arguments.add_role_tables(p)
    for name in FIGURES:
        p.add_argument(f"--{name}", type=Path, required=True, help=f"figure to write: {name}")
    p.add_argument("--view", type=Path, help="view of a fold, whose normalised intensities the histograms show")
    p.add_argument("--table", type=Path, required=True, help="statistics of the pixel values to write (CSV)")
    return p.parse_args(argv)


def plot_data(args: argparse.Namespace) -> None:
    """Draw and save all figures, and the table."""
    settings = args.settings
    data = data_section.read(args.images, args.folds)
    with ImageSet(args.images) as source:
        counts = pixel_counts(source)
        shown = histograms(source, args.view, settings["intensity_column"])
        rows = samples(source, data, settings["per_class"])
        chosen = settings.get("colours")
        legend = image_legend.of_set(source, chosen)
    with atomic(args.table) as part:
        pd.DataFrame(statistics(counts, data.channels), columns=COLUMNS).to_csv(part, index=False, float_format="%.6g")
    with figure_style.style():
        figure_style.save(draw_classes(data, settings["minimum_positive_groups"]), args.classes)
        figure_style.save(draw_cooccurrence(data), args.cooccurrence)
        figure_style.save(draw_groups(data.groups), args.groups)
        figure_style.save(draw_intensity(counts, data.channels, chosen), args.intensity)
        figure_style.save(draw_histograms(shown, chosen), args.histograms)
        figure_style.save(draw_samples(rows, data.channels, settings, legend), args.samples)


def _sampled(source: ImageSet) -> np.ndarray:
    """Rows of the images whose pixels are counted."""
    return np.unique(np.linspace(0, len(source) - 1, min(SAMPLED, len(source))).astype(np.int64))


def histograms(source: ImageSet, view: Path | None, wanted: str | None) -> IntensityHistograms:
    """Intensities by channel and by plate or the like; as a fold sees them, where its view is given."""
    columns = {name: source.column(name) for name in source.columns()}
    column = intensity_histograms.column_of(wanted, {name: [*filter(None, own)] for name, own in columns.items()})
    values = None if column is None else columns[column]
    out = IntensityHistograms(source.channels, column, values, len(source))
    chosen = _sampled(source)
    with ImageSet(view) if view else contextlib.nullcontext(source) as seen:
        for start in range(0, len(chosen), BLOCK):
            rows = chosen[start : start + BLOCK]
            raw = source.raw(rows, "inspect") if source.keeps_raw else None
            images = seen.read(rows, "inspect", labels=False).images
            out.add(None if values is None else values[rows], images, raw)
    return out


def pixel_counts(source: ImageSet) -> np.ndarray:
    """How many pixels have each value, channel by channel: int (C, 256)."""
    chosen = _sampled(source)
    out = np.zeros((len(source.channels), 256), dtype=np.int64)
    for start in range(0, len(chosen), BLOCK):
        images = source.read(chosen[start : start + BLOCK], "inspect", labels=False).images
        for channel in range(len(out)):
            out[channel] += np.bincount(images[:, channel].ravel(), minlength=256)
    return out


def statistics(counts: np.ndarray, channels: list[str]) -> list[dict[str, Any]]:
    """Mean, deviation, percentiles, and the fractions at either end, of every channel."""
    values, out = np.arange(256), []
    for name, own in zip(channels, counts, strict=True):
        fraction = own / max(1, own.sum())
        mean = float(fraction @ values)
        row = {"channel": name, "mean": mean, "deviation": float(np.sqrt(fraction @ (values - mean) ** 2))}
        row |= {f"p{p}": int(np.searchsorted(np.cumsum(fraction), p / 100 - 1e-12)) for p in (1, 50, 99)}
        out.append(row | {"black": float(fraction[0]), "saturated": float(fraction[255])})
    return out


def samples(source: ImageSet, data: Data, count: int) -> list[tuple[str, np.ndarray]]:
    """The first images of every class by id (title, images (n, C, H, W))."""
    out = []
    for k, name in enumerate(data.classes):
        target = np.eye(len(data.classes), dtype=np.uint8)[k]
        rows = image_strips.choose(data.labels, target, source.ids[~source.further], data.groups, count)
        if len(rows):
            out.append((name, source.read(rows, "inspect").images))
    return out


def main(argv: list[str] | None = None) -> int:
    """The program."""
    args = parse_args(argv)
    return stage.run("plot_data", args, lambda: plot_data(args))


if __name__ == "__main__":
    sys.exit(main())
