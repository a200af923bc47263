"""The files that are made from the models: the JSON schema for editors, and the tables of all settings.

    python -m workflow_scripts.lib.config.document     (make config-docs)

Defaults come from config.yaml. In Markdown files, what stands between the two MARKS is made, the rest is written."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from snakemake.common.configfile import load_configfile

from workflow_scripts.lib.config import schema
from workflow_scripts.lib.config.schema import Schema

ROOT = Path(__file__).resolve().parents[3]
COMMAND = "make config-docs"
MARKS = (
    f"<!-- Made by {COMMAND}; changes go to workflow_scripts/lib/config/models*.py. -->",
    "<!-- End of what is made. -->",
)
LONGEST = 48  # letters of a default in a table


@dataclass(frozen=True)
class Row:
    """One key of the config, as tables show it."""

    key: str
    allowed: str
    unit: str
    default: str  # or whether a key of a list's entry is required
    about: str
    choices: tuple[tuple[str, str], ...]  # where each choice has a description: its name and that


def pages(root: Path) -> dict[Path, str]:
    """The text of every file that is made, by its path."""
    sections = list(_sections(load_configfile(root / "config.yaml")))
    short = [_table(title, about, rows, ("key", "default", "about")) for title, about, rows in sections]
    long = [_table(*part, ("key", "allowed", "unit", "default", "about")) + _choices(part[2]) for part in sections]
    out = {root / "schemas" / "config.schema.json": schema_text()}
    for name, tables in {"docs/config.md": long, "config/README.md": short}.items():
        head, _, rest = (root / name).read_text(encoding="utf-8").partition(MARKS[0])
        out[root / name] = "\n".join([f"{head}{MARKS[0]}\n", *tables, f"{MARKS[1]}{rest.partition(MARKS[1])[2]}"])
    return out


def schema_text() -> str:
    """The JSON schema, laid out so that a changed key is a changed line."""
    about = {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "MixLoc: the settings of a run"}
    whole = about | schema.schema()
    whole["$defs"] = {name: _with_base(part) for name, part in whole["$defs"].items()}
    return _laid_out(whole, "", names=False) + "\n"


def _with_base(part: Schema) -> Schema:
    """A schema by which an entry that has a base or a file may leave out all other keys."""
    if "base" not in part.get("properties", {}):
        return part
    taken = [{"required": [name]} for name in ("base", "from") if name in part["properties"]]
    needed = {"if": {"not": {"anyOf": taken}}, "then": {"required": part["required"]}}
    return {key: value for key, value in part.items() if key != "required"} | needed


def _laid_out(value: Any, indent: str, names: bool) -> str:
    """JSON with a line for each key of the config. `names`: this mapping's keys are names, not words of a schema."""
    if not names and not (isinstance(value, dict) and "properties" in value):
        return json.dumps(value, ensure_ascii=False)
    inner = indent + " "
    below = {key: _laid_out(part, inner, not names and key in ("properties", "$defs")) for key, part in value.items()}
    return "{\n" + ",\n".join(f"{inner}{json.dumps(key)}: {text}" for key, text in below.items()) + f"\n{indent}}}"


def _sections(default: dict[str, Any]) -> Iterator[tuple[str, str, list[Row]]]:
    """Title, description and rows of each section; the keys at the top that are no section come first, together."""
    top = schema.schema()["properties"]
    inner = {name: schema.branches(part.get("items", part))[0] for name, part in top.items()}
    plain = {name: part for name, part in top.items() if "properties" not in inner[name]}
    yield "run", "Keys at the top of the config.", list(_rows({"properties": plain}, default, ""))
    for name in (name for name in top if name not in plain):
        listed, part = "items" in top[name], inner[name]
        shared = [key for key, value in part["properties"].items() if schema.OPTIONS in value.get("$ref", "")]
        own = {key: value for key, value in part["properties"].items() if key not in shared}
        about = part["description"] + (" A list: each entry has these keys." if listed else "")
        if shared:
            about += f" It may replace these keys of train_classifier by its own: {', '.join(shared)}."
        yield name, about, list(_rows(part | {"properties": own}, None if listed else default[name], ""))


def _rows(part: Schema, default: dict[str, Any] | None, prefix: str) -> Iterator[Row]:
    """A row for each key of a mapping and of those within it."""
    for name, value in part["properties"].items():
        branches = schema.branches(value)
        nested = [branch for branch in branches if "properties" in branch]
        said = default.get(name) if default is not None else None
        if not nested or len(branches) > 1:
            need = "required" if name in part.get("required", ()) else "optional"
            shown = need if default is None else _shown(said)
            choices = tuple(zip(branches[0].get("enum", ()), branches[0].get("enumDescriptions", ()), strict=False))
            words = schema.allowed(branches).removeprefix("a ").removeprefix("an ")
            allowed = "one of those below" if choices else words
            yield Row(f"`{prefix}{name}`", allowed, value.get("unit", ""), shown, value["description"], choices)
        for branch in nested:
            below = None if default is None or not isinstance(said, dict) else said
            yield from _rows(branch, below, f"{prefix}{name}.")


def _shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return f"`{text if len(text) <= LONGEST else text[: LONGEST - 1] + '…'}`"


def _table(title: str, about: str, rows: list[Row], columns: tuple[str, ...]) -> str:
    lines = [[{"about": "what it is"}.get(name, name) for name in columns], ["---"] * len(columns)]
    lines += [[getattr(row, name).replace("|", r"\|") for name in columns] for row in rows]
    return "\n".join([f"## {title}", "", about, "", *(f"| {' | '.join(line)} |" for line in lines), ""])


def _choices(rows: list[Row]) -> str:
    return "".join(
        f"\nChoices of {row.key}:\n\n" + "".join(f"- `{name}`: {about}\n" for name, about in row.choices)
        for row in rows
        if row.choices
    )


def main(root: Path = ROOT) -> int:
    """Write what is not as it would be made, and say so."""
    for path, text in pages(root).items():
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")
            print(f"{path.relative_to(root)}: made anew")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
