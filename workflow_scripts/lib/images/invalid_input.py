"""Invalid input: faults of users' images and tables, and the policy for them."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import astuple, dataclass
from pathlib import Path

from workflow_scripts.lib.base.errors import UserError
from workflow_scripts.lib.base.files import write_text
from workflow_scripts.lib.base.stage import log

SHOWN = 40  # faults in the log; the list has all
HEADER = ("Id", "file", "kind", "reason")
LACKING = "missing channel, left out"  # kind of images that data.missing_channel: drop_image leaves out


@dataclass(frozen=True, order=True)
class Fault:
    """One fault of an image; an image may have several."""

    id: str
    file: str  # the file, or the table and the line
    kind: str  # the same words for all faults of one kind, for counting
    reason: str  # a sentence without its subject, which is the file


def printable(text: str) -> str:
    """Text from outside, made safe for one line of a log or a terminal."""
    return "".join(char if char.isprintable() else "?" for char in text)


def write_list(path: Path, bad: Iterable[Fault]) -> None:
    """Write a table of faults; only its header if there are none."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(HEADER)
    writer.writerows(map(printable, astuple(entry)) for entry in bad)
    write_text(path, out.getvalue())


def counted(bad: Iterable[Fault]) -> list[Fault]:
    """Faults that count as invalid input: not those of images that the config leaves out on purpose."""
    return [entry for entry in bad if entry.kind != LACKING]


def settle(bad: Sequence[Fault], count: int, policy: str, limit: float, listing: Path) -> None:
    """Stop, or continue without the images that have faults, as `policy` (fail or skip) says.

    The first faults are logged. `count` is the number of images that the tables name, `limit` the largest fraction of
    them that may be left out. The whole list is written to `listing` before the stage stops."""
    bad = counted(bad)
    if not bad:
        return
    for entry in bad[:SHOWN]:
        log.warning("%s", printable(f"{entry.file}: {entry.reason}"))
    if len(bad) > SHOWN:
        log.warning("and %d more", len(bad) - SHOWN)
    what, left_out = judged(bad, count, policy, limit)
    if left_out:
        log.warning("%s", what)
        return
    write_list(listing, bad)
    raise UserError(f"{what}. Each is named in {listing}")


def leave_out(bad: Sequence[Fault], count: int, listing: Path) -> None:
    """Continue without the new images that have faults, unless none is left.

    Their policy is no setting: those of `data` belong to the run, and another one would make all of it again."""
    settle(bad, count, "skip", 1.0, listing)


def read_list(path: Path) -> list[Fault]:
    """The faults of a table that `write_list` wrote."""
    with path.open(newline="", encoding="utf-8") as handle:
        return [Fault(*row) for row in list(csv.reader(handle))[1:]]


def judged(bad: Sequence[Fault], count: int, policy: str, limit: float) -> tuple[str, bool]:
    """What the faults of images come to, in a sentence without its end, and whether the images are left out."""
    lost = len({entry.id for entry in bad})
    kinds = ", ".join(f"{number} × {kind}" for kind, number in Counter(entry.kind for entry in bad).most_common())
    what = f"{lost} of {count} images cannot be used ({kinds})"
    if policy == "skip" and lost <= limit * count and lost < count:
        return f"{what}: left out", True
    if policy == "skip" and lost < count:
        return f"{what}, more than data.invalid_limit = {limit:g} allows to leave out", False
    if policy == "skip":
        return f"{what}: nothing is left", False
    return f"{what}. Mend them, or leave them out by data.on_invalid: skip", False
