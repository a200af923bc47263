"""Registries: one list of choices for each kind of choice, such as the samplers.

An entry is a name with the facts that checks, schema and documentation need; none of them needs torch. The functions
are in another module and have the names of the entries. So a new choice is one function and one line."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol, TypeVar

from workflow_scripts.lib.base.names import meant


class Facts(Protocol):
    """What every entry has."""

    @property
    def about(self) -> str:
        """One line about the choice, for documentation."""


Entry = TypeVar("Entry", bound=Facts)


class Registry(dict[str, Entry]):
    """Choices of one kind: facts by name, in the order in which documentation lists them."""

    def __init__(self, kind: str, entries: Mapping[str, Entry]) -> None:
        super().__init__(entries)
        self.kind = kind  # in the singular, for messages

    def function(self, name: str, namespace: Mapping[str, Any]) -> Callable[..., Any]:
        """The function of a choice; `namespace` is `globals()` of the module in which it stands.

        The caller names the module, rather than this registry, so that whatever uses a choice imports its code:
        re-run digests follow imports."""
        if name not in self:
            raise ValueError(self.unknown(name))
        wanted = getattr(self[name], "step", name)  # several methods may share a step
        if wanted not in namespace:
            raise LookupError(f"{namespace['__name__']} has no function {wanted!r} for the {self.kind} {name!r}")
        return namespace[wanted]

    def unknown(self, name: str) -> str:
        """One-line error message for a name that is not in the registry."""
        return f"{self.kind} {name!r} is not known; known: {', '.join(self) or 'none'}{meant(name, self)}"

    def descriptions(self) -> dict[str, str]:
        """One line about each choice, by name."""
        return {name: entry.about for name, entry in self.items()}

    def having(self, fact: str) -> tuple[str, ...]:
        """Names of the choices for which a fact is true."""
        return tuple(name for name, entry in self.items() if getattr(entry, fact))
