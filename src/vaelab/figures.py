"""Figures: numbers and arrays become pictures; nothing is computed here but where things go.

Images come in as uint8 or as floats in [0, 1], shaped (N, C, H, W) with one or three channels, and leave as matplotlib
figures that `save` writes. A pixel of an image is always a square of whole pixels on the page. Everything goes through
matplotlib's objects, never through pyplot: figures may be drawn in threads and servers; equal input gives equal bytes.
Text is drawn as it is written: no mathematics is read into a "$", and what no installed font can draw becomes a box.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from matplotlib import colormaps, font_manager
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import RendererAgg
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch
from matplotlib.text import Text
from matplotlib.ticker import FuncFormatter, MaxNLocator
from mpl_toolkits.mplot3d import Axes3D, proj3d
from PIL import Image

from vaelab.errors import UserError, unknown
from vaelab.files import writing
from vaelab.projections import Panels

__all__ = ["animation", "curves", "epochs", "grid", "interpolations", "latent", "model", "reconstructions", "save",
           "traversals"]  # fmt: skip

DPI = 200
PAGE, TILE, EDGE = 7.0, 0.95, 0.1  # inches: a figure's width, an image's side at most, the white margin
SIZE, SMALL = 9.0, 8.0  # points
LINE = 0.17  # inches from one line of text to the next
INK, GREY, PALE = "#222222", "#666666", "#e4e4e4"
OKABE_ITO = ("#0072b2", "#d55e00", "#009e73", "#e69f00", "#cc79a7", "#56b4e9", "#000000")
PETROFF = ("#3f90da", "#ffa90e", "#bd1f01", "#94a4a2", "#832db6", "#a96b59", "#e76300", "#b9ac70", "#717581", "#92dadd")
SPLITS = {"train": OKABE_ITO[0], "validation": OKABE_ITO[1]}
NATS = "nats per image"
SUMMED = "summed over pixel values"
TERMS = {"loss": ("Loss", "as trained, per image"), "cross_entropy": ("Cross entropy", NATS), "kl": ("KL", NATS),
         "squared_error": ("Squared error", SUMMED), "negative_elbo": ("Negative ELBO", NATS)}  # fmt: skip
FALLBACKS = ("Noto Sans CJK SC", "Noto Sans CJK JP", "PingFang SC", "Hiragino Sans", "Microsoft YaHei", "Malgun Gothic",
             "Arial Unicode MS", "WenQuanYi Micro Hei", "Droid Sans Fallback", "Unifont")  # fmt: skip
SAVING: dict[str, Any] = {  # no time stamps: equal figures, equal bytes; PNG a sixth larger in a third of the time
    "png": {"pil_kwargs": {"compress_level": 3}}, "pdf": {"metadata": {"CreationDate": None}},
    "svg": {"metadata": {"Date": None}},
}  # fmt: skip
NAMED = 16  # categories whose name is written into a cloud of points: more would hide the points


class Layer(Protocol):
    """A row of a model's table: "encoder" or "decoder", what it is, the shape that leaves it and its parameters."""

    @property
    def part(self) -> str: ...
    @property
    def name(self) -> str: ...
    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def parameters(self) -> int: ...


# Text: measured before it is drawn, so that margins fit it and what is too long is shortened


@functools.cache
def _fonts() -> tuple[list[str], frozenset[int]]:
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


def _drawable(text: str) -> str:
    """The text with a box for every character that no font has: matplotlib would warn at each of them."""
    known = _fonts()[1]
    return "".join(c if c == "\n" or ord(c) in known else " " if c.isspace() else "□" for c in text)


def _width(text: str, size: float, weight: str = "normal") -> float:
    """The width of a line of text in inches."""
    prop = font_manager.FontProperties(family=_fonts()[0], size=size, weight=weight)
    return RendererAgg(1, 1, DPI).get_text_width_height_descent(_drawable(text), prop, False)[0] / DPI


def _fit(text: str, room: float, size: float = SIZE, weight: str = "normal") -> str:
    """The text in one line, shortened with an ellipsis where it is wider than `room` inches."""
    text = text.replace("\n", " ").strip()
    short = text[:200]
    while short and _width(short if short == text else f"{short}…", size, weight) > room:
        short = short[:-1]
    return text if short == text else short.rstrip(" ,") + "…"


