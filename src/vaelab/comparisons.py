"""Comparisons: settings side by side become pictures; nothing is computed here but where things go.

Numbers come in as arrays and images as uint8 or floats in [0, 1], shaped (*, C, H, W); they leave as matplotlib figures
as wide as the page. Every setting keeps its colour in all panels, and its name stands beside what is drawn of it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator

from vaelab import figures
from vaelab.page import (
    DPI,
    EDGE,
    GREY,
    LINE,
    PAGE,
    PALE,
    SIZE,
    SMALL,
    compose,
    headline,
    scale,
    shortened,
    text_width,
    wrapped,
    write,
)

__all__ = ["Block", "Curve", "Dot", "captioned", "colours", "curves", "dots", "paths", "table", "tiles"]

ABOVE = 0.45  # inches over a panel, for its name and unit
ROW = 0.14  # inches from one small line of text to the next
NAME = 1.3  # inches at most for the name of a setting


class Curve(NamedTuple):
    """The curve of a setting: x (T,), the mean over seeds (T,), and their standard deviation (T,) where it has one."""

    x: np.ndarray
    mean: np.ndarray
    sd: np.ndarray | None


class Dot(NamedTuple):
    """A number of a setting: its value for each seed (S,), their mean, and half the width of its interval."""

    values: np.ndarray
    mean: float
    half: float | None


class Block(NamedTuple):
    """A table of image tiles uint8 (R, T, H, W, 3): names before rows, heads over columns and notes under them."""

    tiles: np.ndarray
    names: Sequence[str] = ()
    heads: Sequence[str] = ()
    notes: Sequence[str] = ()
    row_breaks: Sequence[int] = ()
    column_breaks: Sequence[int] = ()


def colours(names: Sequence[str]) -> dict[str, str]:
    """A colour for each setting: of numbers along a ramp from dark to light, of other names as different as can be."""
    palette: Any = figures.palette(len(names))
    try:
        rank = np.argsort(np.argsort([float(name) for name in names], kind="stable"), kind="stable")
        palette = colormaps["viridis"](np.linspace(0, 0.78, len(names)))[rank]  # beyond that it is too light on white
    except ValueError:
        pass
    return {name: to_hex(colour) for name, colour in zip(names, palette, strict=False)}


def _blank(title: str) -> Figure:
    """A figure with its title alone, as high as that."""
    lines = wrapped(title, PAGE - 2 * EDGE)
    figure = Figure((PAGE, EDGE + LINE * len(lines)), DPI, facecolor="white")
    headline(figure, lines)
    return figure


def _place(figure: Figure, columns: int, inner: float, margins: tuple[float, float, float, float]) -> None:
    """Put panels `inner` inches high under the title: margins left of all, and left of, right of, under each."""
    first, left, right, below = margins
    rows, high = math.ceil(len(figure.axes) / columns), ABOVE + inner + below
    wide = (PAGE - 2 * EDGE - first) / columns
    _extend(figure, rows * high)
    height = float(figure.get_size_inches()[1])
    for i, axes in enumerate(figure.axes):
        row, column = divmod(i, columns)
        bottom = (rows - 1 - row) * high + below
        corner = (EDGE + first + column * wide + left) / PAGE, bottom / height
        axes.set_position((*corner, (wide - left - right) / PAGE, inner / height))


def _extend(figure: Figure, below: float) -> None:
    """Make room under what a figure shows, in whole pixels, so that images stay on theirs."""
    width, height = map(float, figure.get_size_inches())
    below = round((height + below) * figure.dpi) / figure.dpi - height
    scale, lift = height / (height + below), below / (height + below)
    for axes in figure.axes:
        box = axes.get_position(original=True)
        axes.set_position((box.x0, box.y0 * scale + lift, box.width, box.height * scale))
    for text in figure.texts:
        text.set_y(text.get_position()[1] * scale + lift)
    figure.set_size_inches(width, height + below)


def captioned(figure: Figure, caption: str) -> Figure:
    """The figure with a caption under it."""
    width = float(figure.get_size_inches()[0])
    lines = wrapped(caption, (width - 2 * EDGE) * 1.2)  # measured in the title's font, that much wider
    _extend(figure, ROW * len(lines) + EDGE + 0.07)
    bottom = EDGE / float(figure.get_size_inches()[1])
    write(figure, EDGE / width, bottom, "\n".join(lines), size=SMALL, color=GREY, va="bottom", linespacing=1.2)
    return figure


def _columns(count: int) -> int:
    return 2 if count in (2, 4) else min(3, count)


# Training curves


def curves(
    panels: Mapping[tuple[str, str], Mapping[str, Curve]],
    look: Mapping[str, str],
    title: str = "",
    caption: str = "",
) -> Figure:
    """A panel for each (name, unit), with a line and its band for each setting, in its colour and named at its end."""
    names = list(dict.fromkeys(name for lines in panels.values() for name in lines))
    figure, cut, inner = _blank(title), [], float(np.clip(ROW * len(names), 1.2, 3.2))
    for (name, unit), lines in panels.items():
        axes = figure.add_axes((0, 0, 1, 1))
        figures.panel(axes, name, unit)
        axes.set_axisbelow(True)
        for setting, line in lines.items():
            _band(axes, line, look[setting])
        if _limit(axes, list(lines.values())):
            cut.append(name)
        _name_ends(axes, lines, look, inner)
    widest = max(text_width(shortened(name, NAME, SMALL), SMALL) for name in names)
    columns = _columns(len(panels)) if widest < 0.8 else min(2, len(panels))
    for axes in figure.axes[-columns:]:
        axes.set_xlabel("epoch", size=SMALL, color=GREY, labelpad=1)
    marks = [axes.yaxis.get_major_formatter().format_ticks(list(axes.get_yticks())) for axes in figure.axes]
    ticks = max(text_width(text, SMALL) for texts in marks for text in texts)
    _place(figure, columns, inner, (0, ticks + 0.15, widest + 0.3, 0.4))
    return captioned(figure, caption + (f" Some early values lie beyond the axis: {', '.join(cut)}." if cut else ""))


def _band(axes: Axes, curve: Curve, colour: str) -> None:
    """A line and what lies one standard deviation around it."""
    marker = "o" if len(curve.x) <= 8 else ""
    axes.plot(curve.x, curve.mean, color=colour, linewidth=1.4, marker=marker, markersize=2.5)
    if curve.sd is not None:
        low, high = curve.mean - curve.sd, curve.mean + curve.sd
        axes.fill_between(curve.x, low, high, color=colour, alpha=0.22, linewidth=0)


def _limit(axes: Axes, lines: Sequence[Curve]) -> bool:
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


def _name_ends(axes: Axes, lines: Mapping[str, Curve], look: Mapping[str, str], inner: float) -> None:
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
    steps = min(ROW / inner, 1 / len(order)) * np.arange(len(order))
    nearest = isotonic_regression(heights - steps).x  # the least displaced that are so far apart
    places = nearest.clip(0, max(0, 1 - steps[-1])) + steps
    for name, height, place in zip(order, heights, places, strict=True):
        start = axes.transLimits.transform((lines[name].x[-1], 0))[0]
        axes.add_line(Line2D((start, max(start, 1), 1.05, 1.08), (height, height, place, place), color=look[name],
                             linewidth=0.6, transform=axes.transAxes, clip_on=False))  # fmt: skip
        darker = [0.75 * part for part in to_rgb(look[name])]  # thin strokes look paler than areas
        write(axes, 1.1, place, shortened(name, NAME, SMALL), size=SMALL, color=darker, va="center_baseline",
              transform=axes.transAxes)  # fmt: skip


# Numbers with their intervals


def dots(
    panels: Mapping[tuple[str, str], Mapping[str, Dot]], look: Mapping[str, str], title: str = "", caption: str = ""
) -> Figure:
    """A panel for each (name, unit) with a row for each setting: its seeds, their mean and its interval."""
    names = list(dict.fromkeys(name for rows in panels.values() for name in rows))
    said = {panel: dict(zip(rows, _said(list(rows.values())), strict=True)) for panel, rows in panels.items()}
    left = max(text_width(shortened(name, 1.6, SMALL), SMALL) for name in names) + 0.02
    right = max(text_width(text, SMALL) for texts in said.values() for text in texts.values()) + 0.22
    figure, columns, cut = _blank(title), _columns(len(panels)), False
    room = (PAGE - 2 * EDGE - left) / columns - right
    for i, (panel, rows) in enumerate(panels.items()):
        axes = figure.add_axes((0, 0, 1, 1))
        figures.panel(axes, *panel)
        _number_axis(axes, len(names), room)
        cut |= _limit_numbers(axes, list(rows.values()))
        style = {"size": SMALL, "va": "center_baseline", "transform": axes.get_yaxis_transform()}
        for y, setting in enumerate(names):
            if i % columns == 0:
                write(axes, -0.03, y, shortened(setting, 1.6, SMALL), ha="right", **style)
            if setting in rows:
                _dot(axes, y, rows[setting], look[setting])
                write(axes, 1.04, y, said[panel][setting], **style)
    _place(figure, columns, 0.23 * len(names), (left, 0.08, right, 0.25))
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


def paths(
    panels: Mapping[str, tuple[Curve, np.ndarray, Curve | None]], look: Mapping[str, str],
    title: str = "", unit: str = "", caption: str = "",
) -> Figure:  # fmt: skip
    """A panel for each setting: the pairs (P, T) as pale lines, their mean with its band, and other means as dots."""
    figure, columns = _blank(title), _columns(len(panels))
    room = (PAGE - 2 * EDGE) / columns - 0.4
    for name, (mean, pairs, dotted) in panels.items():
        axes = figure.add_axes((0, 0, 1, 1), xlim=(-0.03, 1.03), ylim=(-0.03, 1.03))
        figures.panel(axes, shortened(name, room, SIZE, "bold"), shortened(unit, room, SMALL))
        axes.set_axisbelow(True)
        axes.plot(mean.x, pairs.T, color=look[name], linewidth=0.6, alpha=0.35)
        _band(axes, mean, look[name])
        if dotted is not None:
            axes.plot(dotted.x, dotted.mean, "o", color="white", markeredgecolor="black", markersize=3.2, zorder=4)
        axes.set_xticks((0, 0.2, 0.4, 0.6, 0.8, 1), ("0", "0.2", "0.4", "0.6", "0.8", "1"))
        axes.set_yticks((0, 0.5, 1), ("0", "0.5", "1"))
    for axes in figure.axes[-columns:]:
        axes.set_xlabel("α", size=SMALL, color=GREY, labelpad=1)
    _place(figure, columns, 1.5, (0, 0.3, 0.1, 0.4))
    return captioned(figure, caption)


# Tables of images


def tiles(blocks: Sequence[Block], title: str = "", caption: str = "") -> Figure:
    """Blocks of image tiles, one under the other; a pixel of an image is a square of whole pixels in each."""
    names = [shortened(name, 1.6) for block in blocks for name in block.names]
    left = EDGE + max((text_width(name, SIZE) + 0.08 for name in names), default=0)
    scales = [scale(block.tiles, PAGE - left - EDGE) for block in blocks]
    dpi = max(dpi for _, dpi in scales)
    figure = _blank(title)
    figure.set_dpi(dpi)
    _extend(figure, 0)
    for block, (factor, own) in zip(blocks, scales, strict=True):
        _add_block(figure, block, left, max(1, factor * dpi // own))
    return captioned(figure, caption)


def _add_block(figure: Figure, block: Block, left: float, factor: int) -> None:
    """Put a block under what a figure shows, its images `left` inches from the edge and grown by a whole factor."""
    dpi = figure.dpi
    tall, wide = factor * np.array(block.tiles.shape[2:4])
    grown = block.tiles.repeat(factor, 2).repeat(factor, 3)
    canvas, rows, columns = compose(grown, round(0.03 * dpi), block.row_breaks, block.column_breaks)
    under = round((0.15 if block.notes else 0.03) * dpi)
    over = 0.19 if block.heads else 0.3 if block.names and figure.axes else 0.07
    _extend(figure, over + (canvas.shape[0] + under) / dpi)
    width, height = np.rint(figure.get_size_inches() * dpi)
    place = round(left * dpi) / width, under / height, canvas.shape[1] / width, canvas.shape[0] / height
    axes = figure.add_axes(place)
    axes.imshow(canvas, interpolation="none", aspect="auto", extent=(0, canvas.shape[1], canvas.shape[0], 0))
    axes.set_axis_off()
    for y, name in zip(rows + tall / 2, block.names, strict=False):
        write(axes, -0.08 * dpi, y, shortened(name, 1.6), ha="right", va="center")
    for x, head in zip(columns + wide / 2, block.heads, strict=False):
        write(axes, x, -0.05 * dpi, shortened(head, max(0.3, wide / dpi) + 0.02, SMALL), size=SMALL, ha="center")
    for x, note in zip(columns + wide / 2, block.notes, strict=False):
        write(axes, x, len(canvas) + 0.025 * dpi, note, size=SMALL - 1, color=GREY, ha="center", va="top")


# A table under a figure


def table(figure: Figure, heads: Sequence[str], rows: Sequence[tuple[str, Sequence[str]]]) -> Figure:
    """The figure with a table under it: heads over numbers, which end in line, and names before them."""
    high = 0.3 + LINE * (len(rows) + 1)
    _extend(figure, high)
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
