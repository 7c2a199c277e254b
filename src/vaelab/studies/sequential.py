r"""Looks: a claim may be judged several times while seeds are added, and errs no more often than if judged once.

The t statistic of n seeds is looked at for n = n_1 < ... < n_J. Of the level alpha, alpha (n_j / n_J)^rho may be spent
up to look j. Each look has the nominal level that spends just what is due: the one at which a true null is first
rejected there with that probability.

The nominal levels are exact for normal values, at any number of seeds. Let u = sum(x) / sqrt(sum(x^2)) of n values.
By Basu's theorem u does not depend on sum(x^2), so u is a Markov chain: the next value x turns it into
(u + w) / sqrt(1 + w^2), where w = x / sqrt(sum(x^2)) is independent of all earlier u, and sqrt(n) w has Student's t
distribution with n degrees of freedom. The probability of no earlier rejection is carried along this chain on a grid.

Source: Discrete Sequential Boundaries for Clinical Trials, Lan and DeMets 1983; Group Sequential Methods with
Applications to Clinical Trials, Jennison and Turnbull 1999 (power family of spending functions, t statistics).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from vaelab.core.errors import UserError

__all__ = ["LEVELS", "LookPlan", "adjusted_p", "exact_nominal_levels", "nominal_level", "nominal_level_table"]

SPENDING_POWER = 1.0  # rho: chosen by simulated power, see docs/statistics.md

GRID_SIZE = 301  # angles at which probabilities are kept

NODES, WEIGHTS = np.polynomial.legendre.leggauss(32)

# The levels at which nominal levels are computed; between them they are interpolated.
LEVELS = np.concatenate([np.geomspace(1e-7, 1e-3, 10, endpoint=False), np.geomspace(1e-3, 0.5, 26)])


class LookPlan(NamedTuple):
    """After how many seeds a claim is judged.

    Attributes:
        looks: The numbers of seeds, increasing, each at least 2.
    """

    looks: tuple[int, ...]

    @classmethod
    def fixed(cls, num_seeds: int) -> LookPlan:
        """One look, at all seeds.

        Example:
            >>> LookPlan.fixed(5).looks
            (5,)
        """
        return cls.sequential(num_seeds, num_seeds)

    @classmethod
    def sequential(cls, start: int, most: int) -> LookPlan:
        """A look after every seed from `start` on.

        Args:
            start: The number of seeds to begin with; with fewer than 2 the first look is at 2.
            most: The largest number of seeds.

        Raises:
            UserError: `most` is below `start`.

        Example:
            >>> LookPlan.sequential(3, 6).looks
            (3, 4, 5, 6)
        """
        if most < start:
            raise UserError(f"the largest number of seeds must be at least {start}, where a study starts, got {most}")
        return cls(tuple(range(max(start, 2), max(most, 2) + 1)))

    def reached(self, num_seeds: int) -> tuple[int, ...]:
        """The looks that a number of seeds allows."""
        return tuple(look for look in self.looks if look <= num_seeds)

    def next_look(self, num_seeds: int) -> int | None:
        """The first look that needs more seeds than there are; None after the last one."""
        return next((look for look in self.looks if look > num_seeds), None)


def adjusted_p(p: float, num_seeds: int, plan: LookPlan) -> float:
    """The level at which a claim would be decided at a look: a p-value that holds for all looks together.

    Args:
        p: The one-sided p-value of the t test with the seeds of this look.
        num_seeds: The number of seeds at this look, one of the plan's.
        plan: The plan of looks.

    Returns:
        A p-value. Under a true null the smallest one of all looks is below alpha with probability alpha at most.

    Example:
        >>> adjusted_p(0.01, 5, LookPlan.fixed(5))
        0.01
    """
    if len(plan.looks) == 1:
        return p
    table = nominal_level_table(plan.looks)[plan.looks.index(num_seeds)]
    if p > table[-1]:
        return 1.0
    if p <= table[0]:
        return float(LEVELS[0] * p / table[0])  # far below any level: in proportion
    return float(np.exp(np.interp(math.log(p), np.log(table), np.log(LEVELS))))


def nominal_level(level: float, num_seeds: int, plan: LookPlan) -> float:
    """The one-sided level of the t test at a look, so that all looks together have a level.

    Args:
        level: The level of all looks together.
        num_seeds: The number of seeds at the look, one of the plan's.
        plan: The plan of looks.

    Example:
        >>> plan = LookPlan.sequential(3, 12)
        >>> round(nominal_level(0.025, 3, plan), 5)  # a quarter of the level
        0.00625
    """
    if len(plan.looks) == 1:
        return level
    table = nominal_level_table(plan.looks)[plan.looks.index(num_seeds)]
    if level < LEVELS[0]:
        return float(table[0] * level / LEVELS[0])
    return float(np.exp(np.interp(math.log(level), np.log(LEVELS), np.log(table))))


@lru_cache(maxsize=64)
def nominal_level_table(looks: tuple[int, ...]) -> np.ndarray:
    """The nominal levels at every look (rows) for each of LEVELS (columns)."""
    return np.array([exact_nominal_levels(looks, level) for level in LEVELS]).T


class Unrejected(NamedTuple):
    """The probability that a true null was not rejected before, for angles of u: a = arcsin(u / sqrt(n)).

    Attributes:
        angles: The angles, increasing. Above the last one the probability is 0.
        probabilities: The probability for each.
    """

    angles: np.ndarray
    probabilities: np.ndarray

    def at(self, angles: np.ndarray) -> np.ndarray:
        """The probabilities for other angles."""
        return np.interp(angles, self.angles, self.probabilities, right=0)


def exact_nominal_levels(looks: Sequence[int], level: float, power: float = SPENDING_POWER) -> list[float]:
    """The one-sided nominal level of each look, by numerical integration along the chain.

    Args:
        looks: The numbers of seeds at which is looked.
        level: The level of all looks together, at most 1/2.
        power: The power of the spending function.
    """
    from scipy import special

    nominal_levels = []
    angles = _angles_up_to(math.pi / 2)
    unrejected = Unrejected(angles, np.ones_like(angles))
    spent = 0.0
    for n in range(looks[0], looks[-1] + 1):
        bound = unrejected.angles[-1]
        if n in looks:
            due = level * (n / looks[-1]) ** power - spent
            spent += due
            bound = _bound_that_spends(n, unrejected, due)
            nominal_levels.append(float(special.stdtr(n - 1, -math.sqrt(n - 1) * math.tan(bound))))
        unrejected = _next_unrejected(n, unrejected, bound)
    return nominal_levels


def _angles_up_to(largest: float) -> np.ndarray:
    """Angles from -pi / 2 on, dense at both ends."""
    shares = (1 - np.cos(np.linspace(0, math.pi, GRID_SIZE))) / 2
    return -math.pi / 2 + (largest + math.pi / 2) * shares


def _density_factor(n: int) -> float:
    """The factor c of the density c cos(a)^(n - 2) of the angle of n normal values."""
    return math.exp(math.lgamma(n / 2) - math.lgamma((n - 1) / 2)) / math.sqrt(math.pi)


def _bound_that_spends(n: int, unrejected: Unrejected, due: float) -> float:
    """The angle above which the probability, without earlier rejections, is what is due."""
    from scipy import optimize

    largest = unrejected.angles[-1]

    def excess(bound: float) -> float:
        half = (largest - bound) / 2
        angles = bound + half * (1 + NODES)
        densities = np.cos(angles) ** (n - 2) * unrejected.at(angles)
        return _density_factor(n) * half * float(WEIGHTS @ densities) - due

    return optimize.bisect(excess, -math.pi / 2, largest, xtol=1e-13)  # type: ignore[return-value]


def _last_value_angles(n: int, target: np.ndarray, bound: float) -> tuple[np.ndarray, np.ndarray]:
    """Between which angles psi the last value lies for angles of n + 1 values, without a rejection at n.

    They follow from |u| <= sqrt(n) and from u below the bound, where u is that of the first n values.
    """
    delta = math.atan(math.sqrt(n))
    low = np.maximum(target - delta, -math.pi - target + delta)
    high = np.minimum(target + delta, math.pi - target - delta)
    largest = math.sqrt(n) * math.sin(bound)
    ratio = math.sqrt(n + 1) * np.sin(target) / math.hypot(1, largest)
    beta = np.arcsin(np.clip(ratio, -1, 1))
    delta = math.atan(largest)
    return np.maximum(low, beta - delta), np.minimum(high, math.pi - beta - delta)


def _next_unrejected(n: int, unrejected: Unrejected, bound: float) -> Unrejected:
    """The probability of no rejection up to look n, for angles of n + 1 values.

    The last value is the sine of an angle psi, of which the earlier ones leave the cosine: u' = sin(psi) + u cos(psi).
    The largest u' without a rejection is sqrt(1 + u^2) at the bound.
    """
    largest = math.hypot(1, math.sqrt(n) * math.sin(bound)) / math.sqrt(n + 1)
    angles = _angles_up_to(math.asin(min(largest, 1.0)))
    target = angles[1:-1]
    low, high = _last_value_angles(n, target, bound)
    middle, half = (low + high) / 2, np.maximum(high - low, 0) / 2
    turn = math.pi / 2 * NODES
    psi = middle[:, None] + half[:, None] * np.sin(turn)  # dense at both ends, where the integrand is steep
    u = (math.sqrt(n + 1) * np.sin(target)[:, None] - np.sin(psi)) / np.cos(psi)
    earlier = np.arcsin(np.clip(u / math.sqrt(n), -1, 1))
    # The density of u is that of its angle over sqrt(n) cos(angle); that of psi is in proportion to cos(psi)^(n - 1).
    density = _density_factor(n) * np.cos(earlier) ** (n - 3) / math.sqrt(n) * unrejected.at(earlier)
    integrand = _density_factor(n + 1) * np.cos(psi) ** (n - 2) * density
    joint = half * math.pi / 2 * ((integrand * np.cos(turn)) @ WEIGHTS)
    marginal = _density_factor(n + 1) * np.cos(target) ** (n - 2) / math.sqrt(n + 1)
    inner = np.clip(joint / marginal, 0, 1)
    return Unrejected(angles, np.concatenate([inner[:1], inner, inner[-1:]]))