def _wrap(title: str, room: float) -> list[str]:
    """A title in lines of at most `room` inches."""
    lines: list[str] = []
    for word in (_fit(word, room, SIZE, "bold") for word in title.split()):
        if lines and _width(f"{lines[-1]} {word}", SIZE, "bold") <= room:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return lines


def _write(on: Figure | Axes, x: float, y: float, text: str, **style: Any) -> Text:
    style = {"size": SIZE, "color": INK, "family": _fonts()[0], "parse_math": False, **style}
    return on.text(x, y, _drawable(text), **style)


def _distinct(names: Sequence[str]) -> list[str]:
    """The names as they can be drawn, numbered where characters are missing and two of them could look the same."""
    return [name if _drawable(name) == name else f"{i} {_drawable(name)}" for i, name in enumerate(names)]


# Sheets: tables of image tiles


def _rgb(images: np.ndarray) -> np.ndarray:
    """Images (*, C, H, W) as uint8 (*, H, W, 3)."""
    if images.dtype != np.uint8:
        images = np.rint(np.clip(np.nan_to_num(images), 0, 1) * 255).astype(np.uint8)
    images = np.moveaxis(images, -3, -1)
    return np.broadcast_to(images, (*images.shape[:-1], 3))


def _rows(tiles: np.ndarray, columns: int) -> np.ndarray:
    """Tiles (N, H, W, 3) in rows (R, columns, H, W, 3), the last one filled up with white."""
    white = np.full((-len(tiles) % columns, *tiles.shape[1:]), 255, np.uint8)
    return np.concatenate([tiles, white]).reshape(-1, columns, *tiles.shape[1:])


def _starts(count: int, size: int, gap: int, breaks: Sequence[int]) -> np.ndarray:
    """Where each of `count` tiles starts, with a wider gap before those in `breaks`."""
    order = np.arange(count)
    return order * (size + gap) + 4 * gap * (order[:, None] >= np.asarray(breaks, int)).sum(1)


def _scale(tiles: np.ndarray, room: float) -> tuple[int, int]:
    """The whole factor by which tiles grow, and the dots per inch at which a row of them fits into `room` inches."""
    _, columns, height, width, _ = tiles.shape
    room -= 0.035 * columns + 0.15  # for the gaps
    factor = max(1, min(round(room * DPI / (columns * width)), int(TILE * DPI / max(height, width))))
    return factor, max(DPI, math.ceil(columns * width * factor / room))


