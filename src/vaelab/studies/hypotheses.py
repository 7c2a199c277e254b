r"""Claims: a sentence about settings becomes an expectation, and paired differences over seeds its verdict.

A quantity y (S seeds, K settings) is measured; an expectation names contrasts d (S,) and the sign that it wants:

    lowest is X:   d = y_X - y_k < 0  for every other setting k
    decreasing:    d = y_k+1 - y_k < 0  along the settings
    above a:       d = y - a > 0

A contrast has mean m, standard deviation s and the paired-t interval m +- t s / sqrt(S). Within a claim, Holm's
step-down holds the probability of any false finding at 5 %, and the intervals are widened to match: an interval
excludes 0 exactly where Holm rejects. Supported: every contrast is met; refuted: one at least is contradicted;
undecided: neither, and always with a single seed. Source: A Simple Sequentially Rejective Multiple Test Procedure,
Holm 1979.
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

__all__ = ["SIGNIFICANCE_LEVEL", "Contrast", "ContrastResult", "Expectation", "Verdict", "decide_verdict"]

SIGNIFICANCE_LEVEL = 0.05  # probability of a false finding that a claim admits

Sign = Literal[-1, 1]

SIGNS: tuple[Sign, Sign] = (-1, 1)

Verdict = Literal["supported", "refuted", "undecided"]


class Contrast(NamedTuple):
    """A difference, a value for each seed, what it compares, and the sign that an expectation wants it to have."""

    what: str
    values: np.ndarray
    expected_sign: Sign


class ContrastResult(NamedTuple):
    """A contrast with its mean, Holm-adjusted 95 % interval (none of one seed), p and effect size mean / sd."""

    what: str
    wanted: Sign
    mean: float
    interval: tuple[float, float] | None
    p: float | None
    effect_size: float | None

    @property
    def oriented_interval(self) -> tuple[float, float]:
        """The interval, turned so that what is wanted is negative; of one seed everything is possible."""
        if self.interval is None:
            return -math.inf, math.inf
        low, high = sorted(-self.wanted * end for end in self.interval)
        return low, high

    @property
    def confirmed(self) -> bool:
        return self.oriented_interval[1] < 0

    @property
    def contradicted(self) -> bool:
        return self.oriented_interval[0] > 0


def percent_of(values: np.ndarray, percent: float) -> np.ndarray:
    return np.abs(values) * percent / 100


def contrasts_with_others(
    y: np.ndarray, names: Sequence[str], setting: str, percent: float, expected_sign: Sign
) -> list[Contrast]:
    """The setting's values less `1 + percent / 100` times those of every other setting."""
    chosen = names.index(_require_known_setting(setting, names))
    return [
        Contrast(
            _difference_label(setting, name, percent),
            y[:, chosen] - y[:, k] - percent_of(y[:, k], percent),
            expected_sign,
        )
        for k, name in enumerate(names)
        if k != chosen
    ]


def _difference_label(setting: str, other: str, percent: float) -> str:
    return f"{setting} − {1 + percent / 100:g} × {other}" if percent else f"{setting} − {other}"


def _require_known_setting(setting: str, names: Sequence[str]) -> str:
    if setting not in names:
        raise unknown_name_error("setting", setting, names)
    return setting


@dataclass(frozen=True)
class Lowest:
    """The quantity is lowest at `setting`, by at least `percent` of each other's."""

    name: ClassVar[str] = "lowest"
    expected_sign: ClassVar[Sign] = -1
    setting: str = ""
    percent: NonNegative = 0.0

    @property
    def description(self) -> str:
        return f"{self.name} at {self.setting}" + (f", by {self.percent:g} % at least" if self.percent else "")

    def contrasts(self, y: np.ndarray, names: Sequence[str]) -> list[Contrast]:
        return contrasts_with_others(y, names, self.setting, self.expected_sign * self.percent, self.expected_sign)


@dataclass(frozen=True)
class Highest(Lowest):
    """The quantity is highest at `setting`, by at least `percent` of each other's."""

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
        return f"at {self.setting} within {self.percent:g} % of the lowest"

    def contrasts(self, y: np.ndarray, names: Sequence[str]) -> list[Contrast]:
        return contrasts_with_others(y, names, self.setting, self.percent, -1)


@dataclass(frozen=True)
class Decreasing:
    """Along the settings in their order, each value is below the one before it."""

    name: ClassVar[str] = "decreasing"
    expected_sign: ClassVar[Sign] = -1

    @property
    def description(self) -> str:
        return f"{self.name}, step by step"

    def contrasts(self, y: np.ndarray, names: Sequence[str]) -> list[Contrast]:
        steps = pairwise(range(len(names)))
        return [
            Contrast(_difference_label(names[k], names[i], 0), y[:, k] - y[:, i], self.expected_sign) for i, k in steps
        ]


