r"""Hypotheses: what a claim expects of a quantity, and the verdict that paired differences over seeds give.

A quantity is measured for S seeds and K settings: y with shape (S, K). An expectation turns y into contrasts. A
contrast is a difference d with shape (S,) and the sign that the expectation wants it to have:

    lowest is X:   d = y_X - y_k     < 0  for every other setting k
    decreasing:    d = y_k+1 - y_k   < 0  along the settings
    above a:       d = y - a         > 0

A contrast with mean m and standard deviation s has the paired-t interval m +- t s / sqrt(S). Within a claim, Holm's
step-down procedure keeps the probability of any false finding at 5 %. The intervals are widened to match, so that an
interval excludes 0 exactly where Holm rejects. The verdict is

    supported    every contrast has the expected sign with its whole interval
    refuted      at least one contrast has the other sign with its whole interval
    undecided    neither; always with a single seed

Source: A Simple Sequentially Rejective Multiple Test Procedure, Holm 1979.
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
    "SIGNIFICANCE_LEVEL",
    "VERDICTS",
    "Between",
    "Contrast",
    "ContrastResult",
    "Decreasing",
    "Expectation",
    "Highest",
    "Increasing",
    "Lowest",
    "NearLowest",
    "Sign",
    "Similar",
    "Verdict",
    "decide_verdict",
]

SIGNIFICANCE_LEVEL = 0.05  # the probability of a false finding that a claim admits

Sign = Literal[-1, 1]

Verdict = Literal["supported", "refuted", "undecided"]

VERDICTS: tuple[Verdict, ...] = ("supported", "refuted", "undecided")

ROUNDING = 1e-12  # a standard deviation below this share of the largest value is rounding


class Contrast(NamedTuple):
    """A difference: what it compares, a value for each seed (S,), and the sign that an expectation wants."""

    what: str
    values: np.ndarray
    expected_sign: Sign


class ContrastResult(NamedTuple):
    """What was measured of a contrast. The field names are the keys of claims.json.

    Attributes:
        what: What is compared, such as "ce+se − ce".
        wanted: The expected sign, -1 or 1.
        mean: The mean over seeds.
        interval: The Holm-adjusted interval of 95 %; None with a single seed.
        p: The p-value of the paired t test, not adjusted; None with a single seed.
        effect_size: mean / standard deviation; None with a single seed or without any deviation.
    """

    what: str
    wanted: Sign
    mean: float
    interval: tuple[float, float] | None
    p: float | None
    effect_size: float | None

    @property
    def oriented_interval(self) -> tuple[float, float]:
        """The interval, with its sign turned so that negative is as expected. One seed leaves everything possible."""
        if self.interval is None:
            return -math.inf, math.inf
        low, high = sorted(-self.wanted * end for end in self.interval)
        return low, high

    @property
    def confirmed(self) -> bool:
        """Whether the whole interval has the expected sign."""
        return self.oriented_interval[1] < 0

    @property
    def contradicted(self) -> bool:
        """Whether the whole interval has the other sign."""
        return self.oriented_interval[0] > 0


# Contrasts


def difference_label(setting: str, other: str, percent: float = 0) -> str:
    """What a difference compares, in words.

    Example:
        >>> difference_label("ce", "se", 5)
        'ce − 1.05 × se'
    """
    factor = f"{1 + percent / 100:g} × " if percent else ""
    return f"{setting} − {factor}{other}"


def contrasts_with_others(
    y: np.ndarray, names: Sequence[str], setting: str, percent: float, expected_sign: Sign
) -> list[Contrast]:
    """The setting's values minus `1 + percent / 100` times those of every other setting.

    Args:
        y: The quantity, with shape (S, K).
        names: The names of the K settings.
        setting: The setting that is compared with the others.
        percent: The margin, in percent of the other's absolute value.
        expected_sign: The sign that each difference should have.

    Returns:
        K - 1 contrasts.

    Raises:
        UserError: There is no such setting.
    """
    if setting not in names:
        raise unknown_name_error("setting", setting, names)
    chosen = y[:, names.index(setting)]
    contrasts = []
    for k, other in enumerate(names):
        if other != setting:
            difference = chosen - y[:, k] - np.abs(y[:, k]) * percent / 100
            contrasts.append(Contrast(difference_label(setting, other, percent), difference, expected_sign))
    return contrasts


# Expectations: each is a dataclass whose fields are its settings, found by its name in a study file.


@dataclass(frozen=True)
class Lowest:
    """The quantity is lowest at `setting`, at least `percent` below each other setting."""

    name: ClassVar[str] = "lowest"
    expected_sign: ClassVar[Sign] = -1
    setting: str = ""
    percent: NonNegative = 0.0

    @property
    def description(self) -> str:
        """What is expected, in words."""
        margin = f", by {self.percent:g} % at least" if self.percent else ""
        return f"{self.name} at {self.setting}{margin}"

    def contrasts(self, y: np.ndarray, names: Sequence[str]) -> list[Contrast]:
        """The differences from every other setting; y has shape (S, K)."""
        return contrasts_with_others(y, names, self.setting, self.expected_sign * self.percent, self.expected_sign)


@dataclass(frozen=True)
class Highest(Lowest):
    """The quantity is highest at `setting`, at least `percent` above each other setting."""

    name: ClassVar[str] = "highest"
    expected_sign: ClassVar[Sign] = 1


@dataclass(frozen=True)
class NearLowest:
    """The quantity at `setting` is at most `percent` above the lowest of the others."""

    name: ClassVar[str] = "near-lowest"
    setting: str = ""
    percent: NonNegative = 5.0

    @property
    def description(self) -> str:
        """What is expected, in words."""
        return f"at {self.setting} within {self.percent:g} % of the lowest"

    def contrasts(self, y: np.ndarray, names: Sequence[str]) -> list[Contrast]:
        """The differences from every other setting; y has shape (S, K)."""
        return contrasts_with_others(y, names, self.setting, self.percent, -1)


@dataclass(frozen=True)
class Decreasing:
    """Along the settings in their order, each value is below the one before it."""

    name: ClassVar[str] = "decreasing"
    expected_sign: ClassVar[Sign] = -1

    @property
    def description(self) -> str:
        """What is expected, in words."""
        return f"{self.name}, step by step"

    def contrasts(self, y: np.ndarray, names: Sequence[str]) -> list[Contrast]:
        """The differences between neighbouring settings; y has shape (S, K)."""
        contrasts = []
        for k, following in pairwise(range(len(names))):
            label = difference_label(names[following], names[k])
            contrasts.append(Contrast(label, y[:, following] - y[:, k], self.expected_sign))
        return contrasts


@dataclass(frozen=True)
class Increasing(Decreasing):
    """Along the settings in their order, each value is above the one before it."""

    name: ClassVar[str] = "increasing"
    expected_sign: ClassVar[Sign] = 1


@dataclass(frozen=True)
class Similar:
    """Every two settings differ by less than `percent` of the earlier one."""

    name: ClassVar[str] = "similar"
    percent: NonNegative = 5.0

    @property
    def description(self) -> str:
        """What is expected, in words."""
        return f"within {self.percent:g} % of each other"

    def contrasts(self, y: np.ndarray, names: Sequence[str]) -> list[Contrast]:
        """Two differences for every two settings: not too far above, not too far below. y has shape (S, K)."""
        contrasts = []
        for k, name in enumerate(names):
            for j, other in enumerate(names[:k]):
                margin = np.abs(y[:, j]) * self.percent / 100
                above = Contrast(difference_label(name, other, self.percent), y[:, k] - y[:, j] - margin, -1)
                below = Contrast(difference_label(name, other, -self.percent), y[:, k] - y[:, j] + margin, 1)
                contrasts += [above, below]
        return contrasts


@dataclass(frozen=True)
class Between:
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

    def contrasts(self, y: np.ndarray, names: Sequence[str]) -> list[Contrast]:
        """The differences from the bounds at every setting; y has shape (S, K)."""
        contrasts = []
        for k, name in enumerate(names):
            value = f"value at {name}" if name else "value"
            if math.isfinite(self.high):
                contrasts.append(Contrast(f"{value} − {self.high:g}", y[:, k] - self.high, -1))
            if math.isfinite(self.low):
                contrasts.append(Contrast(f"{value} − {self.low:g}", y[:, k] - self.low, 1))
        return contrasts


Expectation = Lowest | Highest | NearLowest | Decreasing | Increasing | Similar | Between


# The verdict


def decide_verdict(contrasts: Sequence[Contrast]) -> tuple[Verdict, list[ContrastResult]]:
    """The verdict on the contrasts of a claim.

    Args:
        contrasts: All contrasts of the claim, each with S values.

    Returns:
        The verdict, and the result of each contrast. The first one decides: in a supported claim it is the weakest,
        else the one that contradicts the claim most.

    Example:
        >>> d = np.array([-1.0, -1.1, -0.9])
        >>> verdict, [result] = decide_verdict([Contrast("a − b", d, -1)])
        >>> verdict, round(result.mean, 3)
        ('supported', -1.0)
    """
    results = _test_contrasts(contrasts)
    if results and all(result.confirmed for result in results):
        return "supported", sorted(results, key=lambda result: -result.oriented_interval[1])
    if any(result.contradicted for result in results):
        return "refuted", sorted(results, key=lambda result: -result.oriented_interval[0])
    return "undecided", sorted(results, key=lambda result: (result.confirmed, result.wanted * result.mean))


def _test_contrasts(contrasts: Sequence[Contrast]) -> list[ContrastResult]:
    """Each contrast with its p-value, and its interval at the level of Holm's procedure."""
    num_seeds = len(contrasts[0].values) if contrasts else 0
    if num_seeds < 2:
        return [ContrastResult(c.what, c.expected_sign, float(c.values.mean()), None, None, None) for c in contrasts]
    deviations = [_standard_deviation(contrast.values) for contrast in contrasts]
    p_values = []
    for contrast, deviation in zip(contrasts, deviations, strict=True):
        p_values.append(_p_value(float(contrast.values.mean()), deviation / math.sqrt(num_seeds), num_seeds))
    results = []
    for contrast, deviation, p, level in zip(contrasts, deviations, p_values, holm_levels(p_values), strict=True):
        mean = float(contrast.values.mean())
        half_width = _t_quantile(1 - level / 2, num_seeds) * deviation / math.sqrt(num_seeds)
        interval = (mean - half_width, mean + half_width)
        effect_size = mean / deviation if deviation else None
        results.append(ContrastResult(contrast.what, contrast.expected_sign, mean, interval, p, effect_size))
    return results


