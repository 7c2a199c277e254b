"""Networks beside principal components: the curve, the table and the pictures are those of the same components."""

from __future__ import annotations

import numpy as np
import pytest
from figure_reading import cut_off, words

from vaelab.figures.dimensions import (
    DimensionLine,
    baseline_of,
    dimension_rows,
    pca_reconstructions,
    plot_dimensions,
)
from vaelab.runs.run import Run

PCA = np.array([0.09, 0.06, 0.04, 0.03, 0.02, 0.01, 0.005, 0.001, 0.0])
LINES = {"network": DimensionLine([2, 4], [np.array([0.05, 0.06]), np.array([0.03])])}


def test_the_curve_of_principal_components_goes_through_their_errors() -> None:
    figure = plot_dimensions(LINES, PCA, {"network": "#1f6fc0"}, "a title", caption="a caption")
    axes = figure.axes[0]
    curve = axes.lines[0]
    shown = np.asarray(curve.get_xdata(), int)
    assert shown.tolist() == [1, 2, 3, 4, 5, 6, 7], "up to twice the most dimensions, without the error of 0"
    assert np.array_equal(curve.get_ydata(), PCA[shown])
    assert np.ravel(axes.lines[1].get_ydata()) == pytest.approx([0.055, 0.03])
    assert {"PCA", "network", "latent dimensions"} <= set(words(figure))
    assert not cut_off(figure)


def test_the_table_says_how_many_components_are_as_good() -> None:
    rows = dict(dimension_rows(LINES, PCA, [2, 4, 8]))
    assert rows["MSE of PCA"] == ["0.04", "0.02", "0"]
    assert rows["network: as good as PCA of"] == ["2", "3", "–"]


def test_pictures_of_components_have_the_error_that_their_curve_says(trained: Run) -> None:
    baseline = baseline_of(trained)
    pixels = baseline.dataset.splits["test"].uint8()
    tiles = pca_reconstructions(trained, pixels)[..., 0] / 255
    error = np.square(tiles - pixels[:, 0] / 255).mean()
    expected = baseline.pca_mse[trained.spec.latent_dim]
    assert 0.9 * expected < error < 1.01 * expected, "clamped to [0, 1], they are a little better"
