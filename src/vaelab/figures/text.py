r"""Text of figures: measured before it is drawn, so that margins fit it and what is too long is shortened.

Text is drawn as it is written: a "$" starts no formula. A character that the main font lacks is taken from any
installed font that has it. A character that no font has is written in other letters (a syllable by its sound, others as
an escape such as \u5973), so that no empty box appears.
"""

from __future__ import annotations

import functools
import unicodedata
from collections.abc import Sequence
from typing import Any

from matplotlib import font_manager
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import RendererAgg
from matplotlib.figure import Figure
from matplotlib.text import Text

from vaelab.figures.colors import TEXT_COLOR

__all__ = [
    "DPI",
    "FONT_SIZE",
    "SMALL_FONT_SIZE",
    "distinct_labels",
    "draw_text",
    "drawable_text",
    "font_families",
    "shorten_text",
    "text_width",
    "wrap_text",
]

DPI = 200

FONT_SIZE = 9.0  # points
SMALL_FONT_SIZE = 8.0

MAIN_FONT = "DejaVu Sans"  # comes with matplotlib

# Tried first for what the main font lacks; after these, every other installed font.
PREFERRED_FONTS = (
    "Noto Sans CJK SC",
    "Noto Sans CJK JP",
    "PingFang SC",
    "Hiragino Sans",
    "Microsoft YaHei",
    "Malgun Gothic",
    "Arial Unicode MS",
    "WenQuanYi Micro Hei",
    "Droid Sans Fallback",
    "Unifont",
)

# Their names begin so. They draw one box for every character, or have other signs in place of the usual ones.
UNUSABLE_FONTS = ("Last Resort", "LastResort", "Adobe Blank", "STIXNonUnicode", "STIXSize", "cm")

REGULAR, BOLD = 400, 700  # weights

MAX_CHARACTERS = 200  # of a label, before it is measured


def font_families(text: str) -> list[str]:
    """The font families that draw a text, the main font first.

    Args:
        text: Any text.

    Returns:
        Names for matplotlib's `family`.

    Example:
        >>> font_families("abc")
        ['DejaVu Sans']
    """
    families = [MAIN_FONT]
    for character in text:
        family = _family_of(character)
        if family is not None and family not in families:
            families.append(family)
    return families


@functools.lru_cache(4096)
def _family_of(character: str) -> str | None:
    """The first font family that has a character."""
    for family in (MAIN_FONT, *_fallback_families()):
        if ord(character) in _characters_of(family):
            return family
    return None


@functools.cache
def _fallback_families() -> tuple[str, ...]:
    """Every other usable font family, the preferred ones first."""
    usable = set()
    for name, weights in _installed_weights().items():
        if REGULAR in weights and not name.startswith(UNUSABLE_FONTS):
            usable.add(name)
    preferred = [name for name in PREFERRED_FONTS if name in usable]
    return (*preferred, *sorted(usable - {MAIN_FONT, *preferred}))


@functools.cache
def _installed_weights() -> dict[str, set[int]]:
    """The weights of the upright faces of every installed font family."""
    weights: dict[str, set[int]] = {}
    for font in font_manager.fontManager.ttflist:
        if font.style == "normal":
            weight = font.weight if isinstance(font.weight, int) else font_manager.weight_dict[font.weight]
            weights.setdefault(font.name, set()).add(weight)
    return weights


@functools.cache
def _characters_of(family: str) -> frozenset[int]:
    """The characters that all upright faces of a family have."""
    faces = []
    for weight in (REGULAR, BOLD):
        if weight in _installed_weights()[family]:
            properties = font_manager.FontProperties(family=family, weight=weight)
            font = font_manager.get_font(font_manager.findfont(properties))
            faces.append(frozenset(font.get_charmap()))
    return frozenset.intersection(*faces)


def _weight(families: Sequence[str], asked: str) -> str:
    """The weight asked for, or "normal" where a family has no bold face (matplotlib would log a warning)."""
    has_bold = all(BOLD in _installed_weights()[family] for family in families)
    return asked if has_bold else "normal"


def drawable_text(text: str) -> str:
    r"""The text with every character that no installed font has written in other letters.

    Args:
        text: Any text, also with control characters.

    Returns:
        The same text where everything can be drawn. White space is a blank, except for line breaks.

    Example:
        >>> drawable_text("cat\tdog")
        'cat dog'
        >>> drawable_text("\x1b[1m")
        '\\x1b[1m'
    """
    return "".join(_drawable(character) for character in text)


