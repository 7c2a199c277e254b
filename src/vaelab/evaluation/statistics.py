"""Statistics over images: means, proportions and others, each with its standard error."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
from torch import Tensor

from vaelab.evaluation.results import Metric

__all__ = ["RunningMoments", "jackknife_error", "mean_metric", "proportion_metric"]

JACKKNIFE_GROUPS = 10  # of images, each left out once


class Moments(NamedTuple):
    """The sums over images from which mean and standard error follow."""

    num_images: int = 0
    total: float = 0.0
    total_of_squares: float = 0.0

    def metric(self) -> Metric:
        """The mean with its standard error; no error for a single image."""
        n = self.num_images
        mean = self.total / n
        if n == 1:
            return Metric(mean)
        variance = max(self.total_of_squares / n - mean**2, 0) * n / (n - 1)
        return Metric(mean, math.sqrt(variance / n))


class RunningMoments:
    """Running sums of values of images in float64.

    Example:
        >>> import torch
        >>> moments = RunningMoments()
        >>> moments.add({"mse": torch.tensor([1.0, 3.0])})
        >>> moments.metrics()["mse"].value
        2.0
    """

    def __init__(self) -> None:
        self.moments: dict[str, Moments] = {}

    def add(self, values: Mapping[str, Tensor]) -> None:
        """Add the values of some images, by name, (B,) each."""
        for name, tensor in values.items():
            value = tensor.detach().cpu().double()  # some devices have no float64
            count, total, total_of_squares = self.moments.get(name, Moments())
            self.moments[name] = Moments(
                count + len(value), total + value.sum().item(), total_of_squares + value.square().sum().item()
            )

    def count(self, name: str) -> int:
        """How many values were added under a name."""
        return self.moments.get(name, Moments()).num_images

    def metrics(self) -> dict[str, Metric]:
        """The mean of each name that has values."""
        return {name: moments.metric() for name, moments in self.moments.items() if moments.num_images}


def mean_metric(values: Tensor) -> Metric:
    """The mean of values of images (N,) with its standard error.

    Example:
        >>> import torch
        >>> mean_metric(torch.tensor([1.0, 3.0]))
        Metric(value=2.0, stderr=1.0, n=None, samples=None, sampling_error=None, note=None)
    """
    return Moments(len(values), values.sum().item(), values.square().sum().item()).metric()


def proportion_metric(proportion: float, count: int) -> Metric:
    """A proportion of images with its binomial standard error.

    Example:
        >>> proportion_metric(0.5, count=26).stderr
        0.1
    """
    return Metric(proportion, math.sqrt(proportion * (1 - proportion) / max(count - 1, 1)))


def jackknife_error(statistic: Callable[[np.ndarray], float], count: int) -> float | None:
    """The standard error of a statistic of images, by the jackknife over ten groups of them.

    Args:
        statistic: The statistic of the images at some positions, (n,) -> float.
        count: How many images there are.

    Returns:
        The error; None for fewer than 20 images.
    """
    if count < 2 * JACKKNIFE_GROUPS:
        return None
    group = np.arange(count) % JACKKNIFE_GROUPS
    estimates = []
    for left_out in range(JACKKNIFE_GROUPS):
        estimates.append(statistic(np.flatnonzero(group != left_out)))
    return float(np.sqrt((JACKKNIFE_GROUPS - 1) * np.array(estimates).var()))
