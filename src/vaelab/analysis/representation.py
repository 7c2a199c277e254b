"""Representations of images: codes, pixels and features, their projections and how well they separate categories."""

from __future__ import annotations

import numpy as np

from vaelab.analysis.projections import compute_projection, kmeans, pca
from vaelab.analysis.results import AnalysisResult
from vaelab.analysis.separability import (
    LabelledPoints,
    canonical_correlations,
    cluster_agreement,
    distance_ratio,
    separability,
)
from vaelab.core.console import progress
from vaelab.datasets.images import Images
from vaelab.evaluation.metrics import encode_all
from vaelab.evaluation.results import Metric
from vaelab.evaluation.statistics import jackknife_error, proportion_metric
from vaelab.runs.run import Run

__all__ = ["flat_pixels", "mean_cca", "project_representation", "separability_metrics"]

MAX_PROBE_IMAGES = 10_000  # training images to which a probe is fitted, at most


def separability_metrics(run: Run, images: Images, probe_images: Images | None) -> dict[str, Metric]:
    """How well categories are separated in codes, in pixels, and in as many principal components of pixels.

    Args:
        run: The run whose codes are measured.
        images: The images; those without a label do not count.
        probe_images: Training images, which the linear probe is fitted to. Without them there is no probe.

    Returns:
        codes_ari, codes_nmi, codes_ami, codes_neighbour, codes_probe, and the same of raw and pca, each with its
        standard error over images; empty for fewer than two categories.
    """
    images = images.select(images.label() >= 0)
    if np.unique(images.label()).size < 2:
        return {}
    image_sets = [images]
    if probe_images is not None:
        labelled = probe_images.select(probe_images.label() >= 0)
        image_sets.append(labelled.evenly_spaced(MAX_PROBE_IMAGES))
    pixels = [flat_pixels(image_set) for image_set in image_sets]
    scores, _ = pca(np.concatenate(pixels), min(run.model.latent_dim, pixels[0].shape[1]))
    representations = {
        "codes": [encode_all(run.model, image_set).mean.numpy() for image_set in image_sets],
        "raw": pixels,
        "pca": [scores[: len(images)], scores[len(images) :]],
    }
    metrics = {}
    with progress("measuring separability", len(representations)) as advance:
        for done, (name, points) in enumerate(representations.items(), 1):
            labelled_points = [LabelledPoints(p, s.label()) for p, s in zip(points, image_sets, strict=False)]
            for quantity, metric in _with_errors(*labelled_points, num_clusters=len(images.categories)).items():
                metrics[f"{name}_{quantity}"] = metric
            advance(done, name)
    return metrics


def _with_errors(test: LabelledPoints, probe: LabelledPoints | None = None, *, num_clusters: int) -> dict[str, Metric]:
    """The separability of one representation with standard errors over images."""
    clusters = kmeans(test.points, num_clusters)
    numbers = separability(test, clusters, probe)
    metrics = {}
    for name in ("ari", "nmi", "ami"):

        def agreement(kept: np.ndarray, name: str = name) -> float:
            return cluster_agreement(clusters[kept], test.labels[kept])[name]

        metrics[name] = Metric(numbers[name], jackknife_error(agreement, len(test.labels)))
    for name in ("neighbour", "probe"):
        if name in numbers:
            metrics[name] = proportion_metric(numbers[name], len(test.labels))
    return metrics


def flat_pixels(images: Images) -> np.ndarray:
    """The pixels in [0, 1], float32 (N, C H W)."""
    return images.uint8().reshape(len(images), -1).astype(np.float32) / 255


def project_representation(
    name: str, test: LabelledPoints, probe: LabelledPoints, num_clusters: int, seed: int
) -> AnalysisResult:
    """Project a representation with PCA, k-means and t-SNE, and measure how well it separates the categories.

    Args:
        name: The representation, such as `codes`; numbers and arrays are called NAME_...
        test: The points to show and to measure.
        probe: Other points, which the linear probe is fitted to.
        num_clusters: The clusters of k-means.
        seed: Of k-means and t-SNE.

    Returns:
        The numbers of `separability`, with the distance ratio in the plane of t-SNE, and the arrays of `Projection`.
    """
    projection = compute_projection(test.points, num_clusters, seed, f"t-SNE of {name}")
    arrays = {f"{name}_{view}": np.ascontiguousarray(array) for view, array in projection._asdict().items()}
    numbers = separability_numbers(name, test, probe, projection.clusters)
    known = test.labels >= 0
    if known.any():
        numbers[f"{name}_tsne_ratio"] = distance_ratio(projection.tsne[known], test.labels[known])
    return AnalysisResult(numbers, arrays)


def separability_numbers(
    name: str, test: LabelledPoints, probe: LabelledPoints, clusters: np.ndarray
) -> dict[str, float]:
    """The numbers of `separability` with the name of the representation before them."""
    numbers = separability(test, clusters, probe) if probe.has_categories else {}
    return {f"{name}_{quantity}": value for quantity, value in numbers.items()}


def mean_cca(first: np.ndarray, second: np.ndarray) -> float:
    """The mean canonical correlation of two score matrices of the same points, (N, A) and (N, B)."""
    return float(canonical_correlations(first, second).mean())
