"""Decisions and scores of the reference study: threshold 0.5, most probable class where none passes, macro-F1."""

from __future__ import annotations

import numpy as np

from workflow_scripts.lib.scores.decisions import at_least_one, probabilities
from workflow_scripts.lib.scores.f1 import f1_score


def study_decisions(scores: np.ndarray, logits: np.ndarray) -> np.ndarray:
    """Decisions bool (n, K) at 0.5, with the most probable class where none passes; logits break ties of scores."""
    return at_least_one(scores >= 0.5, logits)


def macro_f1(decided: np.ndarray, labels: np.ndarray, classes: np.ndarray | None = None) -> float:
    """Mean F1 over the classes (bool (K,); None: those that occur) of decisions and labels (n, K)."""
    truth = labels.astype(bool)
    chosen = truth.any(axis=0) if classes is None else classes
    values = f1_score((decided & truth).sum(0), decided.sum(0), truth.sum(0))
    return float(values[chosen].mean()) if chosen.any() else 0.0


def from_logits(logits: np.ndarray, labels: np.ndarray) -> float:
    """Macro-F1 of logits (n, K) as the study decides and scores."""
    return macro_f1(study_decisions(probabilities(logits), logits), labels)
