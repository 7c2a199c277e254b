"""Numbers and values as the report writes them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from vaelab.core.codec import to_word

__all__ = [
    "MISSING",
    "Spread",
    "choose_decimals",
    "format_number",
    "format_spread",
    "order_of_magnitude",
    "value_text",
]

MISSING = "–"  # what stands in place of a number that there is not

MAX_DIGITS = 5  # digits of a number in a table


class Spread(NamedTuple):
    """A mean and a standard deviation over seeds, as text; the deviation of a single value is empty."""

    mean: str
    deviation: str


def format_number(value: float, decimals: int) -> str:
    """A number with so many decimals, and a true minus sign.

    Example:
        >>> format_number(-1234.567, 1)
        '−1,234.6'
    """
    if not math.isfinite(value):
        return "not finite"
    rounded = round(value, decimals) + 0.0  # + 0.0: no minus before a zero
    return f"{rounded:,.{decimals}f}".replace("-", "−")


def format_spread(values: Sequence[float] | np.ndarray, decimals: int) -> Spread | None:
    """The mean and standard deviation of values.

    Args:
        values: One value a seed.
        decimals: Digits after the point.

    Returns:
        Both as text; None for no value.

    Example:
        >>> format_spread([1.0, 2.0], 2)
        Spread(mean='1.50', deviation='0.71')
    """
    array = np.asarray(values, np.float64)
    if not len(array):
        return None
    deviation = format_number(float(array.std(ddof=1)), decimals) if len(array) > 1 else ""
    return Spread(format_number(float(array.mean()), decimals), deviation)


def choose_decimals(samples: Sequence[np.ndarray]) -> int:
    """The digits after the point of a column: two of its largest deviation and one of its smallest.

    A number has at most five digits in all.

    Args:
        samples: The values over seeds of each row.

    Example:
        >>> choose_decimals([np.array([10.0, 10.5]), np.array([12.0, 12.3])])
        2
    """
    deviations = [deviation for deviation in map(_deviation, samples) if deviation > 0]
    largest = max((abs(float(values.mean())) for values in samples), default=0.0) or 1.0
    is_whole = all(float(value).is_integer() for values in samples for value in values)
    if not math.isfinite(largest) or is_whole:
        return 1 if deviations else 0
    if deviations:
        wanted = max(1 - order_of_magnitude(max(deviations)), -order_of_magnitude(min(deviations)))
    else:
        wanted = 3 - order_of_magnitude(largest)
    most = max(MAX_DIGITS - 1 - order_of_magnitude(largest), 0)
    return min(max(wanted, 0), most, 6)


def _deviation(values: np.ndarray) -> float:
    """The standard deviation over seeds; 0 for a single one."""
    return float(np.std(values, ddof=1)) if len(values) > 1 else 0.0


def order_of_magnitude(value: float) -> int:
    """The power of ten of the first digit of a number; 0 for zero and for what is not finite.

    Example:
        >>> order_of_magnitude(250.0), order_of_magnitude(0.02)
        (2, -2)
    """
    return math.floor(math.log10(abs(value))) if value and math.isfinite(value) else 0


def value_text(value: Any) -> str:
    """The value of a setting, as text.

    Example:
        >>> value_text([400, 200]), value_text(None), value_text(True)
        ('400,200', 'none', 'yes')
    """
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if hasattr(value, "__dataclass_fields__"):
        return to_word(value)
    if isinstance(value, list | tuple):
        return ",".join(map(value_text, value))
    if isinstance(value, Mapping):
        return ", ".join(f"{name} = {value_text(item)}" for name, item in value.items())
    return str(value)
