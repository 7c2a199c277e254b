"""Objectives that add a divergence between the aggregate posterior and the prior: InfoVAE with MMD."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from vaelab.core.constraints import NonNegative
from vaelab.models.networks import Shape
from vaelab.models.vae import VAE
from vaelab.objectives.terms import LossTerms, ObjectiveBase, distortion_and_rate

__all__ = ["InfoVAE", "mmd_to_prior"]


@dataclass(frozen=True)
class InfoVAE(ObjectiveBase):
    r"""distortion + w KL + lambda MMD^2(q(z), p(z)): the aggregate posterior is drawn to the prior, not each posterior.

    With w = 0 codes keep all that they know of their images. Source: InfoVAE: Balancing Learning and Inference in
    Variational Autoencoders, arXiv 1706.02262 (w = 1 - alpha, lambda = its alpha + lambda - 1).
    """

    name: ClassVar[str] = "info-mmd"
    short: ClassVar[tuple[str, ...]] = ("mmd", "infovae")
    kl_weight: NonNegative = 0.0
    mmd_weight: NonNegative = 1000.0

    def effective_kl_weight(self, shape: Shape) -> float | None:
        del shape
        return self.kl_weight or None

    def __call__(self, model: VAE, x: Tensor, noise: Tensor, progress: Tensor) -> LossTerms:
        del progress
        draw, distortion, kl = distortion_and_rate(model, x, noise)
        discrepancy = mmd_to_prior(draw.z)
        loss = distortion + self.kl_weight * kl.sum() + self.mmd_weight * discrepancy
        return LossTerms(loss, distortion, kl.sum(), {"mmd": discrepancy}, draw)


def mmd_to_prior(z: Tensor) -> Tensor:
    r"""The squared maximum mean discrepancy between codes z (B, D) and N(0, 1), unbiased; a scalar.

    E k(z, z') - 2 E k(z, n) + E k(n, n') for the kernel k(a, b) = exp(-|a - b|^2 / 2 D); the terms with normal n are in
    closed form, so that nothing is drawn. Source: A Kernel Two-Sample Test, Gretton et al. 2012.
    """
    count, dim = z.shape
    square = z.square().sum(1)
    between = (-(square[:, None] + square - 2 * z @ z.T) / (2 * dim)).exp()
    own = (between.sum() - between.diagonal().sum()) / max(count * (count - 1), 1)
    cross = (dim / (dim + 1)) ** (dim / 2) * (-square / (2 * (dim + 1))).exp().mean()
    return own - 2 * cross + (dim / (dim + 2)) ** (dim / 2)
