"""Fingerprints of images and of names: short digests by which two laboratories can tell that they have the same ones.

A fingerprint holds nothing of an image. That of a name can be guessed by whoever has a list of names."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from workflow_scripts.lib.images import grouping
from workflow_scripts.lib.images.image_set import ImageSet
from workflow_scripts.lib.images.known_datasets import SOURCES

BYTES = 8  # of a fingerprint: among a million images, two are alike by chance with a probability of 3e-8
BLOCK = 1024  # images in memory at a time


@dataclass(frozen=True)
class Fingerprints:
    """Fingerprints of images and of the names of their groups, each sorted and once."""

    images: np.ndarray  # uint8 (n, 8)
    groups: np.ndarray  # uint8 (g, 8)

    def joined(self, other: Fingerprints) -> Fingerprints:
        """Those of both."""
        pairs = ((self.images, other.images), (self.groups, other.groups))
        return Fingerprints(*(_distinct(np.concatenate(pair)) for pair in pairs))


def of_rows(source: ImageSet, rows: np.ndarray) -> Fingerprints:
    """Fingerprints of some images of a set, and of the names of their groups."""
    names, owner = of_groups(source)
    return Fingerprints(_distinct(of_images(source, rows)), _distinct(names[np.isin(owner, rows)]))


def of_groups(source: ImageSet) -> tuple[np.ndarray, np.ndarray]:
    """Fingerprints of the names by which groups are known, uint8 (m, 8), and the image (m,) that has each.

    Such a name is a value of a column that groups rest on, like a gene. That of the group itself tells the row of an
    image, so another set has another one. Simulated proteins of two sets have the same names and nothing else in
    common."""
    known = source.digest if source.attrs.get("source") == SOURCES["simulated"].origin else ""
    names, owner = [], []
    for column in source.group_columns():
        for row, value in enumerate(source.column(column)):
            if value:
                names.append(f"{known} {column} {grouping.spelled(value)}")
                owner.append(row)
    return of_names(names), np.array(owner, dtype=np.int64)


def of_images(source: ImageSet, rows: np.ndarray) -> np.ndarray:
    """A fingerprint of the pixels of each of these images, uint8 (n, 8)."""
    found = [
        _digest(image.tobytes())
        for start in range(0, len(rows), BLOCK)
        for image in source.read(rows[start : start + BLOCK], "inspect", labels=False).images
    ]
    return np.array(found, dtype=np.uint8).reshape(-1, BYTES)


def of_names(names: Iterable[str]) -> np.ndarray:
    """A fingerprint of each name, uint8 (n, 8)."""
    return np.array([_digest(str(name).encode()) for name in names], dtype=np.uint8).reshape(-1, BYTES)


def contained(values: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Which fingerprints (n, 8) are among the known ones (m, 8): bool (n,)."""
    return np.isin(_numbers(values), _numbers(known))


def _digest(content: bytes) -> list[int]:
    return list(hashlib.blake2b(content, digest_size=BYTES).digest())


def _numbers(values: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(values, dtype=np.uint8).view(np.uint64).ravel()


def _distinct(values: np.ndarray) -> np.ndarray:
    return np.unique(values, axis=0).reshape(-1, BYTES)
