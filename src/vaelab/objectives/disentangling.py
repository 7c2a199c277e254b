"""Objectives that penalise dependence between latent dimensions: beta-TCVAE, FactorVAE, DIP-VAE."""

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
from vaelab.objectives.objective import Objective
from vaelab.objectives.terms import LossTerms, distortion_and_rate

__all__ = ["DIPVAE", "BetaTCVAE", "FactorVAE"]


@dataclass(frozen=True)
class BetaTCVAE(Objective):
    r"""distortion + KL + (w - 1) TC: only one of the three parts of the KL, the total correlation, has a weight w.

    TC = KL(q(z) || prod_d q(z_d)), with q(z) the mixture of the batch's posteriors. This is the paper's
    minibatch-weighted estimate, up to a constant.

    Source: Isolating Sources of Disentanglement in Variational Autoencoders, arXiv 1802.04942.

    Args:
        tc_weight: The weight w; 1 is the plain bound.
    """

    name: ClassVar[str] = "beta-tc"
    tc_weight: NonNegative = 6.0

    def __call__(self, model: VAE, x: Tensor, noise: Tensor, progress: Tensor) -> LossTerms:
        del progress
        output, distortion, kl = distortion_and_rate(model, x, noise)
        correlation = total_correlation(output.q, output.z).mean()
        loss = distortion + kl.sum() + (self.tc_weight - 1) * correlation
        return LossTerms(loss, distortion, kl.sum(), {"total_correlation": correlation}, output)


@dataclass(frozen=True)
class FactorVAE(Objective):
    r"""distortion + KL + gamma TC, with the total correlation estimated by a critic.

    The critic learns to tell codes from codes whose dimensions were exchanged between the images of the batch; its
    logit estimates the log density ratio of q(z) and prod_d q(z_d). One step of the optimiser moves model and critic,
    each by its own loss.

    Source: Disentangling by Factorising, arXiv 1802.05983.

    Args:
        gamma: The weight of the total correlation.
        hidden: The widths of the critic's hidden layers.
    """

    name: ClassVar[str] = "factor"
    gamma: NonNegative = 10.0
    hidden: tuple[Count, ...] = (256, 256, 256)

    def critic(self, latent_dim: int) -> nn.Module:
        return nn.Sequential(*linear_layers([latent_dim, *self.hidden, 1]))

    def __call__(self, model: VAE, x: Tensor, noise: Tensor, progress: Tensor) -> LossTerms:
        del progress
        output, distortion, kl = distortion_and_rate(model, x, noise)
        critic = model.critic
        assert critic is not None
        z = output.z.float()
        frozen = {name: p.detach() for name, p in critic.named_parameters()}  # the model does not train the critic
        correlation = functional_call(critic, frozen, z).mean()
        codes = z.detach()  # nor the critic the model
        critic_loss = 0.5 * (F.softplus(-critic(codes)).mean() + F.softplus(critic(permute_dims(codes))).mean())
        loss = distortion + kl.sum() + self.gamma * correlation + critic_loss
        extra_terms = {"total_correlation": correlation, "critic": critic_loss}
        return LossTerms(loss, distortion, kl.sum(), extra_terms, output)


def permute_dims(z: Tensor) -> Tensor:
    """Exchange the dimensions of codes between images, each dimension by another shift.

    Batches are in random order, so a shift is as good as a random permutation.

    Args:
        z: Codes, (B, D).

    Returns:
        Codes (B, D), each of whose dimensions comes from another image.

    Example:
        >>> permute_dims(torch.tensor([[1, 10], [2, 20], [3, 30]]))
        tensor([[ 2, 30],
                [ 3, 10],
                [ 1, 20]])
    """
    rows = torch.arange(len(z), device=z.device)[:, None]
    shifts = 1 + torch.arange(z.shape[1], device=z.device) % max(len(z) - 1, 1)
    return z.gather(0, (rows + shifts) % len(z))


@dataclass(frozen=True)
class DIPVAE(Objective):
    r"""distortion + KL + off sum_{c != d} C_cd^2 + diagonal sum_d (C_dd - 1)^2: the covariance C of codes tends to 1.

    Source: Variational Inference of Disentangled Latent Concepts from Unlabeled Observations, arXiv 1711.00848.

    Args:
        off: The weight of the covariances (lambda_od in the paper).
        diagonal: The weight of the variances' distance from 1 (lambda_d).
        of: What C is the covariance of, over the batch: the posterior "means" (DIP-VAE-I), or the "codes" themselves,
            E[sigma^2] + Cov[mean] (DIP-VAE-II).
    """

    name: ClassVar[str] = "dip"
    off: NonNegative = 10.0
    diagonal: NonNegative = 10.0
    of: Literal["means", "codes"] = "codes"

    def __call__(self, model: VAE, x: Tensor, noise: Tensor, progress: Tensor) -> LossTerms:
        del progress
        output, distortion, kl = distortion_and_rate(model, x, noise)
        centred = output.q.mean - output.q.mean.mean(0)
        covariance = centred.T @ centred / len(x)
        if self.of == "codes":
            covariance = covariance + output.q.logvar.exp().mean(0).diag()
        identity = torch.eye(len(covariance), device=covariance.device, dtype=covariance.dtype)
        excess = covariance - identity
        on_diagonal = excess.diagonal().square().sum()
        penalty = self.off * (excess.square().sum() - on_diagonal) + self.diagonal * on_diagonal
        loss = distortion + kl.sum() + penalty
        return LossTerms(loss, distortion, kl.sum(), {"covariance": penalty}, output)
