r"""The doctor: what is wrong with a model, the number that shows it, and one command to try.

    alarm   something is wrong: numbers and images of the model mislead, or the training was in vain
    note    nothing is wrong, but a number is easily misread, or something can be gained
    well    checked, and nothing is wrong
    open    cannot be decided for this run

A check is a function of a `RunContext` that gives a `Diagnosis`. `CHECKS` has all of them, in the order in which they
are made; `TRAINING_CHECKS` those that need the history alone and are also made during training. The benchmark
`benchmarks/doctor.py` makes each problem on purpose; docs/doctor.md says what was found.
"""

from __future__ import annotations

import math
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, is_dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
import torch

from vaelab.core.codec import to_text, to_word
from vaelab.datasets.images import Images, is_binary
from vaelab.evaluation.metrics import active_units, batches, likelihood_of
from vaelab.models.densities import Normal
from vaelab.models.likelihoods import CrossEntropy, Gaussian
from vaelab.models.priors import PriorDensity
from vaelab.models.vae import LOGVAR_BOUNDS, VAE
from vaelab.runs.spec import Spec, to_argv, updated

__all__ = ["CHECKS", "Diagnosis", "LatentStats", "RunContext", "compute_latent_stats", "diagnose", "new_alarms"]

MAX_IMAGES = 2000  # images that the statistics are computed from, at most

MAX_SOUND_KL = 1e5  # nats per latent dimension, above which a run that weighs its KL has diverged

MAX_SOUND_LOSS = 1e6  # nats per pixel value, above which a run has diverged

MAX_SOUND_RESIDUAL = 100.0  # of pixels in [0, 1], above which a run has diverged

MAX_SOUND_SIGMA = 1e3  # of pixels in [0, 1], above which a run has diverged

UNLIMITED = 1e300  # any finite number

HUGE_KL_WEIGHT = 1000.0  # may make a training diverge by itself

SAFE_LEARNING_RATE = 1e-3

SAFE_GRADIENT_NORM = 100

COLLAPSE_KL = 0.5  # nats of KL below which the codes tell nothing

HIGH_LEARNING_RATE = 2e-3  # above it the learning rate is the first suspect of a collapse

MAX_DEAD_SHARE = 0.5  # share of latent dimensions that are not in use

MAX_SIGMA_RATIO = 2.0  # ratio of sigma and residual, or its inverse

MAX_LOGVAR = 5.0  # log-variance of a posterior: sigma is 12 where that of the prior is 1

IMAGE_GROUPS = 10  # groups of images, for the jackknife

IMAGES_PER_DIMENSION = 8  # images for each latent dimension, below which their covariance is not estimated

MAX_GAP_SHARE = 0.2  # share of the KL that lies between the aggregate posterior and the prior

MAX_VALIDATION_RISE = 0.05  # rise of the validation loss, as a share of its drop

MAX_ROUGHNESS = 0.2  # rises of the training loss in the second half, as a share of its drop

MAX_FINAL_SLOPE = 0.6  # slope of the training loss at the end, as a share of its mean slope

MIN_EPOCHS = 5  # epochs of history, below which a curve is not judged

# Options of `vaelab train` that are no settings of a run. A command to try keeps them.
OPTIONS_WITH_VALUE = ("--from", "--out", "--device", "--precision", "--threads", "--snapshots")

OPTIONS_WITHOUT_VALUE = ("--no-figures",)

DIVERGED = "the training has diverged"

COLLAPSED = "the posterior has collapsed"


class Diagnosis(NamedTuple):
    """What a check says.

    Attributes:
        ailment: What was checked.
        state: "alarm", "note", "well" or "open".
        number: The number that shows it, or why there is none.
        meaning: What it means.
        remedy: A command to try.
    """

    ailment: str
    state: Literal["alarm", "note", "well", "open"]
    number: str
    meaning: str = ""
    remedy: str = ""


class LatentStats(NamedTuple):
    """Statistics of the codes and residuals of a model on images.

    Attributes:
        kl: The mean KL, in nats per image.
        active_units: The latent dimensions whose posterior mean varies.
        logvar_range: The smallest and the largest log-variance of a posterior.
        aggregate_gap: KL of the Gaussian with the moments of all codes from the prior, in nats, and its standard
            error; NaN where there are too few images.
        residual_rms: The root mean square of x - x^, from posterior samples.
        is_binary: Whether the pixels are black or white.
    """

    kl: float
    active_units: int
    logvar_range: tuple[float, float]
    aggregate_gap: tuple[float, float]
    residual_rms: float
    is_binary: bool


