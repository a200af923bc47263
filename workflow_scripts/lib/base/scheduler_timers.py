"""Keeps Snakemake's scheduler from waking up ever more often in a long run.

Snakemake 9 limits the jobs of a timespan. So each time its scheduler has looked for jobs to start, it sets a timer for
the next look. Each job that ends makes it look too, and thereby adds a chain of timers that set one another. After 300
jobs it looks 300 times a second. One timer that is waiting is enough for all."""

from __future__ import annotations

import importlib
import threading
from typing import Any

MODULES = ("snakemake.scheduling.job_scheduler", "snakemake.scheduler")  # where Snakemake has it, or had it
HOOK = "_schedule_reevalutation"  # as Snakemake spells it


def mend() -> bool:
    """Let Snakemake's scheduler have one timer at a time; False where this version has none that is known here."""
    for name in MODULES:
        try:
            module = importlib.import_module(name)
        except ImportError:
            continue
        return one_at_a_time(module.JobScheduler)
    return False


def one_at_a_time(scheduler: type) -> bool:
    """Let this class of schedulers have one timer at a time; False, and nothing is changed, where it has none."""
    if not hasattr(scheduler, HOOK):
        return False
    lock, waiting = threading.Lock(), set[int]()

    def schedule(self: Any, delay: float) -> None:
        with lock:
            if id(self) in waiting:
                return
            waiting.add(id(self))

        def look() -> None:
            # First of all, so that the look which follows sets the next timer.
            with lock:
                waiting.discard(id(self))
            self._open_jobs.release()

        timer = threading.Timer(delay, look)
        timer.daemon = True  # the end of a run does not wait for it
        timer.start()

    setattr(scheduler, HOOK, schedule)
    return True
