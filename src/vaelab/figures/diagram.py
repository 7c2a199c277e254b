"""The model as a diagram: x -> encoder -> mean and log-variance -> z = mean + sigma noise -> decoder -> x^."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

from vaelab.figures.layout import DPI, EDGE, GREY, INK, LINE, PAGE, SMALL, headline, shortened, wrapped, write
from vaelab.models.summary import Layer

__all__ = ["model"]


def model(layers: Sequence[Layer], latent_dim: int, distortion: str, title: str = "") -> Figure:
    """The model from image to reconstruction: down the encoder to the posterior, its sample, and up the decoder."""
    sides = {part: [layer for layer in layers if layer.part == part] for part in ("encoder", "decoder")}
    depth = max(sum(_thickness(layer) + 0.14 for layer in side) for side in sides.values())
    lines = wrapped(title, PAGE - 2 * EDGE)
    height = depth + 2.35 + LINE * len(lines)
    top = height - 0.55 - LINE * len(lines)
    figure = Figure((PAGE, height), DPI, facecolor="white")
    headline(figure, lines)
    axes = figure.add_axes((0, 0, 1, 1), xlim=(0, PAGE), ylim=(0, height))
    axes.set_axis_off()
    looks = ((1.75, "x", "#dcebf7"), (5.25, "x̂", "#fbe5d3"))
    for (part, side), (x, name, colour) in zip(sides.items(), looks, strict=True):
        _box(axes, (x, top, 0.8, 0.26), f"image {name}", "white")
        count = sum(layer.parameters for layer in side)
        write(axes, x, top + 0.25, f"{part}, {count:,} parameters", ha="center", color=GREY)
        _column(axes, side, (x, top - 0.13), colour)
    _arrow(axes, (2.2, top), (4.8, top), "<|-|>", linestyle="--")
    write(
        axes, 3.5, top + 0.06, shortened(f"distortion: {distortion}", 2.4, SMALL), size=SMALL, ha="center", color=GREY
    )
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
    write(axes, 3.3, upper, "rate: KL(q(z|x) ‖ p(z))", size=SMALL, va="center", color=GREY)


def _box(axes: Axes, box: tuple[float, float, float, float], text: str, colour: str, detail: str = "") -> None:
    """A box (middle x, middle y, width, height) with a name and, below or beside it, a detail."""
    x, y, width, height = box
    corner = (x - width / 2, y - height / 2)
    axes.add_patch(FancyBboxPatch(corner, width, height, "round,pad=0,rounding_size=0.04", fc=colour, ec=GREY, lw=0.6))
    if detail and height < 0.3:
        text, detail = f"{text} · {detail}", ""
    lift = 0.08 if detail else 0
    for line, shift, size, ink in ((text, lift, SMALL, INK), (detail, -lift, SMALL - 1, GREY)):
        write(axes, x, y + shift, shortened(line, width - 0.1, size), size=size, ha="center", va="center", color=ink)


def _arrow(axes: Axes, start: tuple[float, float], end: tuple[float, float], style: str = "-|>", **how: Any) -> None:
    if style != "-":
        style += ",head_width=0.15,head_length=0.3"
    look = {"arrowstyle": style, "color": GREY, "lw": 0.8, "shrinkA": 0, "shrinkB": 0, **how}
    axes.annotate("", end, start, arrowprops=look)
