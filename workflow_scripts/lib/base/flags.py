"""Values of command lines that name what a file is of: name=path, and plan/repeat/fold=path."""

from __future__ import annotations

from pathlib import Path

from workflow_scripts.lib.base.stage import UserError


def pairs(texts: list[str], flag: str) -> list[tuple[str, Path]]:
    """Names and paths, from name=path."""
    out = []
    for text in texts:
        name, sign, path = text.partition("=")
        if not sign or not path:
            raise UserError(f"{flag} {text!r} must be a name and a path, such as name=path")
        out.append((name, Path(path)))
    return out


def place(where: str) -> list[str]:
    """Plan, repeat and fold."""
    parts = where.rsplit("/", 2)
    if len(parts) != 3:
        raise UserError(f"{where!r} must read plan/repeat/fold")
    return parts


def of_sets(texts: list[str], flag: str) -> list[tuple[str, Path]]:
    """Synthetic sets and paths, from plan/repeat/fold=path of every fold."""
    return [(place(where)[0], path) for where, path in pairs(texts, flag)]