@dataclass(frozen=True)
class RunContext:
    """A run to be checked.

    Attributes:
        spec: Its settings.
        history: Its rows of history.
        model: Its model, where there is one.
        latent_stats: What `compute_latent_stats` gave for the model, where images are at hand.
        command: The command line that trained it; commands to try keep its options.
        has_finite_weights: Whether the weights are numbers; without, there is no model.
    """

    spec: Spec
    history: Sequence[Mapping[str, Any]]
    model: VAE | None = None
    latent_stats: LatentStats | None = None
    command: str | None = None
    has_finite_weights: bool = True

    @property
    def collapsed(self) -> bool:
        """Whether the last row of history has practically no KL."""
        return bool(self.kl_weight != 0 and self.history and self.history[-1]["train"]["kl"] < COLLAPSE_KL)

    @property
    def kl_weight(self) -> float | None:
        """The weight of the KL, in nats per image; None where the objective has none."""
        return self.spec.objective.effective_kl_weight(
            self.model.shape if self.model else (1, 1, 1), self.spec.latent_dim
        )

    @property
    def sigma(self) -> float | None:
        """The standard deviation of pixels that the loss stands for; None where it has not one for all pixels."""
        likelihood = likelihood_of(self.model, self.spec.objective) if self.model else None
        if self.model is None or not isinstance(likelihood, Gaussian) or likelihood.sigma == "pixel":
            return None
        return likelihood.sigma if isinstance(likelihood.sigma, float) else self.model.shared[0].exp().item()

    @property
    def lower_learning_rate(self) -> float:
        """A learning rate to try where that of the run is too high: a fifth, and at most one that is known to work."""
        return min(self.spec.lr / 5, SAFE_LEARNING_RATE)

    def loss_curve(self, split: str) -> np.ndarray:
        """The loss of each epoch, (T,)."""
        return np.array([row[split]["loss"] for row in self.history if row[split]])

    def retrain_command(self, changes: Mapping[str, object]) -> str:
        """The command that trains as before but for some settings; for longer, where the changes change nothing."""
        changed = updated(self.spec, changes)
        if changed == self.spec:
            changed = updated(self.spec, self.longer_training_changes())
        argv = to_argv(changed)
        for name in changes:  # also those that are the defaults now
            setting = name.partition(".")[0]
            flag = f"--{setting.replace('_', '-')}"
            if flag not in argv:
                value = getattr(changed, setting)
                argv += [flag, to_word(value) if is_dataclass(value) else to_text(value)]
        return shlex.join(["vaelab", "train", *argv, *run_options(self.command)])

    def unit_weight_changes(self) -> dict[str, object]:
        """The settings that give the KL the weight 1, where it has another."""
        if self.kl_weight in (1, None):
            return {}
        changes: dict[str, object] = {}
        if hasattr(self.spec.objective, "kl_weight"):
            changes["objective.kl_weight"] = 1.0
        if hasattr(self.spec.objective, "reduction"):
            changes["objective.reduction"] = "sum"
        return changes or {"objective": "beta"}

    def longer_training_changes(self) -> dict[str, object]:
        """The setting of the length, three times as long."""
        for name in ("minutes", "steps"):
            length = getattr(self.spec, name)
            if length:
                return {name: 3 * length}
        return {"epochs": 3 * self.spec.epochs}

    def learned_sigma_command(self) -> str:
        """The command that trains with a learned sigma and the KL at weight 1."""
        return self.retrain_command({"loss": "gaussian", **self.unit_weight_changes()})


def run_options(command: str | None) -> list[str]:
    """The options of a `vaelab train` command line that are no settings of the run.

    Example:
        >>> run_options("vaelab train digits --lr 0.1 --out runs --threads=2 --no-figures")
        ['--out', 'runs', '--threads=2', '--no-figures']
    """
    try:
        words = shlex.split(command or "")
    except ValueError:  # a command line that was changed by hand
        return []
    if words[:2] != ["vaelab", "train"]:
        return []
    options = []
    for index, word in enumerate(words):
        name, equals, _ = word.partition("=")
        if name in OPTIONS_WITH_VALUE:
            options += [word] if equals else words[index : index + 2]
        elif word in OPTIONS_WITHOUT_VALUE:
            options.append(word)
    return options


