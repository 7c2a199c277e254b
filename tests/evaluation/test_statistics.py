"""Statistics over images, and over seeds and images together: their errors cover what they say."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import stats

from vaelab.evaluation.statistics import (
    MeanError,
    RunningMoments,
    crossed_mean,
    jackknife_error,
    mean_metric,
    proportion_metric,
)

VALUES = np.random.default_rng(0).normal(3, 2, 50)


def test_means_have_the_standard_error_of_the_mean() -> None:
    expected = VALUES.std(ddof=1) / math.sqrt(50)
    metric = mean_metric(torch.from_numpy(VALUES))
    assert metric.value == pytest.approx(VALUES.mean())
    assert metric.stderr == pytest.approx(expected)
    moments = RunningMoments()
    moments.add({"x": torch.from_numpy(VALUES[:20]), "y": torch.tensor([2.0])})
    moments.add({"x": torch.from_numpy(VALUES[20:])})
    assert moments.count("x") == 50
    assert moments.count("z") == 0
    metrics = moments.metrics()
    assert metrics["x"].value == pytest.approx(VALUES.mean())
    assert metrics["x"].stderr == pytest.approx(expected)
    assert (metrics["y"].value, metrics["y"].stderr) == (2, None)


def test_constant_values_have_no_error() -> None:
    assert mean_metric(torch.full((9,), 0.1, dtype=torch.float64)).stderr == pytest.approx(0, abs=1e-8)


def test_proportions() -> None:
    assert proportion_metric(0.2, 17).value == 0.2
    assert proportion_metric(0.2, 17).stderr == pytest.approx(0.1)
    assert proportion_metric(0.5, 1).stderr == pytest.approx(0.5)


def test_the_jackknife_of_a_mean() -> None:
    error = jackknife_error(lambda rows: float(VALUES[rows].mean()), 50)
    groups = [VALUES[np.arange(50) % 10 == group].mean() for group in range(10)]
    assert error == pytest.approx(np.std(groups, ddof=1) / math.sqrt(10))
    assert jackknife_error(lambda rows: float(VALUES[rows].mean()), 19) is None
    assert jackknife_error(lambda rows: float(VALUES[rows].mean()), 20) is not None


# Seeds and images


def test_variances_follow_from_the_mean_squares() -> None:
    differences = np.random.default_rng(1).normal(size=(3, 4)) + np.arange(4)
    crossed = crossed_mean(differences)
    residuals = differences - differences.mean(0) - differences.mean(1)[:, None] + differences.mean()
    mean_square_seeds = 4 * differences.mean(1).var(ddof=1)
    mean_square_images = 3 * differences.mean(0).var(ddof=1)
    mean_square_residuals = (residuals**2).sum() / 6
    assert crossed.mean == pytest.approx(differences.mean())
    assert crossed.error.seed_variance == pytest.approx(mean_square_seeds / 12)
    assert crossed.error.image_variance == pytest.approx((mean_square_images - mean_square_residuals) / 12)
    assert (crossed.error.num_seeds, crossed.error.num_images) == (3, 4)
    total = crossed.error.seed_variance + crossed.error.image_variance
    assert crossed.error.standard_error == pytest.approx(math.sqrt(total))


def test_image_variance_is_never_negative() -> None:
    differences = np.array([[1.0, -1.0], [-1.0, 1.0], [2.0, 2.5]])
    assert crossed_mean(differences).error.image_variance == 0


@pytest.mark.parametrize("shape", [(1, 5), (5, 1)])
def test_one_seed_or_image_is_not_enough(shape: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match=f"two seeds and two images are needed, got {shape[0]} and {shape[1]}"):
        crossed_mean(np.zeros(shape))


def test_estimated_variances_are_right_on_average() -> None:
    rng = np.random.default_rng(2)
    seed_variances, image_variances = [], []
    for _ in range(2000):
        seeds, images = rng.normal(0, 2, (4, 1)), rng.normal(0, 3, 6)
        error = crossed_mean(seeds + images + rng.normal(0, 1, (4, 6))).error
        seed_variances.append(error.seed_variance)
        image_variances.append(error.image_variance)
    assert np.mean(seed_variances) == pytest.approx((2**2 + 1 / 6) / 4, rel=0.05)
    assert np.mean(image_variances) == pytest.approx(3**2 / 6, rel=0.05)


def test_bounds_of_one_source_of_error() -> None:
    seeds = MeanError(4.0, 0.0, 6, 0)
    assert seeds.half_width(0.01) == pytest.approx(2 * stats.t.isf(0.01, 5))
    assert seeds.tail_probability(3) == pytest.approx(stats.t.sf(1.5, 5))
    assert seeds.tail_probability(-3) == pytest.approx(stats.t.cdf(1.5, 5))
    assert seeds.tail_probability(0) == pytest.approx(0.5)
    images = MeanError(1e-12, 4.0, 6, 30)
    assert images.half_width(0.01) == pytest.approx(2 * stats.t.isf(0.01, 29))


def test_bounds_of_two_sources_of_error() -> None:
    error = MeanError(1.0, 4.0, 3, 30)
    expected = math.hypot(stats.t.isf(0.01, 2), 2 * stats.t.isf(0.01, 29))
    assert error.half_width(0.01) == pytest.approx(expected)
    assert error.tail_probability(expected) == pytest.approx(0.01)
    assert error.tail_probability(-expected) == pytest.approx(0.99)
    assert error.tail_probability(0) == pytest.approx(0.5)
    assert 0 < error.tail_probability(1e300) < 1e-40


@pytest.mark.parametrize(("num_seeds", "seed_deviation"), [(2, 1.0), (3, 0.3), (5, 0.1), (12, 0.2)])
def test_intervals_cover_seeds_and_images(num_seeds: int, seed_deviation: float) -> None:
    """The deviation over 40 images is 1, so that of their mean 0.16."""
    rng = np.random.default_rng(num_seeds)
    num = 2000
    covered, covered_by_seeds = 0, 0
    for _ in range(num):
        seeds, images = rng.normal(0, seed_deviation, (num_seeds, 1)), rng.normal(0, 1, 40)
        mean, error = crossed_mean(seeds + images + rng.normal(0, 0.5, (num_seeds, 40)))
        covered += abs(mean) < error.half_width(0.025)
        covered_by_seeds += abs(mean) < error._replace(image_variance=0.0).half_width(0.025)
    assert covered / num > 0.95 - 3 * math.sqrt(0.05 * 0.95 / num)
    assert covered / num < 0.995, "and they are not much wider than they must be"
    assert covered_by_seeds < covered
