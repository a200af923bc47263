"""Choices of the declared analysis: levels, primary metrics and threshold rules, as the config's schema names them."""

from __future__ import annotations

LEVELS = ("image", "protein")  # what a scored row is
METRICS = ("macro_f1", "map")  # averages that may be primary
# What an interval speaks of: trainings on these proteins, or on other proteins too (training_variance.py).
THESE_PROTEINS, OTHER_PROTEINS = "these_proteins", "other_proteins"
CLAIMS = (THESE_PROTEINS, OTHER_PROTEINS)
RULES = ("calibrated", "pooled", "half", "half_or_largest")  # how probabilities become decisions: thresholds.Rule