@torch.no_grad()
def compute_latent_stats(model: VAE, images: Images) -> LatentStats:
    """Compute what the checks need to know of a model, from at most 2,000 of the images."""
    images = images.evenly_spaced(MAX_IMAGES)
    means, logvars, rates = [], [], []
    total_squared_residual = 0.0
    for batch in batches(model, images):
        output = model(batch.x, batch.noise)
        residual = (model.distortion.mean(output.params) - batch.x).double()
        total_squared_residual += residual.square().mean((1, 2, 3)).sum().item()
        posterior = Normal(output.q.mean.double(), output.q.logvar.double())
        means.append(posterior.mean.cpu())
        logvars.append(posterior.logvar.cpu())
        rates.append(model.prior.kl(posterior, output.z.double()).cpu())
    mean, logvar = torch.cat(means), torch.cat(logvars)
    return LatentStats(
        kl=torch.cat(rates).mean().item(),
        active_units=active_units(mean),
        logvar_range=(logvar.min().item(), logvar.max().item()),
        aggregate_gap=moment_matched_kl(mean, logvar, model.prior),
        residual_rms=math.sqrt(total_squared_residual / len(images)),
        is_binary=is_binary(images),
    )


def moment_matched_kl(mean: torch.Tensor, logvar: torch.Tensor, prior: PriorDensity) -> tuple[float, float]:
    """KL(N(m, S) || p(z)) for the moments m and S of the aggregate posterior, and its standard error, in nats.

    It is roughly a lower bound of KL(q(z) || p(z)). Value and error are by the jackknife over groups of images, which
    removes the bias of few images.

    Args:
        mean: Posterior means, (N, D).
        logvar: Posterior log-variances, (N, D).
        prior: The prior.

    Returns:
        The KL and its standard error; NaN where there are too few images, or where the prior has no closed form.
    """
    count, dim = mean.shape
    if count < IMAGES_PER_DIMENSION * max(dim, IMAGE_GROUPS):
        return math.nan, math.nan

    def kl_of(kept: torch.Tensor) -> float:
        covariance_of_means = torch.cov(mean[kept].T, correction=0).view(dim, dim)
        covariance = covariance_of_means + logvar[kept].exp().mean(0).diag()
        kl = prior.kl_of_moments(mean[kept].mean(0), covariance)
        return math.nan if kl is None else kl.item()

    group = torch.arange(count) % IMAGE_GROUPS
    of_all = kl_of(group >= 0)
    of_rest = np.array([kl_of(group != left_out) for left_out in range(IMAGE_GROUPS)])
    without_bias = of_all - (IMAGE_GROUPS - 1) * (of_rest.mean() - of_all)
    return max(float(without_bias), 0.0), float(np.sqrt((IMAGE_GROUPS - 1) * of_rest.var()))


def diagnose(context: RunContext) -> list[Diagnosis]:
    """Make every check. Of a run that has diverged only that is said.

    Args:
        context: The run.

    Returns:
        A diagnosis for each check, in the order of `CHECKS`.
    """
    divergence = check_divergence(context)
    if divergence.state == "alarm":
        others = [ailment for ailment in CHECKS if ailment != divergence.ailment]
        return [divergence, *(Diagnosis(ailment, "open", DIVERGED) for ailment in others)]
    return [check(context) for check in CHECKS.values()]


def new_alarms(spec: Spec, history: Sequence[Mapping[str, Any]], command: str | None = None) -> list[Diagnosis]:
    """The alarms that the last row of history brings.

    Args:
        spec: The settings of the run.
        history: Its rows so far.
        command: The command line that trains it.

    Returns:
        The alarms that the rows before the last one did not raise.
    """
    before = {alarm.ailment for alarm in _training_alarms(RunContext(spec, history[:-1], command=command))}
    alarms = _training_alarms(RunContext(spec, history, command=command))
    return [alarm for alarm in alarms if alarm.ailment not in before]


def _training_alarms(context: RunContext) -> list[Diagnosis]:
    diagnoses = [check(context) for check in TRAINING_CHECKS]
    return [diagnosis for diagnosis in diagnoses if diagnosis.state == "alarm"]


