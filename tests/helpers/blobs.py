"""Smooth random images for the tests of distances between images."""

from __future__ import annotations

import numpy as np

from workflow_scripts.lib.images import spectra


def blobs(count: int, channels: int, side: int, seed: int) -> np.ndarray:
    """Smooth blobs: images in which neighbouring pixels go together, uint8 (n, C, s, s)."""
    rng = np.random.default_rng(seed)
    rough = rng.random((count, channels, side, side), dtype=np.float32)
    shared = rng.random((count, 1, side, side), dtype=np.float32)
    smooth = spectra.gaussian_filter(rough + 2 * shared, (0, 0, side / 12, side / 12), mode="wrap")
    smooth -= smooth.mean(axis=(2, 3), keepdims=True)
    return np.clip(128 + 40 * smooth / smooth.std(axis=(2, 3), keepdims=True), 0, 255).astype(np.uint8)
