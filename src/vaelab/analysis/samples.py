r"""Samples of the prior: how far they are from images.

    classifier_frechet_distance             between prior samples and images, in the features of a small classifier of
                                            the same data; `_of_train`: between training images and images, to compare
    ..._corrected                           the same with the bias of few images taken off
    frechet_inception_distance              the same with the Inception network whose weights the user gives
    kernel_inception_distance               a kernel distance in the same features

`evaluate` measures them with standard errors over images, from leaving out a tenth at a time. The analyses of a study
measure the first of them, with fewer samples.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from vaelab.analysis.baseline import baseline_dir, open_baseline
from vaelab.core.console import ProgressCallback, progress
from vaelab.core.errors import UserError
from vaelab.core.rng import generator
from vaelab.datasets.files import require_regular
from vaelab.datasets.images import Images
from vaelab.evaluation.metrics import require_finite
from vaelab.evaluation.results import Metric
from vaelab.evaluation.statistics import jackknife_error
from vaelab.models.networks import Shape
from vaelab.models.vae import VAE
from vaelab.runs.run import Run
from vaelab.runs.spec import Spec

__all__ = [
    "corrected_frechet_distance",
    "extract_features",
    "frechet_distance",
    "has_prior_term",
    "load_inception",
    "polynomial_kernel_mmd",
    "sample_prior",
    "sample_quality_metrics",
]

MAX_DISTANCE_IMAGES = 10_000  # images and samples that distances between distributions are measured with

FEATURE_BATCH_SIZE = 500

INCEPTION_BATCH_SIZE = 50

DECODING_BATCH_SIZE = 500

CLASSIFIER_NOTE = "in the features of a small classifier of these data: to compare runs of one data set, and no FID"

FEW_IMAGES_NOTE = "without the bias of few images, as far as there are more of them than twice the 2,048 features"

FeatureFunction = Callable[[Tensor], Tensor]


def sample_quality_metrics(run: Run, images: Images, inception: FeatureFunction | None) -> dict[str, Metric]:
    """How far prior samples are from images.

    Args:
        run: The run that is sampled.
        images: The images, of which at most 10,000 are used.
        inception: The Inception network of FID, as `load_inception` gives it, or None.

    Returns:
        Distances with standard errors over images; empty where the codes were not trained to follow the prior.
    """
    if not has_prior_term(run.spec, run.model.shape):
        return {}
    baseline = open_baseline(run.dataset, run.spec.seed, baseline_dir(run))
    images = images.evenly_spaced(MAX_DISTANCE_IMAGES)
    real = _to_float(images)
    generated = sample_prior(run.model, len(images))
    metrics: dict[str, Metric] = {}
    if baseline.classifier is not None:
        train = _to_float(baseline.dataset.splits["train"].evenly_spaced(len(images)))
        features = [extract_features(baseline.classifier.features, x) for x in (generated, train, real)]
        for name, distance in (("", frechet_distance), ("_corrected", corrected_frechet_distance)):
            metric = _distance_metric(distance, features[0], features[2])
            metrics[f"classifier_frechet_distance{name}"] = replace(metric, note=CLASSIFIER_NOTE)
            of_train = _distance_metric(distance, features[1], features[2])
            metrics[f"classifier_frechet_distance_of_train{name}"] = of_train
    if inception is not None:
        metrics |= _inception_distances(inception, generated, real)
    return metrics


def _inception_distances(inception: FeatureFunction, generated: Tensor, real: Tensor) -> dict[str, Metric]:
    """FID and KID between samples and images, (N, C, H, W) each."""
    with progress("Inception features", len(generated) + len(real)) as advance:
        generated_features = extract_features(inception, generated, INCEPTION_BATCH_SIZE, advance)
        real_features = extract_features(
            inception, real, INCEPTION_BATCH_SIZE, lambda done, text="": advance(len(generated) + done, text)
        )
    fid = _distance_metric(frechet_distance, generated_features, real_features)
    note = f"{len(generated):,} samples and {len(real):,} images: it falls with their number"
    corrected = Metric(corrected_frechet_distance(generated_features, real_features), note=FEW_IMAGES_NOTE)
    kid = _distance_metric(polynomial_kernel_mmd, generated_features, real_features)
    return {
        "frechet_inception_distance": replace(fid, note=note),
        "frechet_inception_distance_corrected": corrected,
        "kernel_inception_distance": kid,
    }


def _distance_metric(
    distance: Callable[[np.ndarray, np.ndarray], float], first: np.ndarray, second: np.ndarray
) -> Metric:
    """A distance between two sets of features, (N, F) and (M, F), with its jackknife error."""

    def distance_of_subset(kept: np.ndarray) -> float:
        return distance(first[kept], second[kept])

    return Metric(distance(first, second), jackknife_error(distance_of_subset, min(len(first), len(second))))


def extract_features(
    network: FeatureFunction,
    x: Tensor,
    batch_size: int = FEATURE_BATCH_SIZE,
    advance: ProgressCallback | None = None,
) -> np.ndarray:
    """The features of images, computed in batches.

    Args:
        network: Images (B, C, H, W) -> features (B, F).
        x: Images in [0, 1], (N, C, H, W).
        batch_size: The images in a batch.
        advance: Is called with the number of images that are done.

    Returns:
        The features in float64, (N, F).
    """
    features, done = [], 0
    with torch.no_grad():
        for batch in x.split(batch_size):
            features.append(network(batch).double().numpy())
            done += len(batch)
            if advance is not None:
                advance(done)
    return np.concatenate(features)


def _to_float(images: Images) -> Tensor:
    return torch.from_numpy(images.uint8()).float().div_(255)


def polynomial_kernel_mmd(first: np.ndarray, second: np.ndarray) -> float:
    r"""The squared maximum mean discrepancy for the kernel (x . y / F + 1)^3, unbiased.

    Args:
        first: Features, (N, F).
        second: Features, (M, F).

    Source: Demystifying MMD GANs, arXiv 1801.01401.
    """

    def kernel(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return (a @ b.T / a.shape[1] + 1) ** 3

    def mean_of_pairs(a: np.ndarray) -> float:
        values = kernel(a, a)
        return (values.sum() - values.trace()) / (len(a) * (len(a) - 1))

    return float(mean_of_pairs(first) + mean_of_pairs(second) - 2 * kernel(first, second).mean())


def load_inception(file: Path, shape: Shape) -> FeatureFunction:
    """The Inception network of FID from a TorchScript file.

    Args:
        file: Such as inception-2015-12-05.pt.
        shape: (C, H, W) of the images that it will get.

    Returns:
        A function of images (B, C, H, W) in [0, 1] that gives features (B, F).

    Raises:
        UserError: The file is no TorchScript, or its network is another one.
    """
    try:
        require_regular(file)
        with warnings.catch_warnings():  # torch advises against writing such files; FID's network is one
            warnings.simplefilter("ignore", DeprecationWarning)
            network = torch.jit.load(str(file)).eval()
    except (UserError, RuntimeError, ValueError, OSError) as error:
        raise _inception_error(file, f"is no TorchScript file ({_first_line(error)})") from None

    def features(x: Tensor) -> Tensor:
        rgb = x.expand(-1, 3, -1, -1) if x.shape[1] == 1 else x
        return network(rgb.mul(255).round().to(torch.uint8), return_features=True)

    try:
        with torch.no_grad():
            result = features(torch.zeros(2, *shape))
    except (RuntimeError, TypeError, ValueError) as error:
        raise _inception_error(file, f"has a network that takes other images ({_first_line(error)})") from None
    if not isinstance(result, Tensor) or result.ndim != 2 or len(result) != 2:
        raise _inception_error(file, "has a network that gives no features (B, F)")
    return features


def _first_line(error: Exception) -> str:
    """The first line of an error's text, at most 100 characters."""
    return (str(error).splitlines() or [type(error).__name__])[0][:100]


