"""Curves: terms over epochs, for the splits of a run or the settings of a study, and probabilities along a path."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from vaelab.core.errors import UserError
from vaelab.figures.colors import MUTED_COLOR
from vaelab.figures.layout import (
    LABEL_HEIGHT,
    MARGIN,
    MAX_LABEL_WIDTH,
    PAGE_WIDTH,
    PanelMargins,
    add_caption,
    blank_figure,
    column_count,
    place_panels,
    style_panel,
    tick_label_width,
)
from vaelab.figures.text import FONT_SIZE, SMALL_FONT_SIZE, draw_text, shorten_text, text_width

__all__ = ["MeanCurve", "PathPanel", "plot_curves", "plot_path_probabilities"]

MIN_PANEL_WIDTH = 1.2  # inches
MIN_PANEL_HEIGHT = 1.2
MAX_PANEL_HEIGHT = 3.2

MAX_MARKED_POINTS = 8  # of a curve, above which its points have no markers

OUTLIER_DISTANCE = 3.0  # in extents of the middle four fifths of all points: what is further off is not shown


class MeanCurve(NamedTuple):
    """A curve, perhaps the mean of several.

    Attributes:
        x: Where it was measured, such as epochs, with shape (T,).
        mean: Its values, with shape (T,).
        sd: The standard deviation around them, with shape (T,); none where there is one curve.
    """

    x: np.ndarray
    mean: np.ndarray
    sd: np.ndarray | None = None


class PathPanel(NamedTuple):
    """Probabilities along interpolations of one setting.

    Attributes:
        mean: Over the pairs, by alpha.
        pairs: The curve of each pair, with shape (P, T).
        many: The mean over many pairs, drawn as dots; none where it was not measured.
    """

    mean: MeanCurve
    pairs: np.ndarray
    many: MeanCurve | None


def plot_curves(
    panels: Mapping[tuple[str, str], Mapping[str, MeanCurve]],
    colors: Mapping[str, str],
    title: str = "",
    *,
    caption: str = "",
) -> Figure:
    """A panel for each term, with a curve for each split or setting, named at its end.

    Args:
        panels: The curves by term, given as (name, unit), and by split or setting.
        colors: The colour of each split or setting.
        title: Of the figure.
        caption: Under it.

    Returns:
        The figure.

    Raises:
        UserError: There is no curve.
    """
    if not panels:
        raise UserError("there are no training curves to draw: the history holds no epochs")
    names = list(dict.fromkeys(name for curves in panels.values() for name in curves))
    panel_height = float(np.clip(LABEL_HEIGHT * len(names), MIN_PANEL_HEIGHT, MAX_PANEL_HEIGHT))
    figure = blank_figure(title)
    clipped_names = []
    for (name, unit), curves in panels.items():
        axes = figure.add_axes((0, 0, 1, 1))
        style_panel(axes, name, unit)
        for key, curve in curves.items():
            _plot_band(axes, curve, colors[key])
        if _set_limits(axes, list(curves.values())):
            clipped_names.append(name)
        _label_ends(axes, curves, colors, panel_height)
    _place_curve_panels(figure, names, panel_height)
    if clipped_names:
        caption += f" Some early values lie beyond the axis: {', '.join(clipped_names)}."
    return add_caption(figure, caption)


def _place_curve_panels(figure: Figure, names: Sequence[str], panel_height: float) -> None:
    """Put panels in rows, with room for the names at the ends of curves."""
    shortened = [shorten_text(name, MAX_LABEL_WIDTH, SMALL_FONT_SIZE) for name in names]
    name_width = max(text_width(name, SMALL_FONT_SIZE) for name in shortened)
    panels = figure.axes
    margins = PanelMargins(0, tick_label_width(panels) + 0.15, name_width + 0.3, 0.4)
    columns = column_count(len(panels))
    if (PAGE_WIDTH - 2 * MARGIN) / columns - margins.left - margins.right < MIN_PANEL_WIDTH:
        columns = min(2, columns)
    for axes in panels[-columns:]:
        axes.set_xlabel("epoch", size=SMALL_FONT_SIZE, color=MUTED_COLOR, labelpad=1)
    place_panels(figure, panels, columns, panel_height, margins)


def _plot_band(axes: Axes, curve: MeanCurve, color: str) -> None:
    """A line, and the edges and the area of one standard deviation around it."""
    marker = "o" if len(curve.x) <= MAX_MARKED_POINTS else ""
    axes.plot(curve.x, curve.mean, color=color, linewidth=1.4, marker=marker, markersize=2.5)
    if curve.sd is None:
        return
    low = curve.mean - curve.sd
    high = curve.mean + curve.sd
    axes.fill_between(curve.x, low, high, color=color, alpha=0.2, linewidth=0)
    for edge in (low, high):
        axes.plot(curve.x, edge, color=color, linewidth=0.35)


def _set_limits(axes: Axes, curves: Sequence[MeanCurve]) -> bool:
    """Set limits that show the end of every curve and what is not far off; says whether something lies beyond."""
    first = min(curve.x[0] for curve in curves)
    last = max(curve.x[-1] for curve in curves)
    pad = 0.03 * (last - first) or 0.5  # of a single epoch
    axes.set_xlim(first - pad, last + pad)
    edges = []
    for curve in curves:
        deviation = np.zeros_like(curve.mean) if curve.sd is None else curve.sd
        edges += [curve.mean - deviation, curve.mean + deviation]
    points = np.concatenate(edges)
    low, high = np.percentile(points, (10, 90))
    distance = OUTLIER_DISTANCE * (high - low)
    is_near = np.isfinite(points)
    if distance:
        is_near = (points >= low - distance) & (points <= high + distance)
    ends = [edge[-1] for edge in edges]
    shown = np.concatenate([points[is_near], ends])
    margin = 0.05 * np.ptp(shown) or 0.05 * abs(shown[0]) or 1.0
    axes.set_ylim(shown.min() - margin, shown.max() + margin)
    return bool((points > shown.max()).any() or (points < shown.min()).any())


def _label_ends(axes: Axes, curves: Mapping[str, MeanCurve], colors: Mapping[str, str], panel_height: float) -> None:
    """Write each name beside the end of its curve, apart from the others, with a thin line to it.

    Where more curves end than there is room for, every so many-th is named.
    """
    named = [name for name in curves if name]
    named.sort(key=lambda name: curves[name].mean[-1])
    if not named:
        return
    named = named[:: math.ceil(len(named) * 0.125 / panel_height)]
    low, high = axes.get_ylim()
    ends = np.array([curves[name].mean[-1] for name in named])
    heights = (ends - low) / (high - low)
    label_heights = _spread_out(heights, min(LABEL_HEIGHT / panel_height, 1 / len(named)))
    for name, height, label_height in zip(named, heights, label_heights, strict=True):
        start = axes.transLimits.transform((curves[name].x[-1], 0))[0]
        line = Line2D((start, max(start, 1), 1.05, 1.08), (height, height, label_height, label_height))
        line.set(color=colors[name], linewidth=0.6, transform=axes.transAxes, clip_on=False)
        axes.add_line(line)
        label = shorten_text(name, MAX_LABEL_WIDTH, SMALL_FONT_SIZE)
        darker = [0.75 * part for part in to_rgb(colors[name])]  # thin strokes look paler than areas
        style = {"size": SMALL_FONT_SIZE, "color": darker, "va": "center_baseline", "transform": axes.transAxes}
        draw_text(axes, 1.1, label_height, label, **style)


def _spread_out(heights: np.ndarray, distance: float) -> np.ndarray:
    """Heights (N,) in ascending order, moved as little as possible until they are `distance` apart, within [0, 1]."""
    from scipy.optimize import isotonic_regression

    steps = distance * np.arange(len(heights))
    nearest = isotonic_regression(heights - steps).x
    return nearest.clip(0, max(0, 1 - steps[-1])) + steps


def plot_path_probabilities(
    panels: Mapping[str, PathPanel], colors: Mapping[str, str], title: str = "", *, unit: str = "", caption: str = ""
) -> Figure:
    """A panel for each setting: the pairs as thin lines, their mean with its band, and the mean over many as dots.

    Args:
        panels: What to draw, by setting.
        colors: The colour of each setting.
        title: Of the figure.
        unit: What the probability is, under the name of each panel.
        caption: Under the figure.

    Returns:
        The figure.
    """
    figure = blank_figure(title)
    columns = column_count(len(panels))
    width = (PAGE_WIDTH - 2 * MARGIN) / columns - 0.4
    for name, panel in panels.items():
        axes = figure.add_axes((0, 0, 1, 1), xlim=(-0.03, 1.03), ylim=(-0.03, 1.03))
        style_panel(axes, shorten_text(name, width, FONT_SIZE, "bold"), shorten_text(unit, width, SMALL_FONT_SIZE))
        axes.plot(panel.mean.x, panel.pairs.T, color=colors[name], linewidth=0.4)
        _plot_band(axes, panel.mean, colors[name])
        if panel.many is not None:
            dots = {"color": "white", "markeredgecolor": "black", "markersize": 3.2, "zorder": 4}
            axes.plot(panel.many.x, panel.many.mean, "o", **dots)
        axes.set_xticks((0, 0.2, 0.4, 0.6, 0.8, 1), ("0", "0.2", "0.4", "0.6", "0.8", "1"))
        axes.set_yticks((0, 0.5, 1), ("0", "0.5", "1"))
    for axes in figure.axes[-columns:]:
        axes.set_xlabel("α", size=SMALL_FONT_SIZE, color=MUTED_COLOR, labelpad=1)
    place_panels(figure, figure.axes, columns, 1.5, PanelMargins(0, 0.3, 0.1, 0.4))
    return add_caption(figure, caption)
