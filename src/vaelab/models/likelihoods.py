r"""Distortions and likelihoods: what the decoder's output means, and how far it is from the image.

A *distortion* maps the decoder's output and an image to one number: d(params, x), in nats or squared pixel units,
summed over the pixels. A *likelihood* is a distortion -log p(x|z) whose density p is normalised. Only a likelihood has
an evidence bound. Training a distortion d with a KL weight w minimises

    d + w KL = w (d / w + KL),

which is the bound of the likelihood proportional to exp(-d / w), where this can be normalised. For the squared error
it is the Gaussian of variance w / 2. Where an objective has no constant KL weight, w is None.

The decoder gives `channels_per_value` numbers for each value of a pixel. `LikelihoodParams` holds them, together with
the few numbers that all pixels share. Densities are computed in float32, also where the network runs in bfloat16.

`support` says what a likelihood is a distribution of: "binary" pixels, the 256 "levels" of a stored pixel value, or
the "continuum" around [0, 1]. Bits per dimension put the last two on one scale.

A new distortion or likelihood is one class in any module of this package, derived from `Distortion` or `Likelihood`,
with a `name` of its own.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple, Self

import torch
from torch import Tensor
from torch.nn import functional as F

from vaelab.core.codec import changed_settings
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

PIXEL_LEVELS = 256  # values of a stored pixel

# Where a log scale starts: near the spread of raw pixels, so that the first steps are calm.
INITIAL_LOG_SCALE = math.log(0.3)

# Half a level. No pixel is known better, and without this bound a constant pixel would have an infinite density.
MIN_LOG_SCALE = math.log(1 / 512)


class LikelihoodParams(NamedTuple):
    """The decoder's output.

    Attributes:
        pixels: The numbers of each pixel value, (*, channels_per_value * C, H, W).
        global_params: The numbers that all pixels share, (n,), trained with the weights or fitted.
    """

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
    """A log scale that is `start` where the network gives 0, grows with its output and stays above `floor`."""
    return floor + F.softplus(raw + start - floor)


def where_not_near_zero(values: Tensor) -> tuple[Tensor, Tensor]:
    """The values with those near 0 replaced by 1, and a mask of the others; near 0, a series replaces 0 / 0."""
    large = values.abs() > 1e-2
    return torch.where(large, values, 1), large


def solve_increasing(function: Callable[[Tensor], Tensor], values: Tensor) -> Tensor:
    """The arguments at which an increasing function has some values, each between -1000 and 1000, by bisection."""
    low, high = torch.full_like(values, -1000), torch.full_like(values, 1000)
    for _ in range(40):
        middle = (low + high) / 2
        below = function(middle) < values
        low, high = torch.where(below, middle, low), torch.where(below, high, middle)
    return (low + high) / 2


@dataclass(frozen=True)
class Distortion:
    """The base class of all distortions, each a frozen dataclass with a `name`.

    A distortion defines `__call__`, `as_likelihood` and `explain`. The defaults here are those of a decoder that gives
    one logit for each pixel value, x^ = sigmoid(logit), and has no shared numbers.
    """

    name: ClassVar[str]

    @property
    def title(self) -> str:
        """The distortion as a part of a title.

        Example:
            >>> SquaredError().title, Gaussian(sigma=0.1).title
            ('squared error', 'Gaussian likelihood, sigma = 0.1')
        """
        return ", ".join([self.name.replace("-", " ").replace("+", " + "), *changed_settings(self)])

    @property
    def channels_per_value(self) -> int:
        """How many numbers the decoder gives for each value of a pixel."""
        return 1

    @property
    def initial_global_params(self) -> tuple[float, ...]:
        """The initial values of the numbers that all pixels share."""
        return ()

    @property
    def trains_global_params(self) -> bool:
        """Whether the shared numbers are trained with the weights, or found by `fit`."""
        return True

    def __call__(self, params: LikelihoodParams, x: Tensor) -> Tensor:
        """The distortion of each image.

        Args:
            params: The decoder's output, with pixels (*, channels_per_value * C, H, W).
            x: Images in [0, 1], (B, C, H, W).

        Returns:
            One number for each image, with shape (*).
        """
        raise NotImplementedError

    def as_likelihood(self, kl_weight: float | None) -> Likelihood | None:
        """The likelihood that this distortion stands for when it is trained with a KL weight, if there is one."""
        raise NotImplementedError

    def explain(self, kl_weight: float | None, binary: bool) -> str:
        """One sentence on what this loss stands for, printed when training starts.

        Args:
            kl_weight: The KL weight at the end of training; None where the objective has no constant one.
            binary: Whether the pixels are black or white.
        """
        raise NotImplementedError

    def mean(self, params: LikelihoodParams) -> Tensor:
        """The reconstruction x^ in [0, 1]: the mean image, (*, C, H, W)."""
        return params.pixels.sigmoid()

    def logits(self, params: LikelihoodParams) -> Tensor:
        """log x^ / (1 - x^), which cross entropy is computed from, (*, C, H, W)."""
        return torch.logit(self.mean(params), eps=1e-6)

    def output_with_mean(self, mean: Tensor) -> Tensor:
        """The decoder's output for which `mean` is the mean image: where an output bias starts.

        Args:
            mean: An image between 0 and 1, both excluded, (C, H, W).

        Returns:
            The numbers of each pixel value, (channels_per_value * C, H, W); scales and weights are at their start.
        """
        return torch.logit(mean)

    def fit(self, params: LikelihoodParams, x: Tensor) -> Tensor | None:
        """The shared numbers that suit these images best, where they are fitted and not trained."""
        del params, x
        return None

    def describe_fit(self, global_params: Tensor, kl_weight: float | None) -> str | None:
        """One sentence on the final values of the shared numbers, printed when training ends."""
        del global_params
        return None


@dataclass(frozen=True)
class LogitOutput(Distortion):
    """The decoder's output read as one logit for each value: x^ = sigmoid(logit)."""

    def logits(self, params: LikelihoodParams) -> Tensor:
        return params.pixels  # exact, since the network itself gives logits


