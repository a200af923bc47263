"""The lockbox: images that nothing is fitted or chosen on, and the ledger of the times that they were scored.

The ledger has a line for each opening, of whatever run. Lockboxes are told apart by the ids of their images, so that
openings of the same images by several runs, or with pixels prepared in another way, count together. A line is written
before the first prediction is made and gets its result at the end; an opening that was killed in between goes on with
the line that it has. Whoever can write to the folder can also change the ledger: it reminds, it does not prove."""

from __future__ import annotations

import datetime
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from workflow_scripts.lib.base.errors import UserError, raise_if_passing
from workflow_scripts.lib.base.files import digest, lock, write_text
from workflow_scripts.lib.split.roles import Role

NO_LOCKBOX = (
    "there is no lockbox: no image was set aside for it. Give it a fraction of the images "
    "(make_folds.fractions.lockbox, such as 0.1) and train again"
)
FORM = ("ids_digest", "run", "declaration", "begun_at", "ended_at", "result")  # what every line of the ledger has


@dataclass(frozen=True)
class Box:
    """The images of a lockbox."""

    rows: np.ndarray  # int (n,), in the image set
    groups: int
    digest: str  # of the ids, in any order


def find(ids: np.ndarray, groups: np.ndarray, roles: Mapping[Any, np.ndarray]) -> Box | None:
    """The lockbox of a run from the roles (n,) in each of its folds; None where no image was set aside."""
    locked = [own == Role.LOCKBOX for own in roles.values()]
    if not locked or not np.any(locked):
        return None
    if any((own != locked[0]).any() for own in locked):
        raise UserError("the lockbox is not the same in all folds and repeats: delete the folds.csv and run again")
    rows = np.flatnonzero(locked[0])
    return Box(rows, len(np.unique(groups[rows])), digest(sorted(str(name) for name in ids[rows])))


def read_ledger(path: Path) -> list[dict[str, Any]]:
    """All openings, the first one first; none where there is no ledger yet."""
    if not path.exists():
        return []
    try:
        entries = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        missing = [name for entry in entries for name in FORM if name not in entry]
        if missing:
            raise ValueError(f"a line has no {missing[0]!r}")
    except (OSError, ValueError, TypeError) as error:
        raise_if_passing(error)
        raise UserError(f"{path} cannot be read ({error}): it says when the lockbox was opened, so mend it") from None
    return entries


def begin(path: Path, entry: dict[str, Any]) -> dict[str, Any]:
    """Write down that an opening begins, before anything is predicted; or go on with the line of the same `task` that
    was killed before it had a result."""
    with lock(path):
        entries = read_ledger(path)
        for known in reversed(entries):
            if known.get("task") == entry["task"] and known["result"] is None:
                return known
        begun = entry | {"begun_at": now(), "ended_at": None, "result": None}
        _write(path, [*entries, begun])
        return begun


def finish(path: Path, begun: dict[str, Any], result: dict[str, Any]) -> None:
    """Write the result beside the opening that `begin` wrote down."""
    with lock(path):
        entries = read_ledger(path)
        if begun not in entries:
            raise UserError(f"{path} has lost the line of this opening: put it back from a copy, then open again")
        entries[entries.index(begun)] = begun | {"ended_at": now(), "result": result}
        _write(path, entries)


def _write(path: Path, entries: list[dict[str, Any]]) -> None:
    text = "".join(json.dumps(entry, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n" for entry in entries)
    write_text(path, text)


def now() -> str:
    """The time, to the second."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


@dataclass(frozen=True)
class Openings:
    """What the ledger knows of one lockbox."""

    ended: list[dict[str, Any]]
    unfinished: list[dict[str, Any]]
    of_other_boxes: int  # openings of other lockboxes of the same image set, such as with another seed

    def words(self) -> str:
        """How often it was opened."""
        count = len(self.ended)
        return "not opened" if not count else "opened once" if count == 1 else f"opened {count} times"


def openings(entries: list[dict[str, Any]], box: Box, images: str) -> Openings:
    """The openings of a lockbox of the image set with the digest `images`."""
    own = [entry for entry in entries if entry["ids_digest"] == box.digest]
    others = [entry for entry in entries if entry not in own and entry.get("images_digest") == images]
    return Openings(
        [entry for entry in own if entry["result"] is not None],
        [entry for entry in own if entry["result"] is None],
        sum(entry["result"] is not None for entry in others),
    )
