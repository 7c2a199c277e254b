r"""Claims: a sentence about settings becomes an expectation, and paired differences over seeds its verdict.

A quantity y (S seeds, K settings) is measured; an expectation names contrasts d (S,), each negative where it is met:

    lowest is X:   d = y_X - y_k  for every other setting k
    decreasing:    d = y_k+1 - y_k  along the settings

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

from vaelab.errors import unknown
from vaelab.laws import NonNegative

__all__ = ["Contrast", "Expectation", "Finding", "Verdict", "judge"]

LEVEL = 0.05  # probability of a false finding that a claim admits

Verdict = Literal["supported", "refuted", "undecided"]


class Contrast(NamedTuple):
    """A difference that an expectation wants to be negative, a value for each seed, and what it compares."""

    what: str
    values: np.ndarray


class Finding(NamedTuple):
    """A contrast with its mean, Holm-adjusted 95 % interval (none of one seed), p and effect size m / s."""

    what: str
    mean: float
    interval: tuple[float, float] | None
    p: float | None
    d: float | None

    @property
    def met(self) -> bool:
        return self.interval is not None and self.interval[1] < 0

    @property
    def contradicted(self) -> bool:
        return self.interval is not None and self.interval[0] > 0


def percent_of(values: np.ndarray, percent: float) -> np.ndarray:
    return np.abs(values) * percent / 100


def against_others(y: np.ndarray, names: Sequence[str], setting: str) -> list[tuple[str, np.ndarray, np.ndarray]]:
    """(what, values of the setting, values of another) for every other setting."""
    chosen = names.index(_known(setting, names))
    return [(f"{setting} - {name}", y[:, chosen], y[:, k]) for k, name in enumerate(names) if k != chosen]


def _known(setting: str, names: Sequence[str]) -> str:
    if setting not in names:
        raise unknown("setting", setting, names)
    return setting


@dataclass(frozen=True)
class Lowest:
    """The quantity is lowest at `setting`, by at least `percent` of each other's."""

    name: ClassVar[str] = "lowest"
    setting: str = ""
    percent: NonNegative = 0.0

    @property
    def said(self) -> str:
        return f"lowest at {self.setting}" + (f", by {self.percent:g} % at least" if self.percent else "")

    def contrasts(self, y: np.ndarray, names: Sequence[str]) -> list[Contrast]:
        return [Contrast(w, a - b + percent_of(b, self.percent)) for w, a, b in against_others(y, names, self.setting)]


@dataclass(frozen=True)
class Highest:
    """The quantity is highest at `setting`, by at least `percent` of each other's."""

    name: ClassVar[str] = "highest"
    setting: str = ""
    percent: NonNegative = 0.0

    @property
    def said(self) -> str:
        return f"highest at {self.setting}" + (f", by {self.percent:g} % at least" if self.percent else "")

    def contrasts(self, y: np.ndarray, names: Sequence[str]) -> list[Contrast]:
        compared = against_others(y, names, self.setting)
        return [Contrast(f"-({what})", b - a + percent_of(b, self.percent)) for what, a, b in compared]


@dataclass(frozen=True)
class NearLowest:
    """The quantity at `setting` is at most `percent` above the lowest of the others."""

    name: ClassVar[str] = "near-lowest"
    setting: str = ""
    percent: NonNegative = 5.0

    @property
    def said(self) -> str:
        return f"at {self.setting} within {self.percent:g} % of the lowest"

    def contrasts(self, y: np.ndarray, names: Sequence[str]) -> list[Contrast]:
        compared = against_others(y, names, self.setting)
        return [Contrast(f"{what}, less {self.percent:g} %", a - b - percent_of(b, self.percent))
                for what, a, b in compared]  # fmt: skip


@dataclass(frozen=True)
class Decreasing:
    """Along the settings in their order, each value is below the one before it."""

    name: ClassVar[str] = "decreasing"
    said: ClassVar[str] = "decreasing, step by step"

    def contrasts(self, y: np.ndarray, names: Sequence[str]) -> list[Contrast]:
        steps = pairwise(range(len(names)))
        return [Contrast(f"{names[after]} - {names[before]}", y[:, after] - y[:, before]) for before, after in steps]


@dataclass(frozen=True)
class Increasing:
    """Along the settings in their order, each value is above the one before it."""

    name: ClassVar[str] = "increasing"
    said: ClassVar[str] = "increasing, step by step"

    def contrasts(self, y: np.ndarray, names: Sequence[str]) -> list[Contrast]:
        return [Contrast(f"-({what})", -values) for what, values in Decreasing().contrasts(y, names)]


