"""Ratios of sums: their error is that of repetition."""

from __future__ import annotations

import pytest
import torch

from vaelab.core.rng import generator
from vaelab.evaluation.ratios import RatioTerms, linearised, ratio_metric_of, size_note


def draws(count: int) -> RatioTerms:
    """Denominators of very different size, and numerators that are about a third of them."""
    noise = torch.randn(2, count, generator=generator("ratios", count), dtype=torch.float64)
    denominator = (1.5 * noise[0]).exp()
    return RatioTerms(denominator * (0.3 + 0.1 * noise[1]), denominator)


def test_the_error_is_that_of_repetition() -> None:
    whole = draws(60_000)
    metrics = []
    for numerator, denominator in zip(whole.numerator.split(200), whole.denominator.split(200), strict=True):
        metrics.append(ratio_metric_of(RatioTerms(numerator, denominator)))
    values = torch.tensor([metric.value for metric in metrics if metric])
    errors = torch.tensor([metric.stderr for metric in metrics if metric])
    assert values.mean().item() == pytest.approx(0.3, abs=0.003)
    assert values.std().item() == pytest.approx(errors.square().mean().sqrt().item(), rel=0.15)


def test_linearised_values_have_the_ratio_as_mean_and_its_error() -> None:
    terms = draws(500)
    values, metric = linearised(terms), ratio_metric_of(terms, "a note")
    assert metric is not None
    assert values.mean().item() == pytest.approx(metric.value)
    assert (values.std() / 500**0.5).item() == pytest.approx(metric.stderr)
    assert metric.note == "a note"


def test_a_ratio_to_nothing_is_none() -> None:
    assert ratio_metric_of(RatioTerms(torch.ones(3), torch.zeros(3))) is None
    one = ratio_metric_of(RatioTerms(torch.ones(1), torch.full((1,), 4.0)))
    assert one is not None
    assert (one.value, one.stderr) == (0.25, None)


def test_sizes_are_named_where_images_are_reduced() -> None:
    assert size_note((1, 32, 48), 32) is None
    assert size_note((3, 64, 96), 32) == "judged at 48 x 32 pixels"
    assert size_note((3, 64, 96), None) is None
