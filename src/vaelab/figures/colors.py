"""Colours of figures: palettes that stay readable on white, and the contrast ratio that says so.

The contrast ratio of two colours follows the Web Content Accessibility Guidelines (WCAG) 2.2. It goes from 1, the same
lightness, to 21, black on white. Everything that a figure says with a colour has at least `MIN_CONTRAST` against
`PANEL`, the darkest background used, which is what the guidelines ask of graphics.

Categories and clusters never share a colour: a category's contrast lies below `CATEGORY_CONTRAST`, a cluster's above
`CLUSTER_CONTRAST`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib import colormaps
from matplotlib.colors import hsv_to_rgb, to_hex, to_rgb

__all__ = [
    "BACKGROUND",
    "CATEGORY_COLORS",
    "CLUSTER_COLORS",
    "GRID_COLOR",
    "MIN_CONTRAST",
    "MUTED_COLOR",
    "PANEL",
    "SPLIT_COLORS",
    "TEXT_COLOR",
    "VERDICT_COLORS",
    "assign_colors",
    "category_palette",
    "cluster_palette",
    "contrast_ratio",
]

MIN_CONTRAST = 3.0

BACKGROUND = "#ffffff"
PANEL = "#f7f7f7"

TEXT_COLOR = "#222222"
MUTED_COLOR = "#666666"
GRID_COLOR = "#8a8a8a"  # of thin lines; lighter ones would be below the smallest contrast

CATEGORY_COLORS = (
    "#1f6fc0",
    "#dd6200",
    "#0a8f4c",
    "#c31b2e",
    "#7a3db8",
    "#9a7b00",
    "#d1479f",
    "#00909e",
    "#8a5a3c",
    "#767676",
)

CLUSTER_COLORS = (
    "#0b2a8b",
    "#7a0f1a",
    "#0f4d2a",
    "#4a1a80",
    "#5a3a00",
    "#00535c",
    "#7a0a5a",
    "#000000",
    "#46463a",
    "#2c5f00",
)

SPLIT_COLORS = {"train": CATEGORY_COLORS[0], "validation": CATEGORY_COLORS[1]}

# Blue, vermilion, green and purple that colour-blind people tell apart (Okabe and Ito 2008), darkened for text. A
# symbol and a word always stand beside them.
VERDICT_COLORS = {
    "supported": "#005f96",
    "refuted": "#b04300",
    "equal": "#00705a",
    "void": "#8c3a6e",
    "undecided": "#5c646e",
}

CATEGORY_CONTRAST = 6.5  # no category is darker
CLUSTER_CONTRAST = 7.0  # no cluster is lighter

RAMP_END = 0.6  # of the colour map "plasma": what follows is too light


def contrast_ratio(color: str, background: str = PANEL) -> float:
    """The contrast ratio of two colours, from 1 to 21.

    Args:
        color: Any colour that matplotlib knows, such as "#1f6fc0".
        background: The colour behind it.

    Returns:
        (L1 + 0.05) / (L2 + 0.05), with the relative luminances L1 >= L2.

    Source: Web Content Accessibility Guidelines 2.2, "contrast ratio".

    Example:
        >>> contrast_ratio("black", "white")
        21.0
        >>> contrast_ratio("#1f6fc0") > MIN_CONTRAST
        True
    """
    first = _luminance(_to_linear(np.array(to_rgb(color))))
    second = _luminance(_to_linear(np.array(to_rgb(background))))
    lighter, darker = max(first, second), min(first, second)
    return round((lighter + 0.05) / (darker + 0.05), 6)


def category_palette(count: int) -> list[str]:
    """Colours for categories, or for settings that are no numbers.

    Args:
        count: How many colours.

    Returns:
        Different colours as "#rrggbb", each readable on `PANEL`.

    Example:
        >>> category_palette(2)
        ['#1f6fc0', '#dd6200']
    """
    if count <= len(CATEGORY_COLORS):
        return list(CATEGORY_COLORS[:count])
    return _hue_circle(count, 0.0, (3.3, 4.4, 6.0))


def cluster_palette(count: int) -> list[str]:
    """Colours for clusters: darker than every category, so that nobody takes one for the other.

    Args:
        count: How many colours.

    Returns:
        Different colours as "#rrggbb".
    """
    if count <= len(CLUSTER_COLORS):
        return list(CLUSTER_COLORS[:count])
    return _hue_circle(count, 0.5, (7.4, 9.5, 13.0))


def assign_colors(names: Sequence[str]) -> dict[str, str]:
    """A colour for each setting of an experiment.

    Settings that are numbers lie on a ramp, the smallest the darkest. Others get colours as different as possible.

    Args:
        names: The settings.

    Returns:
        The colour of each, as "#rrggbb".

    Example:
        >>> assign_colors(["ce", "se"])
        {'ce': '#1f6fc0', 'se': '#dd6200'}
    """
    try:
        values = [float(name) for name in names]
    except ValueError:
        return dict(zip(names, category_palette(len(names)), strict=True))
    rank = np.argsort(np.argsort(values, kind="stable"), kind="stable")
    ramp = colormaps["plasma"](np.linspace(0, RAMP_END, len(names)))
    return {name: _to_hex(ramp[i]) for name, i in zip(names, rank, strict=True)}


def _hue_circle(count: int, offset: float, contrasts: Sequence[float]) -> list[str]:
    """Colours around the circle of hues, whose contrasts repeat."""
    colors = []
    for i in range(count):
        hue = (i + offset) / count
        vivid = hsv_to_rgb((hue, 0.9, 0.9))
        colors.append(_with_contrast(vivid, contrasts[i % len(contrasts)]))
    return colors


def _with_contrast(rgb: np.ndarray, contrast: float) -> str:
    """A colour of the same hue that has this contrast against `PANEL`: mixed with black or with white."""
    linear = _to_linear(rgb)
    luminance = _luminance(linear)
    target = (_luminance(_to_linear(np.array(to_rgb(PANEL)))) + 0.05) / contrast - 0.05
    if luminance >= target:
        mixed = linear * target / luminance
    else:
        mixed = linear + (1 - linear) * (target - luminance) / (1 - luminance)
    return _to_hex(_to_srgb(mixed))


def _to_hex(rgb: np.ndarray) -> str:
    """Red, green and blue in [0, 1] as "#rrggbb"."""
    red, green, blue = rgb[:3].tolist()
    return to_hex((red, green, blue))


def _luminance(linear: np.ndarray) -> float:
    """The relative luminance of linear red, green and blue."""
    return float(linear @ np.array([0.2126, 0.7152, 0.0722]))


def _to_linear(rgb: np.ndarray) -> np.ndarray:
    """sRGB in [0, 1] as linear light."""
    return np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)


def _to_srgb(linear: np.ndarray) -> np.ndarray:
    """Linear light as sRGB in [0, 1]."""
    srgb = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    return np.clip(srgb, 0, 1)
