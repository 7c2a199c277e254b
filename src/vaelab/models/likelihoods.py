r"""Distortions and likelihoods: what the decoder's output means, and how far it is from the image.

A *distortion* is a frozen callable `(params, x) -> (B,)`: nats, or squared pixel units, summed over the pixels of an
image. A *likelihood* is a distortion -log p(x|z) of a normalised density; only for these does an evidence bound exist.
Training any distortion d with a KL weight w minimises d + w KL = w (d / w + KL): that is the bound of the likelihood
proportional to exp(-d / w), where this can be normalised. For the squared error it is the Gaussian of variance w / 2.
Where an objective has no constant weight, w is None.

The decoder gives `channels` numbers for each value of a pixel; `Params` carries them with the few numbers that all
pixels share. With a sigmoid `link`, the first number is a logit: x^ = sigmoid(logit). Densities are computed in float32
even where the network runs in bfloat16.

`support` says of what a likelihood is a distribution: "binary" pixels, the 256 "levels" of stored ones, or the
"continuum" around [0, 1]. `bits` turns the last two into one unit.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple, Self

import torch
from torch import Tensor
from torch.nn import functional as F

from vaelab.core.constraints import Count, NonNegative, Positive

__all__ = [
    "ContinuousBernoulli",
    "CrossEntropy",
    "CrossEntropyPlusSquaredError",
    "DiscretisedLogistic",
    "Distortion",
    "Gaussian",
    "Laplace",
    "Likelihood",
    "LikelihoodParams",
    "SquaredError",
]

Support = Literal["binary", "levels", "continuum"]

PIXEL_LEVELS = 256  # of a stored pixel value


class LikelihoodParams(NamedTuple):
    """The decoder's output: `pixels` (*, channels * C, H, W), and `shared` (n,), learned with the weights."""

    pixels: Tensor
    global_params: Tensor


def sum_over_pixels(values: Tensor) -> Tensor:
    """Sum over the pixels of each image, with shape (*, C, H, W) -> (*)."""
    return values.flatten(-3).sum(-1)


def to_uniform(noise: Tensor) -> Tensor:
    """Uniform noise in (0, 1) from standard normal noise."""
    tiny = torch.finfo(noise.dtype).eps
    return torch.special.ndtr(noise).clamp(tiny, 1 - tiny)


def lower_bounded(raw: Tensor, start: float, floor: float) -> Tensor:
    """A log scale that begins at `start` where the network gives 0, grows with it and never falls to `floor`."""
    return floor + F.softplus(raw + start - floor)


@dataclass(frozen=True)
class DistortionBase:
    """What all distortions have: one number a value, none shared, and a reconstruction."""

    @property
    def channels_per_value(self) -> int:
        """How many numbers the decoder gives for each value of a pixel."""
        return 1

    @property
    def initial_global_params(self) -> tuple[float, ...]:
        """Where the numbers that all pixels share start."""
        return ()

    @property
    def trains_global_params(self) -> bool:
        """Whether the shared numbers are trained with the weights, or found by `fit`."""
        return True

    def mean(self, params: LikelihoodParams) -> Tensor:
        """The reconstruction x^ in [0, 1]: the mean image."""
        return params.pixels.sigmoid()

    def logits(self, params: LikelihoodParams) -> Tensor:
        """log x^ / (1 - x^): what cross entropy is measured with."""
        return torch.logit(self.mean(params), eps=1e-6)

    def fit(self, params: LikelihoodParams, x: Tensor) -> Tensor | None:
        """The shared numbers that suit these images best, where they are found and not learned."""
        del params, x
        return None

    def describe_fit(self, global_params: Tensor, kl_weight: float | None) -> str | None:
        """What the shared numbers came to, said when training ends."""
        del global_params
        return None


@dataclass(frozen=True)
class LogitOutput(DistortionBase):
    """The decoder's output read as one logit a value: x^ = sigmoid(logit)."""

    def logits(self, params: LikelihoodParams) -> Tensor:
        return params.pixels  # exact, since the network itself gives logits