def holm_levels(p_values: Sequence[float]) -> list[float]:
    """The level at which Holm's procedure tests each p-value.

    The smallest of n p-values is tested at level / n, the next at level / (n - 1), and so on. Once one is not rejected,
    the procedure stops, and all larger ones keep its level.

    Args:
        p_values: The p-values of n tests, in any order.

    Returns:
        The level of each test, in the same order.

    Example:
        >>> holm_levels([0.5, 0.01, 0.04])
        [0.025, 0.016666666666666666, 0.025]
    """
    levels = [SIGNIFICANCE_LEVEL] * len(p_values)
    level = SIGNIFICANCE_LEVEL
    is_rejected = True
    for rank, index in enumerate(np.argsort(p_values, kind="stable").tolist()):
        if is_rejected:
            level = SIGNIFICANCE_LEVEL / (len(p_values) - rank)
        is_rejected = p_values[index] < level
        levels[index] = level
    return levels


def _t_quantile(probability: float, num_seeds: int) -> float:
    from scipy import stats

    return float(stats.t.ppf(probability, num_seeds - 1))


def _standard_deviation(values: np.ndarray) -> float:
    """The standard deviation; 0 where the values differ by rounding alone."""
    deviation = float(values.std(ddof=1))
    return deviation if deviation > ROUNDING * float(np.abs(values).max()) else 0.0


def _p_value(mean: float, error: float, num_seeds: int) -> float:
    """The p-value of a two-sided t test of a mean with its standard error."""
    from scipy import stats

    if error == 0:  # every seed gave the same value
        return 0.0 if mean else 1.0
    return 2 * float(stats.t.sf(abs(mean) / error, num_seeds - 1))
