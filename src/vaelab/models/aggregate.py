r"""The aggregate posterior q(z) = E_x q(z|x): how the codes of all images are distributed.

The rate has two parts: what codes tell about their image, and how far all codes together are from the prior p(z),

    E_x KL(q(z|x) || p(z)) = I(x; z) + KL(q(z) || p(z)).

The second part, the *prior hole*, contains the total correlation KL(q(z) || prod_d q(z_d)), which is how much the
latent dimensions tell about each other. Here q(z) is the equal mixture of N posteriors. The posterior of an image is
one of these N, so no estimate of I can exceed log N nats. What is missing there is counted in the marginal KL.

Sources: ELBO surgery, Hoffman and Johnson 2016; Isolating Sources of Disentanglement in Variational Autoencoders,
arXiv 1802.04942.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from vaelab.models.densities import Normal
from vaelab.models.priors import PriorDensity

__all__ = ["RateParts", "decompose_rate", "log_aggregate_posterior", "total_correlation"]

CODES_PER_CHUNK = 250  # codes whose distances to all posteriors are in memory at once


class RateParts(NamedTuple):
    """The two parts of the rate for each of M codes, in nats, (M,) each, in float64.

    Attributes:
        mutual_information: log q(z|x) - log q(z), whose mean estimates I(x; z).
        marginal_kl: log q(z) - log p(z), whose mean estimates KL(q(z) || p(z)).
    """

    mutual_information: Tensor
    marginal_kl: Tensor


def log_aggregate_posterior(q: Normal, z: Tensor, left_out: Tensor | None = None) -> Tensor:
    """log q(z) under the equal mixture of posteriors, computed in float64.

    Args:
        q: N posteriors with parameters (N, D).
        z: Codes, (M, D).
        left_out: The posterior that is left out of the mixture for each code, (M,); none if None.

    Returns:
        The log density in nats, (M,).

    Example:
        >>> q = Normal(torch.zeros(5, 2), torch.zeros(5, 2))  # five equal posteriors
        >>> log_aggregate_posterior(q, torch.zeros(1, 2))  # -log 2 pi
        tensor([-1.8379], dtype=torch.float64)
    """
    mean, logvar, z = q.mean.double(), q.logvar.double(), z.double()
    precision = (-logvar).exp()
    posterior_terms = (mean.square() * precision + logvar + math.log(2 * math.pi)).sum(-1)
    chunks = []
    for start in range(0, len(z), CODES_PER_CHUNK):
        codes = z[start : start + CODES_PER_CHUNK]
        # |z - mean|^2 / sigma^2, expanded, so that it is two matrix products.
        square = codes.square() @ precision.T - 2 * codes @ (mean * precision).T + posterior_terms
        if left_out is not None:
            square[torch.arange(len(codes)), left_out[start : start + CODES_PER_CHUNK]] = math.inf
        chunks.append((-0.5 * square).logsumexp(1))
    num_posteriors = len(mean) - (left_out is not None)
    return torch.cat(chunks) - math.log(num_posteriors)


def decompose_rate(code_posteriors: Normal, z: Tensor, q: Normal, prior: PriorDensity) -> RateParts:
    """Split the rate into mutual information and distance from the prior.

    Args:
        code_posteriors: The posteriors that the codes were drawn from, with parameters (M, D).
        z: The codes, (M, D).
        q: The posteriors of all images, with parameters (N, D), whose mixture is q(z).
        prior: The prior p(z).

    Returns:
        Both parts for each code.
    """
    z = z.double()
    log_q = log_aggregate_posterior(q, z)
    log_posterior = Normal(code_posteriors.mean.double(), code_posteriors.logvar.double()).log_prob(z)
    return RateParts(log_posterior - log_q, log_q - prior.log_prob(z))


def total_correlation(q: Normal, z: Tensor) -> Tensor:
    r"""log (1/N) sum_j q(z|x_j) - sum_d log (1/N) sum_j q(z_d|x_j).

    It is differentiable. The codes' own posteriors are usually among the N. The value then depends on N, so compare
    only values of one N.

    Args:
        q: N posteriors with parameters (N, D).
        z: Codes, (M, D).

    Returns:
        The total correlation at each code, in nats, (M,).
    """
    square = (z[:, None] - q.mean).square() * (-q.logvar).exp()
    log_densities = -0.5 * (square + q.logvar + math.log(2 * math.pi))  # (M, N, D): of code i under posterior j
    log_count = math.log(len(q.mean))
    joint = log_densities.sum(-1).logsumexp(1) - log_count
    product_of_marginals = (log_densities.logsumexp(1) - log_count).sum(-1)
    return joint - product_of_marginals