@dataclass(frozen=True)
class LikelihoodBase(DistortionBase):
    """What likelihoods have: as a distortion each is -log p(x|z), whatever the KL weight."""

    support: ClassVar[Support] = "continuum"

    def log_prob(self, params: LikelihoodParams, x: Tensor) -> Tensor:
        """log p(x|z), with parameters for images x (*, C, H, W) -> (*), in nats per image."""
        raise NotImplementedError

    def __call__(self, params: LikelihoodParams, x: Tensor) -> Tensor:
        return -self.log_prob(params, x)

    def as_likelihood(self, kl_weight: float | None) -> Self:
        del kl_weight
        return self

    def explain(self, kl_weight: float | None, binary: bool) -> str:
        """What this loss stands for, said when training starts."""
        del binary
        weight = "" if kl_weight in (1, None) else f", trained with KL weight {kl_weight:g}"
        return f"{self.describe()}{weight}"

    def describe(self) -> str:
        raise NotImplementedError


@dataclass(frozen=True)
class CrossEntropy(LogitOutput):
    r"""-sum_i x_i log x^_i + (1 - x_i) log(1 - x^_i), in nats per image.

    The likelihood of binary pixels (Bernoulli). On grey pixels it is the textbook's loss and no likelihood:
    it does not normalise, and its smallest value is the entropy of the pixels, not 0.
    Source: Auto-Encoding Variational Bayes, appendix C.1, arXiv 1312.6114.
    """

    name: ClassVar[str] = "cross-entropy"
    short: ClassVar[tuple[str, ...]] = ("ce", "bernoulli")
    support: ClassVar[Support] = "binary"

    def __call__(self, params: LikelihoodParams, x: Tensor) -> Tensor:
        logits = params.pixels  # softplus(l) - x l is the formula above, without its overflow
        return sum_over_pixels(F.softplus(logits) - x * logits)

    def log_prob(self, params: LikelihoodParams, x: Tensor) -> Tensor:
        """The same, sooner: softplus(l) - x l = |l| / 2 + (1/2 - x) l - log sigmoid(|l|), one logarithm for eight l."""
        logits = params.pixels.flatten(-3)
        sizes = logits.abs()
        rest = torch.addcmul(-0.5 * sizes, logits, x.flatten(-3) - 0.5).sum(-1)
        sure = sizes.sigmoid_()  # 1/2 at least: eight of them can be multiplied
        if over := sure.shape[-1] % 8:
            sure = F.pad(sure, (0, 8 - over), value=1.0)
        return rest + sure.unflatten(-1, (8, -1)).prod(-2).log().sum(-1)

    def as_likelihood(self, kl_weight: float | None) -> CrossEntropy:
        del kl_weight  # the textbook figure is defined at weight 1
        return self

    def sample(self, params: LikelihoodParams, noise: Tensor) -> Tensor:
        return (torch.special.ndtr(noise) < self.mean(params)).to(noise.dtype)

    def explain(self, kl_weight: float | None, binary: bool) -> str:
        """What this loss stands for, said when training starts."""
        weight = "" if kl_weight in (1, None) else f", trained with KL weight {kl_weight:g}"
        if binary:
            return f"cross entropy is the Bernoulli likelihood of these binary pixels{weight}"
        return f"cross entropy on grey or coloured pixels is the textbook loss, not a likelihood of them{weight}"


@dataclass(frozen=True)
class SquaredError(LogitOutput):
    r"""sum_i (x_i - x^_i)^2, summed over the pixels of an image.

    With KL weight w > 0 it is, up to constants, w times the bound of the Gaussian likelihood of variance w / 2.
    """

    name: ClassVar[str] = "squared-error"
    short: ClassVar[tuple[str, ...]] = ("se",)

    def __call__(self, params: LikelihoodParams, x: Tensor) -> Tensor:
        return sum_over_pixels((self.mean(params) - x).square())

    def as_likelihood(self, kl_weight: float | None) -> Gaussian | None:
        return Gaussian(sigma=math.sqrt(kl_weight / 2)) if kl_weight else None

    def explain(self, kl_weight: float | None, binary: bool) -> str:
        del binary
        if kl_weight == 0:
            return "squared error with KL weight 0 is an autoencoder: no likelihood, no bound, no prior samples"
        if kl_weight is None:
            return "squared error without a constant KL weight stands for no likelihood: no bound is computed for it"
        sigma = math.sqrt(kl_weight / 2)
        return f"squared error with KL weight {kl_weight:g} is a Gaussian likelihood of standard deviation {sigma:.3g}"