def _inception_error(file: Path, reason: str) -> UserError:
    return UserError(
        f"{file} {reason};\ngive the Inception network of FID as TorchScript, such as inception-2015-12-05.pt"
    )


def has_prior_term(spec: Spec, shape: Shape) -> bool:
    """Whether the codes were trained to follow the prior. With KL weight 0 they were not, and samples mean nothing."""
    return spec.objective.effective_kl_weight(shape, spec.latent_dim) != 0


@torch.no_grad()
def sample_prior(model: VAE, count: int, seed: int = 0) -> Tensor:
    """The mean images of codes drawn from the prior.

    Args:
        model: The model.
        count: How many.
        seed: Of the codes.

    Returns:
        Images in [0, 1], (count, C, H, W).

    Raises:
        UserError: An image is not finite.
    """
    noise = torch.randn(count, model.latent_dim, generator=generator(seed, "samples"))
    codes = model.sample_prior(noise)
    images = torch.cat([model.decode_mean(part) for part in codes.split(DECODING_BATCH_SIZE)])
    require_finite(images)
    return images


def frechet_distance(first: np.ndarray, second: np.ndarray) -> float:
    r"""|m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2)) between the Gaussians fitted to two sets of features.

    Args:
        first: Features, (N, F).
        second: Features, (M, F).

    Source: GANs Trained by a Two Time-Scale Update Rule, arXiv 1706.08500. The unit is that of the features: only with
    those of the Inception network is it FID.

    Example:
        >>> x = np.array([[0.0, 0.0], [2.0, 0.0], [0.0, 2.0]])
        >>> round(frechet_distance(x, x + 3), 6)
        18.0
    """
    means = [features.mean(0) for features in (first, second)]
    covariances = [np.cov(features, rowvar=False) for features in (first, second)]
    eigenvalues = np.linalg.eigvals(covariances[0] @ covariances[1]).real.clip(0)
    traces = sum(np.trace(covariance) for covariance in covariances)
    return float(np.square(means[0] - means[1]).sum() + traces - 2 * np.sqrt(eigenvalues).sum())


def corrected_frechet_distance(first: np.ndarray, second: np.ndarray) -> float:
    r"""The Fréchet distance of as many features on both sides, extrapolated to infinitely many of them.

    With n features on each side the distance is too high by about c / n, also between two sets from one distribution.
    Halves of the sets are too high by twice as much, so 2 d(n) - d(n / 2) is without that bias. It holds for n of more
    than twice the number of features. It may be a little below 0 for equal distributions.

    Args:
        first: Features, (N, F), in an order that makes every second one a fair sample.
        second: Features, (M, F); the larger set is thinned evenly to the size of the smaller one.

    Returns:
        The distance; NaN for fewer than four features on a side.

    Source: Effectively Unbiased FID and Inception Score and where to find them, Chong and Forsyth, arXiv 1911.07023.
    """
    count = min(len(first), len(second))
    if count < 4:
        return float("nan")
    sets = [features[np.linspace(0, len(features) - 1, count).astype(np.int64)] for features in (first, second)]
    halves = [frechet_distance(*(features[start::2] for features in sets)) for start in (0, 1)]
    return 2 * frechet_distance(*sets) - sum(halves) / 2