@dataclass(frozen=True)
class Likelihood(Distortion):
    """The base class of all likelihoods: as a distortion each is -log p(x|z), for every KL weight.

    A likelihood defines `log_prob`, `sample` and `describe`, and `mean` where it is not the sigmoid of the output.
    """

    support: ClassVar[Support] = "continuum"

    @property
    def title(self) -> str:
        """The likelihood as a part of a title."""
        words = self.name.replace("-", " ").replace("bernoulli", "Bernoulli")
        return ", ".join([f"{words[0].upper()}{words[1:]} likelihood", *changed_settings(self)])

    def log_prob(self, params: LikelihoodParams, x: Tensor) -> Tensor:
        """log p(x|z) in nats for each image.

        Args:
            params: The decoder's output, with pixels (*, channels_per_value * C, H, W).
            x: Images in [0, 1], (B, C, H, W).

        Returns:
            The log density, summed over pixels, with shape (*).
        """
        raise NotImplementedError

    def sample(self, params: LikelihoodParams, noise: Tensor) -> Tensor:
        """Images from p(x|z), (*, C, H, W), as a function of standard normal noise of that shape."""
        raise NotImplementedError

    def describe(self) -> str:
        """The likelihood in words, as a part of a sentence."""
        raise NotImplementedError

    def __call__(self, params: LikelihoodParams, x: Tensor) -> Tensor:
        return -self.log_prob(params, x)

    def as_likelihood(self, kl_weight: float | None) -> Self:
        del kl_weight
        return self

    def explain(self, kl_weight: float | None, binary: bool) -> str:
        del binary
        return f"{self.describe()}{weight_suffix(kl_weight)}"


def weight_suffix(kl_weight: float | None) -> str:
    """The KL weight as the end of a sentence, where it is a constant other than 1."""
    return "" if kl_weight in (1, None) else f", trained with KL weight {kl_weight:g}"


