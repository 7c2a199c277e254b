"""Constraints: which numbers a setting may have, declared with its type.

A field of a spec or of one of its members is annotated with the kind of number that it takes, as in `kl_weight:
NonNegative = 1.0`. The codec reads it by the type, and `check_spec` refuses values that break a constraint.

Every whole number has an upper bound, far above what is useful and below what libraries can take.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Annotated, Any, NamedTuple

from vaelab.core.errors import UserError

__all__ = [
    "MAX_LONG_COUNT",
    "Constraint",
    "Count",
    "Finite",
    "Fraction",
    "LongCount",
    "LongNatural",
    "Natural",
    "NonNegative",
    "Positive",
    "Seed",
    "Side",
    "UnitInterval",
    "require_count",
    "require_seed",
]

MAX_COUNT = 10**6  # of dimensions, of units in a layer, of images in a batch

MAX_LONG_COUNT = 10**12  # of images, of epochs, of steps

MAX_SEED = 2**32 - 1  # the largest that NumPy and scikit-learn take


class Constraint(NamedTuple):
    """What is allowed, in words, and whether a value satisfies it. NaN satisfies none: comparing with it is false."""

    description: str
    is_satisfied: Callable[[Any], bool]


def _at_least(least: int) -> Constraint:
    return Constraint(f"at least {least}", lambda n: n >= least)


def _at_most(most: int) -> Constraint:
    return Constraint(f"at most {most:,}", lambda n: n <= most)


Count = Annotated[int, _at_least(1), _at_most(MAX_COUNT)]

LongCount = Annotated[int, _at_least(1), _at_most(MAX_LONG_COUNT)]

LongNatural = Annotated[int, _at_least(0), _at_most(MAX_LONG_COUNT)]

Natural = Annotated[int, _at_least(0), _at_most(MAX_COUNT)]

Seed = Annotated[int, _at_least(0), _at_most(MAX_SEED)]

Side = Annotated[int, Constraint("from 8 to 256 pixels", lambda n: 8 <= n <= 256)]

Positive = Annotated[float, Constraint("a positive number", lambda v: 0 < v < math.inf)]

NonNegative = Annotated[float, Constraint("a number of at least 0", lambda v: 0 <= v < math.inf)]

Fraction = Annotated[float, Constraint("at least 0 and below 1", lambda v: 0 <= v < 1)]

Finite = Annotated[float, Constraint("a finite number", math.isfinite)]

UnitInterval = Annotated[float, Constraint("from 0 to 1, a fraction of the training", lambda v: 0 <= v <= 1)]


def require_count(name: str, value: int, least: int = 1, most: int = MAX_COUNT) -> int:
    """A whole number that an argument takes.

    Raises:
        UserError: The value is out of bounds.

    Example:
        >>> require_count("pairs", 7)
        7
    """
    for constraint in (_at_least(least), _at_most(most)):
        if not constraint.is_satisfied(value):
            raise UserError(f"{name} must be {constraint.description}, got {value}", settings=[name])
    return value


def require_seed(name: str, value: int) -> int:
    """A seed that every library takes."""
    return require_count(name, value, least=0, most=MAX_SEED)
