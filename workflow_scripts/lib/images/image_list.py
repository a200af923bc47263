"""Image list from the tables alone: ids, labels and further columns, and faults of rows."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from workflow_scripts.lib.base.errors import UserError
from workflow_scripts.lib.base.names import meant
from workflow_scripts.lib.images import label_maps, user_tables
from workflow_scripts.lib.images.invalid_input import Fault, printable
from workflow_scripts.lib.images.known_datasets import CUT_FROM, GROUP_BY
from workflow_scripts.lib.images.user_tables import UserTable


@dataclass
class Listed:
    """Images that the tables name, in their order, and the faults of the others."""

    ids: list[str]
    labels: np.ndarray  # uint8 (n, K)
    classes: list[str]
    columns: dict[str, list[str]]
    bad: list[Fault] = field(default_factory=list)
    dropped: list[Fault] = field(default_factory=list)  # left out because the config says so, not for a fault
    notes: list[str] = field(default_factory=list)

    def keep(self, rows: Sequence[int]) -> None:
        """Keep only some of the images."""
        self.ids = [self.ids[row] for row in rows]
        self.columns = {name: [values[row] for row in rows] for name, values in self.columns.items()}
        self.labels = self.labels[np.asarray(rows, dtype=np.int64)]


class Labels:
    """Parser of the label column: numbers or names, their separator, and the classes by number."""

    def __init__(self, targets: Sequence[str], data: dict[str, Any], classes: Sequence[str]) -> None:
        self.separator = data["label_separator"]
        self.numbers = data["labels"] == "numbers"
        if data["labels"] is None:
            # A single word among numbers, or a single number among names, is a typing error.
            cut = [text for target in targets for text in re.split(r"[\s|;,]+", target) if text]
            self.numbers = 2 * sum(map(_is_number, cut)) > len(cut)
        self.classes = list(classes)
        if not self.classes and self.numbers:
            raise UserError("labels are numbers, and nothing gives their names: set data.class_names or data.classes")
        if not self.classes:
            self.classes = self._found(targets)
        self._number = {name.casefold(): number for number, name in enumerate(self.classes)}
        if not self.separator and not self.numbers and (joined := self._joined()):
            raise UserError(
                f"the label {printable(joined)[:80]!r} is made of other labels: set data.label_separator to ',', or to "
                "'|' if it is one class"
            )

    def _joined(self) -> str | None:
        """A class whose name lists other classes, with commas between them."""
        for name in self.classes:
            parts = [part.strip().casefold() for part in name.split(",")]
            if len(parts) > 1 and all(part in self._number for part in parts):
                return name
        return None

    def _found(self, targets: Sequence[str]) -> list[str]:
        """The names that occur; of spellings that differ in upper and lower case alone, the commonest."""
        counts = Counter(text for target in targets for text in self.split(target))
        # The commonest last; ties go to the first in the alphabet.
        ordered = sorted(sorted(counts, reverse=True), key=lambda text: counts[text])
        return sorted({text.casefold(): text for text in ordered}.values())

    def split(self, target: str) -> list[str]:
        """Labels of an image as the table has them."""
        if self.separator:
            parts = target.split(self.separator)
        else:
            # Names have blanks in them.
            parts = re.split(r"[\s|;,]+" if self.numbers else r"[|;\n]+", target)
        return [" ".join(part.split()) for part in parts if part.strip()]

    def number(self, text: str) -> int | None:
        """The number of a class; None if there is no such class."""
        if self.numbers:
            return int(text) if _is_number(text) and int(text) < len(self.classes) else None
        return self._number.get(text.casefold())

    def known(self) -> str:
        """Valid labels, for a message."""
        if self.numbers:
            return f"there are {len(self.classes)} classes, numbered 0 to {len(self.classes) - 1}"
        shown = ", ".join(self.classes[:40])
        return f"the classes are {shown}" + (" …" if len(self.classes) > 40 else "")


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) < 7


def id_problem(name: str) -> str | None:
    """Reason why an id is no safe file name inside a folder; None if it is."""
    if not name:
        return "has no Id"
    if name.startswith(".") or any(char in "/\\" or not char.isprintable() for char in name) or len(name) > 200:
        return f"has the Id {printable(name)[:80]!r}, which cannot be part of a file name"
    return None


def read_images(table: UserTable, data: dict[str, Any], classes: Sequence[str]) -> Listed:
    """The images of a label table as the description of their source (`sources.described`) reads it.

    Rows that say the same twice are merged; an image whose rows disagree cannot be used."""
    ids, targets = table.need(data["columns"]["id"]), table.need(data["columns"]["labels"])
    if not ids:
        raise UserError(f"{table.path} has no rows")
    labels = Labels(targets, data, classes)
    first, further = rows_of(ids)
    hot = np.zeros((len(ids), len(labels.classes)), dtype=np.uint8)
    kept, bad, again = [], [], 0
    for row in first:
        others = further.get(row, [])
        fault = _fault(table, row, others, ids[row], labels, data)
        if fault:
            bad.append(Fault(ids[row] or f"(line {table.lines[row]})", table.where(row), *fault))
            continue
        again += len(others)
        hot[row, [labels.number(text) for text in labels.split(targets[row])]] = 1
        kept.append(row)
    columns, notes = read_columns(table, data)
    out = Listed(ids, hot, labels.classes, columns, bad, notes=notes)
    out.keep(kept)
    if again:
        out.notes.append(f"{again} rows of {table.path.name} repeat another one and count once")
    return out


def rows_of(ids: Sequence[str]) -> tuple[list[int], dict[int, list[int]]]:
    """First row of each id, with the further rows of ids that have several. Rows without an id stay separate."""
    row_of: dict[str, int] = {}
    further: dict[int, list[int]] = {}
    for row, name in enumerate(ids):
        first = row_of.setdefault(name or f"\0{row}", row)
        if first != row:
            further.setdefault(first, []).append(row)
    return list(row_of.values()), further


def row_fault(table: UserTable, row: int, others: list[int], name: str) -> tuple[str, str] | None:
    """Kind and reason of the fault of a row, whatever its labels are; `others` are rows of the same Id."""
    problem = id_problem(name)
    if problem:
        return "Id that is no file name", problem
    for each in (row, *others):
        if each in table.faults:
            return "broken row", table.faults[each]
    if any(not table.alike(row, other) for other in others):
        lines = ", ".join(str(table.lines[each]) for each in (row, *others))
        return "conflicting rows", f"Id {name!r} stands in lines {lines}, and they disagree"
    return None


def _fault(
    table: UserTable, row: int, others: list[int], name: str, labels: Labels, data: dict[str, Any]
) -> tuple[str, str] | None:
    """Kind and reason of the fault of a row of the label table."""
    if fault := row_fault(table, row, others, name):
        return fault
    texts = labels.split(table.need(data["columns"]["labels"])[row])
    if not texts and data["no_label"] == "invalid":
        return "no label", "has no label (data.no_label: keep takes such images as of no class)"
    unknown = next((text for text in texts if labels.number(text) is None), None)
    if unknown is not None:
        return "unknown label", (
            f"{printable(unknown)[:80]!r} is no class {'number' if labels.numbers else 'name'}; {labels.known()}"
            f"{meant(unknown, labels.classes)}"
        )
    return None


def read_columns(table: UserTable, data: dict[str, Any]) -> tuple[dict[str, list[str]], list[str]]:
    """Columns of a table under MixLoc's names for them, and notes of what was left out."""
    own = {kind: table.find(name) for kind, name in data["columns"].items()}
    out = {kind: table.columns[name] for kind, name in own.items() if name is not None and kind not in ("id", "labels")}
    notes = []
    for name in (name for name in table.columns if name not in own.values()):
        kind = re.sub(r"[/\\.]", "_", name)
        # What the config names elsewhere, in this table or the other, is not to be overwritten by a namesake.
        if kind in out or kind in data["columns_given"]:
            notes.append(f"column {name!r} of {table.path.name} is left out: another one is called {kind!r} already")
        else:
            out[kind] = table.columns[name]
    # A value may span lines in the table; in an image set it is one line.
    return {kind: [" ".join(value.split()) for value in values] for kind, values in out.items()}, notes