def _compose(
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


def _sheet(
    tiles: np.ndarray, title: str, *, heads: Sequence[str] = (), labels: Sequence[str] = (),
    row_breaks: Sequence[int] = (), column_breaks: Sequence[int] = (),
) -> Figure:  # fmt: skip
    """Tiles (R, T, H, W, 3) as a table with heads over its columns, labels before its rows and wider gaps at breaks."""
    if not tiles.size:
        raise UserError("there are no images to draw")
    labels = [_fit(label, 1.6) for label in labels]
    margin = EDGE + max((_width(label, SIZE) + 0.08 for label in labels), default=0)
    factor, dpi = _scale(tiles, PAGE - margin - EDGE)
    tiles = tiles.repeat(factor, 2).repeat(factor, 3)
    canvas, rows, columns = _compose(tiles, round(0.03 * dpi), row_breaks, column_breaks)
    wide = margin + canvas.shape[1] / dpi + EDGE
    lines = _wrap(title, max(wide, 4.0) - 2 * EDGE)
    wide = max(wide, *(_width(line, SIZE, "bold") + 2 * EDGE for line in lines), 0)
    over = EDGE + LINE * len(lines) + 0.06 * bool(lines) + 0.19 * bool(heads)
    left, top = round(margin * dpi), round(over * dpi)  # the pixel at which the canvas starts
    width, height = round(wide * dpi), top + canvas.shape[0] + round(EDGE * dpi)
    figure = Figure((width / dpi, height / dpi), dpi, facecolor="white")
    axes = figure.add_axes((left / width, 1 - (top + canvas.shape[0]) / height,
                            canvas.shape[1] / width, canvas.shape[0] / height))  # fmt: skip
    axes.imshow(canvas, interpolation="none", aspect="auto", extent=(0, canvas.shape[1], canvas.shape[0], 0))
    axes.set_axis_off()
    _headline(figure, lines)
    for y, label in zip(rows + tiles.shape[2] / 2, labels, strict=False):
        _write(axes, -0.08 * dpi, y, label, ha="right", va="center")
    for x, head in zip(columns + tiles.shape[3] / 2, heads, strict=False):
        fitted = _fit(head, max(0.3, tiles.shape[3] / dpi) + 0.02, SMALL)
        _write(axes, x, -0.05 * dpi, fitted, size=SMALL, ha="center")
    return figure


def _headline(figure: Figure, lines: Sequence[str]) -> None:
    """The title, at the upper left corner of a figure of any size."""
    width, height = figure.get_size_inches()
    _write(figure, EDGE / width, 1 - EDGE / height, "\n".join(lines), va="top", weight="bold", linespacing=1.25)


def _marks(values: Sequence[float] | np.ndarray, name: str = "") -> list[str]:
    """Column heads for values: the first one named, and only some where they would run into each other."""
    step = math.ceil(len(values) / 12)
    texts = [f"{value:.3g}".replace("-", "−") if i % step == 0 else "" for i, value in enumerate(values)]
    return [f"{name} = {texts[0]}" if name else texts[0], *texts[1:]]


def reconstructions(originals: np.ndarray, reconstructions: np.ndarray, title: str = "") -> Figure:
    """Originals (N, C, H, W) above their reconstructions, in pairs of rows of at most ten."""
    widest = min(10, max(1, 2600 // originals.shape[-1]))
    rows = max(1, math.ceil(len(originals) / widest))
    columns = max(1, math.ceil(len(originals) / rows))
    pairs = np.stack([_rows(_rgb(images), columns) for images in (originals, reconstructions)], 1)
    labels = ["original", "reconstruction"] * rows
    return _sheet(pairs.reshape(-1, *pairs.shape[2:]), title, labels=labels, row_breaks=range(2, 2 * rows, 2))


def grid(images: np.ndarray, title: str = "", columns: int = 8) -> Figure:
    """Images (N, C, H, W), row by row."""
    return _sheet(_rows(_rgb(images), max(1, min(columns, len(images)))), title)


def interpolations(
    originals: np.ndarray, paths: np.ndarray, alphas: Sequence[float] | np.ndarray,
    names: tuple[str, str] = ("", ""), title: str = "",
) -> Figure:  # fmt: skip
    """Pairs of originals (P, 2, C, H, W), that of alpha = 0 first, and the images (P, T, C, H, W) on the way."""
    tiles = np.concatenate([_rgb(originals), _rgb(paths)], 1)
    return _sheet(tiles, title, heads=[*_distinct(names), *_marks(alphas, "α")], column_breaks=(2,))


def traversals(
    images: np.ndarray, labels: Sequence[str], values: Sequence[float] | np.ndarray, title: str = ""
) -> Figure:
    """Images (D, T, C, H, W): in each row one latent dimension takes the values (T,)."""
    return _sheet(_rgb(images), title, heads=_marks(values), labels=labels)


def epochs(originals: np.ndarray, by_epoch: Sequence[tuple[int, np.ndarray]], title: str = "") -> Figure:
    """The originals (N, C, H, W), and below them their reconstructions after chosen epochs."""
    rows = np.stack([_rgb(originals), *(_rgb(images) for _, images in by_epoch)])
    return _sheet(rows, title, labels=["original", *(f"epoch {epoch}" for epoch, _ in by_epoch)], row_breaks=(1,))


# Training curves


def curves(history: Sequence[dict[str, Any]], title: str = "") -> Figure:
    """One panel for each term of a run's history, with a line for each split."""
    seen = {name for row in history for split in SPLITS for name in row.get(split, {}) if not name.endswith("_of_mean")}
    names = [name for name in TERMS if name in seen] + sorted(seen - set(TERMS))
    if not names:
        raise UserError("there are no training curves to draw: the history holds no epochs")
    columns = 2 if len(names) == 4 else min(3, len(names))
    width = max(3.2, PAGE / 3 * columns)
    lines = _wrap(title, width - 2 * EDGE)
    height = 1.75 * math.ceil(len(names) / columns) + LINE * len(lines) + EDGE
    figure = Figure((width, height), DPI, facecolor="white")
    _headline(figure, lines)
    for name in names:
        axes = figure.add_axes((0, 0, 1, 1))
        _panel(axes, *TERMS.get(name, (name.replace("_", " ").capitalize(), "")))
        _lines(axes, {split: [(row["epoch"], row[split][name]) for row in history if name in row.get(split, {})]
                      for split in SPLITS})  # fmt: skip
    _arrange(figure, columns, height - LINE * len(lines) - EDGE)
    return figure


def _arrange(figure: Figure, columns: int, top: float) -> None:
    """Put panels into rows below `top` inches, with the margins of the widest texts: drawing twice moves nothing."""
    width, height = figure.get_size_inches()
    marks = [axes.yaxis.get_major_formatter().format_ticks(list(axes.get_yticks())) for axes in figure.axes]
    left = max(_width(text, SMALL) for texts in marks for text in texts) + 0.15
    named = {text.get_text() for axes in figure.axes for text in axes.texts} & set(SPLITS)
    right = max((_width(split, SMALL) for split in named), default=0) + 0.1
    cell = width / columns
    for i, axes in enumerate(figure.axes):
        row, column = divmod(i, columns)
        corner = ((column * cell + left) / width, (top - 1.75 * row - 1.35) / height)
        axes.set_position((*corner, (cell - left - right) / width, 0.95 / height))
        if i >= len(figure.axes) - columns:
            axes.set_xlabel("epoch", size=SMALL, color=GREY)


def _panel(axes: Axes, name: str, unit: str) -> None:
    """Clean axes with a statement of what is drawn in place of a y label."""
    axes.set_title(name, loc="left", size=SIZE, color=INK, pad=15, weight="bold", family=_fonts()[0])
    axes.annotate(unit, (0, 1), (0, 5), "axes fraction", "offset points", size=SMALL, color=GREY)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(GREY)
    axes.tick_params(labelsize=SMALL, colors=GREY, length=3)
    axes.grid(axis="y", color=PALE, linewidth=0.6)
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True, min_n_ticks=1))
    axes.yaxis.set_major_locator(MaxNLocator(4))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:,.10g}".replace("-", "−")))


