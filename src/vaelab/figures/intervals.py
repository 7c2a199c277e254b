"""Numbers of the settings of a study with their intervals, and tables under a figure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator

from vaelab.figures.colors import GRID_COLOR, MUTED_COLOR, TEXT_COLOR
from vaelab.figures.layout import (
    LINE_HEIGHT,
    MARGIN,
    PAGE_WIDTH,
    PanelMargins,
    add_area_below,
    add_caption,
    blank_figure,
    column_count,
    format_tick,
    place_panels,
    style_panel,
)
from vaelab.figures.text import SMALL_FONT_SIZE, draw_text, shorten_text, text_width

__all__ = ["IntervalRow", "add_table", "plot_intervals"]

ROW_HEIGHT = 0.23  # inches
MAX_NAME_WIDTH = 1.6

CUT_NOTE = " An interval that reaches the edge goes on beyond it."


class IntervalRow(NamedTuple):
    """A number of a setting.

    Attributes:
        values: Its value for each seed, with shape (S,).
        mean: Their mean.
        half_width: Half the width of the interval of the mean; none of a single seed.
        reference: What it is compared with, such as the number of a baseline.
    """

    values: np.ndarray
    mean: float
    half_width: float | None
    reference: float | None = None


def plot_intervals(
    panels: Mapping[tuple[str, str], Mapping[str, IntervalRow]],
    colors: Mapping[str, str],
    title: str = "",
    *,
    caption: str = "",
) -> Figure:
    """A panel for each metric, with a row for each setting: its seeds, their mean and its interval.

    Args:
        panels: The rows by metric, given as (name, unit), and by setting.
        colors: The colour of each setting.
        title: Of the figure.
        caption: Under it.

    Returns:
        The figure.
    """
    settings = list(dict.fromkeys(name for rows in panels.values() for name in rows))
    labels = {name: shorten_text(name, MAX_NAME_WIDTH, SMALL_FONT_SIZE) for name in settings}
    means = {metric: _format_means(rows) for metric, rows in panels.items()}
    left = max(text_width(label, SMALL_FONT_SIZE) for label in labels.values()) + 0.02
    mean_widths = [text_width(text, SMALL_FONT_SIZE) for texts in means.values() for text in texts.values()]
    right = max(mean_widths) + 0.22
    columns = column_count(len(panels))
    axis_width = (PAGE_WIDTH - 2 * MARGIN - left) / columns - right
    figure = blank_figure(title)
    is_cut = False
    for i, (metric, rows) in enumerate(panels.items()):
        axes = figure.add_axes((0, 0, 1, 1))
        style_panel(axes, *metric)
        _style_number_axis(axes, len(settings), axis_width)
        is_cut |= _set_limits(axes, list(rows.values()))
        _draw_rows(axes, rows, means[metric], {name: (y, colors[name]) for y, name in enumerate(settings)})
        if i % columns == 0:
            _draw_names(axes, list(labels.values()))
    place_panels(figure, figure.axes, columns, ROW_HEIGHT * len(settings), PanelMargins(left, 0.08, right, 0.25))
    return add_caption(figure, caption + CUT_NOTE if is_cut else caption)


def _draw_rows(
    axes: Axes, rows: Mapping[str, IntervalRow], means: Mapping[str, str], places: Mapping[str, tuple[int, str]]
) -> None:
    """The rows of a panel at their places, each (y, colour), with the means as numbers at the right."""
    style = {"size": SMALL_FONT_SIZE, "va": "center_baseline", "transform": axes.get_yaxis_transform()}
    for name, row in rows.items():
        y, color = places[name]
        _plot_interval(axes, y, row, color)
        draw_text(axes, 1.04, y, means[name], **style)


def _draw_names(axes: Axes, names: Sequence[str]) -> None:
    """The names of the settings, left of a panel."""
    style = {"size": SMALL_FONT_SIZE, "va": "center_baseline", "ha": "right", "transform": axes.get_yaxis_transform()}
    for y, name in enumerate(names):
        draw_text(axes, -0.03, y, name, **style)


def _style_number_axis(axes: Axes, rows: int, width: float) -> None:
    """Rows from the top, and numbers along x, which is `width` inches wide."""
    axes.set_ylim(rows - 0.5, -0.5)
    axes.yaxis.set_major_locator(FixedLocator(range(rows)))
    axes.tick_params(axis="y", length=0, labelleft=False)
    axes.spines["left"].set_visible(False)
    axes.xaxis.set_major_formatter(FuncFormatter(format_tick))
    axes.xaxis.set_major_locator(MaxNLocator(int(np.clip(width / 0.45, 2, 4)), steps=(1, 2, 5, 10)))


def _set_limits(axes: Axes, rows: Sequence[IntervalRow]) -> bool:
    """Show all seeds, and intervals as far as is sensible (those of two seeds are enormous); says if some go on."""
    values = np.concatenate([row.values for row in rows])
    means = np.array([row.mean for row in rows])
    half_widths = np.array([row.half_width or 0.0 for row in rows])
    reach = max(float(np.ptp(values)), float(np.median(2 * half_widths)))
    lowest = float((means - half_widths).min())
    highest = float((means + half_widths).max())
    references = [row.reference for row in rows if row.reference is not None]
    low = min([max(values.min() - reach, lowest), values.min(), *references])
    high = max([min(values.max() + reach, highest), values.max(), *references])
    margin = 0.08 * (high - low) or 0.05 * abs(high) or 1.0
    axes.set_xlim(low - margin, high + margin)
    return bool(lowest < low - margin or highest > high + margin)


def _plot_interval(axes: Axes, y: float, row: IntervalRow, color: str) -> None:
    """The mean and its interval, under them the seeds as small rings, and what they are compared with as a cross."""
    if row.half_width is not None:
        axes.plot((row.mean - row.half_width, row.mean + row.half_width), (y, y), color=color, linewidth=1.4)
        rings = {"markersize": 2.6, "markeredgewidth": 0.5, "markeredgecolor": color, "markerfacecolor": "white"}
        axes.plot(row.values, np.full(len(row.values), y + 0.28), "o", **rings)
    axes.plot(row.mean, y, "o", color=color, markersize=4.4)
    if row.reference is not None:
        axes.plot(row.reference, y, "x", color=TEXT_COLOR, markersize=4.4, markeredgewidth=1.2)


def _format_means(rows: Mapping[str, IntervalRow]) -> dict[str, str]:
    """Means with as many decimals as their seeds, or else their differences, leave a meaning."""
    means = [row.mean for row in rows.values()]
    deviations = [float(row.values.std()) for row in rows.values()]
    spreads = [deviation for deviation in deviations if deviation]
    scale = float(np.ptp(means)) / 10 or abs(means[0]) / 1000
    if spreads:
        scale = float(np.median(spreads))
    decimals = 0
    if scale:
        decimals = int(np.clip(math.ceil(0.3 - math.log10(scale)), 0, 6))  # half a spread, or finer
    return {name: f"{row.mean:,.{decimals}f}".replace("-", "−") for name, row in rows.items()}


def add_table(figure: Figure, headers: Sequence[str], rows: Sequence[tuple[str, Sequence[str]]]) -> Figure:
    """Write a table under a figure.

    Args:
        figure: The figure, which grows.
        headers: Over the columns of numbers.
        rows: The name and the cells of each row.

    Returns:
        The same figure.
    """
    height = 0.3 + LINE_HEIGHT * (len(rows) + 1)
    area = add_area_below(figure, height)
    start = max(text_width(name, SMALL_FONT_SIZE) for name, _ in rows) + 2 * MARGIN
    column_width = (PAGE_WIDTH - MARGIN - start) / len(headers)
    ends = [start + column_width * (i + 1) for i in range(len(headers))]
    y = height - 0.24
    for x, header in zip(ends, headers, strict=True):
        draw_text(area, x, y, header, size=SMALL_FONT_SIZE, color=MUTED_COLOR, ha="right")
    area.plot((MARGIN, PAGE_WIDTH - MARGIN), (y - 0.055, y - 0.055), color=GRID_COLOR, linewidth=0.6)
    for name, cells in rows:
        y -= LINE_HEIGHT
        draw_text(area, MARGIN, y - 0.03, name, size=SMALL_FONT_SIZE)
        for x, cell in zip(ends, cells, strict=True):
            draw_text(area, x, y - 0.03, cell, size=SMALL_FONT_SIZE, ha="right")
    return figure
