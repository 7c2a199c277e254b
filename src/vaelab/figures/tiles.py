"""Tiles: grids of images with captions, as still pictures and as animations."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from vaelab.core.errors import UserError
from vaelab.core.files import atomic_write
from vaelab.figures.layout import (
    DPI,
    FONT_SIZE,
    LINE_HEIGHT,
    MARGIN,
    MAX_TILE,
    MUTED_COLOR,
    PAGE_WIDTH,
    SMALL_FONT_SIZE,
    add_caption,
    blank_figure,
    distinct_labels,
    draw_text,
    draw_title,
    extend_below,
    shorten_text,
    text_width,
    wrap_title,
)

__all__ = [
    "TileTable",
    "as_rgb",
    "column_headers",
    "compose_tiles",
    "image_grid",
    "plot_epochs",
    "plot_grid",
    "plot_interpolations",
    "plot_reconstructions",
    "plot_tile_tables",
    "plot_traversals",
    "save_animation",
    "tile_scale",
    "to_rows",
]


class TileTable(NamedTuple):
    """A table of image tiles uint8 (R, T, H, W, 3): names before rows, heads over columns and notes under them."""

    tiles: np.ndarray
    row_labels: Sequence[str] = ()
    column_headers: Sequence[str] = ()
    column_notes: Sequence[str] = ()
    row_breaks: Sequence[int] = ()
    column_breaks: Sequence[int] = ()


# Tables of images


def plot_tile_tables(tables: Sequence[TileTable], title: str = "", caption: str = "") -> Figure:
    """Blocks of image tiles, one under the other; a pixel of an image is a square of whole pixels in each."""
    names = [shorten_text(name, 1.6) for block in tables for name in block.row_labels]
    left = MARGIN + max((text_width(name, FONT_SIZE) + 0.08 for name in names), default=0)
    scales = [tile_scale(block.tiles, PAGE_WIDTH - left - MARGIN) for block in tables]
    dpi = max(dpi for _, dpi in scales)
    figure = blank_figure(title)
    figure.set_dpi(dpi)
    extend_below(figure, 0)
    for block, (factor, own) in zip(tables, scales, strict=True):
        _add_tile_table(figure, block, left, max(1, factor * dpi // own))
    return add_caption(figure, caption)


def _add_tile_table(figure: Figure, table: TileTable, left: float, factor: int) -> None:
    """Put a block under what a figure shows, its images `left` inches from the edge and grown by a whole factor."""
    dpi = figure.dpi
    tall, wide = factor * np.array(table.tiles.shape[2:4])
    grown = table.tiles.repeat(factor, 2).repeat(factor, 3)
    canvas, rows, columns = compose_tiles(grown, round(0.03 * dpi), table.row_breaks, table.column_breaks)
    under = round((0.15 if table.column_notes else 0.03) * dpi)
    over = 0.19 if table.column_headers else 0.3 if table.row_labels and figure.axes else 0.07
    extend_below(figure, over + (canvas.shape[0] + under) / dpi)
    width, height = np.rint(figure.get_size_inches() * dpi)
    place = round(left * dpi) / width, under / height, canvas.shape[1] / width, canvas.shape[0] / height
    axes = figure.add_axes(place)
    axes.imshow(canvas, interpolation="none", aspect="auto", extent=(0, canvas.shape[1], canvas.shape[0], 0))
    axes.set_axis_off()
    for y, name in zip(rows + tall / 2, table.row_labels, strict=False):
        draw_text(axes, -0.08 * dpi, y, shorten_text(name, 1.6), ha="right", va="center")
    for x, head in zip(columns + wide / 2, table.column_headers, strict=False):
        draw_text(
            axes,
            x,
            -0.05 * dpi,
            shorten_text(head, max(0.3, wide / dpi) + 0.02, SMALL_FONT_SIZE),
            size=SMALL_FONT_SIZE,
            ha="center",
        )
    for x, note in zip(columns + wide / 2, table.column_notes, strict=False):
        draw_text(
            axes, x, len(canvas) + 0.025 * dpi, note, size=SMALL_FONT_SIZE - 1, color=MUTED_COLOR, ha="center", va="top"
        )


def plot_reconstructions(originals: np.ndarray, reconstructions: np.ndarray, title: str = "") -> Figure:
    """Originals (N, C, H, W) above their reconstructions, in pairs of rows of at most ten."""
    widest = min(10, max(1, 2600 // originals.shape[-1]))
    rows = max(1, math.ceil(len(originals) / widest))
    columns = max(1, math.ceil(len(originals) / rows))
    pairs = np.stack([to_rows(as_rgb(images), columns) for images in (originals, reconstructions)], 1)
    labels = ["original", "reconstruction"] * rows
    return image_grid(pairs.reshape(-1, *pairs.shape[2:]), title, labels=labels, row_breaks=range(2, 2 * rows, 2))


def plot_grid(images: np.ndarray, title: str = "", columns: int = 8) -> Figure:
    """Images (N, C, H, W), row by row."""
    return image_grid(to_rows(as_rgb(images), max(1, min(columns, len(images)))), title)


def plot_interpolations(
    originals: np.ndarray,
    paths: np.ndarray,
    alphas: Sequence[float] | np.ndarray,
    names: tuple[str, str] = ("", ""),
    title: str = "",
) -> Figure:
    """Pairs of originals (P, 2, C, H, W), that of alpha = 0 first, and the images (P, T, C, H, W) on the way."""
    tiles = np.concatenate([as_rgb(originals), as_rgb(paths)], 1)
    return image_grid(tiles, title, headers=[*distinct_labels(names), *column_headers(alphas, "α")], column_breaks=(2,))


def plot_traversals(
    images: np.ndarray, labels: Sequence[str], values: Sequence[float] | np.ndarray, title: str = ""
) -> Figure:
    """Images (D, T, C, H, W): in each row one latent dimension takes the values (T,)."""
    return image_grid(as_rgb(images), title, headers=column_headers(values), labels=labels)


def plot_epochs(originals: np.ndarray, by_epoch: Sequence[tuple[int, np.ndarray]], title: str = "") -> Figure:
    """The originals (N, C, H, W), and below them their reconstructions after chosen epochs."""
    rows = np.stack([as_rgb(originals), *(as_rgb(images) for _, images in by_epoch)])
    return image_grid(rows, title, labels=["original", *(f"epoch {epoch}" for epoch, _ in by_epoch)], row_breaks=(1,))


# Sheets: tables of image tiles


def as_rgb(images: np.ndarray) -> np.ndarray:
    """Images (*, C, H, W) as uint8 (*, H, W, 3)."""
    if images.dtype != np.uint8:
        images = np.rint(np.clip(np.nan_to_num(images), 0, 1) * 255).astype(np.uint8)
    images = np.moveaxis(images, -3, -1)
    return np.broadcast_to(images, (*images.shape[:-1], 3))


def to_rows(tiles: np.ndarray, columns: int) -> np.ndarray:
    """Tiles (N, H, W, 3) in rows (R, columns, H, W, 3), the last one filled up with white."""
    white = np.full((-len(tiles) % columns, *tiles.shape[1:]), 255, np.uint8)
    return np.concatenate([tiles, white]).reshape(-1, columns, *tiles.shape[1:])


def _tile_offsets(count: int, size: int, gap: int, breaks: Sequence[int]) -> np.ndarray:
    """Where each of `count` tiles starts, with a wider gap before those in `breaks`."""
    order = np.arange(count)
    return order * (size + gap) + 4 * gap * (order[:, None] >= np.asarray(breaks, int)).sum(1)


def tile_scale(tiles: np.ndarray, max_width: float) -> tuple[int, int]:
    """The whole factor by which tiles grow, and the dots per inch at which a row of them fits into `room` inches."""
    _, columns, height, width, _ = tiles.shape
    max_width -= 0.035 * columns + 0.15  # for the gaps
    factor = max(1, min(round(max_width * DPI / (columns * width)), int(MAX_TILE * DPI / max(height, width))))
    return factor, max(DPI, math.ceil(columns * width * factor / max_width))


def compose_tiles(
    tiles: np.ndarray, gap: int, row_breaks: Sequence[int] = (), column_breaks: Sequence[int] = ()
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """One picture of all tiles (R, T, H, W, 3) on white, and where its rows and columns start."""
    height, width = tiles.shape[2:4]
    rows = _tile_offsets(len(tiles), height, gap, row_breaks)
    columns = _tile_offsets(tiles.shape[1], width, gap, column_breaks)
    canvas = np.full((rows[-1] + height, columns[-1] + width, 3), 255, np.uint8)
    for y, line in zip(rows, tiles, strict=True):
        for x, tile in zip(columns, line, strict=True):
            canvas[y : y + height, x : x + width] = tile
    return canvas, rows, columns


def image_grid(
    tiles: np.ndarray,
    title: str,
    *,
    headers: Sequence[str] = (),
    labels: Sequence[str] = (),
    row_breaks: Sequence[int] = (),
    column_breaks: Sequence[int] = (),
) -> Figure:
    """Tiles (R, T, H, W, 3) as a table with heads over its columns, labels before its rows and wider gaps at breaks."""
    if not tiles.size:
        raise UserError("there are no images to draw")
    labels = [shorten_text(label, 1.6) for label in labels]
    margin = MARGIN + max((text_width(label, FONT_SIZE) + 0.08 for label in labels), default=0)
    factor, dpi = tile_scale(tiles, PAGE_WIDTH - margin - MARGIN)
    tiles = tiles.repeat(factor, 2).repeat(factor, 3)
    canvas, rows, columns = compose_tiles(tiles, round(0.03 * dpi), row_breaks, column_breaks)
    wide = margin + canvas.shape[1] / dpi + MARGIN
    lines = wrap_title(title, max(wide, 4.0) - 2 * MARGIN)
    wide = max(wide, *(text_width(line, FONT_SIZE, "bold") + 2 * MARGIN for line in lines), 0)
    over = MARGIN + LINE_HEIGHT * len(lines) + 0.06 * bool(lines) + 0.19 * bool(headers)
    left, top = round(margin * dpi), round(over * dpi)  # the pixel at which the canvas starts
    width, height = round(wide * dpi), top + canvas.shape[0] + round(MARGIN * dpi)
    figure = Figure((width / dpi, height / dpi), dpi, facecolor="white")
    axes = figure.add_axes(
        (left / width, 1 - (top + canvas.shape[0]) / height, canvas.shape[1] / width, canvas.shape[0] / height)
    )
    axes.imshow(canvas, interpolation="none", aspect="auto", extent=(0, canvas.shape[1], canvas.shape[0], 0))
    axes.set_axis_off()
    draw_title(figure, lines)
    for y, label in zip(rows + tiles.shape[2] / 2, labels, strict=False):
        draw_text(axes, -0.08 * dpi, y, label, ha="right", va="center")
    for x, head in zip(columns + tiles.shape[3] / 2, headers, strict=False):
        fitted = shorten_text(head, max(0.3, tiles.shape[3] / dpi) + 0.02, SMALL_FONT_SIZE)
        draw_text(axes, x, -0.05 * dpi, fitted, size=SMALL_FONT_SIZE, ha="center")
    return figure


def column_headers(values: Sequence[float] | np.ndarray, name: str = "") -> list[str]:
    """Column heads for values: the first one named, and only some where they would run into each other."""
    step = math.ceil(len(values) / 12)
    texts = [f"{value:.3g}".replace("-", "−") if i % step == 0 else "" for i, value in enumerate(values)]
    return [f"{name} = {texts[0]}" if name else texts[0], *texts[1:]]


def save_animation(frames: Sequence[np.ndarray], path: Path, milliseconds: int = 80) -> Path:
    """Frames (C, H, W), or grids of them (R, T, C, H, W), as a GIF that runs forth and back for ever."""
    if not len(frames):
        raise UserError("there are no frames to animate")
    tiles = [as_rgb(frame.reshape(-1, 1, *frame.shape[-3:]) if frame.ndim < 5 else frame) for frame in frames]
    factor, _ = tile_scale(tiles[0], PAGE_WIDTH)
    pictures = []
    for frame in tiles:
        canvas, _, _ = compose_tiles(frame, 1 if factor > 1 else 2)
        small = Image.fromarray(canvas).quantize(256, dither=Image.Dither.NONE)  # before growing: dots would show
        pictures.append(small.resize((small.width * factor, small.height * factor), Image.Resampling.NEAREST))
    pictures += pictures[-2:0:-1]
    drawn = io.BytesIO()
    pictures[0].save(drawn, "GIF", save_all=True, append_images=pictures[1:], duration=milliseconds, loop=0)
    with atomic_write(path) as temporary:
        temporary.write_bytes(drawn.getvalue())
    return path
