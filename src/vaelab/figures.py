"""Figures: numbers and arrays become pictures; nothing is computed here but where things go.

Images come in as uint8 or as floats in [0, 1], shaped (N, C, H, W) with one or three channels, and leave as matplotlib
figures that `save` writes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator
from mpl_toolkits.mplot3d import Axes3D, proj3d

from vaelab.diagram import model
from vaelab.errors import UserError
from vaelab.page import (
    DPI,
    EDGE,
    GREY,
    INK,
    LINE,
    OKABE_ITO,
    PAGE,
    PALE,
    PETROFF,
    SIZE,
    SMALL,
    animation,
    as_rgb,
    distinct,
    drawable,
    fonts,
    headline,
    heads,
    in_rows,
    save,
    sheet,
    shortened,
    text_width,
    wrapped,
    write,
)
from vaelab.projections import Panels

__all__ = [
    "animation",
    "clouds",
    "curves",
    "epochs",
    "grid",
    "interpolations",
    "latent",
    "model",
    "palette",
    "panel",
    "reconstructions",
    "save",
    "traversals",
]

SPLITS = {"train": OKABE_ITO[0], "validation": OKABE_ITO[1]}
NATS = "nats per image"
SUMMED = "summed over pixel values"
TERMS = {"loss": ("Loss", "as trained, per image"), "cross_entropy": ("Cross entropy", NATS), "kl": ("KL", NATS),
         "squared_error": ("Squared error", SUMMED), "negative_elbo": ("Negative ELBO", NATS)}  # fmt: skip
NAMED = 16  # categories whose name is written into a cloud of points: more would hide the points


def reconstructions(originals: np.ndarray, reconstructions: np.ndarray, title: str = "") -> Figure:
    """Originals (N, C, H, W) above their reconstructions, in pairs of rows of at most ten."""
    widest = min(10, max(1, 2600 // originals.shape[-1]))
    rows = max(1, math.ceil(len(originals) / widest))
    columns = max(1, math.ceil(len(originals) / rows))
    pairs = np.stack([in_rows(as_rgb(images), columns) for images in (originals, reconstructions)], 1)
    labels = ["original", "reconstruction"] * rows
    return sheet(pairs.reshape(-1, *pairs.shape[2:]), title, labels=labels, row_breaks=range(2, 2 * rows, 2))


def grid(images: np.ndarray, title: str = "", columns: int = 8) -> Figure:
    """Images (N, C, H, W), row by row."""
    return sheet(in_rows(as_rgb(images), max(1, min(columns, len(images)))), title)


def interpolations(
    originals: np.ndarray, paths: np.ndarray, alphas: Sequence[float] | np.ndarray,
    names: tuple[str, str] = ("", ""), title: str = "",
) -> Figure:  # fmt: skip
    """Pairs of originals (P, 2, C, H, W), that of alpha = 0 first, and the images (P, T, C, H, W) on the way."""
    tiles = np.concatenate([as_rgb(originals), as_rgb(paths)], 1)
    return sheet(tiles, title, heads=[*distinct(names), *heads(alphas, "α")], column_breaks=(2,))


def traversals(
    images: np.ndarray, labels: Sequence[str], values: Sequence[float] | np.ndarray, title: str = ""
) -> Figure:
    """Images (D, T, C, H, W): in each row one latent dimension takes the values (T,)."""
    return sheet(as_rgb(images), title, heads=heads(values), labels=labels)


def epochs(originals: np.ndarray, by_epoch: Sequence[tuple[int, np.ndarray]], title: str = "") -> Figure:
    """The originals (N, C, H, W), and below them their reconstructions after chosen epochs."""
    rows = np.stack([as_rgb(originals), *(as_rgb(images) for _, images in by_epoch)])
    return sheet(rows, title, labels=["original", *(f"epoch {epoch}" for epoch, _ in by_epoch)], row_breaks=(1,))


# Training curves


def curves(history: Sequence[dict[str, Any]], title: str = "") -> Figure:
    """One panel for each term of a run's history, with a line for each split."""
    seen = {name for row in history for split in SPLITS for name in row.get(split, {}) if not name.endswith("_of_mean")}
    names = [name for name in TERMS if name in seen] + sorted(seen - set(TERMS))
    if not names:
        raise UserError("there are no training curves to draw: the history holds no epochs")
    columns = 2 if len(names) == 4 else min(3, len(names))
    width = max(3.2, PAGE / 3 * columns)
    lines = wrapped(title, width - 2 * EDGE)
    height = 1.75 * math.ceil(len(names) / columns) + LINE * len(lines) + EDGE
    figure = Figure((width, height), DPI, facecolor="white")
    headline(figure, lines)
    for name in names:
        axes = figure.add_axes((0, 0, 1, 1))
        panel(axes, *TERMS.get(name, (name.replace("_", " ").capitalize(), "")))
        _lines(axes, {split: [(row["epoch"], row[split][name]) for row in history if name in row.get(split, {})]
                      for split in SPLITS})  # fmt: skip
    _arrange(figure, columns, height - LINE * len(lines) - EDGE)
    return figure


