"""Total correlation: 0 where dimensions are independent at every rate, and known values where they are not."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from vaelab.core.rng import generator
from vaelab.evaluation.total_correlation import (
    gaussian_copula_correlation,
    neighbour_correlation,
    normal_scores,
    total_correlation_metric,
    total_correlation_of_codes,
)


def normal(*shape: int, name: str = "codes") -> Tensor:
    return torch.randn(shape, generator=generator("total correlation", name), dtype=torch.float64)


def equally_correlated(count: int, dimensions: int, correlation: float) -> tuple[Tensor, float]:
    """Gaussian codes of which any two dimensions have a correlation, and their total correlation."""
    shared, own = normal(count, 1, name="shared"), normal(count, dimensions, name="own")
    z = math.sqrt(correlation) * shared + math.sqrt(1 - correlation) * own
    log_determinant = (dimensions - 1) * math.log(1 - correlation) + math.log(1 + (dimensions - 1) * correlation)
    return z, -0.5 * log_determinant


@pytest.mark.parametrize(("count", "dimensions"), [(400, 3), (1500, 12)])
def test_independent_dimensions_of_any_shape_share_nothing(count: int, dimensions: int) -> None:
    gaussian = normal(count, dimensions)
    for z in (gaussian, gaussian.exp(), gaussian.abs().sqrt() * gaussian.sign(), 1e-4 * gaussian + 7):
        metric = total_correlation_metric(z)
        assert metric is not None
        assert metric.stderr is not None
        assert abs(metric.value) < 3 * metric.stderr < 0.3
        assert metric.n == count


@pytest.mark.parametrize(("dimensions", "correlation"), [(2, 0.3), (2, 0.9), (8, 0.5)])
def test_correlated_gaussians_have_the_closed_form(dimensions: int, correlation: float) -> None:
    z, exact = equally_correlated(2000, dimensions, correlation)
    metric = total_correlation_metric(z)
    assert metric is not None
    assert metric.value == pytest.approx(exact, abs=0.1 + 0.05 * exact)
    assert abs(metric.value - exact) < 3.5 * (metric.stderr or 0)
    monotone = total_correlation_of_codes(z.sinh())
    assert monotone == pytest.approx(metric.value, abs=1e-9), "ranks do not change"


def test_the_copula_is_corrected_for_few_codes() -> None:
    """The plain estimate of 40 codes in 10 dimensions is 0.66 nats too high on average, at any correlation."""
    for correlation in (0.0, 0.6):
        z, exact = equally_correlated(40 * 200, 10, correlation)
        plain, corrected = [], []
        for codes in z.split(40):
            plain.append(-0.5 * torch.linalg.slogdet(torch.corrcoef(codes.T)).logabsdet.item())
            corrected.append(gaussian_copula_correlation(codes))
        assert sum(plain) / 200 - exact > 0.5
        assert sum(corrected) / 200 == pytest.approx(exact, abs=0.1)


def test_neighbours_see_what_correlations_do_not() -> None:
    """z_2 = z_1^2 + noise: uncorrelated, with a mutual information of h(z_2) - h(noise)."""
    first, noise = normal(1000), 0.5 * normal(1000, name="noise")
    z = torch.stack([first, first.square() + noise], 1)
    assert gaussian_copula_correlation(normal_scores(z)) == pytest.approx(0, abs=0.02)
    residuals = (z[:, 1, None] - normal(4000, name="more").square()) / 0.5
    log_density = (-0.5 * residuals.square()).logsumexp(1) - math.log(4000)
    exact = -log_density.mean().item() - 0.5
    assert total_correlation_of_codes(z) == pytest.approx(exact, abs=0.12)
    assert neighbour_correlation(normal(1000, 2)) == pytest.approx(0, abs=0.08)


def test_neighbours_are_counted_as_in_the_formula() -> None:
    points = normal(30, 3)
    differences = (points[:, None] - points).abs()
    total = 0.0
    for i in range(30):
        others = torch.arange(30) != i
        radius = differences[i, others].amax(1).sort().values[4]
        nearer = (differences[i, others] < radius).sum(0)
        total += torch.digamma(nearer + 1.0).sum().item() / 30
    five, thirty = torch.digamma(torch.tensor([5.0, 30.0])).tolist()
    assert neighbour_correlation(points) == pytest.approx(five + 2 * thirty - total, abs=1e-5)


def test_normal_scores_are_quantiles_of_ranks() -> None:
    z = torch.tensor([[5.0, -1.0], [9.0, 3.0], [7.0, 1e9]], dtype=torch.float64)
    expected = torch.tensor([[-1.0, -1.0], [1.0, 0.0], [0.0, 1.0]], dtype=torch.float64) * 0.6744897501960817
    torch.testing.assert_close(normal_scores(z), expected)


def test_too_few_codes_or_one_dimension_have_none() -> None:
    assert total_correlation_metric(normal(19, 10)) is None
    assert total_correlation_metric(normal(500, 1)) is None
    assert total_correlation_metric(normal(20, 10)) is not None
