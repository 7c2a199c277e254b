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

from vaelab.figures.curves import panel
from vaelab.figures.layout import (
    EDGE,
    GREY,
    LINE,
    PAGE,
    PALE,
    SMALL,
    blank_figure,
    captioned,
    column_count,
    extend,
    place,
    shortened,
    text_width,
    write,
)

__all__ = ["Dot", "dots", "table"]


class Dot(NamedTuple):
    """A number of a setting: its value for each seed (S,), their mean, and half the width of its interval."""

    values: np.ndarray
    mean: float
    half: float | None


# Numbers with their intervals


def dots(
    panels: Mapping[tuple[str, str], Mapping[str, Dot]], look: Mapping[str, str], title: str = "", caption: str = ""
) -> Figure:
    """A panel for each (name, unit) with a row for each setting: its seeds, their mean and its interval."""
    names = list(dict.fromkeys(name for rows in panels.values() for name in rows))
    said = {panel: dict(zip(rows, _said(list(rows.values())), strict=True)) for panel, rows in panels.items()}
    left = max(text_width(shortened(name, 1.6, SMALL), SMALL) for name in names) + 0.02
    right = max(text_width(text, SMALL) for texts in said.values() for text in texts.values()) + 0.22
    figure, columns, cut = blank_figure(title), column_count(len(panels)), False
    room = (PAGE - 2 * EDGE - left) / columns - right
    for i, (heading, rows) in enumerate(panels.items()):
        axes = figure.add_axes((0, 0, 1, 1))
        panel(axes, *heading)
        _number_axis(axes, len(names), room)
        cut |= _limit_numbers(axes, list(rows.values()))
        style = {"size": SMALL, "va": "center_baseline", "transform": axes.get_yaxis_transform()}
        for y, setting in enumerate(names):
            if i % columns == 0:
                write(axes, -0.03, y, shortened(setting, 1.6, SMALL), ha="right", **style)
            if setting in rows:
                _dot(axes, y, rows[setting], look[setting])
                write(axes, 1.04, y, said[heading][setting], **style)
    place(figure, columns, 0.23 * len(names), (left, 0.08, right, 0.25))
    return captioned(figure, caption + " An interval that reaches the edge goes on beyond it." * cut)


def _number_axis(axes: Axes, rows: int, room: float) -> None:
    """Rows from the top, and numbers along x, which is `room` inches wide."""
    axes.set_ylim(rows - 0.5, -0.5)
    axes.yaxis.set_major_locator(FixedLocator(range(rows)))
    axes.tick_params(axis="y", length=0, labelleft=False)
    axes.spines["left"].set_visible(False)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:,.10g}".replace("-", "−")))
    axes.xaxis.set_major_locator(MaxNLocator(int(np.clip(room / 0.45, 2, 4)), steps=(1, 2, 5, 10)))


def _limit_numbers(axes: Axes, dots: Sequence[Dot]) -> bool:
    """Show all seeds, and intervals as far as is sensible (those of two seeds are enormous); says if some go on."""
    values = np.concatenate([dot.values for dot in dots])
    ends = np.array([(dot.mean - half, dot.mean + half) for dot in dots for half in [dot.half or 0.0]])
    beyond = max(float(np.ptp(values)), float(np.median(np.ptp(ends, axis=1))))
    low = min(max(values.min() - beyond, ends.min()), values.min())
    high = max(min(values.max() + beyond, ends.max()), values.max())
    margin = 0.08 * (high - low) or 0.05 * abs(high) or 1.0
    axes.set_xlim(low - margin, high + margin)
    return bool(ends.min() < low - margin or ends.max() > high + margin)


def _dot(axes: Axes, y: float, dot: Dot, colour: str) -> None:
    """The mean and its interval, and under them the seeds as small pale dots."""
    if dot.half is not None:
        axes.plot((dot.mean - dot.half, dot.mean + dot.half), (y, y), color=colour, linewidth=1.4)
        style = {"color": colour, "markersize": 2.8, "alpha": 0.55, "markeredgewidth": 0}
        axes.plot(dot.values, np.full(len(dot.values), y + 0.28), "o", **style)
    axes.plot(dot.mean, y, "o", color=colour, markersize=4.4)


def _said(rows: Sequence[Dot]) -> list[str]:
    """Means with as many decimals as their seeds, or else their differences, leave a meaning."""
    means, spreads = [row.mean for row in rows], [s for row in rows if (s := float(row.values.std()))]
    scale = float(np.median(spreads)) if spreads else float(np.ptp(means)) / 10 or abs(means[0]) / 1000
    decimals = int(np.clip(math.ceil(0.3 - math.log10(scale)), 0, 6)) if scale else 0  # half a spread, or finer
    return [f"{mean:,.{decimals}f}".replace("-", "−") for mean in means]


# A table under a figure


def table(figure: Figure, heads: Sequence[str], rows: Sequence[tuple[str, Sequence[str]]]) -> Figure:
    """The figure with a table under it: heads over numbers, which end in line, and names before them."""
    high = 0.3 + LINE * (len(rows) + 1)
    extend(figure, high)
    height = float(figure.get_size_inches()[1])
    names = max(text_width(name, SMALL) for name, _ in rows) + EDGE
    wide = (PAGE - 2 * EDGE - names) / len(heads)
    top = (high - 0.1) / height
    area = figure.add_axes((0, 0, 1, top), xlim=(0, PAGE), ylim=(0, top * height))
    area.set_axis_off()
    y = top * height - 0.14
    for x, head in enumerate(heads):
        write(area, EDGE + names + wide * (x + 1), y, head, size=SMALL, color=GREY, ha="right")
    area.plot((EDGE, PAGE - EDGE), (y - 0.055, y - 0.055), color=PALE, linewidth=1)
    for name, cells in rows:
        y -= LINE
        write(area, EDGE, y - 0.03, name, size=SMALL)
        for x, cell in enumerate(cells):
            write(area, EDGE + names + wide * (x + 1), y - 0.03, cell, size=SMALL, ha="right")
    return figure