def _lines(axes: Axes, series: dict[str, list[tuple[float, float]]]) -> None:
    """Lines (x, y) of several splits, each with its name at its end."""
    ends: dict[str, float] = {}
    for split, points in series.items():
        finite = [(x, y) for x, y in points if math.isfinite(y)]
        if finite:
            marker = "o" if len(finite) <= 12 else ""
            axes.plot(*zip(*finite, strict=True), color=SPLITS[split], linewidth=1.4, marker=marker, markersize=3)
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
        _write(axes, 1.02, height, split, size=SMALL, color=SPLITS[split], va="center", transform=axes.transAxes)


# Clouds of points


def latent(raw: Panels, codes: Panels, labels: np.ndarray | None, categories: Sequence[str], title: str = "") -> Figure:
    """Six panels (report B, B4): PCA, its k-means clusters and t-SNE of raw pixels (a)-(c) and of the codes (d)-(f).

    Coloured by category, without labels (N,) by cluster; names stand at the medians of the t-SNE panels.
    """
    lines = _wrap(title, PAGE - 2 * EDGE)
    height = 5.4 + LINE * len(lines)
    figure = Figure((PAGE, height), DPI, facecolor="white")
    _headline(figure, lines)
    for row, (panels, what) in enumerate(((raw, "raw pixels"), (codes, "encoder output"))):
        numbers = [str(i + 1) for i in range(panels.clusters.max() + 1)]
        groups, names = (panels.clusters, numbers) if labels is None else (labels, _distinct(categories))
        shares = " + ".join(f"{100 * share:.1f}" for share in panels.variance)
        count = f"{len(numbers)} cluster{'s' * (len(numbers) > 1)} in three components"
        shares += f" = {100 * panels.variance.sum():.1f} %"
        cells: Any = ((panels.pca, groups, (), f"PCA of {what}", f"variance {shares}"),
                      (panels.pca, panels.clusters, numbers, "k-means of these", count),
                      (panels.tsne, groups, names, f"t-SNE of {what}", ""))  # fmt: skip
        for column, (points, colours, texts, head, caption) in enumerate(cells):
            left, bottom = EDGE + 2.3 * column, 2.65 * (1 - row)
            axes = _cloud(figure, (left, bottom + 0.25), points, colours)
            _name_groups(axes, points, colours, texts)
            _write(figure, left / PAGE, (bottom + 2.42) / height, f"({'abcdef'[3 * row + column]}) {head}")
            _write(figure, left / PAGE, (bottom + 0.1) / height, caption, size=SMALL, color=GREY)
    return figure


