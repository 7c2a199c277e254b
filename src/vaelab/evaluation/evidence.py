r"""Evidence: log p(x), by importance sampling with the posterior.

    log p(x) = log E_q w,    w = p(x|z) p(z) / q(z|x),    estimated by    log (1/K) sum_k w_k,  z_k ~ q(z|x)

For K = 1 this is the bound. It rises towards the evidence with K and stays below it on average. Each image is encoded
once, and its K codes are decoded in batches that fit into memory. The noise is a function of the row of the image: the
same image gives the same numbers, whatever else is evaluated.

For binary pixels the networks compute in bfloat16 where the processor does. Rounded weights are another model, with
another evidence. To correct for it, p(x|z) of the first samples of each image is also computed in float32, and the
difference is added. What is left is far below the error of sampling (on MNIST 0.001 nats, against 0.013).

The sampling error is that of a jackknife over ten groups of the samples, and so is the corrected estimate, from which
the first-order part of the bias is taken off:

    corrected = G all - (G - 1) mean_g without_g,      error^2 = (G - 1) / G sum_g (without_g - mean)^2

With log-normal weights the jackknife error is within 5 % of the spread of repeated estimates from 600 effective samples
down to 2, where 1 / effective - 1 / K, its first-order approximation, falls to 0.35 of it. Below 10 effective samples
the estimate is still too low by more than its error: it is given without one. `python benchmarks/measures.py` shows it.

Sources: Importance Weighted Autoencoders, arXiv 1509.00519; Debiasing Evidence Approximations, Nowozin 2018 (the
jackknife of the importance weighted bound).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from vaelab.core.console import ProgressCallback, progress
from vaelab.core.devices import has_bfloat16
from vaelab.core.rng import generator
from vaelab.datasets.images import Images
from vaelab.evaluation.metrics import Batch, batches, likelihood_of
from vaelab.evaluation.results import Metric
from vaelab.evaluation.statistics import mean_metric
from vaelab.models.densities import Normal
from vaelab.models.likelihoods import Likelihood
from vaelab.models.vae import VAE
from vaelab.runs.run import Run

__all__ = ["LogEvidence", "evidence_metrics", "evidence_of_weights", "log_evidence", "run_log_evidence"]

VALUES_PER_BATCH = 2**19  # pixel values that are decoded at once: few enough to stay in a processor's cache

MAX_CODES_PER_BATCH = 8192

NOISE_BLOCK_SAMPLES = 500  # samples of an image that share a random number generator

CORRECTION_SAMPLES = 20  # samples of each image that are computed in float32 as well

# Images, and samples of each, of a quick evidence. With 100 samples even digits in 4 dimensions have only 8 effective
# ones in the median, with 500 they have 18.
QUICK_EVIDENCE_BUDGET = 200, 500

MIN_EFFECTIVE_SAMPLES = 10  # below this the bias of the estimate is larger than the error of a mean over images

JACKKNIFE_GROUPS = 10  # of the samples of an image, each left out once


class LogEvidence(NamedTuple):
    """The log evidence of images, in float64.

    Attributes:
        value: log (1/K) sum w, in nats, (N,). On average it is below log p(x): a bound.
        corrected: The same with the first-order part of its bias taken off, (N,). No bound.
        standard_error: The standard error of each estimate from sampling, in nats, (N,).
        effective_sample_size: (sum w)^2 / sum w^2 of each image, at most K, (N,).
    """

    value: Tensor
    corrected: Tensor
    standard_error: Tensor
    effective_sample_size: Tensor

    @property
    def standard_error_of_mean(self) -> float:
        """The standard error, from sampling alone, of the mean over images, in nats."""
        return self.standard_error.square().sum().sqrt().item() / len(self.standard_error)

    @property
    def median_effective_samples(self) -> float:
        """The median over images of the effective samples."""
        return self.effective_sample_size.median().item()

    @property
    def has_enough_samples(self) -> bool:
        """Whether there are enough effective samples for an error that means something."""
        return self.median_effective_samples >= MIN_EFFECTIVE_SAMPLES


def evidence_of_weights(log_weights: Tensor) -> LogEvidence:
    """The log evidence from importance weights.

    Args:
        log_weights: log w of K samples of each of N images, (K, N), K at least 2.

    Example:
        >>> found = evidence_of_weights(torch.tensor([[0.0], [0.0], [0.0]]))
        >>> found.value.item(), found.standard_error.item(), round(found.effective_sample_size.item(), 6)
        (0.0, 0.0, 3.0)
    """
    log_w = log_weights.double()
    count = len(log_w)
    num_groups = min(JACKKNIFE_GROUPS, count)
    log_sums = torch.stack([log_w[group::num_groups].logsumexp(0) for group in range(num_groups)])
    sizes = torch.tensor([len(range(group, count, num_groups)) for group in range(num_groups)], dtype=torch.float64)
    log_sum = log_sums.logsumexp(0)
    value = log_sum - math.log(count)
    without = []
    for group in range(num_groups):
        others = torch.arange(num_groups) != group
        without.append(log_sums[others].logsumexp(0) - (count - sizes[group]).log())
    estimates = torch.stack(without)
    corrected = num_groups * value - (num_groups - 1) * estimates.mean(0)
    error = ((num_groups - 1) * estimates.var(0, unbiased=False)).sqrt()
    return LogEvidence(value, corrected, error, (2 * log_sum - (2 * log_w).logsumexp(0)).exp())


class EvidenceModels(NamedTuple):
    """The model that samples are decoded with, and the float32 model that corrects it where it is in bfloat16."""

    sampled: VAE
    exact: VAE | None


@torch.no_grad()
def log_evidence(
    model: VAE, likelihood: Likelihood, images: Images, samples: int, advance: ProgressCallback | None = None
) -> LogEvidence:
    """Estimate the log evidence of images.

    Args:
        model: The model.
        likelihood: Its likelihood p(x|z).
        images: The images.
        samples: The samples K of the posterior of each image.
        advance: Is called with the number of images that are done.

    Returns:
        The estimates, one for each image.
    """
    uses_bfloat16 = likelihood.support == "binary" and has_bfloat16(str(model.shared.device))
    models = EvidenceModels(model.bfloat16_copy(), model) if uses_bfloat16 else EvidenceModels(model, None)
    images_at_once = max(1, codes_per_batch(model) // min(samples, NOISE_BLOCK_SAMPLES))
    estimates = torch.empty(len(LogEvidence._fields), len(images), dtype=torch.float64)
    done = 0
    for batch in batches(models.sampled, images):
        q = models.sampled.encode(batch.x)
        for start in range(0, len(batch.x), images_at_once):
            part = slice(start, start + images_at_once)
            part_batch = Batch(start, batch.x[part], batch.noise[part], batch.rows[part])
            part_q = Normal(q.mean[part], q.logvar[part])
            estimate = _estimate_batch(models, likelihood, part_batch, part_q, samples)
            # Copied into one tensor: many small tensors that are kept would fragment the memory, by gigabytes.
            estimates[:, done : done + len(part_batch.x)] = torch.stack(estimate)
            done += len(part_batch.x)
            if advance is not None:
                advance(done)
    return LogEvidence(*estimates)


def codes_per_batch(model: VAE) -> int:
    """How many codes are decoded together: a rule of the shape alone."""
    return max(1, min(MAX_CODES_PER_BATCH, VALUES_PER_BATCH // math.prod(model.shape)))


def _estimate_batch(
    models: EvidenceModels, likelihood: Likelihood, batch: Batch, q: Normal, samples: int
) -> LogEvidence:
    """The evidence of a few images."""
    x = batch.x
    correction = torch.zeros(len(x), dtype=torch.float64)
    max_samples = max(1, codes_per_batch(models.sampled) // len(x))
    log_weights = []
    for chunk, noise_chunk in enumerate(_noise_chunks(batch.rows, q.mean.shape[1], samples, max_samples)):
        noise = noise_chunk.to(x)
        z = q.sample(noise)  # (K, B, D)
        log_ratio = models.sampled.prior.log_ratio(q, z, noise)  # log p(z) - log q(z|x)
        log_w = (likelihood.log_prob(models.sampled.decode(z), x) + log_ratio).cpu().double()
        if chunk == 0 and models.exact is not None:
            exact_log_prob = likelihood.log_prob(models.exact.decode(z[:CORRECTION_SAMPLES]), x)
            exact_log_w = (exact_log_prob + log_ratio[:CORRECTION_SAMPLES]).cpu().double()
            correction = exact_log_w.logsumexp(0) - log_w[:CORRECTION_SAMPLES].logsumexp(0)
        log_weights.append(log_w)
    found = evidence_of_weights(torch.cat(log_weights))
    return found._replace(value=found.value + correction, corrected=found.corrected + correction)


def _noise_chunks(rows: np.ndarray, latent_dim: int, samples: int, max_samples: int) -> Iterator[Tensor]:
    """The noise of images with these row numbers, in chunks (K, B, D) of at most `max_samples` samples."""
    for start in range(0, samples, NOISE_BLOCK_SAMPLES):
        block_shape = min(NOISE_BLOCK_SAMPLES, samples - start), latent_dim
        noise_of_images = [torch.randn(block_shape, generator=generator("evidence", row, start)) for row in rows]
        yield from torch.stack(noise_of_images, 1).split(max_samples)


def run_log_evidence(run: Run, images: Images, samples: int) -> LogEvidence | None:
    """The log evidence of images under a run's model; None where its loss stands for no likelihood."""
    likelihood = likelihood_of(run.model, run.spec.objective)
    if likelihood is None:
        return None
    with progress(f"log evidence, {samples:,} samples for each image", len(images)) as advance:
        return log_evidence(run.model, likelihood, images, samples, advance)