def check_columns(tables: Sequence[UserTable], data: dict[str, Any]) -> None:
    """Check that every column which the config names is in one of the tables.

    A missing column would silently weaken the grouping that the user relies on."""
    for kind in data["columns_given"]:
        name = data["columns"][kind]
        if all(table.find(name) is None for table in tables):
            places = " and ".join(f"{table.path.name} has {', '.join(table.columns)}" for table in tables)
            raise UserError(f"data.columns.{kind} = {name!r}: there is no such column: {places}")


def join(listed: Listed, table: UserTable, data: dict[str, Any], required: bool = True) -> None:
    """Add the columns of a second table by Id; an image whose rows disagree cannot be used.

    Nor can one without a row, unless none is `required`: its values are then empty."""
    ids = table.need(data["columns"]["id"])
    rows: dict[str, list[int]] = {}
    for row, name in enumerate(ids):
        rows.setdefault(name, []).append(row)
    where, kept = [], []
    for index, name in enumerate(listed.ids):
        first, *others = rows.get(name, [-1])
        if first < 0 and not required:
            where.append(first)
            kept.append(index)
        elif first < 0:
            listed.bad.append(Fault(name, table.path.name, "Id without groups", f"has no row for Id {name!r}"))
        elif any(row in table.faults for row in rows[name]):
            faulty = next(row for row in rows[name] if row in table.faults)
            listed.bad.append(Fault(name, table.where(faulty), "broken row", table.faults[faulty]))
        elif any(not table.alike(first, other) for other in others):
            # Contradicting rows would put the image into an arbitrary group.
            lines = ", ".join(str(table.lines[each]) for each in rows[name])
            reason = f"Id {name!r} stands in lines {lines}, and they disagree"
            listed.bad.append(Fault(name, table.where(first), "conflicting rows", reason))
        else:
            where.append(first)
            kept.append(index)
    listed.keep(kept)
    columns, notes = read_columns(table, data)
    listed.notes += [note for note in notes if required]  # of the labelled images; they need not be told twice
    for name, values in columns.items():
        added = ["" if row < 0 else values[row] for row in where]
        known = listed.columns.get(name, added)
        for own, value, other in zip(listed.ids, known, added, strict=True):
            if value and other and value != other:
                raise UserError(
                    f"{table.path} has a column {name!r} and another table too, and for Id {own!r} they disagree "
                    f"({other!r}, {value!r}): take it out of one of them"
                )
        listed.columns[name] = [value or other for value, other in zip(known, added, strict=True)]


