"""Images of the gallery: which generated and which real ones it shows, and what is known of each.

Real images are those of train parts. All others stay out: a person who looks at test images before the verdict could
choose arms or settings by them. Where there are too many images, a sample is drawn by the seed, as evenly over sets,
folds and classes as there are images."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from workflow_scripts.lib.base.errors import UserError
from workflow_scripts.lib.images.image_set import ImageSet
from workflow_scripts.lib.split.roles import Role

Roles = dict[tuple[int, int], np.ndarray]  # (repeat, fold) -> roles (n,) of the real images
COLUMNS = ("generated", "agreement_baseline", "agreement_judge", "nearest", "turn", "ratio", "authentic")
BLOCK = 512  # images in memory at full size


@dataclass(frozen=True)
class Source:
    """A synthetic set of one fold, and the table of its images (assess_synthetic)."""

    synthetic_set: str
    repeat: int
    fold: int
    path: Path
    each: Path

    def reference_channels(self) -> list[str]:
        """Channels that the set took from training images, which are left out where the nearest one is looked for."""
        with ImageSet(self.path) as made:
            return json.loads(made.attrs.get("synthetic_set", "{}")).get("reference_channels") or []


@dataclass(frozen=True)
class Gallery:
    """Images that are shown, a row an image, and how many there were to choose from.

    `made` has the columns source, row, labels, reference, and those of assess_synthetic; `nearest` and `reference` are
    ids of real images. `real` has row, id, labels, and places: the folds whose train part has the image, by number."""

    made: pd.DataFrame
    real: pd.DataFrame
    made_of: int
    real_of: int


def choose(real: ImageSet, roles: Roles, sources: list[Source], most: int, rng: np.random.Generator) -> Gallery:
    """At most `most` images, of which half or more are generated where there are as many."""
    made = pd.concat([_generated(number, source, real) for number, source in enumerate(sources)], ignore_index=True)
    known = _train(real, roles)
    quota = max(most // 2, most - len(known))
    rarest = _rarest(made["labels"], len(real.classes))
    kept = made.iloc[np.sort(_evenly([made["source"], rarest], rng)[:quota])].reset_index(drop=True)
    # What stands beside a generated image comes first.
    wanted = np.full(len(known), 2)
    wanted[known["id"].isin(kept["reference"])] = 1
    wanted[known["id"].isin(kept["nearest"])] = 0
    order = _evenly([_rarest(known["labels"], len(real.classes))], rng)
    order = order[np.argsort(wanted[order], kind="stable")]
    beside = known.iloc[np.sort(order[: most - len(kept)])].reset_index(drop=True)
    return Gallery(kept, beside, len(made), len(known))


def pixels(gallery: Gallery, real: ImageSet, sources: list[Source], largest: int) -> np.ndarray:
    """Images uint8 (n, C, t, t), generated ones first, averaged down to at most `largest` pixels a side."""
    parts = []
    for number, source in enumerate(sources):
        rows = gallery.made.loc[gallery.made["source"] == number, "row"].to_numpy()
        with ImageSet(source.path) as made:
            parts += [shrunk(part, largest) for part in _read(made, rows)]
    parts += [shrunk(part, largest) for part in _read(real, gallery.real["row"].to_numpy())]
    return np.concatenate(parts)


def shrunk(images: np.ndarray, largest: int) -> np.ndarray:
    """Images uint8 (n, C, s, s), averaged down by a whole factor to at most `largest` pixels a side."""
    factor = -(-images.shape[-1] // largest)
    if factor == 1:
        return images
    kept = images.shape[-1] // factor * factor
    count, channels, side = *images.shape[:2], kept // factor
    blocks = images[..., :kept, :kept].reshape(count, channels, side, factor, side, factor)
    return np.rint(blocks.mean(axis=(3, 5))).astype(np.uint8)


def _read(images: ImageSet, rows: np.ndarray) -> list[np.ndarray]:
    blocks = (rows[start : start + BLOCK] for start in range(0, len(rows), BLOCK))
    return [images.read(block, "inspect", labels=False).images for block in blocks]


def _generated(number: int, source: Source, real: ImageSet) -> pd.DataFrame:
    with ImageSet(source.path) as made:
        if (made.channels, made.classes, made.size) != (real.channels, real.classes, real.size):
            raise UserError(f"{source.path} is unlike the real images: delete it and run again")
        labels = _named(made.labels(None, "inspect"))
        ids, columns = made.ids, made.columns()
        references = made.column("reference") if "reference" in columns else np.full(len(made), "")
    table = pd.read_csv(source.each, dtype={"generated": str, "nearest": str})
    if not set(COLUMNS) <= set(table) or table["generated"].tolist() != ids.tolist():
        raise UserError(f"{source.each} is no table of the images of {source.path}: delete it and run again")
    table = table[list(COLUMNS)]
    return table.assign(source=number, row=np.arange(len(ids)), labels=labels, reference=references.astype(str))


def _train(real: ImageSet, roles: Roles) -> pd.DataFrame:
    train = np.stack([values == Role.TRAIN for values in roles.values()], axis=1)  # (n, folds)
    rows = np.flatnonzero(train.any(axis=1))
    return pd.DataFrame(
        {
            "row": rows,
            "id": real.ids[rows].astype(str),
            "labels": _named(real.labels(rows, "inspect")),
            "places": [np.flatnonzero(train[row]).tolist() for row in rows],
        }
    )


def _named(labels: np.ndarray) -> list[list[int]]:
    return [np.flatnonzero(row).tolist() for row in labels]


def _rarest(labels: pd.Series, classes: int) -> np.ndarray:
    """The class of each image that fewest images have; -1 without any."""
    counts = np.bincount(np.concatenate([[], *labels]).astype(int), minlength=classes)
    return np.array([min(names, key=lambda name: (counts[name], name), default=-1) for names in labels], dtype=int)


def _evenly(strata: list[np.ndarray | pd.Series], rng: np.random.Generator) -> np.ndarray:
    """All positions in an order of which any beginning has as many of each stratum as there are, at random within."""
    keys = pd.DataFrame({number: np.asarray(values) for number, values in enumerate(strata)})
    order = rng.permutation(len(keys))
    rank = keys.iloc[order].groupby(list(keys.columns)).cumcount().to_numpy()
    return order[np.argsort(rank, kind="stable")]
