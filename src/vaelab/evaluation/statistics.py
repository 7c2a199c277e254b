"""Statistics over images: means, proportions and others, each with its standard error."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
from torch import Tensor

from vaelab.evaluation.results import Metric

__all__ = ["CrossedMean", "RunningMoments", "crossed_mean", "jackknife_error", "mean_metric", "proportion_metric"]

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


class CrossedMean(NamedTuple):
    """The mean of differences over seeds and images, with what it varies by.

    Attributes:
        mean: The mean.
        seed_variance: The variance of the mean that comes from the seeds, among them splits and order.
        image_variance: The variance of the mean that comes from the choice of the test images.
        degrees_of_freedom: Those of the sum of both variances.
    """

    mean: float
    seed_variance: float
    image_variance: float
    degrees_of_freedom: float

    @property
    def standard_error(self) -> float:
        """The standard error of the mean over seeds and images together."""
        return math.sqrt(self.seed_variance + self.image_variance)


def crossed_mean(differences: np.ndarray) -> CrossedMean:
    """The mean of paired differences that were measured for every seed on the same test images.

    The model is d[s, i] = mean + seed[s] + image[i] + residual[s, i], with all three random. With the mean squares
    M_s, M_i, M_r of the two-way table the variance of the mean is M_s / (S I) + (M_i - M_r) / (S I): its first part
    holds the seeds and the residuals, its second the images. Another split in each seed is a part of the seed effect.

    Args:
        differences: The differences, with shape (S, I), of at least two seeds and two images.

    Returns:
        The mean, its variances, and Satterthwaite's degrees of freedom.

    Raises:
        ValueError: There are fewer than two seeds or images.

    Source: An Approximate Distribution of Estimates of Variance Components, Satterthwaite 1946; Components of
    Variance, Searle, Casella and McCulloch 1992, chapter 4.

    Example:
        >>> crossed_mean(np.array([[1.0, 2.0], [2.0, 3.0]])).mean
        2.0
    """
    num_seeds, num_images = differences.shape
    if min(num_seeds, num_images) < 2:
        raise ValueError(f"at least two seeds and two images are needed, got {num_seeds} and {num_images}")
    mean = differences.mean()
    seed_means, image_means = differences.mean(1), differences.mean(0)
    residuals = differences - seed_means[:, None] - image_means + mean
    count, df_seeds, df_images = num_seeds * num_images, num_seeds - 1, num_images - 1
    seeds = float(seed_means.var(ddof=1)) / num_seeds
    images = float(image_means.var(ddof=1)) / num_images
    residual = float(np.square(residuals).sum()) / (df_seeds * df_images) / count
    image_variance = max(images - residual, 0.0)
    weighted = seeds**2 / df_seeds
    if image_variance:
        weighted += images**2 / df_images + residual**2 / (df_seeds * df_images)
    degrees_of_freedom = (seeds + image_variance) ** 2 / weighted if weighted else float(df_seeds)
    return CrossedMean(float(mean), seeds, image_variance, degrees_of_freedom)
