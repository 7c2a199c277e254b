"""The codec between dataclasses and JSON, TOML or command-line words, driven by type hints."""

from __future__ import annotations

import types
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import Field, fields
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from vaelab.core.constraints import Constraint
from vaelab.core.errors import UserError, unknown_name_error
from vaelab.core.registry import is_family, members

__all__ = [
    "changed_settings",
    "field_hints",
    "member_name",
    "parse_value",
    "stored_name",
    "to_plain",
    "to_text",
    "to_word",
    "violations",
]


def violations(member: Any) -> Iterator[tuple[str, str]]:
    """The constraints that the fields of a dataclass break: the field's stored name, and a sentence that says it.

    Members that it holds are checked as well.
    """
    hints = field_hints(type(member))
    for f in fields(member):
        name, value = stored_name(f), getattr(member, f.name)
        if hasattr(value, "__dataclass_fields__"):
            for _, sentence in violations(value):
                yield name, f"{name} {value.name}: {sentence}"
            continue
        for problem in _broken_constraints(hints[f.name], value):
            yield name, f"{name} {problem}"


def _broken_constraints(hint: Any, value: Any) -> Iterator[str]:
    """What is wrong with the numbers of a value; a word may stand in place of a number."""
    values = value if isinstance(value, tuple) else (value,)
    numbers = [v for v in values if isinstance(v, int | float)]
    for constraint in _constraints(hint):
        for number in numbers:
            if not constraint.is_satisfied(number):
                yield f"must be {constraint.description}, got {number}"


def _constraints(hint: Any) -> list[Constraint]:
    """The constraints in a type such as `Positive | None` or `tuple[Count, ...]`."""
    if get_origin(hint) is Annotated:
        return [constraint for constraint in hint.__metadata__ if isinstance(constraint, Constraint)]
    constraints: list[Constraint] = []
    for inner in get_args(hint):
        constraints += _constraints(inner)
    return constraints


# The codec: type hints say how a value is read.


def parse_value(name: str, hint: Any, value: Any) -> Any:
    """Read a word or plain JSON as the type that a setting has.

    Args:
        name: The setting, for messages.
        hint: Its type.
        value: What to read.

    Raises:
        UserError: The value cannot be read; the message names the setting.

    Example:
        >>> parse_value("hidden", tuple[int, ...], "400,200")
        (400, 200)
    """
    kinds = _union_members(hint)
    if kinds:
        return _parse_member(name, kinds, value)
    if get_origin(hint) is Annotated:
        hint = get_args(hint)[0]
    origin, args = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return _parse_union(name, args, value)
    if origin is Literal:
        if value not in args:
            raise unknown_name_error(name, str(value), args)
        return value
    if origin is tuple:
        return tuple(parse_value(name, args[0], item) for item in _to_items(value))
    return _parse_scalar(name, hint, value)


def _to_items(value: Any) -> list[Any] | tuple[Any, ...]:
    """The items of a list that may be written as `400,200`, or be a single item."""
    if isinstance(value, str):
        return [item for item in value.split(",") if item.strip()]
    return value if isinstance(value, list | tuple) else [value]


def _parse_union(name: str, hints: tuple[Any, ...], value: Any) -> Any:
    """Read a value that may be none, one of some words, or of another type."""
    if type(None) in hints and (value is None or value in ("none", "None")):
        return None
    words: list[Any] = []
    others: list[Any] = []
    for hint in hints:
        if get_origin(hint) is Literal:
            words += get_args(hint)
        elif hint is not type(None):
            others.append(hint)
    if not others or (isinstance(value, str) and value in words):
        return parse_value(name, Literal[*words], value)
    try:
        return parse_value(name, others[0], value)
    except UserError as error:
        alternatives = f" (or {', '.join(words)})" if words else ""
        raise UserError(f"{error}{alternatives}", settings=error.settings) from None


TYPE_NAMES = {int: "a whole number", float: "a number", bool: "true or false", str: "a word"}


def _parse_scalar(name: str, kind: type, value: Any) -> Any:
    wrong = UserError(f'{name} must be {TYPE_NAMES[kind]}, got "{value}"', settings=[name.partition(":")[0]])
    if kind is bool:
        words = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
        if str(value).lower() not in words:
            raise wrong
        return words[str(value).lower()]
    if isinstance(value, bool) or (kind is int and isinstance(value, float) and not value.is_integer()):
        raise wrong
    if kind is str and (value is None or isinstance(value, Mapping | list | tuple)):
        raise wrong
    try:
        return kind(value)
    except (TypeError, ValueError, OverflowError):
        raise wrong from None


