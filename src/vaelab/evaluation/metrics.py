r"""Metrics: (model, images) -> numbers with their standard errors over images.

    negative_elbo = E_q[-log p(x|z)] + KL(q(z|x) || p(z))        in nats per image, one posterior sample

The bound has KL weight 1 whatever weight was trained, and the density that the trained loss stands for, constants
included. Names end in `_of_mean` where the posterior mean is decoded in place of a sample. These are usually lower, and
no bounds. The noise of evaluation is a function of the index of an image: the same images give the same numbers,
whatever the batch size, and models of one latent dimension are compared on the same noise.

`evaluation.catalogue` describes each metric. `evaluation.image_quality` has those of reconstructions.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from vaelab.core.console import ProgressCallback, count_text, progress
from vaelab.core.errors import UserError
from vaelab.core.rng import evaluation_noise, generator
from vaelab.datasets.images import Images, is_binary
from vaelab.evaluation.aggregate_posterior import aggregate_posterior_metrics
from vaelab.evaluation.catalogue import (
    MetricInfo,
    metric_info,
    posterior_metric,
    posterior_metrics,
    ratio_metrics,
    reconstruction_metrics,
)
from vaelab.evaluation.ratios import RatioTerms, joined_terms, ratio_metric_of, ratio_terms, size_note
from vaelab.evaluation.results import Evaluation, Metric
from vaelab.evaluation.statistics import RunningMoments
from vaelab.models.densities import Normal
from vaelab.models.likelihoods import CrossEntropy, Distortion, Likelihood
from vaelab.models.networks import Shape
from vaelab.models.vae import VAE, VAEOutput
from vaelab.objectives.objective import Objective
from vaelab.objectives.terms import LossTerms

__all__ = [
    "ACTIVE_VARIANCE",
    "Batch",
    "active_units",
    "batches",
    "bits_per_dim",
    "compute_metrics",
    "elbo_terms",
    "encode_all",
    "evaluate_model",
    "fit_global_params",
    "likelihood_of",
    "metric_notes",
    "require_finite",
    "validate",
]

BATCH_VALUES = 2**22  # pixel values that are evaluated at once

ACTIVE_VARIANCE = 0.01  # variance of the posterior mean above which a latent dimension is active

GREY_CROSS_ENTROPY_NOTE = "the textbook figure; cross entropy of grey or coloured pixels is no likelihood"


class Batch(NamedTuple):
    """Some images.

    Attributes:
        start: The position of the first one.
        x: The images in [0, 1], (B, C, H, W).
        noise: Their standard normal noise, (B, D).
        rows: Their row numbers in the data set, (B,).
    """

    start: int
    x: Tensor
    noise: Tensor
    rows: np.ndarray


def batches(model: VAE, images: Images, max_size: int = 512) -> Iterator[Batch]:
    """The images in order, in batches on the device of the model.

    Args:
        model: The model that they are for.
        images: The images.
        max_size: The largest batch; batches of large images are smaller, by a rule of their shape alone.

    Yields:
        The batches.
    """
    size = max(8, min(max_size, BATCH_VALUES // math.prod(images.shape)))
    device = next(model.parameters()).device
    for start in range(0, len(images), size):
        x = torch.from_numpy(images.uint8(slice(start, start + size))).to(device).float().div_(255)
        rows = images.rows[start : start + size]
        yield Batch(start, x, evaluation_noise(rows, model.latent_dim).to(device), rows)


def require_finite(*outputs: Tensor) -> None:
    """Refuse what a model gives where it holds NaN or infinite numbers.

    Args:
        outputs: Codes or images that a model gave.

    Raises:
        UserError: A number is not finite.

    Example:
        >>> require_finite(torch.zeros(3), torch.ones(2, 2))
    """
    if not all(output.isfinite().all() for output in outputs):
        raise UserError("the model gives NaN or infinite numbers: its training has diverged; `vaelab doctor` says more")


@torch.no_grad()
def encode_all(model: VAE, images: Images) -> Normal:
    """The posteriors of all images, with parameters (N, D)."""
    posteriors = [model.encode(batch.x) for batch in batches(model, images)]
    return Normal(torch.cat([q.mean for q in posteriors]), torch.cat([q.logvar for q in posteriors]))


@torch.no_grad()
def fit_global_params(model: VAE, images: Images) -> None:
    """Set the parameters that all pixels share to their best values, where the loss does not train them.

    Args:
        model: The model; it is changed.
        images: Training images, of which as many are used as fit into one batch.
    """
    if model.distortion.trains_global_params:
        return
    count = max(8, BATCH_VALUES // math.prod(images.shape))
    [batch] = batches(model, images.evenly_spaced(count), count)
    fitted = model.distortion.fit(model(batch.x, batch.noise).params, batch.x)
    if fitted is not None:
        model.shared.copy_(fitted)


def likelihood_of(model: VAE, objective: Objective) -> Likelihood | None:
    """The likelihood that a loss stands for at the KL weight it was trained with; None if there is none."""
    return model.distortion.as_likelihood(objective.effective_kl_weight(model.shape, model.latent_dim))


def elbo_terms(model: VAE, objective: Objective, output: VAEOutput, x: Tensor) -> dict[str, Tensor]:
    """The terms of the bound for each image.

    Args:
        model: The model.
        objective: The objective that it was trained with; the likelihood may depend on its KL weight.
        output: What the model gave for the images.
        x: The images, (B, C, H, W).

    Returns:
        cross_entropy, squared_error, kl and, where there is a bound, negative_elbo, (B,) each.
    """
    logits = output.params._replace(pixels=model.distortion.logits(output.params))
    kl = model.rate(output)
    squared_error = (model.distortion.mean(output.params) - x).square().flatten(1).sum(1)
    terms = {"cross_entropy": CrossEntropy()(logits, x), "squared_error": squared_error, "kl": kl}
    likelihood = likelihood_of(model, objective)
    if isinstance(likelihood, CrossEntropy):
        terms["negative_elbo"] = kl + terms["cross_entropy"]
    elif likelihood is not None:
        terms["negative_elbo"] = kl - likelihood.log_prob(output.params, x)
    return terms


def bits_per_dim(model: VAE, objective: Objective, output: VAEOutput, batch: Batch) -> dict[str, Tensor]:
    r"""The bound in bits per pixel value of the stored, 256-level images, (B,); empty where no likelihood gives one.

    For a probability of levels it is negative_elbo / (C H W log 2). For a density p it is that of (255 x + u) / 256, u
    uniform in [0, 1), plus 8: by Jensen's inequality E_u log p bounds the log probability of the level.

    Source: A note on the evaluation of generative models, arXiv 1511.01844.
    """
    likelihood = likelihood_of(model, objective)
    if likelihood is None or likelihood.support == "binary":
        return {}
    x, offset = batch.x, 0
    if likelihood.support == "continuum":
        u = torch.stack([torch.rand(model.shape, generator=generator("dequantise", row)) for row in batch.rows])
        x, offset = (255 * x + u.to(x)) / 256, 8
    nats = model.rate(output) - likelihood.log_prob(output.params, x)
    return {"bits_per_dim": nats / (math.log(2) * math.prod(model.shape)) + offset}


@torch.no_grad()
def validate(model: VAE, objective: Objective, images: Images) -> dict[str, float]:
    """The terms that a row of history holds, at the loss weights of the end of training.

    Args:
        model: The model.
        objective: What it is trained with.
        images: What to measure it on.

    Returns:
        The loss, the further terms of the objective and the terms of the bound, as means over images.
    """
    moments = RunningMoments()
    totals: dict[str, float] = defaultdict(float)
    for batch, terms in batch_terms(model, objective, images):
        moments.add(elbo_terms(model, objective, terms.output, batch.x))
        for name, term in {"loss": terms.loss, **terms.extra_terms}.items():
            totals[name] += term.item() * len(batch.x)
    means = {name: total / len(images) for name, total in totals.items()}
    return means | {name: metric.value for name, metric in moments.metrics().items()}


def batch_terms(model: VAE, objective: Objective, images: Images) -> Iterator[tuple[Batch, LossTerms]]:
    """The images in batches, each with the terms of its loss at the loss weights of the end of training."""
    for batch in batches(model, images, max_size=max(8, 512 // objective.num_samples)):
        noise = batch.noise
        if objective.num_samples > 1:
            samples = [noise]
            for sample in range(1, objective.num_samples):
                samples.append(evaluation_noise(batch.rows, model.latent_dim, sample).to(noise))
            noise = torch.stack(samples)
        yield batch, objective(model, batch.x, noise, batch.x.new_ones(()))


@torch.no_grad()
def compute_metrics(
    model: VAE, objective: Objective, images: Images, advance: ProgressCallback | None = None
) -> dict[str, Metric]:
    """The metrics that need no more than one pass over the images, in float32.

    Args:
        model: The model.
        objective: The objective that it was trained with.
        images: The images.
        advance: Is called with the number of images that are done.

    Returns:
        The metrics by name, with standard errors over images.
    """
    moments, total_loss, posteriors = RunningMoments(), 0.0, []
    ratios: dict[str, list[RatioTerms]] = defaultdict(list)
    has_grey_levels = not is_binary(images)
    for batch, terms in batch_terms(model, objective, images):
        total_loss += terms.loss.item() * len(batch.x)
        q = terms.output.q
        output_of_mean = VAEOutput(q, q.mean, model.decode(q.mean))
        moments.add(elbo_terms(model, objective, terms.output, batch.x))
        if has_grey_levels:
            moments.add(bits_per_dim(model, objective, terms.output, batch))
        terms_of_mean = elbo_terms(model, objective, output_of_mean, batch.x)
        moments.add({f"{name}_of_mean": term for name, term in terms_of_mean.items() if name != "kl"})
        reconstruction = model.distortion.mean(output_of_mean.params).clamp(0, 1)
        moments.add(reconstruction_values(reconstruction, batch.x))
        for name, of_batch in ratio_terms(reconstruction, batch.x).items():
            ratios[name].append(of_batch)
        posteriors.append(q)
        if advance is not None:
            advance(batch.start + len(batch.x))
    metrics = {"loss": Metric(total_loss / len(images))} | _with_undefined_noted(moments, len(images))
    metrics |= _ratios_of_sums(ratios, images.shape)
    q = Normal(torch.cat([q.mean for q in posteriors]), torch.cat([q.logvar for q in posteriors]))
    for name, (_, function) in posterior_metrics().items():
        metrics[name] = Metric(function(q))
    return metrics


def reconstruction_values(reconstruction: Tensor, x: Tensor) -> dict[str, Tensor]:
    """The catalogue's metrics of reconstructions, each for the images that it is defined for."""
    values = {}
    for name, (info, function) in reconstruction_metrics().items():
        value = function(reconstruction, x)
        values[name] = value[~value.isnan()] if info.undefined_for else value
    return values


