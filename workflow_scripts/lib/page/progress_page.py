"""The page of a run in progress: results/{run}/progress.html, written by Snakemake's own process.

It is no output: nothing waits for it, and nothing is made again because of it. A run that trains nothing has none.
Large libraries are imported when the first page is written, because every start of Snakemake reads this module."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from workflow_scripts.lib.base import files
from workflow_scripts.lib.cost import time_left
from workflow_scripts.lib.cost.time_left import Watch

TRAIN = ("train_ddpm", "train_classifier")  # stages whose runs have a page
RUNNING, DONE, STOPPED = "running", "done", "stopped"
log = logging.getLogger("mixloc")


@dataclass
class ProgressPage:
    """The page of one run, which is written until the run ends."""

    folder: Path  # results/{run}
    template: Path
    about: dict[str, Any]  # run, generators, arms, colours, pixel_size
    watch: Watch | None = None
    state: str = RUNNING
    writing: threading.Lock = field(default_factory=threading.Lock)

    def start(self, logs: Iterable[str], cores: int | None, say: Callable[[str], None]) -> None:
        """Tell of the jobs with these logs; `cores` None: they run on other machines, whose clocks may differ."""
        logs = list(logs)
        trains = any(key.partition("/")[0] in TRAIN for key in time_left.keys_of(logs))
        if trains:
            self.watch = time_left.start(self.folder, logs, cores, say, self.show)
        elif cores is not None:
            time_left.start(self.folder, logs, cores, say)

    def show(self, watch: Watch, now: float) -> None:
        """Write the page anew."""
        from workflow_scripts.lib.page import html_page, progress_content

        with self.writing:
            told = progress_content.context(self.folder, watch, now, self.state, self.about)
            page = html_page.render(self.template.read_text(encoding="utf-8"), told)
            files.write_text(self.folder / "progress.html", page)

    def end(self, state: str) -> None:
        """Write the last page of the run: what became of it."""
        if self.watch is None:
            return
        self.state = state
        try:
            self.watch.look(time.time())
            self.show(self.watch, time.time())
        except Exception:
            log.debug("the last page of the progress was not written", exc_info=True)
