"""Which jobs of a run failed, were cut short or had to make do, as their own logs tell. No job is hidden.

A stage's log is appended to at every start: `stage, process 7` opens an attempt, `done in 3 s` ends it well, a line of
level ERROR badly; an attempt with neither was killed (or is still at work)."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from workflow_scripts.lib.page.html_page import Column, PageTable

LINE = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d (?P<level>[A-Z]+) (?P<text>.*)")
START = re.compile(r"[a-z_]+, process \d+$")
END = re.compile(r"done in \d")
# What stages say when they go on with less than was asked for.
MADE_DO = (
    re.compile(r"the memory does not suffice for .*"),
    re.compile(r"\d+ of \d+ steps were skipped: .*"),
    re.compile(r".*: starting afresh$"),
)
LONGEST = 300  # letters of a reason


@dataclass
class Attempt:
    """One start of a job and what became of it."""

    errors: list[str] = field(default_factory=list)
    ended: bool = False


@dataclass
class Job:
    """All attempts of a job, and what it had to make do with."""

    name: str
    attempts: list[Attempt] = field(default_factory=list)
    made_do: list[str] = field(default_factory=list)

    @property
    def failed(self) -> int:
        """Attempts that ended in an error."""
        return sum(bool(attempt.errors) for attempt in self.attempts)

    @property
    def cut_short(self) -> int:
        """Attempts of which no end is known."""
        return sum(not attempt.ended and not attempt.errors for attempt in self.attempts)

    @property
    def finished(self) -> int:
        """Attempts that ended well."""
        return sum(attempt.ended and not attempt.errors for attempt in self.attempts)


def jobs(folder: Path, own: Path | None = None) -> list[Job]:
    """Every log below a folder, read; the last attempt of `own`, the log of who asks, is still at work."""
    out = []
    for path in sorted(folder.rglob("*.log")) if folder.is_dir() else ():
        job = read(path, str(path.relative_to(folder).with_suffix("")))
        if own is not None and path.resolve() == own.resolve() and job.attempts:
            job.attempts.pop()
        out.append(job)
    return out


def read(path: Path, name: str) -> Job:
    """A log as its attempts."""
    job, trace = Job(name), False
    with path.open(encoding="utf-8", errors="replace") as lines:
        for line in lines:
            parts = LINE.match(line.rstrip("\n"))
            if parts is None:
                # The last line of a traceback says what went wrong.
                if trace and line.strip():
                    job.attempts[-1].errors[-1] = line.strip()[:LONGEST]
                continue
            trace = parts["level"] == "ERROR"
            _take(job, parts["level"], parts["text"])
    return job


def _take(job: Job, level: str, text: str) -> None:
    if level == "INFO" and START.match(text):
        job.attempts.append(Attempt())
        return
    if not job.attempts:
        job.attempts.append(Attempt())
    if level == "ERROR":
        job.attempts[-1].errors.append(text[:LONGEST])
    elif level == "INFO" and END.match(text):
        job.attempts[-1].ended = True
    elif level == "WARNING" and any(pattern.match(text) for pattern in MADE_DO):
        job.made_do.append(text[:LONGEST])


def table(logged: list[Job]) -> PageTable:
    """The jobs of which there is something to tell."""
    rows: list[dict[str, Any]] = [
        {"job": job.name, "started": len(job.attempts), "failed": job.failed, "cut_short": job.cut_short}
        | {"finished": job.finished, "said": _said(job), "open": not job.finished}
        for job in logged
        if job.failed or job.cut_short or job.made_do
    ]
    columns = [
        Column("job", "job (its log)", "name"),
        Column("started", "started", "count"),
        Column("failed", "failed", "count"),
        Column("cut_short", "no end known", "count"),
        Column("finished", "finished", "count"),
        Column("said", "what its log says"),
    ]
    note = "A job has no known end if it was killed or interrupted, or was still running when this page was written."
    return PageTable(
        "failures", "Jobs that failed, were interrupted, or went on with less than was asked for", columns, rows, note,
        mark=lambda row: "alarm" if row["open"] else "",
    )  # fmt: skip


def _said(job: Job) -> str:
    errors = [error for attempt in job.attempts for error in attempt.errors]
    counted = {text: (errors + job.made_do).count(text) for text in errors + job.made_do}
    return "; ".join(text if count == 1 else f"{text} ({count} times)" for text, count in counted.items())


def sentence(logged: list[Job]) -> str:
    """How many jobs there were, and how many failed or were repeated."""
    if not logged:
        return "No log of a job was found, so nothing is known of failures."
    failed = sum(bool(job.failed) for job in logged)
    short = sum(bool(job.cut_short) for job in logged)
    made_do = sum(bool(job.made_do) for job in logged)
    again = sum(job.finished > 1 for job in logged)
    out = f"{len(logged):,} jobs left a log. Failed at least once: {failed or 'none'}. "
    out += f"Without a known end at least once: {short or 'none'}. Went on with less than was asked for: "
    out += f"{made_do or 'none'}."
    if again:
        out += f" Finished more than once, because settings, data or code had changed or results were deleted: {again}."
    return out
