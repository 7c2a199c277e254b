"""Latent dimensions: networks beside principal components, the best linear reconstruction from as many numbers.

A network that does not beat principal components at KL weight 0 is not trained enough for its numbers to say what more
latent dimensions would bring.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullLocator

from vaelab.analysis.baseline import Baseline, baseline_dir, open_baseline
from vaelab.analysis.principal_components import equal_dimension
from vaelab.core.errors import UserError
from vaelab.figures.colors import MUTED_COLOR, TEXT_COLOR
from vaelab.figures.layout import (
    PanelMargins,
    add_caption,
    add_legend,
    blank_figure,
    format_tick,
    place_panels,
    style_panel,
)
from vaelab.figures.text import SMALL_FONT_SIZE
from vaelab.figures.tiles import as_rgb
from vaelab.runs.run import Run
from vaelab.studies.results import SettingResult

__all__ = [
    "DimensionLine",
    "dimension_rows",
    "latent_dim",
    "pca_error",
    "pca_errors",
    "pca_reconstructions",
    "plot_dimensions",
]


class DimensionLine(NamedTuple):
    """The errors of networks with several numbers of latent dimensions.

    Attributes:
        dimensions: The numbers of latent dimensions, ascending.
        errors: The error of each seed, for each of them.
    """

    dimensions: Sequence[int]
    errors: Sequence[np.ndarray]


def plot_dimensions(
    lines: Mapping[str, DimensionLine],
    pca_errors: np.ndarray,
    colors: Mapping[str, str],
    title: str = "",
    *,
    caption: str = "",
) -> Figure:
    """The error over the number of latent dimensions, of networks and of principal components.

    Args:
        lines: The errors of the networks, by name.
        pca_errors: The error of 0, 1, ..., K principal components, with shape (K + 1,).
        colors: The colour of each name.
        title: Of the figure.
        caption: Under it.

    Returns:
        The figure.
    """
    figure = blank_figure(title)
    axes = figure.add_axes((0, 0, 1, 1), xscale="log", yscale="log")
    style_panel(axes, "Test MSE ↓", "per pixel value")
    dimensions = sorted({dimension for line in lines.values() for dimension in line.dimensions})
    components = np.arange(1, min(2 * dimensions[-1], len(pca_errors) - 1) + 1)
    shown = components[(components >= dimensions[0] / 2) & (pca_errors[components] > 0)]
    axes.plot(shown, pca_errors[shown], color=TEXT_COLOR, linewidth=1.4, linestyle="--")
    for name, line in lines.items():
        means = [errors.mean() for errors in line.errors]
        axes.plot(line.dimensions, means, color=colors[name], linewidth=1.4)
        seeds = {"markersize": 4, "markerfacecolor": "white", "markeredgecolor": colors[name]}
        for dimension, errors in zip(line.dimensions, line.errors, strict=True):
            axes.plot(np.full(len(errors), dimension), errors, "o", markeredgewidth=0.9, **seeds)
    axes.xaxis.set_major_locator(FixedLocator(dimensions))
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(FuncFormatter(format_tick))
        axis.set_minor_locator(NullLocator())
    axes.set_xlabel("latent dimensions", size=SMALL_FONT_SIZE, color=MUTED_COLOR, labelpad=1)
    place_panels(figure, [axes], 1, 2.4, PanelMargins(0, 0.5, 0.15, 0.4))
    add_legend(figure, {**colors, "PCA": TEXT_COLOR}, "")
    return add_caption(figure, caption)


def dimension_rows(
    lines: Mapping[str, DimensionLine], errors: np.ndarray, dimensions: Sequence[int]
) -> list[tuple[str, list[str]]]:
    """The rows of the table under the errors over dimensions.

    Args:
        lines: The errors of networks, by name.
        errors: Those of principal components, with shape (K + 1,).
        dimensions: The columns.

    Returns:
        For PCA its errors; for each network its mean error, and how many principal components are as good.
    """
    shown = [errors[min(dimension, len(errors) - 1)] for dimension in dimensions]
    rows = [("MSE of PCA", [f"{error:.3g}" for error in shown])]
    for name, line in lines.items():
        means = {d: float(values.mean()) for d, values in zip(line.dimensions, line.errors, strict=True)}
        rows.append((f"MSE, {name}", [f"{means[d]:.3g}" if d in means else "–" for d in dimensions]))
        equal = [equal_dimension(errors, means[d]) if d in means else np.nan for d in dimensions]
        rows.append((f"{name}: as good as PCA of", [f"{count:,.0f}" if np.isfinite(count) else "–" for count in equal]))
    return rows


def latent_dim(setting: SettingResult) -> int:
    """The number of latent dimensions of a setting with finished runs."""
    return next(iter(setting.runs.values())).spec.latent_dim


def baseline_of(run: Run) -> Baseline:
    """What a run is compared with."""
    return open_baseline(run.dataset, run.spec.seed, baseline_dir(run))


def pca_errors(setting: SettingResult) -> np.ndarray | None:
    """The test MSE of 0, 1, ..., K principal components; None where the images are gone.

    Args:
        setting: A setting with finished runs.
    """
    try:
        return baseline_of(next(iter(setting.runs.values()))).pca_mse
    except UserError:
        return None


def pca_error(setting: SettingResult) -> float | None:
    """The test MSE of as many principal components as a setting has latent dimensions."""
    errors = pca_errors(setting)
    return None if errors is None else float(errors[min(latent_dim(setting), len(errors) - 1)])


def pca_reconstructions(run: Run, pixels: np.ndarray) -> np.ndarray:
    """Images from as many principal components as a run has latent dimensions.

    Args:
        run: The run.
        pixels: The images, uint8 with shape (N, C, H, W).

    Returns:
        Tiles, uint8 with shape (N, H, W, 3).
    """
    components = baseline_of(run).principal_components
    decoded = components.reconstruct(torch.from_numpy(pixels).float() / 255, run.spec.latent_dim)
    return as_rgb(decoded.clamp(0, 1).numpy())
