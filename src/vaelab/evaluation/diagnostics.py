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
from vaelab.models.densities import Normal, kl_normal, standard_normal
from vaelab.models.likelihoods import CrossEntropy, Gaussian
from vaelab.models.vae import LOGVAR, VAE
from vaelab.runs.spec import Spec, change, flags

__all__ = ["CHECKS", "Case", "Codes", "Finding", "diagnose", "look", "watch"]

LOOKED_AT = 2000  # images, at most

COLLAPSED = 0.5  # nats of KL below which codes tell nothing

FAST = 2e-3  # learning rate above which a collapse is first of all put down to it

DEAD = 0.5  # share of latent dimensions that are not in use

OFF = 2.0  # ratio of sigma and residual, or its inverse

WIDE = 5.0  # log-variance of a posterior: sigma is 12 where the prior has 1

GROUPS = 10  # of images, for the error of a number

ENOUGH = 8  # images for each latent dimension, before their covariance is trusted

HOLE = 0.2  # of the rate, lost between the codes and the prior

RISEN = 0.05  # of the loss's fall, by which the validation loss rose again

ROUGH = 0.2  # of its fall, by which the training loss went up in the second half

STEEP = 0.6  # of a steady fall: how steeply the training loss still falls at the end

EPOCHS = 5  # of history that can be judged


class Finding(NamedTuple):
    """What one check found: the ailment, how it stands, the number that shows it, what it means, and what to try."""

    ailment: str
    state: Literal["alarm", "note", "well", "open"]
    number: str
    meaning: str = ""
    remedy: str = ""


class Codes(NamedTuple):
    """What was seen of a model on images: of the KL, of the codes, of the residuals."""

    kl: float  # nats per image
    active: int  # dimensions whose mean varies
    logvar: tuple[float, float]  # the least and the greatest log-variance of a posterior
    hole: tuple[float, float]  # nats, KL of the Gaussian with the moments of all codes from the prior, and its error
    residual: float  # root mean square of x - x^, from posterior samples
    binary: bool  # whether the pixels are black or white


@dataclass(frozen=True)
class Case:
    """A run to be looked at: its spec and rows of history, the model and what was seen of it where there is a model."""

    spec: Spec
    rows: Sequence[dict[str, Any]]
    model: VAE | None = None
    codes: Codes | None = None

    @property
    def collapsed(self) -> bool:
        """Whether the last row of history has no KL to speak of."""
        return bool(self.kl_weight != 0 and self.rows and self.rows[-1]["train"]["kl"] < COLLAPSED)

    @property
    def kl_weight(self) -> float | None:
        return self.spec.objective.effective_kl_weight(self.model.shape if self.model else (1, 1, 1))

    def curve(self, split: str) -> np.ndarray:
        """The loss of each epoch."""
        return np.array([row[split]["loss"] for row in self.rows if row[split]])

    def again(self, **changes: object) -> str:
        """The command that trains as before but for some changes; for longer, where these change nothing."""
        changed = change(self.spec, changes)
        if changed == self.spec:
            changed = change(self.spec, {"epochs": 3 * self.spec.epochs})
        return shlex.join(["vaelab", "train", *flags(changed)])

    def at_weight_one(self) -> str:
        """The command that trains with a learned sigma and, where there is such a weight, the KL at weight 1."""
        return self.again(loss="gaussian", **({} if self.kl_weight in (1, None) else {"objective": "beta"}))


@torch.no_grad()
def look(model: VAE, images: Images) -> Codes:
    """What is to be seen of a model on some images."""
    images = images.spread(LOOKED_AT)
    means, logvars, square = [], [], 0.0
    for batch in batches(model, images):
        draw = model(batch.x, batch.noise)
        square += (model.distortion.mean(draw.params) - batch.x).double().square().mean((1, 2, 3)).sum().item()
        for parts, part in zip((means, logvars), draw.q, strict=True):
            parts.append(part.double().cpu())
    mean, logvar = torch.cat(means), torch.cat(logvars)
    kl = kl_normal(Normal(mean, logvar), standard_normal(mean)).mean().item()
    extremes, residual = (logvar.min().item(), logvar.max().item()), math.sqrt(square / len(images))
    hole = from_prior(mean, logvar)
    return Codes(kl, active_units(mean), extremes, hole, residual, is_binary(images))