def _arrange(figure: Figure, columns: int, top: float) -> None:
    """Put panels into rows below `top` inches, with the margins of the widest texts: drawing twice moves nothing."""
    width, height = figure.get_size_inches()
    marks = [axes.yaxis.get_major_formatter().format_ticks(list(axes.get_yticks())) for axes in figure.axes]
    left = max(text_width(text, SMALL) for texts in marks for text in texts) + 0.15
    named = {text.get_text() for axes in figure.axes for text in axes.texts} & set(SPLITS)
    right = max((text_width(split, SMALL) for split in named), default=0) + 0.1
    cell = width / columns
    for i, axes in enumerate(figure.axes):
        row, column = divmod(i, columns)
        corner = ((column * cell + left) / width, (top - 1.75 * row - 1.35) / height)
        axes.set_position((*corner, (cell - left - right) / width, 0.95 / height))
        if i >= len(figure.axes) - columns:
            axes.set_xlabel("epoch", size=SMALL, color=GREY)


def panel(axes: Axes, name: str, unit: str) -> None:
    """Clean axes with a statement of what is drawn in place of a y label."""
    axes.set_title(name, loc="left", size=SIZE, color=INK, pad=15, weight="bold", family=fonts()[0])
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
        write(axes, 1.02, height, split, size=SMALL, color=SPLITS[split], va="center", transform=axes.transAxes)


# Clouds of points


def latent(raw: Panels, codes: Panels, labels: np.ndarray | None, categories: Sequence[str], title: str = "") -> Figure:
    """Six panels (report B, B4): PCA, its k-means clusters and t-SNE of raw pixels (a)-(c) and of the codes (d)-(f)."""
    return clouds([("raw pixels", raw), ("encoder output", codes)], labels, categories, title)


def clouds(
    spaces: Sequence[tuple[str, Panels]], labels: np.ndarray | None, categories: Sequence[str], title: str = ""
) -> Figure:
    """A row for each space of points: its PCA, the k-means clusters of that, and its t-SNE.

    Coloured by category, without labels (N,) by cluster; names stand at the medians of the t-SNE panels.
    """
    lines = wrapped(title, PAGE - 2 * EDGE)
    height = 0.1 + 2.65 * len(spaces) + LINE * len(lines)
    figure = Figure((PAGE, height), DPI, facecolor="white")
    headline(figure, lines)
    for row, (what, panels) in enumerate(spaces):
        numbers = [chr(ord("A") + i) if i < 26 else str(i) for i in range(panels.clusters.max() + 1)]
        groups, names = (panels.clusters, numbers) if labels is None else (labels, distinct(categories))
        shares = " + ".join(f"{100 * share:.1f}" for share in panels.variance)
        count = f"{len(numbers)} cluster{'s' * (len(numbers) > 1)} in three components"
        shares += f" = {100 * panels.variance.sum():.1f} %"
        cells: Any = ((panels.pca, groups, (), f"PCA of {what}", f"variance {shares}"),
                      (panels.pca, panels.clusters, numbers, "k-means of these", count),
                      (panels.tsne, groups, names, f"t-SNE of {what}", ""))  # fmt: skip
        for column, (points, shades, texts, head, caption) in enumerate(cells):
            left, bottom = EDGE + 2.3 * column, 2.65 * (len(spaces) - 1 - row)
            axes = _cloud(figure, (left, bottom + 0.25), points, shades)
            _name_groups(axes, points, shades, texts)
            letter = chr(ord("a") + 3 * row + column)
            write(figure, left / PAGE, (bottom + 2.42) / height, shortened(f"({letter}) {head}", 2.25))
            write(figure, left / PAGE, (bottom + 0.1) / height, caption, size=SMALL, color=GREY)
    return figure


def _cloud(figure: Figure, corner: tuple[float, float], points: np.ndarray, groups: np.ndarray) -> Axes:
    """Points (N, 2) or (N, 3), coloured by group, on axes whose lower left corner is given in inches."""
    width, height = figure.get_size_inches()
    solid = points.shape[1] == 3
    left = corner[0] - 0.12 * solid  # the third axis is named at the right, outside of its box
    place = (left / width, (corner[1] + 0.05 * solid) / height, 2.2 / width, 2.1 / height)
    axes = figure.add_axes(place, projection="3d" if solid else "rectilinear")
    order = np.random.default_rng(0).permutation(len(points))  # so that no category hides the others
    colours = np.array(palette(int(groups.max()) + 1))[groups[order]]
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


def palette(count: int) -> list[str] | list[tuple[float, ...]]:
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
    texts = [shortened(names[int(group)], 0.9, SMALL - 1) for group in present]
    sizes = np.array([(text_width(text, SMALL - 1) + 0.1, 0.16) for text in texts]) * DPI
    above = (0, 0.13 * DPI * (len(points) < 100))  # few points would disappear behind their names
    frame = axes.get_window_extent()
    places = _apart(axes.transData.transform(medians) + above, sizes, np.array(frame.min), np.array(frame.max))
    places = axes.transAxes.inverted().transform(places)
    colours = palette(int(groups.max()) + 1)
    style = {"size": SMALL - 1, "color": INK, "ha": "center", "va": "center"}
    line = {"arrowstyle": "-", "color": INK, "linewidth": 0.5, "shrinkA": 0, "shrinkB": 0}
    for text, median, place, group in zip(texts, medians, places, present, strict=True):
        box = {"boxstyle": "round,pad=0.15", "facecolor": "white", "edgecolor": colours[group], "alpha": 0.85}
        axes.annotate(drawable(text), median, place, "data", "axes fraction", arrowprops=line, bbox=box,
                      family=fonts()[0], parse_math=False, **style)  # fmt: skip


def _apart(centres: np.ndarray, sizes: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Centres (K, 2) of boxes of these sizes, pushed until none overlap, within a frame."""
    places, room = centres.clip(low + sizes / 2, high - sizes / 2), (sizes[:, None] + sizes[None]) / 2
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
