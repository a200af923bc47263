"""First look at a folder of images: the headers of all files, and the pixels of so many images as seconds allow.

How many images are read depends on their size alone, so that two looks at a folder see the same."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from workflow_scripts.lib.images import decode, duplicates
from workflow_scripts.lib.images.invalid_input import Fault
from workflow_scripts.lib.images.planes import Unusable
from workflow_scripts.lib.images.read_image import Reader

FEWEST, MOST = 100, 2000  # images whose pixels are read
PIXELS = 3e8  # of all files that are read together: seconds of decoding


@dataclass
class Preview:
    """What the files of some images hold."""

    bad: list[Fault]  # of all images; an image that was not read is known by the headers of its files
    rows: np.ndarray  # int64 (n,), images that were read without a fault
    images: np.ndarray  # uint8 (n, C, H, W)
    sizes: Counter[tuple[int, int]]  # width and height of the files by their headers
    raw: np.ndarray  # uint16 (n, C, H, W), of these images: intensities as in the files
    present: np.ndarray  # bool (N, C), of all images, as far as their headers tell: channels whose file is there

    @property
    def grids(self) -> np.ndarray:
        """Mean brightness on a grid (n, C, 8, 8), for finding near-duplicates."""
        return duplicates.grid_means(self.images)


def look(reader: Reader, ids: Sequence[str], pixel_sizes: Sequence[str], threads: int) -> Preview:
    """Headers of all images, and pixels of some, evenly spaced over the table."""
    sizes: Counter[tuple[int, int]] = Counter()
    reader.keeps_raw = True
    present = np.ones((len(ids), len(reader.channels)), dtype=bool)
    with ThreadPoolExecutor(max(1, threads)) as pool:
        headers = list(pool.map(lambda name: _headers(reader, name), ids))
        for row, (_, seen, absent) in enumerate(headers):
            sizes.update(seen)
            present[row] = [name not in absent for name in reader.channels]
        chosen = sample(len(ids), sizes, len(reader.files("{id}")) if ids else 1)
        read = list(pool.map(lambda row: reader.look(ids[row], pixel_sizes[row]), chosen.tolist()))
    unread = sorted(set(range(len(ids))) - set(chosen.tolist()))
    bad = [fault for row in unread for fault in headers[row][0]] + [fault for each in read for fault in each.bad]
    usable = [(row, each) for row, each in zip(chosen.tolist(), read, strict=True) if each.pixels is not None]
    for row, each in zip(chosen.tolist(), read, strict=True):
        present[row] = each.present
    shape = (0, len(reader.channels), reader.size, reader.size)
    images = np.stack([each.pixels for _, each in usable]) if usable else np.zeros(shape, dtype=np.uint8)
    raw = np.stack([each.raw for _, each in usable]) if usable else np.zeros(shape, dtype=np.uint16)
    return Preview(bad, np.array([row for row, _ in usable], dtype=np.int64), images, sizes, raw, present)


def sample(count: int, sizes: Counter[tuple[int, int]], files: int) -> np.ndarray:
    """Rows of the images whose pixels are read, from the sizes of files and their number for each image."""
    (width, height), _ = sizes.most_common(1)[0] if sizes else ((1, 1), 0)
    affordable = min(MOST, max(FEWEST, int(PIXELS / (width * height * files))))
    return np.unique(np.linspace(0, count - 1, min(count, affordable)).astype(np.int64))


def _headers(reader: Reader, name: str) -> tuple[list[Fault], list[tuple[int, int]], list[str]]:
    """Faults that the headers of an image's files show, the sizes that they name, and channels without a file."""
    bad, sizes, absent, files = [], [], [], reader.files(name)
    for file, channels in files.items():
        path = reader.folder / file
        try:
            if not path.is_dir() and not path.stat().st_size:
                bad.append(Fault(name, file, "empty file", "is empty (0 bytes)"))
            elif (size := decode.size(path)) is not None:
                sizes.append(size)
        except FileNotFoundError:
            bad.append(Fault(name, file, "missing file", "is missing"))
            absent += channels
        except (OSError, ValueError, Unusable):
            continue  # the reader says what is wrong
    return reader.settled(name, bad), sizes, absent
