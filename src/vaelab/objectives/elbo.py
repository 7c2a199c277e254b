"""Objectives that weigh the two terms of the evidence lower bound: beta-VAE and capacity."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import ClassVar, Literal

from torch import Tensor

from vaelab.core.constraints import Count, NonNegative, UnitInterval
from vaelab.models.networks import Shape
from vaelab.models.vae import VAE
from vaelab.objectives.terms import TINY, LossTerms, ObjectiveBase, distortion_and_rate

__all__ = ["BetaVAE", "Capacity"]


@dataclass(frozen=True)
class BetaVAE(ObjectiveBase):
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
    warmup: UnitInterval = 0.0
    free_bits: NonNegative = 0.0
    reduction: Literal["sum", "mean"] = "sum"
    k: Count = field(default=1, metadata={"legacy": 1})

    @property
    def num_samples(self) -> int:
        return self.k

    @property
    def decomposes_over_batch(self) -> bool:
        return self.free_bits == 0  # which is of the mean over the batch

    def effective_kl_weight(self, shape: Shape) -> float:
        return self.kl_weight * (math.prod(shape) if self.reduction == "mean" else 1)

    def explain(self, shape: Shape) -> str | None:
        if self.reduction == "sum":
            return None
        effective = self.effective_kl_weight(shape)
        return f"KL weight {self.kl_weight:g} beside a mean over pixel values is {effective:g} in nats per image"

    def __call__(self, model: VAE, x: Tensor, noise: Tensor, progress: Tensor) -> LossTerms:
        draw, distortion, kl = distortion_and_rate(model, x, noise)
        ramp = ((progress + TINY) / (self.warmup + TINY)).clamp(max=1)  # 1 throughout where there is no warm-up
        loss = distortion + self.effective_kl_weight(model.shape) * ramp * kl.clamp(min=self.free_bits).sum()
        return LossTerms(loss, distortion, kl.sum(), {}, draw)


@dataclass(frozen=True)
class Capacity(ObjectiveBase):
    r"""distortion + gamma |KL - C|, where the capacity C rises linearly from 0 to `capacity` nats over `rise`.

    The KL is held at what it may cost, so that the code takes in one factor after the other.
    Source: Understanding disentangling in beta-VAE, arXiv 1804.03599.
    """

    name: ClassVar[str] = "capacity"
    gamma: NonNegative = 100.0
    capacity: NonNegative = 25.0
    rise: UnitInterval = 1.0

    def effective_kl_weight(self, shape: Shape) -> None:
        del shape

    def __call__(self, model: VAE, x: Tensor, noise: Tensor, progress: Tensor) -> LossTerms:
        draw, distortion, kl = distortion_and_rate(model, x, noise)
        allowed = self.capacity * ((progress + TINY) / (self.rise + TINY)).clamp(max=1)
        return LossTerms(distortion + self.gamma * (kl.sum() - allowed).abs(), distortion, kl.sum(), {}, draw)
