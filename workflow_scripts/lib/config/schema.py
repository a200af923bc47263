"""The JSON schema of the config, made from its models, and what it allows at a key, in words."""

import re
from functools import lru_cache
from typing import Any

from workflow_scripts.lib.config.models import Config

Schema = dict[str, Any]


@lru_cache
def schema() -> Schema:
    """The schema of the config: for each key its description, unit, type, limits and choices.

    Presets and --config give only some keys of a section, so none is required. A list is replaced whole, so its
    entries must be complete."""
    out = _tidied(Config.model_json_schema())
    sections, waiting = [out], [out]
    while waiting:
        inner = [value for value in waiting.pop().get("properties", {}).values() if "items" not in value]
        found = [name for value in inner for name in re.findall(r"#/\$defs/(\w+)", str(value))]
        waiting = [*waiting, *(out["$defs"][name] for name in found if "items" not in out["$defs"][name])]
        sections += waiting
    for section in sections:
        section.pop("required", None)
    return out


def _tidied(part: Any) -> Any:
    """A schema without pydantic's titles and defaults, and with the form of names as other tools know it too."""
    if isinstance(part, list):
        return [_tidied(entry) for entry in part]
    if not isinstance(part, dict):
        return part
    out: Schema = {}
    for key, value in part.items():
        if key in ("properties", "$defs"):
            out[key] = {name: _tidied(inner) for name, inner in value.items()}
        elif key not in ("title", "default"):
            out[key] = _tidied(value)
    for pattern, value in out.pop("patternProperties", {}).items():
        out |= {"propertyNames": {"pattern": pattern} | out.get("propertyNames", {}), "additionalProperties": value}
    return out


def branches(part: Schema) -> list[Schema]:
    """The alternatives of a schema, references resolved; null is the last."""
    if "$ref" in part:
        return [schema()["$defs"][part["$ref"].rpartition("/")[2]]]
    if "anyOf" in part:
        return [branch for entry in part["anyOf"] for branch in branches(entry)]
    return [part]


def at(path: list[str | int]) -> list[Schema]:
    """The alternatives that the schema has at a place of the config; none where it knows no such place."""
    found = [schema()]
    for step in path:
        inner = [branch["items"] for branch in found if isinstance(step, int) and "items" in branch]
        for branch in found:
            below = branch.get("properties", {}).get(step, branch.get("additionalProperties"))
            inner += [below] if isinstance(below, dict) else []
        found = [branch for part in inner for branch in branches(part)]
    return found


def allowed(found: list[Schema]) -> str:
    """What alternatives of the schema allow, in words that go on from `must be`."""
    return ", or ".join(dict.fromkeys(_words(part) for part in found))


def _words(part: Schema) -> str:
    if "enum" in part or "const" in part:
        values = [shown(value) for value in part.get("enum", [part.get("const")])]
        return f"one of {', '.join(values)}" if len(values) > 1 else values[0]
    kind = part.get("type")
    if kind in ("integer", "number"):
        limits = [f"{word} {shown(part[name])}" for name, word in _LIMITS if name in part]
        multiple = [f"a multiple of {part['multipleOf']}"] if "multipleOf" in part else []
        return ", ".join(
            [f"{'an' if kind == 'integer' else 'a'} {kind}", *[" and ".join(limits)][: len(limits)], *multiple]
        )
    if kind == "string":
        longest = f" of at most {part['maxLength']} letters" if "maxLength" in part else ""
        told = part.get("patternErrorMessage", "").removeprefix("must be ")
        return told or f"a string{longest}{', not empty' if part.get('minLength') else ''}"
    if kind == "array":
        low, high = part.get("minItems", 0), part.get("maxItems")
        size = f" of {low}" if low == high else " of at least one" if low else ""
        size += f" and at most {high}" if high and low != high else ""
        return f"a list{size}, each {allowed(branches(part['items']))}"
    if kind == "object" and isinstance(part.get("additionalProperties"), dict):
        return f"a mapping of names to {allowed(branches(part['additionalProperties']))}"
    return {"boolean": "true or false", "object": "a mapping"}.get(str(kind), "null")


_LIMITS = (
    ("minimum", "at least"),
    ("exclusiveMinimum", "above"),
    ("maximum", "at most"),
    ("exclusiveMaximum", "below"),
)


def shown(value: Any) -> str:
    """A value of the schema as people write it."""
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "null"}[value]
    return f"{value:,}" if isinstance(value, int) else f"{value:g}" if isinstance(value, float) else value or '""'
