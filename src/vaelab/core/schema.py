"""The shape of stored JSON: type hints say what a value must be, and an error names the field that is not.

Stored files may be cut, edited or exchanged. A reader that only parses them fails later, far from the file. Here each
kind of file has one schema, written as type hints: `int`, `float`, `bool`, `str`, `None`, `list[...]`,
`dict[str, ...]`, unions, `Literal`, `Any`, and `TypedDict` classes for objects with known fields. `Annotated[...,
OPEN]` is a `TypedDict` class that may have further fields.
"""

from __future__ import annotations

import json
import math
import types
from collections.abc import Iterator
from functools import cache
from typing import (
    Annotated,
    Any,
    Literal,
    NotRequired,
    Union,
    get_args,
    get_origin,
    get_type_hints,
    is_typeddict,
)

__all__ = ["OPEN", "SchemaError", "validate"]

OPEN = "open"  # marks objects that may have further fields

MAX_INTEGER = 2**63  # numbers from here on fit no library that would compute with them

KIND_NAMES = {
    dict: "an object",
    list: "a list",
    str: "a text",
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    type(None): "null",
}


class SchemaError(ValueError):
    """What is wrong with a value, in one phrase that names the field."""


def validate(value: Any, hint: Any) -> None:
    """Check a JSON value against a type hint.

    Args:
        value: What `json.loads` gave.
        hint: The type that it must have.

    Raises:
        SchemaError: The value has another shape; the message names the first wrong field.

    Example:
        >>> validate({"epoch": 1, "loss": [0.5, 2]}, dict[str, Any])
        >>> validate([1, "two"], list[int])
        Traceback (most recent call last):
        ...
        vaelab.core.schema.SchemaError: 1 must be a whole number, got "two"
    """
    for problem in _problems(value, hint, ""):
        raise SchemaError(problem)


def _problems(value: Any, hint: Any, field: str) -> Iterator[str]:
    """What is wrong with a value and the values in it."""
    if hint is Any:
        return
    is_open = get_origin(hint) is Annotated and OPEN in hint.__metadata__
    if get_origin(hint) is Annotated:
        hint = get_args(hint)[0]
    if is_typeddict(hint):
        yield from _object_problems(value, hint, field, is_open)
        return
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        if all(any(_problems(value, kind, field)) for kind in arguments):
            yield _problem(value, field, " or ".join(_describe(kind) for kind in arguments))
    elif origin is Literal:
        if value not in arguments:
            yield _problem(value, field, " or ".join(map(str, arguments)))
    elif origin is list:
        yield from _list_problems(value, arguments[0], field)
    elif origin is dict:
        yield from _dict_problems(value, arguments[1], field)
    elif not _has_type(value, hint):
        yield _problem(value, field, _describe(hint))


@cache
def _field_hints(hint: Any) -> dict[str, Any]:
    """The types of the fields of an object. They are evaluated once: a list of runs reads thousands of files."""
    return get_type_hints(hint, include_extras=True)


def _object_problems(value: Any, hint: Any, field: str, is_open: bool) -> Iterator[str]:
    """What is wrong with an object that has known fields."""
    if not isinstance(value, dict):
        yield _problem(value, field, "an object")
        return
    hints = _field_hints(hint)
    for name, inner in hints.items():
        is_optional = get_origin(inner) is NotRequired
        kind = get_args(inner)[0] if is_optional else inner
        if name in value:
            yield from _problems(value[name], kind, _join(field, name))
        elif not is_optional:
            yield f"it lacks {_join(field, name)}"
    for name in value:
        if name not in hints and not is_open:
            yield f"it has an unknown field {_join(field, name)}"


def _list_problems(value: Any, hint: Any, field: str) -> Iterator[str]:
    """What is wrong with a list."""
    if not isinstance(value, list):
        yield _problem(value, field, "a list")
        return
    for index, item in enumerate(value):
        yield from _problems(item, hint, _join(field, str(index)))


def _dict_problems(value: Any, hint: Any, field: str) -> Iterator[str]:
    """What is wrong with an object whose fields all have one type."""
    if not isinstance(value, dict):
        yield _problem(value, field, "an object")
        return
    for name, item in value.items():
        yield from _problems(item, hint, _join(field, name))


def _has_type(value: Any, kind: Any) -> bool:
    """Whether a value has a simple type; a whole number is a number, but true and false are none."""
    if kind is None or kind is type(None):
        return value is None
    if kind is float:
        return type(value) in (int, float) and math.isfinite(value)
    if kind is int:
        return type(value) is int and abs(value) < MAX_INTEGER
    return type(value) is kind


def _describe(kind: Any) -> str:
    """A type in words."""
    if is_typeddict(kind):
        return "an object"
    plain = type(None) if kind is None else get_origin(kind) or kind
    return KIND_NAMES.get(plain, str(kind))


def _problem(value: Any, field: str, expected: str) -> str:
    """The phrase for a value that is not what it must be."""
    shown = KIND_NAMES[type(value)] if isinstance(value, dict | list) else json.dumps(value)[:40]
    return f"{field or 'its content'} must be {expected}, got {shown}"


def _join(field: str, name: str) -> str:
    """The name of an inner field."""
    return f"{field}.{name}" if field else name
