"""Choices of the declared analysis: levels, primary metrics and threshold rules, as the config's schema names them."""

from __future__ import annotations

LEVELS = ("image", "protein")  # what a scored row is
METRICS = ("macro_f1", "map")  # averages that may be primary
RULES = ("calibrated", "pooled", "half", "half_or_largest")  # how probabilities become decisions: thresholds.Rule
