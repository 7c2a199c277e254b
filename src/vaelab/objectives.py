r"""Objectives: how distortion and rate become a loss.

For an encoder q(z|x), a prior p(z) and a distortion d, every objective here weighs the two halves of the bound

    distortion = E_q d(params(z), x),    rate = KL(q(z|x) || p(z)),

in nats per image, summed over pixels and latent dimensions and averaged over images, and some add a penalty on the
aggregate posterior q(z) = E_x q(z|x), estimated within the batch. An objective is a frozen dataclass: its fields are
its hyper-parameters, calling it gives `Terms`. `progress` in [0, 1], the part of the training that is done, drives
every schedule: nothing counts. No objective asks which distortion the model has.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import ClassVar, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from vaelab.aggregate import total_correlation
from vaelab.densities import Normal, kl_per_dimension, standard_normal
from vaelab.laws import Count, NonNegative, Part
from vaelab.likelihoods import Params
from vaelab.models import VAE, Draw
from vaelab.networks import Shape, dense

__all__ = [
    "Beta",
    "BetaTC",
    "Capacity",
    "Dip",
    "Factor",
    "ImportanceWeighted",
    "InfoMmd",
    "Objective",
    "Terms",
    "mmd_to_prior",
]

TINY = 1e-12


class Terms(NamedTuple):
    """A loss and its two halves, scalars in nats per image, averaged over the batch.

    `parts` are further terms of the loss under their names; `draw` is the pass through the model that was weighed.
    """

    loss: Tensor
    distortion: Tensor
    rate: Tensor
    parts: dict[str, Tensor]
    draw: Draw


@dataclass(frozen=True)
class Weighing:
    """What all objectives have. Called with noise (B, D), or (K, B, D) where `samples` K is more than 1."""

    @property
    def samples(self) -> int:
        """How many codes are drawn for each image."""
        return 1

    @property
    def separable(self) -> bool:
        """Whether the loss of a batch is the mean of its images' losses, so that parts of a batch may be apart."""
        return False

    def critic(self, latent_dim: int) -> nn.Module | None:
        """A network that is trained beside the model, where the loss needs one."""
        del latent_dim
        return None

    def effective_kl_weight(self, shape: Shape) -> float | None:
        """The KL weight at the end of training, in nats per image of `shape`; None in objectives that have none."""
        del shape
        return 1.0

    def meaning(self, shape: Shape) -> str | None:
        """What the settings amount to in nats per image, where that is not what they say."""
        del shape
        return None


def first(draw: Draw) -> Draw:
    """Of several codes of each image the first."""
    return Draw(draw.q, draw.z[0], Params(draw.params.pixels[0], draw.params.shared)) if draw.z.dim() > 2 else draw


def halves(model: VAE, x: Tensor, noise: Tensor) -> tuple[Draw, Tensor, Tensor]:
    """A pass through the model, its distortion, a scalar, and its KL of each latent dimension, (D,)."""
    draw = model(x, noise)
    kl = kl_per_dimension(draw.q, standard_normal(draw.q.mean)).mean(0)
    return first(draw), model.distort(draw.params, x).mean(), kl


@dataclass(frozen=True)
class Beta(Weighing):
    r"""distortion + w KL, with a constant or warmed-up KL weight w.  beta-VAE, Higgins et al. 2017.

    `kl_weight`: w, in nats per image. With `reduction` "mean" it is the weight that goes with a distortion averaged
    over the values of an image, and so stands for w times their number: 0.5 at 32x32 RGB is 1,536.
    `warmup`: the part of the training over which w rises linearly from 0 (Sonderby et al. 2016, arXiv 1602.02282).
    `free_bits`: nats of a latent dimension, averaged over the batch, that cost nothing: its loss takes
    max(KL_d, free_bits) (Kingma et al. 2016, arXiv 1606.04934).
    `k`: how many codes of an image the distortion is averaged over, which takes noise out of the gradient; the bound
    stays the same, unlike that of `ImportanceWeighted`.
    """

    name: ClassVar[str] = "beta"
    kl_weight: NonNegative = 1.0
    warmup: Part = 0.0
    free_bits: NonNegative = 0.0
    reduction: Literal["sum", "mean"] = "sum"
    k: Count = field(default=1, metadata={"legacy": 1})

    @property
    def samples(self) -> int:
        return self.k

    @property
    def separable(self) -> bool:
        return self.free_bits == 0  # which is of the mean over the batch

    def effective_kl_weight(self, shape: Shape) -> float:
        return self.kl_weight * (math.prod(shape) if self.reduction == "mean" else 1)

    def meaning(self, shape: Shape) -> str | None:
        if self.reduction == "sum":
            return None
        effective = self.effective_kl_weight(shape)
        return f"KL weight {self.kl_weight:g} beside a mean over pixel values is {effective:g} in nats per image"

    def __call__(self, model: VAE, x: Tensor, noise: Tensor, progress: Tensor) -> Terms:
        draw, distortion, kl = halves(model, x, noise)
        ramp = ((progress + TINY) / (self.warmup + TINY)).clamp(max=1)  # 1 throughout where there is no warm-up
        loss = distortion + self.effective_kl_weight(model.shape) * ramp * kl.clamp(min=self.free_bits).sum()
        return Terms(loss, distortion, kl.sum(), {}, draw)