@dataclass(frozen=True)
class CrossEntropyPlusSquaredError(LogitOutput):
    r"""A weighted sum of cross entropy and squared error: a distortion and no likelihood, so without any bound."""

    name: ClassVar[str] = "cross-entropy+squared-error"
    short: ClassVar[tuple[str, ...]] = ("ce+se",)
    cross_entropy: NonNegative = 1.0
    squared_error: NonNegative = 1.0

    def __call__(self, params: LikelihoodParams, x: Tensor) -> Tensor:
        return self.cross_entropy * CrossEntropy()(params, x) + self.squared_error * SquaredError()(params, x)

    def as_likelihood(self, kl_weight: float | None) -> None:
        del kl_weight

    def explain(self, kl_weight: float | None, binary: bool) -> str:
        del kl_weight, binary
        return "a sum of cross entropy and squared error is no likelihood: no bound is computed for it"


@dataclass(frozen=True)
class ContinuousBernoulli(LikelihoodBase, LogitOutput):
    r"""The Bernoulli's formula as a density on [0, 1]: p(x|l) = l e^(l x) / (e^l - 1), for the logit l of each value.

    log p = sum_i l_i x_i - l_i / 2 - log(sinh(l_i / 2) / (l_i / 2)). Its mean is 1 / (1 - e^-l) - 1 / l, and not
    sigmoid(l).
    Source: The continuous Bernoulli: fixing a pervasive error in variational autoencoders, arXiv 1907.06845.
    """

    name: ClassVar[str] = "continuous-bernoulli"
    short: ClassVar[tuple[str, ...]] = ("cb",)

    def mean(self, params: LikelihoodParams) -> Tensor:
        logits, large = where_not_near_zero(params.pixels)
        return torch.where(large, -1 / torch.expm1(-logits) - 1 / logits, 0.5 + params.pixels / 12)

    def logits(self, params: LikelihoodParams) -> Tensor:
        return DistortionBase.logits(self, params)

    def log_prob(self, params: LikelihoodParams, x: Tensor) -> Tensor:
        half, large = where_not_near_zero(params.pixels / 2)
        size = half.abs()
        log_sinh = size + torch.log1p(-torch.exp(-2 * size)) - math.log(2)
        log_ratio = torch.where(large, log_sinh - size.log(), (params.pixels / 2).square() / 6)
        return sum_over_pixels(params.pixels * (x - 0.5) - log_ratio)

    def sample(self, params: LikelihoodParams, noise: Tensor) -> Tensor:
        u = to_uniform(noise)
        logits, large = where_not_near_zero(params.pixels)
        return torch.where(large, torch.logaddexp(torch.log1p(-u), u.log() + logits) / logits, u)

    def describe(self) -> str:
        return "a continuous Bernoulli likelihood, a density of grey or coloured pixels"


def where_not_near_zero(values: Tensor) -> tuple[Tensor, Tensor]:
    """Values with those near 0 replaced by 1, and where they are not near 0: series stand in for 0 / 0 there."""
    large = values.abs() > 1e-2
    return torch.where(large, values, 1), large


class LocationScale(LikelihoodBase):
    """A density around a location, which is the first of the decoder's numbers, through a `link`."""

    link: Literal["sigmoid", "identity"]  # a field of those that are dataclasses below

    def location(self, params: LikelihoodParams) -> Tensor:
        raw = params.pixels.chunk(self.channels_per_value, dim=-3)[0]
        return raw.sigmoid() if self.link == "sigmoid" else raw

    def mean(self, params: LikelihoodParams) -> Tensor:
        return self.location(params)

    def logits(self, params: LikelihoodParams) -> Tensor:
        raw = params.pixels.chunk(self.channels_per_value, dim=-3)[0]
        return raw if self.link == "sigmoid" else torch.logit(raw, eps=1e-6)


INITIAL_LOG_SCALE = math.log(0.3)  # of a log scale: near the spread of raw pixels, so that the first steps are calm

MIN_LOG_SCALE = math.log(
    1 / 512
)  # half a level: a pixel is not known better, and a constant one would have infinite density


