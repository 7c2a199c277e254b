"""The model as a diagram: x -> encoder -> mean and log-variance -> z = mean + sigma noise -> decoder -> x^."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

from vaelab.figures.colors import MUTED_COLOR, TEXT_COLOR
from vaelab.figures.layout import PAGE_WIDTH, add_area_below, add_caption, blank_figure
from vaelab.figures.text import SMALL_FONT_SIZE, draw_text, shorten_text
from vaelab.models.summary import Layer

__all__ = ["plot_model"]

ENCODER_FILL = "#dcebf7"
DECODER_FILL = "#fbe5d3"
POSTERIOR_FILL = "#dff0e8"

ENCODER_X = 1.75  # inches, the middle of a column
DECODER_X = 5.25

ARROW_LENGTH = 0.14


def plot_model(
    layers: Sequence[Layer], latent_dim: int, distortion: str, title: str = "", *, caption: str = ""
) -> Figure:
    """The model from image to reconstruction: down the encoder to the posterior, its sample, and up the decoder.

    Args:
        layers: Of both networks, in the order of their computation.
        latent_dim: Number of latent dimensions.
        distortion: The name of the loss between image and reconstruction.
        title: Of the figure.
        caption: Under it.

    Returns:
        The figure.
    """
    encoder = [layer for layer in layers if layer.part == "encoder"]
    decoder = [layer for layer in layers if layer.part == "decoder"]
    depth = max(_column_height(encoder), _column_height(decoder))
    figure = blank_figure(title)
    height = depth + 2.25
    axes = add_area_below(figure, height)
    top = height - 0.45
    _draw_side(axes, encoder, "encoder", top)
    _draw_side(axes, decoder, "decoder", top)
    _draw_arrow(axes, (2.2, top), (4.8, top), "<|-|>", linestyle="--")
    text = shorten_text(f"distortion: {distortion}", 2.4, SMALL_FONT_SIZE)
    style = {"size": SMALL_FONT_SIZE, "ha": "center", "color": MUTED_COLOR}
    draw_text(axes, PAGE_WIDTH / 2, top + 0.06, text, **style)
    _draw_posterior(axes, latent_dim)
    return add_caption(figure, caption)


def _column_height(layers: Sequence[Layer]) -> float:
    """Inches that the boxes of one network take, with the arrows between them."""
    return sum(_box_height(layer) + ARROW_LENGTH for layer in layers)


def _box_height(layer: Layer) -> float:
    return 0.4 if layer.parameters else 0.22


def _draw_side(axes: Axes, layers: Sequence[Layer], part: str, y: float) -> None:
    """One network, with the middle of its image at height `y`."""
    is_encoder = part == "encoder"
    x = ENCODER_X if is_encoder else DECODER_X
    fill = ENCODER_FILL if is_encoder else DECODER_FILL
    _draw_box(axes, (x, y, 0.8, 0.26), "image x" if is_encoder else "image x̂", "white")
    count = sum(layer.parameters for layer in layers)
    draw_text(axes, x, y + 0.25, f"{part}, {count:,} parameters", ha="center", color=MUTED_COLOR)
    if is_encoder:
        bottom = _draw_column(axes, layers, (x, y - 0.13), fill, "-|>")
        _draw_arrow(axes, (x, 1.67), (x, bottom), "-")
    else:
        bottom = _draw_column(axes, layers[::-1], (x, y - 0.13), fill, "<|-")
        _draw_arrow(axes, (4.45, 0.4), (x, bottom), connectionstyle="angle,angleA=0,angleB=90,rad=4")


def _draw_column(axes: Axes, layers: Sequence[Layer], start: tuple[float, float], fill: str, arrow: str) -> float:
    """Layers from the image down; the wider a box, the more numbers leave it. Returns where the column ends."""
    x, y = start
    for layer in layers:
        num_values = math.prod(layer.shape)
        width = min(3.2, 2.15 + 0.15 * max(0, math.log2(num_values) - 8))  # narrowest at 256 values
        height = _box_height(layer)
        _draw_arrow(axes, (x, y), (x, y - ARROW_LENGTH), arrow)
        y -= ARROW_LENGTH + height
        detail = " × ".join(f"{side:,}" for side in layer.shape)
        if layer.parameters:
            detail += f" · {layer.parameters:,} parameters"
        _draw_box(axes, (x, y + height / 2, width, height), layer.name, fill, detail)
    return y


def _draw_posterior(axes: Axes, latent_dim: int) -> None:
    """The bottom of the diagram: mean and log-variance, and the sample z with its noise."""
    upper, lower = 1.22, 0.4
    for x, name in ((0.95, "mean"), (2.55, "log-variance")):
        _draw_box(axes, (x, upper, 1.3, 0.4), name, POSTERIOR_FILL, str(latent_dim))
        _draw_arrow(axes, (ENCODER_X, 1.67), (x, upper + 0.2))
        _draw_arrow(axes, (x, upper - 0.2), (2.9 + (x - 0.95) * 0.3, lower + 0.2))
    _draw_box(axes, (3.5, lower, 1.9, 0.4), "z = mean + σ · noise", POSTERIOR_FILL, "σ = exp(log-variance / 2)")
    _draw_box(axes, (0.95, lower, 1.3, 0.26), "noise ~ N(0, 1)", "white")
    _draw_arrow(axes, (1.6, lower), (2.55, lower))
    style = {"size": SMALL_FONT_SIZE, "va": "center", "color": MUTED_COLOR}
    draw_text(axes, 3.3, upper, "rate: KL(q(z|x) ‖ p(z))", **style)


def _draw_box(axes: Axes, box: tuple[float, float, float, float], name: str, fill: str, detail: str = "") -> None:
    """A box (middle x, middle y, width, height) with a name and, below or beside it, a detail."""
    x, y, width, height = box
    corner = (x - width / 2, y - height / 2)
    shape = "round,pad=0,rounding_size=0.04"
    axes.add_patch(FancyBboxPatch(corner, width, height, shape, fc=fill, ec=MUTED_COLOR, lw=0.6))
    style = {"ha": "center", "va": "center"}
    if detail and height < 0.3:
        name, detail = f"{name} · {detail}", ""
    lift = 0.08 if detail else 0
    text = shorten_text(name, width - 0.1, SMALL_FONT_SIZE)
    draw_text(axes, x, y + lift, text, size=SMALL_FONT_SIZE, color=TEXT_COLOR, **style)
    if detail:
        text = shorten_text(detail, width - 0.1, SMALL_FONT_SIZE - 1)
        draw_text(axes, x, y - lift, text, size=SMALL_FONT_SIZE - 1, color=MUTED_COLOR, **style)


def _draw_arrow(
    axes: Axes, start: tuple[float, float], end: tuple[float, float], head: str = "-|>", **options: Any
) -> None:
    """A thin arrow."""
    if head != "-":
        head += ",head_width=0.15,head_length=0.3"
    style = {"arrowstyle": head, "color": MUTED_COLOR, "lw": 0.8, "shrinkA": 0, "shrinkB": 0}
    axes.annotate("", end, start, arrowprops=style | options)
