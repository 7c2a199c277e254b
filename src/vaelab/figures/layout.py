"""The page of a figure: title, panels below it, legend, caption, and the file that it becomes.

A figure begins with its title and grows downwards; lengths are in inches. Everything goes through matplotlib's objects,
never through pyplot, so that figures may be drawn in threads and servers. Equal input gives equal bytes.
"""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, MaxNLocator

from vaelab.core.errors import unknown_name_error
from vaelab.core.files import atomic_write
from vaelab.figures.colors import BACKGROUND, GRID_COLOR, MUTED_COLOR, TEXT_COLOR
from vaelab.figures.text import (
    DPI,
    FONT_SIZE,
    SMALL_FONT_SIZE,
    draw_text,
    font_families,
    shorten_text,
    text_width,
    wrap_text,
)

__all__ = [
    "LABEL_HEIGHT",
    "LINE_HEIGHT",
    "MARGIN",
    "MAX_LABEL_WIDTH",
    "PAGE_WIDTH",
    "PanelMargins",
    "add_area_below",
    "add_caption",
    "add_legend",
    "blank_figure",
    "column_count",
    "extend_below",
    "format_tick",
    "place_panels",
    "save_figure",
    "style_panel",
    "tick_label_width",
    "whole_pixels",
]

PAGE_WIDTH = 7.0  # inches, of a figure
MARGIN = 0.1  # the white edge

LINE_HEIGHT = 0.17  # from one line of text to the next
LABEL_HEIGHT = 0.14  # from one line of small text to the next

MAX_LABEL_WIDTH = 1.3  # of the name of a setting

MANY_NAMES = 12  # of a legend: more of them get less room each

PANEL_HEADER_HEIGHT = 0.45  # over a panel, for its name and unit

# No time stamps: equal figures are equal bytes. The compression makes PNGs a sixth larger in a third of the time.
SAVE_OPTIONS: dict[str, dict[str, Any]] = {
    "png": {"pil_kwargs": {"compress_level": 3}},
    "pdf": {"metadata": {"CreationDate": None}},
    "svg": {"metadata": {"Date": None}},
}


class PanelMargins(NamedTuple):
    """The space around panels in inches: before the first column, and left of, right of and under each panel."""

    first: float
    left: float
    right: float
    below: float


def blank_figure(title: str, width: float = PAGE_WIDTH, dpi: int = DPI) -> Figure:
    """A figure with its title alone, and as high as that.

    Args:
        title: What the figure shows; an empty one takes no space.
        width: Inches.
        dpi: Pixels in an inch. It is set here once: files are written with the one that a figure began with.

    Returns:
        The figure, to be extended below.
    """
    lines = wrap_text(title, width - 2 * MARGIN, FONT_SIZE, "bold", dpi)
    height = MARGIN + LINE_HEIGHT * len(lines)
    figure = Figure((width, height), dpi, facecolor=BACKGROUND)
    if lines:
        style = {"va": "top", "weight": "bold", "linespacing": 1.25}
        draw_text(figure, MARGIN / width, 1 - MARGIN / height, "\n".join(lines), **style)
    return figure


def extend_below(figure: Figure, below: float) -> None:
    """Make room under what a figure shows, in whole pixels, so that images stay on theirs.

    Args:
        figure: The figure, which grows.
        below: Inches to add.
    """
    width, height = map(float, figure.get_size_inches())
    new_height = whole_pixels(height + below, figure.dpi)
    scale = height / new_height
    shift = 1 - scale
    for axes in figure.axes:
        box = axes.get_position(original=True)
        axes.set_position((box.x0, box.y0 * scale + shift, box.width, box.height * scale))
    for text in figure.texts:
        text.set_y(text.get_position()[1] * scale + shift)
    figure.set_size_inches(width, new_height)


def whole_pixels(length: float, dpi: float) -> float:
    """A length in inches rounded to whole pixels; a trace more, since matplotlib cuts off fractions of a pixel.

    Args:
        length: Inches.
        dpi: Pixels in an inch.

    Returns:
        Inches.
    """
    return (round(length * dpi) + 1e-9) / dpi