def from_prior(mean: torch.Tensor, logvar: torch.Tensor) -> tuple[float, float]:
    """KL(N(m, S) || N(0, 1)) for the moments of the mixture of posteriors (N, D), and its standard error.

    Roughly a lower bound of KL(q(z) || p(z)). Both by the jackknife over groups of images, which takes off what few
    images alone would show.
    """
    count, dim = mean.shape
    if count < ENOUGH * max(dim, GROUPS):
        return math.nan, math.nan

    def divergence(kept: torch.Tensor) -> float:
        some = mean[kept]
        covariance = torch.cov(some.T, correction=0).view(dim, dim) + logvar[kept].exp().mean(0).diag()
        moments = covariance.trace() + some.mean(0).square().sum() - dim
        return 0.5 * (moments - torch.linalg.slogdet(covariance).logabsdet).item()

    group = torch.arange(count) % GROUPS
    whole, rest = divergence(group >= 0), np.array([divergence(group != g) for g in range(GROUPS)])
    found = whole - (GROUPS - 1) * (rest.mean() - whole)
    return max(float(found), 0.0), float(np.sqrt((GROUPS - 1) * rest.var()))


def diagnose(case: Case) -> list[Finding]:
    """Every check, in order."""
    return [check(case) for check in CHECKS]


def watch(spec: Spec, rows: Sequence[dict[str, Any]]) -> list[Finding]:
    """The alarms that the last row of history brings, and that were not there before it."""
    alarms = [
        [f for f in (check(Case(spec, part)) for check in WATCHED) if f.state == "alarm"] for part in (rows[:-1], rows)
    ]
    before = {finding.ailment for finding in alarms[0]}
    return [finding for finding in alarms[1] if finding.ailment not in before]


# The checks.


def collapse(case: Case) -> Finding:
    name = "posterior collapse"
    if case.kl_weight == 0:
        return Finding(name, "open", "KL weight 0: nothing draws the posterior to the prior")
    if case.codes is None and len(case.rows) < EPOCHS:
        return Finding(name, "open", "too early to say")
    kl = case.codes.kl if case.codes else case.rows[-1]["train"]["kl"]
    active = f", {case.codes.active} of {case.spec.latent_dim} dimensions active" if case.codes else ""
    number = f"KL {kl:.3g} nats{active}"
    if kl >= COLLAPSED and (case.codes is None or case.codes.active):
        return Finding(name, "well", number)
    if (case.kl_weight or 0) > 1:
        remedy = case.again(objective="beta")
    elif case.spec.lr > FAST:
        remedy = case.again(lr=FAST / 2, lr_warmup=0.1)
    else:
        remedy = case.again(loss="gaussian", objective="beta:warmup=0.3,free_bits=0.1")
    return Finding(name, "alarm", number, "codes tell nothing of their images: each reconstruction is the mean", remedy)


def dead_dimensions(case: Case) -> Finding:
    name = "dead dimensions"
    if case.codes is None or case.kl_weight == 0:
        return Finding(name, "open", "nothing draws unused dimensions to the prior")
    active, all_of_them = case.codes.active, case.spec.latent_dim
    number = f"{all_of_them - active} of {all_of_them} dimensions are not in use"
    if all_of_them - active <= DEAD * all_of_them:
        return Finding(name, "well", number)
    return Finding(
        name,
        "note",
        number,
        "they cost time and nothing else; free bits or a warm-up may wake some",
        case.again(latent_dim=max(2, 2 * active)),
    )


def sigma(case: Case) -> Finding:
    name = "sigma far from the residual"
    likelihood = likelihood_of(case.model, case.spec.objective) if case.model else None
    if case.model is None or case.codes is None or not isinstance(likelihood, Gaussian) or likelihood.sigma == "pixel":
        return Finding(name, "open", "the loss has no such sigma")
    found = likelihood.sigma if isinstance(likelihood.sigma, float) else case.model.shared[0].exp().item()
    ratio = found / max(case.codes.residual, 1e-6)
    number = f"sigma {found:.3g}, residual {case.codes.residual:.3g}, ratio {ratio:.3g}"
    if 1 / OFF <= ratio <= OFF:
        return Finding(name, "well", number)
    blurred = "the KL is weighed too much, and reconstructions are blurred"
    meaning = blurred if ratio > 1 else "the KL hardly counts, and prior samples will be poor"
    return Finding(name, "alarm", number, meaning, case.at_weight_one())


def grey_cross_entropy(case: Case) -> Finding:
    name = "cross entropy read as likelihood"
    if case.codes is None or not isinstance(case.spec.loss, CrossEntropy):
        return Finding(name, "open", "the loss is another")
    if case.codes.binary:
        return Finding(name, "well", "the pixels are black or white")
    return Finding(
        name,
        "note",
        "the pixels are grey or coloured",
        "negative_elbo is then the textbook's figure, to compare with itself on the same data and no other",
        case.again(loss="discretised-logistic:components=5"),
    )


