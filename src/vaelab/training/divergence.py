"""Divergence: values and weights that are no numbers, or absurdly large, stop a run with the remedy.

Limits are far beyond what any useful run reaches: a KL of 1e6 nats in a latent dimension means codes 1,400 standard
deviations away from the prior, a cross entropy of 1e4 nats in a pixel value a logit of 10,000.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch

from vaelab.core.errors import UserError
from vaelab.objectives.terms import LossTerms
from vaelab.training.state import ActiveRun

__all__ = ["STOPPED", "measurement_error", "terms_error", "weights_error"]

STOPPED = "training stopped"  # how the errors of this module begin

MAX_NATS = 1e9  # of any term, per pixel value and latent dimension

MAX_KL = 1e6  # nats per latent dimension, in a run that is trained to keep the KL small

MAX_CROSS_ENTROPY = 1e4  # nats per pixel value

MAX_WEIGHT = 1e8  # absolute value of a weight

MAX_LOG_SCALE = 20.0  # of the learned standard deviation of pixels in [0, 1]


def terms_error(run: ActiveRun, terms: LossTerms) -> UserError | None:
    """The error of a step whose loss is no number or absurdly large, naming the term that it came from."""
    limit = MAX_NATS * _num_values(run)
    if abs(terms.loss.item()) <= limit:
        return None
    named_terms = {"distortion": terms.distortion, "KL": terms.rate, **terms.extra_terms, "loss": terms.loss}
    values = {name: term.item() for name, term in named_terms.items()}
    return _first_error(run, values, dict.fromkeys(values, limit))


def measurement_error(run: ActiveRun, split: str, values: Mapping[str, float]) -> UserError | None:
    """The error of what was measured on a split after an epoch, naming the first value that is not sound."""
    limits = dict.fromkeys(values, MAX_NATS * _num_values(run))
    limits["cross_entropy"] = MAX_CROSS_ENTROPY * math.prod(run.job.train_images.shape)
    spec = run.job.spec
    if spec.objective.effective_kl_weight(run.job.train_images.shape, spec.latent_dim) != 0:
        limits["kl"] = MAX_KL * run.job.spec.latent_dim
    names = {name: f"{name} of the {split} images" for name in values}
    named_values = {names[name]: value for name, value in values.items()}
    return _first_error(run, named_values, {names[name]: limits[name] for name in values})


def weights_error(run: ActiveRun) -> UserError | None:
    """The error of weights that are no numbers or absurdly large."""
    model = run.state.eval_model
    largest = [tensor.detach().abs().max().float() for tensor in model.state_dict().values() if tensor.numel()]
    values = {"largest weight": torch.stack(largest).max().item()}  # NaN if any of them is NaN
    limits = {"largest weight": MAX_WEIGHT}
    if model.shared.numel():
        values["log of the pixels' standard deviation"] = model.shared.detach().max().item()
        limits["log of the pixels' standard deviation"] = MAX_LOG_SCALE
    return _first_error(run, values, limits)


def _num_values(run: ActiveRun) -> int:
    """How many pixel values and latent dimensions an image has."""
    return math.prod(run.job.train_images.shape) + run.job.spec.latent_dim


def _first_error(run: ActiveRun, values: Mapping[str, float], limits: Mapping[str, float]) -> UserError | None:
    """The error of the first value that is no number; without one, of the first that is beyond its limit."""
    for name, value in values.items():
        if not math.isfinite(value):
            return _divergence_error(run, name, "NaN" if math.isnan(value) else "infinite")
    for name, value in values.items():
        if abs(value) > limits[name]:
            return _divergence_error(run, name, f"absurdly large, {value:.2g}")
    return None


def _divergence_error(run: ActiveRun, name: str, what: str) -> UserError:
    """The sentence that says what became of a value, and what to try."""
    step = run.state.step
    epoch = math.ceil(step / run.job.steps_per_epoch)
    return UserError(
        f"{STOPPED} in epoch {epoch}, step {step}: the {name} became {what}.\n"
        "Try a lower learning rate (a third of --lr), --clip 100 or --lr-warmup 0.1; with bfloat16 --precision float32."
    )
