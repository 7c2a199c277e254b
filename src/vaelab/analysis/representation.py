"""How well categories are separated in a representation: codes, pixels, principal components, classifier features."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from vaelab.analysis.projections import kmeans, panels, pca
from vaelab.analysis.separability import (
    agreement,
    canonical_correlations,
    distance_ratio,
    linear_probe,
    nearest_neighbour,
)
from vaelab.core.console import progress
from vaelab.datasets.images import Images
from vaelab.evaluation.metrics import encode_all
from vaelab.evaluation.statistics import Arrays, Metrics, Numbers, jackknife, share
from vaelab.runs.run import Run

if TYPE_CHECKING:
    from vaelab.analysis.baseline import Reference

__all__ = ["alike", "look_at", "pixels", "separations", "tell_apart"]

FITTED = 10_000  # training images to which a probe is fitted, at most


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
    found = {
        name: {
            "value": value,
            "stderr": jackknife(lambda rest, n=name: agreement(clusters[rest], labels[rest])[n], len(labels)),
        }
        for name, value in agreement(clusters, labels).items()
    }
    found["neighbour"] = share(nearest_neighbour(points[0], labels), len(labels))
    if len(points) > 1:
        found["probe"] = share(linear_probe((points[1], sets[1].label()), (points[0], labels)), len(labels))
    return found


def pixels(images: Images) -> np.ndarray:
    """The pixels in [0, 1], (N, C H W)."""
    return images.uint8().reshape(len(images), -1).astype(np.float32) / 255


def look_at(space: str, tested: np.ndarray, fitted: np.ndarray, against: Reference) -> tuple[Numbers, Arrays]:
    """The three views of a space of points, and how far it tells the categories apart."""
    views = panels(tested, against.clusters, against.seed, f"t-SNE of {space}")
    found = {f"{space}_{name}": np.ascontiguousarray(view) for name, view in views._asdict().items()}
    numbers = tell_apart(space, tested, fitted, against, views.clusters)
    known = against.tested.label() >= 0
    if known.any():
        numbers[f"{space}_tsne_ratio"] = distance_ratio(views.tsne[known], against.tested.label()[known])
    return numbers, found


def tell_apart(space: str, tested: np.ndarray, fitted: np.ndarray, against: Reference, clusters: np.ndarray) -> Numbers:
    """The numbers of one space, of the points that have labels."""
    labels, other = against.tested.label(), against.fitted.label()
    known, those = labels >= 0, other >= 0
    if np.unique(labels[known]).size < 2 or np.unique(other[those]).size < 2:
        return {}
    points, labels = tested[known], labels[known]
    numbers = agreement(clusters[known], labels) | {
        "neighbour": nearest_neighbour(points, labels),
        "probe": linear_probe((fitted[those], other[those]), (points, labels)),
        "ratio": distance_ratio(points, labels),
    }
    return {f"{space}_{name}": value for name, value in numbers.items()}


def alike(first: np.ndarray, second: np.ndarray) -> float:
    """The mean canonical correlation of two matrices of scores."""
    return float(canonical_correlations(first, second).mean())
