"""Training checkpoints, each valid for exactly one task, kept beside the output until the task is done."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import torch

from workflow_scripts.lib.base.errors import UserError, raise_if_passing
from workflow_scripts.lib.base.files import atomic, sweep
from workflow_scripts.lib.base.stage import log

# Seconds between checkpoints. No setting of the run, because it depends on the machine and changes no result.
VARIABLE, DEFAULT_SECONDS = "MIXLOC_CHECKPOINT_SECONDS", 20.0


class Resume:
    """Checkpoint at `path` of the task with this digest (of its arguments, inputs and code).

    Snakemake deletes declared outputs before a job, so this file is not declared."""

    def __init__(self, path: Path, digest: str) -> None:
        self.path, self.digest = Path(path), digest
        self._every, self._saved_at = _interval(), time.monotonic()

    def due(self) -> bool:
        """Whether enough time has passed since the last checkpoint, or since the start."""
        return time.monotonic() - self._saved_at >= self._every

    def load(self) -> dict[str, Any] | None:
        """Saved state, or None where there is none for this very task; logs which."""
        if not self.path.exists():
            return None
        try:
            saved = torch.load(self.path, map_location="cpu", weights_only=True)
            made_for, state = saved["digest"], saved["state"]
        except Exception as error:
            raise_if_passing(error)
            log.warning("%s cannot be read (%s): starting afresh", self.path, type(error).__name__)
            return None
        if made_for != self.digest:
            log.warning("%s belongs to other settings, data or code: starting afresh", self.path)
            return None
        log.info("going on from %s", self.path)
        return state

    def save(self, state: dict[str, Any]) -> None:
        """Replace the checkpoint atomically: a kill leaves the old one or the new one."""
        with atomic(self.path) as part:
            torch.save({"digest": self.digest, "state": state}, part)
        self._saved_at = time.monotonic()

    def clear(self) -> None:
        """Remove the checkpoint: the task is done."""
        self.path.unlink(missing_ok=True)
        if self.path.parent.is_dir():
            sweep(self.path)


def _interval() -> float:
    text = os.environ.get(VARIABLE, "")
    try:
        seconds = float(text) if text else DEFAULT_SECONDS
    except ValueError:
        raise UserError(f"{VARIABLE} = {text!r} is no number of seconds") from None
    return seconds
