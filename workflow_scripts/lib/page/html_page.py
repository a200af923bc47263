"""Building blocks of the self-contained page: tables that are also CSV, figures that follow light and dark, escaping.

Everything a template prints passes through autoescape; only figures that MixLoc drew itself are marked as safe."""

from __future__ import annotations

import csv
import json
import math
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from workflow_scripts.lib.base.files import atomic
from workflow_scripts.lib.page import figure_style

EMPTY = "–"
INTERVALS = ("difference", "estimate")  # kinds whose values are a figure, the low and the high end of its interval


@dataclass(frozen=True)
class Column:
    """A column: its key in the rows, its heading, and how its values are written."""

    key: str
    title: str
    kind: str = "text"  # text | name | number | signed | count | percent | seconds | difference | estimate
    digits: int = 3
    hint: str = ""


@dataclass
class PageTable:
    """A table of the page; every table is also written as CSV under its name."""

    name: str
    caption: str
    columns: list[Column]
    rows: list[dict[str, Any]]
    note: str = ""
    csv: str = ""  # where its CSV lies, seen from the page
    mark: Callable[[dict[str, Any]], str] = field(default=lambda row: "")  # CSS class of a row

    def cells(self, row: dict[str, Any]) -> list[tuple[Column, str, str]]:
        """The row as text: each value, and what stands small beneath it."""
        return [
            (column, written(row.get(column.key), column), below(row.get(column.key), column))
            for column in self.columns
        ]


def written(value: Any, column: Column) -> str:
    """A value as text for a person."""
    if value is None or value == "" or (isinstance(value, float) and math.isnan(value)):
        return EMPTY
    if column.kind == "difference":
        return figure_style.signed(value[0], column.digits)
    if column.kind == "estimate":
        return estimated(value[0])
    if column.kind == "signed":
        return figure_style.signed(float(value), column.digits)
    if column.kind == "number":
        return f"{float(value):.{column.digits}f}"
    if column.kind == "count":
        return f"{round(float(value)):,}"
    if column.kind == "percent":
        return f"{100 * float(value):.1f} %"
    if column.kind == "seconds":
        return f"{float(value):,.1f}" if float(value) < 100 else f"{float(value):,.0f}"
    return str(value)


def estimated(value: float) -> str:
    """A number of any size, to three digits behind the point where it is small."""
    if math.isnan(value):
        return EMPTY
    text = f"{value:.3f}" if abs(value) < 10 else f"{value:,.1f}"
    return ("0.000" if float(text.replace(",", "")) == 0 else text).replace("-", "−")


def below(value: Any, column: Column) -> str:
    """The interval of a difference or an estimate, as text."""
    if column.kind == "estimate" and value and not math.isnan(value[1]):
        return f"{estimated(value[1])} to {estimated(value[2])}"
    return figure_style.span(value[1], value[2], column.digits) if column.kind == "difference" and value else ""


def write_tables(folder: Path, tables: list[PageTable], seen_from: str) -> None:
    """Write every table as CSV into a folder that appears whole, and tell the tables where."""
    with atomic(folder) as part:
        part.mkdir()
        for table in tables:
            with (part / f"{table.name}.csv").open("w", newline="", encoding="utf-8") as handle:
                writer = csv.writer(handle, lineterminator="\n")
                writer.writerow([name for column in table.columns for name in _csv_names(column)])
                for row in table.rows:
                    writer.writerow([cell for column in table.columns for cell in _csv_cells(row, column)])
            table.csv = f"{seen_from}/{table.name}.csv"


def _csv_names(column: Column) -> list[str]:
    return [column.key, f"{column.key}_low", f"{column.key}_high"] if column.kind in INTERVALS else [column.key]


def _csv_cells(row: dict[str, Any], column: Column) -> list[Any]:
    value = row.get(column.key)
    values = list(value) if column.kind in INTERVALS and value is not None else [value]
    values += [None] * (len(_csv_names(column)) - len(values))
    # Nine digits: more than anything here is known to, fewer than the last bits of a sum.
    clean = [
        item if not isinstance(item, float) else "" if math.isnan(item) else float(f"{item:.9g}") for item in values
    ]
    # Spreadsheets run text that starts like a formula.
    return [f"'{item}" if isinstance(item, str) and item[:1] in ("=", "+", "-", "@") else item for item in clean]


# How all pages begin.
HEAD = Markup(
    '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
    '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
    '<meta name="color-scheme" content="light dark">'
)


def styles() -> Markup:
    """What all pages share: the figures' colours as custom properties, for light and for dark pages, and base.css."""
    light = "".join(f"--{name}:{pair[0]};" for name, pair in figure_style.THEME.items())
    dark = "".join(f"--{name}:{pair[1]};" for name, pair in figure_style.THEME.items())
    base = Path(__file__).with_name("base.css").read_text(encoding="utf-8").rstrip()
    theme = f":root{{{light}}}@media (prefers-color-scheme:dark){{:root{{{dark}}}}}"
    return Markup(f"{theme}\n{base}")  # noqa: S704  files of MixLoc


_COLOURS = {pair[0]: f"var(--{name})" for name, pair in figure_style.THEME.items()}


def inline_svg(text: str, name: str, alt: str) -> Markup:
    """An SVG file that MixLoc drew, ready to stand inside a page: colours follow the theme, its names collide with no
    other figure's, and its alternative text is escaped."""
    body = text[text.index("<svg") :]
    # Data of embedded images is kept as it is: everything below works on the markup around it.
    pieces = re.split(r"(data:image/png;base64,[A-Za-z0-9+/=\s]+)", body)
    body = "".join(piece if piece.startswith("data:") else _themed(piece, name) for piece in pieces)
    opening = re.match(r"<svg[^>]*>", body)
    box = re.search(r'viewBox="([^"]*)"', opening[0]) if opening else None
    if opening is None or box is None:
        raise ValueError(f"figure {name} is not an SVG file of MixLoc's")
    head = f'<svg class="figure" role="img" aria-label="{Markup.escape(alt)}" viewBox="{Markup.escape(box[1])}">'
    return Markup(head + body[opening.end() :])  # noqa: S704  drawn by this run, its text escaped by matplotlib


def _themed(text: str, name: str) -> str:
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r"<!--.*?-->", "", text, flags=re.DOTALL)
    text = re.sub(r"#[0-9a-f]{6}\b", lambda colour: _COLOURS.get(colour[0], colour[0]), text)
    text = re.sub(r'\bid="([^"]+)"', rf'id="{name}-\1"', text)
    text = re.sub(r"url\(#([^)]+)\)", rf"url(#{name}-\1)", text)
    return re.sub(r'href="#([^"]+)"', rf'href="#{name}-\1"', text)


def pretty_json(value: Any) -> str:
    """JSON for a person."""
    return json.dumps(value, indent=2, ensure_ascii=False, sort_keys=True)


def render(template: str, context: dict[str, Any]) -> str:
    """Fill a template, which also gets the `head` and the `styles` of all pages; every value is escaped, and a name
    that is missing is an error."""
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.from_string(template).render({"head": HEAD, "styles": styles()} | context).lstrip()
