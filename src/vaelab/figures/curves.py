"""Curves: training histories of one run, and of the settings of a study with bands over seeds."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, MaxNLocator

from vaelab.core.errors import UserError
from vaelab.evaluation.catalogue import CURVE_NAMES, metric_info
from vaelab.figures.layout import (
    DPI,
    FONT_SIZE,
    GRID_COLOR,
    LABEL_HEIGHT,
    LINE_HEIGHT,
    MARGIN,
    MAX_LABEL_WIDTH,
    MUTED_COLOR,
    OKABE_ITO,
    PAGE_WIDTH,
    SMALL_FONT_SIZE,
    TEXT_COLOR,
    add_caption,
    available_fonts,
    blank_figure,
    column_count,
    draw_text,
    draw_title,
    place_panels,
    shorten_text,
    text_width,
    wrap_title,
)

__all__ = ["MeanCurve", "compare_curves", "plot_curves", "plot_path_probabilities", "style_panel"]


class MeanCurve(NamedTuple):
    """The curve of a setting: x (T,), the mean over seeds (T,), and their standard deviation (T,) where it has one."""

    x: np.ndarray
    mean: np.ndarray
    sd: np.ndarray | None


# Training curves


def compare_curves(
    panels: Mapping[tuple[str, str], Mapping[str, MeanCurve]],
    colors: Mapping[str, str],
    title: str = "",
    caption: str = "",
) -> Figure:
    """A panel for each (name, unit), with a line and its band for each setting, in its colour and named at its end."""
    names = list(dict.fromkeys(name for lines in panels.values() for name in lines))
    figure, cut, inner = blank_figure(title), [], float(np.clip(LABEL_HEIGHT * len(names), 1.2, 3.2))
    for (name, unit), lines in panels.items():
        axes = figure.add_axes((0, 0, 1, 1))
        style_panel(axes, name, unit)
        axes.set_axisbelow(True)
        for setting, line in lines.items():
            _plot_band(axes, line, colors[setting])
        if _set_curve_limits(axes, list(lines.values())):
            cut.append(name)
        _label_curve_ends(axes, lines, colors, inner)
    widest = max(text_width(shorten_text(name, MAX_LABEL_WIDTH, SMALL_FONT_SIZE), SMALL_FONT_SIZE) for name in names)
    columns = column_count(len(panels)) if widest < 0.8 else min(2, len(panels))
    for axes in figure.axes[-columns:]:
        axes.set_xlabel("epoch", size=SMALL_FONT_SIZE, color=MUTED_COLOR, labelpad=1)
    marks = [axes.yaxis.get_major_formatter().format_ticks(list(axes.get_yticks())) for axes in figure.axes]
    ticks = max(text_width(text, SMALL_FONT_SIZE) for texts in marks for text in texts)
    place_panels(figure, columns, inner, (0, ticks + 0.15, widest + 0.3, 0.4))
    return add_caption(figure, caption + (f" Some early values lie beyond the axis: {', '.join(cut)}." if cut else ""))


def _plot_band(axes: Axes, curve: MeanCurve, color: str) -> None:
    """A line and what lies one standard deviation around it."""
    marker = "o" if len(curve.x) <= 8 else ""
    axes.plot(curve.x, curve.mean, color=color, linewidth=1.4, marker=marker, markersize=2.5)
    if curve.sd is not None:
        low, high = curve.mean - curve.sd, curve.mean + curve.sd
        axes.fill_between(curve.x, low, high, color=color, alpha=0.22, linewidth=0)


def _set_curve_limits(axes: Axes, lines: Sequence[MeanCurve]) -> bool:
    """Set limits that show every line's end and what is not far off; says whether something lies beyond them.

    Far off is what lies further from the middle four fifths of all points than three times their extent.
    """
    first, last = min(line.x[0] for line in lines), max(line.x[-1] for line in lines)
    pad = 0.03 * (last - first) or 0.5  # of a single epoch
    axes.set_xlim(first - pad, last + pad)
    around = [line.mean + s * (0 if line.sd is None else line.sd) for line in lines for s in (-1, 1)]
    points, ends = np.concatenate(around), np.array([part[-1] for part in around])
    low, high = np.percentile(points, (10, 90))
    fence = 3 * (high - low)
    near = (points >= low - fence) & (points <= high + fence) if fence else np.isfinite(points)
    shown = np.concatenate([points[near], ends])
    margin = 0.05 * np.ptp(shown) or 0.05 * abs(shown[0]) or 1.0
    axes.set_ylim(shown.min() - margin, shown.max() + margin)
    return bool((points > shown.max()).any() or (points < shown.min()).any())


def _label_curve_ends(axes: Axes, lines: Mapping[str, MeanCurve], colors: Mapping[str, str], inner: float) -> None:
    """Write each setting's name beside the end of its line, apart from the others, with a thin line to it.

    Where more of them end than there is room for, every so many-th is named.
    """
    from scipy.optimize import isotonic_regression

    low, high = axes.get_ylim()
    order = sorted(filter(None, lines), key=lambda name: lines[name].mean[-1])
    if not order:
        return
    order = order[:: math.ceil(len(order) * 0.125 / inner)]
    heights = np.array([(lines[name].mean[-1] - low) / (high - low) for name in order])
    steps = min(LABEL_HEIGHT / inner, 1 / len(order)) * np.arange(len(order))
    nearest = isotonic_regression(heights - steps).x  # the least displaced that are so far apart
    places = nearest.clip(0, max(0, 1 - steps[-1])) + steps
    for name, height, end in zip(order, heights, places, strict=True):
        start = axes.transLimits.transform((lines[name].x[-1], 0))[0]
        axes.add_line(
            Line2D(
                (start, max(start, 1), 1.05, 1.08),
                (height, height, end, end),
                color=colors[name],
                linewidth=0.6,
                transform=axes.transAxes,
                clip_on=False,
            )
        )
        darker = [0.75 * part for part in to_rgb(colors[name])]  # thin strokes look paler than areas
        draw_text(
            axes,
            1.1,
            end,
            shorten_text(name, MAX_LABEL_WIDTH, SMALL_FONT_SIZE),
            size=SMALL_FONT_SIZE,
            color=darker,
            va="center_baseline",
            transform=axes.transAxes,
        )


def plot_path_probabilities(
    panels: Mapping[str, tuple[MeanCurve, np.ndarray, MeanCurve | None]],
    colors: Mapping[str, str],
    title: str = "",
    unit: str = "",
    caption: str = "",
) -> Figure:
    """A panel for each setting: the pairs (P, T) as pale lines, their mean with its band, and other means as dots."""
    figure, columns = blank_figure(title), column_count(len(panels))
    room = (PAGE_WIDTH - 2 * MARGIN) / columns - 0.4
    for name, (mean, pairs, dotted) in panels.items():
        axes = figure.add_axes((0, 0, 1, 1), xlim=(-0.03, 1.03), ylim=(-0.03, 1.03))
        style_panel(axes, shorten_text(name, room, FONT_SIZE, "bold"), shorten_text(unit, room, SMALL_FONT_SIZE))
        axes.set_axisbelow(True)
        axes.plot(mean.x, pairs.T, color=colors[name], linewidth=0.6, alpha=0.35)
        _plot_band(axes, mean, colors[name])
        if dotted is not None:
            axes.plot(dotted.x, dotted.mean, "o", color="white", markeredgecolor="black", markersize=3.2, zorder=4)
        axes.set_xticks((0, 0.2, 0.4, 0.6, 0.8, 1), ("0", "0.2", "0.4", "0.6", "0.8", "1"))
        axes.set_yticks((0, 0.5, 1), ("0", "0.5", "1"))
    for axes in figure.axes[-columns:]:
        axes.set_xlabel("α", size=SMALL_FONT_SIZE, color=MUTED_COLOR, labelpad=1)
    place_panels(figure, columns, 1.5, (0, 0.3, 0.1, 0.4))
    return add_caption(figure, caption)


SPLIT_COLORS = {"train": OKABE_ITO[0], "validation": OKABE_ITO[1]}


# Training curves


def plot_curves(history: Sequence[dict[str, Any]], title: str = "") -> Figure:
    """One panel for each term of a run's history, with a line for each split."""
    seen = {
        name
        for row in history
        for split in SPLIT_COLORS
        for name in row.get(split, {})
        if not name.endswith("_of_mean")
    }
    names = [name for name in CURVE_NAMES if name in seen] + sorted(seen - set(CURVE_NAMES))
    if not names:
        raise UserError("there are no training curves to draw: the history holds no epochs")
    columns = 2 if len(names) == 4 else min(3, len(names))
    width = max(3.2, PAGE_WIDTH / 3 * columns)
    lines = wrap_title(title, width - 2 * MARGIN)
    height = 1.75 * math.ceil(len(names) / columns) + LINE_HEIGHT * len(lines) + MARGIN
    figure = Figure((width, height), DPI, facecolor="white")
    draw_title(figure, lines)
    for name in names:
        axes = figure.add_axes((0, 0, 1, 1))
        info = metric_info(name)
        style_panel(axes, info.label, info.unit)
        _plot_splits(
            axes,
            {
                split: [(row["epoch"], row[split][name]) for row in history if name in row.get(split, {})]
                for split in SPLIT_COLORS
            },
        )
    _arrange_panels(figure, columns, height - LINE_HEIGHT * len(lines) - MARGIN)
    return figure


