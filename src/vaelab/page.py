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
from matplotlib import font_manager
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import RendererAgg
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image

from vaelab.errors import UserError, unknown
from vaelab.files import writing

__all__ = [
    "DPI",
    "EDGE",
    "GREY",
    "INK",
    "LINE",
    "OKABE_ITO",
    "PAGE",
    "PALE",
    "PETROFF",
    "SIZE",
    "SMALL",
    "animation",
    "as_rgb",
    "distinct",
    "drawable",
    "fonts",
    "headline",
    "heads",
    "in_rows",
    "save",
    "sheet",
    "shortened",
    "text_width",
    "wrapped",
    "write",
]

DPI = 200
PAGE, TILE, EDGE = 7.0, 0.95, 0.1  # inches: a figure's width, an image's side at most, the white margin
SIZE, SMALL = 9.0, 8.0  # points
LINE = 0.17  # inches from one line of text to the next
INK, GREY, PALE = "#222222", "#666666", "#e4e4e4"
OKABE_ITO = ("#0072b2", "#d55e00", "#009e73", "#e69f00", "#cc79a7", "#56b4e9", "#000000")
PETROFF = ("#3f90da", "#ffa90e", "#bd1f01", "#94a4a2", "#832db6", "#a96b59", "#e76300", "#b9ac70", "#717581", "#92dadd")
FALLBACKS = ("Noto Sans CJK SC", "Noto Sans CJK JP", "PingFang SC", "Hiragino Sans", "Microsoft YaHei", "Malgun Gothic",
             "Arial Unicode MS", "WenQuanYi Micro Hei", "Droid Sans Fallback", "Unifont")  # fmt: skip
SAVING: dict[str, Any] = {  # no time stamps: equal figures, equal bytes; PNG a sixth larger in a third of the time
    "png": {"pil_kwargs": {"compress_level": 3}}, "pdf": {"metadata": {"CreationDate": None}},
    "svg": {"metadata": {"Date": None}},
}  # fmt: skip


# Text: measured before it is drawn, so that margins fit it and what is too long is shortened


@functools.cache
def fonts() -> tuple[list[str], frozenset[int]]:
    """The font families to draw with, the first that has a glyph wins, and all the characters that they have."""
    installed = {font.name for font in font_manager.fontManager.ttflist}
    families = ["DejaVu Sans", *(name for name in FALLBACKS if name in installed)]
    known: set[int] = set()
    for family in families:
        regular, bold = (font_manager.FontProperties(family=family, weight=weight) for weight in ("normal", "bold"))
        known |= _glyphs(regular) & _glyphs(bold)
    return families, frozenset(known)


def _glyphs(prop: font_manager.FontProperties) -> set[int]:
    return set(font_manager.get_font(font_manager.findfont(prop)).get_charmap())


def drawable(text: str) -> str:
    """The text with a box for every character that no font has: matplotlib would warn at each of them."""
    known = fonts()[1]
    return "".join(c if c == "\n" or ord(c) in known else " " if c.isspace() else "□" for c in text)


def text_width(text: str, size: float, weight: str = "normal") -> float:
    """The width of a line of text in inches."""
    prop = font_manager.FontProperties(family=fonts()[0], size=size, weight=weight)
    return RendererAgg(1, 1, DPI).get_text_width_height_descent(drawable(text), prop, False)[0] / DPI


def shortened(text: str, room: float, size: float = SIZE, weight: str = "normal") -> str:
    """The text in one line, shortened with an ellipsis where it is wider than `room` inches."""
    text = text.replace("\n", " ").strip()
    short = text[:200]
    while short and text_width(short if short == text else f"{short}…", size, weight) > room:
        short = short[:-1]
    return text if short == text else short.rstrip(" ,") + "…"


def wrapped(title: str, room: float) -> list[str]:
    """A title in lines of at most `room` inches."""
    lines: list[str] = []
    for word in (shortened(word, room, SIZE, "bold") for word in title.split()):
        if lines and text_width(f"{lines[-1]} {word}", SIZE, "bold") <= room:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return lines


