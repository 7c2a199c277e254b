"""The model as a diagram: x -> encoder -> mean and log-variance -> z = mean + sigma noise -> decoder -> x^."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

from vaelab.figures.layout import (
    DPI,
    LINE_HEIGHT,
    MARGIN,
    MUTED_COLOR,
    PAGE_WIDTH,
    SMALL_FONT_SIZE,
    TEXT_COLOR,
    draw_text,
    draw_title,
    shorten_text,
    wrap_title,
)
from vaelab.models.summary import Layer

__all__ = ["plot_model"]


def plot_model(layers: Sequence[Layer], latent_dim: int, distortion: str, title: str = "") -> Figure:
    """The model from image to reconstruction: down the encoder to the posterior, its sample, and up the decoder."""
    sides = {part: [layer for layer in layers if layer.part == part] for part in ("encoder", "decoder")}
    depth = max(sum(_box_height(layer) + 0.14 for layer in side) for side in sides.values())
    lines = wrap_title(title, PAGE_WIDTH - 2 * MARGIN)
    height = depth + 2.35 + LINE_HEIGHT * len(lines)
    top = height - 0.55 - LINE_HEIGHT * len(lines)
    figure = Figure((PAGE_WIDTH, height), DPI, facecolor="white")
    draw_title(figure, lines)
    axes = figure.add_axes((0, 0, 1, 1), xlim=(0, PAGE_WIDTH), ylim=(0, height))
    axes.set_axis_off()
    looks = ((1.75, "x", "#dcebf7"), (5.25, "x̂", "#fbe5d3"))
    for (part, side), (x, name, colour) in zip(sides.items(), looks, strict=True):
        _draw_box(axes, (x, top, 0.8, 0.26), f"image {name}", "white")
        count = sum(layer.parameters for layer in side)
        draw_text(axes, x, top + 0.25, f"{part}, {count:,} parameters", ha="center", color=MUTED_COLOR)
        _draw_column(axes, side, (x, top - 0.13), colour)
    _draw_arrow(axes, (2.2, top), (4.8, top), "<|-|>", linestyle="--")
    draw_text(
        axes,
        3.5,
        top + 0.06,
        shorten_text(f"distortion: {distortion}", 2.4, SMALL_FONT_SIZE),
        size=SMALL_FONT_SIZE,
        ha="center",
        color=MUTED_COLOR,
    )
    _draw_posterior(axes, latent_dim)
    return figure


def _box_height(layer: Layer) -> float:
    return 0.4 if layer.parameters else 0.22


def _draw_column(axes: Axes, layers: Sequence[Layer], start: tuple[float, float], colour: str) -> None:
    """A side of the model, from its image down to the code; the wider a box, the more numbers leave it."""
    x, y = start
    down = bool(layers) and layers[0].part == "encoder"
    for layer in layers if down else reversed(layers):
        values, height = math.prod(layer.shape), _box_height(layer)
        width = min(3.2, 2.15 + 0.15 * max(0, math.log2(values) - 8))  # narrowest at 256 values
        _draw_arrow(axes, (x, y), (x, y - 0.14), "-|>" if down else "<|-")
        y -= 0.14 + height
        shape = " × ".join(f"{side:,}" for side in layer.shape)
        count = f" · {layer.parameters:,} parameters" if layer.parameters else ""
        _draw_box(axes, (x, y + height / 2, width, height), layer.name, colour, shape + count)
    code, style = ((x, 1.67), "-") if down else ((4.45, 0.4), "-|>")
    _draw_arrow(axes, code, (x, y), style, connectionstyle="angle,angleA=0,angleB=90,rad=4" if not down else "arc3")


def _draw_posterior(axes: Axes, latent_dim: int) -> None:
    """The bottom of the diagram: mean and log-variance, and the sample z with its noise."""
    upper, lower, green = 1.22, 0.4, "#dff0e8"
    for x, name in ((0.95, "mean"), (2.55, "log-variance")):
        _draw_box(axes, (x, upper, 1.3, 0.4), name, green, str(latent_dim))
        _draw_arrow(axes, (1.75, 1.67), (x, upper + 0.2))
        _draw_arrow(axes, (x, upper - 0.2), (2.9 + (x - 0.95) * 0.3, lower + 0.2))
    _draw_box(axes, (3.5, lower, 1.9, 0.4), "z = mean + σ · noise", green, "σ = exp(log-variance / 2)")
    _draw_box(axes, (0.95, lower, 1.3, 0.26), "noise ~ N(0, 1)", "white")
    _draw_arrow(axes, (1.6, lower), (2.55, lower))
    draw_text(axes, 3.3, upper, "rate: KL(q(z|x) ‖ p(z))", size=SMALL_FONT_SIZE, va="center", color=MUTED_COLOR)


def _draw_box(axes: Axes, box: tuple[float, float, float, float], text: str, colour: str, detail: str = "") -> None:
    """A box (middle x, middle y, width, height) with a name and, below or beside it, a detail."""
    x, y, width, height = box
    corner = (x - width / 2, y - height / 2)
    axes.add_patch(
        FancyBboxPatch(corner, width, height, "round,pad=0,rounding_size=0.04", fc=colour, ec=MUTED_COLOR, lw=0.6)
    )
    if detail and height < 0.3:
        text, detail = f"{text} · {detail}", ""
    lift = 0.08 if detail else 0
    for line, shift, size, ink in (
        (text, lift, SMALL_FONT_SIZE, TEXT_COLOR),
        (detail, -lift, SMALL_FONT_SIZE - 1, MUTED_COLOR),
    ):
        draw_text(
            axes, x, y + shift, shorten_text(line, width - 0.1, size), size=size, ha="center", va="center", color=ink
        )


def _draw_arrow(
    axes: Axes, start: tuple[float, float], end: tuple[float, float], style: str = "-|>", **how: Any
) -> None:
    if style != "-":
        style += ",head_width=0.15,head_length=0.3"
    look = {"arrowstyle": style, "color": MUTED_COLOR, "lw": 0.8, "shrinkA": 0, "shrinkB": 0, **how}
    axes.annotate("", end, start, arrowprops=look)