# The checks.


def check_divergence(context: RunContext) -> Diagnosis:
    """Numbers that are infinite or absurdly large."""
    ailment = "divergence"
    limits = _sound_limits(context)
    absurd = [f"{name} {value:.3g}" for name, (value, limit) in limits.items() if not abs(value) <= limit]  # NaN, too
    if not context.has_finite_weights:
        absurd = ["weights that are NaN or infinite"]
    if absurd:
        meaning = f"{DIVERGED}: every other number and every image of this run means nothing"
        remedy = context.retrain_command(_stabilising_changes(context))
        return Diagnosis(ailment, "alarm", ", ".join(absurd), meaning, remedy)
    if not limits:
        return Diagnosis(ailment, "open", "neither images nor a history")
    return Diagnosis(ailment, "well", ", ".join(f"{name} {value:.3g}" for name, (value, _) in limits.items()))


def _sound_limits(context: RunContext) -> dict[str, tuple[float, float]]:
    """Numbers of a run by name, each with the limit above which it is absurd."""
    latent_dim, stats, sigma = context.spec.latent_dim, context.latent_stats, context.sigma
    limits: dict[str, tuple[float, float]] = {}
    max_kl = UNLIMITED if context.kl_weight == 0 else MAX_SOUND_KL * latent_dim
    if context.history:
        last = context.history[-1]["train"]
        num_values = math.prod(context.model.shape) if context.model else 1
        max_loss = MAX_SOUND_LOSS * (num_values + latent_dim) if context.model else UNLIMITED
        limits["loss"] = (last["loss"], max_loss)
        if "kl" in last and stats is None:
            limits["KL"] = (last["kl"], max_kl)
    if stats is not None:
        limits["KL"] = (stats.kl, max_kl)
        limits["residual"] = (stats.residual_rms, MAX_SOUND_RESIDUAL)
    if sigma is not None:
        limits["sigma"] = (sigma, MAX_SOUND_SIGMA)
    return limits


def _stabilising_changes(context: RunContext) -> dict[str, object]:
    """The settings of a training that does not diverge."""
    changes: dict[str, object] = {"lr": context.lower_learning_rate, "clip": SAFE_GRADIENT_NORM, "lr_warmup": 0.1}
    if (context.kl_weight or 0) > HUGE_KL_WEIGHT:
        changes |= context.unit_weight_changes()
    return changes


def check_collapse(context: RunContext) -> Diagnosis:
    """Posteriors that equal the prior."""
    ailment = "posterior collapse"
    stats = context.latent_stats
    if context.kl_weight == 0:
        return Diagnosis(ailment, "open", "KL weight 0: nothing draws the posterior to the prior")
    if stats is None and len(context.history) < MIN_EPOCHS:
        return Diagnosis(ailment, "open", "too early to say")
    kl = stats.kl if stats else context.history[-1]["train"]["kl"]
    number = f"KL {kl:.3g} nats"
    if stats:
        number += f", {stats.active_units} of {context.spec.latent_dim} dimensions active"
    if kl >= COLLAPSE_KL and (stats is None or stats.active_units):
        return Diagnosis(ailment, "well", number)
    meaning = "codes tell nothing of their images: each reconstruction is the mean"
    return Diagnosis(ailment, "alarm", number, meaning, context.retrain_command(_waking_changes(context)))


def _waking_changes(context: RunContext) -> dict[str, object]:
    """The settings of a training whose posterior does not collapse."""
    changes: dict[str, object] = {}
    if (context.kl_weight or 0) > 1:
        changes |= context.unit_weight_changes()
    if context.spec.lr > HIGH_LEARNING_RATE:
        changes |= {"lr": SAFE_LEARNING_RATE, "lr_warmup": 0.1}
    if changes:
        return changes
    if hasattr(context.spec.objective, "free_bits"):
        return {"loss": "gaussian", "objective.warmup": 0.3, "objective.free_bits": 0.1}
    return {"loss": "gaussian", "objective": "beta:warmup=0.3,free_bits=0.1"}


