"""Training checkpoints that belong to exactly one task, kept beside its output until it is done."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from workflow_scripts.lib.files import atomic
from workflow_scripts.lib.stage import log


class Resume:
    """The checkpoint at `path` of the task with this digest (of its arguments, inputs and code).

    Snakemake deletes declared outputs before a job, so the file is not declared to it."""

    def __init__(self, path: Path, digest: str) -> None:
        self.path, self.digest = Path(path), digest

    def load(self) -> dict[str, Any] | None:
        """The saved state, or None where there is none for this very task; says which."""
        if not self.path.exists():
            return None
        try:
            saved = torch.load(self.path, map_location="cpu", weights_only=True)
            found, state = saved["digest"], saved["state"]
        except Exception as error:
            log.warning("%s cannot be read (%s): starting afresh", self.path, type(error).__name__)
            return None
        if found != self.digest:
            log.warning("%s belongs to other settings, data or code: starting afresh", self.path)
            return None
        log.info("going on from %s", self.path)
        return state

    def save(self, state: dict[str, Any]) -> None:
        """Replace the checkpoint; a kill at any moment leaves the old one or the new one."""
        with atomic(self.path) as part:
            torch.save({"digest": self.digest, "state": state}, part)

    def clear(self) -> None:
        """Remove the checkpoint: the task is done."""
        self.path.unlink(missing_ok=True)
