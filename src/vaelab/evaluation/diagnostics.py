r"""The doctor: what ails a model, the number that shows it, and one command to try.

    alarm   the model is sick: numbers and pictures of it mislead, or the training was in vain
    note    nothing is wrong, but a number is easily read as something else, or there is something to gain
    well    looked at, and nothing found
    open    cannot be said of this run

A check is a function of a `Case` that gives a `Finding`; `CHECKS` lists them, `WATCHED` those that need the history
alone and are made while training goes on. `benchmarks/doctor.py` makes each sickness on purpose, and healthy runs;
docs/doctor.md tells what was found in them.
"""

from __future__ import annotations

import math
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
import torch

from vaelab.datasets.images import Images, is_binary
from vaelab.evaluation.metrics import active_units, batches, likelihood_of
from vaelab.models.densities import Normal
from vaelab.models.likelihoods import CrossEntropy, Gaussian
from vaelab.models.priors import PriorDensity
from vaelab.models.vae import LOGVAR_BOUNDS, VAE
from vaelab.runs.spec import Spec, to_argv, updated

__all__ = ["CHECKS", "Diagnosis", "LatentStats", "RunContext", "compute_latent_stats", "diagnose", "new_alarms"]

MAX_IMAGES = 2000  # images, at most

COLLAPSE_KL = 0.5  # nats of KL below which codes tell nothing

HIGH_LEARNING_RATE = 2e-3  # learning rate above which a collapse is first of all put down to it

MAX_DEAD_SHARE = 0.5  # share of latent dimensions that are not in use

MAX_SIGMA_RATIO = 2.0  # ratio of sigma and residual, or its inverse

MAX_LOGVAR = 5.0  # log-variance of a posterior: sigma is 12 where the prior has 1

IMAGE_GROUPS = 10  # of images, for the error of a number

IMAGES_PER_DIMENSION = 8  # images for each latent dimension, before their covariance is trusted

MAX_GAP_SHARE = 0.2  # of the rate, lost between the codes and the prior

MAX_VALIDATION_RISE = 0.05  # of the loss's fall, by which the validation loss rose again

MAX_ROUGHNESS = 0.2  # of its fall, by which the training loss went up in the second half

MAX_FINAL_SLOPE = 0.6  # of a steady fall: how steeply the training loss still falls at the end

MIN_EPOCHS = 5  # of history that can be judged


class Diagnosis(NamedTuple):
    """What one check found: the ailment, how it stands, the number that shows it, what it means, and what to try."""

    ailment: str
    state: Literal["alarm", "note", "well", "open"]
    number: str
    meaning: str = ""
    remedy: str = ""


class LatentStats(NamedTuple):
    """What was seen of a model on images: of the KL, of the codes, of the residuals."""

    kl: float  # nats per image
    active_units: int  # dimensions whose mean varies
    logvar_range: tuple[float, float]  # the least and the greatest log-variance of a posterior
    aggregate_gap: tuple[
        float, float
    ]  # nats, KL of the Gaussian with the moments of all codes from the prior, and its error
    residual_rms: float  # root mean square of x - x^, from posterior samples
    is_binary: bool  # whether the pixels are black or white


@dataclass(frozen=True)
class RunContext:
    """A run to be looked at: its spec and rows of history, the model and what was seen of it where there is a model."""

    spec: Spec
    history: Sequence[dict[str, Any]]
    model: VAE | None = None
    latent_stats: LatentStats | None = None

    @property
    def collapsed(self) -> bool:
        """Whether the last row of history has no KL to speak of."""
        return bool(self.kl_weight != 0 and self.history and self.history[-1]["train"]["kl"] < COLLAPSE_KL)

    @property
    def kl_weight(self) -> float | None:
        return self.spec.objective.effective_kl_weight(self.model.shape if self.model else (1, 1, 1))

    def loss_curve(self, split: str) -> np.ndarray:
        """The loss of each epoch."""
        return np.array([row[split]["loss"] for row in self.history if row[split]])

    def retrain_command(self, **changes: object) -> str:
        """The command that trains as before but for some changes; for longer, where these change nothing."""
        changed = updated(self.spec, changes)
        if changed == self.spec:
            changed = updated(self.spec, {"epochs": 3 * self.spec.epochs})
        return shlex.join(["vaelab", "train", *to_argv(changed)])

    def unit_weight_command(self) -> str:
        """The command that trains with a learned sigma and, where there is such a weight, the KL at weight 1."""
        return self.retrain_command(loss="gaussian", **({} if self.kl_weight in (1, None) else {"objective": "beta"}))


