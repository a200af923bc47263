"""Arm list of a job of train_classifier, job0.json: its arms and their files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from workflow_scripts.lib.base.errors import UserError, raise_if_passing

FILES = ("predictions", "classifier")  # relative to the list, so that results can be moved


def read(path: Path) -> list[dict[str, Any]]:
    """Entries of an arm list, at least one, with `predictions` and `classifier` as paths."""
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))["arms"]
        listed = [entry | {key: path.parent / entry[key] for key in FILES if key in entry} for entry in entries]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise_if_passing(error)
        raise UserError(f"{path} is no list of arms that can be read ({error}): delete it and run again") from None
    if not listed:
        raise UserError(f"{path} lists no arm: delete it and run again")
    return listed
