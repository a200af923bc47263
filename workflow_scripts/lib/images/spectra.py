"""Image descriptors without a network, and degraded real images that serve as ceilings of every distance.

Descriptors of one image: radial power spectrum of each channel, and correlations between channels. Degraded images:
noise of the same brightness; blurred; and with random phases of the Fourier transform. Random phases keep the power
spectrum and the correlations of channels, and destroy all shape (Prichard and Theiler 1994)."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from scipy.ndimage import gaussian_filter

from workflow_scripts.lib.images.image_set import channel_moments

PIXELS = 2**21  # of images that are transformed at a time: 512 images of four channels and 32 px
BLUR = 16  # the standard deviation of the blur is the side of the image divided by this


def _blocks(images: np.ndarray) -> Iterator[slice]:
    """Rows of images that are transformed together."""
    rows = max(1, PIXELS // max(1, int(np.prod(images.shape[1:]))))
    return (slice(start, start + rows) for start in range(0, len(images), rows))


def power_curves(images: np.ndarray) -> np.ndarray:
    """Radial power spectra in decibel, float32 (n, C · rings), of images uint8 (n, C, s, s).

    The mean is subtracted, as it is no frequency. A Hann window suppresses the spectral leakage of the edges."""
    side = images.shape[-1]
    window = np.outer(np.hanning(side + 2)[1:-1], np.hanning(side + 2)[1:-1]).astype(np.float32)
    radius = np.hypot(np.fft.fftfreq(side)[:, None], np.fft.rfftfreq(side)[None]) * side
    ring = np.rint(radius).astype(int)
    rings = side // 2
    # rfft2 computes half a spectrum; the other half mirrors it, so inner columns count twice.
    twice = np.full(ring.shape, 2.0)
    twice[:, 0] = 1.0
    if side % 2 == 0:
        twice[:, -1] = 1.0
    sums = np.stack([((ring == r) * twice).ravel() for r in range(1, rings + 1)], axis=1)
    sums = (sums / sums.sum(axis=0)).astype(np.float32)
    # Eight bits round with a variance of 1/12 grey level: without it a black image would have minus infinite decibel.
    floor = (window**2).sum() / 12 / 255**2
    out = np.empty((len(images), images.shape[1] * rings), dtype=np.float32)
    for rows in _blocks(images):
        block = images[rows].astype(np.float32) / 255
        block -= block.mean(axis=(2, 3), keepdims=True)
        power = np.abs(np.fft.rfft2(block * window)) ** 2
        curves = power.reshape(*block.shape[:2], -1).astype(np.float32) @ sums
        out[rows] = 10 * np.log10(curves + floor).reshape(len(block), -1)
    return out


def channel_links(images: np.ndarray) -> np.ndarray:
    """Correlations of each pair of channels within an image, float32 (n, C (C - 1) / 2); 0 where a channel is flat."""
    count, channels = images.shape[:2]
    upper = np.triu_indices(channels, 1)
    out = np.zeros((count, len(upper[0])), dtype=np.float32)
    for rows in _blocks(images) if len(upper[0]) else ():
        flat = images[rows].reshape(-1, channels, images[0, 0].size).astype(np.float32)
        flat -= flat.mean(axis=2, keepdims=True)
        length = np.sqrt((flat**2).sum(axis=2, keepdims=True))
        flat /= np.where(length > 0, length, 1)
        out[rows] = (flat @ flat.transpose(0, 2, 1))[:, upper[0], upper[1]]
    return out


def noise(images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """White noise with the mean and standard deviation of each channel."""
    mean, std = (value.astype(np.float32)[:, None, None] for value in channel_moments(images))
    out = np.empty_like(images)
    for rows in _blocks(images):
        drawn = rng.standard_normal(images[rows].shape, dtype=np.float32)
        out[rows] = _bytes(drawn * std + mean)
    return out


def blurred(images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Images after a Gaussian blur."""
    sigma, out = images.shape[-1] / BLUR, np.empty_like(images)
    for rows in _blocks(images):
        block = images[rows].astype(np.float32)
        out[rows] = _bytes(gaussian_filter(block, (0, 0, sigma, sigma), mode="reflect"))
    return out


def phase_randomised(images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Images with the Fourier phases of noise added, the same in all channels."""
    out = np.empty_like(images)
    for rows in _blocks(images):
        block = images[rows].astype(np.float32)
        # The transform of real noise has the Hermitian symmetry that keeps the result real. The mean is unchanged.
        turn = np.fft.rfft2(rng.standard_normal((len(block), 1, *block.shape[2:])))
        turn /= np.maximum(np.abs(turn), 1e-12)
        turn[:, :, 0, 0] = 1
        out[rows] = _bytes(np.fft.irfft2(np.fft.rfft2(block) * turn, s=block.shape[2:]))
    return out


def _bytes(values: np.ndarray) -> np.ndarray:
    return np.rint(values).clip(0, 255).astype(np.uint8)


# name -> function(images, rng): images that every distance should rate as bad
CEILINGS: dict[str, Callable[[np.ndarray, np.random.Generator], np.ndarray]] = {
    "noise": noise,
    "blurred": blurred,
    "phase": phase_randomised,
}
