"""Comparisons: settings side by side become pictures; nothing is computed here but where things go.

Numbers come in as arrays and images as uint8 or floats in [0, 1], shaped (*, C, H, W); they leave as matplotlib figures
as wide as the page. Every setting keeps its colour in all panels, and its name stands beside what is drawn of it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator

from vaelab.figures.curves import style_panel
from vaelab.figures.layout import (
    GRID_COLOR,
    LINE_HEIGHT,
    MARGIN,
    MUTED_COLOR,
    PAGE_WIDTH,
    SMALL_FONT_SIZE,
    add_caption,
    blank_figure,
    column_count,
    draw_text,
    extend_below,
    place_panels,
    shorten_text,
    text_width,
)

__all__ = ["IntervalRow", "add_table", "plot_intervals"]


class IntervalRow(NamedTuple):
    """A number of a setting: its value for each seed (S,), their mean, and half the width of its interval."""

    values: np.ndarray
    mean: float
    half_width: float | None


# Numbers with their intervals


def plot_intervals(
    panels: Mapping[tuple[str, str], Mapping[str, IntervalRow]],
    colors: Mapping[str, str],
    title: str = "",
    caption: str = "",
) -> Figure:
    """A panel for each (name, unit) with a row for each setting: its seeds, their mean and its interval."""
    names = list(dict.fromkeys(name for rows in panels.values() for name in rows))
    said = {panel: dict(zip(rows, _format_means(list(rows.values())), strict=True)) for panel, rows in panels.items()}
    left = max(text_width(shorten_text(name, 1.6, SMALL_FONT_SIZE), SMALL_FONT_SIZE) for name in names) + 0.02
    right = max(text_width(text, SMALL_FONT_SIZE) for texts in said.values() for text in texts.values()) + 0.22
    figure, columns, cut = blank_figure(title), column_count(len(panels)), False
    room = (PAGE_WIDTH - 2 * MARGIN - left) / columns - right
    for i, (heading, rows) in enumerate(panels.items()):
        axes = figure.add_axes((0, 0, 1, 1))
        style_panel(axes, *heading)
        _style_number_axis(axes, len(names), room)
        cut |= _set_interval_limits(axes, list(rows.values()))
        style = {"size": SMALL_FONT_SIZE, "va": "center_baseline", "transform": axes.get_yaxis_transform()}
        for y, setting in enumerate(names):
            if i % columns == 0:
                draw_text(axes, -0.03, y, shorten_text(setting, 1.6, SMALL_FONT_SIZE), ha="right", **style)
            if setting in rows:
                _plot_interval(axes, y, rows[setting], colors[setting])
                draw_text(axes, 1.04, y, said[heading][setting], **style)
    place_panels(figure, columns, 0.23 * len(names), (left, 0.08, right, 0.25))
    return add_caption(figure, caption + " An interval that reaches the edge goes on beyond it." * cut)


def _style_number_axis(axes: Axes, rows: int, width: float) -> None:
    """Rows from the top, and numbers along x, which is `room` inches wide."""
    axes.set_ylim(rows - 0.5, -0.5)
    axes.yaxis.set_major_locator(FixedLocator(range(rows)))
    axes.tick_params(axis="y", length=0, labelleft=False)
    axes.spines["left"].set_visible(False)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:,.10g}".replace("-", "−")))
    axes.xaxis.set_major_locator(MaxNLocator(int(np.clip(width / 0.45, 2, 4)), steps=(1, 2, 5, 10)))


def _set_interval_limits(axes: Axes, rows: Sequence[IntervalRow]) -> bool:
    """Show all seeds, and intervals as far as is sensible (those of two seeds are enormous); says if some go on."""
    values = np.concatenate([dot.values for dot in rows])
    ends = np.array([(dot.mean - half, dot.mean + half) for dot in rows for half in [dot.half_width or 0.0]])
    beyond = max(float(np.ptp(values)), float(np.median(np.ptp(ends, axis=1))))
    low = min(max(values.min() - beyond, ends.min()), values.min())
    high = max(min(values.max() + beyond, ends.max()), values.max())
    margin = 0.08 * (high - low) or 0.05 * abs(high) or 1.0
    axes.set_xlim(low - margin, high + margin)
    return bool(ends.min() < low - margin or ends.max() > high + margin)


def _plot_interval(axes: Axes, y: float, row: IntervalRow, color: str) -> None:
    """The mean and its interval, and under them the seeds as small pale dots."""
    if row.half_width is not None:
        axes.plot((row.mean - row.half_width, row.mean + row.half_width), (y, y), color=color, linewidth=1.4)
        style = {"color": color, "markersize": 2.8, "alpha": 0.55, "markeredgewidth": 0}
        axes.plot(row.values, np.full(len(row.values), y + 0.28), "o", **style)
    axes.plot(row.mean, y, "o", color=color, markersize=4.4)


def _format_means(rows: Sequence[IntervalRow]) -> list[str]:
    """Means with as many decimals as their seeds, or else their differences, leave a meaning."""
    means, spreads = [row.mean for row in rows], [s for row in rows if (s := float(row.values.std()))]
    scale = float(np.median(spreads)) if spreads else float(np.ptp(means)) / 10 or abs(means[0]) / 1000
    decimals = int(np.clip(math.ceil(0.3 - math.log10(scale)), 0, 6)) if scale else 0  # half a spread, or finer
    return [f"{mean:,.{decimals}f}".replace("-", "−") for mean in means]


# A table under a figure


def add_table(figure: Figure, headers: Sequence[str], rows: Sequence[tuple[str, Sequence[str]]]) -> Figure:
    """The figure with a table under it: heads over numbers, which end in line, and names before them."""
    high = 0.3 + LINE_HEIGHT * (len(rows) + 1)
    extend_below(figure, high)
    height = float(figure.get_size_inches()[1])
    names = max(text_width(name, SMALL_FONT_SIZE) for name, _ in rows) + MARGIN
    wide = (PAGE_WIDTH - 2 * MARGIN - names) / len(headers)
    top = (high - 0.1) / height
    area = figure.add_axes((0, 0, 1, top), xlim=(0, PAGE_WIDTH), ylim=(0, top * height))
    area.set_axis_off()
    y = top * height - 0.14
    for x, head in enumerate(headers):
        draw_text(area, MARGIN + names + wide * (x + 1), y, head, size=SMALL_FONT_SIZE, color=MUTED_COLOR, ha="right")
    area.plot((MARGIN, PAGE_WIDTH - MARGIN), (y - 0.055, y - 0.055), color=GRID_COLOR, linewidth=1)
    for name, cells in rows:
        y -= LINE_HEIGHT
        draw_text(area, MARGIN, y - 0.03, name, size=SMALL_FONT_SIZE)
        for x, cell in enumerate(cells):
            draw_text(area, MARGIN + names + wide * (x + 1), y - 0.03, cell, size=SMALL_FONT_SIZE, ha="right")
    return figure
