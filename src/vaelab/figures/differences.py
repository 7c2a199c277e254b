"""Paired differences: what decides each claim, drawn beside the verdict.

A claim compares settings seed by seed. Runs of one seed share their images, order and noise, so the difference of two
settings is often known much better than either mean. A strip shows

    dots           the difference of each seed
    thick line     the bounds that the verdict is read from; the diamond is the mean
    thin line      the interval that holds for all differences of the claim together
    line at 0      no difference
    hatched zone   differences within the margin, which do not matter
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from vaelab.figures.colors import MUTED_COLOR, TEXT_COLOR, VERDICT_COLORS
from vaelab.figures.layout import (
    LABEL_HEIGHT,
    LINE_HEIGHT,
    MARGIN,
    PAGE_WIDTH,
    add_area_below,
    add_caption,
    blank_figure,
    extend_below,
    format_tick,
)
from vaelab.figures.text import FONT_SIZE, SMALL_FONT_SIZE, draw_text, shorten_text, text_width, wrap_text

__all__ = [
    "DIFFERENCE_NOTE",
    "VERDICT_SYMBOLS",
    "AxisLimits",
    "Difference",
    "add_differences",
    "difference_limits",
    "difference_text",
    "plot_differences",
]

VERDICT_SYMBOLS = {"supported": "✓", "refuted": "✗", "equal": "=", "void": "∅", "undecided": "?"}

DIFFERENCE_NOTE = (
    "Dots: the difference of each seed. Diamond: their mean. Thick line: the bounds that the verdict is read from; "
    "thin line: the interval that holds for all differences of the claim together. Hatched: too small to matter."
)

MAX_REACH = 3.0  # how far intervals are shown beyond what else is shown, in its extents
AXIS_MARGIN = 0.08  # of an axis beyond what it shows, on either side

TEXT_WIDTH = 2.75  # inches, of the sentence and the verdict
MAX_SENTENCE_LINES = 4
STRIP_HEIGHT = 0.34  # inches
BELOW_STRIP = 0.37  # for the numbers at its axis, and what is compared

INTERVAL_Y, SEED_Y = 0.68, 0.24  # heights within a strip, from 0 to 1
SEED_SPREAD = 0.12  # by which neighbouring dots differ in height, so that equal ones are seen


class Difference(NamedTuple):
    """The difference that decides a claim.

    Attributes:
        sentence: What the claim says.
        verdict: The verdict.
        word: The verdict as it is written: a published figure is "met" or "missed".
        what: What is compared, such as "ce+se − ce".
        wanted: The expected sign, -1 or 1.
        mean: The mean difference.
        values: The difference of each seed, with shape (S,); no value where nothing can be drawn.
        bounds: What the verdict is read from; None where there are none, as with a single seed.
        interval: The interval that holds for all differences of the claim together.
        margin: The largest difference that does not matter.
        note: What must be said of the verdict.
    """

    sentence: str
    verdict: str
    word: str
    what: str = ""
    wanted: int = 0
    mean: float = 0.0
    values: Sequence[float] = ()
    bounds: tuple[float, float] | None = None
    interval: tuple[float, float] | None = None
    margin: float = 0.0
    note: str = ""


class AxisLimits(NamedTuple):
    """Where an axis of differences begins and ends."""

    low: float
    high: float


def difference_limits(differences: Sequence[Difference]) -> AxisLimits:
    """The limits of an axis that shows zero, all seeds and margins, and of intervals what is not far off.

    Args:
        differences: What is drawn on the axis.

    Returns:
        The limits. Intervals of two seeds may be a hundred times as wide as their distance, and go on beyond.

    Example:
        >>> difference_limits([Difference("", "supported", "supported", values=(1.0, 2.0), mean=1.5)])
        AxisLimits(low=-0.16, high=2.16)
    """
    inner = [0.0]
    outer = []
    for difference in differences:
        inner += [difference.mean, *difference.values, -difference.margin, difference.margin]
        outer += [*(difference.bounds or ()), *(difference.interval or ())]
    reach = MAX_REACH * (max(inner) - min(inner))
    low = min([*inner, *(max(end, min(inner) - reach) for end in outer)])
    high = max([*inner, *(min(end, max(inner) + reach) for end in outer)])
    pad = AXIS_MARGIN * (high - low) or 1.0
    return AxisLimits(low - pad, high + pad)


def difference_text(difference: Difference) -> str:
    """A difference in words: what is compared, its mean and bounds, what is expected, and the number of seeds.

    Example:
        >>> values = (-1.0, -1.5)
        >>> difference_text(Difference("", "supported", "supported", "a − b", -1, -1.25, values, (-1.75, -0.75)))
        'a − b: −1.25 [−1.75, −0.75], expected < 0, n = 2'
    """
    bounds = ""
    low, high = difference.bounds or (difference.mean, difference.mean)
    scale = (high - low) / 2 or abs(difference.mean) / 10
    decimals = int(np.clip(1 - math.floor(math.log10(scale)), 0, 8)) if 0 < scale < math.inf else 2
    if difference.bounds:
        bounds = f" [{_number(low, decimals)}, {_number(high, decimals)}]"
    expected = "expected < 0" if difference.wanted < 0 else "expected > 0"
    mean = _number(difference.mean, decimals)
    return f"{difference.what}: {mean}{bounds}, {expected}, n = {len(difference.values)}"


def _number(value: float, decimals: int) -> str:
    return f"{round(value, decimals) + 0.0:,.{decimals}f}".replace("-", "−")  # + 0.0: no minus before a zero


def plot_differences(differences: Sequence[Difference], title: str = "", *, caption: str = "") -> Figure:
    """A strip for each claim, with its sentence and verdict at the left.

    Args:
        differences: The deciding difference of each claim.
        title: Of the figure.
        caption: Under it.

    Returns:
        The figure.
    """
    figure = blank_figure(title)
    extend_below(figure, 0.08)
    add_differences(figure, differences)
    return add_caption(figure, caption)


def add_differences(figure: Figure, differences: Sequence[Difference], heading: str = "") -> None:
    """Draw a strip for each claim under what a figure shows.

    Args:
        figure: The figure, which grows.
        differences: The deciding difference of each claim.
        heading: Over the strips.
    """
    if heading:
        area = add_area_below(figure, 0.36)
        draw_text(area, MARGIN, 0.06, heading, weight="bold")
    for difference in differences:
        _add_strip(figure, difference)


def _add_strip(figure: Figure, difference: Difference) -> None:
    """One claim: at the left what it says and what is true, at the right what shows it."""
    lines = wrap_text(difference.sentence, TEXT_WIDTH, SMALL_FONT_SIZE)
    if len(lines) > MAX_SENTENCE_LINES:
        lines = [*lines[: MAX_SENTENCE_LINES - 1], shorten_text(" ".join(lines[MAX_SENTENCE_LINES - 1 :]), TEXT_WIDTH)]
    left = MARGIN + TEXT_WIDTH + 0.2
    width = PAGE_WIDTH - MARGIN - left
    notes = wrap_text(difference.note, width, SMALL_FONT_SIZE)
    is_drawn = bool(difference.values)
    right_height = (STRIP_HEIGHT + BELOW_STRIP) * is_drawn + LABEL_HEIGHT * len(notes)
    height = max(LINE_HEIGHT + LABEL_HEIGHT * len(lines), right_height) + 0.14
    area = add_area_below(figure, height)
    _write_verdict(area, difference, height - 0.16)
    for i, line in enumerate(lines):
        draw_text(area, MARGIN, height - 0.16 - LINE_HEIGHT - LABEL_HEIGHT * i, line, size=SMALL_FONT_SIZE)
    top = height - 0.05
    if is_drawn:
        total = float(figure.get_size_inches()[1])
        box = (left / PAGE_WIDTH, (top - STRIP_HEIGHT) / total, width / PAGE_WIDTH, STRIP_HEIGHT / total)
        _draw_strip(figure.add_axes(box), difference)
        text = shorten_text(difference_text(difference), width, SMALL_FONT_SIZE)
        draw_text(area, left, top - STRIP_HEIGHT - 0.3, text, size=SMALL_FONT_SIZE)
        top -= STRIP_HEIGHT + BELOW_STRIP
    for i, line in enumerate(notes):
        y = top - 0.11 - LABEL_HEIGHT * i
        draw_text(area, left, y, line, size=SMALL_FONT_SIZE, color=MUTED_COLOR)


def _write_verdict(area: Axes, difference: Difference, y: float) -> None:
    """The verdict: a symbol, a word and a colour."""
    symbol = VERDICT_SYMBOLS[difference.verdict]
    style = {"size": FONT_SIZE, "weight": "bold", "color": VERDICT_COLORS[difference.verdict]}
    draw_text(area, MARGIN, y, symbol, **style)
    draw_text(area, MARGIN + text_width("M", FONT_SIZE, "bold") + 0.06, y, difference.word, **style)


def _draw_strip(axes: Axes, difference: Difference) -> None:
    """The seeds, their mean, the bounds and the interval of a difference, with zero and the margin."""
    limits = difference_limits([difference])
    axes.set(xlim=limits, ylim=(0, 1), yticks=())
    axes.spines[["left", "top", "right"]].set_visible(False)
    axes.spines["bottom"].set_color(MUTED_COLOR)
    axes.tick_params(labelsize=SMALL_FONT_SIZE - 1, colors=MUTED_COLOR, length=2, pad=1.5)
    axes.xaxis.set_major_locator(MaxNLocator(4))
    axes.xaxis.set_major_formatter(FuncFormatter(format_tick))
    if difference.margin:
        zone = {"facecolor": "white", "edgecolor": MUTED_COLOR, "hatch": "////", "linewidth": 0.4, "zorder": 0}
        axes.axvspan(-difference.margin, difference.margin, **zone)
    axes.axvline(0, color=TEXT_COLOR, linewidth=0.9, zorder=1)
    color = VERDICT_COLORS[difference.verdict]
    for ends, thickness in ((difference.interval, 1.0), (difference.bounds, 3.0)):
        if ends is not None:
            axes.plot(ends, (INTERVAL_Y, INTERVAL_Y), color=color, linewidth=thickness, solid_capstyle="butt")
    diamond = {"markersize": 5.5, "markerfacecolor": "white", "markeredgecolor": color, "markeredgewidth": 1.3}
    axes.plot(difference.mean, INTERVAL_Y, "D", zorder=4, **diamond)
    heights = SEED_Y + SEED_SPREAD * (np.arange(len(difference.values)) % 3 - 1)
    dots = {"color": color, "markersize": 3, "markeredgewidth": 0, "zorder": 4}
    axes.plot(difference.values, heights, "o", **dots)