@dataclass(frozen=True)
class Gaussian(LocationScale):
    r"""The Gaussian likelihood around the reconstruction.

    -log p(x|z) = sum_i (x_i - x^_i)^2 / (2 sigma_i^2) + log sigma_i + 1/2 log 2 pi, in nats per image.

    `sigma` none: one standard deviation for all pixels, learned with the weights; a number: fixed; "optimal": one for
    all, in training the root mean square residual of the batch, which is where the loss is least, and afterwards that
    of the training images; "pixel": the decoder gives one for each value, never below half of one of the 256 levels.
    Calibrated in one of these ways, sigma weighs reconstruction against KL as the data ask for.
    Source: Simple and Effective VAE Training with Calibrated Decoders, arXiv 2006.13202.
    """

    name: ClassVar[str] = "gaussian"
    sigma: Positive | Literal["optimal", "pixel"] | None = None
    link: Literal["sigmoid", "identity"] = "sigmoid"

    @property
    def channels_per_value(self) -> int:
        return 2 if self.sigma == "pixel" else 1

    @property
    def initial_global_params(self) -> tuple[float, ...]:
        return (INITIAL_LOG_SCALE,) if self.sigma in (None, "optimal") else ()

    @property
    def trains_global_params(self) -> bool:
        return self.sigma is None

    def log_sigma(self, params: LikelihoodParams) -> Tensor:
        """The log standard deviation: one number, or one for each value."""
        if self.sigma == "pixel":
            return lower_bounded(params.pixels.chunk(2, dim=-3)[1], INITIAL_LOG_SCALE, MIN_LOG_SCALE)
        if self.sigma is None or self.sigma == "optimal":
            return params.global_params[0]
        return torch.full((), math.log(self.sigma), device=params.pixels.device)

    def log_prob(self, params: LikelihoodParams, x: Tensor) -> Tensor:
        log_sigma, square = self.log_sigma(params), (self.location(params) - x).square()
        if log_sigma.ndim:
            return -sum_over_pixels(0.5 * square * (-2 * log_sigma).exp() + log_sigma + 0.5 * math.log(2 * math.pi))
        constant = math.prod(x.shape[-3:]) * (log_sigma + 0.5 * math.log(2 * math.pi))
        return -0.5 * sum_over_pixels(square) * (-2 * log_sigma).exp() - constant

    def sample(self, params: LikelihoodParams, noise: Tensor) -> Tensor:
        return self.location(params) + self.log_sigma(params).exp() * noise

    def fit(self, params: LikelihoodParams, x: Tensor) -> Tensor | None:
        if self.sigma != "optimal":
            return None
        return 0.5 * (self.location(params) - x).square().mean().clamp(min=1e-12).log().view(1)

    def describe(self) -> str:
        if self.sigma == "pixel":
            return "a Gaussian likelihood, a standard deviation for each pixel value from the decoder"
        sigma = f"{self.sigma:g}" if isinstance(self.sigma, float) else "fitted" if self.sigma else "learned"
        return f"a Gaussian likelihood, one standard deviation for all pixels, {sigma}"

    def describe_fit(self, global_params: Tensor, kl_weight: float | None) -> str | None:
        if not len(global_params):
            return None
        sigma = global_params[0].exp().item()
        meant = f", as squared error with KL weight {2 * kl_weight * sigma**2:.3g} would mean" if kl_weight else ""
        return f"sigma settled at {sigma:.3g}{meant}; squared error with KL weight 1 means 0.707"


@dataclass(frozen=True)
class Laplace(LocationScale):
    r"""The Laplace likelihood: -log p(x|z) = sum_i |x_i - x^_i| / b + log 2 b, for one scale b: learned, or fixed.

    The reconstruction is its median and mean; it forgives single pixels that are far off.
    """

    name: ClassVar[str] = "laplace"
    scale: Positive | None = None
    link: Literal["sigmoid", "identity"] = "sigmoid"

    @property
    def initial_global_params(self) -> tuple[float, ...]:
        return (INITIAL_LOG_SCALE,) if self.scale is None else ()

    def log_scale(self, params: LikelihoodParams) -> Tensor:
        if self.scale is None:
            return params.global_params[0]
        return torch.full((), math.log(self.scale), device=params.pixels.device)

    def log_prob(self, params: LikelihoodParams, x: Tensor) -> Tensor:
        log_scale = self.log_scale(params)
        distance = sum_over_pixels((self.location(params) - x).abs())
        return -distance * (-log_scale).exp() - math.prod(x.shape[-3:]) * (log_scale + math.log(2))

    def sample(self, params: LikelihoodParams, noise: Tensor) -> Tensor:
        u = to_uniform(noise) - 0.5
        return self.location(params) - self.log_scale(params).exp() * u.sign() * torch.log1p(-2 * u.abs())

    def describe(self) -> str:
        scale = "learned" if self.scale is None else f"{self.scale:g}"
        return f"a Laplace likelihood, one scale for all pixels, {scale}"

    def describe_fit(self, global_params: Tensor, kl_weight: float | None) -> str | None:
        return f"the Laplace scale settled at {global_params[0].exp().item():.3g}" if len(global_params) else None


