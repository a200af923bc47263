"""Refuses to start Snakemake in a test without the mark `workflow`, so that the other tests can be run alone."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
from collections.abc import Iterator

# A program, a module after -m, or a command of a shell.
STARTED = re.compile(r"(?:^|[\s/])snakemake(?:\s|$)")
_allowed = True
_start = subprocess.Popen.__init__


def starts_snakemake(words: object) -> bool:
    """Whether a command, as subprocess takes it, starts Snakemake itself."""
    if isinstance(words, str):
        return STARTED.search(words) is not None
    parts = [os.fsdecode(word) for word in words] if isinstance(words, list | tuple) else []
    if parts[:1] and parts[0].endswith("sh") and "-c" in parts:
        return STARTED.search(parts[parts.index("-c") + 1]) is not None
    program = parts[2:3] if parts[1:2] == ["-m"] else parts[:1]
    return bool(program) and program[0].rpartition("/")[2] == "snakemake"


def _watched(self: subprocess.Popen, args: object, *more: object, **named: object) -> None:
    if not _allowed and starts_snakemake(args):
        raise AssertionError("a test that starts Snakemake must have the mark pytest.mark.workflow")
    _start(self, args, *more, **named)


@contextlib.contextmanager
def of(marked: bool) -> Iterator[None]:
    """While one test runs, refuse to start Snakemake unless it is marked."""
    global _allowed
    before, _allowed = _allowed, marked
    subprocess.Popen.__init__ = _watched
    try:
        yield
    finally:
        _allowed = before
        subprocess.Popen.__init__ = _start
