r"""Distortions and likelihoods: what the decoder's output means, and how far it is from the image.

A *distortion* is a frozen callable `(params, x) -> (B,)`: nats, or squared pixel units, summed over the pixels of an
image. A *likelihood* is a distortion -log p(x|z) of a normalised density; only for these does an evidence bound exist.
Training any distortion d with a KL weight w minimises d + w KL = w (d / w + KL): that is the bound of the likelihood
proportional to exp(-d / w), where this can be normalised. For the squared error it is the Gaussian of variance w / 2.
Where an objective has no constant weight, w is None.

The decoder gives `channels` numbers for each value of a pixel; `Params` carries them with the few numbers that all
pixels share. With a sigmoid `link`, the first number is a logit: x^ = sigmoid(logit). Densities are computed in float32
even where the network runs in bfloat16.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from vaelab.laws import NonNegative, Positive

__all__ = ["CrossEntropy", "Distortion", "Gaussian", "Likelihood", "Params", "SquaredError", "Sum"]


class Params(NamedTuple):
    """The decoder's output: `pixels` (*, channels * C, H, W), and `shared` (n,), learned with the weights."""

    pixels: Tensor
    shared: Tensor


def total(values: Tensor) -> Tensor:
    """Sum over the pixels of each image, with shape (*, C, H, W) -> (*)."""
    return values.flatten(-3).sum(-1)


@dataclass(frozen=True)
class Sigmoid:
    """The decoder's output read as one logit a value: x^ = sigmoid(logit). What the first three distortions share."""

    channels: ClassVar[int] = 1
    shared: ClassVar[tuple[float, ...]] = ()

    def mean(self, params: Params) -> Tensor:
        """The reconstruction x^ in [0, 1]."""
        return params.pixels.sigmoid()

    def logits(self, params: Params) -> Tensor:
        """log x^ / (1 - x^), exact where the network itself gives logits."""
        return params.pixels


@dataclass(frozen=True)
class CrossEntropy(Sigmoid):
    r"""-sum_i x_i log x^_i + (1 - x_i) log(1 - x^_i), in nats per image.

    The likelihood of binary pixels (Bernoulli). On grey pixels it is the textbook's loss and no likelihood:
    it does not normalise, and its smallest value is the entropy of the pixels, not 0.
    Source: Auto-Encoding Variational Bayes, appendix C.1, arXiv 1312.6114.
    """

    name: ClassVar[str] = "cross-entropy"
    short: ClassVar[str] = "ce"

    def __call__(self, params: Params, x: Tensor) -> Tensor:
        logits = params.pixels  # softplus(l) - x l is the formula above, without its overflow
        return total(F.softplus(logits) - x * logits)

    def log_prob(self, params: Params, x: Tensor) -> Tensor:
        return -self(params, x)

    def as_likelihood(self, kl_weight: float | None) -> CrossEntropy:
        del kl_weight  # the textbook figure is defined at weight 1
        return self

    def sample(self, params: Params, noise: Tensor) -> Tensor:
        return (torch.special.ndtr(noise) < self.mean(params)).to(noise.dtype)

    def meaning(self, kl_weight: float | None, binary: bool) -> str:
        """What this loss stands for, said when training starts."""
        weight = "" if kl_weight in (1, None) else f", trained with KL weight {kl_weight:g}"
        if binary:
            return f"cross entropy is the Bernoulli likelihood of these binary pixels{weight}"
        return f"cross entropy on grey or coloured pixels is the textbook loss, not a likelihood of them{weight}"