def _drawable(character: str) -> str:
    """A character, or what stands for it where no font has it."""
    if character == "\n":
        return character
    if character.isspace():
        return " "
    if _family_of(character) is not None:
        return character
    simpler = unicodedata.normalize("NFKD", character)
    if all(_family_of(part) is not None for part in simpler):
        return simpler
    name = unicodedata.name(character, "")
    if " LETTER " in name or " SYLLABLE " in name:
        return name.split()[-1].lower()
    return character.encode("unicode_escape", "surrogatepass").decode("ascii")


def distinct_labels(names: Sequence[str]) -> list[str]:
    """The names of categories as labels, numbered where characters are replaced and two could look the same.

    Args:
        names: The names.

    Returns:
        A label for each name.

    Example:
        >>> distinct_labels(["cat", "dog"])
        ['cat', 'dog']
    """
    labels = []
    for i, name in enumerate(names):
        drawable = drawable_text(name)
        labels.append(name if drawable == name else f"{i} {drawable}")
    return labels


def text_width(text: str, size: float, weight: str = "normal", dpi: int = DPI) -> float:
    """The width of a line of text.

    Args:
        text: One line.
        size: Of the font, in points.
        weight: "normal" or "bold".
        dpi: Pixels in an inch. The width depends on it, by some percent: letters are fitted to pixels.

    Returns:
        Inches.
    """
    shown = drawable_text(text)
    families = font_families(shown)
    properties = font_manager.FontProperties(family=families, size=size, weight=_weight(families, weight))
    width, _, _ = RendererAgg(1, 1, dpi).get_text_width_height_descent(shown, properties, False)
    return width / dpi


def shorten_text(text: str, max_width: float, size: float = FONT_SIZE, weight: str = "normal") -> str:
    """The text in one line, cut and ended with an ellipsis where it is too wide.

    Args:
        text: Any text.
        max_width: Inches.
        size: Of the font, in points.
        weight: "normal" or "bold".

    Returns:
        The text, or its beginning and "…".

    Example:
        >>> shorten_text("encoder means", 2.0)
        'encoder means'
        >>> shorten_text("encoder means", 0.5)
        'enco…'
    """
    line = drawable_text(text.replace("\n", " ").strip())
    if len(line) <= MAX_CHARACTERS and text_width(line, size, weight) <= max_width:
        return line
    prefix = line[:MAX_CHARACTERS]
    while prefix and text_width(f"{prefix}…", size, weight) > max_width:
        prefix = prefix[:-1]
    return prefix.rstrip(" ,") + "…"


def wrap_text(
    text: str, max_width: float, size: float = FONT_SIZE, weight: str = "normal", dpi: int = DPI
) -> list[str]:
    """The text in lines of about equal width, as few as fit; a word that is too wide is shortened.

    Args:
        text: Any text.
        max_width: Inches.
        size: Of the font, in points.
        weight: "normal" or "bold".
        dpi: Pixels in an inch.

    Returns:
        The lines; none of an empty text.

    Example:
        >>> wrap_text("one two three four", 0.9)
        ['one two', 'three four']
    """
    words = []
    for word in text.split():
        short = shorten_text(word, 0.95 * max_width, size, weight)
        words.append((short, text_width(short, size, weight, dpi)))
    space = text_width("a b", size, weight, dpi) - text_width("ab", size, weight, dpi)
    lines = _fill_lines(words, space, max_width)
    narrower = 0.98 * max_width
    while narrower > max_width / 2:
        tried = _fill_lines(words, space, narrower)
        if len(tried) > len(lines):
            break
        lines = tried
        narrower -= 0.02 * max_width
    return lines


def _fill_lines(words: Sequence[tuple[str, float]], space: float, max_width: float) -> list[str]:
    """Words with their widths in lines, each as full as possible."""
    lines: list[str] = []
    line_width = 0.0
    for word, width in words:
        if lines and line_width + space + width <= max_width:
            lines[-1] += f" {word}"
            line_width += space + width
        else:
            lines.append(word)
            line_width = width
    return lines


def draw_text(target: Figure | Axes, x: float, y: float, text: str, **style: Any) -> Text:
    """Write a text on a figure or on axes, as it is, in a font that has its characters.

    Args:
        target: The figure, in its own coordinates, or axes, in those of their data.
        x: Where, from left to right.
        y: Where, from below.
        text: What.
        style: Of matplotlib's `text`, in place of the size and colour of figures.

    Returns:
        matplotlib's object.
    """
    shown = drawable_text(text)
    families = font_families(shown)
    options = {"size": FONT_SIZE, "color": TEXT_COLOR, "family": families, "parse_math": False} | style
    options["weight"] = _weight(families, style.get("weight", "normal"))
    return target.text(x, y, shown, **options)
