"""Command line of the stages: shared flags, and values of the form name=path.

A file of every fold is given as set/repeat/fold=path."""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from workflow_scripts.lib.base.errors import UserError


class Parser(argparse.ArgumentParser):
    """Argument parser in which one argument may stand for the files of all folds: `repeat{repeat}/fold{fold}/x.h5`.

    `--places 5x3` says that there are 5 repeats of 3 folds. Listing thousands of paths would exceed the length limit of
    a command line (128 kB)."""

    def parse_known_args(
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> tuple[argparse.Namespace, list[str]]:
        """Replace each pattern by the paths of all folds, then parse as usual."""
        given = list(sys.argv[1:] if args is None else args)
        if "--places" in given:
            at = given.index("--places")
            places = re.fullmatch(r"(\d+)x(\d+)", " ".join(given[at + 1 : at + 2]))
            if not places:
                self.error("--places must be repeats x folds, such as 5x3")
            given = _at_places(given[:at] + given[at + 2 :], int(places[1]), int(places[2]))
        return super().parse_known_args(given, namespace)


def _at_places(given: list[str], repeats: int, folds: int) -> list[str]:
    out: list[str] = []
    for before, text in zip(["", *given], given, strict=False):
        if before == "--settings" or not ("{repeat}" in text or "{fold}" in text):
            out.append(text)
            continue
        paths = [
            text.replace("{repeat}", str(repeat)).replace("{fold}", str(fold))
            for repeat in range(repeats)
            for fold in range(folds)
        ]
        # A file of a repeat alone comes once.
        out += dict.fromkeys(paths)
    return out


def parser(doc: str) -> argparse.ArgumentParser:
    """Argument parser with the flags that all stages share; `doc` is the stage's docstring."""
    summary, _, rest = (doc or "").partition("\n")
    out = Parser(
        description=summary, epilog=rest, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    out.add_argument("--places", metavar="RxF", help="R repeats of F folds: {repeat}, {fold} in paths stand for each")
    out.add_argument("--settings", type=_json_object, required=True, help="the stage's settings, one JSON object")
    out.add_argument("--log", type=Path, help="where to write the log; standard error alone if not given")
    return out


def _json_object(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise argparse.ArgumentTypeError(f"not JSON: {error}") from None
    if not isinstance(value, dict):
        raise argparse.ArgumentTypeError("must be a JSON object, such as {}")
    return value


def pairs(texts: list[str], flag: str) -> list[tuple[str, Path]]:
    """Split each `name=path` into a name and a path."""
    out = []
    for text in texts:
        name, sign, path = text.partition("=")
        if not sign or not path:
            raise UserError(f"{flag} {text!r} must be a name and a path, such as name=path")
        out.append((name, Path(path)))
    return out


def add_progress(out: argparse.ArgumentParser) -> None:
    """The folder in which a training tells its course."""
    out.add_argument("--progress", type=Path, help="folder for the course of the training, for the progress page")


def add_role_tables(parser: argparse.ArgumentParser) -> None:
    """Add the flag --folds: each repeat's table of roles."""
    words = "each repeat's table of roles"
    parser.add_argument("--folds", nargs="+", type=repeat_table, required=True, metavar="REPEAT=CSV", help=words)


def repeat_table(text: str) -> tuple[int, Path]:
    """Number of a repeat and its table of roles, from a word such as 0=repeat0/folds.csv; a type of arguments."""
    repeat, _, path = text.partition("=")
    if not repeat.isdecimal() or not path:
        raise argparse.ArgumentTypeError(f"{text!r} must be a repeat and its table, such as 0=repeat0/folds.csv")
    return int(repeat), Path(path)


def place(where: str) -> list[str]:
    """Split `set/repeat/fold` into synthetic set, repeat and fold."""
    parts = where.rsplit("/", 2)
    if len(parts) != 3:
        raise UserError(f"{where!r} must read set/repeat/fold")
    return parts


def of_sets(texts: list[str], flag: str) -> list[tuple[str, Path]]:
    """Split each `set/repeat/fold=path` into a synthetic set and a path."""
    return [(place(where)[0], path) for where, path in pairs(texts, flag)]
