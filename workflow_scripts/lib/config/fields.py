"""Types of the config's values, and how a key is declared. Nothing here knows a key by name.

Snakemake hands on as text whatever stands in braces on the command line (`--config 'train_classifier={steps: 100}'`).
So a number, true, false or null in a text is read as such where the key takes one."""

import re
from collections.abc import Callable
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, WrapValidator

from workflow_scripts.lib.base.registry import Registry
from workflow_scripts.lib.images import colour_choices

T = TypeVar("T")
NUMBER = re.compile(r"[+-]?([0-9]{1,40}\.?|[0-9]{0,40}\.[0-9]{1,40})(e[+-]?[0-9]{1,3})?", re.IGNORECASE)


class Section(BaseModel):
    """Base of all sections: no key is unknown, and no value is converted to another type."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


def key(description: str, unit: str | None = None, **more: Any) -> Any:
    """A key with its one-line description and its unit; without `default` it must be given."""
    return Field(description=description, **({"json_schema_extra": {"unit": unit}} if unit else {}), **more)


def optional(description: str, unit: str | None = None) -> Any:
    """A key that a list's entry may leave out."""
    return key(description, unit, default=None)


def matching(pattern: str, what: str) -> Any:
    """Text of this form, and what that is in words, for messages and editors."""
    return Field(pattern=pattern, json_schema_extra={"patternErrorMessage": f"must be {what}"})


def as_whole(value: Any) -> Any:
    """A whole number that may have come as text."""
    return int(value) if isinstance(value, str) and re.fullmatch(r"[+-]?[0-9]{1,18}", value) else value


def _number(value: Any, check: Callable[[Any], float]) -> Any:
    value = as_whole(value)
    if isinstance(value, str) and NUMBER.fullmatch(value):
        value = float(value)
    check(value)
    return value  # a whole number stays one, as the config has it


def _flag(value: Any) -> Any:
    return {"true": True, "false": False}.get(value.lower(), value) if isinstance(value, str) else value


def _null(value: Any) -> Any:
    return None if isinstance(value, str) and value == "null" else value


def _distinct(values: list[T]) -> list[T]:
    if len(set(values)) < len(values):
        raise ValueError("must not name anything twice")
    return values


def whole(ge: int | None = None, le: int | None = None, **limits: int) -> Any:
    """A whole number within these limits."""
    return Annotated[int, Field(ge=ge, le=le, **limits), BeforeValidator(as_whole)]


def number(**limits: float) -> Any:
    """A finite number within these limits (ge, gt, le, lt)."""
    return Annotated[float, Field(**limits), WrapValidator(_number)]


def one_of(registry: Registry[Any]) -> Any:
    """The name of one of the choices of a registry, each with its description."""
    about = {"enumDescriptions": list(registry.descriptions().values())}
    return Annotated[Literal[tuple(registry)], Field(json_schema_extra=about)]


Fraction = number(ge=0, le=1)
Flag = Annotated[bool, BeforeValidator(_flag)]
Maybe = Annotated[T | None, BeforeValidator(_null)]  # the key may be null
Distinct = Annotated[list[T], AfterValidator(_distinct), Field(json_schema_extra={"uniqueItems": True})]
Pair = Annotated[list[T], Field(min_length=2, max_length=2)]
Some = Annotated[Distinct[T], Field(min_length=1)]


def text(le: int | None = None, ge: int = 1) -> Any:
    """Text of at least and at most so many letters."""
    return Annotated[str, Field(min_length=ge, max_length=le)]


Text = text()
Name = Annotated[
    str,
    matching(
        r"^[A-Za-z][A-Za-z0-9_-]{0,39}$",
        "a name that starts with a letter and consists of letters, digits, _ and - (at most 40)",
    ),
]
Channel = Annotated[str, matching(r"^[A-Za-z0-9_-]{1,40}$", "a name of letters, digits, _ and - (at most 40)")]
Colour = Annotated[
    str, matching(colour_choices.PATTERN, f"one of {', '.join(colour_choices.COLOURS)}, or #rrggbb in quotes")
]
