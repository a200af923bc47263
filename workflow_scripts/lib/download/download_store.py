"""Download folder with a record of its files: checksums.csv, one line a file, written as files arrive.

The folder outlives runs. A file that is there is compared with its checksum and kept. A file that has changed since is
reported and fetched again."""

from __future__ import annotations

import csv
import hashlib
import queue
import shutil
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Self, TypeVar

from workflow_scripts.lib.base.files import atomic, private_folder
from workflow_scripts.lib.download.http_client import Stopped

Work = TypeVar("Work")
Result = TypeVar("Result")
COLUMNS = ["file", "bytes", "sha256"]


@dataclass(frozen=True)
class Record:
    """Size and checksum of a file when it arrived."""

    bytes: int
    sha256: str


class Store:
    """Records of a download folder, used in a `with` block, so that new ones reach the disk in order."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.path = folder, folder / "checksums.csv"
        self.records = dict(_read(self.path))
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        self.folder.mkdir(parents=True, exist_ok=True)
        # Written anew first: a kill may have left half a line at the end.
        self._write()
        self._out = self.path.open("a", encoding="utf-8", newline="")
        return self

    def __exit__(self, *error: object) -> None:
        self._out.close()
        self._write()

    def _write(self) -> None:
        with atomic(self.path) as part, part.open("w", encoding="utf-8", newline="") as out:
            write(out, self.records)

    def digest(self, name: str) -> str | None:
        """The sha256 of a file as it lies there; None where there is none."""
        try:
            with (self.folder / name).open("rb") as file:
                return hashlib.file_digest(file, "sha256").hexdigest()
        except FileNotFoundError:
            return None

    def copy(self, source: str, name: str) -> None:
        """Copy a file of the folder under another name, atomically."""
        part = self.folder / "partial" / f"{name.replace('/', '_')}.copy"
        private_folder(part.parent)
        shutil.copyfile(self.folder / source, part)
        part.replace(self.folder / name)

    def add(self, name: str, sha256: str) -> Record | None:
        """Record a file that has arrived; returns its previous record if that differs."""
        record = Record((self.folder / name).stat().st_size, sha256)
        with self._lock:
            before = self.records.get(name)
            if before != record:
                self.records[name] = record
                csv.writer(self._out, lineterminator="\n").writerow([name, record.bytes, record.sha256])
                self._out.flush()
        return before if before != record else None


def write(out: IO[str], records: dict[str, Record]) -> None:
    """A table of checksums, sorted by file."""
    table = csv.writer(out, lineterminator="\n")
    table.writerow(COLUMNS)
    table.writerows([name, record.bytes, record.sha256] for name, record in sorted(records.items()))


def _read(path: Path) -> Iterator[tuple[str, Record]]:
    if not path.exists():
        return
    with path.open(encoding="utf-8", newline="") as handle:
        for row in csv.reader(handle):
            if len(row) == 3 and row[1].isdigit() and len(row[2]) == 64:
                yield row[0], Record(int(row[1]), row[2])


def in_threads(work: Callable[[Work], Result], items: Iterable[Work], threads: int) -> Iterator[Result]:
    """Results of `work` for each item, in threads, as they are ready.

    The first exception ends it, once every thread has finished its current item."""
    waiting, lock, stop = iter(items), threading.Lock(), threading.Event()
    done: queue.Queue[tuple[str, Any]] = queue.Queue()

    def loop() -> None:
        try:
            while not stop.is_set():
                with lock:
                    item = next(waiting, None)
                if item is None:
                    break
                done.put(("result", work(item)))
        except BaseException as error:
            stop.set()
            done.put(("error", error))
        done.put(("end", None))

    for _ in range(threads):
        # Daemons: an interrupted program does not wait for a server.
        threading.Thread(target=loop, daemon=True).start()
    running, problems = threads, []
    try:
        while running:
            what, value = done.get()
            if what == "result":
                yield value
            elif what == "error":
                problems.append(value)
            else:
                running -= 1
    finally:
        stop.set()
    # Those that were merely called off say less than the one who called them off.
    for problem in sorted(problems, key=lambda error: isinstance(error, Stopped)):
        raise problem