def add_caption(figure: Figure, caption: str) -> Figure:
    """Write a caption under a figure.

    Args:
        figure: The figure, which grows.
        caption: Sentences that say what the title does not: split, mean or sample, unit. An empty one adds nothing.

    Returns:
        The same figure.
    """
    width = float(figure.get_size_inches()[0])
    lines = wrap_text(caption, width - 2 * MARGIN, SMALL_FONT_SIZE, dpi=round(figure.dpi))
    if not lines:
        return figure
    extend_below(figure, LABEL_HEIGHT * len(lines) + MARGIN + 0.07)
    bottom = MARGIN / float(figure.get_size_inches()[1])
    style = {"size": SMALL_FONT_SIZE, "color": MUTED_COLOR, "va": "bottom", "linespacing": 1.2}
    draw_text(figure, MARGIN / width, bottom, "\n".join(lines), **style)
    return figure


def add_legend(figure: Figure, colors: Mapping[str, str], heading: str, max_rows: int = 6) -> None:
    """Write a legend under what a figure shows: a dot for each name, in as many rows as it takes.

    Args:
        figure: The figure, which grows.
        colors: The colour of each name.
        heading: What the names are, such as "categories".
        max_rows: Rows at most; the last entry says how many names there was no room for.
    """
    width = float(figure.get_size_inches()[0])
    start = MARGIN + text_width(heading, SMALL_FONT_SIZE) + 0.15
    max_width = MAX_LABEL_WIDTH if len(colors) <= MANY_NAMES else 0.75 * MAX_LABEL_WIDTH
    labels = {name: shorten_text(name, max_width, SMALL_FONT_SIZE) for name in colors}
    cell = max(text_width(label, SMALL_FONT_SIZE) for label in labels.values()) + 0.27
    columns = max(1, int((width - start - MARGIN) / cell))
    names = list(colors)
    omitted = 0
    if len(names) > columns * max_rows:
        omitted = len(names) - columns * max_rows + 1
        names = names[:-omitted]
    entries = [(labels[name], colors[name]) for name in names]
    rows = math.ceil((len(entries) + bool(omitted)) / columns)
    height = LINE_HEIGHT * rows + 0.08
    axes = add_area_below(figure, height)
    draw_text(axes, MARGIN, height - 0.16, heading, size=SMALL_FONT_SIZE, color=MUTED_COLOR)
    for i in range(len(entries) + bool(omitted)):
        row, column = divmod(i, columns)
        x = start + cell * column
        y = height - 0.16 - LINE_HEIGHT * row
        if i == len(entries):
            draw_text(axes, x, y, f"and {omitted} more", size=SMALL_FONT_SIZE, color=MUTED_COLOR)
            continue
        label, color = entries[i]
        axes.add_line(Line2D((x + 0.04,), (y + 0.04,), marker="o", markersize=4.5, color=color, linestyle=""))
        draw_text(axes, x + 0.13, y, label, size=SMALL_FONT_SIZE)


def add_area_below(figure: Figure, height: float) -> Axes:
    """Room under what a figure shows, as axes without a frame whose coordinates are inches.

    Args:
        figure: The figure, which grows.
        height: Inches.

    Returns:
        The axes, from 0 to the width of the figure and from 0 to `height`.
    """
    extend_below(figure, height)
    width, total = map(float, figure.get_size_inches())
    axes = figure.add_axes((0, 0, 1, height / total), xlim=(0, width), ylim=(0, height))
    axes.set_axis_off()
    return axes


def column_count(panels: int) -> int:
    """In how many columns panels are placed: at most three, and no panel alone in the last of two rows.

    Example:
        >>> [column_count(panels) for panels in (1, 2, 3, 4, 5)]
        [1, 2, 3, 2, 3]
    """
    return 2 if panels in (2, 4) else min(3, panels)


