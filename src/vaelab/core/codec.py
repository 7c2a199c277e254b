"""The codec between dataclasses and JSON, TOML or command-line words, driven by type hints."""

from __future__ import annotations

import pkgutil
import sys
import types
from collections.abc import Iterator, Mapping
from dataclasses import fields
from importlib import import_module
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from vaelab.core.constraints import Constraint
from vaelab.core.errors import UserError, unknown_name_error

__all__ = ["field_hints", "member_name", "parse_value", "to_plain", "to_text", "to_word", "violations"]


def violations(member: Any) -> Iterator[str]:
    """What breaks the law of its field, in a dataclass and the members that it holds."""
    for name, hint in field_hints(type(member)).items():
        value = getattr(member, name)
        if hasattr(value, "__dataclass_fields__"):
            yield from violations(value)
        values = value if isinstance(value, tuple) else (value,)
        for law in _constraints(hint):
            numbers = (v for v in values if isinstance(v, int | float))  # a word may stand in place of one
            yield from (f"{name} must be {law.description}, got {v}" for v in numbers if not law.is_satisfied(v))


def _constraints(hint: Any) -> list[Constraint]:
    """The laws in a type such as `Positive | None` or `tuple[Count, ...]`."""
    if get_origin(hint) is Annotated:
        return [law for law in hint.__metadata__ if isinstance(law, Constraint)]
    return [law for inner in get_args(hint) for law in _constraints(inner)]


# The codec: type hints say how a value is read.


def parse_value(name: str, hint: Any, value: Any) -> Any:
    """Read `value`, a word or plain JSON, as what `hint` says; errors name the setting."""
    flag = name.replace("_", "-")
    members = _union_members(hint)
    if members:
        return _parse_member(flag, members, value)
    if get_origin(hint) is Annotated:
        hint = get_args(hint)[0]
    origin, args = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return _parse_union(name, args, value)
    if origin is Literal:
        if value not in args:
            raise unknown_name_error(flag, str(value), args)
        return value
    if origin is tuple:
        items = [v for v in value.split(",") if v.strip()] if isinstance(value, str) else value
        items = items if isinstance(items, list | tuple) else [items]
        return tuple(parse_value(name, args[0], item) for item in items)
    return _parse_scalar(flag, hint, value)


def _parse_union(name: str, hints: tuple[Any, ...], value: Any) -> Any:
    """Read a value that may be none, one of some words, or of another kind."""
    if type(None) in hints and (value is None or value in ("none", "None")):
        return None
    words = [w for hint in hints if get_origin(hint) is Literal for w in get_args(hint)]
    others = [h for h in hints if h is not type(None) and get_origin(h) is not Literal]
    if value in words or not others:
        return parse_value(name, Literal[*words], value)
    try:
        return parse_value(name, others[0], value)
    except UserError as error:
        raise UserError(f"{error} (or {', '.join(words)})" if words else str(error)) from None


TYPE_NAMES = {int: "a whole number", float: "a number", bool: "true or false", str: "a word"}


def _parse_scalar(flag: str, kind: type, value: Any) -> Any:
    wrong = UserError(f'{flag} must be {TYPE_NAMES[kind]}, got "{value}"')
    if kind is bool:
        words = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
        if str(value).lower() not in words:
            raise wrong
        return words[str(value).lower()]
    if isinstance(value, bool) or (kind is int and isinstance(value, float) and not value.is_integer()):
        raise wrong
    try:
        return kind(value)
    except (TypeError, ValueError):
        raise wrong from None


def _union_members(hint: Any) -> tuple[type, ...]:
    """The dataclasses of a union of them (or the only one); none for other types."""
    members = get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)
    return members if all(hasattr(m, "__dataclass_fields__") for m in members) else ()


def _parse_member(flag: str, members: tuple[type, ...], value: Any) -> Any:
    if type(value) in members:
        return value
    if isinstance(value, Mapping):
        settings = dict(value)
        word = str(settings.pop("name", ""))
    else:
        word, _, rest = str(value).strip().partition(":")
        settings = _split_settings(flag, rest)
    known = {name: m for m in members for name in (member_name(m), *getattr(m, "short", ()))}
    if word not in known:
        raise unknown_name_error(flag, word, dict.fromkeys(member_name(m) for m in members))
    return _build_member(flag, known[word], settings)


def _split_settings(flag: str, text: str) -> dict[str, str]:
    """`hidden=400,200,bias=1` -> {"hidden": "400,200", "bias": "1"}: what has no = goes on with the value before."""
    settings: dict[str, str] = {}
    for piece in filter(None, text.split(",")):
        name, equals, value = piece.partition("=")
        if equals:
            settings[name.strip().replace("-", "_")] = value
        elif settings:
            last = next(reversed(settings))
            settings[last] += f",{piece}"
        else:
            raise UserError(f'{flag}: "{text}" is not of the form field=value,field=value')
    return settings


def _build_member(flag: str, member: type, settings: Mapping[str, Any]) -> Any:
    hints = field_hints(member)
    for name in settings:
        if name not in hints:
            raise UserError(f"{flag} {member_name(member)} has no field {name} (it has: {', '.join(hints) or 'none'})")
    return member(**{n: parse_value(f"{flag}:{n}", hints[n], v) for n, v in settings.items()})


def field_hints(member: type) -> dict[str, Any]:
    hints = get_type_hints(member, include_extras=True)
    return {f.name: hints[f.name] for f in fields(member)}


def member_name(member: type) -> str:
    return member.name  # type: ignore[attr-defined]


def to_plain(value: Any) -> Any:
    if hasattr(value, "__dataclass_fields__"):
        return {"name": value.name} | {f.name: to_plain(getattr(value, f.name)) for f in fields(value)}
    return list(value) if isinstance(value, tuple) else value


def to_word(value: Any) -> str:
    """A member as the command line writes it, with the fields that differ from their defaults."""
    default = type(value)()
    shown = [
        f"{f.name}={to_text(getattr(value, f.name))}"
        for f in fields(value)
        if getattr(value, f.name) != getattr(default, f.name)
    ]
    return member_name(type(value)) + (":" + ",".join(shown) if shown else "")


def to_text(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, tuple) else "none" if value is None else str(value)


def union_in_package(package: str, base: type) -> Any:
    """The union of the dataclasses derived from `base` in the modules of a package, by module and place in it.

    A package that is a registry in this way needs no list of its members: a new module is found by its folder.
    """
    modules = [module.name for module in pkgutil.iter_modules(import_module(package).__path__, f"{package}.")]
    members: list[type] = []
    for name in sorted(modules):
        for member in vars(sys.modules.get(name) or import_module(name)).values():
            if isinstance(member, type) and issubclass(member, base) and member is not base and member not in members:
                members.append(member)
    return Union[*members]