@dataclass(frozen=True)
class CrossEntropy(Likelihood, LogitOutput):
    r"""Cross entropy, the likelihood of binary pixels (Bernoulli), in nats per image.

        d = -sum_i x_i log x^_i + (1 - x_i) log(1 - x^_i)

    On grey pixels it is the textbook's loss, but no likelihood: it is not normalised, and its smallest value is the
    entropy of the pixels and not 0.

    Source: Auto-Encoding Variational Bayes, appendix C.1, arXiv 1312.6114.

    Example:
        >>> white, black = torch.ones(1, 1, 2, 2), torch.zeros(1, 1, 2, 2)
        >>> undecided = LikelihoodParams(black, torch.empty(0))  # a logit of 0 for each of 4 pixels
        >>> CrossEntropy()(undecided, white)  # 4 log 2
        tensor([2.7726])
    """

    name: ClassVar[str] = "cross-entropy"
    short: ClassVar[tuple[str, ...]] = ("ce", "bernoulli")
    support: ClassVar[Support] = "binary"

    @property
    def title(self) -> str:
        return "cross entropy"

    def __call__(self, params: LikelihoodParams, x: Tensor) -> Tensor:
        logits = params.pixels
        # softplus(l) - x l is the formula above, without its overflow.
        return sum_over_pixels(F.softplus(logits) - x * logits)

    def log_prob(self, params: LikelihoodParams, x: Tensor) -> Tensor:
        """The same, faster: softplus(l) - x l = |l| / 2 + (1/2 - x) l - log sigmoid(|l|), one log for eight logits."""
        logits = params.pixels.flatten(-3)
        magnitudes = logits.abs()
        linear_part = torch.addcmul(-0.5 * magnitudes, logits, x.flatten(-3) - 0.5).sum(-1)
        probabilities = magnitudes.sigmoid_()  # all at least 1/2, so the product of eight does not underflow
        if remainder := probabilities.shape[-1] % 8:
            probabilities = F.pad(probabilities, (0, 8 - remainder), value=1.0)
        products = probabilities.unflatten(-1, (8, -1)).prod(-2)
        return linear_part + products.log().sum(-1)

    def sample(self, params: LikelihoodParams, noise: Tensor) -> Tensor:
        return (torch.special.ndtr(noise) < self.mean(params)).to(noise.dtype)

    def explain(self, kl_weight: float | None, binary: bool) -> str:
        if binary:
            return f"cross entropy is the Bernoulli likelihood of these binary pixels{weight_suffix(kl_weight)}"
        text = "cross entropy on grey or coloured pixels is the textbook loss, not a likelihood of them"
        return f"{text}{weight_suffix(kl_weight)}"

    def describe(self) -> str:
        return "a Bernoulli likelihood of binary pixels"


@dataclass(frozen=True)
class SquaredError(LogitOutput):
    r"""The squared error, summed over the pixels of an image.

        d = sum_i (x_i - x^_i)^2

    With KL weight w > 0 it is, up to constants, w times the bound of the Gaussian likelihood of variance w / 2.

    Example:
        >>> white, logits = torch.ones(1, 1, 2, 2), torch.zeros(1, 1, 2, 2)
        >>> SquaredError()(LikelihoodParams(logits, torch.empty(0)), white)  # 4 times (1 - 0.5)^2
        tensor([1.])
        >>> SquaredError().as_likelihood(kl_weight=0.5)
        Gaussian(sigma=0.5, link='sigmoid')
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
    r"""A weighted sum of cross entropy and squared error: a distortion and no likelihood, so without any bound.

    Args:
        cross_entropy: The weight of the cross entropy.
        squared_error: The weight of the squared error.
    """

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
class ContinuousBernoulli(Likelihood, LogitOutput):
    r"""The Bernoulli's formula as a density on [0, 1], with a logit l for each value.

        p(x|l) = l e^(l x) / (e^l - 1)
        log p = sum_i l_i x_i - l_i / 2 - log(sinh(l_i / 2) / (l_i / 2))

    Its mean is 1 / (1 - e^-l) - 1 / l, and not sigmoid(l).

    Source: The continuous Bernoulli: fixing a pervasive error in variational autoencoders, arXiv 1907.06845.

    Example:
        >>> uniform = LikelihoodParams(torch.zeros(1, 1, 1, 1), torch.empty(0))  # a logit of 0
        >>> ContinuousBernoulli().mean(uniform).item()
        0.5
    """

    name: ClassVar[str] = "continuous-bernoulli"
    short: ClassVar[tuple[str, ...]] = ("cb",)

    def mean(self, params: LikelihoodParams) -> Tensor:
        logits, large = where_not_near_zero(params.pixels)
        return torch.where(large, -1 / torch.expm1(-logits) - 1 / logits, 0.5 + params.pixels / 12)

    def logits(self, params: LikelihoodParams) -> Tensor:
        return Distortion.logits(self, params)

    def output_with_mean(self, mean: Tensor) -> Tensor:
        return solve_increasing(lambda logits: self.mean(LikelihoodParams(logits, logits.new_empty(0))), mean)

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


class LocationScale(Likelihood):
    """A density around a location: the first of the decoder's numbers, through a `link` function."""

    link: Literal["sigmoid", "identity"]  # a field of the dataclasses below

    def location(self, params: LikelihoodParams) -> Tensor:
        """The location of each pixel value, (*, C, H, W)."""
        raw = params.pixels.chunk(self.channels_per_value, dim=-3)[0]
        return raw.sigmoid() if self.link == "sigmoid" else raw

    def mean(self, params: LikelihoodParams) -> Tensor:
        return self.location(params)

    def output_with_mean(self, mean: Tensor) -> Tensor:
        location = torch.logit(mean) if self.link == "sigmoid" else mean
        others = torch.zeros_like(mean).repeat(self.channels_per_value - 1, 1, 1)
        return torch.cat([location, others])

    def logits(self, params: LikelihoodParams) -> Tensor:
        raw = params.pixels.chunk(self.channels_per_value, dim=-3)[0]
        return raw if self.link == "sigmoid" else torch.logit(raw, eps=1e-6)