def place_panels(figure: Figure, panels: Sequence[Axes], columns: int, height: float, margins: PanelMargins) -> None:
    """Put panels in rows under what a figure shows.

    Args:
        figure: The figure, which grows.
        panels: Axes of the figure, whose place is set here.
        columns: How many stand side by side.
        height: Of each panel's axes, in inches.
        margins: The space around them.
    """
    rows = math.ceil(len(panels) / columns)
    cell_height = PANEL_HEADER_HEIGHT + height + margins.below
    page_width = float(figure.get_size_inches()[0])
    cell_width = (page_width - 2 * MARGIN - margins.first) / columns
    extend_below(figure, rows * cell_height)
    page_height = float(figure.get_size_inches()[1])
    for i, axes in enumerate(panels):
        row, column = divmod(i, columns)
        left = MARGIN + margins.first + column * cell_width + margins.left
        bottom = (rows - 1 - row) * cell_height + margins.below
        width = cell_width - margins.left - margins.right
        axes.set_position((left / page_width, bottom / page_height, width / page_width, height / page_height))


def style_panel(axes: Axes, name: str, unit: str) -> None:
    """Clean axes with a statement of what is drawn in place of a y label.

    Args:
        axes: The panel.
        name: Of the quantity.
        unit: Of the quantity, under the name.
    """
    families = font_families(name)
    title = {"size": FONT_SIZE, "color": TEXT_COLOR, "weight": "bold", "family": families, "parse_math": False}
    axes.set_title(name, loc="left", pad=15, **title)
    unit_style = {"size": SMALL_FONT_SIZE, "color": MUTED_COLOR, "family": font_families(unit), "parse_math": False}
    axes.annotate(unit, (0, 1), (0, 5), "axes fraction", "offset points", **unit_style)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(MUTED_COLOR)
    axes.tick_params(labelsize=SMALL_FONT_SIZE, colors=MUTED_COLOR, length=3)
    axes.set_axisbelow(True)
    axes.grid(axis="y", color=GRID_COLOR, linewidth=0.4, linestyle=(0, (1, 4)))
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True, min_n_ticks=1))
    axes.yaxis.set_major_locator(MaxNLocator(4))
    axes.yaxis.set_major_formatter(FuncFormatter(format_tick))


def format_tick(value: float, position: int | None = None) -> str:
    """A number at an axis, with a separator of thousands and a true minus sign.

    Args:
        value: The number.
        position: Of the tick, which matplotlib gives and which does not matter.

    Returns:
        The text.

    Example:
        >>> format_tick(-12500.0)
        '−12,500'
    """
    del position
    return f"{value:,.10g}".replace("-", "−")


def tick_label_width(panels: Sequence[Axes]) -> float:
    """The width of the widest number at the y axes of some panels, in inches."""
    widths = [0.0]
    for axes in panels:
        labels = axes.yaxis.get_major_formatter().format_ticks(list(axes.get_yticks()))
        widths += [text_width(label, SMALL_FONT_SIZE) for label in labels]
    return max(widths)


def save_figure(figure: Figure, path: Path, pdf: bool = False) -> list[Path]:
    """Write a figure in the format that the suffix of its file names.

    Args:
        figure: The figure.
        path: The file, such as curves.png.
        pdf: Whether to write a PDF beside it too.

    Returns:
        The files written.

    Raises:
        UserError: There is no such format.
    """
    formats = figure.canvas.get_supported_filetypes()
    paths = [path]
    if pdf and path.suffix != ".pdf":
        paths.append(path.with_suffix(".pdf"))
    for target in paths:
        file_format = target.suffix[1:].lower()
        if file_format not in formats:
            raise unknown_name_error("picture format", file_format, formats)
        buffer = io.BytesIO()  # in memory first: a full disk in the middle of a PDF is no clean error
        figure.savefig(buffer, format=file_format, dpi="figure", **SAVE_OPTIONS.get(file_format, {}))
        with atomic_write(target) as temporary:
            temporary.write_bytes(buffer.getvalue())
    return paths
