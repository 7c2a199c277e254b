"""Points in several spaces: PCA, the k-means clusters of that, and t-SNE, with a legend of their colours."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from mpl_toolkits.mplot3d import Axes3D, proj3d

from vaelab.analysis.projections import Projection
from vaelab.figures.colors import GRID_COLOR, MUTED_COLOR, PANEL, TEXT_COLOR, category_palette, cluster_palette
from vaelab.figures.layout import MARGIN, add_caption, add_legend, blank_figure, extend_below
from vaelab.figures.text import (
    DPI,
    SMALL_FONT_SIZE,
    distinct_labels,
    draw_text,
    font_families,
    shorten_text,
    text_width,
)

__all__ = ["plot_latent_spaces", "scatter_panels"]

MAX_NAMED_GROUPS = 16  # groups whose name is written among the points: more would hide the points
MAX_NAMES_AREA = 0.25  # of a panel, for the same reason

ROW_HEIGHT = 2.65  # inches
PANEL_STEP = 2.3  # from one panel to the next
PANEL_WIDTH = 2.2
PANEL_HEIGHT = 2.1

NAME_SIZE = SMALL_FONT_SIZE - 1
MAX_NAME_WIDTH = 0.9  # inches

FEW_POINTS = 100  # would disappear behind the names of their groups, which are lifted

MAX_OVERLAP_STEPS = 500


class Groups(NamedTuple):
    """A division of points.

    Attributes:
        members: The group of each point, with shape (N,).
        colors: Of each group.
        names: Of each group; none where they are not written among the points.
    """

    members: np.ndarray
    colors: Sequence[str]
    names: Sequence[str]


class Panel(NamedTuple):
    """One cloud of points with its heading and a line under it."""

    points: np.ndarray
    groups: Groups
    heading: str
    note: str


def plot_latent_spaces(
    raw: Projection,
    codes: Projection,
    labels: np.ndarray | None,
    categories: Sequence[str],
    title: str = "",
    *,
    caption: str = "",
) -> Figure:
    """Six panels: PCA, its k-means clusters and t-SNE of raw pixels (a) to (c), and of the codes (d) to (f).

    Args:
        raw: The projection of raw pixels.
        codes: The projection of the codes of the same images.
        labels: The category of each image, with shape (N,), if known.
        categories: Their names.
        title: Of the figure.
        caption: Under it.

    Returns:
        The figure.
    """
    figure = scatter_panels([("raw pixels", raw), ("encoder means", codes)], labels, categories, title)
    return add_caption(figure, caption)


def scatter_panels(
    spaces: Sequence[tuple[str, Projection]], labels: np.ndarray | None, categories: Sequence[str], title: str = ""
) -> Figure:
    """A row for each space of points: its PCA, the k-means clusters of that, and its t-SNE.

    Points have the colour of their category, and without labels that of their cluster. The names of categories stand
    in the legend and in the t-SNE panels. Clusters are named by letters, in colours that no category has.

    Args:
        spaces: The name and the projection of each space.
        labels: The category of each point, with shape (N,), if known.
        categories: Their names.
        title: Of the figure.

    Returns:
        The figure.
    """
    figure = blank_figure(title)
    groups = None
    if labels is None:
        most = max((_clusters(projection) for _, projection in spaces), key=lambda found: len(found.names))
        legend = dict(zip(most.names, most.colors, strict=True))
        add_legend(figure, legend, "k-means clusters")
    else:
        groups = _categories(labels, categories)
        present: list[int] = np.unique(labels).tolist()
        add_legend(figure, {groups.names[i]: groups.colors[i] for i in present}, "categories")
    extend_below(figure, 0.1 + ROW_HEIGHT * len(spaces))
    for row, (name, projection) in enumerate(spaces):
        bottom = ROW_HEIGHT * (len(spaces) - 1 - row)
        for column, panel in enumerate(_panels(name, projection, groups)):
            letter = chr(ord("a") + 3 * row + column)
            _add_panel(figure, panel, letter, (MARGIN + PANEL_STEP * column, bottom))
    return figure


def _categories(labels: np.ndarray, categories: Sequence[str]) -> Groups:
    """The points by category."""
    count = max(len(categories), int(labels.max()) + 1)
    return Groups(labels, category_palette(count), distinct_labels(categories))


def _clusters(projection: Projection) -> Groups:
    """The points by cluster, which have letters for names."""
    count = int(projection.clusters.max()) + 1
    names = [chr(ord("A") + i) if i < 26 else str(i) for i in range(count)]
    return Groups(projection.clusters, cluster_palette(count), names)


def _panels(name: str, projection: Projection, categories: Groups | None) -> list[Panel]:
    """The three panels of a space."""
    clusters = _clusters(projection)
    groups = categories or clusters
    shares = " + ".join(f"{100 * share:.1f}" for share in projection.variance)
    variance = f"variance {shares} = {100 * projection.variance.sum():.1f} %"
    count = len(clusters.names)
    note = f"{count} cluster{'s' * (count != 1)} in three components"
    return [
        Panel(projection.pca, groups._replace(names=()), f"PCA of {name}", variance),
        Panel(projection.pca, clusters, "k-means of this PCA", note),
        Panel(projection.tsne, groups, f"t-SNE of {name}", ""),
    ]


def _add_panel(figure: Figure, panel: Panel, letter: str, corner: tuple[float, float]) -> None:
    """Draw a panel whose lower left corner is given in inches."""
    width, height = figure.get_size_inches()
    left, bottom = corner
    axes = _scatter(figure, panel, (left, bottom + 0.25))
    _name_groups(axes, panel)
    heading = shorten_text(f"({letter}) {panel.heading}", 2.25)
    draw_text(figure, left / width, (bottom + 2.42) / height, heading)
    draw_text(figure, left / width, (bottom + 0.1) / height, panel.note, size=SMALL_FONT_SIZE, color=MUTED_COLOR)


def _scatter(figure: Figure, panel: Panel, corner: tuple[float, float]) -> Axes:
    """Points (N, 2) or (N, 3), coloured by group, on axes whose lower left corner is given in inches."""
    width, height = figure.get_size_inches()
    points = panel.points
    is_3d = points.shape[1] == 3
    left = corner[0] - 0.12 * is_3d  # the third axis is named at the right, outside of its box
    bottom = corner[1] + 0.05 * is_3d
    place = (left / width, bottom / height, PANEL_WIDTH / width, PANEL_HEIGHT / height)
    axes = figure.add_axes(place, projection="3d" if is_3d else "rectilinear")
    order = np.random.default_rng(0).permutation(len(points))  # so that no group hides the others
    colors = np.array(panel.groups.colors)[panel.groups.members[order]]
    style: dict[str, Any] = {"depthshade": False} if is_3d else {}
    size = float(np.clip(4000 / len(points), 0.8, 14))
    axes.scatter(*points[order].T, s=size, c=colors, linewidths=0, rasterized=True, **style)
    if isinstance(axes, Axes3D):
        _style_3d_axes(axes)
    else:
        axes.set(xticks=(), yticks=(), aspect="equal", adjustable="datalim")
        axes.spines[:].set_color(GRID_COLOR)
    return axes


def _style_3d_axes(axes: Any) -> None:
    """A box of pale walls without numbers: the scale of a principal component has no meaning."""
    for axis, name in zip((axes.xaxis, axes.yaxis, axes.zaxis), ("PC 1", "PC 2", "PC 3"), strict=True):
        axis.set_ticks([])
        axis.set_pane_color(PANEL)
        axis.line.set_color(GRID_COLOR)
        axis.set_label_text(name, size=SMALL_FONT_SIZE, color=MUTED_COLOR)
        axis.labelpad = -14
    axes.margins(0)
    axes.set_box_aspect((1, 1, 1), zoom=1.08)


def _name_groups(axes: Axes, panel: Panel) -> None:
    """Write the name of each group at its median, moved aside with a thin line to it where names would overlap."""
    groups = panel.groups
    texts = _names_to_write(groups)
    if not texts:
        return
    named = list(texts)
    medians = np.array([np.median(panel.points[groups.members == group], 0) for group in named])
    if isinstance(axes, Axes3D):
        projected = proj3d.proj_transform(medians[:, 0], medians[:, 1], medians[:, 2], axes.get_proj())
        medians = np.stack(projected[:2], axis=1)
    axes.apply_aspect()
    sizes = np.array([_name_size(text) for text in texts.values()]) * DPI
    lift = (0, 0.13 * DPI * (len(panel.points) < FEW_POINTS))
    frame = axes.get_window_extent()
    centres = axes.transData.transform(medians) + lift
    places = _resolve_overlaps(centres, sizes, np.array(frame.min), np.array(frame.max))
    places = axes.transAxes.inverted().transform(places)
    for (group, text), median, place in zip(texts.items(), medians, places, strict=True):
        _draw_name(axes, text, median, place, groups.colors[group])


def _names_to_write(groups: Groups) -> dict[int, str]:
    """The names that are written among the points, by group: of the largest groups, as many as leave room for these."""
    if not groups.names:
        return {}
    present, counts = np.unique(groups.members, return_counts=True)
    by_size: list[int] = present[np.argsort(-counts, kind="stable")].tolist()
    texts: dict[int, str] = {}
    area = 0.0
    for group in by_size[:MAX_NAMED_GROUPS]:
        text = shorten_text(groups.names[group], MAX_NAME_WIDTH, NAME_SIZE)
        width, height = _name_size(text)
        area += width * height
        if area > MAX_NAMES_AREA * PANEL_WIDTH * PANEL_HEIGHT:
            break
        texts[group] = text
    return dict(sorted(texts.items()))


def _name_size(text: str) -> tuple[float, float]:
    """The width and the height of the box of a name, in inches."""
    return text_width(text, NAME_SIZE) + 0.1, 0.16


def _draw_name(axes: Axes, text: str, median: np.ndarray, place: np.ndarray, color: str) -> None:
    """A name in a box, with a line to the median of its group."""
    style = {"size": NAME_SIZE, "color": TEXT_COLOR, "ha": "center", "va": "center", "parse_math": False}
    line = {"arrowstyle": "-", "color": TEXT_COLOR, "linewidth": 0.5, "shrinkA": 0, "shrinkB": 0}
    box = {"boxstyle": "round,pad=0.15", "facecolor": "white", "edgecolor": color, "alpha": 0.9}
    where = ("data", "axes fraction")
    axes.annotate(
        text,
        (median[0], median[1]),
        (place[0], place[1]),
        *where,
        arrowprops=line,
        bbox=box,
        family=font_families(text),
        **style,
    )


def _resolve_overlaps(centres: np.ndarray, sizes: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Centres (K, 2) of boxes of these sizes, pushed until none overlap, within a frame."""
    places = centres.clip(low + sizes / 2, high - sizes / 2)
    smallest_distance = (sizes[:, None] + sizes[None]) / 2
    order = np.arange(len(places))
    order_sign = np.sign(np.subtract.outer(order, order))[..., None]  # which one yields where to, if at one place
    for _ in range(MAX_OVERLAP_STEPS):
        difference = places[:, None] - places[None]
        overlap = np.where(order_sign != 0, smallest_distance - np.abs(difference), 0).clip(0)
        overlaps = overlap.min(-1, keepdims=True) > 0
        if not overlaps.any():
            break
        direction = np.where(difference == 0, order_sign, np.sign(difference))
        is_shorter_way = overlap == overlap.min(-1, keepdims=True)
        push = direction * overlap * is_shorter_way * overlaps
        places = (places + 0.3 * push.sum(1)).clip(low + sizes / 2, high - sizes / 2)
    return places