@torch.no_grad()
def compute_latent_stats(model: VAE, images: Images) -> LatentStats:
    """What is to be seen of a model on some images."""
    images = images.evenly_spaced(MAX_IMAGES)
    means, logvars, rates, square = [], [], [], 0.0
    for batch in batches(model, images):
        draw = model(batch.x, batch.noise)
        square += (model.distortion.mean(draw.params) - batch.x).double().square().mean((1, 2, 3)).sum().item()
        for parts, part in zip((means, logvars), draw.q, strict=True):
            parts.append(part.double().cpu())
        posterior = Normal(draw.q.mean.double(), draw.q.logvar.double())
        rates.append(model.prior.kl(posterior, draw.z.double()).cpu())
    mean, logvar = torch.cat(means), torch.cat(logvars)
    kl = torch.cat(rates).mean().item()
    extremes, residual = (logvar.min().item(), logvar.max().item()), math.sqrt(square / len(images))
    hole = moment_matched_kl(mean, logvar, model.prior)
    return LatentStats(kl, active_units(mean), extremes, hole, residual, is_binary(images))


def moment_matched_kl(mean: torch.Tensor, logvar: torch.Tensor, prior: PriorDensity) -> tuple[float, float]:
    """KL(N(m, S) || p(z)) for the moments of the mixture of posteriors (N, D), and its standard error.

    Roughly a lower bound of KL(q(z) || p(z)). Both by the jackknife over groups of images, which takes off what few
    images alone would show.
    """
    count, dim = mean.shape
    if count < IMAGES_PER_DIMENSION * max(dim, IMAGE_GROUPS):
        return math.nan, math.nan

    def divergence(kept: torch.Tensor) -> float:
        some = mean[kept]
        covariance = torch.cov(some.T, correction=0).view(dim, dim) + logvar[kept].exp().mean(0).diag()
        kl = prior.kl_of_moments(some.mean(0), covariance)
        return math.nan if kl is None else kl.item()

    group = torch.arange(count) % IMAGE_GROUPS
    whole, rest = divergence(group >= 0), np.array([divergence(group != g) for g in range(IMAGE_GROUPS)])
    found = whole - (IMAGE_GROUPS - 1) * (rest.mean() - whole)
    return max(float(found), 0.0), float(np.sqrt((IMAGE_GROUPS - 1) * rest.var()))


def diagnose(context: RunContext) -> list[Diagnosis]:
    """Every check, in order."""
    return [check(context) for check in CHECKS]


def new_alarms(spec: Spec, history: Sequence[dict[str, Any]]) -> list[Diagnosis]:
    """The alarms that the last row of history brings, and that were not there before it."""
    alarms = [
        [f for f in (check(RunContext(spec, part)) for check in TRAINING_CHECKS) if f.state == "alarm"]
        for part in (history[:-1], history)
    ]
    before = {finding.ailment for finding in alarms[0]}
    return [finding for finding in alarms[1] if finding.ailment not in before]


# The checks.


def check_collapse(context: RunContext) -> Diagnosis:
    name = "posterior collapse"
    if context.kl_weight == 0:
        return Diagnosis(name, "open", "KL weight 0: nothing draws the posterior to the prior")
    if context.latent_stats is None and len(context.history) < MIN_EPOCHS:
        return Diagnosis(name, "open", "too early to say")
    kl = context.latent_stats.kl if context.latent_stats else context.history[-1]["train"]["kl"]
    active = (
        f", {context.latent_stats.active_units} of {context.spec.latent_dim} dimensions active"
        if context.latent_stats
        else ""
    )
    number = f"KL {kl:.3g} nats{active}"
    if kl >= COLLAPSE_KL and (context.latent_stats is None or context.latent_stats.active_units):
        return Diagnosis(name, "well", number)
    if (context.kl_weight or 0) > 1:
        remedy = context.retrain_command(objective="beta")
    elif context.spec.lr > HIGH_LEARNING_RATE:
        remedy = context.retrain_command(lr=HIGH_LEARNING_RATE / 2, lr_warmup=0.1)
    else:
        remedy = context.retrain_command(loss="gaussian", objective="beta:warmup=0.3,free_bits=0.1")
    return Diagnosis(
        name, "alarm", number, "codes tell nothing of their images: each reconstruction is the mean", remedy
    )


