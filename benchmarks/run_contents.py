"""What two runs of one config must share, file by file: everything but times, and what is written down about times."""

from __future__ import annotations

import csv
import hashlib
import json
import re
from pathlib import Path
from typing import Any

import h5py
import numpy as np

# Files that tell how long something took, or when: they differ between any two runs.
TIMES = re.compile(
    r"(^|/)((logs|benchmarks|progress)/|(report|progress)\.html$|cost(\.works)?\.json$|"
    r"tables/(run_times|generator_times|prediction|disk_stages)\.csv$)"
)
# Values inside other files that do.
SPENT = re.compile(r"seconds|_at$")
MOMENT = re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d)?(\+\d\d:\d\d)?")
# What a finished run has no more.
UNFINISHED = re.compile(r"\.part\b|resume\.pt$|\.lock$")


def names(folder: Path) -> list[str]:
    """Files of a run that are compared, as paths below its folder."""
    paths = (path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    return sorted(name for name in paths if not TIMES.search(name))


def differences(wanted: Path, found: Path) -> tuple[int, list[str]]:
    """How many files were compared, and a line for each that differs, is missing, or should not be there."""
    first, second = set(names(wanted)), set(names(found))
    out = [f"{name}: missing" for name in sorted(first - second)]
    out += [f"{name}: left behind" if UNFINISHED.search(name) else f"{name}: new" for name in sorted(second - first)]
    out += [f"{name}: differs" for name in sorted(first & second) if not same(wanted / name, found / name)]
    return len(first), out


def same(first: Path, second: Path) -> bool:
    """Whether two files say the same but for times."""
    return _digest(first) == _digest(second) or digest(first) == digest(second)


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def digest(path: Path) -> str:
    """Digest of what a file says, times left out."""
    if path.suffix == ".safetensors":
        said: Any = _weights(path.read_bytes())
    elif path.suffix == ".h5":
        said = _arrays(path)
    elif path.suffix == ".json":
        said = without_times(json.loads(path.read_text(encoding="utf-8")))
    elif path.suffix == ".jsonl":
        said = [without_times(json.loads(line)) for line in path.read_text(encoding="utf-8").splitlines()]
    elif path.suffix == ".csv":
        said = _rows(path)
    else:
        return _digest(path)
    return hashlib.sha256(json.dumps(said, sort_keys=True, default=str).encode()).hexdigest()


def without_times(value: Any) -> Any:
    """A JSON value without the entries that tell times; texts that are JSON themselves are looked into."""
    if isinstance(value, dict):
        return {key: without_times(item) for key, item in value.items() if not SPENT.search(key)}
    if isinstance(value, list):
        return [without_times(item) for item in value]
    if isinstance(value, str) and value[:1] in ("{", "["):
        try:
            return without_times(json.loads(value))
        except ValueError:
            return value
    return MOMENT.sub("a moment", value) if isinstance(value, str) else value


def _weights(raw: bytes) -> Any:
    size = int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8 : 8 + size])
    return without_times(header), hashlib.sha256(raw[8 + size :]).hexdigest()


def _arrays(path: Path) -> dict[str, Any]:
    out: dict[str, Any] = {}

    def visit(name: str, item: Any) -> None:
        out[f"{name} about"] = _attributes(item)
        if isinstance(item, h5py.Dataset) and not SPENT.search(name.rpartition("/")[2]):
            values = item[()]
            content = values.tobytes() if values.dtype.kind != "O" else repr(values.tolist()).encode()
            out[name] = (str(values.dtype), values.shape, hashlib.sha256(content).hexdigest())

    with h5py.File(path, "r") as file:
        out["about"] = _attributes(file)
        file.visititems(visit)
    return out


def _attributes(item: Any) -> dict[str, Any]:
    kept = {key: value.tolist() if isinstance(value, np.ndarray) else value for key, value in item.attrs.items()}
    return without_times(kept)


def _rows(path: Path) -> list[list[str]]:
    with path.open(newline="", encoding="utf-8") as handle:
        rows = list(csv.reader(handle))
    kept = [place for place, name in enumerate(rows[0] if rows else []) if not SPENT.search(name)]
    return [[row[place] for place in kept if place < len(row)] for row in rows]