def _union_members(hint: Any) -> tuple[type, ...]:
    """The dataclasses of a family or of a union of them (or the only one); none for other types."""
    if is_family(hint):
        return members(hint)
    kinds = get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)
    return kinds if all(hasattr(kind, "__dataclass_fields__") for kind in kinds) else ()


def _parse_member(name: str, kinds: tuple[type, ...], value: Any) -> Any:
    """Read a member of a union: an instance, a table with its `name`, or a word with settings."""
    if type(value) in kinds:
        return value
    if isinstance(value, Mapping):
        settings = dict(value)
        word = str(settings.pop("name", ""))
    else:
        word, _, rest = str(value).strip().partition(":")
        settings = _split_settings(name, rest)
    known: dict[str, type] = {}
    for member in kinds:
        for spelling in (member_name(member), *getattr(member, "short", ())):
            known[spelling] = member
    if word not in known:
        raise unknown_name_error(name, word, map(member_name, kinds))
    return _build_member(name, known[word], settings)


def _split_settings(name: str, text: str) -> dict[str, str]:
    """`hidden=400,200,bias=1` -> {"hidden": "400,200", "bias": "1"}: what has no = continues the value before it."""
    settings: dict[str, str] = {}
    last = None
    for piece in filter(None, text.split(",")):
        key, equals, value = piece.partition("=")
        if equals:
            last = key.strip().replace("-", "_")
            settings[last] = value
        elif last is not None:
            settings[last] += f",{piece}"
        else:
            raise UserError(f'{name}: "{text}" is not of the form field=value,field=value', settings=[name])
    return settings


def _build_member(name: str, member: type, settings: Mapping[str, Any]) -> Any:
    """An instance of a member with its fields read from words or JSON."""
    hints = field_hints(member)
    values = {}
    for key, value in settings.items():
        if key not in hints:
            fields_text = ", ".join(hints) or "none"
            raise UserError(f"{name} {member_name(member)} has no field {key} (it has: {fields_text})")
        values[key] = parse_value(f"{name}:{key}", hints[key], value)
    return member(**values)


def field_hints(member: type) -> dict[str, Any]:
    """The types of the fields of a dataclass, with their constraints."""
    hints = get_type_hints(member, include_extras=True)
    return {f.name: hints[f.name] for f in fields(member)}


def stored_name(f: Field[Any]) -> str:
    """The name of a dataclass's field in files, keys and messages."""
    return f.metadata.get("name") or f.name


def member_name(member: type) -> str:
    """The word for a member of a union."""
    return member.name  # type: ignore[attr-defined]


def to_plain(value: Any) -> Any:
    """A value as JSON holds it: members as tables with their `name`, tuples as lists."""
    if hasattr(value, "__dataclass_fields__"):
        return {"name": value.name} | {f.name: to_plain(getattr(value, f.name)) for f in fields(value)}
    return list(value) if isinstance(value, tuple) else value


def to_word(value: Any) -> str:
    """A member as the command line writes it, with the fields that differ from their defaults."""
    word = member_name(type(value))
    settings = [f"{name}={to_text(current)}" for name, current in _changed_fields(value).items()]
    return f"{word}:{','.join(settings)}" if settings else word


def changed_settings(value: Any, without: Sequence[str] = ()) -> list[str]:
    """The fields of a member that differ from their defaults, as parts of a title such as "gamma = 10".

    Args:
        value: The member.
        without: Fields to leave out.
    """
    settings = []
    for name, current in _changed_fields(value).items():
        if name not in without:
            text = f"{current:g}" if isinstance(current, float) else to_text(current)
            settings.append(f"{name} = {text}")
    return settings


def _changed_fields(value: Any) -> dict[str, Any]:
    default, changed = type(value)(), {}
    for f in fields(value):
        current = getattr(value, f.name)
        if current != getattr(default, f.name):
            changed[f.name] = current
    return changed


def to_text(value: Any) -> str:
    """A plain value as the command line writes it."""
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    return "none" if value is None else str(value)
