r"""Priors p(z): how codes are distributed before an image is seen.

The prior enters the bound through the rate, KL(q(z|x) || p(z)), and new images are decoded from its samples. Nothing
outside this module knows which prior a model has: losses, metrics and figures ask the model for its rate and samples.

A prior is written as two things that are often one. `Prior` is its configuration, a frozen dataclass that the command
line and the files know by its name. `PriorDensity` is the density itself: `log_prob` and `sample`, and whatever has a
closed form. A prior without parameters is both at once. A prior that is learned overrides `build`, which gives a
module with the weights. Where there is no closed form, the defaults here estimate from samples.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from vaelab.models.densities import Normal, gaussian_kernel, kl_per_dimension, off_diagonal_mean, standard_normal

__all__ = ["Prior", "PriorDensity", "StandardNormal"]


class PriorDensity:
    """A density of codes z (*, D), with estimates for everything but its density and its samples."""

    def log_prob(self, z: Tensor) -> Tensor:
        """log p(z) in nats, with shape (*, D) -> (*)."""
        raise NotImplementedError

    def sample(self, noise: Tensor) -> Tensor:
        """Codes from the prior, with shape (*, D) -> (*, D), as a function of standard normal noise."""
        raise NotImplementedError

    def kl_per_dimension(self, q: Normal, z: Tensor) -> Tensor:
        """KL(q || p) for each latent dimension.

        Without a closed form it is estimated by log q(z) - log p(z). Where the prior couples the dimensions, the KL has
        no parts, and each dimension gets an equal share.

        Args:
            q: Posteriors with parameters (B, D).
            z: Codes drawn from them, (B, D), or (K, B, D) with K codes for each posterior.

        Returns:
            The KL in nats, (B, D).
        """
        log_ratio = q.log_prob(z) - self.log_prob(z)
        kl = log_ratio if z.dim() == q.mean.dim() else log_ratio.mean(0)
        return (kl / z.shape[-1]).unsqueeze(-1).expand_as(q.mean)

    def kl(self, q: Normal, z: Tensor) -> Tensor:
        """KL(q || p) in nats, the sum of `kl_per_dimension` over the dimensions, (B,)."""
        return self.kl_per_dimension(q, z).sum(-1)

    def log_ratio(self, q: Normal, z: Tensor, noise: Tensor) -> Tensor:
        """log p(z) - log q(z) for codes z = q.sample(noise), with shape (*, B, D) -> (*, B), for importance weights."""
        del noise
        return self.log_prob(z) - q.log_prob(z)

    def kl_of_moments(self, mean: Tensor, covariance: Tensor) -> Tensor | None:
        """KL(N(mean, covariance) || p) in nats, for (D,) and (D, D); None where it has no closed form."""
        del mean, covariance
        return None

    def kernel_means(self, z: Tensor, noise: Tensor) -> tuple[Tensor, Tensor | float]:
        r"""E k(z, n) and E k(n, n') for independent n, n' from the prior and the kernel k of `gaussian_kernel`.

        Without a closed form, `noise` gives one n for each code. Noise that made the codes may be used: a pair of one
        index is left out, so that what is compared is independent.

        Args:
            z: Codes, (B, D).
            noise: Standard normal noise, (B, D).

        Returns:
            Both means, scalars.
        """
        samples = self.sample(noise)
        return off_diagonal_mean(gaussian_kernel(z, samples)), off_diagonal_mean(gaussian_kernel(samples, samples))


@dataclass(frozen=True)
class Prior(PriorDensity):
    """The configuration of a prior, and the base class of all of them."""

    name: ClassVar[str]

    def build(self, latent_dim: int) -> PriorDensity:
        """The density that a model of `latent_dim` dimensions holds; a module where it has weights to learn."""
        del latent_dim
        return self


@dataclass(frozen=True)
class StandardNormal(Prior):
    r"""p(z) = N(0, 1), independent in each dimension, with the rate in closed form.

    KL(q || p) = 1/2 sum_d (sigma_d^2 + mu_d^2 - 1 - log sigma_d^2)

    Source: Auto-Encoding Variational Bayes, appendix B, arXiv 1312.6114.

    Example:
        >>> q = Normal(torch.tensor([[0.0, 1.0]]), torch.zeros(1, 2))
        >>> StandardNormal().kl_per_dimension(q, z=q.mean)
        tensor([[0.0000, 0.5000]])
    """

    name: ClassVar[str] = "standard-normal"

    def log_prob(self, z: Tensor) -> Tensor:
        return standard_normal(z).log_prob(z)

    def sample(self, noise: Tensor) -> Tensor:
        return noise

    def kl_per_dimension(self, q: Normal, z: Tensor) -> Tensor:
        del z
        return kl_per_dimension(q, standard_normal(q.mean))

    def log_ratio(self, q: Normal, z: Tensor, noise: Tensor) -> Tensor:
        return 0.5 * (noise.square() + q.logvar - z.square()).sum(-1)  # the constants of the two densities cancel

    def kl_of_moments(self, mean: Tensor, covariance: Tensor) -> Tensor:
        moments = covariance.trace() + mean.square().sum() - len(mean)
        return 0.5 * (moments - torch.linalg.slogdet(covariance).logabsdet)

    def kernel_means(self, z: Tensor, noise: Tensor) -> tuple[Tensor, Tensor | float]:
        del noise
        dim = z.shape[-1]
        to_prior = (dim / (dim + 1)) ** (dim / 2) * (-z.square().sum(1) / (2 * (dim + 1))).exp().mean()
        return to_prior, (dim / (dim + 2)) ** (dim / 2)
