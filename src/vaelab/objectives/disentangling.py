"""Objectives that penalise dependence between latent dimensions: beta-TC, FactorVAE, DIP-VAE."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from vaelab.core.constraints import Count, NonNegative
from vaelab.models.aggregate import total_correlation
from vaelab.models.networks import linear_layers
from vaelab.models.vae import VAE
from vaelab.objectives.terms import LossTerms, ObjectiveBase, distortion_and_rate

__all__ = ["DIPVAE", "BetaTCVAE", "FactorVAE"]


@dataclass(frozen=True)
class BetaTCVAE(ObjectiveBase):
    r"""distortion + KL + (w - 1) TC: of the three parts of the KL only the total correlation is weighed, by w.

    TC = KL(q(z) || prod_d q(z_d)), with q(z) the mixture of the batch's posteriors (the paper's minibatch-weighted
    estimate, up to a constant).
    Source: Isolating Sources of Disentanglement in Variational Autoencoders, arXiv 1802.04942.
    """

    name: ClassVar[str] = "beta-tc"
    tc_weight: NonNegative = 6.0

    def __call__(self, model: VAE, x: Tensor, noise: Tensor, progress: Tensor) -> LossTerms:
        del progress
        draw, distortion, kl = distortion_and_rate(model, x, noise)
        correlation = total_correlation(draw.q, draw.z).mean()
        loss = distortion + kl.sum() + (self.tc_weight - 1) * correlation
        return LossTerms(loss, distortion, kl.sum(), {"total_correlation": correlation}, draw)


@dataclass(frozen=True)
class FactorVAE(ObjectiveBase):
    r"""distortion + KL + gamma TC, with the total correlation as a critic sees it.

    The critic learns log q(z) / prod_d q(z_d) by telling codes from codes whose dimensions were exchanged between the
    images of the batch; one step of the optimiser moves model and critic, each by its own loss.
    Source: Disentangling by Factorising, arXiv 1802.05983.
    """

    name: ClassVar[str] = "factor"
    gamma: NonNegative = 10.0
    hidden: tuple[Count, ...] = (256, 256, 256)

    def critic(self, latent_dim: int) -> nn.Module:
        return nn.Sequential(*linear_layers([latent_dim, *self.hidden, 1]))

    def __call__(self, model: VAE, x: Tensor, noise: Tensor, progress: Tensor) -> LossTerms:
        del progress
        draw, distortion, kl = distortion_and_rate(model, x, noise)
        critic = model.critic
        assert critic is not None
        z = draw.z.float()
        still = {name: p.detach() for name, p in critic.named_parameters()}  # the model does not train the critic
        correlation = functional_call(critic, still, z).mean()
        own = F.softplus(-critic(z.detach())).mean() + F.softplus(critic(permute_dims(z.detach()))).mean()
        loss = distortion + kl.sum() + self.gamma * correlation + 0.5 * own
        return LossTerms(loss, distortion, kl.sum(), {"total_correlation": correlation, "critic": 0.5 * own}, draw)


def permute_dims(z: Tensor) -> Tensor:
    """Codes (B, D) whose dimension d comes from an image some places further: batches are in random order."""
    places = torch.arange(len(z), device=z.device)[:, None]
    shifts = 1 + torch.arange(z.shape[1], device=z.device) % max(len(z) - 1, 1)
    return z.gather(0, (places + shifts) % len(z))


@dataclass(frozen=True)
class DIPVAE(ObjectiveBase):
    r"""distortion + KL + off sum_{c != d} C_cd^2 + diagonal sum_d (C_dd - 1)^2: the covariance of codes is drawn to 1.

    C is the covariance over the batch of the posterior means (`of` "means", DIP-VAE-I) or of the codes themselves,
    E[sigma^2] + Cov[mean] (`of` "codes", DIP-VAE-II).
    Source: Variational Inference of Disentangled Latent Concepts from Unlabeled Observations, arXiv 1711.00848.
    """

    name: ClassVar[str] = "dip"
    off: NonNegative = 10.0
    diagonal: NonNegative = 10.0
    of: Literal["means", "codes"] = "codes"

    def __call__(self, model: VAE, x: Tensor, noise: Tensor, progress: Tensor) -> LossTerms:
        del progress
        draw, distortion, kl = distortion_and_rate(model, x, noise)
        centred = draw.q.mean - draw.q.mean.mean(0)
        covariance = centred.T @ centred / len(x)
        if self.of == "codes":
            covariance = covariance + draw.q.logvar.exp().mean(0).diag()
        excess = covariance - torch.eye(len(covariance), device=covariance.device, dtype=covariance.dtype)
        on_diagonal = excess.diagonal().square().sum()
        penalty = self.off * (excess.square().sum() - on_diagonal) + self.diagonal * on_diagonal
        return LossTerms(distortion + kl.sum() + penalty, distortion, kl.sum(), {"covariance": penalty}, draw)