@dataclass(frozen=True)
class DiscretisedLogistic(LikelihoodBase):
    r"""A mixture of logistics over the 256 levels of a stored pixel value: a probability, so that bits are bits.

    P(k|z) = sum_c w_c [F((k + 1/2) / 255; m_c, s_c) - F((k - 1/2) / 255; m_c, s_c)], F the logistic distribution
    function, 0 below the first level and 1 above the last. The decoder gives location m and log scale of each of the
    `components`, and their weights where there are several; colour channels are independent given z.
    Sources: Improving Variational Inference with Inverse Autoregressive Flow, arXiv 1606.04934; PixelCNN++, arXiv
    1701.05517.
    """

    name: ClassVar[str] = "discretised-logistic"
    short: ClassVar[tuple[str, ...]] = ("logistic", "discretized-logistic")
    support: ClassVar[Support] = "levels"
    components: Count = 1

    @property
    def channels_per_value(self) -> int:
        return 2 if self.components == 1 else 3 * self.components

    def mixture(self, params: LikelihoodParams) -> tuple[Tensor, Tensor, Tensor]:
        """Log weights, locations and log scales, each (components, *, C, H, W)."""
        numbers = torch.stack(params.pixels.chunk(self.channels_per_value, dim=-3)).unflatten(0, (-1, self.components))
        places = torch.linspace(0, 1, self.components + 2, device=numbers.device, dtype=numbers.dtype)[1:-1]
        locations = 0.5 * numbers[0] + places.view(-1, *[1] * (numbers.ndim - 2))  # they start apart
        weights = numbers[2] if self.components > 1 else torch.zeros_like(locations)
        return weights.log_softmax(0), locations, lower_bounded(numbers[1], math.log(0.1), MIN_LOG_SCALE)

    def mean(self, params: LikelihoodParams) -> Tensor:
        weights, locations, log_scales = self.mixture(params)  # the integral of 1 - F from 0 to 1
        scales = log_scales.exp()
        inner = scales * (F.softplus(locations / scales) - F.softplus((locations - 1) / scales))
        return (weights.exp() * inner).sum(0)

    def log_prob(self, params: LikelihoodParams, x: Tensor) -> Tensor:
        weights, locations, log_scales = self.mixture(params)
        half, precision = 0.5 / (PIXEL_LEVELS - 1), (-log_scales).exp()
        above, below = (x + half - locations) * precision, (x - half - locations) * precision
        # F(a) - F(b) = F(a) F(-b) (1 - e^(b - a)): exact where a difference of the two would be all rounding
        inside = F.logsigmoid(above) + F.logsigmoid(-below) + torch.log(-torch.expm1(-2 * half * precision))
        lowest, highest = x < half, x > 1 - half
        log_probs = torch.where(lowest, F.logsigmoid(above), torch.where(highest, F.logsigmoid(-below), inside))
        return sum_over_pixels((weights + log_probs).logsumexp(0))

    def sample(self, params: LikelihoodParams, noise: Tensor) -> Tensor:
        weights, locations, log_scales = self.mixture(params)
        below, u = torch.zeros_like(noise), to_uniform(noise)
        for level in range(
            PIXEL_LEVELS - 1
        ):  # the level is the number of levels whose distribution function is below u
            edge = ((level + 0.5) / (PIXEL_LEVELS - 1) - locations) * (-log_scales).exp()
            below += (weights.exp() * edge.sigmoid()).sum(0) < u
        return below / (PIXEL_LEVELS - 1)

    def describe(self) -> str:
        kind = "a logistic" if self.components == 1 else f"a mixture of {self.components} logistics"
        return f"{kind} over the 256 levels of each pixel value"


Distortion = (
    CrossEntropy
    | SquaredError
    | CrossEntropyPlusSquaredError
    | ContinuousBernoulli
    | Gaussian
    | Laplace
    | DiscretisedLogistic
)

Likelihood = CrossEntropy | ContinuousBernoulli | Gaussian | Laplace | DiscretisedLogistic