@dataclass(frozen=True)
class Gaussian(LocationScale):
    r"""The Gaussian likelihood around the reconstruction.

        -log p(x|z) = sum_i (x_i - x^_i)^2 / (2 sigma_i^2) + log sigma_i + 1/2 log 2 pi, in nats per image

    A calibrated sigma (None, "optimal" or "pixel") weighs reconstruction against KL as the data ask for.

    Source: Simple and Effective VAE Training with Calibrated Decoders, arXiv 2006.13202.

    Args:
        sigma: The standard deviation, on the scale of pixels in [0, 1]. A number: fixed. None: one for all pixels,
            trained with the weights. "optimal": one for all pixels; in training the root mean square residual of the
            batch, where the loss is smallest, and afterwards that of the training images. "pixel": the decoder gives
            one for each value, never below half of one of the 256 levels.
        link: How the location comes from the decoder's output: "sigmoid", or "identity" for the output itself.

    Example:
        >>> gaussian = Gaussian(sigma=1.0, link="identity")
        >>> params = LikelihoodParams(torch.zeros(1, 1, 2, 2), torch.empty(0))
        >>> gaussian.log_prob(params, torch.zeros(1, 1, 2, 2))  # -1/2 log 2 pi for each of 4 pixels
        tensor([-3.6758])
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
        """The log standard deviation: a scalar, or one for each pixel value."""
        if self.sigma == "pixel":
            return lower_bounded(params.pixels.chunk(2, dim=-3)[1], INITIAL_LOG_SCALE, MIN_LOG_SCALE)
        if self.sigma is None or self.sigma == "optimal":
            return params.global_params[0]
        return torch.full((), math.log(self.sigma), device=params.pixels.device)

    def log_prob(self, params: LikelihoodParams, x: Tensor) -> Tensor:
        log_sigma = self.log_sigma(params)
        square = (self.location(params) - x).square()
        if log_sigma.ndim:
            return -sum_over_pixels(0.5 * square * (-2 * log_sigma).exp() + log_sigma + 0.5 * math.log(2 * math.pi))
        constant = math.prod(x.shape[-3:]) * (log_sigma + 0.5 * math.log(2 * math.pi))
        return -0.5 * sum_over_pixels(square) * (-2 * log_sigma).exp() - constant

    def sample(self, params: LikelihoodParams, noise: Tensor) -> Tensor:
        return self.location(params) + self.log_sigma(params).exp() * noise

    def fit(self, params: LikelihoodParams, x: Tensor) -> Tensor | None:
        if self.sigma != "optimal":
            return None
        mean_square = (self.location(params) - x).square().mean()
        return 0.5 * mean_square.clamp(min=1e-12).log().view(1)

    def describe(self) -> str:
        if self.sigma == "pixel":
            return "a Gaussian likelihood, a standard deviation for each pixel value from the decoder"
        text = "a Gaussian likelihood, one standard deviation for all pixels"
        if self.sigma is None:
            return f"{text}, learned"
        if self.sigma == "optimal":
            return f"{text}, fitted"
        return f"{text}, {self.sigma:g}"

    def describe_fit(self, global_params: Tensor, kl_weight: float | None) -> str | None:
        if not len(global_params):
            return None
        sigma = global_params[0].exp().item()
        text = f"sigma settled at {sigma:.3g}"
        if kl_weight:
            text += f", as squared error with KL weight {2 * kl_weight * sigma**2:.3g} would mean"
        return f"{text}; squared error with KL weight 1 means 0.707"


@dataclass(frozen=True)
class Laplace(LocationScale):
    r"""The Laplace likelihood: -log p(x|z) = sum_i |x_i - x^_i| / b + log 2 b, with one scale b for all pixels.

    The reconstruction is its median and its mean. Single pixels that are far off cost less than with a Gaussian.

    Args:
        scale: The scale b, on the scale of pixels in [0, 1]. A number: fixed. None: trained with the weights.
        link: How the location comes from the decoder's output: "sigmoid", or "identity" for the output itself.

    Example:
        >>> params = LikelihoodParams(torch.zeros(1, 1, 2, 2), torch.empty(0))
        >>> Laplace(scale=1.0, link="identity").log_prob(params, torch.zeros(1, 1, 2, 2))  # -log 2 for each of 4 pixels
        tensor([-2.7726])
    """

    name: ClassVar[str] = "laplace"
    scale: Positive | None = None
    link: Literal["sigmoid", "identity"] = "sigmoid"

    @property
    def initial_global_params(self) -> tuple[float, ...]:
        return (INITIAL_LOG_SCALE,) if self.scale is None else ()

    def log_scale(self, params: LikelihoodParams) -> Tensor:
        """The log of the scale b, a scalar."""
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
        if not len(global_params):
            return None
        return f"the Laplace scale settled at {global_params[0].exp().item():.3g}"


@dataclass(frozen=True)
class DiscretisedLogistic(Likelihood):
    r"""A mixture of logistics over the 256 levels of a stored pixel value.

        P(k|z) = sum_c w_c [F((k + 1/2) / 255; m_c, s_c) - F((k - 1/2) / 255; m_c, s_c)]

    F is the logistic distribution function, taken as 0 below the first level and as 1 above the last. The decoder gives
    the location m and the log scale of each component, and their weights where there are several. Colour channels are
    independent given z. P is a probability, so that bits per dimension need no dequantisation.

    Sources: Improving Variational Inference with Inverse Autoregressive Flow, arXiv 1606.04934; PixelCNN++, arXiv
    1701.05517.

    Args:
        components: How many logistics are mixed.

    Example:
        >>> levels = torch.arange(256).view(256, 1, 1, 1) / 255  # every value of one pixel
        >>> params = LikelihoodParams(torch.zeros(256, 2, 1, 1), torch.empty(0))
        >>> round(DiscretisedLogistic().log_prob(params, levels).exp().sum().item(), 4)
        1.0
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
        centres = torch.linspace(0, 1, self.components + 2, device=numbers.device, dtype=numbers.dtype)[1:-1]
        # The components start at different places, or they would all learn the same.
        locations = 0.5 * numbers[0] + centres.view(-1, *[1] * (numbers.ndim - 2))
        weights = numbers[2] if self.components > 1 else torch.zeros_like(locations)
        return weights.log_softmax(0), locations, lower_bounded(numbers[1], math.log(0.1), MIN_LOG_SCALE)

    def mean(self, params: LikelihoodParams) -> Tensor:
        weights, locations, log_scales = self.mixture(params)
        scales = log_scales.exp()
        # The mean of each component is the integral of 1 - F from 0 to 1.
        means = scales * (F.softplus(locations / scales) - F.softplus((locations - 1) / scales))
        return (weights.exp() * means).sum(0)

    def output_with_mean(self, mean: Tensor) -> Tensor:
        def output(location: Tensor) -> Tensor:
            others = torch.zeros_like(mean).repeat(self.channels_per_value - self.components, 1, 1)
            return torch.cat([location.repeat(self.components, 1, 1), others])

        def mean_at(location: Tensor) -> Tensor:
            return self.mean(LikelihoodParams(output(location), mean.new_empty(0)))

        return output(solve_increasing(mean_at, mean))

    def log_prob(self, params: LikelihoodParams, x: Tensor) -> Tensor:
        weights, locations, log_scales = self.mixture(params)
        half = 0.5 / (PIXEL_LEVELS - 1)
        precision = (-log_scales).exp()
        above = (x + half - locations) * precision
        below = (x - half - locations) * precision
        # F(a) - F(b) = F(a) F(-b) (1 - e^(b - a)), exact where the difference of the two would be all rounding.
        inside = F.logsigmoid(above) + F.logsigmoid(-below) + torch.log(-torch.expm1(-2 * half * precision))
        inside_or_last = torch.where(x > 1 - half, F.logsigmoid(-below), inside)
        log_probs = torch.where(x < half, F.logsigmoid(above), inside_or_last)
        return sum_over_pixels((weights + log_probs).logsumexp(0))

    def sample(self, params: LikelihoodParams, noise: Tensor) -> Tensor:
        weights, locations, log_scales = self.mixture(params)
        u = to_uniform(noise)
        level = torch.zeros_like(noise)
        # The level is the number of levels whose distribution function is below u.
        for k in range(PIXEL_LEVELS - 1):
            distance = ((k + 0.5) / (PIXEL_LEVELS - 1) - locations) * (-log_scales).exp()
            level += (weights.exp() * distance.sigmoid()).sum(0) < u
        return level / (PIXEL_LEVELS - 1)

    def describe(self) -> str:
        kind = "a logistic" if self.components == 1 else f"a mixture of {self.components} logistics"
        return f"{kind} over the 256 levels of each pixel value"