def check_dead_dimensions(context: RunContext) -> Diagnosis:
    name = "dead dimensions"
    if context.latent_stats is None or context.kl_weight == 0:
        return Diagnosis(name, "open", "nothing draws unused dimensions to the prior")
    active, all_of_them = context.latent_stats.active_units, context.spec.latent_dim
    number = f"{all_of_them - active} of {all_of_them} dimensions are not in use"
    if all_of_them - active <= MAX_DEAD_SHARE * all_of_them:
        return Diagnosis(name, "well", number)
    return Diagnosis(
        name,
        "note",
        number,
        "they cost time and nothing else; free bits or a warm-up may wake some",
        context.retrain_command(latent_dim=max(2, 2 * active)),
    )


def check_sigma(context: RunContext) -> Diagnosis:
    name = "sigma far from the residual"
    likelihood = likelihood_of(context.model, context.spec.objective) if context.model else None
    if (
        context.model is None
        or context.latent_stats is None
        or not isinstance(likelihood, Gaussian)
        or likelihood.sigma == "pixel"
    ):
        return Diagnosis(name, "open", "the loss has no such sigma")
    found = likelihood.sigma if isinstance(likelihood.sigma, float) else context.model.shared[0].exp().item()
    ratio = found / max(context.latent_stats.residual_rms, 1e-6)
    number = f"sigma {found:.3g}, residual {context.latent_stats.residual_rms:.3g}, ratio {ratio:.3g}"
    if 1 / MAX_SIGMA_RATIO <= ratio <= MAX_SIGMA_RATIO:
        return Diagnosis(name, "well", number)
    blurred = "the KL is weighed too much, and reconstructions are blurred"
    meaning = blurred if ratio > 1 else "the KL hardly counts, and prior samples will be poor"
    return Diagnosis(name, "alarm", number, meaning, context.unit_weight_command())


def check_grey_cross_entropy(context: RunContext) -> Diagnosis:
    name = "cross entropy read as likelihood"
    if context.latent_stats is None or not isinstance(context.spec.loss, CrossEntropy):
        return Diagnosis(name, "open", "the loss is another")
    if context.latent_stats.is_binary:
        return Diagnosis(name, "well", "the pixels are black or white")
    return Diagnosis(
        name,
        "note",
        "the pixels are grey or coloured",
        "negative_elbo is then the textbook's figure, to compare with itself on the same data and no other",
        context.retrain_command(loss="discretised-logistic:components=5"),
    )


def check_log_variance(context: RunContext) -> Diagnosis:
    name = "exploding log-variance"
    if context.latent_stats is None:
        return Diagnosis(name, "open", "not looked at")
    least, most = context.latent_stats.logvar_range
    number = f"from {least:.3g} to {most:.3g}"
    if LOGVAR_BOUNDS[0] + 1e-3 < least and most < MAX_LOGVAR:
        return Diagnosis(name, "well", number)
    if most < MAX_LOGVAR and context.kl_weight == 0:
        return Diagnosis(
            name,
            "note",
            number,
            "with KL weight 0 the posterior shrinks to a point, as far as it is let",
            context.retrain_command(objective="beta"),
        )
    return Diagnosis(
        name,
        "alarm",
        number,
        f"it should be far from {LOGVAR_BOUNDS[0]:g} and {LOGVAR_BOUNDS[1]:g}, where it is held",
        context.retrain_command(lr=context.spec.lr / 5, clip=100, lr_warmup=0.1),
    )


