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

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vaelab.analysis.baseline import baseline_dir, open_baseline
from vaelab.core.console import progress
from vaelab.core.errors import UserError
from vaelab.core.rng import generator
from vaelab.datasets.images import Images
from vaelab.evaluation.statistics import Metrics, jackknife_error
from vaelab.models.networks import Shape
from vaelab.models.vae import VAE
from vaelab.runs.run import Run
from vaelab.runs.spec import Spec

__all__ = ["frechet_distance", "has_prior_term", "load_inception", "sample_prior", "sample_quality_metrics"]

DISTANCE_IMAGES = 10_000  # images and samples that distances between distributions are measured with, at most


def sample_quality_metrics(run: Run, images: Images, network: Callable[[Tensor], Tensor] | None) -> Metrics:
    """How far prior samples are from images; none where the codes were not drawn to the prior."""
    if not has_prior_term(run.spec, run.model.shape):
        return {}
    against = open_baseline(run.dataset, run.spec.seed, baseline_dir(run))
    images = images.evenly_spaced(DISTANCE_IMAGES)
    train = against.dataset.splits["train"].evenly_spaced(len(images))
    real, seen = (torch.from_numpy(i.uint8()).float().div_(255) for i in (images, train))
    made = sample_prior(run.model, len(images))
    found: Metrics = {}
    if against.classifier is not None:
        eyes = [_extract_features(against.classifier.features, x) for x in (made, real, seen)]
        found["classifier_frechet_distance"] = distance_metric(frechet_distance, eyes[0], eyes[1])
        found["classifier_frechet_distance_of_train"] = distance_metric(frechet_distance, eyes[2], eyes[1])
        note = "in the features of a small classifier of these data: to compare runs of one data set, and no FID"
        found["classifier_frechet_distance"]["note"] = note
    if network is not None:
        with progress("Inception features", 2 * len(made)) as advance:
            eyes = [
                _extract_features(network, x, 50, lambda done, at=at: advance(at * len(made) + done))
                for at, x in enumerate((made, real))
            ]
        found["frechet_inception_distance"] = distance_metric(frechet_distance, *eyes)
        found["kernel_inception_distance"] = distance_metric(polynomial_kernel_mmd, *eyes)
        note = f"{len(made):,} samples against {len(images):,} images: it falls with their number"
        found["frechet_inception_distance"]["note"] = note
    return found


def distance_metric(
    distance_function: Callable[[np.ndarray, np.ndarray], float], first: np.ndarray, second: np.ndarray
) -> dict[str, Any]:
    count = min(len(first), len(second))
    return {
        "value": distance_function(first, second),
        "stderr": jackknife_error(lambda rest: distance_function(first[rest], second[rest]), count),
    }


def _extract_features(
    network: Callable[[Tensor], Tensor], x: Tensor, size: int = 500, advance: Callable[[int], None] | None = None
) -> np.ndarray:
    parts = []
    with torch.no_grad():
        for part in x.split(size):
            parts.append(network(part).double().numpy())
            if advance is not None:
                advance(size * len(parts))
    return np.concatenate(parts)


def polynomial_kernel_mmd(first: np.ndarray, second: np.ndarray) -> float:
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
        raise UserError(
            f"{file} is no TorchScript file ({reason});\n--inception takes the Inception network of FID as "
            "TorchScript, such as inception-2015-12-05.pt"
        ) from None

    def features(x: Tensor) -> Tensor:
        rgb = x.expand(-1, 3, -1, -1) if x.shape[1] == 1 else x
        return network(rgb.mul(255).round().to(torch.uint8), return_features=True)

    return features


def has_prior_term(spec: Spec, shape: Shape) -> bool:
    """Whether the codes were drawn to the prior at all: with KL weight 0, samples of it mean nothing."""
    return spec.objective.effective_kl_weight(shape) != 0


@torch.no_grad()
def sample_prior(model: VAE, count: int, seed: int = 0) -> Tensor:
    """The mean images of codes drawn from the prior, (count, C, H, W)."""
    noise = torch.randn(count, model.latent_dim, generator=generator(seed, "samples"))
    codes = model.sample_prior(noise)
    return torch.cat([model.decode_mean(part) for part in codes.split(500)])


def frechet_distance(first: np.ndarray, second: np.ndarray) -> float:
    r"""|m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2)) between the Gaussians fitted to two sets of features.

    Source: GANs Trained by a Two Time-Scale Update Rule, arXiv 1706.08500, with the features of our own classifier:
    its unit is no one else's.
    """
    means = [x.mean(0) for x in (first, second)]
    covariances = [np.cov(x, rowvar=False) for x in (first, second)]
    eigenvalues = np.linalg.eigvals(covariances[0] @ covariances[1]).real.clip(0)
    return float(
        np.square(means[0] - means[1]).sum() + sum(np.trace(c) for c in covariances) - 2 * np.sqrt(eigenvalues).sum()
    )
