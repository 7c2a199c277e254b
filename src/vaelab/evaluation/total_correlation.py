r"""Total correlation of codes: how much the latent dimensions tell about each other, TC = KL(q(z) || prod_d q(z_d)).

It is estimated from one code z of each image, in two steps. Both give 0 where dimensions are independent.

1. Gaussian copula. Each dimension is replaced by its normal scores (ranks, mapped to quantiles of N(0, 1)), which
   leaves the total correlation as it is. With their correlation matrix R,

       TC >= -1/2 log det R,      E log det R^ = log det R + sum_d [psi((N - d) / 2) - psi((N - 1) / 2)]

   for N Gaussian codes, and the second term is taken off. Because the Gaussian has the largest entropy of all
   densities with these correlations, this part is a lower bound.
2. Neighbours. The scores are whitened with R^(-1/2). What the dimensions then still tell about each other, beyond
   linear correlation, is estimated from the k nearest neighbours of each code.

The estimate is biased downwards where the dependence is strong and not Gaussian: neighbours in many dimensions are far
away. With few codes it is also a little too low where dimensions are independent (0.25 nats for 359 codes of 64
dimensions, 0.03 for 2,000 of 32), because whitening takes off more correlation than there is. It does not depend on
how precise the posteriors are. The mixture of posteriors that the objectives use does: it rises with the rate, also
where dimensions are independent. `python benchmarks/measures.py` compares both with known values.

Sources: Estimating mutual information, Kraskov et al. 2004, arXiv cond-mat/0305641 (equation 23); An Introduction to
Multivariate Statistical Analysis, Anderson 2003 (distribution of log det).
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from vaelab.evaluation.results import Metric
from vaelab.evaluation.statistics import jackknife_error

__all__ = [
    "gaussian_copula_correlation",
    "neighbour_correlation",
    "normal_scores",
    "total_correlation_metric",
    "total_correlation_of_codes",
]

MIN_CODES_PER_DIMENSION = 2  # codes for each latent dimension, below which their correlations are not estimated

MAX_CODES = 4000  # codes that are used

NEIGHBOURS = 5  # of each code: more lower the noise and raise the bias

ROUNDING = 1e-9  # relative: less than the distance to the k-th neighbour, so that it is never counted as nearer

MAX_NEIGHBOUR_CODES = 1000  # codes whose neighbours are searched: all pairs are compared


def total_correlation_metric(z: Tensor) -> Metric | None:
    """The total correlation of codes with its error.

    Args:
        z: One code for each image, (N, D).

    Returns:
        The estimate in nats, which noise may bring below 0; None where there are fewer than two codes for each
        dimension, one dimension alone, or codes that are no numbers.
    """
    codes = _evenly_spaced(z.double().cpu(), MAX_CODES)
    count, dimensions = codes.shape
    if dimensions < 2 or count < MIN_CODES_PER_DIMENSION * dimensions or not codes.isfinite().all():
        return None

    def estimate(kept: np.ndarray) -> float:
        return total_correlation_of_codes(codes[torch.from_numpy(kept)])

    return Metric(total_correlation_of_codes(codes), jackknife_error(estimate, count), n=count)


def total_correlation_of_codes(z: Tensor) -> float:
    """The total correlation of codes (N, D), in nats: the sum of both steps.

    Example:
        >>> z = torch.randn(1000, 2, generator=torch.Generator().manual_seed(0))
        >>> abs(total_correlation_of_codes(z)) < 0.1
        True
    """
    scores = normal_scores(z.double())
    variances, axes = torch.linalg.eigh(torch.corrcoef(scores.T))
    whitened = scores @ (axes * variances.clamp(min=1e-12).rsqrt()) @ axes.T
    return gaussian_copula_correlation(scores) + neighbour_correlation(_evenly_spaced(whitened, MAX_NEIGHBOUR_CODES))


def _evenly_spaced(z: Tensor, count: int) -> Tensor:
    """At most `count` of the rows, evenly over all of them."""
    return z[torch.linspace(0, len(z) - 1, min(len(z), count)).long()]


def normal_scores(z: Tensor) -> Tensor:
    """Each column by its ranks, as quantiles of N(0, 1), with shape (N, D) -> (N, D).

    Example:
        >>> normal_scores(torch.tensor([[5.0], [9.0], [7.0]])).flatten().round(decimals=3)
        tensor([-0.6740,  0.6740,  0.0000])
    """
    order = z.T.contiguous().argsort(dim=1, stable=True)
    quantiles = torch.special.ndtri(torch.arange(1, len(z) + 1).to(z) / (len(z) + 1))
    return torch.zeros_like(order, dtype=z.dtype).scatter_(1, order, quantiles.expand_as(order)).T


def gaussian_copula_correlation(scores: Tensor) -> float:
    """-1/2 log det of the correlations of normal scores (N, D), in nats, without the bias of N Gaussian codes."""
    count, dimensions = scores.shape
    log_determinant = torch.linalg.slogdet(torch.corrcoef(scores.T)).logabsdet.item()
    freedom = count - torch.arange(1, dimensions + 1, dtype=torch.float64)
    bias = (torch.digamma(freedom / 2) - torch.digamma(freedom[:1] / 2)).sum().item()
    return 0.5 * (bias - log_determinant)


def neighbour_correlation(points: Tensor) -> float:
    """The total correlation of points (N, D) from the nearest neighbours of each, in nats.

    The distance to the k-th neighbour is measured by the largest difference of a coordinate; n_d points are nearer than
    that in dimension d alone. TC = psi(k) + (D - 1) psi(N) - mean sum_d psi(n_d + 1).
    """
    count, dimensions = points.shape
    neighbours = min(NEIGHBOURS, count - 1)
    distances = torch.cdist(points, points, p=math.inf).fill_diagonal_(math.inf)
    radius = distances.topk(neighbours, largest=False).values[:, -1:] * (1 - ROUNDING)
    columns = points.T.contiguous()
    ordered = columns.sort(1).values
    below = torch.searchsorted(ordered, columns + radius.T)
    above = torch.searchsorted(ordered, columns - radius.T, right=True)
    nearer = (below - above - 1).clamp(min=0)
    terms = torch.digamma(nearer.to(points) + 1).sum(0).mean().item()
    constants = torch.digamma(torch.tensor([neighbours, count], dtype=torch.float64)).tolist()
    return constants[0] + (dimensions - 1) * constants[1] - terms
