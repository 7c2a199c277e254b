"""Statistics over images: means, proportions and others, each with its standard error."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
from torch import Tensor

from vaelab.evaluation.results import Metric

__all__ = [
    "CrossedMean",
    "MeanError",
    "RunningMoments",
    "crossed_mean",
    "jackknife_error",
    "mean_metric",
    "proportion_metric",
]

JACKKNIFE_GROUPS = 10  # of images, each left out once

SMALLEST_LOG_LEVEL = -100.0  # p-values below exp of it are not distinguished


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


class MeanError(NamedTuple):
    """How uncertain a mean over seeds and test images is.

    Attributes:
        seed_variance: The variance of the mean that comes from the seeds, among them splits and order.
        image_variance: The variance of the mean that comes from the choice of the test images; 0 if they are taken as
            given.
        num_seeds: The number of seeds.
        num_images: The number of test images; 0 if they are taken as given.
    """

    seed_variance: float
    image_variance: float
    num_seeds: int
    num_images: int

    @property
    def standard_error(self) -> float:
        """The standard error of the mean."""
        return math.sqrt(self.seed_variance + self.image_variance)

    def half_width(self, level: float) -> float:
        """The distance from the mean to a one-sided confidence bound.

        With a_s and a_i the distances for the seeds and for the images alone, by t with S - 1 and I - 1 degrees of
        freedom, it is sqrt(a_s^2 + a_i^2). At few seeds this keeps the level, which one t interval with Satterthwaite's
        degrees of freedom does not: docs/statistics.md compares them.

        Args:
            level: The level of the bound, below 1/2.

        Source: Construction of Confidence Limits about Effect Measures: A General Approach, Zou and Donner 2008.
        """
        from scipy import special

        squares = special.stdtrit(self.num_seeds - 1, level) ** 2 * self.seed_variance
        if self.image_variance:
            squares += special.stdtrit(self.num_images - 1, level) ** 2 * self.image_variance
        return math.sqrt(squares)

    def tail_probability(self, distance: float) -> float:
        """The level of the confidence bound at a distance from the mean: a one-sided p-value.

        Args:
            distance: How far the mean is beyond the bound that is tested.
        """
        from scipy import optimize, special

        if distance < 0:
            return 1 - self.tail_probability(-distance)
        if not self.image_variance:
            return float(special.stdtr(self.num_seeds - 1, -distance / self.standard_error))
        if self.half_width(math.exp(SMALLEST_LOG_LEVEL)) < distance:
            return math.exp(SMALLEST_LOG_LEVEL)
        log_level = optimize.bisect(
            lambda x: self.half_width(math.exp(x)) - distance, SMALLEST_LOG_LEVEL, math.log(0.5), xtol=1e-10
        )
        return math.exp(log_level)  # type: ignore[arg-type]


class CrossedMean(NamedTuple):
    """The mean of differences over seeds and images, with its error."""

    mean: float
    error: MeanError


def crossed_mean(differences: np.ndarray) -> CrossedMean:
    """The mean of paired differences that were measured for every seed on the same test images.

    The model is d[s, i] = mean + seed[s] + image[i] + residual[s, i], with all three random. With the mean squares
    M_s, M_i, M_r of the two-way table the variance of the mean is M_s / (S I) + (M_i - M_r) / (S I): its first part
    holds the seeds and the residuals, its second the images. If each seed has its own split, that is a part of the seed
    effect.

    Args:
        differences: The differences, with shape (S, I), of at least two seeds and two images.

    Returns:
        The mean with its error.

    Raises:
        ValueError: There are fewer than two seeds or images.

    Source: Variance Components, Searle, Casella and McCulloch 1992, chapter 4.

    Example:
        >>> crossed_mean(np.array([[1.0, 2.0], [2.0, 4.0]]))
        CrossedMean(mean=2.25, error=MeanError(seed_variance=0.5625, image_variance=0.5, num_seeds=2, num_images=2))
    """
    num_seeds, num_images = differences.shape
    if min(num_seeds, num_images) < 2:
        raise ValueError(f"at least two seeds and two images are needed, got {num_seeds} and {num_images}")
    mean = differences.mean()
    seed_means, image_means = differences.mean(1), differences.mean(0)
    residuals = differences - seed_means[:, None] - image_means + mean
    mean_square = np.square(residuals).sum() / ((num_seeds - 1) * (num_images - 1))
    seed_variance = float(seed_means.var(ddof=1)) / num_seeds
    image_variance = float(image_means.var(ddof=1)) / num_images - float(mean_square) / (num_seeds * num_images)
    return CrossedMean(float(mean), MeanError(seed_variance, max(image_variance, 0.0), num_seeds, num_images))