def check_dead_dimensions(context: RunContext) -> Diagnosis:
    """Latent dimensions that are not in use."""
    ailment = "dead dimensions"
    if context.latent_stats is None or context.kl_weight == 0:
        return Diagnosis(ailment, "open", "nothing draws unused dimensions to the prior")
    active, latent_dim = context.latent_stats.active_units, context.spec.latent_dim
    number = f"{latent_dim - active} of {latent_dim} dimensions are not in use"
    if latent_dim - active <= MAX_DEAD_SHARE * latent_dim:
        return Diagnosis(ailment, "well", number)
    meaning = "they cost time and nothing else; free bits or a warm-up may wake some"
    return Diagnosis(ailment, "note", number, meaning, context.retrain_command({"latent_dim": max(2, 2 * active)}))


def check_sigma(context: RunContext) -> Diagnosis:
    """A standard deviation of pixels that is not that of the residuals."""
    ailment = "sigma far from the residual"
    sigma, stats = context.sigma, context.latent_stats
    if sigma is None or stats is None:
        return Diagnosis(ailment, "open", "the loss has no such sigma")
    ratio = sigma / max(stats.residual_rms, 1e-6)
    number = f"sigma {sigma:.3g}, residual {stats.residual_rms:.3g}, ratio {ratio:.3g}"
    if 1 / MAX_SIGMA_RATIO <= ratio <= MAX_SIGMA_RATIO:
        return Diagnosis(ailment, "well", number)
    if ratio > 1:
        meaning = "the KL weighs too much, and reconstructions are blurred"
    else:
        meaning = "the KL hardly counts, and prior samples will be poor"
    return Diagnosis(ailment, "alarm", number, meaning, context.learned_sigma_command())


def check_grey_cross_entropy(context: RunContext) -> Diagnosis:
    """Cross entropy of pixels that are not black or white, which is no likelihood."""
    ailment = "cross entropy read as likelihood"
    if context.latent_stats is None or not isinstance(context.spec.distortion, CrossEntropy):
        return Diagnosis(ailment, "open", "the loss is another")
    if context.latent_stats.is_binary:
        return Diagnosis(ailment, "well", "the pixels are black or white")
    number = "the pixels are grey or coloured"
    meaning = "negative_elbo is then the textbook's figure, to compare with itself on the same data and no other"
    remedy = context.retrain_command({"loss": "discretised-logistic:components=5"})
    return Diagnosis(ailment, "note", number, meaning, remedy)


def check_log_variance(context: RunContext) -> Diagnosis:
    """Log-variances of posteriors at the bounds that the model keeps them in."""
    ailment = "exploding log-variance"
    if context.latent_stats is None:
        return Diagnosis(ailment, "open", "not measured")
    smallest, largest = context.latent_stats.logvar_range
    number = f"from {smallest:.3g} to {largest:.3g}"
    if LOGVAR_BOUNDS[0] + 1e-3 < smallest and largest < MAX_LOGVAR:
        return Diagnosis(ailment, "well", number)
    if largest < MAX_LOGVAR and context.kl_weight == 0:
        meaning = "with KL weight 0 the posterior shrinks to a point, as far as the model lets it"
        return Diagnosis(ailment, "note", number, meaning, context.retrain_command(context.unit_weight_changes()))
    meaning = f"it should be far from the bounds {LOGVAR_BOUNDS[0]:g} and {LOGVAR_BOUNDS[1]:g}"
    return Diagnosis(ailment, "alarm", number, meaning, context.retrain_command(_stabilising_changes(context)))


def check_prior_hole(context: RunContext) -> Diagnosis:
    """An aggregate posterior that is far from the prior."""
    ailment = "prior hole"
    if context.latent_stats is None or context.kl_weight == 0:
        return Diagnosis(ailment, "open", "KL weight 0: the codes were not trained to follow the prior")
    if context.latent_stats.kl < COLLAPSE_KL:
        return Diagnosis(ailment, "open", COLLAPSED)
    gap, error = context.latent_stats.aggregate_gap
    if math.isnan(gap):
        return Diagnosis(ailment, "open", "too few images for so many latent dimensions")
    kl = context.latent_stats.kl
    number = f"{gap:.3g} +- {error:.2g} of {kl:.3g} nats of KL lie between all codes together and the prior"
    if gap - 2 * error <= MAX_GAP_SHARE * kl:
        return Diagnosis(ailment, "well", number)
    meaning = "prior samples come from where no code is: they will be poor"
    return Diagnosis(ailment, "alarm", number, meaning, context.learned_sigma_command())


