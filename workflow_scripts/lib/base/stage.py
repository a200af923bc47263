"""What every stage program shares: its command line, its log, its progress, and how it fails.

A stage writes plain lines to its log file and, unless it owns a terminal, the same lines to standard error;
in a terminal a bar shows the progress. A failure ends in one sentence, the last lines of the log, and exit status 1."""

from __future__ import annotations

import argparse
import contextlib
import errno
import json
import logging
import os
import re
import sys
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, NoReturn, Self, TextIO

log = logging.getLogger("mixloc")

LAST_LINES = 15
FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
HELD: list[BaseException] = []  # errors of a full disk, with all that they hold


class UserError(Exception):
    """A failure that the user can mend: the message names the file, key or class and says what to do, in one line."""

    def __init__(self, message: str) -> None:
        # Names of files and values come from outside: a line of their own could pass for one of ours.
        super().__init__("".join(char if char.isprintable() else " " if char.isspace() else "?" for char in message))


class Parser(argparse.ArgumentParser):
    """A command line in which one argument may stand for the files of all folds: `repeat{repeat}/fold{fold}/x.h5`.

    `--places 5x3` says that there are 5 repeats of 3 folds. A list of thousands of paths would be longer than a
    command line may be (128 kB)."""

    def parse_known_args(
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> tuple[argparse.Namespace, list[str]]:
        """Put the paths of all folds in place of their pattern, then parse as usual."""
        given = list(sys.argv[1:] if args is None else args)
        if "--places" in given:
            at = given.index("--places")
            places = re.fullmatch(r"(\d+)x(\d+)", " ".join(given[at + 1 : at + 2]))
            if not places:
                self.error("--places must be repeats x folds, such as 5x3")
            given = _at_places(given[:at] + given[at + 2 :], int(places[1]), int(places[2]))
        return super().parse_known_args(given, namespace)


def _at_places(given: list[str], repeats: int, folds: int) -> list[str]:
    out: list[str] = []
    for before, text in zip(["", *given], given, strict=False):
        if before == "--settings" or not ("{repeat}" in text or "{fold}" in text):
            out.append(text)
            continue
        found = [
            text.replace("{repeat}", str(repeat)).replace("{fold}", str(fold))
            for repeat in range(repeats)
            for fold in range(folds)
        ]
        # A file of a repeat alone comes once.
        out += dict.fromkeys(found)
    return out


def parser(doc: str) -> argparse.ArgumentParser:
    """The command line that all stages share; `doc` is the stage's docstring."""
    summary, _, rest = (doc or "").partition("\n")
    out = Parser(
        description=summary, epilog=rest, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    out.add_argument("--places", metavar="RxF", help="R repeats of F folds: {repeat}, {fold} in paths stand for each")
    out.add_argument("--settings", type=_json_object, required=True, help="the stage's settings, one JSON object")
    out.add_argument("--log", type=Path, help="where to write the log; standard error alone if not given")
    return out


def _json_object(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise argparse.ArgumentTypeError(f"not JSON: {error}") from None
    if not isinstance(value, dict):
        raise argparse.ArgumentTypeError("must be a JSON object, such as {}")
    return value


def run(
    name: str,
    args: argparse.Namespace,
    work: Callable[[], None],
    speaks: bool = True,
    tells: Callable[[], bool] = lambda: True,
) -> int:
    """Do `work` with logging set up as the command line asks; return the exit status.

    Of several processes that do the same work together one alone `speaks`; any says how it failed, if it `tells`."""
    recent = _open_log(name, args.log, speaks)
    started = time.monotonic()
    try:
        with _one_message():
            work()
    except Exception as error:
        if out_of_room(error):
            HELD.append(error)
        if tells():
            _tell(error, name, recent, args.log)
        _close_log()
        return 1
    log.info("done in %s", duration(time.monotonic() - started))
    _close_log()
    return 0


@contextlib.contextmanager
def _one_message() -> Iterator[None]:
    """Say nothing of a full disk on the way: HDF5 complains again of every part of a file that it lets go of, where an
    error cannot be raised."""
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
    """End the program. HDF5 crashes when it lets go of a file whose last write failed: after a full disk such files are
    held to the end, which then comes without the usual farewell; by now all is told and closed."""
    sys.stdout.flush()
    sys.stderr.flush()
    if HELD:
        os._exit(status)
    sys.exit(status)


def _tell(error: Exception, name: str, recent: _Recent, path: Path | None) -> None:
    if isinstance(error, UserError):
        told = message = str(error)
    elif out_of_room(error):
        kept = "Make room and run again; what was finished, and checkpoints, are kept"
        told = message = f"no room to write: {_reason(error)}. {kept}"
    else:
        message, told = f"{type(error).__name__}: {error}", traceback.format_exc().rstrip()
        if path is None:
            recent.lines.extend(told.splitlines())
    log.error("%s", told)
    _fail(name, message, recent, path)


def _reason(error: Exception) -> str:
    """Which file, and why; HDF5 tells addresses in memory, too."""
    told, name = re.search(r"errno = (\d+)", str(error)), re.search(r"filename = '([^']*)'", str(error))
    if not told:
        return str(error)
    return os.strerror(int(told[1])) + (f": {name[1]!r}" if name else "")


def out_of_room(error: Exception) -> bool:
    """Whether a write failed because the disk is full, a quota is used up, or a file may not grow."""
    if isinstance(error, OSError) and error.errno in FULL:
        return True
    # HDF5 and safetensors have the number of the error in their text alone, torch not even that.
    told = re.search(r"(?:errno =|os error) (\d+)", str(error))
    written = re.search(r"PytorchStreamWriter failed writing|inline_container.* unexpected pos", str(error))
    return bool(written or (told and int(told[1]) in FULL))


class _Recent(logging.Handler):
    """Keeps the last lines for the message of a failure."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: deque[str] = deque(maxlen=LAST_LINES)
        # Errors have their sentence already; a traceback would push the lines out that tell how far the work was.
        self.addFilter(lambda record: record.levelno < logging.ERROR)

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.extend(self.format(record).splitlines())


class _Console(logging.StreamHandler):
    """Standard error; steps around a progress bar, and leaves errors to the closing message."""

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
        # Appended to, so that the log of a killed run and of its successor stand together.
        handlers.append(logging.FileHandler(path, mode="a", encoding="utf-8"))
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


def duration(seconds: float) -> str:
    """Seconds as a person says them: 42 s, 3 min 05 s, 2 h 10 min."""
    seconds = max(0.0, seconds)
    if round(seconds) < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


class Progress:
    """How far a loop is: `with Progress("train", total=steps) as bar: bar.update(step, loss=0.03)`.

    A terminal shows a bar, redrawn at most five times a second. The log (and standard error, where it is no
    terminal) gets a plain line at each tenth of the way, or every `line_every` seconds if that is sooner. Of several
    side by side none can have the terminal's line: without `bar` there are plain lines alone."""

    def __init__(
        self, what: str, total: int, line_every: float = 30.0, stream: TextIO | None = None, bar: bool = True
    ) -> None:
        self.what, self.total, self.line_every = what, max(1, int(total)), line_every
        self.stream = stream or sys.stderr
        # Of several processes one alone speaks (see `run`).
        self.terminal = bar and self.stream.isatty() and log.level < logging.ERROR

    def __enter__(self) -> Self:
        self.started = self.last_line = time.monotonic()
        self.last_bar, self.first, self.tenth = 0.0, None, 0
        return self

    def __exit__(self, *error: object) -> None:
        if self.terminal:
            self.stream.write("\r\x1b[K")
            self.stream.flush()

    def update(self, done: int, **numbers: float) -> None:
        """Say that `done` of the total are finished, with the numbers worth showing, such as the loss."""
        now = time.monotonic()
        if self.first is None:
            # A resumed run starts in the middle: only what this process did tells its speed.
            self.first = done - 1
            self.tenth = 10 * (done - 1) // self.total
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
        left = spent / max(1, done - (self.first or 0)) * (self.total - done)
        shown = "".join(f", {name} {value:.4g}" for name, value in numbers.items())
        return f"{self.what} {done}/{self.total} ({100 * done // self.total} %){shown}, {duration(left)} left"