def _cloud(figure: Figure, corner: tuple[float, float], points: np.ndarray, groups: np.ndarray) -> Axes:
    """Points (N, 2) or (N, 3), coloured by group, on axes whose lower left corner is given in inches."""
    width, height = figure.get_size_inches()
    solid = points.shape[1] == 3
    left = corner[0] - 0.12 * solid  # the third axis is named at the right, outside of its box
    place = (left / width, (corner[1] + 0.05 * solid) / height, 2.2 / width, 2.1 / height)
    axes = figure.add_axes(place, projection="3d" if solid else "rectilinear")
    order = np.random.default_rng(0).permutation(len(points))  # so that no category hides the others
    colours = np.array(_palette(int(groups.max()) + 1))[groups[order]]
    size = float(np.clip(4000 / len(points), 0.8, 14))
    look = {"depthshade": False} if solid else {}
    axes.scatter(*points[order].T, s=size, c=colours, linewidths=0, rasterized=True, **look)
    if isinstance(axes, Axes3D):
        _walls(axes)
    else:
        axes.set(xticks=(), yticks=(), aspect="equal", adjustable="datalim")
        axes.spines[:].set_color(PALE)
    return axes


def _walls(axes: Any) -> None:
    """A box of pale walls without numbers: the scale of a principal component says nothing."""
    for axis, name in zip((axes.xaxis, axes.yaxis, axes.zaxis), ("PC 1", "PC 2", "PC 3"), strict=True):
        axis.set_ticks([])
        axis.set_pane_color("#f7f7f7")
        axis.line.set_color("#aaaaaa")
        axis.set_label_text(name, size=SMALL, color=GREY)
        axis.labelpad = -14
    axes.margins(0)
    axes.set_box_aspect((1, 1, 1), zoom=1.08)


def _palette(count: int) -> list[str] | list[tuple[float, ...]]:
    if count <= len(PETROFF):
        return list(OKABE_ITO if count <= len(OKABE_ITO) else PETROFF)
    return [tuple(colour) for colour in colormaps["turbo"](np.linspace(0.03, 0.97, count))]


def _name_groups(axes: Axes, points: np.ndarray, groups: np.ndarray, names: Sequence[str]) -> None:
    """Write each group's name at its median, moved aside with a thin line to it where names would overlap."""
    present, counts = np.unique(groups, return_counts=True)
    present = np.sort(present[np.argsort(-counts, kind="stable")][:NAMED]) if names else present[:0]
    if not len(present):
        return
    medians = np.array([np.median(points[groups == group], 0) for group in present])
    if isinstance(axes, Axes3D):
        medians = np.stack(proj3d.proj_transform(medians[:, 0], medians[:, 1], medians[:, 2], axes.get_proj())[:2], 1)
    axes.apply_aspect()
    texts = [_fit(names[int(group)], 0.9, SMALL - 1) for group in present]
    sizes = np.array([(_width(text, SMALL - 1) + 0.1, 0.16) for text in texts]) * DPI
    above = (0, 0.13 * DPI * (len(points) < 100))  # few points would disappear behind their names
    frame = axes.get_window_extent()
    places = _apart(axes.transData.transform(medians) + above, sizes, np.array(frame.min), np.array(frame.max))
    places = axes.transAxes.inverted().transform(places)
    colours = _palette(int(groups.max()) + 1)
    style = {"size": SMALL - 1, "color": INK, "ha": "center", "va": "center"}
    line = {"arrowstyle": "-", "color": INK, "linewidth": 0.5, "shrinkA": 0, "shrinkB": 0}
    for text, median, place, group in zip(texts, medians, places, present, strict=True):
        box = {"boxstyle": "round,pad=0.15", "facecolor": "white", "edgecolor": colours[group], "alpha": 0.85}
        axes.annotate(_drawable(text), median, place, "data", "axes fraction", arrowprops=line, bbox=box,
                      family=_fonts()[0], parse_math=False, **style)  # fmt: skip


