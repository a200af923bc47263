"""What a first config must know of one's own images: guessed, asked in a terminal, or given by flags."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from workflow_scripts.lib.base.errors import UserError
from workflow_scripts.lib.base.names import meant
from workflow_scripts.lib.config import first_config
from workflow_scripts.lib.config.first_config import Choices
from workflow_scripts.lib.images import class_folders, column_guess, folder_guess, user_tables
from workflow_scripts.lib.images.known_datasets import GROUP_BY
from workflow_scripts.lib.images.user_tables import UserTable

TABLES = (".csv", ".tsv", ".txt", ".csv.gz", ".tsv.gz")


def choices(args: argparse.Namespace, run: str) -> Choices:
    """All that the config says, as guessed, asked or given; `args` are those of the program start."""
    images, tables = _places(args, run)
    table, said = _label_table(args, images, tables)
    print(f"{len(said.ids):,} Ids in {table.path}, {said.covered:.0%} with files; channels: {', '.join(said.channels)}")
    candidates = column_guess.labels(table, said.id_column)
    labels = _ask(args, "labels", "column of the labels", candidates, list(table.columns))
    groups_table = _groups_table(images, table, tables, said)
    known = column_guess.groups(table, (said.id_column, labels))
    if groups_table:
        known += column_guess.groups(groups_table, (said.id_column, labels))
    columns = [*table.columns, *(groups_table.columns if groups_table else ())]
    columns = [name for name in dict.fromkeys(columns) if name not in (said.id_column, labels)]
    likely = [name for name in dict.fromkeys(known) if name.lower() in GROUP_BY]
    group_by = _ask_groups(args, [", ".join(likely)] if likely else known, columns)
    # Whatever has such a name and a value joins, also the labels, or a column with one value.
    given = [table, *([groups_table] if groups_table else [])]
    joined = [name for one in given for name, own in one.columns.items() if name.lower() in GROUP_BY and any(own)]
    protein = _ask(
        args, "protein", "channel of the protein", [column_guess.protein_channel(said.channels)], said.channels
    )
    nucleus = column_guess.nucleus_channel(said.channels)
    seen = first_config.look(said, images, nucleus)
    cells = _ask_cells(args, first_config.whole_fields(seen, said, nucleus), nucleus, seen)
    if seen.side < 16:
        raise UserError(f"the images are {seen.side} px wide; MixLoc needs 16 or more")
    path = groups_table.path if groups_table else None
    return Choices(
        run, images, table, said, labels, protein, path, group_by, joined, cells, seen.side, seen.square, seen.stretched
    )


def _places(args: argparse.Namespace, run: str) -> tuple[Path, list[UserTable]]:
    """The folder with the image files, and the tables that may belong to it."""
    images = args.folder
    if not folder_guess.image_names(images, 1):
        below = [path for path in sorted(images.iterdir()) if path.is_dir() and folder_guess.image_names(path, 1)]
        images = below[0] if len(below) == 1 else images
    if args.table:
        return images, [user_tables.read_table(args.table)] + _tables_in(args.table.parent, args.table)
    found = _tables_in(args.folder) or _tables_in(args.folder.parent)
    if found:
        return images, found
    if folders := class_folders.classes(args.folder):
        gathered, table = Path(f"{run}-images"), Path(f"{run}-labels.csv")
        for path in (gathered, table):
            refuse_overwriting(path, args.force)
        class_folders.gather(folders, gathered, table)
        print(f"no table: the {len(folders)} folders are taken as classes. Wrote {gathered}/ (links) and {table}")
        return gathered, [user_tables.read_table(table)]
    raise UserError(f"no table lies in {args.folder} or beside it: name one by --table, with columns of Ids and labels")


def _tables_in(folder: Path, *but: Path) -> list[UserTable]:
    """The tables of a folder that can be read and have two columns or more."""
    found = []
    for path in sorted(folder.iterdir()):
        if path.is_file() and path.name.lower().endswith(TABLES) and path not in but:
            try:
                table = user_tables.read_table(path)
            except UserError:
                continue
            found += [table] if len(table.columns) > 1 and len(table) else []
    return found


def _label_table(
    args: argparse.Namespace, images: Path, tables: list[UserTable]
) -> tuple[UserTable, folder_guess.Files]:
    """The table of labels, with how files follow from its Ids."""
    if args.table or len(tables) == 1:
        return tables[0], folder_guess.guess(images, tables[0], args.id)
    fitting = {}
    for table in tables:
        try:
            said = folder_guess.guess(images, table, args.id)
        except UserError:
            continue
        fitting[str(table.path)] = (table, said)
    if not fitting:
        raise UserError(f"none of the tables names the files of {images}: name one by --table")
    likely = sorted(fitting, key=lambda path: (not column_guess.labels(*_told(fitting[path])), path))
    return fitting[_ask(args, "table", "table of the labels", likely, likely)]


def _told(pair: tuple[UserTable, folder_guess.Files]) -> tuple[UserTable, str]:
    return pair[0], pair[1].id_column


def _groups_table(
    images: Path, table: UserTable, tables: list[UserTable], said: folder_guess.Files
) -> UserTable | None:
    """Another table with a row for all Ids, under the same name of their column."""
    for other in tables:
        column = other.find(said.id_column)
        if other is not table and column and set(other.columns[column]) >= set(said.ids):
            return other if column_guess.groups(other, (column,)) else None
    return None


def _ask(args: argparse.Namespace, flag: str, what: str, likely: Sequence[str], known: Sequence[str]) -> str:
    """One of the known names: that of the flag, or the answer, or the likeliest."""
    given = getattr(args, flag)
    if given is None or (flag == "table"):
        if not likely and not _asks(args):
            raise UserError(f"which is the {what}? Say --{flag}: {', '.join(known)}")
        given = _answer(args, f"{what} ({', '.join(known)})", likely[0] if likely else "")
    if given not in known:
        raise UserError(f"--{flag} {given}: there is no such {what}; there are {', '.join(known)}{meant(given, known)}")
    return given


def _ask_groups(args: argparse.Namespace, likely: Sequence[str], known: Sequence[str]) -> list[str]:
    """The columns that say which images belong together; none if there is none."""
    told = ", ".join([*known, "none"])
    guess = likely[0] if likely else "none"
    given = args.groups or _answer(args, f"column that says which images belong together ({told})", guess)
    names = [name.strip() for name in given.split(",") if name.strip() and name.strip() != "none"]
    for name in names:
        if name not in known:
            raise UserError(f"--groups {name}: there is no such column; there are {told}{meant(name, known)}")
    return names


def _ask_cells(
    args: argparse.Namespace, guessed: dict[str, str] | None, nucleus: str | None, seen: first_config.Look
) -> dict[str, str] | None:
    """How cells are cut out of whole fields; nothing is asked where the images look like single cells."""
    given = args.cells
    if given is None:
        if guessed is None:
            return None
        told = f"about {seen.nuclei:.0f} nuclei in an image" if "nucleus_channel" in guessed else "there are masks"
        given = _answer(args, f"are the images whole fields, to cut cells out of ({told}; yes, no)", "yes")
    if given.lower() not in ("yes", "y"):
        return None
    if guessed is None and nucleus is None:
        raise UserError("--cells yes: no channel is named as one of nuclei; write data.cells into the config yourself")
    return guessed or {"nucleus_channel": nucleus or ""}


def _asks(args: argparse.Namespace) -> bool:
    return not args.yes and sys.stdin.isatty()


def _answer(args: argparse.Namespace, question: str, guess: str) -> str:
    """The answer to a question; the guess where nobody is asked, or the answer is empty."""
    if not _asks(args):
        print(f"{question}: {guess}")
        return guess
    return input(f"{question} [{guess}]: ").strip() or guess


def refuse_overwriting(path: Path, force: bool) -> None:
    if path.exists() and not force:
        raise UserError(f"{path} is there already: name another by --out or --run, or overwrite it by --force")
