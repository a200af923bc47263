"""Values of columns such as the cell line, as a generator is told them. Knows nothing of what images are asked for."""

from __future__ import annotations

import numpy as np
import torch

from workflow_scripts.lib.images.image_set_layout import COMPLETE, MISSING


def known_values(values: np.ndarray) -> list[list[str]]:
    """The values (N, C) that occur in each column, without the empty one, which means that it is unknown."""
    return [sorted({str(value) for value in column} - {""}) for column in values.T]


def one_hot(values: np.ndarray, known: list[list[str]]) -> np.ndarray:
    """Values (n, C) as float32 (n, V), a block a column; an unknown value is all zeros."""
    blocks = [column[:, None] == np.array(own, dtype=object) for column, own in zip(values.T, known, strict=True)]
    return np.concatenate(blocks, axis=1).astype(np.float32)


def of_whole_images(known: dict[str, list[str]] | None) -> torch.Tensor | None:
    """What is told of an image that lacks no channel (1, V), and of whose other columns nothing is known; None where no
    column is known at all. `known` are the values of each column."""
    if not known:
        return None
    told = [column == MISSING and value == COMPLETE for column, values in known.items() for value in values]
    return torch.tensor([told], dtype=torch.float32)
