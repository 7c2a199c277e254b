"""The page: how text, tiles of images and files are set, for every figure alike.

Text is measured before it is drawn and written as it is: no mathematics is read into a "$", and what no installed font
can draw becomes a box. A pixel of an image is always a square of whole pixels on the page. Everything goes through
matplotlib's objects, never through pyplot: figures may be drawn in threads and servers; equal input gives equal bytes.
"""

from __future__ import annotations

import functools
import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import colormaps, font_manager
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import RendererAgg
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.text import Text

from vaelab.core.errors import unknown_name_error
from vaelab.core.files import atomic_write

__all__ = [
    "DPI",
    "FONT_SIZE",
    "GRID_COLOR",
    "LABEL_HEIGHT",
    "LINE_HEIGHT",
    "MARGIN",
    "MAX_LABEL_WIDTH",
    "MAX_TILE",
    "MUTED_COLOR",
    "OKABE_ITO",
    "PAGE_WIDTH",
    "PETROFF",
    "SMALL_FONT_SIZE",
    "TEXT_COLOR",
    "add_caption",
    "assign_colors",
    "available_fonts",
    "blank_figure",
    "color_palette",
    "column_count",
    "distinct_labels",
    "draw_text",
    "draw_title",
    "extend_below",
    "place_panels",
    "replace_missing_glyphs",
    "save_figure",
    "shorten_text",
    "text_width",
    "wrap_title",
]

DPI = 200

PAGE_WIDTH, MAX_TILE, MARGIN = 7.0, 0.95, 0.1  # inches: a figure's width, an image's side at most, the white margin

FONT_SIZE, SMALL_FONT_SIZE = 9.0, 8.0  # points

LINE_HEIGHT = 0.17  # inches from one line of text to the next

TEXT_COLOR, MUTED_COLOR, GRID_COLOR = "#222222", "#666666", "#e4e4e4"

OKABE_ITO = ("#0072b2", "#d55e00", "#009e73", "#e69f00", "#cc79a7", "#56b4e9", "#000000")

PETROFF = ("#3f90da", "#ffa90e", "#bd1f01", "#94a4a2", "#832db6", "#a96b59", "#e76300", "#b9ac70", "#717581", "#92dadd")

FALLBACK_FONTS = (
    "Noto Sans CJK SC",
    "Noto Sans CJK JP",
    "PingFang SC",
    "Hiragino Sans",
    "Microsoft YaHei",
    "Malgun Gothic",
    "Arial Unicode MS",
    "WenQuanYi Micro Hei",
    "Droid Sans Fallback",
    "Unifont",
)

SAVE_OPTIONS: dict[
    str, Any
] = {  # no time stamps: equal figures, equal bytes; PNG a sixth larger in a third of the time
    "png": {"pil_kwargs": {"compress_level": 3}},
    "pdf": {"metadata": {"CreationDate": None}},
    "svg": {"metadata": {"Date": None}},
}


# Text: measured before it is drawn, so that margins fit it and what is too long is shortened


@functools.cache
def available_fonts() -> tuple[list[str], frozenset[int]]:
    """The font families to draw with, the first that has a glyph wins, and all the characters that they have."""
    installed = {font.name for font in font_manager.fontManager.ttflist}
    families = ["DejaVu Sans", *(name for name in FALLBACK_FONTS if name in installed)]
    known: set[int] = set()
    for family in families:
        regular, bold = (font_manager.FontProperties(family=family, weight=weight) for weight in ("normal", "bold"))
        known |= _glyphs(regular) & _glyphs(bold)
    return families, frozenset(known)


def _glyphs(prop: font_manager.FontProperties) -> set[int]:
    return set(font_manager.get_font(font_manager.findfont(prop)).get_charmap())


def replace_missing_glyphs(text: str) -> str:
    """The text with a box for every character that no font has: matplotlib would warn at each of them."""
    known = available_fonts()[1]
    return "".join(c if c == "\n" or ord(c) in known else " " if c.isspace() else "□" for c in text)


def text_width(text: str, size: float, weight: str = "normal") -> float:
    """The width of a line of text in inches."""
    prop = font_manager.FontProperties(family=available_fonts()[0], size=size, weight=weight)
    return RendererAgg(1, 1, DPI).get_text_width_height_descent(replace_missing_glyphs(text), prop, False)[0] / DPI


def shorten_text(text: str, max_width: float, size: float = FONT_SIZE, weight: str = "normal") -> str:
    """The text in one line, shortened with an ellipsis where it is wider than `room` inches."""
    text = text.replace("\n", " ").strip()
    short = text[:200]
    while short and text_width(short if short == text else f"{short}…", size, weight) > max_width:
        short = short[:-1]
    return text if short == text else short.rstrip(" ,") + "…"


def wrap_title(title: str, max_width: float) -> list[str]:
    """A title in lines of at most `room` inches."""
    lines: list[str] = []
    for word in (shorten_text(word, max_width, FONT_SIZE, "bold") for word in title.split()):
        if lines and text_width(f"{lines[-1]} {word}", FONT_SIZE, "bold") <= max_width:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return lines