@dataclass(frozen=True)
class Similar:
    """Every two settings differ by less than `percent` of the second."""

    name: ClassVar[str] = "similar"
    percent: NonNegative = 5.0

    @property
    def said(self) -> str:
        return f"within {self.percent:g} % of each other"

    def contrasts(self, y: np.ndarray, names: Sequence[str]) -> list[Contrast]:
        pairs = [(i, k) for i in range(len(names)) for k in range(i)]
        return [Contrast(f"|{names[i]} - {names[k]}|, less {self.percent:g} %, {sign}",
                         (y[:, i] - y[:, k]) * (1 if sign == "above" else -1) - percent_of(y[:, k], self.percent))
                for i, k in pairs for sign in ("above", "below")]  # fmt: skip


@dataclass(frozen=True)
class Between:
    """At every setting the quantity lies above `low` and below `high`, either of which may be left open."""

    name: ClassVar[str] = "between"
    low: float = -math.inf
    high: float = math.inf

    @property
    def said(self) -> str:
        if math.isinf(self.high):
            return f"above {self.low:g}"
        return f"below {self.high:g}" if math.isinf(self.low) else f"between {self.low:g} and {self.high:g}"

    def contrasts(self, y: np.ndarray, names: Sequence[str]) -> list[Contrast]:
        found = []
        for k, name in enumerate(names):
            at = name or "value"
            found += [Contrast(f"{self.low:g} - {at}", self.low - y[:, k])] if math.isfinite(self.low) else []
            found += [Contrast(f"{at} - {self.high:g}", y[:, k] - self.high)] if math.isfinite(self.high) else []
        return found


Expectation = Lowest | Highest | NearLowest | Decreasing | Increasing | Similar | Between


def judge(contrasts: Sequence[Contrast]) -> tuple[Verdict, list[Finding]]:
    """The verdict on contrasts that should all be negative, and each of them measured, the decisive one first.

    Decisive is, of a supported claim, the weakest contrast; else the one that contradicts it most.
    """
    findings = _findings(contrasts)
    findings.sort(key=lambda f: -(f.interval[1] if f.met and f.interval else f.interval[0] if f.interval else f.mean))
    if findings and all(f.met for f in findings):
        return "supported", findings
    contradicted = [f for f in findings if f.contradicted]
    if contradicted:
        return "refuted", contradicted + [f for f in findings if not f.contradicted]
    open_ = sorted((f for f in findings if not f.met), key=lambda f: -f.mean)
    return "undecided", open_ + [f for f in findings if f.met]


def _findings(contrasts: Sequence[Contrast]) -> list[Finding]:
    """Each contrast with its p and its interval at the level that Holm's procedure holds it to."""
    from scipy import stats

    seeds = len(contrasts[0].values) if contrasts else 0
    means = [float(c.values.mean()) for c in contrasts]
    if seeds < 2:
        return [Finding(c.what, mean, None, None, None) for c, mean in zip(contrasts, means, strict=True)]
    deviations = [_deviation(c.values) for c in contrasts]
    errors = [s / math.sqrt(seeds) for s in deviations]
    p = [_p(m, e, seeds) for m, e in zip(means, errors, strict=True)]
    findings, level, rejected = {}, LEVEL, True
    for rank, i in enumerate(np.argsort(p, kind="stable").tolist()):
        if rejected:  # once a contrast is not rejected, neither are those after it
            level = LEVEL / (len(p) - rank)
        rejected = p[i] < level
        half = float(stats.t.ppf(1 - level / 2, seeds - 1)) * errors[i]
        d = means[i] / deviations[i] if deviations[i] else None
        findings[i] = Finding(contrasts[i].what, means[i], (means[i] - half, means[i] + half), p[i], d)
    return [findings[i] for i in range(len(p))]


def _deviation(values: np.ndarray) -> float:
    """The standard deviation, 0 where nothing but rounding differs."""
    s = float(values.std(ddof=1))
    return s if s > 1e-12 * float(np.abs(values).max()) else 0.0


def _p(mean: float, error: float, seeds: int) -> float:
    from scipy import stats

    if error == 0:  # every seed gave the same
        return 0.0 if mean else 1.0
    return 2 * float(stats.t.sf(abs(mean) / error, seeds - 1))
