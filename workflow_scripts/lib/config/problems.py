"""The error of a config, and how it writes keys and values: always one line. Free of models, so that it is light."""

from __future__ import annotations

import json
from typing import Any

Config = dict[str, Any]
Path = list[str | int]  # the keys and places in lists that lead to a value


class ConfigError(Exception):
    """What is wrong with the config, in one line that names the key."""

    def __init__(self, message: str) -> None:
        super().__init__(_one_line(message))


def short(value: Any) -> str:
    """A value as messages show it: at most 80 letters."""
    text = _one_line(json.dumps(value, ensure_ascii=False, default=str))
    return text if len(text) <= 80 else text[:77] + "..."


def written(path: Path) -> str:
    """A place as messages name it, such as arms[0].method."""
    text = "".join(f"[{step}]" if isinstance(step, int) else f".{step[:80]}" for step in path)
    return _one_line(text.removeprefix(".")) or "the config"


def _one_line(text: str) -> str:
    return "".join(char if char.isprintable() else "?" for char in text)
