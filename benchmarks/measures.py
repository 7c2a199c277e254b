"""Estimators of evaluation against known values: total correlation, log evidence, distances of few samples.

python benchmarks/measures.py        # three tables of docs/measures.md, in about two minutes of one core
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from vaelab.analysis.samples import corrected_frechet_distance, frechet_distance
from vaelab.core.rng import generator
from vaelab.evaluation.evidence import evidence_of_weights
from vaelab.evaluation.total_correlation import (
    gaussian_copula_correlation,
    neighbour_correlation,
    normal_scores,
    total_correlation_of_codes,
)
from vaelab.models.aggregate import total_correlation
from vaelab.models.densities import Normal

NUM_CODES = 1000

CLUSTERS = 10

REPETITIONS = 20


class Codes(NamedTuple):
    """Codes of a known total correlation.

    Attributes:
        name: What they are.
        mean: The means of the posteriors, (N, D).
        variance: The variance of each posterior.
        exact: The total correlation of the aggregate, in nats.
    """

    name: str
    mean: Tensor
    variance: float
    exact: float


def noise(*shape: int, name: object = "") -> Tensor:
    return torch.randn(shape, generator=generator("measures", name), dtype=torch.float64)


def independent(dimensions: int, variance: float) -> Codes:
    """Means such that the aggregate is N(0, 1)."""
    mean = math.sqrt(1 - variance) * noise(NUM_CODES, dimensions)
    rate = -0.5 * dimensions * math.log(variance)
    return Codes(f"independent, {dimensions} dimensions, rate {rate:.1f}", mean, variance, 0.0)


def correlated(dimensions: int, correlation: float, variance: float) -> Codes:
    """Means such that the aggregate is a Gaussian of which any two dimensions have a correlation."""
    matrix = correlation + (1 - correlation) * torch.eye(dimensions, dtype=torch.float64)
    factor = torch.linalg.cholesky(matrix - variance * torch.eye(dimensions))
    exact = -0.5 * torch.logdet(matrix).item()
    name = f"Gaussian, {dimensions} dimensions, correlation {correlation:g}, variance {variance:g}"
    return Codes(name, noise(NUM_CODES, dimensions) @ factor.T, variance, exact)


def clustered(dimensions: int, spread: float) -> Codes:
    """Ten Gaussian clusters of unit variance; the exact value is by Monte Carlo."""
    centres = spread * noise(CLUSTERS, dimensions, name="centres")

    def draw(count: int, name: str) -> Tensor:
        return centres[torch.arange(count) % CLUSTERS] + noise(count, dimensions, name=name)

    z = draw(100_000, "exact")
    log_densities = -0.5 * ((z[:, None] - centres).square() + math.log(2 * math.pi))  # (M, K, D)
    joint = log_densities.sum(-1).logsumexp(1) - math.log(CLUSTERS)
    product = (log_densities.logsumexp(1) - math.log(CLUSTERS)).sum(-1)
    variance = 0.1
    mean = centres[torch.arange(NUM_CODES) % CLUSTERS] + math.sqrt(1 - variance) * noise(NUM_CODES, dimensions)
    name = f"ten clusters, {dimensions} dimensions, spread {spread:g}"
    return Codes(name, mean, variance, (joint - product).mean().item())


def all_codes() -> Iterator[Codes]:
    for dimensions, variance in ((10, 0.5), (10, 0.01), (32, 0.1), (32, 0.0001)):
        yield independent(dimensions, variance)
    for dimensions, correlation, variance in ((10, 0.1, 0.1), (10, 0.5, 0.001), (32, 0.1, 0.001), (32, 0.5, 0.1)):
        yield correlated(dimensions, correlation, variance)
    for dimensions, spread in ((4, 1.0), (4, 3.0), (10, 1.0), (10, 3.0)):
        yield clustered(dimensions, spread)


def print_total_correlation() -> None:
    print("\n| codes | exact | mixture of posteriors | copula alone | neighbours alone | copula and neighbours |")
    print("|---|---|---|---|---|---|")
    for codes in all_codes():
        q = Normal(codes.mean, torch.full_like(codes.mean, math.log(codes.variance)))
        z = q.sample(noise(*codes.mean.shape, name="posterior"))
        mixture = torch.cat([total_correlation(q, part) for part in z[:200].split(50)]).mean().item()
        scores = normal_scores(z)
        values = [
            codes.exact,
            mixture,
            gaussian_copula_correlation(scores),
            neighbour_correlation(scores),
            total_correlation_of_codes(z),
        ]
        print(f"| {codes.name} | " + " | ".join(f"{value:.2f}" for value in values) + " |")


def print_evidence() -> None:
    """Log-normal weights of mean 1: the log evidence is 0."""
    print("\n| samples | effective | bias | bias, corrected | spread | jackknife / spread | first order / spread |")
    print("|---|---|---|---|---|---|---|")
    for variance, samples in ((1, 100), (2, 100), (4, 100), (4, 1000), (8, 1000), (8, 5000), (16, 5000), (32, 5000)):
        log_weights = math.sqrt(variance) * noise(samples, 1000, name=(variance, samples)) - variance / 2
        found = evidence_of_weights(log_weights)
        spread = found.value.std().item()
        jackknife = found.standard_error.square().mean().sqrt().item()
        first_order = (1 / found.effective_sample_size - 1 / samples).clamp(min=0).mean().sqrt().item()
        print(
            f"| {samples:,} | {found.median_effective_samples:.1f} | {found.value.mean():.3f} | "
            f"{found.corrected.mean():.3f} | {spread:.3f} | {jackknife / spread:.2f} | {first_order / spread:.2f} |"
        )


def mean_and_spread(distance: Callable[[np.ndarray, np.ndarray], float], count: int, shift: float) -> str:
    values = []
    for repetition in range(REPETITIONS):
        first = noise(count, 64, name=("first", repetition)).numpy()
        second = noise(count, 64, name=("second", repetition)).numpy() + shift
        values.append(distance(first, second))
    return f"{np.mean(values):.2f} ± {np.std(values, ddof=1):.2f}"


def print_distances() -> None:
    print("\n| features on each side, of 64 numbers | exact | distance | corrected |")
    print("|---|---|---|---|")
    for shift in (0.0, 0.125):
        for count in (360, 1000):
            cells = [
                mean_and_spread(distance, count, shift) for distance in (frechet_distance, corrected_frechet_distance)
            ]
            print(f"| {count:,} | {64 * shift**2:.2f} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    torch.set_num_threads(1)
    print_total_correlation()
    print_evidence()
    print_distances()
