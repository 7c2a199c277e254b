r"""Metrics: (model, images) -> numbers with their standard errors over images.

    negative_elbo = E_q[-log p(x|z)] + KL(q(z|x) || p(z))        in nats per image, one posterior sample

at KL weight 1 whatever weight was trained, with the density that the trained loss stands for, constants included. Names
end in `_of_mean` where the posterior mean is decoded in place of a sample: usually a lower figure, and no bound.
Evaluation draws its noise from the index of the image: the same images give the same numbers, whatever the batch size,
and models of one latent dimension are compared on the same noise.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from vaelab.core.console import ProgressCallback, progress
from vaelab.core.rng import evaluation_noise, generator
from vaelab.datasets.images import Images, is_binary
from vaelab.evaluation.image_quality import reconstruction_metrics
from vaelab.evaluation.statistics import Metrics, RunningMoments
from vaelab.models.aggregate import decompose_rate, total_correlation
from vaelab.models.densities import Normal
from vaelab.models.likelihoods import CrossEntropy, Distortion, Likelihood
from vaelab.models.priors import PriorDensity
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
    "fit_global_params",
    "likelihood_of",
    "metric_notes",
    "metrics_record",
    "validate",
]

BATCH_VALUES = 2**22  # pixel values that are evaluated at once

AGGREGATE_CODES, TOTAL_CORRELATION_POSTERIORS = (
    500,
    2000,
)  # codes whose density under the aggregate is measured; posteriors that mix for a TC

ACTIVE_VARIANCE = 0.01  # variance of the posterior mean above which a latent dimension is active


class Batch(NamedTuple):
    """Some images x (B, C, H, W) in [0, 1], from index `start` on, with their row numbers and their noise (B, D)."""

    start: int
    x: Tensor
    noise: Tensor
    rows: np.ndarray


def batches(model: VAE, images: Images, max_size: int = 512) -> Iterator[Batch]:
    """The images in order, as many at once as memory likes, at `most` so many: a rule of the shape alone."""
    size = max(8, min(max_size, BATCH_VALUES // math.prod(images.shape)))
    device = next(model.parameters()).device
    for start in range(0, len(images), size):
        x = torch.from_numpy(images.uint8(slice(start, start + size))).to(device).float().div_(255)
        rows = images.rows[start : start + size]
        yield Batch(start, x, evaluation_noise(rows, model.latent_dim).to(device), rows)


@torch.no_grad()
def encode_all(model: VAE, images: Images) -> Normal:
    """The posteriors of all images, with parameters (N, D)."""
    parts = [model.encode(batch.x) for batch in batches(model, images)]
    return Normal(torch.cat([q.mean for q in parts]), torch.cat([q.logvar for q in parts]))


@torch.no_grad()
def fit_global_params(model: VAE, images: Images) -> None:
    """Set the numbers that all pixels share to what suits these training images, where they are not learned."""
    if not model.distortion.trains_global_params:
        most = max(8, BATCH_VALUES // math.prod(images.shape))
        [batch] = batches(model, images.evenly_spaced(most), most)
        fitted = model.distortion.fit(model(batch.x, batch.noise).params, batch.x)
        if fitted is not None:
            model.shared.copy_(fitted)


def likelihood_of(model: VAE, objective: Objective) -> Likelihood | None:
    """The likelihood that the loss of a model stands for at the weight it was trained with, if there is one."""
    return model.distortion.as_likelihood(objective.effective_kl_weight(model.shape))


def elbo_terms(model: VAE, objective: Objective, output: VAEOutput, x: Tensor) -> dict[str, Tensor]:
    """The per-image terms of one pass, each (B,): cross_entropy, squared_error, kl and, where it exists, the bound."""
    logits = output.params._replace(pixels=model.distortion.logits(output.params))
    kl = model.rate(output)
    squared = (model.distortion.mean(output.params) - x).square().flatten(1).sum(1)
    terms = {"cross_entropy": CrossEntropy()(logits, x), "squared_error": squared, "kl": kl}
    likelihood = likelihood_of(model, objective)
    if isinstance(likelihood, CrossEntropy):  # which stands there already
        terms["negative_elbo"] = kl + terms["cross_entropy"]
    elif likelihood is not None:
        terms["negative_elbo"] = kl - likelihood.log_prob(output.params, x)
    return terms


def bits_per_dim(model: VAE, objective: Objective, output: VAEOutput, batch: Batch) -> dict[str, Tensor]:
    r"""The bound in bits per pixel value of the stored, 256-level images, (B,), where the likelihood gives one.

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
    """The terms that a row of history holds, over `images`, at the weights of the end of training."""
    sums, totals = RunningMoments(), Counter[str]()
    for batch, terms in batch_terms(model, objective, images):
        sums.add(elbo_terms(model, objective, terms.output, batch.x))
        totals.update({n: t.item() * len(batch.x) for n, t in {"loss": terms.loss, **terms.extra_terms}.items()})
    means = {name: total / len(images) for name, total in totals.items()}
    return means | {name: m["value"] for name, m in sums.metrics().items()}


