"""The config that tests vary, and overlays of it, checked as Snakemake would check them."""

from __future__ import annotations

import copy
from pathlib import Path

import yaml

from workflow_scripts.lib.config import check

ROOT = Path(__file__).resolve().parents[2]
SHIPPED = yaml.safe_load((ROOT / "config.yaml").read_text(encoding="utf-8"))


def overlaid(base: object, overlay: object) -> object:
    """As Snakemake lays one config over another: mappings merge, everything else is replaced."""
    if isinstance(base, dict) and isinstance(overlay, dict):
        return base | {key: overlaid(base.get(key), value) for key, value in overlay.items()}
    return copy.deepcopy(overlay)


# More arms, generators and sets than the default has.
MIXING = yaml.safe_load((ROOT / "presets/mixing.yaml").read_text(encoding="utf-8"))
DEFAULT = overlaid(SHIPPED, MIXING | {"run": SHIPPED["run"]})


def checked(overlay: dict) -> dict:
    return check.check(overlaid(DEFAULT, overlay))


def arm(name: str, **changes: object) -> dict:
    """The default arms with one entry changed; a value of None takes the key out."""
    entries = copy.deepcopy(DEFAULT["arms"])
    entry = next(entry for entry in entries if entry["name"] == name)
    for key, value in changes.items():
        entry.pop(key, None)
        if value is not None:
            entry[key] = value
    return {"arms": entries}


def synthetic_set(**changes: object) -> dict:
    return {"synthetic_sets": [DEFAULT["synthetic_sets"][0] | changes, *DEFAULT["synthetic_sets"][1:]]}


def generator(**changes: object) -> dict:
    return {"generators": [DEFAULT["generators"][0] | changes, *DEFAULT["generators"][1:]]}


def own_images(tmp_path: Path, **data: object) -> dict:
    """A config for images of one's own."""
    (tmp_path / "labels.csv").touch()
    return checked(
        {"data": {"source": "folder", "images": str(tmp_path), "table": str(tmp_path / "labels.csv")} | data}
    )
