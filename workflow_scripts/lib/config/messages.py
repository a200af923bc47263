"""What is wrong with a config, in one line: the key, its value and what is allowed there."""

import re
from typing import Any

from pydantic import ValidationError

from workflow_scripts.lib.base.names import meant
from workflow_scripts.lib.config import bases, old_keys, origins, schema
from workflow_scripts.lib.config.models import Config as Model
from workflow_scripts.lib.config.problems import Config, ConfigError, Path, short, written

# Far above any sound config; below what a recursion takes and a whole number of 64 bits holds.
DEEPEST, MOST_VALUES, LARGEST = 32, 1_000_000, 2**63


def parsed(config: Config) -> Config:
    """The config as its models read it, key by key; the first thing wrong with it ends in a ConfigError."""
    _check_form(config)
    config = origins.fill_in(bases.fill_in(config))
    renamed = old_keys.renamed(config)
    if renamed:
        raise ConfigError("; ".join(renamed))
    try:
        return Model.model_validate(config).model_dump(exclude_unset=True, by_alias=True, warnings=False)
    except ValidationError as error:
        raise ConfigError(_told(error, config)) from None


def _told(error: ValidationError, config: Config) -> str:
    """The first error by its place; of alternatives the one that came closest."""
    faults: dict[tuple[str | int, ...], tuple[str, str, Any]] = {}
    for entry in error.errors(include_url=False, include_context=False):
        kind = "name" if entry["loc"][-1:] == ("[key]",) else entry["type"]
        path, value = _place(entry["loc"], config, kind)
        faults.setdefault(tuple(path), (kind, entry["msg"], value))
    outer = {path[:length] for path in faults for length in range(len(path))}
    closest = sorted((path for path in faults if path not in outer), key=lambda path: [str(step) for step in path])
    kind, message, value = faults[closest[0]]
    more = f" (and {len(closest) - 1} more)" if len(closest) > 1 else ""
    return _line(list(closest[0]), kind, message, value) + more


def _place(steps: tuple[str | int, ...], config: Config, kind: str) -> tuple[Path, Any]:
    """A place of the config and its value, from pydantic's, which names alternatives in between."""
    path: Path = []
    value: Any = config
    for number, step in enumerate(steps):
        if (isinstance(value, dict) and step in value) or (isinstance(value, list) and isinstance(step, int)):
            value = value[step]
            path.append(step)
        elif number == len(steps) - 1 and kind == "missing":
            path.append(step)
    return path, value


def _line(path: Path, kind: str, message: str, value: Any) -> str:
    where, inner = written(path), schema.at(path[:-1])
    if kind == "missing":
        of_entry = len(path) == 3 and path[0] in bases.LISTS
        return f"{where} is missing" + "; base: NAME takes all other keys from an entry of config.yaml" * of_entry
    if kind == "extra_forbidden":
        known = sorted({name for part in inner for name in part.get("properties", {})})
        return f"{where} is not a known key{meant(str(path[-1]), known)}; known here: {', '.join(known)}"
    if kind == "value_error":
        return f"{where} = {short(value)}: {message.removeprefix('Value error, ')}"
    if kind == "name":
        names = [part["propertyNames"] | {"type": "string"} for part in inner if "propertyNames" in part]
        return f"{written(path[:-1])} has the key {short(path[-1])}: must be {schema.allowed(names)}"
    branches = schema.at(path)
    choices = [entry for part in branches for entry in part.get("enum", []) if isinstance(entry, str)]
    return f"{where} = {short(value)}: must be {schema.allowed(branches)}{meant(value, choices)}"


def _check_form(config: Config) -> None:
    """What holds for every value whatever its key: YAML can say more than the models, JSON and a command line can."""
    waiting: list[tuple[Path, Any]] = [([], config)]
    for count in range(1, MOST_VALUES + 1):
        if not waiting:
            return
        path, value = waiting.pop()
        problem = _form_problem(path, value)
        if problem:
            raise ConfigError(f"{written(path)} {problem}")
        if isinstance(value, dict):
            waiting += [([*path, key], value[key]) for key in reversed(value)]
        elif isinstance(value, list):
            waiting += [([*path, place], value[place]) for place in reversed(range(len(value)))]
        if len(waiting) + count > MOST_VALUES:
            break
    raise ConfigError(f"the config holds more than {MOST_VALUES} values")


def _form_problem(path: Path, value: Any) -> str | None:
    if len(path) > DEEPEST:
        return f"is nested more than {DEEPEST} deep"
    if isinstance(value, dict):
        odd = next((key for key in value if not isinstance(key, str)), None)
        if odd is not None or None in value:
            return f"has the key {str(odd)[:80]}, which YAML does not take for text: put it in quotes"
        problems = (_text_problem(key) for key in value)
        return next((f"has a key that {problem}" for problem in problems if problem), None)
    if isinstance(value, str):
        return _text_problem(value)
    if isinstance(value, bool | list) or value is None:
        return None
    if isinstance(value, int | float):
        return None if abs(value) < LARGEST else "must be a finite number of less than 64 bits"
    return f"is of the type {type(value).__name__}: put it in quotes, so that YAML takes it for text"


def _text_problem(text: str) -> str | None:
    odd = re.search("[\0-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff]", text)
    return f"holds the character U+{ord(odd[0]):04X}, which text cannot have" if odd else None
