"""Entries of lists that start from another entry: `base: unet` takes all keys of that one but those given.

A list of a config replaces that of config.yaml. So a base is another entry of the list, or one of config.yaml.
Everything is filled in before the config is checked: neither checks nor digests know of bases."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

from workflow_scripts.lib.base.names import meant
from workflow_scripts.lib.config.problems import Config, ConfigError, short

LISTS = ("generators", "synthetic_sets", "arms")
DEFAULTS = Path(__file__).resolve().parents[3] / "config.yaml"


def fill_in(config: Config) -> Config:
    """The config with every entry of its lists complete; what is no list is left to the check of the models."""
    if not isinstance(config, dict):
        return config
    out = dict(config)
    for section in LISTS:
        entries = config.get(section)
        if isinstance(entries, list) and any(isinstance(entry, dict) and "base" in entry for entry in entries):
            out[section] = [_complete(section, entry, entries, ()) for entry in entries]
    return out


def hint(section: str, name: str) -> str:
    """What to do about a name that a list does not have, where config.yaml has it; or nothing."""
    if name not in _defaults(section):
        return ""
    return f". A list replaces that of config.yaml, which has it: add {{base: {name}}} to {section}"


def _complete(section: str, entry: Any, entries: list[Any], through: tuple[int, ...]) -> Any:
    """An entry with the keys of its base; `through` are the entries that led here, by their ids."""
    if not isinstance(entry, dict) or "base" not in entry:
        return entry
    if id(entry) in through:
        raise ConfigError(f"{section}: base = {short(entry['base'])} leads back to where it started")
    name, own = entry["base"], {key: value for key, value in entry.items() if key != "base"}
    # An entry may have the name of its base, which is then that of config.yaml.
    listed = {other["name"]: other for other in entries if isinstance(other, dict) and _is_name(other.get("name"))}
    if own.get("name", name) == name:
        listed.pop(name, None) if _is_name(name) else None
    known = _defaults(section) | listed
    if not _is_name(name) or name not in known:
        told = ", ".join(known) or "none"
        raise ConfigError(f"{section}: base = {short(name)} is no entry{meant(name, known)}; known: {told}")
    return merged(_complete(section, known[name], entries, (*through, id(entry))), own)


def _is_name(value: Any) -> bool:
    return isinstance(value, str)


def merged(base: Config, own: Config) -> Config:
    """Mappings merge, everything else is replaced: as a preset is laid over config.yaml."""
    out = dict(base)
    for key, value in own.items():
        both = isinstance(value, dict) and isinstance(base.get(key), dict)
        out[key] = merged(base[key], value) if both else value
    return out


@lru_cache
def _read() -> Config:
    return yaml.safe_load(DEFAULTS.read_text(encoding="utf-8"))


def _defaults(section: str) -> Config:
    return {entry["name"]: entry for entry in _read()[section]}