@dataclass(frozen=True)
class Capacity(Weighing):
    r"""distortion + gamma |KL - C|, where the capacity C rises linearly from 0 to `capacity` nats over `rise`.

    The KL is held at what it may cost, so that the code takes in one factor after the other.
    Source: Understanding disentangling in beta-VAE, arXiv 1804.03599.
    """

    name: ClassVar[str] = "capacity"
    gamma: NonNegative = 100.0
    capacity: NonNegative = 25.0
    rise: Part = 1.0

    def effective_kl_weight(self, shape: Shape) -> None:
        del shape

    def __call__(self, model: VAE, x: Tensor, noise: Tensor, progress: Tensor) -> Terms:
        draw, distortion, kl = halves(model, x, noise)
        allowed = self.capacity * ((progress + TINY) / (self.rise + TINY)).clamp(max=1)
        return Terms(distortion + self.gamma * (kl.sum() - allowed).abs(), distortion, kl.sum(), {}, draw)


@dataclass(frozen=True)
class BetaTC(Weighing):
    r"""distortion + KL + (w - 1) TC: of the three parts of the KL only the total correlation is weighed, by w.

    TC = KL(q(z) || prod_d q(z_d)), with q(z) the mixture of the batch's posteriors (the paper's minibatch-weighted
    estimate, up to a constant).
    Source: Isolating Sources of Disentanglement in Variational Autoencoders, arXiv 1802.04942.
    """

    name: ClassVar[str] = "beta-tc"
    tc_weight: NonNegative = 6.0

    def __call__(self, model: VAE, x: Tensor, noise: Tensor, progress: Tensor) -> Terms:
        del progress
        draw, distortion, kl = halves(model, x, noise)
        correlation = total_correlation(draw.q, draw.z).mean()
        loss = distortion + kl.sum() + (self.tc_weight - 1) * correlation
        return Terms(loss, distortion, kl.sum(), {"total_correlation": correlation}, draw)


@dataclass(frozen=True)
class Factor(Weighing):
    r"""distortion + KL + gamma TC, with the total correlation as a critic sees it.

    The critic learns log q(z) / prod_d q(z_d) by telling codes from codes whose dimensions were exchanged between the
    images of the batch; one step of the optimiser moves model and critic, each by its own loss.
    Source: Disentangling by Factorising, arXiv 1802.05983.
    """

    name: ClassVar[str] = "factor"
    gamma: NonNegative = 10.0
    hidden: tuple[Count, ...] = (256, 256, 256)

    def critic(self, latent_dim: int) -> nn.Module:
        return nn.Sequential(*dense([latent_dim, *self.hidden, 1]))

    def __call__(self, model: VAE, x: Tensor, noise: Tensor, progress: Tensor) -> Terms:
        del progress
        draw, distortion, kl = halves(model, x, noise)
        critic = model.critic
        assert critic is not None
        z = draw.z.float()
        still = {name: p.detach() for name, p in critic.named_parameters()}  # the model does not train the critic
        correlation = functional_call(critic, still, z).mean()
        own = F.softplus(-critic(z.detach())).mean() + F.softplus(critic(exchanged(z.detach()))).mean()
        loss = distortion + kl.sum() + self.gamma * correlation + 0.5 * own
        return Terms(loss, distortion, kl.sum(), {"total_correlation": correlation, "critic": 0.5 * own}, draw)


