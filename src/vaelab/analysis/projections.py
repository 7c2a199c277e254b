"""Codes or pixels seen in two or three dimensions: PCA, k-means and t-SNE.

For points with centred matrix X (N, D), principal component analysis gives the scores X V, where V holds the leading
eigenvectors of X'X; k-means groups points around centres; t-SNE (van der Maaten and Hinton 2008) places them in the
plane so that neighbours stay neighbours, while distances between groups mean little.

Everything here is a function of its arguments: the same points and seed give the same bits, at any number of workers,
because whatever would add up in an order that depends on threads runs in one. numpy in, numpy out.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import numpy as np
from threadpoolctl import threadpool_limits

from vaelab.core.console import notice, progress
from vaelab.core.errors import UserError

__all__ = ["Projection", "compute_projection", "kmeans", "pca", "tsne"]

PERPLEXITY = 30.0

TSNE_DIMENSIONS = 50  # t-SNE's neighbours are searched among at most as many principal components

TSNE_REPORT = 50  # steps between two reports of progress

JITTER = 1e-6  # keeps equal points from starting on top of each other, where they would stay for ever


class OptimizerPhase(NamedTuple):
    """Some steps of t-SNE's optimiser; how the forces that push points apart are approximated."""

    steps: int
    exaggeration: float  # of the forces that draw neighbours together
    momentum: float
    repulsion: Literal["bh", "fft"]  # by a tree (Barnes and Hut), or on a grid, which costs more as the map grows


# The usual 750 steps; and of many points, for which each takes long, half as many with a higher momentum, which end at
# a KL as low. (Of few points, momentum drives the map too far apart.)
SMALL_SCHEDULE = OptimizerPhase(250, 12, 0.8, "bh"), OptimizerPhase(500, 1, 0.8, "bh")

LARGE_SCHEDULE = (
    OptimizerPhase(200, 12, 0.8, "fft"),
    OptimizerPhase(30, 1, 0.8, "bh"),
    OptimizerPhase(150, 1, 0.97, "bh"),
)

LARGE_SCHEDULE_POINTS = 5000

EXACT_NEIGHBOUR_POINTS = 50_000  # fewer find their neighbours sooner by comparing all pairs than by a search tree


class Projection(NamedTuple):
    """Three views of one set of N points: one row of the six panels of raw pixels against codes.

    `pca` (N, 3) scores, `variance` (3,) their shares of the total variance, `clusters` (N,) k-means of these scores,
    `tsne` (N, 2).
    """

    pca: np.ndarray
    variance: np.ndarray
    clusters: np.ndarray
    tsne: np.ndarray


def pca(points: np.ndarray, components: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """Scores (N, components) on the principal axes and the share (components,) of the variance that each explains.

    An axis points to where its largest loading is positive, so signs are the data's and not the solver's. Where the
    points have fewer directions than asked for, the rest is zero; of constant points everything is.
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
    kept = variances > variances[0] * 1e-14  # below this an eigenvector is made of rounding
    axes, variances = axes * kept[:, None], variances * kept
    axes /= np.maximum(np.linalg.norm(axes, axis=1, keepdims=True), np.finfo(float).tiny)
    largest = np.abs(axes).argmax(1)
    return axes * np.where(axes[np.arange(count), largest] < 0, -1, 1)[:, None], variances


def kmeans(points: np.ndarray, clusters: int, seed: int = 0) -> np.ndarray:
    """The cluster (N,) of each point, numbered along the first coordinate of their centres.

    There are at most as many clusters as there are different points.
    """
    from sklearn.cluster import KMeans

    x = _check_points(points)
    clusters = min(clusters, len(np.unique(x, axis=0)))
    with threadpool_limits(1):
        found = KMeans(clusters, n_init=10, random_state=seed).fit(x)  # pyright: ignore[reportArgumentType]
    rank = np.argsort(np.argsort(found.cluster_centers_[:, 0], kind="stable"))
    return rank[found.labels_]


def tsne(points: np.ndarray, seed: int = 0, label: str = "t-SNE") -> np.ndarray:
    """Places (N, 2) in the plane by t-SNE of perplexity min(30, (N - 1) / 3), begun from the first two components.

    Points of more than 50 dimensions are first reduced to their 50 leading principal components, and that is said.
    Fewer than four points and constant ones have no neighbourhoods to keep: they stay at their principal components.
    """
    x = _check_points(points)
    dimensions = x.shape[1]
    x, _ = pca(x, max(2, min(dimensions, TSNE_DIMENSIONS)))  # for up to 50 dimensions a rotation: distances are kept
    start = x[:, :2].copy()
    if len(x) < 4 or not start.any():
        return start
    if dimensions > TSNE_DIMENSIONS:
        notice(f"{label}: {dimensions:,} dimensions reduced to {TSNE_DIMENSIONS} by PCA first")
    start *= 1e-4 / start[:, 0].std()
    start += JITTER * np.random.default_rng(seed).standard_normal(start.shape)
    return _optimise_tsne(x, start, seed, label)


def _optimise_tsne(x: np.ndarray, start: np.ndarray, seed: int, label: str) -> np.ndarray:
    from openTSNE import TSNEEmbedding
    from openTSNE.affinity import PerplexityBasedNN

    phases = SMALL_SCHEDULE if len(x) < LARGE_SCHEDULE_POINTS else LARGE_SCHEDULE
    at: dict[str, Any] = {"n_jobs": 1, "random_state": seed}
    near = {
        "perplexity": min(PERPLEXITY, (len(x) - 1) / 3),
        "method": "exact" if len(x) < EXACT_NEIGHBOUR_POINTS else "approx",
    }
    with threadpool_limits(1):
        affinities = PerplexityBasedNN(x, **near, **at)
    embedding: Any = TSNEEmbedding(start, affinities, **at)
    with progress(label, sum(phase.steps for phase in phases)) as advance:
        for i, phase in enumerate(phases):
            before = sum(phase.steps for phase in phases[:i])

            def report(step: int, divergence: float, _places: np.ndarray, before: int = before) -> None:
                advance(before + step, f"KL {divergence:.2f}")

            embedding.optimize(
                phase.steps,
                inplace=True,
                exaggeration=phase.exaggeration,
                momentum=phase.momentum,
                negative_gradient_method=phase.repulsion,
                callbacks=report,
                callbacks_every_iters=TSNE_REPORT,
            )
    return np.array(embedding)


def compute_projection(points: np.ndarray, clusters: int, seed: int = 0, label: str = "t-SNE") -> Projection:
    """PCA, k-means of its three components and t-SNE of one set of points (N, D)."""
    scores, ratio = pca(points)
    return Projection(scores, ratio, kmeans(scores, clusters, seed), tsne(points, seed, label))


def _check_points(points: np.ndarray) -> np.ndarray:
    """The points as float64 (N, D), refused where they are not numbers to measure distances between."""
    x = np.asarray(points, dtype=np.float64)
    if x.ndim != 2 or not x.size:
        raise UserError(f"points to project must be a matrix with a row for each point, got shape {x.shape}")
    if not np.isfinite(x).all():
        bad = int((~np.isfinite(x)).any(1).sum())
        raise UserError(f"{bad} of {len(x)} points to project are not finite; look for NaN in the model or the images")
    return x
