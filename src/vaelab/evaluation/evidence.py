r"""Evidence: log p(x), by importance sampling with the posterior.

    log p(x) = log E_q w,    w = p(x|z) p(z) / q(z|x),    estimated by    log (1/K) sum_k w_k,  z_k ~ q(z|x)

For K = 1 this is the bound; it rises towards the evidence with K and stays below it on average. Each image is encoded
once, and its K codes are decoded in batches that fit into memory. Noise is named by the row of the image: the same
image gives the same numbers, whatever it is evaluated with.

Of binary pixels the networks compute in bfloat16 where the processor does. Rounded weights are another model, whose
evidence differs: by how much, the first samples of each image tell, for which p(x|z) is computed in float32 as well.
That difference is added; what is left is far below the error of sampling (on MNIST 0.001 nats beside 0.013).

Source: Importance Weighted Autoencoders, arXiv 1509.00519.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from vaelab.core.console import ProgressCallback, progress
from vaelab.core.devices import has_bfloat16
from vaelab.core.rng import generator
from vaelab.datasets.images import Images
from vaelab.evaluation.metrics import Batch, batches, likelihood_of
from vaelab.evaluation.statistics import Metrics, mean_and_error
from vaelab.models.densities import Normal
from vaelab.models.likelihoods import Likelihood
from vaelab.models.vae import VAE
from vaelab.runs.run import Run

__all__ = ["LogEvidence", "evidence_metrics", "log_evidence"]

VALUES_PER_BATCH = 2**19  # pixel values that are decoded at once: few enough to stay in a processor's cache

NOISE_BLOCK_SAMPLES = 500  # samples of an image that share a stream of noise

CORRECTION_SAMPLES = 20  # samples by which the evidence in bfloat16 is held against that in float32


class LogEvidence(NamedTuple):
    """Of each image (N,), in float64: log p(x) in nats, the standard error of its estimate, the effective samples.

    Effective samples are (sum w)^2 / sum w^2, at most K; the standard error of log (1/K) sum w is, to first order,
    sqrt(1 / effective - 1 / K) at large K. Where few samples are effective, the estimate is too low, by about half of
    its squared standard error and more where the weights have heavy tails.
    """

    value: Tensor
    standard_error: Tensor
    effective_sample_size: Tensor

    @property
    def standard_error_of_mean(self) -> float:
        """The standard error, from sampling alone, of the mean over images."""
        return self.standard_error.square().sum().sqrt().item() / len(self.standard_error)


@torch.no_grad()
def log_evidence(
    model: VAE, likelihood: Likelihood, images: Images, samples: int, advance: ProgressCallback | None = None
) -> LogEvidence:
    """The log evidence of images by so many samples each; progress counts images."""
    lower = likelihood.support == "binary" and has_bfloat16(str(model.shared.device))
    exact, model = model if lower else None, model.bfloat16_copy() if lower else model
    together = max(1, codes_per_batch(model) // min(samples, NOISE_BLOCK_SAMPLES))
    found, done = torch.empty(3, len(images), dtype=torch.float64), 0
    for batch in batches(model, images):
        q = model.encode(batch.x)
        for start in range(0, len(batch.x), together):
            some = slice(start, start + together)
            part = Batch(start, batch.x[some], batch.noise[some], batch.rows[some])
            estimate = _estimate_batch((model, exact), likelihood, part, Normal(q.mean[some], q.logvar[some]), samples)
            # Copied: small tensors that are kept keep apart the memory between them, gigabytes of it in the end.
            found[:, done : done + len(part.x)] = torch.stack(estimate)
            done += len(part.x)
            if advance is not None:
                advance(done)
    return LogEvidence(*found)


def codes_per_batch(model: VAE) -> int:
    """How many codes are decoded together: a rule of the shape alone."""
    return max(1, min(8192, VALUES_PER_BATCH // math.prod(model.shape)))


def _estimate_batch(
    models: tuple[VAE, VAE | None], likelihood: Likelihood, batch: Batch, q: Normal, samples: int
) -> LogEvidence:
    """The evidence of a few images, from running sums of w and w^2, both as logarithms.

    The second model, if any, is the one that is meant.
    """
    (model, exact), x, rows = models, batch.x, batch.rows
    first = torch.full((len(x),), -math.inf, dtype=torch.float64)
    second, shift = first.clone(), torch.zeros_like(first)
    for i, drawn in enumerate(_noise_chunks(rows, q.mean.shape[1], samples, max(1, codes_per_batch(model) // len(x)))):
        noise = drawn.to(x)
        z = q.sample(noise)  # (K, B, D)
        log_ratio = model.prior.log_ratio(q, z, noise)  # log p(z) - log q(z|x)
        weights = (likelihood.log_prob(model.decode(z), x) + log_ratio).cpu().double()
        if i == 0 and exact is not None:
            few = z[:CORRECTION_SAMPLES]
            meant = (likelihood.log_prob(exact.decode(few), x) + log_ratio[:CORRECTION_SAMPLES]).cpu().double()
            shift = meant.logsumexp(0) - weights[:CORRECTION_SAMPLES].logsumexp(0)
        first = torch.logaddexp(first, weights.logsumexp(0))
        second = torch.logaddexp(second, (2 * weights).logsumexp(0))
    effective = (2 * first - second).exp()
    variance = ((samples / effective - 1) / max(samples - 1, 1)).clamp(min=0)
    return LogEvidence(first + shift - math.log(samples), variance.sqrt(), effective)


def _noise_chunks(rows: np.ndarray, latent_dim: int, samples: int, max_samples: int) -> Iterator[Tensor]:
    """The noise of images with these row numbers, (K, B, D), in parts of at most `most` samples, whatever they are."""
    for start in range(0, samples, NOISE_BLOCK_SAMPLES):
        shape = min(NOISE_BLOCK_SAMPLES, samples - start), latent_dim
        drawn = [torch.randn(shape, generator=generator("evidence", row, start)) for row in rows]
        yield from torch.stack(drawn, 1).split(max_samples)


QUICK_EVIDENCE_BUDGET = 500, 100  # images and samples of a quick evidence

MIN_EFFECTIVE_SAMPLES = 10  # effective samples, below which the estimate is biased by more than its error


def evidence_metrics(run: Run, images: Images, samples: int | None) -> Metrics:
    """The negative log evidence of images, with the error of sampling, and the effective samples.

    With `samples` None, of some images by some samples; with 0, or without a likelihood, none.
    """
    if samples is None:
        images, samples = images.evenly_spaced(QUICK_EVIDENCE_BUDGET[0]), QUICK_EVIDENCE_BUDGET[1]
    likelihood = likelihood_of(run.model, run.spec.objective)
    if likelihood is None or not samples:
        return {}
    with progress(f"log evidence, {samples} samples an image", len(images)) as advance:
        found = log_evidence(run.model, likelihood, images, samples, advance)
    sampling = found.standard_error_of_mean
    effective = found.effective_sample_size.median().item()
    note = (
        f"{len(images):,} images with {samples:,} samples each, {effective:.3g} of them effective in the median; "
        f"error of sampling {sampling:.2g}"
    )
    if effective < MIN_EFFECTIVE_SAMPLES:
        note += "; with so few the truth is lower"
    extra = {"n": len(images), "samples": samples, "sampling_error": sampling, "note": note}
    return {
        "negative_log_evidence": mean_metric(-found.value) | extra,
        "effective_samples": mean_metric(found.effective_sample_size) | {"n": len(images)},
    }


def mean_metric(values: Tensor) -> dict[str, Any]:
    return mean_and_error(len(values), values.sum().item(), values.square().sum().item())