def exchanged(z: Tensor) -> Tensor:
    """Codes (B, D) whose dimension d comes from an image some places further: batches are in random order."""
    places = torch.arange(len(z), device=z.device)[:, None]
    shifts = 1 + torch.arange(z.shape[1], device=z.device) % max(len(z) - 1, 1)
    return z.gather(0, (places + shifts) % len(z))


@dataclass(frozen=True)
class InfoMmd(Weighing):
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

    def __call__(self, model: VAE, x: Tensor, noise: Tensor, progress: Tensor) -> Terms:
        del progress
        draw, distortion, kl = halves(model, x, noise)
        discrepancy = mmd_to_prior(draw.z)
        loss = distortion + self.kl_weight * kl.sum() + self.mmd_weight * discrepancy
        return Terms(loss, distortion, kl.sum(), {"mmd": discrepancy}, draw)


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


@dataclass(frozen=True)
class Dip(Weighing):
    r"""distortion + KL + off sum_{c != d} C_cd^2 + diagonal sum_d (C_dd - 1)^2: the covariance of codes is drawn to 1.

    C is the covariance over the batch of the posterior means (`of` "means", DIP-VAE-I) or of the codes themselves,
    E[sigma^2] + Cov[mean] (`of` "codes", DIP-VAE-II).
    Source: Variational Inference of Disentangled Latent Concepts from Unlabeled Observations, arXiv 1711.00848.
    """

    name: ClassVar[str] = "dip"
    off: NonNegative = 10.0
    diagonal: NonNegative = 10.0
    of: Literal["means", "codes"] = "codes"

    def __call__(self, model: VAE, x: Tensor, noise: Tensor, progress: Tensor) -> Terms:
        del progress
        draw, distortion, kl = halves(model, x, noise)
        centred = draw.q.mean - draw.q.mean.mean(0)
        covariance = centred.T @ centred / len(x)
        if self.of == "codes":
            covariance = covariance + draw.q.logvar.exp().mean(0).diag()
        excess = covariance - torch.eye(len(covariance), device=covariance.device, dtype=covariance.dtype)
        on_diagonal = excess.diagonal().square().sum()
        penalty = self.off * (excess.square().sum() - on_diagonal) + self.diagonal * on_diagonal
        return Terms(distortion + kl.sum() + penalty, distortion, kl.sum(), {"covariance": penalty}, draw)


@dataclass(frozen=True)
class ImportanceWeighted(Weighing):
    r"""-log (1/K) sum_k w_k, w_k = p(x|z_k) p(z_k) / q(z_k|x): a bound that rises to the evidence with the `samples` K.

    Source: Importance Weighted Autoencoders, arXiv 1509.00519. `gradient` "dreg" is the doubly reparametrised gradient
    of the encoder, whose variance does not grow with K: Doubly Reparameterized Gradient Estimators for Monte Carlo
    Objectives, arXiv 1810.04152.
    """

    name: ClassVar[str] = "importance-weighted"
    short: ClassVar[tuple[str, ...]] = ("iwae",)
    k: Count = 5
    gradient: Literal["plain", "dreg"] = "plain"

    @property
    def samples(self) -> int:
        return self.k

    @property
    def separable(self) -> bool:
        return True

    def __call__(self, model: VAE, x: Tensor, noise: Tensor, progress: Tensor) -> Terms:
        del progress
        draw = model(x, noise.view(self.k, len(x), -1))
        q, z = draw.q, draw.z
        distortion = model.distort(draw.params, x)
        density = Normal(*(p.detach() for p in q)) if self.gradient == "dreg" else q
        log_weights = standard_normal(z).log_prob(z) - distortion - density.log_prob(z)
        if self.gradient == "dreg" and z.requires_grad:
            shares = log_weights.detach().softmax(0).unsqueeze(-1)
            z.register_hook(lambda slope: slope * shares)  # on its way to the encoder
        bound = log_weights.logsumexp(0) - math.log(self.k)
        kl = kl_per_dimension(q, standard_normal(q.mean)).sum(-1).mean()
        return Terms(-bound.mean(), distortion.mean(), kl, {}, first(draw))


Objective = Beta | Capacity | BetaTC | Factor | InfoMmd | Dip | ImportanceWeighted
