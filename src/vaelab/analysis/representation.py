"""How well categories are separated in a representation: codes, pixels, principal components, classifier features."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from vaelab.analysis.projections import compute_projection, kmeans, pca
from vaelab.analysis.separability import (
    canonical_correlations,
    cluster_agreement,
    distance_ratio,
    linear_probe_accuracy,
    nearest_neighbour_accuracy,
)
from vaelab.core.console import progress
from vaelab.datasets.images import Images
from vaelab.evaluation.metrics import encode_all
from vaelab.evaluation.statistics import Arrays, Metrics, Numbers, jackknife_error, proportion_metric
from vaelab.runs.run import Run

if TYPE_CHECKING:
    from vaelab.analysis.baseline import Baseline

__all__ = ["flat_pixels", "mean_cca", "measure_separability", "project", "separability_metrics"]

PROBE_IMAGES = 10_000  # training images to which a probe is fitted, at most


def separability_metrics(run: Run, images: Images, probe_images: Images | None) -> Metrics:
    """How well categories are told apart in codes, pixels and principal components; none without two categories.

    `fitted` are training images for the linear probe, which is left out without them.
    """
    known = images.label() >= 0
    images = images.select(known)
    if np.unique(images.label()).size < 2:
        return {}
    sets = [images] + (
        [probe_images.select(probe_images.label() >= 0).evenly_spaced(PROBE_IMAGES)] if probe_images is not None else []
    )
    spaces = {"codes": [encode_all(run.model, s).mean.numpy() for s in sets], "raw": [flat_pixels(s) for s in sets]}
    scores, _ = pca(np.concatenate(spaces["raw"]), min(run.model.latent_dim, spaces["raw"][0].shape[1]))
    spaces["pca"] = [scores[: len(images)], scores[len(images) :]][: len(sets)]
    found: Metrics = {}
    with progress("telling categories apart", len(spaces)) as advance:
        for done, (space, points) in enumerate(spaces.items(), 1):
            found |= {f"{space}_{name}": metric for name, metric in _space_metrics(points, sets).items()}
            advance(done, space)
    return found


def _space_metrics(points: list[np.ndarray], sets: list[Images]) -> Metrics:
    labels = sets[0].label()
    clusters = kmeans(points[0], len(sets[0].categories))
    found = {
        name: {
            "value": value,
            "stderr": jackknife_error(
                lambda rest, n=name: cluster_agreement(clusters[rest], labels[rest])[n], len(labels)
            ),
        }
        for name, value in cluster_agreement(clusters, labels).items()
    }
    found["neighbour"] = proportion_metric(nearest_neighbour_accuracy(points[0], labels), len(labels))
    if len(points) > 1:
        found["probe"] = proportion_metric(
            linear_probe_accuracy((points[1], sets[1].label()), (points[0], labels)), len(labels)
        )
    return found


def flat_pixels(images: Images) -> np.ndarray:
    """The pixels in [0, 1], (N, C H W)."""
    return images.uint8().reshape(len(images), -1).astype(np.float32) / 255


def project(
    space: str, test_points: np.ndarray, probe_points: np.ndarray, baseline: Baseline
) -> tuple[Numbers, Arrays]:
    """The three views of a space of points, and how far it tells the categories apart."""
    views = compute_projection(test_points, baseline.num_clusters, baseline.seed, f"t-SNE of {space}")
    found = {f"{space}_{name}": np.ascontiguousarray(view) for name, view in views._asdict().items()}
    numbers = measure_separability(space, test_points, probe_points, baseline, views.clusters)
    known = baseline.test_images.label() >= 0
    if known.any():
        numbers[f"{space}_tsne_ratio"] = distance_ratio(views.tsne[known], baseline.test_images.label()[known])
    return numbers, found


def measure_separability(
    space: str, test_points: np.ndarray, probe_points: np.ndarray, baseline: Baseline, clusters: np.ndarray
) -> Numbers:
    """The numbers of one space, of the points that have labels."""
    labels, other = baseline.test_images.label(), baseline.probe_images.label()
    known, those = labels >= 0, other >= 0
    if np.unique(labels[known]).size < 2 or np.unique(other[those]).size < 2:
        return {}
    points, labels = test_points[known], labels[known]
    numbers = cluster_agreement(clusters[known], labels) | {
        "neighbour": nearest_neighbour_accuracy(points, labels),
        "probe": linear_probe_accuracy((probe_points[those], other[those]), (points, labels)),
        "ratio": distance_ratio(points, labels),
    }
    return {f"{space}_{name}": value for name, value in numbers.items()}


def mean_cca(first: np.ndarray, second: np.ndarray) -> float:
    """The mean canonical correlation of two matrices of scores."""
    return float(canonical_correlations(first, second).mean())
