r"""Projections of codes or pixels to two or three dimensions: PCA, k-means and t-SNE.

For points with centred matrix X (N, D), principal component analysis gives the scores X V, where V holds the leading
eigenvectors of X'X. K-means groups points around centres. t-SNE places them in the plane so that neighbours stay
neighbours; distances between groups mean little there (Visualizing Data using t-SNE, van der Maaten and Hinton 2008).

Everything here is a function of its arguments: the same points and seed give the same bits, with any number of
workers, because sums whose order depends on threads are computed in one thread. numpy in, numpy out.
"""

from __future__ import annotations

import warnings
from typing import Any, Literal, NamedTuple

import numpy as np
from threadpoolctl import threadpool_limits

from vaelab.core.console import notice, progress
from vaelab.core.errors import UserError

__all__ = ["Projection", "compute_projection", "kmeans", "pca", "tsne"]

PERPLEXITY = 30.0

TSNE_DIMENSIONS = 50  # principal components in which t-SNE searches neighbours, at most

TSNE_REPORT = 50  # steps between two reports of progress

TSNE_START_SCALE = 1e-4  # standard deviation of the start along the first component

JITTER = 1e-6  # keeps equal points from starting at the same place, where they would stay


class OptimizerPhase(NamedTuple):
    """Some steps of t-SNE's optimiser.

    Attributes:
        steps: How many.
        exaggeration: The factor on the forces between neighbours.
        momentum: The momentum of gradient descent.
        repulsion: How the repulsive forces are approximated: by a tree (Barnes-Hut), or on a grid, which costs more as
            the map grows.
    """

    steps: int
    exaggeration: float
    momentum: float
    repulsion: Literal["bh", "fft"]


# The usual 750 steps. For many points, where each step takes long, half as many with a higher momentum end at a KL as
# low. With few points, such a momentum drives the map too far apart.
SMALL_SCHEDULE = OptimizerPhase(250, 12, 0.8, "bh"), OptimizerPhase(500, 1, 0.8, "bh")

LARGE_SCHEDULE = (
    OptimizerPhase(200, 12, 0.8, "fft"),
    OptimizerPhase(30, 1, 0.8, "bh"),
    OptimizerPhase(150, 1, 0.97, "bh"),
)

LARGE_SCHEDULE_POINTS = 5000

EXACT_NEIGHBOUR_POINTS = 50_000  # with fewer points, comparing all pairs is faster than a search tree


class Projection(NamedTuple):
    """The projections of N points.

    Attributes:
        pca: The scores on three principal axes, (N, 3).
        variance: Their shares of the total variance, (3,).
        clusters: The k-means clusters of these scores, (N,).
        tsne: The map of t-SNE, (N, 2).
    """

    pca: np.ndarray
    variance: np.ndarray
    clusters: np.ndarray
    tsne: np.ndarray


