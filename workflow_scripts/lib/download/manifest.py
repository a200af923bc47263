"""Manifest of public images to fetch: Ids that contain antibody, plate, well and field, and labels.

An Id reads `{gene}_{antibody}_{plate}_{well}_{field}`, or has further parts after these. Its parts make up the image's
address on the server and its file name here. So only letters, digits, dots and dashes are allowed in them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from string import Formatter

from workflow_scripts.lib.base.errors import UserError
from workflow_scripts.lib.images import image_list
from workflow_scripts.lib.images.invalid_input import Fault, printable
from workflow_scripts.lib.images.user_tables import UserTable

PARTS = ("gene", "antibody", "plate", "well", "field")
PLACES = (*PARTS, "more", "channel")  # what an address may be made of
_WORD = r"[A-Za-z0-9][A-Za-z0-9.-]*"
_ID = re.compile("_".join(f"(?P<{name}>{_WORD})" for name in PARTS) + rf"(?P<more>(?:_{_WORD})*)")
LONGEST = 180  # letters of an Id; file systems take 255 for the whole name


@dataclass(frozen=True, slots=True)
class Entry:
    """One image of the manifest."""

    id: str
    target: str  # class numbers, separated by spaces
    row: int  # in its table
    gene: str = ""
    antibody: str = ""
    plate: str = ""
    well: str = ""
    field: str = ""
    more: str = ""  # "" or "_" and what follows the field

    def address(self, template: str, channel: str) -> str:
        """Address of a channel of the image; `channel` as the server calls it."""
        return template.format(**{name: getattr(self, name) for name in (*PARTS, "more")}, channel=channel)


def template_problem(template: str) -> str | None:
    """What is wrong with an address template, in one line; None where nothing is."""
    try:
        names = [name for _, name, _, _ in Formatter().parse(template) if name is not None]
    except ValueError as error:
        return f"fetch_images.url = {template!r}: {error}"
    unknown = [name for name in names if name not in PLACES]
    if unknown:
        return f"fetch_images.url has the place {{{unknown[0]}}}; known: {', '.join(f'{{{name}}}' for name in PLACES)}"
    missing = [name for name in ("field", "channel") if name not in names]
    if missing:
        return f"fetch_images.url lacks {{{missing[0]}}}: all images would have one address"
    if not template.lower().endswith((".jpg", ".jpeg", ".png")):
        return f"fetch_images.url = {template!r}: the address must end in .jpg or .png"
    return None


def colours_problem(colours: dict[str, str], channels: Sequence[str]) -> str | None:
    """What is wrong with the names that the server has for channels, in one line; None where nothing is."""
    first: dict[str, str] = {}
    for channel in channels:
        name = colours.get(channel, channel)
        if first.setdefault(name, channel) != channel:
            return f"fetch_images.colours calls both {first[name]!r} and {channel!r} {name!r}: they would be one file"
    return None


def read(table: UserTable, columns: tuple[str, str], addressed: bool) -> tuple[list[Entry], list[Fault]]:
    """Entries of a manifest by its columns of ids and labels, in its order, and the faults of its rows.

    `addressed`: whether an Id must contain the image's address. Duplicate rows count once."""
    entries: dict[str, Entry] = {}
    bad: list[Fault] = []
    labels = (" ".join(re.split(r"[\s|]+", text)).strip() for text in table.need(columns[1]))
    for row, (name, target) in enumerate(zip(table.need(columns[0]), labels, strict=True)):
        parsed = _ID.fullmatch(name) if addressed else None
        problem = image_list.id_problem(name)
        if addressed and not problem and (not parsed or len(name) > LONGEST):
            problem = f"has the Id {printable(name)[:80]!r}, which is not gene_antibody_plate_well_field"
        if problem:
            bad.append(
                Fault(name or f"(line {table.lines[row]})", table.where(row), "Id that is no file name", problem)
            )
        elif row in table.faults:
            bad.append(Fault(name, table.where(row), "broken row", table.faults[row]))
        elif name not in entries:
            entries[name] = Entry(name, target, row, **(parsed.groupdict() if parsed else {}))
        elif set(entries[name].target.split()) != set(target.split()):
            reason = f"Id {name!r} stands in line {table.lines[entries[name].row]} too, with other labels"
            bad.append(Fault(name, table.where(row), "conflicting rows", reason))
    if not entries and not bad:
        raise UserError(f"{table.path} has no rows")
    conflicting = {entry.id for entry in bad}
    return [entry for name, entry in entries.items() if name not in conflicting], bad


def limited(entries: list[Entry], images: int, per_class: int) -> list[Entry]:
    """The first `images` entries, or those among the first `per_class` of any of their classes; 0: no limit."""
    if per_class:
        seen: Counter[str] = Counter()
        kept = []
        for entry in entries:
            classes = entry.target.split()
            if any(seen[name] < per_class for name in classes):
                kept.append(entry)
                seen.update(classes)
        entries = kept
    return entries[:images] if images else entries
