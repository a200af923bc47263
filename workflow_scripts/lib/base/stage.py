"""Running of a stage program: logging, and reporting of failures.

A stage writes plain lines to its log file. Unless it owns a terminal it writes the same lines to standard error. A
failure ends with one sentence, the last lines of the log, and exit status 1."""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import re
import resource
import sys
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, NoReturn

from workflow_scripts.lib.base.errors import (
    UserError,
    file_system_failed,
    out_of_memory,
    out_of_room,
    reason_of_disk,
    reason_of_memory,
)
from workflow_scripts.lib.base.progress import duration

log = logging.getLogger("mixloc")

LAST_LINES = 15
# Settings by which a stage needs less memory. The others need what their images and arms need.
SMALLER = {
    "train_ddpm": "a smaller generators[].batch",
    "sample_ddpm": "a smaller synthetic_sets[].batch",
    "sample_fold": "a smaller synthetic_sets[].batch",
    "train_classifier": "a smaller train_classifier.batch",
    "preprocess_images": "fewer compute.threads",
    "simulate_cells": "fewer simulate_cells.processes",
}
PEAK = re.compile(r"^VmHWM:\s+(\d+) kB", re.MULTILINE)
HELD: list[BaseException] = []  # errors of a full disk; they keep the failed files open


def run(
    name: str,
    args: argparse.Namespace,
    work: Callable[[], None],
    speaks: bool = True,
    tells: Callable[[], bool] = lambda: True,
) -> int:
    """Run `work` with logging set up as the command line asks; return the exit status.

    Of several processes that share the work, only one has `speaks` set and logs. Each reports its failure if
    `tells()`."""
    try:
        recent = _open_log(name, args.log, speaks)
    except OSError as error:
        if tells():
            print(f"{name} failed: {_told(error, name)[0]}", file=sys.stderr, flush=True)
        _close_log()
        return 1
    started = time.monotonic()
    try:
        with _one_message():
            work()
    except Exception as error:
        if out_of_room(error):
            HELD.append(error)
        if out_of_memory(error):
            traceback.clear_frames(error.__traceback__)  # what the work still holds makes room for the message
        if tells():
            _tell(error, name, recent, args.log)
        _close_log()
        return 1
    log.info("memory: at most %d MB", memory_used())
    log.info("done in %s", duration(time.monotonic() - started))
    _close_log()
    return 0


def memory_used() -> int:
    """MB of memory that this process has held at most.

    Snakemake's benchmark looks only now and then, and misses the peak of a short job. What the system calls the maximum
    of a process counts also what the program held that started it, so on Linux another figure is taken."""
    try:
        told = PEAK.search(Path("/proc/self/status").read_text(encoding="utf-8"))
    except (OSError, MemoryError):
        told = None
    return int(told[1]) // 1024 if told else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


