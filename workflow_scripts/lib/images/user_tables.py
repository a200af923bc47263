"""Users' tables: tolerant reading of CSV and Parquet; every value is text until it has been checked."""

from __future__ import annotations

import csv
import gzip
import io
import re
import zlib
from array import array
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from workflow_scripts.lib.base.errors import UserError, raise_if_passing
from workflow_scripts.lib.images import parquet_tables
from workflow_scripts.lib.images.format_choices import PARQUET
from workflow_scripts.lib.images.invalid_input import printable

LARGEST = 2**30  # bytes of a table, unpacked
DELIMITERS = ",;\t"
SEP_LINE = re.compile(r"sep=([,;\t])\n", re.IGNORECASE)
# Control characters: HDF5 and HTML do not accept them, and nobody types them.
CONTROL = re.compile("[\0-\x08\x0e-\x1b\x7f\ufffe\uffff]")


@dataclass
class UserTable:
    """Table stored by columns, so that a large one needs little memory."""

    path: Path
    columns: dict[str, list[str]]
    lines: array[int]  # where each row begins in the file
    faults: dict[int, str] = field(default_factory=dict)  # row -> fault of its form
    unit: str = "line"  # what `lines` counts

    def __len__(self) -> int:
        return len(self.lines)

    def find(self, name: str) -> str | None:
        """Column of this name; case is ignored unless two columns differ in nothing else."""
        if name in self.columns:
            return name
        alike = [column for column in self.columns if column.casefold() == name.casefold()]
        return alike[0] if len(alike) == 1 else None

    def need(self, name: str) -> list[str]:
        """Values of a required column."""
        column = self.find(name)
        if column is None:
            names = ", ".join(self.columns) or "none"
            raise UserError(f"{self.path} has no column {name!r}; its columns are: {names}")
        return self.columns[column]

    def where(self, row: int) -> str:
        """File name and line number of a row, for messages."""
        return f"{self.path.name}, {self.unit} {self.lines[row]}"

    def alike(self, one: int, other: int) -> bool:
        """Whether two rows have the same values."""
        return all(values[one] == values[other] for values in self.columns.values())


def read_table(path: Path) -> UserTable:
    """Read a Parquet table, or a CSV with a header, perhaps gzipped.

    The header of a CSV decides between comma, semicolon and tab."""
    path = Path(path)
    if path.suffix.lower() == PARQUET:
        return _parquet(path)
    try:
        text = _text(path)
        delimiter, skipped = _told(text), 1
        if delimiter is None:
            header, skipped = text.partition("\n")[0], 0
            delimiter = max(DELIMITERS, key=header.count)
        # Strict, because a quote that is never closed would silently swallow the rest of the table.
        lines = io.StringIO(text)
        for _ in range(skipped):
            next(lines)
        reader = csv.reader(lines, delimiter=delimiter, skipinitialspace=True, strict=True)
        # A name may span lines in the table; everywhere else it is one line.
        names = _names(path, next(reader, []))
        table = UserTable(path, {name: [] for name in names if name}, array("l"))
        line = reader.line_num + skipped
        for cells in reader:
            begin, line = line + 1, reader.line_num + skipped
            cells = [cell.strip() for cell in cells]
            if any(cells):
                _add(table, names, cells, begin)
    except csv.Error as error:
        raise UserError(f"{path} cannot be read as a table: line {reader.line_num + skipped}: {error}") from None
    except (OSError, EOFError, zlib.error, UnicodeError) as error:
        raise_if_passing(error)
        raise UserError(f"{path} cannot be read as a table: {error}") from None
    return table


def _names(path: Path, header: Iterable[str]) -> list[str]:
    names = [printable(" ".join(name.split())) for name in header]
    twice = next((name for name in names if name and names.count(name) > 1), None)
    if twice:
        raise UserError(f"{path} has two columns {twice!r}")
    return names


def _parquet(path: Path) -> UserTable:
    try:
        columns = parquet_tables.text_columns(path)
    except UserError:
        raise
    except Exception as error:  # whatever a damaged file leads the package to
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"{path} cannot be read as a table: {printable(reason)}") from None
    names = _names(path, columns)
    table = UserTable(path, {name: [] for name in names if name}, array("l"), unit="row")
    for row, cells in enumerate(zip(*columns.values(), strict=True), 1):
        cells = [cell.strip() for cell in cells]
        if any(cells):
            _add(table, names, cells, row)
    return table


def _text(path: Path) -> str:
    with path.open("rb") as handle:
        packed = handle.read(2) == b"\x1f\x8b"
    with gzip.open(path) if packed else path.open("rb") as handle:
        content = handle.read(LARGEST + 1)
    if len(content) > LARGEST:
        raise UserError(f"{path} is larger than {LARGEST // 2**30} GiB unpacked; that is no table of images")
    # utf-8-sig drops the byte order mark that spreadsheets write; some write their text in two bytes a letter.
    wide = content[:2] in (b"\xff\xfe", b"\xfe\xff")
    if content[:4] == b"PK\3\4":
        raise UserError(f"{path} is a spreadsheet or an archive, no table: save it as 'CSV UTF-8'")
    try:
        text = content.decode("utf-16" if wide else "utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise UserError(f"{path}, line {line}: this is not UTF-8; save the table as 'CSV UTF-8'") from None
    if "\0" in text:
        raise UserError(f"{path} cannot be read as a table: it holds zero bytes, as other kinds of files do")
    return re.sub("\r\n?", "\n", text)


def _told(text: str) -> str | None:
    """The delimiter that a first line such as `sep=;` tells, as Excel writes it."""
    match = SEP_LINE.match(text)
    return match[1] if match else None


def _add(table: UserTable, names: list[str], cells: list[str], line: int) -> None:
    if any(cells[len(names) :]):
        table.faults[len(table)] = f"has {len(cells)} cells, the header {len(names)}"
    if any(map(CONTROL.search, cells)):
        table.faults[len(table)] = "holds control characters"
    cells += [""] * (len(names) - len(cells))
    for name, cell in zip(names, cells, strict=False):
        if name:
            table.columns[name].append(cell)
    table.lines.append(line)


def read_classes(path: Path) -> list[str]:
    """Class names by number from a table `number,name`."""
    table = read_table(path)
    numbers, names = table.need("number"), table.need("name")
    if table.faults:
        row, fault = next(iter(table.faults.items()))
        raise UserError(f"{table.where(row)}: {fault}")
    if numbers != [str(index) for index in range(len(table))]:
        raise UserError(f"{path}: the numbers must run 0, 1, 2 … in order")
    if not names or "" in names or len(set(names)) != len(names):
        raise UserError(f"{path}: every class needs a name of its own")
    return names
