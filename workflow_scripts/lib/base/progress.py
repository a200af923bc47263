"""Progress of a long loop, as a bar in a terminal and as plain lines in a log."""

from __future__ import annotations

import logging
import sys
import time
from typing import Self, TextIO

log = logging.getLogger("mixloc")


def duration(seconds: float) -> str:
    """Seconds as readable text: 42 s, 3 min 05 s, 2 h 10 min."""
    seconds = max(0.0, seconds)
    if round(seconds) < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


class Progress:
    """Progress of a loop: `with Progress("train", total=steps) as bar: bar.update(step, loss=0.03)`.

    A terminal shows a bar, redrawn at most five times a second. The log gets a plain line at each tenth of the way, or
    every `line_every` seconds if that is sooner; so does standard error where it is no terminal. The last line says
    what a step took, without the first one, in which much is made ready. Loops that run side by side cannot share the
    terminal's line: without `bar` there are plain lines alone."""

    def __init__(
        self, what: str, total: int, line_every: float = 30.0, stream: TextIO | None = None, bar: bool = True
    ) -> None:
        self.what, self.total, self.line_every = what, max(1, int(total)), line_every
        self.stream = stream or sys.stderr
        # Of several processes only one logs (see `run`).
        self.terminal = bar and self.stream.isatty() and log.level < logging.ERROR

    def __enter__(self) -> Self:
        self.started = self.last_line = time.monotonic()
        self.last_bar, self.first, self.tenth = 0.0, None, 0
        self.ready = (0, self.started)  # steps done at the first update, and when that was
        return self

    def __exit__(self, *error: object) -> None:
        if self.terminal:
            self.stream.write("\r\x1b[K")
            self.stream.flush()

    def update(self, done: int, **numbers: float) -> None:
        """Say that `done` of the total are finished, with the numbers worth showing, such as the loss."""
        now = time.monotonic()
        if self.first is None:
            # A resumed run starts in the middle: its speed follows from the steps of this process alone.
            self.first = done - 1
            self.tenth = 10 * (done - 1) // self.total
            self.ready = (done, now)
        if self.terminal and (now - self.last_bar > 0.2 or done >= self.total):
            self.last_bar = now
            filled = 24 * min(done, self.total) // self.total
            self.stream.write(f"\r\x1b[K{'█' * filled}{'░' * (24 - filled)} {self._text(done, now, numbers)}")
            self.stream.flush()
        tenth = 10 * done // self.total
        if tenth > self.tenth or now - self.last_line > self.line_every:
            self.tenth, self.last_line = tenth, now
            log.info("%s", self._text(done, now, numbers))

    def _text(self, done: int, now: float, numbers: dict[str, float]) -> str:
        spent = now - self.started
        pace = spent / max(1, done - (self.first or 0))
        before, moment = self.ready
        if done > before:
            # The first step is slower than the others.
            each = (now - moment) / (done - before)
        else:
            each = pace
        told = f"{duration(pace * (self.total - done))} left" if done < self.total else f"{1000 * each:.5g} ms each"
        shown = "".join(f", {name} {value:.4g}" for name, value in numbers.items())
        return f"{self.what} {done}/{self.total} ({100 * done // self.total} %){shown}, {told}"
