"""plot_images: real images beside generated ones, class by class, as they come.

For every class, and for the commonest combinations of classes, a strip of real images that nothing was fitted on (the
fold's test part) and a strip of one plan's generated images: in colour, and below it the protein channel alone. No one
chooses: images are sorted by id, and the first of each protein is taken until the strip is full. Written as svg, pdf
and png under the stem of --out.

Example:
    python -m workflow_scripts.plot_images --images images.h5 --folds folds.csv --fold 0 --synthetic as_train.h5 \\
        --out figures/images_as_train.svg --settings '{"per_class": 5, "combinations": 3, "protein_channel": "green"}'
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from workflow_scripts.lib import figures, fold_table, folds, stage, tiles
from workflow_scripts.lib.dataset import ImageSet, Part
from workflow_scripts.lib.figures import MUTED


@dataclass
class Row:
    """What one row shows: its title, the set of classes, and the images (n, C, H, W) of both kinds."""

    title: str
    real: np.ndarray
    generated: np.ndarray


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    p = stage.parser(__doc__)
    p.add_argument("--images", type=Path, required=True, help="the real image set")
    p.add_argument("--folds", type=Path, required=True, help="roles of its images")
    p.add_argument("--fold", type=int, required=True, help="number of the fold")
    p.add_argument("--synthetic", type=Path, required=True, help="the generated image set")
    p.add_argument("--out", type=Path, required=True, help="figure to write")
    return p.parse_args(argv)


def plot_images(images: Path, table: Path, fold: int, synthetic: Path, out: Path, settings: dict[str, Any]) -> None:
    """Draw and save the panel of one fold and plan."""
    with ImageSet(images) as real, ImageSet(synthetic) as generated:
        if (real.channels, real.classes) != (generated.channels, generated.classes):
            raise stage.UserError(f"{synthetic} has other channels or classes than {images}: delete it and run again")
        held = fold_table.rows(table, fold, real.ids, folds.TEST)
        rows = collect(real, held, generated, settings)
        channels = real.channels
    with figures.style():
        figures.save(draw_panel(rows, channels, settings), out)
    stage.log.info("%d rows of %d + %d images: %s", len(rows), settings["per_class"], settings["per_class"], out)


def collect(real: ImageSet, held: np.ndarray, generated: ImageSet, settings: dict[str, Any]) -> list[Row]:
    """The rows of the panel: each class by itself, then the commonest combinations among the held-out images."""
    labels, asked = real.labels(held, "inspect"), generated.labels(None, "inspect")
    wanted = [(name, np.eye(len(real.classes), dtype=np.uint8)[k]) for k, name in enumerate(real.classes)]
    several = Counter(tuple(row) for row in labels.tolist() if sum(row) > 1)
    # Of equally common combinations the first in the order of classes.
    common = sorted(several, key=lambda row: (-several[row], [-value for value in row]))[: settings["combinations"]]
    for row in common:
        names = [name for name, on in zip(real.classes, row, strict=True) if on]
        wanted.append((" + ".join(names), np.array(row, dtype=np.uint8)))
    count, out = settings["per_class"], []
    everything = np.arange(len(generated))
    for title, target in wanted:
        shown = held[tiles.choose(labels, target, real.ids[held], real.groups[held], count)]
        made = everything[tiles.choose(asked, target, generated.ids, generated.ids, count)]
        if len(shown) or len(made):
            out.append(Row(title, _read(real, shown).images, _read(generated, made).images))
    return out


def _read(source: ImageSet, rows: np.ndarray) -> Part:
    return source.read(rows, "inspect")


def draw_panel(rows: list[Row], channels: list[str], settings: dict[str, Any]) -> Figure:
    """All rows: a colour strip and a protein strip, real on the left, generated on the right."""
    count, protein = settings["per_class"], tiles.protein_index(channels, settings["protein_channel"])
    left, gap = 1.08, 0.14
    half = (figures.WIDTH - left - gap - 0.04) / 2
    tile = half / count
    double = len(channels) > 1
    pitch = tile * (2 if double else 1) + 0.09
    fig = figures.figure(0.34 + max(1, len(rows)) * pitch)
    for index, text in enumerate(("real, held out", "generated")):
        fig.text(
            (left + index * (half + gap)) / figures.WIDTH,
            1 - 0.2 / fig.get_figheight(),
            text,
            fontweight="bold",
            va="baseline",
        )
    shown = [row.real for row in rows if len(row.real)] or [row.generated for row in rows]
    scale = tiles.brightest(shown, len(channels)) if rows else np.ones(len(channels))
    for line, row in enumerate(rows):
        top = 0.3 + line * pitch
        fig.text(
            0, 1 - (top + 0.04) / fig.get_figheight(), tiles.wrap(row.title), va="top", fontsize=7.5, linespacing=1.15
        )
        for side, images in enumerate((row.real, row.generated)):
            start = left + side * (half + gap)
            if not len(images):
                fig.text(
                    (start + 0.04) / figures.WIDTH,
                    1 - (top + 0.12) / fig.get_figheight(),
                    "none",
                    va="top",
                    color=MUTED,
                )
                continue
            tiles.show(
                figures.inches(fig, start, top, half, tile), tiles.strip(tiles.compose(images, channels, scale), count)
            )
            if double:
                alone = tiles.grey(images, protein, scale)
                tiles.show(figures.inches(fig, start, top + tile, half, tile), tiles.strip(alone, count))
    return fig


def main(argv: list[str] | None = None) -> int:
    """The program."""
    args = parse_args(argv)
    return stage.run(
        "plot_images",
        args,
        lambda: plot_images(args.images, args.folds, args.fold, args.synthetic, args.out, args.settings),
    )


if __name__ == "__main__":
    sys.exit(main())