def _with_undefined_noted(moments: RunningMoments, count: int) -> dict[str, Metric]:
    """The means over images. Where a metric is undefined for some images, a note says for how many."""
    metrics = moments.metrics()
    for name, (info, _) in reconstruction_metrics().items():
        defined = moments.count(name)
        if name in metrics and defined < count:
            left_out = count_text(count - defined, f"image {info.undefined_for}", f"images {info.undefined_for}")
            metrics[name] = replace(metrics[name], n=defined, note=f"{left_out} left out")
    return metrics


def _ratios_of_sums(ratios: Mapping[str, Sequence[RatioTerms]], shape: Shape) -> dict[str, Metric]:
    """The ratios over all images from the terms of batches, as far as they are defined."""
    metrics = {}
    for name, parts in ratios.items():
        metric = ratio_metric_of(joined_terms(parts), size_note(shape, ratio_metrics()[name][0].max_side))
        if metric is not None:
            metrics[name] = metric
    return metrics


@posterior_metric(MetricInfo("active_units", "Active units", format="d", in_figure=False))
def count_active_units(q: Normal) -> int:
    """The active units of posteriors with parameters (N, D)."""
    return active_units(q.mean)


def active_units(means: Tensor, threshold: float = ACTIVE_VARIANCE) -> int:
    """The number of latent dimensions whose posterior mean varies over the data, Var_x E[z_d|x] > threshold.

    Args:
        means: Posterior means, (N, D).
        threshold: The variance above which a dimension is active.

    Source: Importance Weighted Autoencoders, section 5.2, arXiv 1509.00519.

    Example:
        >>> active_units(torch.tensor([[0.0, 1.0], [0.1, -1.0]]))
        1
    """
    return int((means.var(0, unbiased=False) > threshold).sum())


