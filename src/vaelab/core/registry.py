"""Registries: the members of a family of classes, found by the package that they stand in.

A family is a base class, such as `Network` or `Objective`. Its members are the classes derived from it that have a
`name` of their own, in any module of the base class's package. There is no list of members to keep: a class that is
added at the end of a file, or in a new file, is known to the command line, to the stored files and to the tests.
"""

from __future__ import annotations

import pkgutil
from functools import cache
from importlib import import_module
from typing import Any

__all__ = ["is_family", "members"]


def is_family(kind: Any) -> bool:
    """Whether a type is the base class of a family: a dataclass that has no name itself."""
    return isinstance(kind, type) and hasattr(kind, "__dataclass_fields__") and not hasattr(kind, "name")


@cache
def members(family: type) -> tuple[type, ...]:
    """The members of a family.

    Args:
        family: The base class.

    Returns:
        The classes with a name, by the name of their module and by their place in it.

    Example:
        >>> from vaelab.models.networks import Network
        >>> [network.name for network in members(Network)]
        ['mlp', 'conv', 'report-a']
    """
    package = import_module(family.__module__.rpartition(".")[0])
    module_names = [module.name for module in pkgutil.iter_modules(package.__path__, f"{package.__name__}.")]
    classes: list[type] = []
    for module_name in sorted(module_names):
        for value in vars(import_module(module_name)).values():
            if _is_member(value, family) and value.__module__ == module_name and value not in classes:
                classes.append(value)
    return tuple(classes)


def _is_member(value: Any, family: type) -> bool:
    return isinstance(value, type) and issubclass(value, family) and "name" in vars(value)