def pca(points: np.ndarray, components: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """Principal component analysis.

    An axis points to where its largest loading is positive, so that signs depend on the data and not on the solver.

    Args:
        points: Points, (N, D).
        components: How many axes.

    Returns:
        The scores on the axes, (N, components), and the share of the variance that each explains, (components,). Both
        are zero for axes that the points do not have; for constant points they are zero altogether.

    Raises:
        UserError: The points are no matrix, or not finite.

    Example:
        >>> scores, share = pca(np.array([[0.0, 0.0], [1.0, 2.0], [2.0, 4.0]]), components=2)
        >>> share.round(3)
        array([1., 0.])
    """
    x = _check_points(points)
    x = x - x.mean(0)
    scores, ratio = np.zeros((len(x), components)), np.zeros(components)
    total = np.square(x).sum()
    if total <= (1e-12 * max(1.0, np.abs(points).max())) ** 2 * x.size:  # what rounding leaves of constant data
        return scores, ratio
    with threadpool_limits(1):
        axes, variances = _principal_axes(x, min(components, *x.shape))
        scores[:, : len(axes)] = x @ axes.T
    ratio[: len(axes)] = variances / total
    return scores, ratio


def _principal_axes(x: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """The leading axes (count, D) of centred points and the sums of squares (count,) along them, largest first."""
    from scipy.linalg import eigh

    wide = x.shape[1] > x.shape[0]
    gram = x @ x.T if wide else x.T @ x  # the smaller one of the two: they share their eigenvalues
    variances, vectors = eigh(gram, subset_by_index=(len(gram) - count, len(gram) - 1))
    variances, vectors = np.maximum(variances[::-1], 0), vectors[:, ::-1]
    axes = (x.T @ vectors if wide else vectors).T
    kept = variances > variances[0] * 1e-14  # smaller ones are due to rounding
    axes, variances = axes * kept[:, None], variances * kept
    axes /= np.maximum(np.linalg.norm(axes, axis=1, keepdims=True), np.finfo(float).tiny)
    largest = np.abs(axes).argmax(1)
    return axes * np.where(axes[np.arange(count), largest] < 0, -1, 1)[:, None], variances


def kmeans(points: np.ndarray, clusters: int, seed: int = 0) -> np.ndarray:
    """K-means clustering, the best of ten starts.

    Args:
        points: Points, (N, D).
        clusters: How many clusters. There are fewer where fewer points are different.
        seed: Of the starts.

    Returns:
        The cluster of each point, (N,). Clusters are numbered by the first coordinate of their centres.

    Raises:
        UserError: The points are no matrix, or not finite.

    Example:
        >>> kmeans(np.array([[9.0], [1.0], [8.0], [1.0]]), clusters=2)
        array([1, 0, 1, 0])
        >>> kmeans(np.array([[9.0], [1.0]]), clusters=10)
        array([1, 0])
    """
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning

    x = _check_points(points)
    clusters = min(clusters, len(np.unique(x, axis=0)))
    with threadpool_limits(1), warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # points that differ by rounding alone
        result = KMeans(clusters, n_init=10, random_state=seed).fit(x)  # pyright: ignore[reportArgumentType]
    rank = np.argsort(np.argsort(result.cluster_centers_[:, 0], kind="stable"))
    return np.unique(rank[result.labels_], return_inverse=True)[1]


def tsne(points: np.ndarray, seed: int = 0, label: str = "t-SNE") -> np.ndarray:
    """t-SNE of perplexity min(30, (N - 1) / 3), started from the first two principal components.

    Points of more than 50 dimensions are first reduced to their 50 leading principal components, with a notice.

    Args:
        points: Points, (N, D).
        seed: Of the jitter and the optimiser.
        label: What the points are, for notices and progress.

    Returns:
        Places in the plane, (N, 2). Fewer than four points and constant ones stay at their principal components.

    Raises:
        UserError: The points are no matrix, or not finite.
    """
    x = _check_points(points)
    dimensions = x.shape[1]
    x, _ = pca(x, max(2, min(dimensions, TSNE_DIMENSIONS)))  # for up to 50 dimensions a rotation: distances are kept
    start = x[:, :2].copy()
    if len(x) < 4 or not start.any():
        return start
    if dimensions > TSNE_DIMENSIONS:
        notice(f"{label}: {dimensions:,} dimensions reduced to {TSNE_DIMENSIONS} by PCA first")
    start *= TSNE_START_SCALE / start[:, 0].std()
    start += JITTER * np.random.default_rng(seed).standard_normal(start.shape)
    return _optimise_tsne(x, start, seed, label)


def _optimise_tsne(x: np.ndarray, start: np.ndarray, seed: int, label: str) -> np.ndarray:
    from openTSNE import TSNEEmbedding
    from openTSNE.affinity import PerplexityBasedNN

    phases = SMALL_SCHEDULE if len(x) < LARGE_SCHEDULE_POINTS else LARGE_SCHEDULE
    deterministic: dict[str, Any] = {"n_jobs": 1, "random_state": seed}
    method = "exact" if len(x) < EXACT_NEIGHBOUR_POINTS else "approx"
    perplexity: Any = min(PERPLEXITY, (len(x) - 1) / 3)
    with threadpool_limits(1):
        affinities = PerplexityBasedNN(x, perplexity=perplexity, method=method, **deterministic)
    embedding: Any = TSNEEmbedding(start, affinities, **deterministic)
    done = 0
    with progress(label, sum(phase.steps for phase in phases)) as advance:
        for phase in phases:

            def report(step: int, divergence: float, _places: np.ndarray, done: int = done) -> None:
                advance(done + step, f"KL {divergence:.2f}")

            embedding.optimize(
                phase.steps,
                inplace=True,
                exaggeration=phase.exaggeration,
                momentum=phase.momentum,
                negative_gradient_method=phase.repulsion,
                callbacks=report,
                callbacks_every_iters=TSNE_REPORT,
            )
            done += phase.steps
    return np.array(embedding)


def compute_projection(points: np.ndarray, clusters: int, seed: int = 0, label: str = "t-SNE") -> Projection:
    """PCA, k-means of three principal components, and t-SNE.

    Args:
        points: Points, (N, D).
        clusters: The clusters of k-means.
        seed: Of k-means and t-SNE.
        label: What the points are, for notices and progress.
    """
    scores, ratio = pca(points)
    return Projection(scores, ratio, kmeans(scores, clusters, seed), tsne(points, seed, label))


def _check_points(points: np.ndarray) -> np.ndarray:
    """The points as float64 (N, D).

    Raises:
        UserError: They are no matrix, or not finite.
    """
    x = np.asarray(points, dtype=np.float64)
    if x.ndim != 2 or not x.size:
        raise UserError(f"points to project must be a matrix with a row for each point, got shape {x.shape}")
    if not np.isfinite(x).all():
        count = int((~np.isfinite(x)).any(1).sum())
        raise UserError(
            f"{count} of {len(x)} points to project are not finite; look for NaN in the model or the images"
        )
    return x
