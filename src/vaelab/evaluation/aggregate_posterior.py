r"""What the codes of all images are together: the two parts of the rate between bounds, and the total correlation.

    E_x KL(q(z|x) || p(z)) = I(x; z) + KL(q(z) || p(z))

q(z) is estimated by the mixture of the posteriors of N images. With the posterior of the code's own image among them
the mutual information is bounded from below, and by log N; without it, from above:

    E log q(z|x_i) / (1/N sum_j q(z|x_j))  <=  I(x; z)  <=  E log q(z|x_i) / (1/(N-1) sum_{j != i} q(z|x_j))

The upper bound is wide where posteriors hardly overlap. No information exceeds the rate, so the rate bounds it there.
What is left of the rate bounds the marginal KL from the other sides.

Source: On Variational Bounds of Mutual Information, Poole et al., arXiv 1905.06922 (sections 2.3 and 2.1).
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from vaelab.evaluation.results import Metric
from vaelab.evaluation.statistics import mean_metric
from vaelab.evaluation.total_correlation import total_correlation_metric
from vaelab.models.aggregate import decompose_rate, log_aggregate_posterior, total_correlation
from vaelab.models.densities import Normal
from vaelab.models.priors import PriorDensity

__all__ = ["MeasuredCodes", "aggregate_posterior_metrics", "information_bounds"]

MEASURED_CODES = 500  # codes whose density under the aggregate posterior is measured

MIXTURE_POSTERIORS = 2000  # posteriors in the mixture for `total_correlation`

MIXTURE_CHUNK = 50  # codes whose densities under all posteriors are in memory at once


class MeasuredCodes(NamedTuple):
    """Some codes, and which images they belong to.

    Attributes:
        z: The codes, (M, D).
        positions: The position of the image of each among all images, (M,).
    """

    z: Tensor
    positions: Tensor


def aggregate_posterior_metrics(q: Normal, noise: Tensor, prior: PriorDensity) -> dict[str, Metric]:
    """What the codes of all images are together, in nats.

    Args:
        q: The posteriors of all images, with parameters (N, D).
        noise: Standard normal noise for each, (N, D).
        prior: The prior p(z).

    Returns:
        mutual_information and marginal_kl with their other bounds, from at most 500 codes; total_correlation, whose
        mixture is of at most 2,000 posteriors; total_correlation_of_codes, where there are enough codes.
    """
    count = len(q.mean)
    mixture = torch.linspace(0, count - 1, min(count, MIXTURE_POSTERIORS)).long()
    positions = mixture[:: math.ceil(len(mixture) / MEASURED_CODES)]
    measured_q = Normal(q.mean[positions], q.logvar[positions])
    codes = MeasuredCodes(measured_q.sample(noise[positions]), positions)
    metrics = information_bounds(q, codes, prior)
    mixture_q = Normal(q.mean[mixture], q.logvar[mixture])
    correlations = torch.cat([total_correlation(mixture_q, z) for z in codes.z.split(MIXTURE_CHUNK)])
    metrics["total_correlation"] = replace(mean_metric(correlations.cpu().double()), n=len(positions))
    of_codes = total_correlation_metric(q.sample(noise))
    return metrics if of_codes is None else metrics | {"total_correlation_of_codes": of_codes}


def information_bounds(q: Normal, codes: MeasuredCodes, prior: PriorDensity) -> dict[str, Metric]:
    """The mutual information of images and codes and the marginal KL, each between two bounds.

    Args:
        q: The posteriors of all images, with parameters (N, D).
        codes: The codes to measure.
        prior: The prior p(z).

    Returns:
        mutual_information and marginal_kl_lower, which are lower bounds, and mutual_information_upper and marginal_kl,
        which are upper bounds, with errors over codes. A lower bound and the upper bound of the other part sum to the
        rate of the codes.
    """
    z, count = codes.z.double(), len(q.mean)
    own = Normal(q.mean[codes.positions].double(), q.logvar[codes.positions].double())
    log_posterior, log_prior = own.log_prob(z), prior.log_prob(z)
    without_own = log_aggregate_posterior(q, z, codes.positions) if count > 1 else log_prior
    information, marginal_kl = log_posterior - without_own, without_own - log_prior
    if marginal_kl.mean() < 0:  # then the rate is the smaller upper bound
        information, marginal_kl = log_posterior - log_prior, torch.zeros_like(z[:, 0])
    others = {"mutual_information_upper": information, "marginal_kl_lower": marginal_kl}
    parts = decompose_rate(own, z, q, prior)._asdict() | others
    metrics = {name: replace(mean_metric(values), n=len(z)) for name, values in parts.items()}
    lower = metrics["mutual_information"]
    if lower.value > math.log(count) - 1:
        note = f"a lower bound that cannot exceed log {count:,} = {math.log(count):.3g} nats"
        metrics["mutual_information"] = replace(lower, note=note)
        metrics["marginal_kl"] = replace(metrics["marginal_kl"], note="an upper bound: too high by what that one lacks")
    return metrics