@contextlib.contextmanager
def _one_message() -> Iterator[None]:
    """Suppress repeated messages about a full disk.

    HDF5 reports the error again for each object of the file that it closes, where no exception can be raised."""
    shown, ignored = sys.excepthook, sys.unraisablehook

    def show(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        if not (isinstance(error, Exception) and out_of_room(error)):
            shown(kind, error, trace)

    def ignore(what: Any) -> None:
        if not (isinstance(what.exc_value, Exception) and out_of_room(what.exc_value)):
            ignored(what)

    sys.excepthook, sys.unraisablehook = show, ignore
    try:
        yield
    finally:
        sys.excepthook, sys.unraisablehook = shown, ignored


def leave(status: int) -> NoReturn:
    """End the program with this exit status.

    HDF5 crashes when it closes a file whose last write failed. After a full disk such files are therefore kept open,
    and the process ends without the interpreter's cleanup. All messages are written and all other files closed by
    then."""
    sys.stdout.flush()
    sys.stderr.flush()
    if HELD:
        os._exit(status)
    sys.exit(status)


def _tell(error: Exception, name: str, recent: _Recent, path: Path | None) -> None:
    message, told = _told(error, name)
    if told != message and path is None:
        recent.lines.extend(told.splitlines())
    log.error("%s", told)
    _fail(name, message, recent, path)


def _told(error: Exception, name: str) -> tuple[str, str]:
    """The message of a failure, and what the log gets: the same, or a traceback where the cause is not known."""
    if isinstance(error, UserError):
        message = str(error)
    elif out_of_room(error):
        kept = "Make room and run again; what was finished, and checkpoints, are kept"
        message = f"no room to write: {reason_of_disk(error)}. {kept}"
    elif out_of_memory(error):
        message = f"out of memory: {reason_of_memory(error)}. {_cure_of_memory(name)}"
    elif file_system_failed(error):
        kept = "Run again when it works; what was finished, and checkpoints, are kept"
        message = f"the file system failed: {reason_of_disk(error)}. {kept}"
    else:
        return f"{type(error).__name__}: {error}", traceback.format_exc().rstrip()
    return message, message


def _cure_of_memory(name: str) -> str:
    """What this process has taken, and what to change."""
    cures = ["more memory (mem_mb in a profile)", "fewer jobs at a time (--cores)"]
    cures += [SMALLER[name]] if name in SMALLER else []
    kept = "What was finished, and checkpoints, are kept; `snakemake rehearse` tells what a run needs"
    return f"This process took {memory_used()} MB; run again with {', '.join(cures[:-1])} or {cures[-1]}. {kept}"


class _Unheard(logging.Handler):
    """Log handler that loses a line without a word where memory, the disk or the file system fails."""

    def handleError(self, record: logging.LogRecord) -> None:
        error = sys.exc_info()[1]
        if not (isinstance(error, Exception) and _no_fault_of_ours(error)):
            super().handleError(record)


def _no_fault_of_ours(error: Exception) -> bool:
    return out_of_memory(error) or out_of_room(error) or file_system_failed(error)


class _LogFile(_Unheard, logging.FileHandler):
    """The log file of a stage."""

    def close(self) -> None:
        try:
            super().close()
        except OSError as error:  # lines that were kept back because they could not be written
            if not _no_fault_of_ours(error):
                raise


class _Recent(logging.Handler):
    """Log handler that keeps the last lines for the message of a failure."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: deque[str] = deque(maxlen=LAST_LINES)
        # Errors are reported by their own sentence; a traceback would push out the lines that show the progress.
        self.addFilter(lambda record: record.levelno < logging.ERROR)

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.extend(self.format(record).splitlines())


class _Console(_Unheard, logging.StreamHandler):
    """Log handler for standard error: clears a progress bar first, and leaves errors to the closing message."""

    def emit(self, record: logging.LogRecord) -> None:
        if record.levelno >= logging.ERROR:
            return
        if self.stream.isatty():
            self.stream.write("\r\x1b[K")
        super().emit(record)


def _open_log(name: str, path: Path | None, speaks: bool) -> _Recent:
    _close_log()
    log.setLevel(logging.INFO if speaks else logging.ERROR)
    log.propagate = False
    console = _Console(sys.stderr)
    console.setFormatter(logging.Formatter(f"{_label(name, path)}: %(message)s"))
    recent = _Recent()
    handlers: list[logging.Handler] = [console, recent]
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Appended to, so that a killed run and its successor share one log.
        handlers.append(_LogFile(path, mode="a", encoding="utf-8"))
    for handler in handlers:
        if handler is not console:
            handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s", "%Y-%m-%d %H:%M:%S"))
        log.addHandler(handler)
    log.info("%s, process %d", name, os.getpid())
    return recent


def _close_log() -> None:
    for handler in list(log.handlers):
        log.removeHandler(handler)
        handler.close()


def _label(name: str, path: Path | None) -> str:
    return name if path is None else f"{name} {path.stem}".removesuffix(f" {name}")


def _fail(name: str, message: str, recent: _Recent, path: Path | None) -> None:
    lines = [f"{name} failed: {message}", *(f"  | {line}" for line in recent.lines)]
    if path is not None:
        lines.append(f"  whole log: {path}")
    print("\n".join(lines), file=sys.stderr, flush=True)