def evidence_metrics(run: Run, images: Images, samples: int | None) -> dict[str, Metric]:
    """The negative log evidence of images with the error of sampling, and the effective samples.

    Args:
        run: The run.
        images: The images.
        samples: Samples for each image; None measures some of the images with a few samples; 0 measures nothing.

    Returns:
        negative_log_evidence in nats per image, which is a bound, negative_log_evidence_corrected without the
        first-order part of its bias, and effective_samples; empty without a likelihood. With fewer than ten effective
        samples in the median the first two have no error.
    """
    if samples is None:
        max_images, samples = QUICK_EVIDENCE_BUDGET
        images = images.evenly_spaced(max_images)
    evidence = run_log_evidence(run, images, samples) if samples else None
    if evidence is None:
        return {}
    effective = f"{evidence.median_effective_samples:.3g} of them effective in the median"
    note = f"{len(images):,} images with {samples:,} samples each, {effective}; "
    if evidence.has_enough_samples:
        note += f"error of sampling {evidence.standard_error_of_mean:.2g}"
    else:
        note += "with so few the truth is lower by more than any error that could be given: take more samples"

    def metric(values: Tensor) -> Metric:
        mean = replace(mean_metric(values), n=len(images), samples=samples, note=note)
        if not evidence.has_enough_samples:
            return replace(mean, stderr=None)
        return replace(mean, sampling_error=evidence.standard_error_of_mean)

    return {
        "negative_log_evidence": metric(-evidence.value),
        "negative_log_evidence_corrected": metric(-evidence.corrected),
        "effective_samples": replace(mean_metric(evidence.effective_sample_size), n=len(images)),
    }
