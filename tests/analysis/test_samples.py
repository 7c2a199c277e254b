"""Distances between samples and images: closed forms, and what few samples do to them."""

from __future__ import annotations

import math

import numpy as np
import pytest

from vaelab.analysis.samples import corrected_frechet_distance, frechet_distance, polynomial_kernel_mmd

DIMENSIONS = 8

SCALES = np.linspace(0.5, 2, DIMENSIONS)

EXACT = 4 * 0.25 + float(np.square(SCALES - 1).sum())  # |m1 - m2|^2 + sum_d (s1 - s2)^2


def draw(count: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((count, DIMENSIONS))


def other(count: int, seed: int) -> np.ndarray:
    """Features of N(1/2 in four dimensions, SCALES^2), whose distance from N(0, 1) is EXACT."""
    return draw(count, seed) * SCALES + 0.5 * (np.arange(DIMENSIONS) < 4)


def test_the_distance_has_the_closed_form_of_gaussians() -> None:
    assert frechet_distance(draw(40_000, 0), other(40_000, 1)) == pytest.approx(EXACT, rel=0.02)
    same = draw(500, 2)
    assert frechet_distance(same, same) == pytest.approx(0, abs=1e-6)
    assert frechet_distance(same, same + 2) == pytest.approx(4 * DIMENSIONS)


def test_the_bias_of_few_features_is_taken_off() -> None:
    plain, corrected, of_equal = [], [], []
    for seed in range(40):
        first, second = draw(60, 2 * seed), other(60, 2 * seed + 1)
        plain.append(frechet_distance(first, second))
        corrected.append(corrected_frechet_distance(first, second))
        of_equal.append(corrected_frechet_distance(first, draw(60, 1000 + seed)))
    bias = np.mean(plain) - EXACT
    assert bias > 0.4
    assert abs(np.mean(corrected) - EXACT) < 0.25 * bias
    assert abs(np.mean(of_equal)) < 0.1


def test_the_larger_set_is_thinned_to_the_smaller() -> None:
    first, second = draw(100, 3), other(50, 4)
    thinned = first[np.linspace(0, 99, 50).astype(int)]
    assert corrected_frechet_distance(first, second) == corrected_frechet_distance(thinned, second)
    assert corrected_frechet_distance(second, first) == pytest.approx(corrected_frechet_distance(first, second))
    assert math.isnan(corrected_frechet_distance(first[:3], second))


def test_the_kernel_distance_is_unbiased() -> None:
    values = [polynomial_kernel_mmd(draw(50, seed), draw(50, 500 + seed)) for seed in range(60)]
    assert abs(np.mean(values)) < 3 * np.std(values) / math.sqrt(60)
    assert polynomial_kernel_mmd(draw(400, 1), other(400, 2)) > 0.3
