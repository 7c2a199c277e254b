r"""Separability: how well categories are separated in a representation, and how similar two representations are.

For points (N, D) with labels (N,), as numbers that can be compared between representations of any dimension:

    ari, ami      agreement of k-means clusters with the labels, 1 is perfect, 0 is chance
    nmi           the same without the correction for chance: above 0 for random clusters, and the more so, the more
                  clusters there are
    neighbour     the share of points whose nearest other point has their label
    probe         the accuracy of a linear classifier that was fitted to other points
    ratio         root mean square distance between categories over that within them: 1 is no separation

`separability` computes them, for `evaluate` and for the analyses of a study. The canonical correlations of two centred
score matrices are the cosines of the principal angles between the spaces that their columns span: all 1 where one is a
linear map of the other (Relations between two sets of variates, Hotelling 1936).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from threadpoolctl import threadpool_limits

__all__ = [
    "LabelledPoints",
    "canonical_correlations",
    "cluster_agreement",
    "distance_ratio",
    "linear_probe_accuracy",
    "nearest_neighbour_accuracy",
    "separability",
]

RIDGE_PENALTY = 10.0  # of the linear probe, for standardised points


class LabelledPoints(NamedTuple):
    """Points of a representation, (N, D), and their labels, (N,); -1 is unlabelled."""

    points: np.ndarray
    labels: np.ndarray

    @property
    def has_categories(self) -> bool:
        """Whether the labels name at least two categories."""
        return np.unique(self.labels[self.labels >= 0]).size >= 2

    def labelled(self) -> LabelledPoints:
        """The points that have a label."""
        known = self.labels >= 0
        return LabelledPoints(self.points[known], self.labels[known])


def separability(test: LabelledPoints, clusters: np.ndarray, probe: LabelledPoints | None = None) -> dict[str, float]:
    """How well a representation separates the categories.

    Args:
        test: The points that are measured. Those without a label do not count.
        clusters: The k-means cluster of each of them, (N,).
        probe: Other points, which the linear probe is fitted to. Without them there is no `probe`.

    Returns:
        ari, nmi, ami, neighbour, probe and ratio; empty for fewer than two categories.

    Example:
        >>> points = LabelledPoints(np.array([[0.0], [1.0], [8.0], [9.0]]), np.array([0, 0, 1, 1]))
        >>> numbers = separability(points, clusters=np.array([0, 0, 1, 1]))
        >>> numbers["ari"], numbers["neighbour"]
        (1.0, 1.0)
    """
    if not test.has_categories:
        return {}
    known = test.labelled()
    numbers = cluster_agreement(clusters[test.labels >= 0], known.labels)
    numbers["neighbour"] = nearest_neighbour_accuracy(known.points, known.labels)
    if probe is not None and probe.has_categories:
        numbers["probe"] = linear_probe_accuracy(probe.labelled(), known)
    numbers["ratio"] = distance_ratio(known.points, known.labels)
    return numbers


def canonical_correlations(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """The cosines of the principal angles between two score matrices.

    Args:
        first: Scores, (N, A).
        second: Scores of the same points, (N, B).

    Returns:
        The correlations, (min(A, B),), largest first.

    Example:
        >>> x = np.array([[0.0], [1.0], [2.0]])
        >>> canonical_correlations(x, 5 - 2 * x).round(6)
        array([1.])
    """
    with threadpool_limits(1):
        bases = [np.linalg.qr(scores - scores.mean(0))[0] for scores in (first, second)]
        return np.linalg.svd(bases[0].T @ bases[1], compute_uv=False).clip(0, 1)


def cluster_agreement(clusters: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """The adjusted Rand index, the normalised and the adjusted mutual information of clusters (N,) and labels (N,).

    Source of the adjustment for chance: Information Theoretic Measures for Clusterings Comparison, Vinh et al. 2010.

    Example:
        >>> agreement = cluster_agreement(np.array([0, 1, 2, 3]), np.array([0, 0, 1, 1]))
        >>> round(agreement["nmi"], 3), abs(round(agreement["ami"], 3))  # a cluster for each point tells nothing
        (0.667, 0.0)
    """
    from sklearn.metrics import adjusted_mutual_info_score, adjusted_rand_score, normalized_mutual_info_score

    return {
        "ari": float(adjusted_rand_score(labels, clusters)),
        "nmi": float(normalized_mutual_info_score(labels, clusters)),
        "ami": float(adjusted_mutual_info_score(labels, clusters)),
    }


def nearest_neighbour_accuracy(points: np.ndarray, labels: np.ndarray) -> float:
    """The share of points (N, D) whose nearest other point has their label (N,)."""
    from sklearn.neighbors import NearestNeighbors

    with threadpool_limits(1):
        search = NearestNeighbors(n_neighbors=2, algorithm="brute").fit(points)
        neighbours = search.kneighbors(points, return_distance=False)
    itself = np.arange(len(points))
    nearest = np.where(neighbours[:, 0] == itself, neighbours[:, 1], neighbours[:, 0])  # an equal point may come first
    return float((labels[nearest] == labels).mean())


def linear_probe_accuracy(train: LabelledPoints, test: LabelledPoints) -> float:
    """The accuracy of a ridge classifier of standardised points, fitted to `train` and applied to `test`."""
    from sklearn.linear_model import RidgeClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    with threadpool_limits(1):
        classifier = make_pipeline(StandardScaler(), RidgeClassifier(alpha=RIDGE_PENALTY, solver="cholesky"))
        classifier.fit(train.points, train.labels)
        return float(classifier.score(test.points, test.labels))


class PairDistances(NamedTuple):
    """The sum of squared distances over pairs of points, and the number of pairs."""

    total: float
    num_pairs: float


def distance_ratio(points: np.ndarray, labels: np.ndarray) -> float:
    r"""sqrt(mean |x_i - x_j|^2 over pairs of different labels / the same over pairs of equal labels).

    Args:
        points: Points, (N, D).
        labels: Their labels, (N,).

    Returns:
        The ratio; NaN where no two points have different labels, or where those of equal labels coincide.

    Example:
        >>> round(distance_ratio(np.array([[0.0], [2.0], [4.0], [6.0]]), np.array([0, 0, 1, 1])), 3)
        2.121
    """
    x = points - points.mean(0)
    within_categories = [_pair_distances(x[labels == label]) for label in np.unique(labels)]
    within = sum(pairs.total for pairs in within_categories)
    num_within = sum(pairs.num_pairs for pairs in within_categories)
    all_pairs = _pair_distances(x)
    if not within or all_pairs.num_pairs == num_within:
        return float("nan")
    mean_between = (all_pairs.total - within) / (all_pairs.num_pairs - num_within)
    return float(np.sqrt(mean_between / (within / num_within)))


def _pair_distances(points: np.ndarray) -> PairDistances:
    """From sums alone: the squared distances among n points sum to n sum |x_i|^2 - |sum x_i|^2."""
    count = len(points)
    total = count * np.square(points).sum() - np.square(points.sum(0)).sum()
    return PairDistances(total, count * (count - 1) / 2)