def _arrange_panels(figure: Figure, columns: int, top: float) -> None:
    """Put panels into rows below `top` inches, with the margins of the widest texts: drawing twice moves nothing."""
    width, height = figure.get_size_inches()
    marks = [axes.yaxis.get_major_formatter().format_ticks(list(axes.get_yticks())) for axes in figure.axes]
    left = max(text_width(text, SMALL_FONT_SIZE) for texts in marks for text in texts) + 0.15
    named = {text.get_text() for axes in figure.axes for text in axes.texts} & set(SPLIT_COLORS)
    right = max((text_width(split, SMALL_FONT_SIZE) for split in named), default=0) + 0.1
    cell = width / columns
    for i, axes in enumerate(figure.axes):
        row, column = divmod(i, columns)
        corner = ((column * cell + left) / width, (top - 1.75 * row - 1.35) / height)
        axes.set_position((*corner, (cell - left - right) / width, 0.95 / height))
        if i >= len(figure.axes) - columns:
            axes.set_xlabel("epoch", size=SMALL_FONT_SIZE, color=MUTED_COLOR)


def style_panel(axes: Axes, name: str, unit: str) -> None:
    """Clean axes with a statement of what is drawn in place of a y label."""
    axes.set_title(
        name, loc="left", size=FONT_SIZE, color=TEXT_COLOR, pad=15, weight="bold", family=available_fonts()[0]
    )
    axes.annotate(unit, (0, 1), (0, 5), "axes fraction", "offset points", size=SMALL_FONT_SIZE, color=MUTED_COLOR)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(MUTED_COLOR)
    axes.tick_params(labelsize=SMALL_FONT_SIZE, colors=MUTED_COLOR, length=3)
    axes.grid(axis="y", color=GRID_COLOR, linewidth=0.6)
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True, min_n_ticks=1))
    axes.yaxis.set_major_locator(MaxNLocator(4))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:,.10g}".replace("-", "−")))