def write(on: Figure | Axes, x: float, y: float, text: str, **style: Any) -> Text:
    style = {"size": SIZE, "color": INK, "family": fonts()[0], "parse_math": False, **style}
    return on.text(x, y, drawable(text), **style)


def distinct(names: Sequence[str]) -> list[str]:
    """The names as they can be drawn, numbered where characters are missing and two of them could look the same."""
    return [name if drawable(name) == name else f"{i} {drawable(name)}" for i, name in enumerate(names)]


# Sheets: tables of image tiles


def as_rgb(images: np.ndarray) -> np.ndarray:
    """Images (*, C, H, W) as uint8 (*, H, W, 3)."""
    if images.dtype != np.uint8:
        images = np.rint(np.clip(np.nan_to_num(images), 0, 1) * 255).astype(np.uint8)
    images = np.moveaxis(images, -3, -1)
    return np.broadcast_to(images, (*images.shape[:-1], 3))


def in_rows(tiles: np.ndarray, columns: int) -> np.ndarray:
    """Tiles (N, H, W, 3) in rows (R, columns, H, W, 3), the last one filled up with white."""
    white = np.full((-len(tiles) % columns, *tiles.shape[1:]), 255, np.uint8)
    return np.concatenate([tiles, white]).reshape(-1, columns, *tiles.shape[1:])


def _starts(count: int, size: int, gap: int, breaks: Sequence[int]) -> np.ndarray:
    """Where each of `count` tiles starts, with a wider gap before those in `breaks`."""
    order = np.arange(count)
    return order * (size + gap) + 4 * gap * (order[:, None] >= np.asarray(breaks, int)).sum(1)


def scale(tiles: np.ndarray, room: float) -> tuple[int, int]:
    """The whole factor by which tiles grow, and the dots per inch at which a row of them fits into `room` inches."""
    _, columns, height, width, _ = tiles.shape
    room -= 0.035 * columns + 0.15  # for the gaps
    factor = max(1, min(round(room * DPI / (columns * width)), int(TILE * DPI / max(height, width))))
    return factor, max(DPI, math.ceil(columns * width * factor / room))


