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
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from workflow_scripts.lib import figures, fold_table, folds, stage
from workflow_scripts.lib.dataset import ImageSet, Part
from workflow_scripts.lib.figures import MUTED

# How channels are shown, by the names that microscopists give them; the first four follow the Human Protein Atlas.
COLOURS = {
    "green": (0.0, 1.0, 0.0),
    "blue": (0.15, 0.35, 1.0),
    "red": (1.0, 0.1, 0.1),
    "yellow": (0.5, 0.45, 0.0),
    "magenta": (1.0, 0.0, 1.0),
    "cyan": (0.0, 1.0, 1.0),
    "grey": (1.0, 1.0, 1.0),
}
LARGEST_TILE = 64  # pixels a side; larger images are averaged down, or a page of them would weigh tens of megabytes
EDGE = 1  # empty pixels between tiles


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
        shown = held[choose(labels, target, real.ids[held], real.groups[held], count)]
        made = everything[choose(asked, target, generated.ids, generated.ids, count)]
        if len(shown) or len(made):
            out.append(Row(title, _read(real, shown).images, _read(generated, made).images))
    return out


def _read(source: ImageSet, rows: np.ndarray) -> Part:
    return source.read(rows, "inspect")


def choose(labels: np.ndarray, target: np.ndarray, ids: np.ndarray, groups: np.ndarray, count: int) -> np.ndarray:
    """The first `count` rows by id whose labels are exactly `target`, one of each group before any second one; then,
    where a class is never alone, rows that have the target among their labels."""
    exact = (labels == target).all(axis=1)
    holds = (labels[:, target > 0] > 0).all(axis=1)
    found: list[int] = []
    for candidates in (np.flatnonzero(exact), np.flatnonzero(holds & ~exact)):
        ordered = candidates[np.argsort(ids[candidates].astype(str), kind="stable")]
        _, first = np.unique(groups[ordered].astype(str), return_index=True)
        later = np.setdiff1d(np.arange(len(ordered)), first)
        found += [*ordered[np.sort(first)].tolist(), *ordered[later].tolist()]
    return np.array(found[:count], dtype=np.int64)


def compose(images: np.ndarray, channels: list[str], scale: np.ndarray) -> np.ndarray:
    """Colour pictures (n, H, W, 3) in [0, 1] from images (n, C, H, W): each channel in its colour, added up."""
    spare = [name for name in COLOURS if name not in channels]
    out = np.zeros((len(images), *images.shape[2:], 3))
    for index, name in enumerate(channels):
        colour = (
            COLOURS["grey"] if len(channels) == 1 else COLOURS.get(name.lower(), COLOURS[spare[index % len(spare)]])
        )
        out += np.clip(images[:, index, :, :, None] / scale[index], 0, 1) * np.array(colour)
    return np.clip(out, 0, 1)


def brightest(rows: list[Row], channels: int) -> np.ndarray:
    """The value of each channel that is shown as full brightness (C,): the 99.8th percentile of the real images."""
    shown = [row.real for row in rows if len(row.real)] or [row.generated for row in rows]
    values = [np.concatenate([images[:, c].ravel() for images in shown]) for c in range(channels)]
    return np.array([max(1.0, float(np.percentile(value, 99.8))) for value in values])


def strip(pictures: np.ndarray, count: int) -> np.ndarray:
    """Tiles side by side with a transparent edge, RGBA (H, W, 4) in 8 bits; missing tiles stay transparent."""
    size = pictures.shape[1]
    shrink = -(-size // LARGEST_TILE)
    if shrink > 1:
        kept = size // shrink * shrink
        blocks = pictures[:, :kept, :kept].reshape(len(pictures), kept // shrink, shrink, kept // shrink, shrink, 3)
        pictures = blocks.mean(axis=(2, 4))
        size = kept // shrink
    out = np.zeros((size, count * (size + EDGE) - EDGE, 4), dtype=np.uint8)
    for index, picture in enumerate(pictures[:count]):
        start = index * (size + EDGE)
        out[:, start : start + size, :3] = np.rint(picture * 255)
        out[:, start : start + size, 3] = 255
    return out


def draw_panel(rows: list[Row], channels: list[str], settings: dict[str, Any]) -> Figure:
    """All rows: a colour strip and a protein strip, real on the left, generated on the right."""
    count, protein = settings["per_class"], protein_index(channels, settings["protein_channel"])
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
    scale = brightest(rows, len(channels)) if rows else np.ones(len(channels))
    for line, row in enumerate(rows):
        top = 0.3 + line * pitch
        fig.text(0, 1 - (top + 0.04) / fig.get_figheight(), _wrap(row.title), va="top", fontsize=7.5, linespacing=1.15)
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
            _show(figures.inches(fig, start, top, half, tile), strip(compose(images, channels, scale), count))
            if double:
                grey = np.clip(images[:, protein] / scale[protein], 0, 1)[..., None].repeat(3, axis=-1)
                _show(figures.inches(fig, start, top + tile, half, tile), strip(grey, count))
    return fig


def protein_index(channels: list[str], name: str) -> int:
    """Which channel is shown alone: the one named in the settings, or the second (the Human Protein Atlas's order)."""
    if name in channels:
        return channels.index(name)
    stage.log.warning("report.panels.protein_channel %r is no channel of the images (%s)", name, ", ".join(channels))
    return min(1, len(channels) - 1)


def _show(axes: Axes, picture: np.ndarray) -> None:
    axes.imshow(picture, interpolation="none", aspect="auto")
    axes.axis("off")


def _wrap(title: str) -> str:
    lines: list[str] = []
    for word in title.replace(" + ", " +\x00").split("\x00"):
        for piece in word.split(" "):
            if lines and len(lines[-1]) + len(piece) < 18 and not lines[-1].endswith("+"):
                lines[-1] += f" {piece}"
            else:
                lines.append(piece if len(piece) <= 19 else piece[:18] + "…")
    return "\n".join(lines[:6])


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
