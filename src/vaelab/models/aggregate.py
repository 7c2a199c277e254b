r"""The aggregate posterior q(z) = E_x q(z|x): what the codes of all images look like together, beside the prior p(z).

The rate splits into what codes tell of their image and how far all codes together lie from the prior,

    E_x KL(q(z|x) || p(z)) = I(x; z) + KL(q(z) || p(z)),

and the second, the *prior hole*, holds the total correlation KL(q(z) || prod_d q(z_d)): what dimensions know of each
other. q(z) is the mixture of the posteriors at hand. The posterior of an image is one of the N in it, so no estimate of
I can be above log N nats, and what is missing there is found in the marginal KL. Sources: ELBO surgery, Hoffman and
Johnson 2016; Isolating Sources of Disentanglement in Variational Autoencoders, arXiv 1802.04942.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from vaelab.models.densities import Normal, standard_normal

__all__ = ["decompose_rate", "log_aggregate_posterior", "total_correlation"]

CODES_PER_CHUNK = 250  # codes whose distances to all posteriors are held at once


def log_aggregate_posterior(q: Normal, z: Tensor) -> Tensor:
    """log q(z) of codes (M, D) under the equal mixture of posteriors (N, D), in float64; shape (M,)."""
    mean, precision, z = q.mean.double(), (-q.logvar.double()).exp(), z.double()
    own = (mean.square() * precision + q.logvar.double() + math.log(2 * math.pi)).sum(-1)
    parts = []
    for some in z.split(CODES_PER_CHUNK):
        square = some.square() @ precision.T - 2 * some @ (mean * precision).T + own  # |z - mean|^2 / sigma^2, expanded
        parts.append((-0.5 * square).logsumexp(1))
    return torch.cat(parts) - math.log(len(mean))


def decompose_rate(code_posteriors: Normal, z: Tensor, q: Normal) -> dict[str, Tensor]:
    """The two parts of the rate at codes z (M, D) drawn from posteriors `own` (M, D), with q(z) from all `q` (N, D)."""
    log_q = log_aggregate_posterior(q, z)
    return {
        "mutual_information": Normal(code_posteriors.mean.double(), code_posteriors.logvar.double()).log_prob(
            z.double()
        )
        - log_q,
        "marginal_kl": log_q - standard_normal(z.double()).log_prob(z.double()),
    }


def total_correlation(q: Normal, z: Tensor) -> Tensor:
    r"""log (1/N) sum_j q(z|x_j) - sum_d log (1/N) sum_j q(z_d|x_j), for codes (M, D) and posteriors (N, D); shape (M,).

    Differentiable. With the codes' own posteriors among the N its value depends on N: it serves to compare.
    """
    square = (z[:, None] - q.mean).square() * (-q.logvar).exp()
    each = -0.5 * (square + q.logvar + math.log(2 * math.pi))  # (M, N, D): of code i under posterior j
    log_count = math.log(len(q.mean))
    joint = each.sum(-1).logsumexp(1) - log_count
    return joint - (each.logsumexp(1) - log_count).sum(-1)
