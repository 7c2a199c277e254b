"""Objectives that add a divergence between the aggregate posterior and the prior: InfoVAE with MMD."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from vaelab.core.constraints import NonNegative
from vaelab.models.densities import gaussian_kernel, off_diagonal_mean
from vaelab.models.networks import Shape
from vaelab.models.priors import PriorDensity
from vaelab.models.vae import VAE
from vaelab.objectives.objective import Objective
from vaelab.objectives.terms import LossTerms, distortion_and_rate

__all__ = ["InfoVAE", "mmd_to_prior"]


@dataclass(frozen=True)
class InfoVAE(Objective):
    r"""distortion + w KL + lambda MMD^2(q(z), p(z)): the aggregate posterior, not each posterior, tends to the prior.

    With w = 0 codes keep all that they tell about their images.

    Source: InfoVAE: Balancing Learning and Inference in Variational Autoencoders, arXiv 1706.02262. There w is
    1 - alpha, and lambda is alpha + lambda - 1.

    Args:
        kl_weight: The weight w.
        mmd_weight: The weight lambda.
    """

    name: ClassVar[str] = "info-mmd"
    short: ClassVar[tuple[str, ...]] = ("mmd", "infovae")
    kl_weight: NonNegative = 0.0
    mmd_weight: NonNegative = 1000.0

    def effective_kl_weight(self, shape: Shape, latent_dim: int) -> float | None:
        del shape, latent_dim
        return self.kl_weight or None

    def __call__(self, model: VAE, x: Tensor, noise: Tensor, progress: Tensor) -> LossTerms:
        del progress
        output, distortion, kl = distortion_and_rate(model, x, noise)
        mmd = mmd_to_prior(output.z, model.prior, noise)
        loss = distortion + self.kl_weight * kl.sum() + self.mmd_weight * mmd
        return LossTerms(loss, distortion, kl.sum(), {"mmd": mmd}, output)


def mmd_to_prior(z: Tensor, prior: PriorDensity, noise: Tensor) -> Tensor:
    r"""The squared maximum mean discrepancy between codes and the prior, an unbiased estimate.

    E k(z, z') - 2 E k(z, n) + E k(n, n') for codes z, prior samples n and the kernel k(a, b) = exp(-|a - b|^2 / 2 D).
    The terms with n are in closed form where the prior has one.

    Source: A Kernel Two-Sample Test, Gretton et al. 2012.

    Args:
        z: Codes, (B, D).
        prior: The prior.
        noise: Standard normal noise, (B, D), for priors that are sampled; it may be the noise of the codes.

    Returns:
        A scalar.

    Example:
        >>> import torch
        >>> from vaelab.models.priors import StandardNormal
        >>> noise = torch.randn(1000, 2)
        >>> bool(mmd_to_prior(noise, StandardNormal(), noise) < mmd_to_prior(noise + 1, StandardNormal(), noise))
        True
    """
    between_codes = off_diagonal_mean(gaussian_kernel(z, z))
    to_prior, within_prior = prior.kernel_means(z, noise)
    return between_codes - 2 * to_prior + within_prior
