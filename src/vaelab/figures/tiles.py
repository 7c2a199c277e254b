"""Tiles: tables of images with names before rows, headers over columns and notes under them.

A pixel of an image is always a square of whole pixels of the figure. Images come in as uint8 or as floats in [0, 1],
with shape (*, C, H, W) and one or three channels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure

from vaelab.core.errors import UserError
from vaelab.figures.colors import MUTED_COLOR
from vaelab.figures.layout import (
    LABEL_HEIGHT,
    MARGIN,
    PAGE_WIDTH,
    add_caption,
    blank_figure,
    extend_below,
    whole_pixels,
)
from vaelab.figures.text import (
    DPI,
    FONT_SIZE,
    SMALL_FONT_SIZE,
    distinct_labels,
    draw_text,
    shorten_text,
    text_width,
)

__all__ = [
    "Canvas",
    "TileScale",
    "TileTable",
    "as_rgb",
    "column_headers",
    "compose_tiles",
    "grid_columns",
    "path_caption",
    "path_headers",
    "plot_epochs",
    "plot_grid",
    "plot_interpolations",
    "plot_reconstructions",
    "plot_tile_tables",
    "plot_traversals",
    "tile_scale",
    "to_rows",
]

MAX_TILE = 0.95  # inches, the side of an image at most
MAX_NAME_WIDTH = 1.6  # before a row
MIN_WIDTH = 4.5  # of a figure, so that its title and caption have room

GAP = 0.03  # between tiles; a break is five times as wide
NAME_GAP = 0.08  # between a name and its row

MAX_HEADERS = 12  # numbers over columns: of more columns only some are named


class TileTable(NamedTuple):
    """A table of image tiles.

    Attributes:
        tiles: The images, uint8 with shape (R, T, H, W, 3).
        row_labels: A name before each row.
        column_headers: A text over each column, in one or two lines.
        column_notes: A text under each column.
        row_breaks: Rows before which there is a wider gap.
        column_breaks: Columns before which there is a wider gap.
    """

    tiles: np.ndarray
    row_labels: Sequence[str] = ()
    column_headers: Sequence[str] = ()
    column_notes: Sequence[str] = ()
    row_breaks: Sequence[int] = ()
    column_breaks: Sequence[int] = ()


class Canvas(NamedTuple):
    """Tiles put together into one picture.

    Attributes:
        pixels: The picture, uint8 with shape (H, W, 3).
        rows: The pixel at which each row starts.
        columns: The pixel at which each column starts.
    """

    pixels: np.ndarray
    rows: np.ndarray
    columns: np.ndarray


class TileScale(NamedTuple):
    """How tiles fit a width: the whole factor by which they grow, and the dots per inch that this takes."""

    factor: int
    dpi: int


# Figures of tables


def plot_tile_tables(tables: Sequence[TileTable], title: str = "", *, caption: str = "") -> Figure:
    """Tables of images, one under the other.

    Args:
        tables: The tables; their images may differ in size.
        title: Of the figure.
        caption: Under it.

    Returns:
        The figure.

    Raises:
        UserError: There is no image.
    """
    if not all(table.tiles.size for table in tables):
        raise UserError("there are no images to draw")
    names = [shorten_text(name, MAX_NAME_WIDTH) for table in tables for name in table.row_labels]
    left = MARGIN + max((text_width(name, FONT_SIZE) + NAME_GAP for name in names), default=0)
    scales = [tile_scale(table.tiles, PAGE_WIDTH - left - MARGIN) for table in tables]
    dpi = max(scale.dpi for scale in scales)
    canvases = []
    for table, scale in zip(tables, scales, strict=True):
        factor = max(1, scale.factor * dpi // scale.dpi)
        grown = table.tiles.repeat(factor, 2).repeat(factor, 3)
        canvases.append(compose_tiles(grown, round(GAP * dpi), table.row_breaks, table.column_breaks))
    widest = max(canvas.pixels.shape[1] for canvas in canvases)
    width = max(MIN_WIDTH, left + widest / dpi + MARGIN)
    figure = blank_figure(title, whole_pixels(width, dpi), dpi)
    extend_below(figure, 0)  # to whole pixels
    for table, canvas in zip(tables, canvases, strict=True):
        _add_table(figure, table, canvas, left)
    return add_caption(figure, caption)


def _add_table(figure: Figure, table: TileTable, canvas: Canvas, left: float) -> None:
    """Put a table under what a figure shows, its images `left` inches from the edge."""
    dpi = figure.dpi
    canvas_height, canvas_width = canvas.pixels.shape[:2]
    header_lines = max((header.count("\n") + 1 for header in table.column_headers), default=0)
    over = 0.07 + LABEL_HEIGHT * header_lines
    if not header_lines and table.row_labels and figure.axes:
        over = 0.3
    under = round((0.15 if table.column_notes else 0.03) * dpi)
    extend_below(figure, over + (canvas_height + under) / dpi)
    axes = figure.add_axes(_pixel_box(figure, (round(left * dpi), under, canvas_width, canvas_height)))
    axes.imshow(canvas.pixels, interpolation="none", aspect="auto", extent=(0, canvas_width, canvas_height, 0))
    axes.set_axis_off()
    tile_height = canvas_height - canvas.rows[-1]
    tile_width = canvas_width - canvas.columns[-1]
    for y, name in zip(canvas.rows + tile_height / 2, table.row_labels, strict=False):
        draw_text(axes, -NAME_GAP * dpi, y, shorten_text(name, MAX_NAME_WIDTH), ha="right", va="center")
    max_width = max(0.3, tile_width / dpi) + 0.02
    for x, header in zip(canvas.columns + tile_width / 2, table.column_headers, strict=False):
        lines = [shorten_text(line, max_width, SMALL_FONT_SIZE) for line in header.split("\n")]
        style = {"size": SMALL_FONT_SIZE, "ha": "center", "va": "bottom", "linespacing": 1.1}
        draw_text(axes, x, -0.03 * dpi, "\n".join(lines), **style)
    for x, note in zip(canvas.columns + tile_width / 2, table.column_notes, strict=False):
        style = {"size": SMALL_FONT_SIZE - 1, "color": MUTED_COLOR, "ha": "center", "va": "top"}
        draw_text(axes, x, canvas_height + 0.025 * dpi, note, **style)


def _pixel_box(figure: Figure, box: tuple[int, int, int, int]) -> tuple[float, float, float, float]:
    """A box of whole pixels (left, bottom, width, height) in the coordinates of a figure.

    It is a trace smaller, since matplotlib rounds up the size of an image, and would draw 100.0000001 pixels as 101.
    """
    left, bottom, width, height = box
    figure_width, figure_height = np.rint(figure.get_size_inches() * figure.dpi)
    trace = 1e-6
    x = (left + trace / 2) / figure_width
    y = (bottom + trace / 2) / figure_height
    return x, y, (width - trace) / figure_width, (height - trace) / figure_height


def plot_grid(images: np.ndarray, title: str = "", columns: int | None = None, *, caption: str = "") -> Figure:
    """Images row by row.

    Args:
        images: With shape (N, C, H, W).
        title: Of the figure.
        columns: Images in a row; by their number if not given.
        caption: Under the figure.

    Returns:
        The figure.
    """
    if columns is None:
        columns = grid_columns(len(images))
    columns = max(1, min(columns, len(images)))
    return plot_tile_tables([TileTable(to_rows(as_rgb(images), columns))], title, caption=caption)


def grid_columns(count: int) -> int:
    """In how many columns a number of images is shown: about a square, with as few empty places as possible.

    Example:
        >>> [grid_columns(count) for count in (1, 2, 4, 6, 7, 10, 64, 100)]
        [1, 2, 2, 3, 4, 5, 8, 10]
    """
    square = max(1, math.ceil(math.sqrt(count)))
    candidates = range(square, int(1.5 * square) + 1)
    return min(candidates, key=lambda columns: (-count % columns, columns))


def plot_reconstructions(
    originals: np.ndarray, reconstructions: np.ndarray, title: str = "", *, caption: str = ""
) -> Figure:
    """Originals above their reconstructions, in pairs of rows of at most ten.

    Args:
        originals: With shape (N, C, H, W).
        reconstructions: Of the same shape.
        title: Of the figure.
        caption: Under it.

    Returns:
        The figure.
    """
    max_columns = min(10, max(1, 2600 // originals.shape[-1]))
    num_pairs = max(1, math.ceil(len(originals) / max_columns))
    columns = max(1, math.ceil(len(originals) / num_pairs))
    pairs = np.stack([to_rows(as_rgb(originals), columns), to_rows(as_rgb(reconstructions), columns)], axis=1)
    table = TileTable(
        pairs.reshape(-1, *pairs.shape[2:]),
        row_labels=["original", "reconstruction"] * num_pairs,
        row_breaks=range(2, 2 * num_pairs, 2),
    )
    return plot_tile_tables([table], title, caption=caption)


def plot_interpolations(
    originals: np.ndarray,
    paths: np.ndarray,
    alphas: Sequence[float] | np.ndarray,
    names: tuple[str, str] = ("", ""),
    title: str = "",
    *,
    caption: str = "",
) -> Figure:
    """Pairs of originals, and the images on the way from the first to the second.

    Args:
        originals: The pairs, with shape (P, 2, C, H, W), that of alpha = 0 first.
        paths: The images on the way, with shape (P, T, C, H, W).
        alphas: Of the images on the way, with shape (T,).
        names: What is at alpha = 0 and at alpha = 1.
        title: Of the figure.
        caption: Under it, such as `path_caption`.

    Returns:
        The figure.
    """
    tiles = np.concatenate([as_rgb(originals), as_rgb(paths)], axis=1)
    headers = path_headers(alphas, names)
    return plot_tile_tables([TileTable(tiles, column_headers=headers, column_breaks=(2,))], title, caption=caption)


def path_headers(alphas: Sequence[float] | np.ndarray, names: tuple[str, str] = ("", "")) -> list[str]:
    """The headers of interpolations: two originals, and the values of alpha with what is at their ends.

    Args:
        alphas: Of the images on the way, from 0 to 1.
        names: What is at alpha = 0 and at alpha = 1.

    Returns:
        A header of two lines for each column.

    Example:
        >>> [header.replace("\\n", " | ") for header in path_headers([0, 0.5, 1], ("woman", "man"))]
        ['woman | original', 'man | original', 'z₂: woman | α = 0', ' | 0.5', 'z₁: man | α = 1']
    """
    start, end = _end_labels(names)
    values = column_headers(alphas, "α")
    headers = [f"{start}\noriginal", f"{end}\noriginal"]
    for i, value in enumerate(values):
        name = ""
        if i == 0:
            name = f"z₂: {start}"
        elif i == len(values) - 1:
            name = f"z₁: {end}"
        headers.append(f"{name}\n{value}")
    return headers


def path_caption(names: tuple[str, str] = ("", ""), path: str = "linear", sampled: bool = False) -> str:
    """A sentence that says which codes lie at the two ends of a path.

    Args:
        names: What is at alpha = 0 and at alpha = 1.
        path: "linear", or the name of another path.
        sampled: Whether the codes are samples of the posteriors in place of their means.

    Returns:
        The sentence.

    Example:
        >>> path_caption(("woman", "man"))
        'Decoded from z = α z₁ + (1 − α) z₂, with posterior means z₂ (woman, α = 0) and z₁ (man, α = 1).'
    """
    start, end = _end_labels(names)
    codes = "samples of the posteriors" if sampled else "posterior means"
    ends = f"z₂ ({start}, α = 0) and z₁ ({end}, α = 1)"
    if path == "linear":
        return f"Decoded from z = α z₁ + (1 − α) z₂, with {codes} {ends}."
    return f"Decoded on a {path} path between {codes} {ends}."


def _end_labels(names: tuple[str, str]) -> tuple[str, str]:
    """What the ends of a path are called; "start" and "end" where nothing is known of them."""
    start, end = distinct_labels(names)
    return start or "start", end or "end"


def plot_traversals(
    images: np.ndarray,
    labels: Sequence[str],
    values: Sequence[float] | np.ndarray,
    title: str = "",
    *,
    caption: str = "",
) -> Figure:
    """Images in whose rows one latent dimension takes several values.

    Args:
        images: With shape (D, T, C, H, W).
        labels: The name of each dimension.
        values: That the dimensions take, with shape (T,).
        title: Of the figure.
        caption: Under it.

    Returns:
        The figure.
    """
    table = TileTable(as_rgb(images), row_labels=labels, column_headers=column_headers(values))
    return plot_tile_tables([table], title, caption=caption)


def plot_epochs(
    originals: np.ndarray, by_epoch: Sequence[tuple[int, np.ndarray]], title: str = "", *, caption: str = ""
) -> Figure:
    """Originals, and below them their reconstructions after chosen epochs.

    Args:
        originals: With shape (N, C, H, W).
        by_epoch: Epochs, each with reconstructions of the same shape.
        title: Of the figure.
        caption: Under it.

    Returns:
        The figure.
    """
    labels = ["original", *(f"epoch {epoch}" for epoch, _ in by_epoch)]
    rows = [as_rgb(originals), *(as_rgb(images) for _, images in by_epoch)]
    return plot_tile_tables([TileTable(np.stack(rows), row_labels=labels, row_breaks=(1,))], title, caption=caption)


def column_headers(values: Sequence[float] | np.ndarray, name: str = "") -> list[str]:
    """Numbers as headers of columns, only some of them where they would run into each other.

    Args:
        values: A number for each column.
        name: Of the numbers, which is written at the first and at the last.

    Returns:
        A header for each column.

    Example:
        >>> column_headers([0, 0.5, 1], "α")
        ['α = 0', '0.5', 'α = 1']
    """
    step = math.ceil(len(values) / MAX_HEADERS)
    headers = []
    for i, value in enumerate(values):
        is_last = i == len(values) - 1
        is_shown = is_last or (i % step == 0 and i + step // 2 < len(values))
        number = f"{value:.3g}".replace("-", "−")
        if name and (i == 0 or is_last):
            number = f"{name} = {number}"
        headers.append(number if is_shown else "")
    return headers


# Pixels


def as_rgb(images: np.ndarray) -> np.ndarray:
    """Images as colour tiles.

    Args:
        images: uint8, or floats in [0, 1], with shape (*, C, H, W) and one or three channels.

    Returns:
        uint8 with shape (*, H, W, 3).
    """
    if images.dtype != np.uint8:
        images = np.rint(np.clip(np.nan_to_num(images), 0, 1) * 255).astype(np.uint8)
    images = np.moveaxis(images, -3, -1)
    return np.broadcast_to(images, (*images.shape[:-1], 3))


def to_rows(tiles: np.ndarray, columns: int) -> np.ndarray:
    """Tiles in rows, the last one filled up with white.

    Args:
        tiles: With shape (N, H, W, 3).
        columns: In a row.

    Returns:
        With shape (R, columns, H, W, 3).
    """
    white = np.full((-len(tiles) % columns, *tiles.shape[1:]), 255, np.uint8)
    return np.concatenate([tiles, white]).reshape(-1, columns, *tiles.shape[1:])


def tile_scale(tiles: np.ndarray, max_width: float) -> TileScale:
    """How much tiles grow so that a row of them fits a width and none is larger than is useful.

    Args:
        tiles: With shape (R, T, H, W, 3).
        max_width: Of a row, in inches.

    Returns:
        The factor and the dots per inch.
    """
    _, columns, height, width, _ = tiles.shape
    row_width = max_width - 0.035 * columns - 0.15  # without the gaps
    fitting = round(row_width * DPI / (columns * width))
    largest = int(MAX_TILE * DPI / max(height, width))
    factor = max(1, min(fitting, largest))
    return TileScale(factor, max(DPI, math.ceil(columns * width * factor / row_width)))


def compose_tiles(
    tiles: np.ndarray, gap: int, row_breaks: Sequence[int] = (), column_breaks: Sequence[int] = ()
) -> Canvas:
    """One picture of all tiles on white.

    Args:
        tiles: With shape (R, T, H, W, 3).
        gap: Pixels between tiles.
        row_breaks: Rows before which the gap is wider.
        column_breaks: Columns before which the gap is wider.

    Returns:
        The picture and where its rows and columns start.
    """
    height, width = tiles.shape[2:4]
    rows = _tile_offsets(len(tiles), height, gap, row_breaks)
    columns = _tile_offsets(tiles.shape[1], width, gap, column_breaks)
    pixels = np.full((rows[-1] + height, columns[-1] + width, 3), 255, np.uint8)
    for y, row in zip(rows, tiles, strict=True):
        for x, tile in zip(columns, row, strict=True):
            pixels[y : y + height, x : x + width] = tile
    return Canvas(pixels, rows, columns)


def _tile_offsets(count: int, size: int, gap: int, breaks: Sequence[int]) -> np.ndarray:
    """Where each of `count` tiles starts, with a wider gap before those in `breaks`."""
    order = np.arange(count)
    num_breaks = np.searchsorted(np.sort(np.asarray(breaks, int)), order, side="right")
    return order * (size + gap) + 4 * gap * num_breaks