def metric_notes(distortion: Distortion, metrics: Mapping[str, Metric], images: Images) -> dict[str, str]:
    """What must be said of metrics, by name."""
    if not isinstance(distortion, CrossEntropy) or is_binary(images):
        return {}
    return {name: GREY_CROSS_ENTROPY_NOTE for name in metrics if name.startswith("negative_elbo")}


def replacement_notes(metrics: Mapping[str, Metric]) -> dict[str, str]:
    """What must be said of metrics that have been replaced by better ones, by name."""
    notes = {}
    for name, metric in metrics.items():
        info = metric_info(name)
        if info.replaced_by:
            note = f"{info.replaced_because}: better {info.replaced_by}"
            notes[name] = f"{metric.note}; {note}" if metric.note else note
    return notes


def evaluate_model(run: str, model: VAE, objective: Objective, source: str, images: Images) -> Evaluation:
    """The metrics of a run's model on images, as training stores them and `evaluate` prints them.

    Args:
        run: The key of the run.
        model: Its model.
        objective: The objective that it was trained with.
        source: The name of the data.
        images: The images.

    Returns:
        The evaluation.
    """
    with progress(f"evaluating {images.split}", len(images)) as advance:
        metrics = compute_metrics(model, objective, images, advance)
    q = encode_all(model, images)
    noise = evaluation_noise(images.rows, model.latent_dim).to(q.mean)
    metrics |= aggregate_posterior_metrics(q, noise, model.prior)
    notes = replacement_notes(metrics) | metric_notes(model.distortion, metrics, images)
    for name, note in notes.items():
        metrics[name] = replace(metrics[name], note=note)
    kl_per_dimension = model.prior.kl_per_dimension(q, q.sample(noise)).double().mean(0).tolist()
    return Evaluation(run, source, images.split, len(images), metrics, kl_per_dimension)
