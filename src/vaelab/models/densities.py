r"""Densities: pure tensor mathematics, without models and without random numbers.

A variational autoencoder uses diagonal Gaussians: the posterior q(z|x), often the prior p(z) and, for a Gaussian
likelihood, p(x|z). The functions here reduce the last axis, the D latent dimensions, and nothing else. So
`(*, D) -> (*)` holds for one code, for a batch, and for K samples of a batch. Everything is in nats.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["Normal", "gaussian_kernel", "kl_normal", "kl_per_dimension", "off_diagonal_mean", "standard_normal"]


class Normal(NamedTuple):
    r"""The diagonal Gaussian N(mean, exp(logvar)).

    Attributes:
        mean: The means, (*, D).
        logvar: The logarithms of the variances, (*, D).

    Example:
        >>> q = Normal(torch.tensor([1.0, 2.0]), torch.zeros(2))
        >>> q.sample(noise=torch.tensor([0.5, -0.5]))
        tensor([1.5000, 1.5000])
    """

    mean: Tensor
    logvar: Tensor

    def sample(self, noise: Tensor) -> Tensor:
        r"""mean + sigma * noise, differentiable in the parameters.

        Args:
            noise: Standard normal noise, (*, D).

        Returns:
            Samples, (*, D).
        """
        return self.mean + (0.5 * self.logvar).exp() * noise

    def log_prob(self, z: Tensor) -> Tensor:
        r"""log N(z; mean, exp(logvar)) in nats, with shape (*, D) -> (*)."""
        square = (z - self.mean).square() * (-self.logvar).exp()
        return -0.5 * (square + self.logvar + math.log(2 * math.pi)).sum(-1)


def standard_normal(like: Tensor) -> Normal:
    """N(0, 1) with the shape, device and precision of the tensor `like`."""
    return Normal(torch.zeros_like(like), torch.zeros_like(like))


def kl_per_dimension(q: Normal, p: Normal) -> Tensor:
    r"""KL(q || p) of each latent dimension, in nats, with shape (*, D) -> (*, D)."""
    logratio = q.logvar - p.logvar
    shift = (q.mean - p.mean).square() * (-p.logvar).exp()
    return 0.5 * (logratio.exp() + shift - 1 - logratio)


def kl_normal(q: Normal, p: Normal) -> Tensor:
    r"""KL(q || p) = 1/2 sum_d (sigma_q^2/sigma_p^2 + (mu_q - mu_p)^2/sigma_p^2 - 1 - log sigma_q^2/sigma_p^2).

    Args:
        q: A Gaussian with parameters (*, D).
        p: A Gaussian with parameters that broadcast with those of q.

    Returns:
        The divergence in nats, never negative, (*).

    Example:
        >>> q = Normal(torch.ones(3), torch.zeros(3))
        >>> kl_normal(q, standard_normal(q.mean))
        tensor(1.5000)
    """
    return kl_per_dimension(q, p).sum(-1)


def gaussian_kernel(first: Tensor, second: Tensor) -> Tensor:
    r"""k(a, b) = exp(-|a - b|^2 / (2 D)) for all pairs of codes, with shapes (N, D), (M, D) -> (N, M)."""
    squares = first.square().sum(1)[:, None] + second.square().sum(1)
    return (-(squares - 2 * first @ second.T) / (2 * first.shape[1])).exp()


def off_diagonal_mean(matrix: Tensor) -> Tensor:
    """The mean over pairs of two different indices, with shape (N, N) -> (); 0 where N is 1."""
    count = len(matrix)
    return (matrix.sum() - matrix.diagonal().sum()) / max(count * (count - 1), 1)
