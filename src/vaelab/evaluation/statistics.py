"""Means, proportions and other statistics over images, each with its standard error."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from torch import Tensor

__all__ = ["Arrays", "Metrics", "Numbers", "RunningMoments", "jackknife_error", "mean_and_error", "proportion_metric"]

JACKKNIFE_GROUPS = 10  # of images, each left out once


def proportion_metric(proportion: float, count: int) -> dict[str, Any]:
    """A share of images with its binomial error."""
    return {"value": proportion, "stderr": math.sqrt(proportion * (1 - proportion) / max(count - 1, 1))}


def jackknife_error(statistic: Callable[[np.ndarray], float], count: int) -> float | None:
    """The standard error of a statistic of images, from leaving out one of ten groups of them at a time."""
    if count < 2 * JACKKNIFE_GROUPS:
        return None
    group = np.arange(count) % JACKKNIFE_GROUPS
    values = np.array([statistic(np.flatnonzero(group != g)) for g in range(JACKKNIFE_GROUPS)])
    return float(np.sqrt((JACKKNIFE_GROUPS - 1) * values.var()))


Numbers = dict[str, float]

Arrays = dict[str, np.ndarray]

Metrics = dict[str, dict[str, Any]]  # name -> {"value", "stderr"}


class RunningMoments:
    """Running sums of per-image values in float64, from which mean and standard error follow."""

    def __init__(self) -> None:
        self.sums: dict[str, tuple[int, float, float]] = {}

    def add(self, values: dict[str, Tensor]) -> None:
        for name, value in values.items():
            v = value.detach().cpu().double()  # some devices have no float64
            n, first, second = self.sums.get(name, (0, 0.0, 0.0))
            self.sums[name] = (n + len(v), first + v.sum().item(), second + v.square().sum().item())

    def metrics(self) -> Metrics:
        return {name: mean_and_error(*sums) for name, sums in self.sums.items()}


def mean_and_error(n: int, total: float, total_of_squares: float) -> dict[str, Any]:
    mean = total / n
    variance = max(total_of_squares / n - mean**2, 0) * n / max(n - 1, 1)
    return {"value": mean, "stderr": math.sqrt(variance / n) if n > 1 else None}
