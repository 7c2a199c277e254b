r"""Expectations: what a claim expects of a quantity, as differences with the sign that they should have.

A quantity is measured for S seeds and K settings: y with shape (S, K). An expectation turns y into contrasts. A
contrast is a difference d with shape (S,) and the sign that the expectation wants it to have:

    lowest is X:   d = y_X - y_k     < 0  for every other setting k
    decreasing:    d = y_k+1 - y_k   < 0  along the settings
    above a:       d = y - a         > 0

Each contrast has a margin: differences up to it are such that nobody could see them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar, Literal, NamedTuple

import numpy as np

from vaelab.core.constraints import NonNegative
from vaelab.core.errors import UserError, unknown_name_error

__all__ = [
    "NO_MARGIN",
    "Between",
    "Contrast",
    "Decreasing",
    "Expectation",
    "Highest",
    "Increasing",
    "Lowest",
    "Margin",
    "NearLowest",
    "Sign",
    "Similar",
    "parse_margin",
]

Sign = Literal[-1, 1]


class Margin(NamedTuple):
    """The largest difference that nobody could see.

    Attributes:
        amount: How much, in the unit of the measure or in percent.
        is_percent: Whether it is in percent of the absolute value of what is compared with.
    """

    amount: float = 0.0
    is_percent: bool = False

    def sizes(self, references: np.ndarray) -> np.ndarray:
        """The margins in the unit of the measure.

        Args:
            references: The values that something is compared with, with shape (S,).

        Example:
            >>> Margin(2, is_percent=True).sizes(np.array([-50.0, 100.0]))
            array([1., 2.])
        """
        return np.abs(references) * self.amount / 100 if self.is_percent else np.full(references.shape, self.amount)

    @property
    def text(self) -> str:
        """The margin as study files write it, such as "0.5" or "1 %"."""
        return f"{self.amount:g} %" if self.is_percent else f"{self.amount:g}"


NO_MARGIN = Margin()


def parse_margin(value: str | float) -> Margin:
    """Read a margin.

    Args:
        value: A number, or a text such as "0.5" or "1 %".

    Raises:
        UserError: It is no number, or negative, or not finite.

    Example:
        >>> parse_margin("1 %")
        Margin(amount=1.0, is_percent=True)
    """
    text = str(value).strip()
    try:
        amount = float(text.removesuffix("%"))
    except ValueError:
        amount = math.nan
    if isinstance(value, bool) or not 0 <= amount < math.inf:
        raise UserError(f'a margin is a number of at least 0, such as 0.5, or a share such as "1 %", got "{value}"')
    return Margin(amount, text.endswith("%"))


class Contrast(NamedTuple):
    """A difference that an expectation is about.

    Attributes:
        what: What it compares, such as "a − b".
        values: The difference for each seed, with shape (S,).
        expected_sign: The sign that the expectation wants, -1 or 1.
        margin: The largest difference that nobody could see, in the unit of the values: one for all seeds, or one for
            each with shape (S,), of which the mean counts.
        resolution: The smallest step of the measure, 1 for counts and 0 for what has no steps: one for all seeds, or
            one for each with shape (S,), of which the smallest counts.
        images: The difference for each seed and test image, with shape (S, I), whose mean over images is `values`;
            None where the measure is no mean over images.
    """

    what: str
    values: np.ndarray
    expected_sign: Sign
    margin: float | np.ndarray = 0.0
    resolution: float | np.ndarray = 0.0
    images: np.ndarray | None = None

    def first(self, num_seeds: int) -> Contrast:
        """The same contrast with its first seeds alone: what is known at a look does not depend on later seeds."""
        shape = self.values.shape
        return self._replace(
            values=self.values[:num_seeds],
            margin=float(np.broadcast_to(self.margin, shape)[:num_seeds].mean()),
            resolution=float(np.broadcast_to(self.resolution, shape)[:num_seeds].min()),
            images=None if self.images is None else self.images[:num_seeds],
        )


class Measured(NamedTuple):
    """A quantity for all settings of a claim.

    Attributes:
        values: The quantity, with shape (S, K).
        names: The names of the K settings.
        margin: The margin of the claim.
        images: The quantity for each test image, with shape (S, K, I), or None.
    """

    values: np.ndarray
    names: Sequence[str]
    margin: Margin = NO_MARGIN
    images: np.ndarray | None = None

    @property
    def resolution(self) -> np.ndarray:
        """For each seed 1 where all values are whole numbers, such as counts; else 0."""
        return np.all(self.values == np.round(self.values), axis=1).astype(float)

    def difference(self, k: int, j: int, percent: float, expected_sign: Sign) -> Contrast:
        """Setting k minus setting j, minus `percent` of the absolute value of setting j.

        Args:
            k: The position of a setting.
            j: The position of the setting that it is compared with.
            percent: How far setting k has to be above setting j, or below it where negative.
            expected_sign: The sign that the difference should have.
        """
        other = self.values[:, j]
        shift = np.sign(other) * percent / 100  # of setting j's value, for each seed
        images = None
        if self.images is not None:
            images = self.images[:, k] - (1 + shift)[:, None] * self.images[:, j]
        return Contrast(
            what=difference_label(self.names[k], self.names[j], percent, other),
            values=self.values[:, k] - (1 + shift) * other,
            expected_sign=expected_sign,
            margin=self.margin.sizes(other),
            resolution=self.resolution,
            images=images,
        )

    def distance(self, k: int, bound: float, expected_sign: Sign) -> Contrast:
        """Setting k minus a bound."""
        name = self.names[k]
        label = f"value at {name}" if name else "value"
        return Contrast(
            what=f"{label} − {bound:g}",
            values=self.values[:, k] - bound,
            expected_sign=expected_sign,
            margin=self.margin.sizes(np.full(len(self.values), bound)),
            resolution=self.resolution,
            images=None if self.images is None else self.images[:, k] - bound,
        )


def difference_label(setting: str, other: str, percent: float = 0, values: Sequence[float] | np.ndarray = (1,)) -> str:
    """What a difference compares, in words.

    Args:
        setting: The name of a setting.
        other: The name of the setting that is subtracted.
        percent: How much of the other's absolute value is subtracted as well.
        values: The values of the other setting. Their signs decide how the difference is written.

    Example:
        >>> difference_label("ce", "se", 5)
        'ce − 1.05 × se'
        >>> difference_label("ce", "se", 5, [-1.0])
        'ce − 0.95 × se'
    """
    if not percent:
        return f"{setting} − {other}"
    if np.all(np.asarray(values) >= 0):
        return f"{setting} − {1 + percent / 100:g} × {other}"
    if np.all(np.asarray(values) <= 0):
        return f"{setting} − {1 - percent / 100:g} × {other}"
    sign = "−" if percent > 0 else "+"
    return f"{setting} − {other} {sign} {abs(percent) / 100:g} × |{other}|"


def _differences_from_others(measured: Measured, setting: str, percent: float, expected_sign: Sign) -> list[Contrast]:
    """The differences of a setting from every other one.

    Raises:
        UserError: There is no such setting.
    """
    if setting not in measured.names:
        raise unknown_name_error("setting", setting, measured.names)
    chosen = list(measured.names).index(setting)
    others = [k for k in range(len(measured.names)) if k != chosen]
    return [measured.difference(chosen, k, percent, expected_sign) for k in others]


# Expectations: each is a dataclass whose fields are its settings, found by its name in a study file.


class Comparison:
    """What all expectations have in common."""

    def contrasts(
        self, y: np.ndarray, names: Sequence[str], margin: Margin = NO_MARGIN, images: np.ndarray | None = None
    ) -> list[Contrast]:
        """The differences that decide, each with the sign that is expected.

        Args:
            y: The quantity, with shape (S, K).
            names: The names of the K settings.
            margin: The margin of the claim.
            images: The quantity for each test image, with shape (S, K, I), where there is one.
        """
        return self.differences(Measured(y, names, margin, images))

    def differences(self, measured: Measured) -> list[Contrast]:
        """The same of a quantity that was put together with its names and margin."""
        raise NotImplementedError


@dataclass(frozen=True)
class Lowest(Comparison):
    """The quantity is lowest at `setting`, at least `percent` below each other setting."""

    name: ClassVar[str] = "lowest"
    expected_sign: ClassVar[Sign] = -1
    setting: str = ""
    percent: NonNegative = 0.0

    @property
    def description(self) -> str:
        """What is expected, in words."""
        by = f", by {self.percent:g} % at least" if self.percent else ""
        return f"{self.name} at {self.setting}{by}"

    def differences(self, measured: Measured) -> list[Contrast]:
        """The differences from every other setting."""
        return _differences_from_others(measured, self.setting, self.expected_sign * self.percent, self.expected_sign)


@dataclass(frozen=True)
class Highest(Lowest):
    """The quantity is highest at `setting`, at least `percent` above each other setting."""

    name: ClassVar[str] = "highest"
    expected_sign: ClassVar[Sign] = 1


@dataclass(frozen=True)
class NearLowest(Comparison):
    """The quantity at `setting` is at most `percent` above the lowest of the others."""

    name: ClassVar[str] = "near-lowest"
    setting: str = ""
    percent: NonNegative = 5.0

    @property
    def description(self) -> str:
        """What is expected, in words."""
        return f"at {self.setting} within {self.percent:g} % of the lowest"

    def differences(self, measured: Measured) -> list[Contrast]:
        """The differences from every other setting."""
        return _differences_from_others(measured, self.setting, self.percent, -1)


@dataclass(frozen=True)
class Decreasing(Comparison):
    """Along the settings in their order, each value is below the one before it."""

    name: ClassVar[str] = "decreasing"
    expected_sign: ClassVar[Sign] = -1

    @property
    def description(self) -> str:
        """What is expected, in words."""
        return f"{self.name}, step by step"

    def differences(self, measured: Measured) -> list[Contrast]:
        """The differences between neighbouring settings."""
        pairs = pairwise(range(len(measured.names)))
        return [measured.difference(following, k, 0, self.expected_sign) for k, following in pairs]


@dataclass(frozen=True)
class Increasing(Decreasing):
    """Along the settings in their order, each value is above the one before it."""

    name: ClassVar[str] = "increasing"
    expected_sign: ClassVar[Sign] = 1


@dataclass(frozen=True)
class Similar(Comparison):
    """Every two settings differ by less than `percent` of the earlier one."""

    name: ClassVar[str] = "similar"
    percent: NonNegative = 5.0

    @property
    def description(self) -> str:
        """What is expected, in words."""
        return f"within {self.percent:g} % of each other"

    def differences(self, measured: Measured) -> list[Contrast]:
        """Two differences for every two settings: not too far above, not too far below."""
        contrasts = []
        for k in range(len(measured.names)):
            for j in range(k):
                contrasts.append(measured.difference(k, j, self.percent, -1))
                contrasts.append(measured.difference(k, j, -self.percent, 1))
        return contrasts


@dataclass(frozen=True)
class Between(Comparison):
    """At every setting the quantity lies above `low` and below `high`. Either bound may be left out."""

    name: ClassVar[str] = "between"
    low: float = -math.inf
    high: float = math.inf

    def __post_init__(self) -> None:
        if not self.low < self.high:
            raise UserError(f"between: low must be below high, got {self.low:g} and {self.high:g}")

    @property
    def description(self) -> str:
        """What is expected, in words."""
        if math.isinf(self.high):
            return f"above {self.low:g}"
        if math.isinf(self.low):
            return f"below {self.high:g}"
        return f"between {self.low:g} and {self.high:g}"

    def differences(self, measured: Measured) -> list[Contrast]:
        """The differences from the bounds at every setting."""
        contrasts = []
        for k in range(len(measured.names)):
            if math.isfinite(self.high):
                contrasts.append(measured.distance(k, self.high, -1))
            if math.isfinite(self.low):
                contrasts.append(measured.distance(k, self.low, 1))
        return contrasts


Expectation = Lowest | Highest | NearLowest | Decreasing | Increasing | Similar | Between
