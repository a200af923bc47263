"""Settings of a run as parameters of the workflow: one for each key, with its description, type and value."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import quote

from workflow_scripts.lib.config import schema
from workflow_scripts.lib.crate.entities import Entity, Graph, ref

TYPES = {bool: "Boolean", int: "Integer", float: "Float"}
PROFILE = "https://bioschemas.org/profiles/FormalParameter/1.0-RELEASE"


def without_places(value: Any) -> Any:
    """Settings in which a path of this machine is replaced by its last part."""
    if isinstance(value, dict):
        return {name: without_places(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [without_places(inner) for inner in value]
    if isinstance(value, str) and value.startswith(("/", "~", "..")):
        return PurePosixPath(value).name or value  # "/" alone is a separator
    return value


def leaves(settings: dict[str, Any], path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Each key and its value; a list is one value."""
    for name, value in settings.items():
        if isinstance(value, dict) and value:
            yield from leaves(value, (*path, name))
        else:
            yield (*path, name), value


def add(graph: Graph, settings: dict[str, Any]) -> tuple[list[Entity], list[Entity]]:
    """Add a formal parameter and its value for each setting; both lists in the same order."""
    formal, given = [], []
    for path, value in leaves(without_places(settings)):
        name = ".".join(path)
        parameter = add_formal(graph, name, _description(path), TYPES.get(type(value), "Text"))
        formal.append(parameter)
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        about = {"name": name, "value": text, "exampleOfWork": ref(parameter)}
        given.append(graph.add(f"#setting/{quote(name)}", "PropertyValue", **about))
    return formal, given


def add_formal(graph: Graph, name: str, description: str, kind: str) -> Entity:
    """Add a formal parameter of the workflow: an input or an output."""
    return graph.add(
        f"#{'file' if kind == 'File' else 'parameter'}/{quote(name)}",
        "FormalParameter",
        conformsTo={"@id": PROFILE},
        name=name,
        additionalType=kind,
        description=description or None,
    )


def _description(path: tuple[str, ...]) -> str:
    """The description that the schema has of a key."""
    for part in schema.at(list(path[:-1])) if path[:-1] else [schema.schema()]:
        if found := part.get("properties", {}).get(path[-1], {}).get("description"):
            return str(found)
    return ""
