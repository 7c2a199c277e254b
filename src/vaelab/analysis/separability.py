r"""Separation: how well categories are told apart in a space of points, and how alike two spaces are.

For points (N, D) with labels (N,), as numbers between spaces of any dimension:

    ari, nmi      agreement of clusters with the labels, 1 is perfect, 0 is chance
    neighbour     the share of points whose nearest other point is of their category
    probe         the share of points that a linear map, fitted to other points, puts into their category
    ratio         root mean square distance between categories over that within them: 1 is no separation

Canonical correlations of two centred score matrices are the cosines of the principal angles between the spaces that
their columns span: all 1 where one is a linear map of the other (Hotelling 1936).
"""

from __future__ import annotations

import numpy as np
from threadpoolctl import threadpool_limits

__all__ = [
    "canonical_correlations",
    "cluster_agreement",
    "distance_ratio",
    "linear_probe_accuracy",
    "nearest_neighbour_accuracy",
]


def canonical_correlations(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """The cosines of the principal angles between two centred score matrices (N, A) and (N, B)."""
    with threadpool_limits(1):
        bases = [np.linalg.qr(scores - scores.mean(0))[0] for scores in (first, second)]
        return np.linalg.svd(bases[0].T @ bases[1], compute_uv=False).clip(0, 1)


def cluster_agreement(clusters: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Adjusted Rand index and normalised mutual information of clusters and labels."""
    from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score

    return {
        "ari": float(adjusted_rand_score(labels, clusters)),
        "nmi": float(normalized_mutual_info_score(labels, clusters)),
    }


def nearest_neighbour_accuracy(points: np.ndarray, labels: np.ndarray) -> float:
    """The share of points whose nearest other point has their label."""
    from sklearn.neighbors import NearestNeighbors

    with threadpool_limits(1):
        found = NearestNeighbors(n_neighbors=2, algorithm="brute").fit(points).kneighbors(points, return_distance=False)
    own = np.arange(len(points))
    nearest = np.where(found[:, 0] == own, found[:, 1], found[:, 0])  # a twin may come before the point itself
    return float((labels[nearest] == labels).mean())


def linear_probe_accuracy(train: tuple[np.ndarray, np.ndarray], test: tuple[np.ndarray, np.ndarray]) -> float:
    """The accuracy on tested (points, labels) of a ridge classifier of standardised points, fitted to others."""
    from sklearn.linear_model import RidgeClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    with threadpool_limits(1):
        probe = make_pipeline(StandardScaler(), RidgeClassifier(alpha=10.0, solver="cholesky")).fit(*train)
        return float(probe.score(*test))


def distance_ratio(points: np.ndarray, labels: np.ndarray) -> float:
    r"""sqrt(mean |x_i - x_j|^2 over pairs of different labels / the same over pairs of equal labels).

    From means alone: the squared distances among n points sum up to n sum |x_i|^2 - |sum x_i|^2.
    """
    x = points - points.mean(0)

    def pairs(part: np.ndarray) -> tuple[float, float]:
        return len(part) * np.square(part).sum() - np.square(part.sum(0)).sum(), len(part) * (len(part) - 1) / 2

    each = [pairs(x[labels == label]) for label in np.unique(labels)]
    within, count = sum(s for s, _ in each), sum(n for _, n in each)
    total, all_pairs = pairs(x)
    if not within or all_pairs == count:
        return float("nan")
    return float(np.sqrt(((total - within) / (all_pairs - count)) / (within / count)))
