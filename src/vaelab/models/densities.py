r"""Densities: pure tensor mathematics, free of models and of randomness.

A variational autoencoder speaks of diagonal Gaussians only: the prior p(z), the posterior q(z|x) and, for a Gaussian
likelihood, p(x|z). Functions are rank-free: they reduce the last axis, the D latent dimensions, and nothing else, so
that `(*, D) -> (*)` holds for one code, a batch or K samples of a batch. Everything is in nats.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["Normal", "kl_normal", "kl_per_dimension", "standard_normal"]


class Normal(NamedTuple):
    r"""The diagonal Gaussian N(mean, exp(logvar)), with parameters of shape (*, D)."""

    mean: Tensor
    logvar: Tensor

    def sample(self, noise: Tensor) -> Tensor:
        r"""mean + sigma * noise, for standard normal noise of shape (*, D): differentiable in the parameters."""
        return self.mean + (0.5 * self.logvar).exp() * noise

    def log_prob(self, z: Tensor) -> Tensor:
        r"""log N(z; mean, exp(logvar)) in nats, with shape (*, D) -> (*)."""
        square = (z - self.mean).square() * (-self.logvar).exp()
        return -0.5 * (square + self.logvar + math.log(2 * math.pi)).sum(-1)


def standard_normal(like: Tensor) -> Normal:
    """N(0, 1) of the shape, device and precision of `like`."""
    return Normal(torch.zeros_like(like), torch.zeros_like(like))


def kl_per_dimension(q: Normal, p: Normal) -> Tensor:
    r"""KL(q || p) of each latent dimension, with shape (*, D) -> (*, D)."""
    logratio = q.logvar - p.logvar
    shift = (q.mean - p.mean).square() * (-p.logvar).exp()
    return 0.5 * (logratio.exp() + shift - 1 - logratio)


def kl_normal(q: Normal, p: Normal) -> Tensor:
    r"""KL(q || p) = 1/2 sum_d (sigma_q^2/sigma_p^2 + (mu_q - mu_p)^2/sigma_p^2 - 1 - log sigma_q^2/sigma_p^2).

    Positive, in nats, with shape (*, D) -> (*).
    """
    return kl_per_dimension(q, p).sum(-1)