def loss_drop(curve: np.ndarray) -> float:
    """By how much a loss (T,) drops after the first tenth of the training, in which mostly the scales settle."""
    return float(max(curve[max(1, len(curve) // 10)] - curve.min(), 1e-9))


def check_overfitting(context: RunContext) -> Diagnosis:
    """A validation loss that rises while the training loss falls."""
    ailment = "overfitting"
    validation, train = context.loss_curve("validation"), context.loss_curve("train")
    if context.collapsed:
        return Diagnosis(ailment, "open", COLLAPSED)
    if len(validation) < MIN_EPOCHS:
        number = f"{len(validation)} epochs with a validation loss, which is too few to say"
        return Diagnosis(ailment, "open", number)
    best = int(validation.argmin())
    rise = (validation[-1] - validation[best]) / loss_drop(validation)
    number = (
        f"validation loss {validation[-1]:.4g}, after {validation[best]:.4g} in epoch {best + 1}: "
        f"up by {100 * rise:.2g} % of its fall"
    )
    if rise <= MAX_VALIDATION_RISE or train[-1] >= train[best]:
        return Diagnosis(ailment, "well", number)
    if context.spec.keep == "best":
        meaning = f"it rises while the training loss falls; the weights of epoch {best + 1} are kept"
        return Diagnosis(ailment, "note", number, meaning)
    meaning = "it rises while the training loss falls"
    return Diagnosis(ailment, "alarm", number, meaning, context.retrain_command({"keep": "best"}))


def check_high_learning_rate(context: RunContext) -> Diagnosis:
    """A training loss that rises again and again, or a collapse at a high learning rate."""
    ailment = "learning rate too high"
    train = context.loss_curve("train")
    if len(train) < MIN_EPOCHS:
        return Diagnosis(ailment, "open", f"{len(train)} epochs, which is too few to say")
    rises = np.diff(train[len(train) // 2 :]).clip(0).sum() / loss_drop(train)
    number = f"in the second half the training loss rose by {100 * rises:.2g} % of its fall"
    if context.collapsed and context.spec.lr > HIGH_LEARNING_RATE and (context.kl_weight or 0) <= 1:
        number = f"the posterior collapsed at a learning rate of {context.spec.lr:g}"
    elif rises <= MAX_ROUGHNESS or context.collapsed:
        return Diagnosis(ailment, "well", number)
    meaning = f"steps at {context.spec.lr:g} jump over what they should fall into"
    return Diagnosis(ailment, "alarm", number, meaning, context.retrain_command({"lr": context.lower_learning_rate}))


def check_low_learning_rate(context: RunContext) -> Diagnosis:
    """A training loss that still falls steeply at the end."""
    ailment = "learning rate too low, or too few epochs"
    train = context.loss_curve("train")
    if len(train) < MIN_EPOCHS:
        return Diagnosis(ailment, "open", f"{len(train)} epochs, which is too few to say")
    last_epochs = max(1, round(0.2 * (len(train) - 1)))
    final_slope = (train[-1 - last_epochs] - train[-1]) / last_epochs
    mean_slope = max((train[0] - train[-1]) / (len(train) - 1), 1e-9)
    number = f"at the end the training loss falls at {100 * final_slope / mean_slope:.2g} % of its mean pace"
    if final_slope / mean_slope <= MAX_FINAL_SLOPE:
        return Diagnosis(ailment, "well", number)
    higher_lr = max(context.spec.lr, min(3 * context.spec.lr, SAFE_LEARNING_RATE))
    remedy = context.retrain_command({"lr": higher_lr, **context.longer_training_changes()})
    return Diagnosis(ailment, "alarm", number, "the training stopped far from its end", remedy)


CHECKS: dict[str, Callable[[RunContext], Diagnosis]] = {
    "divergence": check_divergence,
    "posterior collapse": check_collapse,
    "dead dimensions": check_dead_dimensions,
    "sigma far from the residual": check_sigma,
    "cross entropy read as likelihood": check_grey_cross_entropy,
    "exploding log-variance": check_log_variance,
    "prior hole": check_prior_hole,
    "overfitting": check_overfitting,
    "learning rate too high": check_high_learning_rate,
    "learning rate too low, or too few epochs": check_low_learning_rate,
}

TRAINING_CHECKS = check_collapse, check_overfitting, check_high_learning_rate