def batch_terms(model: VAE, objective: Objective, images: Images) -> Iterator[tuple[Batch, LossTerms]]:
    """The images in batches, each with its terms at the weights of the end of training."""
    for batch in batches(model, images, max_size=max(8, 512 // objective.num_samples)):
        noise = batch.noise
        if objective.num_samples > 1:
            more = (evaluation_noise(batch.rows, model.latent_dim, k) for k in range(1, objective.num_samples))
            noise = torch.stack([noise, *(n.to(noise) for n in more)])
        yield batch, objective(model, batch.x, noise, batch.x.new_ones(()))


@torch.no_grad()
def compute_metrics(
    model: VAE, objective: Objective, images: Images, advance: ProgressCallback | None = None
) -> Metrics:
    """All metrics of a model on images, in float32, with standard errors over images."""
    sums, loss, means, levels = RunningMoments(), 0.0, [], not is_binary(images)
    for batch, terms in batch_terms(model, objective, images):
        loss += terms.loss.item() * len(batch.x)
        q = terms.output.q
        of_mean = VAEOutput(q, q.mean, model.decode(q.mean))
        sums.add(elbo_terms(model, objective, terms.output, batch.x))
        if levels:
            sums.add(bits_per_dim(model, objective, terms.output, batch))
        sums.add({f"{n}_of_mean": v for n, v in elbo_terms(model, objective, of_mean, batch.x).items() if n != "kl"})
        sums.add(reconstruction_metrics(model.distortion.mean(of_mean.params).clamp(0, 1), batch.x))
        means.append(q.mean)
        if advance is not None:
            advance(batch.start + len(batch.x))
    values = {"loss": {"value": loss / len(images), "stderr": None}} | sums.metrics()
    return values | {"active_units": {"value": active_units(torch.cat(means)), "stderr": None}}


def active_units(means: Tensor, threshold: float = ACTIVE_VARIANCE) -> int:
    """The number of latent dimensions whose posterior mean varies over the data, Var_x E[z_d|x] > threshold.

    Source: Importance Weighted Autoencoders, section 5.2, arXiv 1509.00519.
    """
    return int((means.var(0, unbiased=False) > threshold).sum())


def metric_notes(distortion: Distortion, metrics: Metrics, images: Images) -> dict[str, str]:
    """What must be said beside a number, by metric."""
    grey = isinstance(distortion, CrossEntropy) and not is_binary(images)
    text = "the textbook figure; cross entropy of grey or coloured pixels is no likelihood"
    return {name: text for name in metrics if grey and name.startswith("negative_elbo")}


def metrics_record(run: str, model: VAE, objective: Objective, source: str, images: Images) -> dict[str, Any]:
    """The metrics of a run's model on some images, as `evaluate` gives and metrics.json holds them."""
    with progress(f"evaluating {images.split}", len(images)) as advance:
        values = compute_metrics(model, objective, images, advance)
    q = encode_all(model, images)
    noise = evaluation_noise(images.rows, model.latent_dim).to(q.mean)
    values |= aggregate_posterior_metrics(q, noise, model.prior)
    for name, note in metric_notes(model.distortion, values, images).items():
        values[name]["note"] = note
    kl = model.prior.kl_per_dimension(q, q.sample(noise)).double().mean(0).tolist()
    return {
        "run": run,
        "data": source,
        "split": images.split,
        "n": len(images),
        "metrics": values,
        "kl_per_dimension": kl,
    }


def aggregate_posterior_metrics(q: Normal, noise: Tensor, prior: PriorDensity) -> Metrics:
    """What the codes of all images are together: the two parts of the rate, and how much dimensions know of each other.

    With errors over `AGGREGATED` images; the mixture is of all, that of the total correlation of `CORRELATED`, theirs
    among them.
    """
    count = len(q.mean)
    few = torch.linspace(0, count - 1, min(count, TOTAL_CORRELATION_POSTERIORS)).long()
    some = few[:: math.ceil(len(few) / AGGREGATE_CODES)]
    own = Normal(q.mean[some], q.logvar[some])
    z = own.sample(noise[some])
    sums = RunningMoments()
    sums.add(decompose_rate(own, z, q, prior)._asdict())
    parts = [total_correlation(Normal(q.mean[few], q.logvar[few]), part) for part in z.split(50)]
    sums.add({"total_correlation": torch.cat(parts)})
    metrics = sums.metrics()
    for metric in metrics.values():
        metric["n"] = len(some)
    if metrics["mutual_information"]["value"] > math.log(count) - 1:
        most = f"at most log {count:,} = {math.log(count):.3g} nats can be seen"
        metrics["mutual_information"]["note"] = f"{most}; what is missing here is too much in marginal_kl"
    return metrics
