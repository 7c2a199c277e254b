r"""Evaluation: what can be measured of a run besides the metrics that training leaves, each with its standard error.

    negative_log_evidence                   -log p(x) by importance sampling, nats per image
    codes_*, raw_*, pca_*                   how well categories are told apart in codes, in pixels, and in as many
                                            principal components of pixels as the code has dimensions
    classifier_frechet_distance             between prior samples and images, as a small classifier of the same data
                                            sees them; `_of_train`: between training images and images, for comparison
    frechet_inception_distance, kernel_...  the same with the Inception network whose weights the user gives

Errors are over images: of means directly, of accuracies binomial, of what is no mean by leaving out a tenth at a time.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vaelab.console import progress
from vaelab.errors import UserError
from vaelab.evidence import log_evidence
from vaelab.examinations import beside, frechet, has_prior, pixels, prior_samples, reference
from vaelab.images import Images
from vaelab.metrics import Metrics, encode_all, likelihood_of, mean_and_error
from vaelab.projections import kmeans, pca
from vaelab.separation import agreement, linear_probe, nearest_neighbour
from vaelab.store import Run

__all__ = ["evidence", "load_inception", "sample_quality", "separations"]

SOME = 500, 100  # images and samples of a quick evidence
FEW = 10  # effective samples, below which the estimate is biased by more than its error
FITTED = 10_000  # training images to which a probe is fitted, at most
GROUPS = 10  # of images, each left out once
SAMPLED = 10_000  # images and samples that distances between distributions are measured with, at most


def evidence(run: Run, images: Images, samples: int | None) -> Metrics:
    """The negative log evidence of images, with the error of sampling, and the effective samples.

    With `samples` None, of some images by some samples; with 0, or without a likelihood, none.
    """
    if samples is None:
        images, samples = images.spread(SOME[0]), SOME[1]
    likelihood = likelihood_of(run.model, run.spec.objective)
    if likelihood is None or not samples:
        return {}
    with progress(f"log evidence, {samples} samples an image", len(images)) as advance:
        found = log_evidence(run.model, likelihood, images, samples, advance)
    sampling = found.error_of_mean
    effective = found.effective.median().item()
    note = (f"{len(images):,} images with {samples:,} samples each, {effective:.3g} of them effective in the median; "
            f"error of sampling {sampling:.2g}")  # fmt: skip
    if effective < FEW:
        note += "; with so few the truth is lower"
    extra = {"n": len(images), "samples": samples, "sampling_error": sampling, "note": note}
    return {"negative_log_evidence": mean(-found.value) | extra,
            "effective_samples": mean(found.effective) | {"n": len(images)}}  # fmt: skip


def mean(values: Tensor) -> dict[str, Any]:
    return mean_and_error(len(values), values.sum().item(), values.square().sum().item())


def separations(run: Run, images: Images, fitted: Images | None) -> Metrics:
    """How well categories are told apart in codes, pixels and principal components; none without two categories.

    `fitted` are training images for the linear probe, which is left out without them.
    """
    known = images.label() >= 0
    images = images.select(known)
    if np.unique(images.label()).size < 2:
        return {}
    sets = [images] + ([fitted.select(fitted.label() >= 0).spread(FITTED)] if fitted is not None else [])
    spaces = {"codes": [encode_all(run.model, s).mean.numpy() for s in sets], "raw": [pixels(s) for s in sets]}
    scores, _ = pca(np.concatenate(spaces["raw"]), min(run.model.latent_dim, spaces["raw"][0].shape[1]))
    spaces["pca"] = [scores[: len(images)], scores[len(images) :]][: len(sets)]
    found: Metrics = {}
    with progress("telling categories apart", len(spaces)) as advance:
        for done, (space, points) in enumerate(spaces.items(), 1):
            found |= {f"{space}_{name}": metric for name, metric in _separation(points, sets).items()}
            advance(done, space)
    return found


def _separation(points: list[np.ndarray], sets: list[Images]) -> Metrics:
    labels = sets[0].label()
    clusters = kmeans(points[0], len(sets[0].categories))
    found = {name: {"value": value, "stderr": jackknife(lambda rest, n=name: agreement(clusters[rest], labels[rest])[n],
                                                        len(labels))}
             for name, value in agreement(clusters, labels).items()}  # fmt: skip
    found["neighbour"] = share(nearest_neighbour(points[0], labels), len(labels))
    if len(points) > 1:
        found["probe"] = share(linear_probe((points[1], sets[1].label()), (points[0], labels)), len(labels))
    return found


def share(part: float, count: int) -> dict[str, Any]:
    """A share of images with its binomial error."""
    return {"value": part, "stderr": math.sqrt(part * (1 - part) / max(count - 1, 1))}


def jackknife(statistic: Callable[[np.ndarray], float], count: int) -> float | None:
    """The standard error of a statistic of images, from leaving out one of ten groups of them at a time."""
    if count < 2 * GROUPS:
        return None
    group = np.arange(count) % GROUPS
    values = np.array([statistic(np.flatnonzero(group != g)) for g in range(GROUPS)])
    return float(np.sqrt((GROUPS - 1) * values.var()))


def sample_quality(run: Run, images: Images, network: Callable[[Tensor], Tensor] | None) -> Metrics:
    """How far prior samples are from images; none where the codes were not drawn to the prior."""
    if not has_prior(run.spec, run.model.shape):
        return {}
    against = reference(run.dataset, run.spec.seed, beside(run))
    images = images.spread(SAMPLED)
    train = against.dataset.splits["train"].spread(len(images))
    real, seen = (torch.from_numpy(i.uint8()).float().div_(255) for i in (images, train))
    made = prior_samples(run.model, len(images))
    found: Metrics = {}
    if against.classifier is not None:
        eyes = [_look(against.classifier.features, x) for x in (made, real, seen)]
        found["classifier_frechet_distance"] = distance(frechet, eyes[0], eyes[1])
        found["classifier_frechet_distance_of_train"] = distance(frechet, eyes[2], eyes[1])
        note = "in the features of a small classifier of these data: to compare runs of one data set, and no FID"
        found["classifier_frechet_distance"]["note"] = note
    if network is not None:
        with progress("Inception features", 2 * len(made)) as advance:
            eyes = [_look(network, x, 50, lambda done, at=at: advance(at * len(made) + done))
                    for at, x in enumerate((made, real))]  # fmt: skip
        found["frechet_inception_distance"] = distance(frechet, *eyes)
        found["kernel_inception_distance"] = distance(kernel_distance, *eyes)
        note = f"{len(made):,} samples against {len(images):,} images: it falls with their number"
        found["frechet_inception_distance"]["note"] = note
    return found


def distance(
    between: Callable[[np.ndarray, np.ndarray], float], first: np.ndarray, second: np.ndarray
) -> dict[str, Any]:
    count = min(len(first), len(second))
    return {
        "value": between(first, second),
        "stderr": jackknife(lambda rest: between(first[rest], second[rest]), count),
    }


def _look(network: Callable[[Tensor], Tensor], x: Tensor, size: int = 500,
          advance: Callable[[int], None] | None = None) -> np.ndarray:  # fmt: skip
    parts = []
    with torch.no_grad():
        for part in x.split(size):
            parts.append(network(part).double().numpy())
            if advance is not None:
                advance(size * len(parts))
    return np.concatenate(parts)


def kernel_distance(first: np.ndarray, second: np.ndarray) -> float:
    r"""The squared maximum mean discrepancy for the kernel (x . y / d + 1)^3, unbiased.

    Source: Demystifying MMD GANs, arXiv 1801.01401.
    """

    def kernel(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return (a @ b.T / a.shape[1] + 1) ** 3

    def own(a: np.ndarray) -> float:
        values = kernel(a, a)
        return (values.sum() - values.trace()) / (len(a) * (len(a) - 1))

    return float(own(first) + own(second) - 2 * kernel(first, second).mean())


def load_inception(file: Path) -> Callable[[Tensor], Tensor]:
    """The Inception network of FID as TorchScript: images (B, C, H, W) in [0, 1] -> features (B, F)."""
    try:
        with warnings.catch_warnings():  # torch would have no one write such files any more; FID's is one
            warnings.simplefilter("ignore", DeprecationWarning)
            network = torch.jit.load(str(file)).eval()
    except (RuntimeError, ValueError, OSError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"{file} is no TorchScript file ({reason});\n--inception takes the Inception network of FID as "
                        "TorchScript, such as inception-2015-12-05.pt") from None  # fmt: skip

    def features(x: Tensor) -> Tensor:
        rgb = x.expand(-1, 3, -1, -1) if x.shape[1] == 1 else x
        return network(rgb.mul(255).round().to(torch.uint8), return_features=True)

    return features