def compose(
    tiles: np.ndarray, gap: int, row_breaks: Sequence[int] = (), column_breaks: Sequence[int] = ()
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """One picture of all tiles (R, T, H, W, 3) on white, and where its rows and columns start."""
    height, width = tiles.shape[2:4]
    rows = _starts(len(tiles), height, gap, row_breaks)
    columns = _starts(tiles.shape[1], width, gap, column_breaks)
    canvas = np.full((rows[-1] + height, columns[-1] + width, 3), 255, np.uint8)
    for y, line in zip(rows, tiles, strict=True):
        for x, tile in zip(columns, line, strict=True):
            canvas[y : y + height, x : x + width] = tile
    return canvas, rows, columns


def sheet(
    tiles: np.ndarray, title: str, *, heads: Sequence[str] = (), labels: Sequence[str] = (),
    row_breaks: Sequence[int] = (), column_breaks: Sequence[int] = (),
) -> Figure:  # fmt: skip
    """Tiles (R, T, H, W, 3) as a table with heads over its columns, labels before its rows and wider gaps at breaks."""
    if not tiles.size:
        raise UserError("there are no images to draw")
    labels = [shortened(label, 1.6) for label in labels]
    margin = EDGE + max((text_width(label, SIZE) + 0.08 for label in labels), default=0)
    factor, dpi = scale(tiles, PAGE - margin - EDGE)
    tiles = tiles.repeat(factor, 2).repeat(factor, 3)
    canvas, rows, columns = compose(tiles, round(0.03 * dpi), row_breaks, column_breaks)
    wide = margin + canvas.shape[1] / dpi + EDGE
    lines = wrapped(title, max(wide, 4.0) - 2 * EDGE)
    wide = max(wide, *(text_width(line, SIZE, "bold") + 2 * EDGE for line in lines), 0)
    over = EDGE + LINE * len(lines) + 0.06 * bool(lines) + 0.19 * bool(heads)
    left, top = round(margin * dpi), round(over * dpi)  # the pixel at which the canvas starts
    width, height = round(wide * dpi), top + canvas.shape[0] + round(EDGE * dpi)
    figure = Figure((width / dpi, height / dpi), dpi, facecolor="white")
    axes = figure.add_axes((left / width, 1 - (top + canvas.shape[0]) / height,
                            canvas.shape[1] / width, canvas.shape[0] / height))  # fmt: skip
    axes.imshow(canvas, interpolation="none", aspect="auto", extent=(0, canvas.shape[1], canvas.shape[0], 0))
    axes.set_axis_off()
    headline(figure, lines)
    for y, label in zip(rows + tiles.shape[2] / 2, labels, strict=False):
        write(axes, -0.08 * dpi, y, label, ha="right", va="center")
    for x, head in zip(columns + tiles.shape[3] / 2, heads, strict=False):
        fitted = shortened(head, max(0.3, tiles.shape[3] / dpi) + 0.02, SMALL)
        write(axes, x, -0.05 * dpi, fitted, size=SMALL, ha="center")
    return figure


def headline(figure: Figure, lines: Sequence[str]) -> None:
    """The title, at the upper left corner of a figure of any size."""
    width, height = figure.get_size_inches()
    write(figure, EDGE / width, 1 - EDGE / height, "\n".join(lines), va="top", weight="bold", linespacing=1.25)


def heads(values: Sequence[float] | np.ndarray, name: str = "") -> list[str]:
    """Column heads for values: the first one named, and only some where they would run into each other."""
    step = math.ceil(len(values) / 12)
    texts = [f"{value:.3g}".replace("-", "−") if i % step == 0 else "" for i, value in enumerate(values)]
    return [f"{name} = {texts[0]}" if name else texts[0], *texts[1:]]


def save(figure: Figure, path: Path, pdf: bool = False) -> list[Path]:
    """Write a figure in the format of the path's suffix, if asked also as a PDF beside it; the paths written."""
    known = figure.canvas.get_supported_filetypes()
    paths = [path] if not pdf or path.suffix == ".pdf" else [path, path.with_suffix(".pdf")]
    for target in paths:
        form = target.suffix[1:].lower()
        if form not in known:
            raise unknown("picture format", form, known)
        drawn = io.BytesIO()  # in memory first: a full disk in the middle of a PDF is no clean error
        figure.savefig(drawn, format=form, dpi="figure", **SAVING.get(form, {}))
        with writing(target) as temporary:
            temporary.write_bytes(drawn.getvalue())
    return paths


def animation(frames: Sequence[np.ndarray], path: Path, milliseconds: int = 80) -> Path:
    """Frames (C, H, W), or grids of them (R, T, C, H, W), as a GIF that runs forth and back for ever."""
    if not len(frames):
        raise UserError("there are no frames to animate")
    tiles = [as_rgb(frame.reshape(-1, 1, *frame.shape[-3:]) if frame.ndim < 5 else frame) for frame in frames]
    factor, _ = scale(tiles[0], PAGE)
    pictures = []
    for frame in tiles:
        canvas, _, _ = compose(frame, 1 if factor > 1 else 2)
        small = Image.fromarray(canvas).quantize(256, dither=Image.Dither.NONE)  # before growing: dots would show
        pictures.append(small.resize((small.width * factor, small.height * factor), Image.Resampling.NEAREST))
    pictures += pictures[-2:0:-1]
    drawn = io.BytesIO()
    pictures[0].save(drawn, "GIF", save_all=True, append_images=pictures[1:], duration=milliseconds, loop=0)
    with writing(path) as temporary:
        temporary.write_bytes(drawn.getvalue())
    return path
