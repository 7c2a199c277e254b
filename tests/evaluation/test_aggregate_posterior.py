"""The codes of all images together: bounds that hold, and what they say of codes that share nothing."""

from __future__ import annotations

import math

import pytest
import torch

from vaelab.core.rng import generator
from vaelab.evaluation.aggregate_posterior import MeasuredCodes, aggregate_posterior_metrics, information_bounds
from vaelab.evaluation.results import Metric
from vaelab.models.densities import Normal
from vaelab.models.priors import StandardNormal


def gaussian_posteriors(count: int, dimensions: int, variance: float) -> tuple[Normal, torch.Tensor]:
    """Posteriors of a variance whose aggregate is N(0, 1), so that the mutual information is the rate; and noise."""
    mean, noise = torch.randn(2, count, dimensions, generator=generator("bounds", variance), dtype=torch.float64)
    mean = mean * math.sqrt(1 - variance)
    return Normal(mean, torch.full_like(mean, math.log(variance))), noise


def measured(count: int, dimensions: int, variance: float) -> dict[str, Metric]:
    q, noise = gaussian_posteriors(count, dimensions, variance)
    return aggregate_posterior_metrics(q, noise, StandardNormal())


def test_the_bounds_meet_at_a_low_rate() -> None:
    metrics = measured(2000, 2, 0.3)
    exact = -math.log(0.3)
    assert metrics["mutual_information"].value < metrics["mutual_information_upper"].value
    for name in ("mutual_information", "mutual_information_upper"):
        assert metrics[name].value == pytest.approx(exact, abs=3 * (metrics[name].stderr or 0))
        assert metrics[name].stderr == pytest.approx(0.04, rel=0.3)
        assert metrics[name].n == 500
    for name in ("marginal_kl", "marginal_kl_lower"):
        assert metrics[name].value == pytest.approx(0, abs=0.05)
    assert not metrics["mutual_information"].note


def test_the_bounds_hold_at_a_high_rate() -> None:
    """More information than log N nats: the lower bound stays there, the upper one is the rate."""
    metrics = measured(400, 4, 1e-3)
    exact = -2 * math.log(1e-3)
    values = {name: metric.value for name, metric in metrics.items()}
    assert values["mutual_information"] <= math.log(400) + 1e-9
    assert values["mutual_information_upper"] == pytest.approx(exact, abs=0.4)
    assert values["marginal_kl_lower"] == 0 < exact - math.log(400) - 0.5 < values["marginal_kl"]
    assert "cannot exceed log 400 = 5.99 nats" in (metrics["mutual_information"].note or "")
    assert metrics["marginal_kl"].note


def test_bounds_of_both_parts_sum_to_the_rate() -> None:
    q, noise = gaussian_posteriors(300, 3, 0.05)
    positions = torch.arange(0, 300, 3)
    z = q.sample(noise)[positions]
    found = information_bounds(q, MeasuredCodes(z, positions), StandardNormal())
    own = Normal(q.mean[positions], q.logvar[positions])
    rate = (own.log_prob(z) - Normal(torch.zeros(3), torch.zeros(3)).log_prob(z)).mean().item()
    assert found["mutual_information"].value + found["marginal_kl"].value == pytest.approx(rate)
    assert found["mutual_information_upper"].value + found["marginal_kl_lower"].value == pytest.approx(rate)


def test_the_upper_bound_leaves_out_the_own_posterior_alone() -> None:
    near, noise = gaussian_posteriors(30, 2, 0.6)
    q = Normal(near.mean + 3, near.logvar)  # far from the prior, so that the rate is the larger bound
    z = q.sample(noise)
    found = information_bounds(q, MeasuredCodes(z, torch.arange(30)), StandardNormal())
    naive = []
    for i in range(30):
        others = [Normal(q.mean[j], q.logvar[j]).log_prob(z[i]) for j in range(30) if j != i]
        own = Normal(q.mean[i], q.logvar[i]).log_prob(z[i])
        naive.append(own - torch.stack(others).logsumexp(0) + math.log(29))
    assert found["mutual_information_upper"].value == pytest.approx(torch.stack(naive).mean().item())
    one = MeasuredCodes(z[:1], torch.tensor([0]))
    alone = information_bounds(Normal(q.mean[:1], q.logvar[:1]), one, StandardNormal())
    assert alone["mutual_information"].value == pytest.approx(0)
    assert math.isfinite(alone["mutual_information_upper"].value)


def test_total_correlation_does_not_follow_the_rate() -> None:
    """Independent dimensions at a rate of 3 and of 37 nats: the mixture sees 9 nats more, the codes none."""
    low, high = measured(1000, 8, 0.5), measured(1000, 8, 1e-4)
    assert high["total_correlation"].value - low["total_correlation"].value > 9
    for metrics in (low, high):
        metric = metrics["total_correlation_of_codes"]
        assert abs(metric.value) < 3 * (metric.stderr or 0) < 0.3


def test_codes_of_which_two_are_equal_share_all() -> None:
    q, noise = gaussian_posteriors(1000, 1, 0.2)
    twins = Normal(q.mean.expand(-1, 2), q.logvar.expand(-1, 2))
    pair = torch.cat([noise, noise.roll(1, 0)], 1)
    exact = -0.5 * math.log(1 - 0.8**2)
    found = aggregate_posterior_metrics(twins, pair, StandardNormal())
    assert found["total_correlation_of_codes"].value == pytest.approx(exact, abs=0.1)
