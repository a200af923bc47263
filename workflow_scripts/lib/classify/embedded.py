"""Embeddings of the images of an arm whose backbone takes these in place of pixels.

They come as images (n, D, 1, 1) of D channels and one pixel, so that everything after them works as for pixels:
batches, methods, predictions. They are standardised by the train part, as pixels are, and never augmented."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from workflow_scripts.lib.images import embedding_table
from workflow_scripts.lib.images.embedding_table import Embeddings
from workflow_scripts.lib.images.image_set import Part


@dataclass
class Embedded:
    """Files of embeddings: of the real images, and of the arm's synthetic set where it has one."""

    real_file: Path
    made_file: Path | None = None

    @cached_property
    def real(self) -> Embeddings:
        """Embeddings of the real images."""
        return embedding_table.read(self.real_file)

    @cached_property
    def made(self) -> Embeddings:
        """Embeddings of the synthetic images."""
        return embedding_table.read(self.made_file)

    @property
    def names(self) -> list[str]:
        """Names of the features, in the place of channels."""
        return [f"embedding{number}" for number in range(self.real.width)]

    def of(self, part: Part, synthetic: bool = False) -> np.ndarray:
        """Embeddings of the images of a part, float32 (n, D, 1, 1)."""
        return (self.made if synthetic else self.real).of(part.ids)[:, :, None, None]