def add_id_parts(listed: Listed, form: str) -> None:
    """Columns parsed from the Ids, such as {gene}_{antibody}_{plate}; text after the last part is ignored."""
    shape = re.compile(re.sub(r"\\\{(\w+)\\\}", r"(?P<\1>[^_]+)", re.escape(form)) + r"(?:[^A-Za-z0-9].*)?")
    kept, parsed = [], []
    for index, name in enumerate(listed.ids):
        match = shape.fullmatch(name)
        if match:
            kept.append(index)
            parsed.append(match.groupdict())
        else:
            listed.bad.append(Fault(name, "Id", "Id of another form", f"{name!r} is not of the form {form}"))
    listed.keep(kept)
    for name in shape.groupindex:
        # A user's table takes precedence over the Id, where it has a value.
        told = listed.columns.get(name, [""] * len(parsed))
        listed.columns[name] = [value or parts[name] for value, parts in zip(told, parsed, strict=True)]


def map_labels(listed: Listed, data: dict[str, Any]) -> None:
    """Merge, rename or select classes as `data.label_map` says."""
    mapped = label_maps.apply(listed.labels, listed.classes, data["label_map"], data["unmapped"], data["emptied"])
    if mapped.unmapped:
        lost = ", ".join(f"{name} ({count} images)" for name, count in mapped.unmapped.items())
        listed.notes.append(f"data.label_map forgets {lost}")
    if len(mapped.emptied):
        what = "left out" if data["emptied"] == "drop" else "kept as images of no class"
        listed.notes.append(f"{len(mapped.emptied)} images have no label left after data.label_map; they are {what}")
    if data["emptied"] == "drop":
        reason = "has no label left after data.label_map"
        listed.dropped += [Fault(listed.ids[row], "", "no class left", reason) for row in mapped.emptied]
    listed.keep(mapped.kept.tolist())
    listed.labels, listed.classes = mapped.labels, mapped.classes


def from_tables(table: Path, groups: Path | None, classes: Path | None, data: dict[str, Any]) -> Listed:
    """The images of the user's tables, with labels mapped."""
    names = user_tables.read_classes(classes) if classes else list(data["class_names"] or [])
    labelled, further = user_tables.read_table(table), user_tables.read_table(groups) if groups else None
    check_columns([labelled] if further is None else [labelled, further], data)
    listed = read_images(labelled, data, names)
    if further is not None:
        join(listed, further, data)
    if data["id_parts"]:
        add_id_parts(listed, data["id_parts"])
    map_labels(listed, data)
    return listed


def group_columns(listed: Listed, wanted: list[str] | None) -> list[str]:
    """The columns that decide which images belong together: those asked for, or else those that are known.

    Cells of one field belong together in any case."""
    fields = [CUT_FROM] if CUT_FROM in listed.columns else []
    if wanted is None:
        return [name for name in GROUP_BY if any(listed.columns.get(name, ()))] + fields
    absent = [name for name in wanted if name not in listed.columns]
    if absent:
        known = (", ".join(sorted(listed.columns)) or "none") + meant(absent[0], listed.columns)
        raise UserError(f"data.group_by names {absent[0]!r}, which is no column; there are: {known}")
    blank = [name for name in wanted if not any(listed.columns[name])]
    if blank:
        raise UserError(f"data.group_by names {blank[0]!r}, a column without any value: it groups nothing")
    return [*wanted, *(name for name in fields if name not in wanted)]
