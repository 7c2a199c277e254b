r"""Objectives: how distortion and rate become a loss.

For an encoder q(z|x), a prior p(z) and a distortion d, every objective here weighs the two halves of the bound

    distortion = E_q d(params(z), x),    rate = KL(q(z|x) || p(z)),

in nats per image, summed over pixels and latent dimensions and averaged over images. An objective is a frozen
dataclass: its fields are its hyper-parameters, calling it gives `Terms`. `progress` in [0, 1], the part of the training
that is done, drives every schedule: nothing counts. No objective asks which distortion the model has.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple

from torch import Tensor

from vaelab.densities import kl_per_dimension, standard_normal
from vaelab.laws import NonNegative, Part
from vaelab.models import VAE, Draw
from vaelab.networks import Shape

__all__ = ["Beta", "Objective", "Terms"]

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
class Beta:
    r"""distortion + w KL, with a constant or warmed-up KL weight w.  beta-VAE, Higgins et al. 2017.

    `kl_weight`: w, in nats per image. With `reduction` "mean" it is the weight that goes with a distortion averaged
    over the values of an image, and so stands for w times their number: 0.5 at 32x32 RGB is 1,536.
    `warmup`: the part of the training over which w rises linearly from 0 (Sonderby et al. 2016, arXiv 1602.02282).
    `free_bits`: nats of a latent dimension, averaged over the batch, that cost nothing: its loss takes
    max(KL_d, free_bits) (Kingma et al. 2016, arXiv 1606.04934).
    """

    name: ClassVar[str] = "beta"
    kl_weight: NonNegative = 1.0
    warmup: Part = 0.0
    free_bits: NonNegative = 0.0
    reduction: Literal["sum", "mean"] = "sum"

    def effective_kl_weight(self, shape: Shape) -> float:
        """The KL weight at the end of training, in nats per image of `shape`; None in objectives that have none."""
        return self.kl_weight * (math.prod(shape) if self.reduction == "mean" else 1)

    def meaning(self, shape: Shape) -> str | None:
        """What the settings amount to in nats per image, where that is not what they say."""
        if self.reduction == "sum":
            return None
        effective = self.effective_kl_weight(shape)
        return f"KL weight {self.kl_weight:g} beside a mean over pixel values is {effective:g} in nats per image"

    def __call__(self, model: VAE, x: Tensor, noise: Tensor, progress: Tensor) -> Terms:
        draw = model(x, noise)
        distortion = model.distort(draw.params, x).mean()
        kl = kl_per_dimension(draw.q, standard_normal(draw.q.mean)).mean(0)
        ramp = ((progress + TINY) / (self.warmup + TINY)).clamp(max=1)  # 1 throughout where there is no warm-up
        loss = distortion + self.effective_kl_weight(model.shape) * ramp * kl.clamp(min=self.free_bits).sum()
        return Terms(loss, distortion, kl.sum(), {}, draw)


Objective = Beta
