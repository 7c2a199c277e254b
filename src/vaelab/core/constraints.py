"""Kinds of numbers: what a setting may be, said where it is declared.

A field of a spec or of one of its members is annotated with the kind of number that it takes, as in `kl_weight:
NonNegative = 1.0`. The codec reads it by the type, and `spec.check` holds it to the law.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Annotated, Any, NamedTuple

__all__ = ["Constraint", "Count", "Fraction", "Natural", "NonNegative", "Positive", "Side", "UnitInterval"]


class Constraint(NamedTuple):
    """What is allowed, in words, and whether a value holds to it. NaN holds to none: comparing with it is false."""

    description: str
    is_satisfied: Callable[[Any], bool]


Count = Annotated[int, Constraint("at least 1", lambda n: n >= 1)]

Natural = Annotated[int, Constraint("at least 0", lambda n: n >= 0)]

Side = Annotated[int, Constraint("from 8 to 256 pixels", lambda n: 8 <= n <= 256)]

Positive = Annotated[float, Constraint("a positive number", lambda v: 0 < v < math.inf)]

NonNegative = Annotated[float, Constraint("a number of at least 0", lambda v: 0 <= v < math.inf)]

Fraction = Annotated[float, Constraint("at least 0 and below 1", lambda v: 0 <= v < 1)]

UnitInterval = Annotated[float, Constraint("from 0 to 1, a part of the training", lambda v: 0 <= v <= 1)]