def log_variance(case: Case) -> Finding:
    name = "exploding log-variance"
    if case.codes is None:
        return Finding(name, "open", "not looked at")
    least, most = case.codes.logvar
    number = f"from {least:.3g} to {most:.3g}"
    if LOGVAR[0] + 1e-3 < least and most < WIDE:
        return Finding(name, "well", number)
    if most < WIDE and case.kl_weight == 0:
        return Finding(
            name,
            "note",
            number,
            "with KL weight 0 the posterior shrinks to a point, as far as it is let",
            case.again(objective="beta"),
        )
    return Finding(
        name,
        "alarm",
        number,
        f"it should be far from {LOGVAR[0]:g} and {LOGVAR[1]:g}, where it is held",
        case.again(lr=case.spec.lr / 5, clip=100, lr_warmup=0.1),
    )


def prior_hole(case: Case) -> Finding:
    name = "prior hole"
    if case.codes is None or case.kl_weight == 0:
        return Finding(name, "open", "KL weight 0: the prior was never meant")
    if case.codes.kl < COLLAPSED:
        return Finding(name, "open", "the posterior has collapsed")
    hole, error = case.codes.hole
    if math.isnan(hole):
        return Finding(name, "open", "too few images for so many latent dimensions")
    number = f"{hole:.3g} +- {error:.2g} of {case.codes.kl:.3g} nats of KL lie between all codes together and the prior"
    if hole - 2 * error <= HOLE * case.codes.kl:
        return Finding(name, "well", number)
    return Finding(
        name, "alarm", number, "prior samples come from where no code is: they will be poor", case.at_weight_one()
    )


def fall(curve: np.ndarray) -> float:
    """By how much a loss falls after the first tenth of the training, in which it is mostly the scales that settle."""
    return float(max(curve[max(1, len(curve) // 10)] - curve.min(), 1e-9))


def overfitting(case: Case) -> Finding:
    name = "overfitting"
    held, train = case.curve("validation"), case.curve("train")
    if len(held) < EPOCHS or case.collapsed:
        return Finding(
            name,
            "open",
            "the posterior has collapsed"
            if case.collapsed
            else f"{len(held)} epochs with a validation loss, which is too few to say",
        )
    best = int(held.argmin())
    risen = (held[-1] - held[best]) / fall(held)
    number = (
        f"validation loss {held[-1]:.4g}, after {held[best]:.4g} in epoch {best + 1}: up by {100 * risen:.2g} % "
        "of its fall"
    )
    if risen <= RISEN or train[-1] >= train[best]:
        return Finding(name, "well", number)
    return Finding(name, "alarm", number, "it rises while the training loss falls", case.again(keep="best"))


def rate_too_high(case: Case) -> Finding:
    name = "learning rate too high"
    train = case.curve("train")
    if len(train) < EPOCHS:
        return Finding(name, "open", f"{len(train)} epochs, which is too few to say")
    rough = np.diff(train[len(train) // 2 :]).clip(0).sum() / fall(train)
    number = f"in the second half the training loss rose by {100 * rough:.2g} % of its fall"
    if case.collapsed and case.spec.lr > FAST and (case.kl_weight or 0) <= 1:
        number = f"the posterior collapsed at a learning rate of {case.spec.lr:g}"
    elif rough <= ROUGH or case.collapsed:
        return Finding(name, "well", number)
    return Finding(
        name,
        "alarm",
        number,
        f"steps at {case.spec.lr:g} jump over what they should fall into",
        case.again(lr=case.spec.lr / 5),
    )


def rate_too_low(case: Case) -> Finding:
    name = "learning rate too low, or too few epochs"
    train = case.curve("train")
    if len(train) < EPOCHS:
        return Finding(name, "open", f"{len(train)} epochs, which is too few to say")
    last = max(1, round(0.2 * (len(train) - 1)))
    steep = (train[-1 - last] - train[-1]) / last / max((train[0] - train[-1]) / (len(train) - 1), 1e-9)
    number = f"at the end the training loss falls at {100 * steep:.2g} % of its mean pace"
    if steep <= STEEP:
        return Finding(name, "well", number)
    return Finding(
        name,
        "alarm",
        number,
        "it was far from its end",
        case.again(lr=max(case.spec.lr, min(3 * case.spec.lr, 1e-3)), epochs=3 * len(train)),
    )


CHECKS: tuple[Callable[[Case], Finding], ...] = (
    collapse,
    dead_dimensions,
    sigma,
    grey_cross_entropy,
    log_variance,
    prior_hole,
    overfitting,
    rate_too_high,
    rate_too_low,
)

WATCHED = collapse, overfitting, rate_too_high
