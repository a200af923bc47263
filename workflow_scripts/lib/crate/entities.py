"""Entities of an RO-Crate: objects of JSON-LD that refer to each other by @id, gathered in one graph."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from urllib.parse import quote

Entity = dict[str, Any]
# Media types that Python's table lacks or that differ between machines.
FORMATS = {
    ".csv": "text/csv", ".json": "application/json", ".html": "text/html", ".h5": "application/x-hdf5",
    ".safetensors": "application/octet-stream", ".cff": "application/yaml", ".yaml": "application/yaml",
}  # fmt: skip


def ref(entity: Entity | str) -> Entity:
    """The reference to an entity, or to an @id."""
    return {"@id": entity if isinstance(entity, str) else entity["@id"]}


def refs(entities: Iterable[Entity]) -> list[Entity]:
    """References to several entities."""
    return [ref(entity) for entity in entities]


class Graph:
    """Entities by @id, in the order in which they were added."""

    def __init__(self) -> None:
        self._entities: dict[str, Entity] = {}

    def add(self, name: str, kind: str | list[str], /, **properties: Any) -> Entity:
        """Add an entity; properties that are None are left out. What is there already must be the same."""
        entity = {"@id": name, "@type": kind} | {key: value for key, value in properties.items() if value is not None}
        if self._entities.setdefault(name, entity) != entity:
            raise ValueError(f"two entities of the crate have the @id {name}")
        return entity

    def add_file(self, root: Path, path: Path, /, **properties: Any) -> Entity:
        """Add a file below the crate's root, with its size and checksum."""
        place = quote(path.relative_to(root).as_posix())
        return self.add(place, properties.pop("kind", "File"), **content(path), **properties)

    def add_folder(self, root: Path, path: Path, /, **properties: Any) -> Entity:
        """Add a folder below the crate's root."""
        return self.add(f"{quote(path.relative_to(root).as_posix())}/", "Dataset", **properties)

    def document(self, context: list[Any]) -> Entity:
        """The whole crate as JSON-LD."""
        return {"@context": context, "@graph": list(self._entities.values())}


def content(path: Path) -> Entity:
    """Media type, size and SHA-256 of a file."""
    with path.open("rb") as handle:
        digest = hashlib.file_digest(handle, "sha256").hexdigest()
    form = FORMATS.get(path.suffix, "text/plain")
    return {"encodingFormat": form, "contentSize": str(path.stat().st_size), "sha256": digest}
