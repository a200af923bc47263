"""Registry of corruptions: what can go wrong under the microscope, each at five strengths.

A new one is a function in `corruptions.py` and an entry here. Read before any job starts: neither numpy nor torch."""

from __future__ import annotations

from dataclasses import dataclass

from workflow_scripts.lib.base.registry import Registry

LEVELS = 5  # strengths of each corruption; 0 is the image as it is
CLEAN = "none"  # the name of no corruption


@dataclass(frozen=True)
class CorruptionFacts:
    """Facts about a corruption that are needed before an image is read."""

    about: str
    strengths: tuple[float, float, float, float, float]  # weakest first
    unit: str  # what a strength is
    channels: int = 1  # fewest channels that it acts on


CORRUPTIONS = Registry(
    "corruption",
    {
        "defocus": CorruptionFacts(
            "Gaussian blur", (0.01, 0.02, 0.03, 0.045, 0.06), "deviation, as a fraction of the image's side"
        ),
        "shot_noise": CorruptionFacts(
            "Poisson noise of few photons", (200, 80, 30, 12, 5), "photons in a pixel of full brightness"
        ),
        "weak_staining": CorruptionFacts(
            "one channel of each image, drawn at random, keeps a part of its signal",
            (0.7, 0.5, 0.35, 0.2, 0.1),
            "fraction that is kept",
        ),
        "illumination_gradient": CorruptionFacts(
            "brightness rises along a random direction",
            (0.15, 0.3, 0.45, 0.6, 0.75),
            "gain half a side from the middle, less 1",
        ),
        "bleed_through": CorruptionFacts(
            "each channel also shows a part of the next one", (0.1, 0.2, 0.35, 0.5, 0.7), "fraction that is added", 2
        ),
        "intensity_scale": CorruptionFacts(
            "an image is brighter or darker as a whole, by a random sign",
            (0.15, 0.3, 0.5, 0.75, 1.0),
            "logarithm of the gain",
        ),
    },
)


def wanted(names: str | list[str], channels: int) -> list[str]:
    """The corruptions that `names` means for images of so many channels: those listed, or all that act on them."""
    if names == "all":
        return [name for name, facts in CORRUPTIONS.items() if facts.channels <= channels]
    return list(names)


def conditions(names: list[str]) -> list[tuple[str, int]]:
    """Every corruption at every level from 1 on, as (name, level)."""
    return [(name, level) for name in names for level in range(1, LEVELS + 1)]
