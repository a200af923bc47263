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

HEADER = ("Id", "file", "kind", "reason")


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


def settle(bad: Sequence[Fault], count: int, policy: str, limit: float, listing: Path) -> None:
    """Stop, or continue without the images that have faults, as `policy` (fail or skip) says.

    Each fault is logged. `count` is the number of images that the tables name, `limit` the largest fraction of them
    that may be left out. The whole list is written to `listing` before the stage stops."""
    if not bad:
        return
    for entry in bad:
        log.warning("%s", printable(f"{entry.file}: {entry.reason}"))
    lost = len({entry.id for entry in bad})
    kinds = ", ".join(f"{number} × {kind}" for kind, number in Counter(entry.kind for entry in bad).most_common())
    what = f"{lost} of {count} images cannot be used ({kinds})"
    if policy == "skip" and lost <= limit * count and lost < count:
        log.warning("%s: left out", what)
        return
    write_list(listing, bad)
    where = f"each is named in the log and in {listing}"
    if policy == "skip" and lost < count:
        raise UserError(f"{what}, more than data.invalid_limit = {limit:g} allows to leave out; {where}")
    if policy == "skip":
        raise UserError(f"{what}: nothing is left; {where}")
    raise UserError(f"{what}; {where}. Mend them, or leave them out by data.on_invalid: skip")
