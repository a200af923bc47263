"""What the file of a generator says about itself, read without its weights, and whether it suits a run.

Imported by the Snakefile at every start, so it must stay light: no torch, no numpy, no safetensors."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

LARGEST = 100_000_000  # bytes of a header, as safetensors allows
# Keys that decide what the weights mean. Those of its training may be others when it is trained on.
SAME = (
    "network", "widths", "blocks", "patch", "attention", "objective", "noise_level", "weighting", "pixels", "labels",
    "condition_on", "reference_channels",
)  # fmt: skip
# What these keys are where they are left out.
LEFT_OUT = {"attention": False, "weighting": "plain"}
# What a network has been shown, and what it is where it is left out. Of one that is not trained on, the file says it.
SHOWN = {"label_dropout": 0, "reference_fraction": 0, "turn_images": False}


@dataclass(frozen=True)
class Header:
    """What the file of a generator says about itself."""

    settings: dict[str, Any]
    channels: list[str]
    classes: list[str]
    size: int
    digest: str


def read(path: Path) -> Header:
    """The header of a generator's file; ValueError or OSError where it is none."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if not 2 <= length <= min(LARGEST, path.stat().st_size - 8):
            raise ValueError("it is no safetensors file")
        text = file.read(length)
    try:
        about = {name: json.loads(value) for name, value in json.loads(text)["__metadata__"].items()}
        found = Header(*(about[name] for name in ("settings", "channels", "classes", "size", "digest")))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise ValueError("it is no generator that MixLoc has written") from None
    texts = [*found.channels, *found.classes] if isinstance(found.channels + found.classes, list) else [None]
    whole = isinstance(found.settings, dict) and isinstance(found.size, int) and isinstance(found.digest, str)
    if not whole or not all(isinstance(one, str) for one in texts):
        raise ValueError("it is no generator that MixLoc has written")
    return found


def problem(found: Header, generator: dict[str, Any], size: int, channels: list[str]) -> str | None:
    """Why a generator with these settings cannot come from that file, in one line; None where it can."""
    for key in SAME:
        own, other = (settings.get(key, LEFT_OUT.get(key)) for settings in (generator, found.settings))
        if own != other:
            return f"{key} is {_shown(own)}, and {_shown(other)} in the file that it comes from: leave the key out"
    asked, taken = (settings.get("reference_fraction", 0) > 0 for settings in (generator, found.settings))
    if asked != taken:
        return f"reference_fraction must {'be 0' if asked else 'be above 0'}, as in the file that it comes from"
    for key, default in SHOWN.items() if not generator.get("steps") else ():
        own, other = (settings.get(key, default) for settings in (generator, found.settings))
        if own != other:
            return (
                f"{key} is {_shown(own)}, and {_shown(other)} in the file that is sampled as it is: leave the key out"
            )
    if found.channels != channels:
        return (
            f"it comes from a generator of the channels {', '.join(found.channels)}, and "
            f"preprocess_images.channels are {', '.join(channels)}: the same ones in the same order are needed"
        )
    if found.size != size:
        return f"it comes from a generator of images of {found.size} px, and preprocess_images.size is {size}"
    return None


def unknown_classes(found: Header, classes: list[str]) -> str | None:
    """Which classes of a run that file does not know, in one line; None where it knows all. It may know more."""
    absent = [name for name in classes if name not in found.classes]
    if not absent:
        return None
    more = f" (and {len(absent) - 1} more)" if len(absent) > 1 else ""
    return (
        f"it comes from a generator that does not know the class {absent[0]!r}{more}; it knows "
        f"{', '.join(found.classes)}: leave the class out or rename it (data.label_map)"
    )


def _shown(value: Any) -> str:
    return "left out" if value is None else json.dumps(value)
