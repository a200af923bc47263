"""Small pictures of cells in rows: which images are shown, and how their channels become colours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes

from workflow_scripts.lib.images.colour_choices import colours_of, rgb

LARGEST_TILE = 64  # pixels a side; larger images are averaged down, or a page of them would weigh tens of megabytes
EDGE = 1  # empty pixels between tiles


def choose(labels: np.ndarray, target: np.ndarray, order: np.ndarray, groups: np.ndarray, count: int) -> np.ndarray:
    """The first `count` rows by `order` (ids, or drawn numbers) whose labels are exactly `target`, one of each group
    before any second one; then, where a class is never alone, rows that have the target among their labels."""
    exact = (labels == target).all(axis=1)
    holds = (labels[:, target > 0] > 0).all(axis=1)
    chosen: list[int] = []
    for candidates in (np.flatnonzero(exact), np.flatnonzero(holds & ~exact)):
        ordered = candidates[np.argsort(order[candidates], kind="stable")]
        _, first = np.unique(groups[ordered].astype(str), return_index=True)
        later = np.setdiff1d(np.arange(len(ordered)), first)
        chosen += [*ordered[np.sort(first)].tolist(), *ordered[later].tolist()]
    return np.array(chosen[:count], dtype=np.int64)


def compose(
    images: np.ndarray, channels: list[str], scale: np.ndarray, chosen: Mapping[str, str] | None = None
) -> np.ndarray:
    """Colour pictures (n, H, W, 3) in [0, 1] from images (n, C, H, W): each channel in its colour, added up.

    `chosen`: colours of the config, by channel."""
    out = np.zeros((len(images), *images.shape[2:], 3))
    for index, colour in enumerate(colours_of(channels, chosen)):
        out += np.clip(images[:, index, :, :, None] / scale[index], 0, 1) * np.array(rgb(colour))
    return np.clip(out, 0, 1)


def brightest(shown: Sequence[np.ndarray], channels: int) -> np.ndarray:
    """The value of each channel that is shown as full brightness (C,): the 99.8th percentile of images (n, C, H, W)."""
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


def grey(images: np.ndarray, index: int, scale: np.ndarray) -> np.ndarray:
    """Pictures (n, H, W, 3) in [0, 1] of one channel of images (n, C, H, W)."""
    return np.clip(images[:, index] / scale[index], 0, 1)[..., None].repeat(3, axis=-1)


def protein_index(channels: list[str], name: str) -> int:
    """Which channel is shown alone: the protein's, which the check of the config has found among the channels."""
    return channels.index(name)


def show(axes: Axes, picture: np.ndarray) -> None:
    """A strip of tiles without axes around it."""
    shown = axes.imshow(picture, interpolation="none", aspect="auto")
    # Without a name of its own it is named after its content, and the same image may stand twice in a figure.
    shown.set_gid(f"tiles{len(axes.figure.axes)}")
    axes.axis("off")


def wrap(title: str) -> str:
    """A row's title in short lines."""
    lines: list[str] = []
    for word in title.replace(" + ", " +\x00").split("\x00"):
        for piece in word.split(" "):
            if lines and len(lines[-1]) + len(piece) < 18 and not lines[-1].endswith("+"):
                lines[-1] += f" {piece}"
            else:
                lines.append(piece if len(piece) <= 19 else piece[:18] + "…")
    return "\n".join(lines[:6])