def _plot_splits(axes: Axes, series: dict[str, list[tuple[float, float]]]) -> None:
    """Lines (x, y) of several splits, each with its name at its end."""
    ends: dict[str, float] = {}
    for split, points in series.items():
        finite = [(x, y) for x, y in points if math.isfinite(y)]
        if finite:
            marker = "o" if len(finite) <= 12 else ""
            axes.plot(*zip(*finite, strict=True), color=SPLIT_COLORS[split], linewidth=1.4, marker=marker, markersize=3)
            ends[split] = finite[-1][1]
    first, last = axes.get_xlim()
    if last - first < 1:  # a single epoch
        axes.set_xlim(round(first) - 0.5, round(first) + 0.5)
    low, high = axes.get_ylim()
    order = sorted(ends, key=ends.__getitem__)
    heights = [(ends[split] - low) / (high - low) for split in order]
    if len(heights) == 2 and heights[1] - heights[0] < 0.12:
        middle = min(max(sum(heights) / 2, 0.06), 0.94)
        heights = [middle - 0.06, middle + 0.06]
    for split, height in zip(order, heights, strict=True):
        draw_text(
            axes,
            1.02,
            height,
            split,
            size=SMALL_FONT_SIZE,
            color=SPLIT_COLORS[split],
            va="center",
            transform=axes.transAxes,
        )
