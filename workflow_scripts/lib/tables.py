"""Tables that users bring: the label table (`Id,Target`) and tables of groups. Everything is text until checked."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from workflow_scripts.lib.stage import UserError


@dataclass
class LabelTable:
    """Ids in the order of the table, and their labels uint8 (n, K)."""

    ids: list[str]
    labels: np.ndarray


def read_rows(path: Path, required: list[str]) -> list[dict[str, str]]:
    """Rows of a CSV with a header, values stripped; missing columns are a clear error."""
    path = Path(path)
    try:
        # utf-8-sig drops the byte order mark that spreadsheets write.
        with path.open(encoding="utf-8-sig", newline="") as handle:
            reader = csv.DictReader(handle, skipinitialspace=True)
            names = [name.strip() for name in reader.fieldnames or []]
            reader.fieldnames = names
            missing = [name for name in required if name not in names]
            if missing:
                raise UserError(f"{path} has no column {missing[0]!r}; its columns are: {', '.join(names) or 'none'}")
            return [{name: (row.get(name) or "").strip() for name in names} for row in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path} cannot be read as a table: {error}") from None


def check_id(name: str, path: Path) -> str:
    """The id, if it can name files inside a folder and nothing outside of it."""
    if not name or name.startswith(".") or any(char in name for char in "/\\\0\n\r") or len(name) > 200:
        raise UserError(f"{path}: Id {name!r} cannot be part of a file name (empty, hidden, or with a path in it)")
    return name


def read_labels(path: Path, classes: list[str]) -> LabelTable:
    """A label table in the Kaggle form: `Id,Target`, class numbers separated by spaces."""
    ids: list[str] = []
    labels: list[np.ndarray] = []
    seen: dict[str, int] = {}
    for number, row in enumerate(read_rows(path, ["Id", "Target"]), start=2):
        name = check_id(row["Id"], path)
        if name in seen:
            raise UserError(f"{path}: Id {name!r} stands in lines {seen[name]} and {number}; keep one of them")
        seen[name] = number
        hot = np.zeros(len(classes), dtype=np.uint8)
        for text in row["Target"].split():
            if not (text.isascii() and text.isdigit()) or int(text) >= len(classes):
                raise UserError(
                    f"{path}, line {number}: {text!r} is no class number; "
                    f"there are {len(classes)} classes, numbered 0 to {len(classes) - 1}"
                )
            hot[int(text)] = 1
        ids.append(name)
        labels.append(hot)
    if not ids:
        raise UserError(f"{path} has no rows")
    return LabelTable(ids, np.stack(labels))


def read_columns(path: Path, ids: list[str], needed: list[str]) -> dict[str, list[str]]:
    """The columns of a second table, in the order of `ids`; each id must have its row."""
    rows: dict[str, dict[str, str]] = {}
    for row in read_rows(path, ["Id", *needed]):
        # Two rows that disagree would put an image into the wrong group without a word.
        if rows.setdefault(row["Id"], row) != row:
            raise UserError(f"{path} has two rows for Id {row['Id']!r} that differ; keep one of them")
    missing = [name for name in ids if name not in rows]
    if missing:
        raise UserError(f"{path} has no row for {len(missing)} of {len(ids)} images, the first is {missing[0]!r}")
    names = [name for name in next(iter(rows.values())) if name not in ("", "Id", "Target")]
    return {name: [rows[key][name] for key in ids] for name in names}


def read_classes(path: Path) -> list[str]:
    """Class names by number from a table `number,name`."""
    rows = read_rows(path, ["number", "name"])
    names = [row["name"] for row in rows]
    if [row["number"] for row in rows] != [str(index) for index in range(len(rows))]:
        raise UserError(f"{path}: the numbers must run 0, 1, 2 … in order")
    if not names or "" in names or len(set(names)) != len(names):
        raise UserError(f"{path}: every class needs a name of its own")
    return names