@dataclass(frozen=True)
class SquaredError(Sigmoid):
    r"""sum_i (x_i - x^_i)^2, summed over the pixels of an image.

    With KL weight w > 0 it is, up to constants, w times the bound of the Gaussian likelihood of variance w / 2.
    """

    name: ClassVar[str] = "squared-error"
    short: ClassVar[str] = "se"

    def __call__(self, params: Params, x: Tensor) -> Tensor:
        return total((self.mean(params) - x).square())

    def as_likelihood(self, kl_weight: float | None) -> Gaussian | None:
        return Gaussian(sigma=math.sqrt(kl_weight / 2)) if kl_weight else None

    def meaning(self, kl_weight: float | None, binary: bool) -> str:
        del binary
        if kl_weight == 0:
            return "squared error with KL weight 0 is an autoencoder: no likelihood, no bound, no prior samples"
        if kl_weight is None:
            return "squared error without a constant KL weight stands for no likelihood: no bound is computed for it"
        sigma = math.sqrt(kl_weight / 2)
        return f"squared error with KL weight {kl_weight:g} is a Gaussian likelihood of standard deviation {sigma:.3g}"


@dataclass(frozen=True)
class Sum(Sigmoid):
    r"""A weighted sum of cross entropy and squared error: a distortion and no likelihood, so without any bound."""

    name: ClassVar[str] = "cross-entropy+squared-error"
    short: ClassVar[str] = "ce+se"
    cross_entropy: NonNegative = 1.0
    squared_error: NonNegative = 1.0

    def __call__(self, params: Params, x: Tensor) -> Tensor:
        return self.cross_entropy * CrossEntropy()(params, x) + self.squared_error * SquaredError()(params, x)

    def as_likelihood(self, kl_weight: float | None) -> None:
        del kl_weight

    def meaning(self, kl_weight: float | None, binary: bool) -> str:
        del kl_weight, binary
        return "a sum of cross entropy and squared error is no likelihood: no bound is computed for it"


@dataclass(frozen=True)
class Gaussian:
    r"""The Gaussian likelihood with one standard deviation for all pixels: learned (`sigma` none), or fixed.

    -log p(x|z) = sum_i (x_i - x^_i)^2 / (2 sigma^2) + log sigma + 1/2 log 2 pi, in nats per image. Learned, sigma
    settles at the root mean squared residual, which weighs reconstruction against KL as the data ask for.
    Source: Simple and Effective VAE Training with Calibrated Decoders, arXiv 2006.13202.
    """

    name: ClassVar[str] = "gaussian"
    short: ClassVar[str] = "gaussian"
    channels: ClassVar[int] = 1
    sigma: Positive | None = None
    link: Literal["sigmoid", "identity"] = "sigmoid"

    @property
    def shared(self) -> tuple[float, ...]:
        """Where the learned log sigma starts: near the spread of raw pixels, so that the first steps are calm."""
        return (math.log(0.3),) if self.sigma is None else ()

    def log_sigma(self, params: Params) -> Tensor:
        if self.sigma is None:
            return params.shared[0]
        return torch.full((), math.log(self.sigma), device=params.pixels.device)

    def mean(self, params: Params) -> Tensor:
        return params.pixels.sigmoid() if self.link == "sigmoid" else params.pixels

    def logits(self, params: Params) -> Tensor:
        return params.pixels if self.link == "sigmoid" else torch.logit(params.pixels, eps=1e-6)

    def log_prob(self, params: Params, x: Tensor) -> Tensor:
        log_sigma = self.log_sigma(params)
        square = total((self.mean(params) - x).square())
        constant = x[0].numel() * (log_sigma + 0.5 * math.log(2 * math.pi))
        return -0.5 * square * (-2 * log_sigma).exp() - constant

    def __call__(self, params: Params, x: Tensor) -> Tensor:
        return -self.log_prob(params, x)

    def as_likelihood(self, kl_weight: float | None) -> Gaussian:
        del kl_weight
        return self

    def sample(self, params: Params, noise: Tensor) -> Tensor:
        return self.mean(params) + self.log_sigma(params).exp() * noise

    def meaning(self, kl_weight: float | None, binary: bool) -> str:
        del binary
        sigma = "learned" if self.sigma is None else f"{self.sigma:g}"
        weight = "" if kl_weight in (1, None) else f", trained with KL weight {kl_weight:g}"
        return f"a Gaussian likelihood, one standard deviation for all pixels, {sigma}{weight}"


Distortion = CrossEntropy | SquaredError | Sum | Gaussian
Likelihood = CrossEntropy | Gaussian
