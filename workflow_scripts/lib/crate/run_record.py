"""What a run has recorded about itself: when it ran, with which versions, what was found, what its certificate says."""

from __future__ import annotations

import csv
import json
import re
from collections import Counter
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

from workflow_scripts.lib.base.errors import UserError

STAMP = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d")
TAIL = 4096  # bytes at the end of a log that are searched for its last time


def period(logs: Path) -> tuple[str, str]:
    """Begin of the first job and end of the report by their logs, in ISO 8601 with the time zone of this machine."""
    ended = list(_ends(logs / "report" / "report.log"))
    if not ended:
        raise UserError(f"{logs}/report/report.log tells no time: run the workflow to its end")
    began = min(time for path in logs.rglob("*.log") for time in _ends(path))
    return _iso(began), _iso(ended[-1])


def _ends(path: Path) -> Iterator[str]:
    if not path.is_file():
        return
    with path.open("rb") as handle:
        head = handle.read(TAIL)
        handle.seek(max(0, path.stat().st_size - TAIL))
        tail = handle.read()
    for text, place in ((head, 0), (tail, -1)):
        found = STAMP.findall(text.decode("utf-8", errors="replace"))
        if found:
            yield found[place]


def _iso(stamp: str) -> str:
    return datetime.strptime(stamp, "%Y-%m-%d %H:%M:%S").astimezone().isoformat()


def versions(tables: Path) -> list[tuple[str, str]]:
    """Software and its versions, as the report lists them."""
    with (tables / "versions.csv").open(newline="", encoding="utf-8") as handle:
        return [(row["what"], row["version"]) for row in csv.DictReader(handle)]


def certificate(leaks: Path) -> str:
    """How many checks of the leak certificate ended in which way, in words."""
    with leaks.open(newline="", encoding="utf-8") as handle:
        counts = Counter(row["status"] for row in csv.DictReader(handle))
    return ", ".join(f"{count} {status}" for status, count in sorted(counts.items()))


def answer(analysis: Path) -> str:
    """What was found about the primary arm, in the words of the analysis; empty where it had none."""
    about = json.loads(analysis.read_text(encoding="utf-8"))
    return str((about.get("answer") or {}).get("sentence", ""))


def declaration(path: Path) -> dict[str, Any]:
    """When the analysis was declared, and its hash."""
    about = json.loads(path.read_text(encoding="utf-8"))
    return {"declared_at": about["declared_at"], "hash": about["hash"]}