@dataclass(frozen=True)
class Increasing(Decreasing):
    """Along the settings in their order, each value is above the one before it."""

    name: ClassVar[str] = "increasing"
    expected_sign: ClassVar[Sign] = 1


@dataclass(frozen=True)
class Similar:
    """Every two settings differ by less than `percent` of the second."""

    name: ClassVar[str] = "similar"
    percent: NonNegative = 5.0

    @property
    def description(self) -> str:
        return f"within {self.percent:g} % of each other"

    def contrasts(self, y: np.ndarray, names: Sequence[str]) -> list[Contrast]:
        found = []
        for k, name in enumerate(names):
            for other, value in zip(names[:k], y[:, :k].T, strict=True):
                for percent, wanted in zip((self.percent, -self.percent), SIGNS, strict=True):
                    d = y[:, k] - value - percent_of(value, percent)
                    found.append(Contrast(_difference_label(name, other, percent), d, wanted))
        return found


@dataclass(frozen=True)
class Between:
    """At every setting the quantity lies above `low` and below `high`, either of which may be left open."""

    name: ClassVar[str] = "between"
    low: float = -math.inf
    high: float = math.inf

    def __post_init__(self) -> None:
        if not self.low < self.high:
            raise UserError(f"between: low must be below high, got {self.low:g} and {self.high:g}")

    @property
    def description(self) -> str:
        if math.isinf(self.high):
            return f"above {self.low:g}"
        return f"below {self.high:g}" if math.isinf(self.low) else f"between {self.low:g} and {self.high:g}"

    def contrasts(self, y: np.ndarray, names: Sequence[str]) -> list[Contrast]:
        found = []
        for k, name in enumerate(names):
            for bound, wanted in zip((self.high, self.low), SIGNS, strict=True):
                if math.isfinite(bound):
                    value = f"value at {name}" if name else "value"
                    found.append(Contrast(f"{value} − {bound:g}", y[:, k] - bound, wanted))
        return found


Expectation = Lowest | Highest | NearLowest | Decreasing | Increasing | Similar | Between


def decide_verdict(contrasts: Sequence[Contrast]) -> tuple[Verdict, list[ContrastResult]]:
    """The verdict on contrasts, and each of them measured, the decisive one first.

    Decisive is, of a supported claim, the weakest contrast; else the one that contradicts it most.
    """
    findings = _test_contrasts(contrasts)
    if findings and all(f.confirmed for f in findings):
        return "supported", sorted(findings, key=lambda f: -f.oriented_interval[1])
    if any(f.contradicted for f in findings):
        return "refuted", sorted(findings, key=lambda f: -f.oriented_interval[0])
    return "undecided", sorted(findings, key=lambda f: (f.confirmed, f.wanted * f.mean))


def _test_contrasts(contrasts: Sequence[Contrast]) -> list[ContrastResult]:
    """Each contrast with its p and its interval at the level that Holm's procedure holds it to."""
    from scipy import stats

    seeds = len(contrasts[0].values) if contrasts else 0
    means = [float(c.values.mean()) for c in contrasts]
    if seeds < 2:
        return [
            ContrastResult(c.what, c.expected_sign, mean, None, None, None)
            for c, mean in zip(contrasts, means, strict=True)
        ]
    deviations = [_standard_deviation(c.values) for c in contrasts]
    p = [_p_value(m, s / math.sqrt(seeds), seeds) for m, s in zip(means, deviations, strict=True)]
    findings, level, rejected = {}, SIGNIFICANCE_LEVEL, True
    for rank, i in enumerate(np.argsort(p, kind="stable").tolist()):
        if rejected:  # once a contrast is not rejected, neither are those after it
            level = SIGNIFICANCE_LEVEL / (len(p) - rank)
        rejected = p[i] < level
        half = float(stats.t.ppf(1 - level / 2, seeds - 1)) * deviations[i] / math.sqrt(seeds)
        size = means[i] / deviations[i] if deviations[i] else None
        c = contrasts[i]
        findings[i] = ContrastResult(c.what, c.expected_sign, means[i], (means[i] - half, means[i] + half), p[i], size)
    return [findings[i] for i in range(len(p))]


def _standard_deviation(values: np.ndarray) -> float:
    """The standard deviation, 0 where nothing but rounding differs."""
    s = float(values.std(ddof=1))
    return s if s > 1e-12 * float(np.abs(values).max()) else 0.0


def _p_value(mean: float, error: float, seeds: int) -> float:
    from scipy import stats

    if error == 0:  # every seed gave the same
        return 0.0 if mean else 1.0
    return 2 * float(stats.t.sf(abs(mean) / error, seeds - 1))
