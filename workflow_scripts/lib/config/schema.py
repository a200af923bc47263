"""The JSON schema of the config, made from its models, and what it allows at a key, in words."""

import re
from functools import lru_cache, reduce
from operator import getitem
from typing import Any

from workflow_scripts.lib.config.models import Config

Schema = dict[str, Any]
LIMITS = {
    "minimum": "at least",
    "exclusiveMinimum": "more than",
    "maximum": "at most",
    "exclusiveMaximum": "less than",
}
OPTIONS = "#/$defs/TrainClassifier/properties/"  # where the schema has the keys that an arm may replace by its own


@lru_cache
def schema() -> Schema:
    """The schema of the config: for each key its description, unit, type, limits and choices.

    Presets and --config give only some keys of a section, so none is required. A list is replaced whole, so its
    entries must be complete."""
    out = _tidied(Config.model_json_schema())
    waiting = [out]
    while waiting:
        section = waiting.pop()
        section.pop("required", None)
        below = str([part for part in section.get("properties", {}).values() if "items" not in part])
        waiting += [out["$defs"][name] for name in re.findall(r"#/\$defs/(\w+)", below)]
    arm = out["$defs"]["Arm"]["properties"]
    for name in arm.keys() & out["$defs"]["TrainClassifier"]["properties"].keys():
        arm[name] = {"$ref": f"{OPTIONS}{name}"}
    return out


def _tidied(part: Any) -> Any:
    """A schema without pydantic's titles and defaults, and with the form of names as other tools know it too."""
    if isinstance(part, list):
        return [_tidied(entry) for entry in part]
    if not isinstance(part, dict):
        return part
    out: Schema = {}
    for key, value in sorted(part.items(), key=lambda item: item[0] != "description"):
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
        return branches(reduce(getitem, part["$ref"].split("/")[1:], schema()))
    if "anyOf" in part:
        return [branch for entry in part["anyOf"] for branch in branches(entry)]
    return [part]


def at(path: list[str | int]) -> list[Schema]:
    """The alternatives that the schema has at a place of the config; none where it knows no such place."""
    reached = [schema()]
    for step in path:
        inner = [branch["items"] for branch in reached if isinstance(step, int) and "items" in branch]
        for branch in reached:
            below = branch.get("properties", {}).get(step, branch.get("additionalProperties"))
            inner += [below] if isinstance(below, dict) else []
        reached = [branch for part in inner for branch in branches(part)]
    return reached


def allowed(parts: list[Schema]) -> str:
    """What alternatives of the schema allow, in words that go on from `must be`."""
    return ", or ".join(dict.fromkeys(_words(part) for part in parts))


def _words(part: Schema) -> str:
    if "enum" in part or "const" in part:
        values = [_shown(value) for value in part.get("enum", [part.get("const")])]
        return f"one of {', '.join(values)}" if len(values) > 1 else values[0]
    if "patternErrorMessage" in part:
        return part["patternErrorMessage"].removeprefix("must be ")
    kind = part.get("type")
    if kind in ("integer", "number"):
        limits = " and ".join(f"{word} {_shown(part[name])}" for name, word in LIMITS.items() if name in part)
        multiple = f"a multiple of {part['multipleOf']}" if "multipleOf" in part else ""
        return ", ".join(filter(None, ["an integer" if kind == "integer" else "a number", limits, multiple]))
    if kind == "string":
        longest = f" of at most {part['maxLength']} letters" if "maxLength" in part else ""
        return f"a {'non-empty ' if part.get('minLength') else ''}string{longest}"
    if kind == "array":
        low, high = part.get("minItems", 0), part.get("maxItems")
        size = f" of {low}" if low == high else f" of {low} to {high}" if high else " of at least one" if low else ""
        return f"a list{size}, each {allowed(branches(part['items']))}"
    if kind == "object" and isinstance(part.get("additionalProperties"), dict):
        return f"a mapping of names to {allowed(branches(part['additionalProperties']))}"
    return {"boolean": "true or false", "object": "a mapping"}.get(str(kind), "null")


def _shown(value: Any) -> str:
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "null"}[value]
    return f"{value:,}" if isinstance(value, int) else f"{value:g}" if isinstance(value, float) else value or '""'
