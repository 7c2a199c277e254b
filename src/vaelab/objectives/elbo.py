"""Objectives that weigh the two terms of the evidence lower bound: beta-VAE and capacity."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import ClassVar, Literal

from torch import Tensor

from vaelab.core.codec import changed_settings
from vaelab.core.constraints import Count, NonNegative, UnitInterval
from vaelab.models.networks import Shape
from vaelab.models.vae import VAE
from vaelab.objectives.objective import TINY, Objective
from vaelab.objectives.terms import LossTerms, distortion_and_rate

__all__ = ["BetaVAE", "Capacity"]

REDUCTIONS = {
    "mean": "a mean over pixel values",
    "mean-each": "means over pixel values and over latent dimensions",
}


@dataclass(frozen=True)
class BetaVAE(Objective):
    r"""distortion + w KL, with a KL weight w that is constant or rises at the start of the training.

    Source: beta-VAE: Learning Basic Visual Concepts with a Constrained Variational Framework, Higgins et al. 2017.

    Args:
        kl_weight: The weight w, in nats per image (beta), where `reduction` is "sum".
        warmup: The part of the training over which w rises linearly from 0 (Ladder Variational Autoencoders, arXiv
            1602.02282).
        free_bits: How many nats of a latent dimension cost nothing: its loss is max(KL_d, free_bits), with KL_d
            averaged over the batch (Improving Variational Inference with Inverse Autoregressive Flow, arXiv
            1606.04934).
        reduction: What the weight is meant for. "sum": a distortion summed over the values of an image. "mean": one
            averaged over them, so that 0.5 at 32x32 RGB is 1,536 in nats per image. "mean-each": beside it a KL
            averaged over the latent dimensions, so that 0.5 at 32x32 RGB and 64 dimensions is 24.
        k: How many codes of each image the distortion is averaged over. More make the gradient less noisy; the bound
            stays the same, unlike that of `ImportanceWeighted`.

    Example:
        >>> BetaVAE(kl_weight=0.5, reduction="mean").effective_kl_weight((3, 32, 32), latent_dim=64)
        1536.0
        >>> BetaVAE(kl_weight=0.5, reduction="mean-each").effective_kl_weight((3, 32, 32), latent_dim=64)
        24.0
        >>> import torch
        >>> from vaelab.models.likelihoods import SquaredError
        >>> from vaelab.models.networks import Mlp
        >>> model = VAE(Mlp(), SquaredError(), shape=(1, 8, 8), latent_dim=2)
        >>> images, noise = torch.rand(5, 1, 8, 8), torch.randn(5, 2)
        >>> terms = BetaVAE(kl_weight=2.0)(model, images, noise, progress=torch.tensor(1.0))
        >>> torch.isclose(terms.loss, terms.distortion + 2 * terms.rate)
        tensor(True)
    """

    name: ClassVar[str] = "beta"
    kl_weight: NonNegative = 1.0
    warmup: UnitInterval = 0.0
    free_bits: NonNegative = 0.0
    reduction: Literal["sum", "mean", "mean-each"] = "sum"
    k: Count = field(default=1, metadata={"legacy": 1})

    @property
    def title(self) -> str:
        """The objective as a part of a title.

        Example:
            >>> BetaVAE().title, BetaVAE(kl_weight=4.0).title
            ('VAE', 'beta-VAE, beta = 4')
        """
        settings = changed_settings(self, without=("kl_weight", "reduction"))
        if self.reduction != "sum":
            return ", ".join([f"beta-VAE, beta = {self.kl_weight:g} with {REDUCTIONS[self.reduction]}", *settings])
        if self.kl_weight == 0:
            return ", ".join(["autoencoder, KL weight 0", *settings])
        name = "VAE" if self.kl_weight == 1 else f"beta-VAE, beta = {self.kl_weight:g}"
        return ", ".join([name, *settings])

    @property
    def num_samples(self) -> int:
        return self.k

    @property
    def decomposes_over_batch(self) -> bool:
        return self.free_bits == 0  # free bits compare with the mean over the batch

    def effective_kl_weight(self, shape: Shape, latent_dim: int) -> float:
        if self.reduction == "sum":
            return self.kl_weight
        num_averaged = latent_dim if self.reduction == "mean-each" else 1
        return self.kl_weight * math.prod(shape) / num_averaged

    def explain(self, shape: Shape, latent_dim: int) -> str | None:
        if self.reduction == "sum":
            return None
        weight = self.effective_kl_weight(shape, latent_dim)
        return f"KL weight {self.kl_weight:g} with {REDUCTIONS[self.reduction]} is {weight:g} in nats per image"

    def __call__(self, model: VAE, x: Tensor, noise: Tensor, progress: Tensor) -> LossTerms:
        output, distortion, kl = distortion_and_rate(model, x, noise)
        ramp = ((progress + TINY) / (self.warmup + TINY)).clamp(max=1)  # 1 throughout without a warm-up
        loss = (
            distortion
            + self.effective_kl_weight(model.shape, model.latent_dim) * ramp * kl.clamp(min=self.free_bits).sum()
        )
        return LossTerms(loss, distortion, kl.sum(), {}, output)


@dataclass(frozen=True)
class Capacity(Objective):
    r"""distortion + gamma |KL - C|, with a capacity C that rises linearly from 0 during the training.

    The KL is kept at C nats, so that the code learns one factor of variation after the other.

    Source: Understanding disentangling in beta-VAE, arXiv 1804.03599.

    Args:
        gamma: The weight of the distance from the capacity.
        capacity: The final C, in nats per image.
        rise: The part of the training over which C rises.

    Example:
        >>> import torch
        >>> from vaelab.models.likelihoods import SquaredError
        >>> from vaelab.models.networks import Mlp
        >>> model = VAE(Mlp(), SquaredError(), shape=(1, 8, 8), latent_dim=2)
        >>> images, noise = torch.rand(5, 1, 8, 8), torch.randn(5, 2)
        >>> terms = Capacity(gamma=10.0)(model, images, noise, progress=torch.tensor(0.0))  # the capacity is still 0
        >>> torch.isclose(terms.loss, terms.distortion + 10 * terms.rate)
        tensor(True)
    """

    name: ClassVar[str] = "capacity"
    gamma: NonNegative = 100.0
    capacity: NonNegative = 25.0
    rise: UnitInterval = 1.0

    @property
    def title(self) -> str:
        settings = changed_settings(self, without=("capacity",))
        return ", ".join([f"VAE with a KL capacity of {self.capacity:g} nats", *settings])

    def effective_kl_weight(self, shape: Shape, latent_dim: int) -> None:
        del shape, latent_dim

    def __call__(self, model: VAE, x: Tensor, noise: Tensor, progress: Tensor) -> LossTerms:
        output, distortion, kl = distortion_and_rate(model, x, noise)
        target = self.capacity * ((progress + TINY) / (self.rise + TINY)).clamp(max=1)
        loss = distortion + self.gamma * (kl.sum() - target).abs()
        return LossTerms(loss, distortion, kl.sum(), {}, output)