def _apart(centres: np.ndarray, sizes: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Centres (K, 2) of boxes of these sizes, pushed until none overlap, within a frame."""
    places, room = centres.copy(), (sizes[:, None] + sizes[None]) / 2
    order = np.arange(len(places))
    side = np.sign(np.subtract.outer(order, order))  # who yields where to, if at one place
    for _ in range(500):
        apart = places[:, None] - places[None]
        need = np.where(side[..., None] != 0, room - np.abs(apart), 0).clip(0)
        clash = need.min(-1) > 0
        if not clash.any():
            break
        push = np.where(apart == 0, side[..., None], np.sign(apart)) * need * (need == need.min(-1, keepdims=True))
        places = (places + 0.3 * (push * clash[..., None]).sum(1)).clip(low + sizes / 2, high - sizes / 2)
    return places


# The model as a diagram, in inches


def model(layers: Sequence[Layer], latent_dim: int, distortion: str, title: str = "") -> Figure:
    """The model from image to reconstruction: down the encoder to the posterior, its sample, and up the decoder."""
    sides = {part: [layer for layer in layers if layer.part == part] for part in ("encoder", "decoder")}
    depth = max(sum(_thickness(layer) + 0.14 for layer in side) for side in sides.values())
    lines = _wrap(title, PAGE - 2 * EDGE)
    height = depth + 2.35 + LINE * len(lines)
    top = height - 0.55 - LINE * len(lines)
    figure = Figure((PAGE, height), DPI, facecolor="white")
    _headline(figure, lines)
    axes = figure.add_axes((0, 0, 1, 1), xlim=(0, PAGE), ylim=(0, height))
    axes.set_axis_off()
    looks = ((1.75, "x", "#dcebf7"), (5.25, "x̂", "#fbe5d3"))
    for (part, side), (x, name, colour) in zip(sides.items(), looks, strict=True):
        _box(axes, (x, top, 0.8, 0.26), f"image {name}", "white")
        count = sum(layer.parameters for layer in side)
        _write(axes, x, top + 0.25, f"{part}, {count:,} parameters", ha="center", color=GREY)
        _column(axes, side, (x, top - 0.13), colour)
    _arrow(axes, (2.2, top), (4.8, top), "<|-|>", linestyle="--")
    _write(axes, 3.5, top + 0.06, _fit(f"distortion: {distortion}", 2.4, SMALL), size=SMALL, ha="center", color=GREY)
    _posterior(axes, latent_dim)
    return figure


def _thickness(layer: Layer) -> float:
    return 0.4 if layer.parameters else 0.22


def _column(axes: Axes, layers: Sequence[Layer], start: tuple[float, float], colour: str) -> None:
    """A side of the model, from its image down to the code; the wider a box, the more numbers leave it."""
    x, y = start
    down = bool(layers) and layers[0].part == "encoder"
    for layer in layers if down else reversed(layers):
        values, height = math.prod(layer.shape), _thickness(layer)
        width = min(3.2, 2.15 + 0.15 * max(0, math.log2(values) - 8))  # narrowest at 256 values
        _arrow(axes, (x, y), (x, y - 0.14), "-|>" if down else "<|-")
        y -= 0.14 + height
        shape = " × ".join(f"{side:,}" for side in layer.shape)
        count = f" · {layer.parameters:,} parameters" if layer.parameters else ""
        _box(axes, (x, y + height / 2, width, height), layer.name, colour, shape + count)
    code, style = ((x, 1.67), "-") if down else ((4.45, 0.4), "-|>")
    _arrow(axes, code, (x, y), style, connectionstyle="angle,angleA=0,angleB=90,rad=4" if not down else "arc3")


def _posterior(axes: Axes, latent_dim: int) -> None:
    """The bottom of the diagram: mean and log-variance, and the sample z with its noise."""
    upper, lower, green = 1.22, 0.4, "#dff0e8"
    for x, name in ((0.95, "mean"), (2.55, "log-variance")):
        _box(axes, (x, upper, 1.3, 0.4), name, green, str(latent_dim))
        _arrow(axes, (1.75, 1.67), (x, upper + 0.2))
        _arrow(axes, (x, upper - 0.2), (2.9 + (x - 0.95) * 0.3, lower + 0.2))
    _box(axes, (3.5, lower, 1.9, 0.4), "z = mean + σ · noise", green, "σ = exp(log-variance / 2)")
    _box(axes, (0.95, lower, 1.3, 0.26), "noise ~ N(0, 1)", "white")
    _arrow(axes, (1.6, lower), (2.55, lower))
    _write(axes, 3.3, upper, "rate: KL(q(z|x) ‖ p(z))", size=SMALL, va="center", color=GREY)


def _box(axes: Axes, box: tuple[float, float, float, float], text: str, colour: str, detail: str = "") -> None:
    """A box (middle x, middle y, width, height) with a name and, below or beside it, a detail."""
    x, y, width, height = box
    corner = (x - width / 2, y - height / 2)
    axes.add_patch(FancyBboxPatch(corner, width, height, "round,pad=0,rounding_size=0.04", fc=colour, ec=GREY, lw=0.6))
    if detail and height < 0.3:
        text, detail = f"{text} · {detail}", ""
    lift = 0.08 if detail else 0
    for line, shift, size, ink in ((text, lift, SMALL, INK), (detail, -lift, SMALL - 1, GREY)):
        _write(axes, x, y + shift, _fit(line, width - 0.1, size), size=size, ha="center", va="center", color=ink)


def _arrow(axes: Axes, start: tuple[float, float], end: tuple[float, float], style: str = "-|>", **how: Any) -> None:
    if style != "-":
        style += ",head_width=0.15,head_length=0.3"
    look = {"arrowstyle": style, "color": GREY, "lw": 0.8, "shrinkA": 0, "shrinkB": 0, **how}
    axes.annotate("", end, start, arrowprops=look)


# Files


def save(figure: Figure, path: Path, pdf: bool = False) -> list[Path]:
    """Write a figure in the format of the path's suffix, if asked also as a PDF beside it; the paths written."""
    known = figure.canvas.get_supported_filetypes()
    paths = [path] if not pdf or path.suffix == ".pdf" else [path, path.with_suffix(".pdf")]
    for target in paths:
        form = target.suffix[1:].lower()
        if form not in known:
            raise unknown("picture format", form, known)
        with writing(target) as temporary:
            figure.savefig(temporary, format=form, dpi="figure", **SAVING.get(form, {}))
    return paths


def animation(frames: Sequence[np.ndarray], path: Path, milliseconds: int = 80) -> Path:
    """Frames (C, H, W), or grids of them (R, T, C, H, W), as a GIF that runs forth and back for ever."""
    if not len(frames):
        raise UserError("there are no frames to animate")
    tiles = [_rgb(frame.reshape(-1, 1, *frame.shape[-3:]) if frame.ndim < 5 else frame) for frame in frames]
    factor, _ = _scale(tiles[0], PAGE)
    pictures = []
    for frame in tiles:
        canvas, _, _ = _compose(frame, 1 if factor > 1 else 2)
        small = Image.fromarray(canvas).quantize(256, dither=Image.Dither.NONE)  # before growing: dots would show
        pictures.append(small.resize((small.width * factor, small.height * factor), Image.Resampling.NEAREST))
    pictures += pictures[-2:0:-1]
    with writing(path) as temporary:
        pictures[0].save(temporary, "GIF", save_all=True, append_images=pictures[1:], duration=milliseconds, loop=0)
    return path
