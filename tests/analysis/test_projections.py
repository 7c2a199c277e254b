"""Projections find known subspaces and groups again, bit for bit the same each time; small and odd inputs work."""

import numpy as np
import pytest
from sklearn.metrics import adjusted_rand_score

from vaelab.analysis.projections import compute_projection, kmeans, pca, tsne
from vaelab.core.errors import UserError


def blobs(count, dimensions, groups=3, seed=0):
    """Groups of unit spread, forty apart, and which point is of which group."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % groups
    return rng.standard_normal((count, dimensions)) + 40 * np.eye(groups, dimensions)[labels], labels


@pytest.mark.parametrize("count", [200, 12], ids=["tall", "wide"])
def test_pca_finds_a_known_subspace(count):
    rng = np.random.default_rng(1)
    axes = np.linalg.qr(rng.standard_normal((20, 3)))[0].T
    axes *= np.sign(axes[np.arange(3), np.abs(axes).argmax(1)])[:, None]
    truth = rng.standard_normal((count, 3))
    truth = np.linalg.qr(truth - truth.mean(0))[0] * (9, 4, 1)  # centred scores without correlation
    scores, ratio = pca(truth @ axes + 5, 3)
    np.testing.assert_allclose(scores, truth, atol=1e-8)
    np.testing.assert_allclose(ratio, np.array([81, 16, 1]) / 98, atol=1e-8)


def test_pca_signs_belong_to_the_data():
    points, _ = blobs(60, 5)
    scores, _ = pca(points)
    order = np.random.default_rng(2).permutation(60)
    np.testing.assert_allclose(pca(points[order])[0], scores[order], atol=1e-9)
    np.testing.assert_allclose(pca(points[:, ::-1])[0], scores, atol=1e-9)
    np.testing.assert_allclose(pca(-points)[0], -scores, atol=1e-9)  # the same axes, mirrored points


def test_pca_pads_what_is_not_there():
    scores, ratio = pca(np.arange(6.0)[:, None], 3)
    assert scores.shape == (6, 3)
    np.testing.assert_allclose(scores[:, 0], np.arange(6) - 2.5)
    assert not scores[:, 1:].any()
    np.testing.assert_allclose(ratio, (1, 0, 0))


def test_kmeans_recovers_separated_groups():
    points, labels = blobs(120, 3)
    found = kmeans(points, 3)
    assert adjusted_rand_score(labels, found) == 1
    assert np.array_equal(found, kmeans(points, 3))
    centres = [points[found == group, 0].mean() for group in range(3)]
    assert centres == sorted(centres)


def test_kmeans_of_fewer_different_points_than_clusters_gives_fewer_and_says_nothing(recwarn):
    twins = np.repeat([[0.0, 0, 0], [1, 1, 1]], 15, 0)
    rounding = np.random.default_rng(0).standard_normal((30, 3)) * 1e-15
    for points in (twins, twins + rounding, rounding * 1e-285, twins[:3]):
        found = kmeans(points, 10)
        assert sorted(set(found)) == list(range(found.max() + 1)), "numbered without gaps"
        assert found.max() < min(10, len(points))
    assert not kmeans(twins, 10)[:15].any()
    assert not recwarn.list


def test_tsne_keeps_groups_apart_and_is_reproducible(capsys):
    points, labels = blobs(150, 60)
    places = tsne(points, seed=3, label="codes")
    distances = np.linalg.norm(places[:, None] - places[None], axis=-1) + np.diag(np.full(150, np.inf))
    assert np.array_equal(labels[distances.argmin(1)], labels)
    assert places.tobytes() == tsne(points, seed=3).tobytes()
    assert "codes: 60 dimensions reduced to 50 by PCA" in capsys.readouterr().err


@pytest.mark.parametrize("count", [1, 2, 3, 4, 10])
@pytest.mark.parametrize("kind", ["spread", "constant", "twins", "one dimension"])
def test_small_and_odd_inputs(count, kind):
    spread = np.random.default_rng(0).standard_normal((count, 7))
    points = {"spread": spread, "constant": np.full((count, 7), 0.1), "twins": np.repeat(spread, 2, 0),
              "one dimension": spread[:, :1]}[kind].astype(np.float32)  # fmt: skip
    found = compute_projection(points, 10)
    number = len(points)
    assert [part.shape for part in found] == [(number, 3), (3,), (number,), (number, 2)]
    assert all(np.isfinite(part).all() for part in found)
    assert len(np.unique(found.clusters)) == (1 if kind == "constant" else min(10, count))


def test_pixels_are_points():
    points = np.random.default_rng(0).integers(0, 256, (30, 16), dtype=np.uint8)
    np.testing.assert_allclose(pca(points)[0], pca(points / 255)[0] * 255, atol=1e-9)


@pytest.mark.parametrize("points", [[[0.0, np.nan]], [[np.inf]], np.zeros((0, 3)), np.zeros(3)], ids=str)
def test_refuses_what_has_no_distances(points):
    for project in (pca, tsne, lambda x: kmeans(x, 2)):
        with pytest.raises(UserError, match="points to project"):
            project(np.asarray(points))