def check_prior_hole(context: RunContext) -> Diagnosis:
    name = "prior hole"
    if context.latent_stats is None or context.kl_weight == 0:
        return Diagnosis(name, "open", "KL weight 0: the prior was never meant")
    if context.latent_stats.kl < COLLAPSE_KL:
        return Diagnosis(name, "open", "the posterior has collapsed")
    hole, error = context.latent_stats.aggregate_gap
    if math.isnan(hole):
        return Diagnosis(name, "open", "too few images for so many latent dimensions")
    kl = context.latent_stats.kl
    number = f"{hole:.3g} +- {error:.2g} of {kl:.3g} nats of KL lie between all codes together and the prior"
    if hole - 2 * error <= MAX_GAP_SHARE * kl:
        return Diagnosis(name, "well", number)
    return Diagnosis(
        name,
        "alarm",
        number,
        "prior samples come from where no code is: they will be poor",
        context.unit_weight_command(),
    )


def loss_drop(curve: np.ndarray) -> float:
    """By how much a loss falls after the first tenth of the training, in which it is mostly the scales that settle."""
    return float(max(curve[max(1, len(curve) // 10)] - curve.min(), 1e-9))


def check_overfitting(context: RunContext) -> Diagnosis:
    name = "overfitting"
    held, train = context.loss_curve("validation"), context.loss_curve("train")
    if len(held) < MIN_EPOCHS or context.collapsed:
        return Diagnosis(
            name,
            "open",
            "the posterior has collapsed"
            if context.collapsed
            else f"{len(held)} epochs with a validation loss, which is too few to say",
        )
    best = int(held.argmin())
    risen = (held[-1] - held[best]) / loss_drop(held)
    number = (
        f"validation loss {held[-1]:.4g}, after {held[best]:.4g} in epoch {best + 1}: up by {100 * risen:.2g} % "
        "of its fall"
    )
    if risen <= MAX_VALIDATION_RISE or train[-1] >= train[best]:
        return Diagnosis(name, "well", number)
    return Diagnosis(
        name, "alarm", number, "it rises while the training loss falls", context.retrain_command(keep="best")
    )


def check_high_learning_rate(context: RunContext) -> Diagnosis:
    name = "learning rate too high"
    train = context.loss_curve("train")
    if len(train) < MIN_EPOCHS:
        return Diagnosis(name, "open", f"{len(train)} epochs, which is too few to say")
    rough = np.diff(train[len(train) // 2 :]).clip(0).sum() / loss_drop(train)
    number = f"in the second half the training loss rose by {100 * rough:.2g} % of its fall"
    if context.collapsed and context.spec.lr > HIGH_LEARNING_RATE and (context.kl_weight or 0) <= 1:
        number = f"the posterior collapsed at a learning rate of {context.spec.lr:g}"
    elif rough <= MAX_ROUGHNESS or context.collapsed:
        return Diagnosis(name, "well", number)
    return Diagnosis(
        name,
        "alarm",
        number,
        f"steps at {context.spec.lr:g} jump over what they should fall into",
        context.retrain_command(lr=context.spec.lr / 5),
    )


def check_low_learning_rate(context: RunContext) -> Diagnosis:
    name = "learning rate too low, or too few epochs"
    train = context.loss_curve("train")
    if len(train) < MIN_EPOCHS:
        return Diagnosis(name, "open", f"{len(train)} epochs, which is too few to say")
    last = max(1, round(0.2 * (len(train) - 1)))
    steep = (train[-1 - last] - train[-1]) / last / max((train[0] - train[-1]) / (len(train) - 1), 1e-9)
    number = f"at the end the training loss falls at {100 * steep:.2g} % of its mean pace"
    if steep <= MAX_FINAL_SLOPE:
        return Diagnosis(name, "well", number)
    return Diagnosis(
        name,
        "alarm",
        number,
        "it was far from its end",
        context.retrain_command(lr=max(context.spec.lr, min(3 * context.spec.lr, 1e-3)), epochs=3 * len(train)),
    )


CHECKS: tuple[Callable[[RunContext], Diagnosis], ...] = (
    check_collapse,
    check_dead_dimensions,
    check_sigma,
    check_grey_cross_entropy,
    check_log_variance,
    check_prior_hole,
    check_overfitting,
    check_high_learning_rate,
    check_low_learning_rate,
)

TRAINING_CHECKS = check_collapse, check_overfitting, check_high_learning_rate
