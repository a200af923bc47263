"""Snakemake's scheduler is woken once a second, however many jobs have ended."""

from __future__ import annotations

import threading
import time

from snakemake.scheduling.job_scheduler import JobScheduler

from workflow_scripts.lib.base import scheduler_timers


class Scheduler:
    """As Snakemake's, with what its timers use."""

    def __init__(self) -> None:
        self._open_jobs = threading.Semaphore(0)

    def _schedule_reevalutation(self, delay: float) -> None:
        threading.Timer(delay, self._open_jobs.release).start()

    def woken(self) -> int:
        """How often it was woken since it was last asked."""
        count = 0
        while self._open_jobs.acquire(blocking=False):
            count += 1
        return count


def test_many_looks_set_one_timer() -> None:
    class Mended(Scheduler):
        pass

    assert scheduler_timers.one_at_a_time(Mended)
    first, second = Mended(), Mended()
    for _ in range(20):
        first._schedule_reevalutation(1)
    second._schedule_reevalutation(1)
    assert all(one._open_jobs.acquire(timeout=30) for one in (first, second))
    time.sleep(0.3)
    assert (first.woken(), second.woken()) == (0, 0), "one timer each"
    # The look that a timer has brought about sets the next one.
    first._schedule_reevalutation(0.05)
    assert first._open_jobs.acquire(timeout=5)


def test_snakemake_has_what_is_mended() -> None:
    """A version that spells it otherwise would go on unmended, and in silence."""
    assert hasattr(JobScheduler, scheduler_timers.HOOK)
    assert not scheduler_timers.one_at_a_time(type("Other", (), {}))
