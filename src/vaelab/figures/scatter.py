"""Figures: numbers and arrays become pictures; nothing is computed here but where things go.

Images come in as uint8 or as floats in [0, 1], shaped (N, C, H, W) with one or three channels, and leave as matplotlib
figures that `save` writes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from mpl_toolkits.mplot3d import Axes3D, proj3d

from vaelab.analysis.projections import Projection
from vaelab.figures.layout import (
    DPI,
    GRID_COLOR,
    LINE_HEIGHT,
    MARGIN,
    MUTED_COLOR,
    PAGE_WIDTH,
    SMALL_FONT_SIZE,
    TEXT_COLOR,
    available_fonts,
    color_palette,
    distinct_labels,
    draw_text,
    draw_title,
    replace_missing_glyphs,
    shorten_text,
    text_width,
    wrap_title,
)

__all__ = ["plot_latent_spaces", "scatter_panels"]

MAX_NAMED_GROUPS = 16  # categories whose name is written into a cloud of points: more would hide the points


# Clouds of points


def plot_latent_spaces(
    raw: Projection, codes: Projection, labels: np.ndarray | None, categories: Sequence[str], title: str = ""
) -> Figure:
    """Six panels (report B, B4): PCA, its k-means clusters and t-SNE of raw pixels (a)-(c) and of the codes (d)-(f)."""
    return scatter_panels([("raw pixels", raw), ("encoder output", codes)], labels, categories, title)


def scatter_panels(
    spaces: Sequence[tuple[str, Projection]], labels: np.ndarray | None, categories: Sequence[str], title: str = ""
) -> Figure:
    """A row for each space of points: its PCA, the k-means clusters of that, and its t-SNE.

    Coloured by category, without labels (N,) by cluster; names stand at the medians of the t-SNE panels.
    """
    lines = wrap_title(title, PAGE_WIDTH - 2 * MARGIN)
    height = 0.1 + 2.65 * len(spaces) + LINE_HEIGHT * len(lines)
    figure = Figure((PAGE_WIDTH, height), DPI, facecolor="white")
    draw_title(figure, lines)
    for row, (what, panels) in enumerate(spaces):
        numbers = [chr(ord("A") + i) if i < 26 else str(i) for i in range(panels.clusters.max() + 1)]
        groups, names = (panels.clusters, numbers) if labels is None else (labels, distinct_labels(categories))
        shares = " + ".join(f"{100 * share:.1f}" for share in panels.variance)
        count = f"{len(numbers)} cluster{'s' * (len(numbers) > 1)} in three components"
        shares += f" = {100 * panels.variance.sum():.1f} %"
        cells: Any = (
            (panels.pca, groups, (), f"PCA of {what}", f"variance {shares}"),
            (panels.pca, panels.clusters, numbers, "k-means of these", count),
            (panels.tsne, groups, names, f"t-SNE of {what}", ""),
        )
        for column, (points, shades, texts, head, caption) in enumerate(cells):
            left, bottom = MARGIN + 2.3 * column, 2.65 * (len(spaces) - 1 - row)
            axes = _scatter(figure, (left, bottom + 0.25), points, shades)
            _label_groups(axes, points, shades, texts)
            letter = chr(ord("a") + 3 * row + column)
            draw_text(figure, left / PAGE_WIDTH, (bottom + 2.42) / height, shorten_text(f"({letter}) {head}", 2.25))
            draw_text(
                figure, left / PAGE_WIDTH, (bottom + 0.1) / height, caption, size=SMALL_FONT_SIZE, color=MUTED_COLOR
            )
    return figure


def _scatter(figure: Figure, corner: tuple[float, float], points: np.ndarray, groups: np.ndarray) -> Axes:
    """Points (N, 2) or (N, 3), coloured by group, on axes whose lower left corner is given in inches."""
    width, height = figure.get_size_inches()
    solid = points.shape[1] == 3
    left = corner[0] - 0.12 * solid  # the third axis is named at the right, outside of its box
    place = (left / width, (corner[1] + 0.05 * solid) / height, 2.2 / width, 2.1 / height)
    axes = figure.add_axes(place, projection="3d" if solid else "rectilinear")
    order = np.random.default_rng(0).permutation(len(points))  # so that no category hides the others
    colours = np.array(color_palette(int(groups.max()) + 1))[groups[order]]
    size = float(np.clip(4000 / len(points), 0.8, 14))
    look = {"depthshade": False} if solid else {}
    axes.scatter(*points[order].T, s=size, c=colours, linewidths=0, rasterized=True, **look)
    if isinstance(axes, Axes3D):
        _style_3d_axes(axes)
    else:
        axes.set(xticks=(), yticks=(), aspect="equal", adjustable="datalim")
        axes.spines[:].set_color(GRID_COLOR)
    return axes


def _style_3d_axes(axes: Any) -> None:
    """A box of pale walls without numbers: the scale of a principal component says nothing."""
    for axis, name in zip((axes.xaxis, axes.yaxis, axes.zaxis), ("PC 1", "PC 2", "PC 3"), strict=True):
        axis.set_ticks([])
        axis.set_pane_color("#f7f7f7")
        axis.line.set_color("#aaaaaa")
        axis.set_label_text(name, size=SMALL_FONT_SIZE, color=MUTED_COLOR)
        axis.labelpad = -14
    axes.margins(0)
    axes.set_box_aspect((1, 1, 1), zoom=1.08)


def _label_groups(axes: Axes, points: np.ndarray, groups: np.ndarray, names: Sequence[str]) -> None:
    """Write each group's name at its median, moved aside with a thin line to it where names would overlap."""
    present, counts = np.unique(groups, return_counts=True)
    present = np.sort(present[np.argsort(-counts, kind="stable")][:MAX_NAMED_GROUPS]) if names else present[:0]
    if not len(present):
        return
    medians = np.array([np.median(points[groups == group], 0) for group in present])
    if isinstance(axes, Axes3D):
        medians = np.stack(proj3d.proj_transform(medians[:, 0], medians[:, 1], medians[:, 2], axes.get_proj())[:2], 1)
    axes.apply_aspect()
    texts = [shorten_text(names[int(group)], 0.9, SMALL_FONT_SIZE - 1) for group in present]
    sizes = np.array([(text_width(text, SMALL_FONT_SIZE - 1) + 0.1, 0.16) for text in texts]) * DPI
    above = (0, 0.13 * DPI * (len(points) < 100))  # few points would disappear behind their names
    frame = axes.get_window_extent()
    places = _resolve_overlaps(
        axes.transData.transform(medians) + above, sizes, np.array(frame.min), np.array(frame.max)
    )
    places = axes.transAxes.inverted().transform(places)
    colours = color_palette(int(groups.max()) + 1)
    style = {"size": SMALL_FONT_SIZE - 1, "color": TEXT_COLOR, "ha": "center", "va": "center"}
    line = {"arrowstyle": "-", "color": TEXT_COLOR, "linewidth": 0.5, "shrinkA": 0, "shrinkB": 0}
    for text, median, place, group in zip(texts, medians, places, present, strict=True):
        box = {"boxstyle": "round,pad=0.15", "facecolor": "white", "edgecolor": colours[group], "alpha": 0.85}
        axes.annotate(
            replace_missing_glyphs(text),
            median,
            place,
            "data",
            "axes fraction",
            arrowprops=line,
            bbox=box,
            family=available_fonts()[0],
            parse_math=False,
            **style,
        )


def _resolve_overlaps(centres: np.ndarray, sizes: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
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
