"""Probabilities from logits, and decisions that name a class for every image.

Training, judge, replay and submissions share these two rules. Thresholds are fitted elsewhere."""

from __future__ import annotations

import numpy as np
from scipy.special import expit


def probabilities(logits: np.ndarray) -> np.ndarray:
    """Sigmoid of logits (n, K) in float64: small probabilities keep their order down to the smallest."""
    return expit(logits.astype(np.float64))


def at_least_one(decided: np.ndarray, ranking: np.ndarray) -> np.ndarray:
    """Decisions bool (n, K), with the class of highest `ranking` (n, K) in rows where no class was decided."""
    out = decided.copy()
    silent = np.flatnonzero(~out.any(axis=1))
    out[silent, ranking[silent].argmax(axis=1)] = True
    return out