def draw_text(target: Figure | Axes, x: float, y: float, text: str, **style: Any) -> Text:
    style = {"size": FONT_SIZE, "color": TEXT_COLOR, "family": available_fonts()[0], "parse_math": False, **style}
    return target.text(x, y, replace_missing_glyphs(text), **style)


def distinct_labels(names: Sequence[str]) -> list[str]:
    """The names as they can be drawn, numbered where characters are missing and two of them could look the same."""
    return [
        name if replace_missing_glyphs(name) == name else f"{i} {replace_missing_glyphs(name)}"
        for i, name in enumerate(names)
    ]


def draw_title(figure: Figure, lines: Sequence[str]) -> None:
    """The title, at the upper left corner of a figure of any size."""
    width, height = figure.get_size_inches()
    draw_text(figure, MARGIN / width, 1 - MARGIN / height, "\n".join(lines), va="top", weight="bold", linespacing=1.25)


def save_figure(figure: Figure, path: Path, pdf: bool = False) -> list[Path]:
    """Write a figure in the format of the path's suffix, if asked also as a PDF beside it; the paths written."""
    known = figure.canvas.get_supported_filetypes()
    paths = [path] if not pdf or path.suffix == ".pdf" else [path, path.with_suffix(".pdf")]
    for target in paths:
        form = target.suffix[1:].lower()
        if form not in known:
            raise unknown_name_error("picture format", form, known)
        drawn = io.BytesIO()  # in memory first: a full disk in the middle of a PDF is no clean error
        figure.savefig(drawn, format=form, dpi="figure", **SAVE_OPTIONS.get(form, {}))
        with atomic_write(target) as temporary:
            temporary.write_bytes(drawn.getvalue())
    return paths


PANEL_HEADER_HEIGHT = 0.45  # inches over a panel, for its name and unit

LABEL_HEIGHT = 0.14  # inches from one small line of text to the next

MAX_LABEL_WIDTH = 1.3  # inches at most for the name of a setting


def assign_colors(names: Sequence[str]) -> dict[str, str]:
    """A colour for each setting: of numbers along a ramp from dark to light, of other names as different as can be."""
    shades: Any = color_palette(len(names))
    try:
        rank = np.argsort(np.argsort([float(name) for name in names], kind="stable"), kind="stable")
        shades = colormaps["viridis"](np.linspace(0, 0.78, len(names)))[rank]  # beyond that it is too light on white
    except ValueError:
        pass
    return {name: to_hex(colour) for name, colour in zip(names, shades, strict=False)}


def blank_figure(title: str) -> Figure:
    """A figure with its title alone, as high as that."""
    lines = wrap_title(title, PAGE_WIDTH - 2 * MARGIN)
    figure = Figure((PAGE_WIDTH, MARGIN + LINE_HEIGHT * len(lines)), DPI, facecolor="white")
    draw_title(figure, lines)
    return figure


def place_panels(figure: Figure, columns: int, inner: float, margins: tuple[float, float, float, float]) -> None:
    """Put panels `inner` inches high under the title: margins left of all, and left of, right of, under each."""
    first, left, right, below = margins
    rows, high = math.ceil(len(figure.axes) / columns), PANEL_HEADER_HEIGHT + inner + below
    wide = (PAGE_WIDTH - 2 * MARGIN - first) / columns
    extend_below(figure, rows * high)
    height = float(figure.get_size_inches()[1])
    for i, axes in enumerate(figure.axes):
        row, column = divmod(i, columns)
        bottom = (rows - 1 - row) * high + below
        corner = (MARGIN + first + column * wide + left) / PAGE_WIDTH, bottom / height
        axes.set_position((*corner, (wide - left - right) / PAGE_WIDTH, inner / height))


def extend_below(figure: Figure, below: float) -> None:
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


def add_caption(figure: Figure, caption: str) -> Figure:
    """The figure with a caption under it."""
    width = float(figure.get_size_inches()[0])
    lines = wrap_title(caption, (width - 2 * MARGIN) * 1.2)  # measured in the title's font, that much wider
    extend_below(figure, LABEL_HEIGHT * len(lines) + MARGIN + 0.07)
    bottom = MARGIN / float(figure.get_size_inches()[1])
    draw_text(
        figure,
        MARGIN / width,
        bottom,
        "\n".join(lines),
        size=SMALL_FONT_SIZE,
        color=MUTED_COLOR,
        va="bottom",
        linespacing=1.2,
    )
    return figure


def column_count(count: int) -> int:
    return 2 if count in (2, 4) else min(3, count)


def color_palette(count: int) -> list[str] | list[tuple[float, ...]]:
    if count <= len(PETROFF):
        return list(OKABE_ITO if count <= len(OKABE_ITO) else PETROFF)
    return [tuple(colour) for colour in colormaps["turbo"](np.linspace(0.03, 0.97, count))]
