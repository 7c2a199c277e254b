"""Pictures of more than eight bits a channel: their values in full.

Pillow keeps the upper byte alone of colours of 16 bits. It decodes either byte where it is told another order of bytes,
and both together are the values. Where neither way is open, the upper byte is what there is, and it is said.

Values are scaled by the range of all pictures together, since many cameras and scanners store ten, twelve or fourteen
bits in files of sixteen.
"""

from __future__ import annotations

import io
import re
import sys
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from vaelab.datasets.files import UnusableImageError

if TYPE_CHECKING:
    from PIL.Image import Image as Picture

__all__ = [
    "DEFAULT_RANGES",
    "DeepPixels",
    "Levels",
    "ValueRanges",
    "ValueSpan",
    "choose_ranges",
    "declared_bits",
    "deep_pixels",
    "grey_with_alpha",
    "has_deep_values",
    "is_reduced",
    "merge_spans",
    "scale_values",
    "scaled_picture",
]

BIT_DEPTHS = (8, 10, 12, 14, 16)

BITS, PHOTOMETRIC, PLANAR = 258, 262, 284  # numbers of tags of TIFF

WHITE_IS_ZERO, SEPARATE_PLANES = 0, 2  # values of these tags

FULL = 65535  # the highest value of 16 bits

HEAD_BYTES = 65536  # in which files say how many bits they have


# Ranges of values.


class ValueSpan(NamedTuple):
    """The lowest and highest value of a picture, or of an array of them.

    Args:
        kind: "integer" or "floating".
        low: The lowest value.
        high: The highest value.
        whole: Whether all values are whole numbers.
    """

    kind: str
    low: float
    high: float
    whole: bool = True


class Levels(NamedTuple):
    """The lowest and highest value among pictures of more than eight bits a channel, integers and floats apart."""

    integer: tuple[float, float] | None = None
    floating: tuple[float, float] | None = None


class ValueRanges(NamedTuple):
    """The values that become black and white, of integers and floats of more than eight bits a channel, and of bytes.

    Bytes stay as they are without a range. Only those of arrays have one, since they do not say what is white.
    """

    integer: tuple[float, float] = (0.0, float(FULL))
    floating: tuple[float, float] = (0.0, 1.0)
    byte: tuple[float, float] | None = None


DEFAULT_RANGES = ValueRanges()


def merge_spans(spans: list[ValueSpan]) -> Levels:
    """The levels of several pictures together.

    Example:
        >>> merge_spans([ValueSpan("integer", 0, 10), ValueSpan("integer", 5, 4095)])
        Levels(integer=(0, 4095), floating=None)
    """
    ranges = {}
    for kind in ("integer", "floating"):
        members = [span for span in spans if span.kind == kind]
        if members:
            ranges[kind] = min(span.low for span in members), max(span.high for span in members)
    return Levels(**ranges)


def choose_ranges(levels: Levels, value_range: tuple[float, float] | None = None) -> ValueRanges:
    """The values that become black and white in pictures.

    Integers are taken to have the smallest usual number of bits (8, 10, 12, 14 or 16) that holds the highest of them.
    Floats are taken as [0, 1] or [0, 255] where they keep to it. Other values are scaled from the lowest to the
    highest.

    Args:
        levels: The lowest and highest values of all pictures together.
        value_range: The range where it is given, for integers and floats alike.

    Example:
        >>> choose_ranges(Levels(integer=(3.0, 4000.0))).integer
        (0.0, 4095.0)
    """
    if value_range is not None:
        return ValueRanges(value_range, value_range)
    integer, floating, _ = DEFAULT_RANGES
    if levels.integer is not None and levels.integer[1] != 0:
        integer = _integer_range(*levels.integer)
    if levels.floating is not None:
        floating = _floating_range(*levels.floating)
    return ValueRanges(integer, floating)


def _integer_range(low: float, high: float) -> tuple[float, float]:
    if low >= 0:
        for bits in BIT_DEPTHS:
            if high < 2**bits:
                return 0.0, float(2**bits - 1)
    return low, max(high, low + 1)


def _floating_range(low: float, high: float) -> tuple[float, float]:
    for white in (1.0, 255.0):
        if low >= 0 and high <= white:
            return 0.0, white
    return low, high if high > low else low + 1


def scale_values(values: np.ndarray, value_range: tuple[float, float]) -> np.ndarray:
    """Values as uint8, with the range as 0 to 255; what lies beyond is black or white.

    Example:
        >>> scale_values(np.array([0, 4095, 9000]), (0, 4095))
        array([  0, 255, 255], dtype=uint8)
    """
    low, high = value_range
    if values.dtype == np.uint16:  # a table of all values is quicker, and takes less memory
        return scale_values(np.arange(FULL + 1), value_range)[values]
    scaled = (values.astype(np.float64) - low) / ((high - low) / 255)
    return np.rint(scaled.clip(0, 255)).astype(np.uint8)


# Values of pictures.


class DeepPixels(NamedTuple):
    """The values of a picture, upright.

    Args:
        values: Grey (H, W) or colour (H, W, 3), as integers or floats.
        alpha: uint8 (H, W), 0 where it is transparent; None where nothing is.
        white_is_zero: Whether low values are white.
    """

    values: np.ndarray
    alpha: np.ndarray | None = None
    white_is_zero: bool = False

    @property
    def span(self) -> ValueSpan | None:
        """The lowest and highest value of what is visible; None where nothing is.

        Raises:
            UnusableImageError: A value is no number.
        """
        visible = self.values if self.alpha is None else self.values[self.alpha > 0]
        if not visible.size:
            return None
        low, high = float(visible.min()), float(visible.max())
        if not (np.isfinite(low) and np.isfinite(high)):
            raise UnusableImageError("not finite: values that are no numbers")
        return ValueSpan("floating" if self.values.dtype.kind == "f" else "integer", low, high)


def has_deep_values(image: Picture) -> bool:
    """Whether a picture that was just opened has values of more than eight bits that can be read in full."""
    return image.mode[0] in "IF" or _deep_form(image) not in ("", "reduced")


def grey_with_alpha(image: Picture) -> bool:
    """Whether a PNG that was just opened is grey with alpha, 16 bits each, which Pillow opens as colour."""
    return _raw_mode(image).startswith("LA;16")


def is_reduced(image: Picture) -> bool:
    """Whether a picture that was just opened has more than eight bits a channel, of which the lower ones are lost."""
    return image.mode[0] not in "IF" and _deep_form(image) == "reduced"


def _deep_form(image: Picture) -> str:
    """How a colour picture stores values of more than eight bits; "" where it has none, "reduced" where Pillow cuts."""
    if image.format == "PNG":
        raw_mode = _raw_mode(image)
        return "png" if raw_mode.endswith(";16B") else ""
    if image.format == "TIFF":
        return _tiff_form(image)
    if image.format == "PPM":
        return "ppm" if image.mode == "RGB" and _highest_of_ppm(_head(image)) > 255 else ""
    if image.format in ("JPEG2000", "AVIF", "HEIF"):
        return "reduced" if declared_bits(_head(image)) > 8 else ""
    return ""


def _tiff_form(image: Picture) -> str:
    tags: Any = getattr(image, "tag_v2", {})
    bits = tags.get(BITS, (8,))
    if max(bits if isinstance(bits, tuple) else (bits,)) <= 8:
        return ""
    tiles: Any = getattr(image, "tile", ())
    is_colour = image.mode in ("RGB", "RGBA")
    if tags.get(PLANAR) != SEPARATE_PLANES:
        return "tiff" if is_colour and ";16" in _raw_mode(image) else "reduced"
    if not tiles or tiles[0][0] != "raw":
        return "reduced"
    if not is_colour:  # Pillow would take each byte for a value
        raise UnusableImageError("no reader for TIFF with more than 8 bits a channel in separate planes")
    return "planes"


def _raw_mode(image: Picture) -> str:
    """How the values of the first tile are stored, in Pillow's words."""
    tiles: Any = getattr(image, "tile", ())
    arguments = tiles[0][3] if tiles else ""
    mode = arguments[0] if isinstance(arguments, tuple) and arguments else arguments
    return mode if isinstance(mode, str) else ""


def _head(image: Picture) -> bytes:
    """The first bytes of the file of a picture that was just opened."""
    stream = getattr(image, "fp", None)
    if stream is None:
        return b""
    position = stream.tell()
    stream.seek(0)
    head = stream.read(HEAD_BYTES)
    stream.seek(position)
    return head


def declared_bits(head: bytes) -> int:
    """The bits a channel that the header of a JPEG 2000, AVIF or HEIF file declares; 8 where it says nothing.

    Source: ISO 15444-1, A.5.1 (SIZ); ISO 23008-12, 6.5.6 (pixi).
    """
    sizes = head.find(b"\xff\x4f\xff\x51")
    if sizes >= 0 and len(head) > sizes + 42:
        return (head[sizes + 42] & 0x7F) + 1
    pixels = head.find(b"pixi")
    if pixels >= 0 and len(head) > pixels + 9:
        return head[pixels + 9]
    return 8


PPM_HEADER = re.compile(rb"P[36](?:\s|#[^\n]*\n)+(\d+)(?:\s|#[^\n]*\n)+(\d+)(?:\s|#[^\n]*\n)+(\d+)\s")


def _highest_of_ppm(head: bytes) -> int:
    match = PPM_HEADER.match(head)
    return int(match[3]) if match else 0


def deep_pixels(image: Picture, encoded: bytes) -> DeepPixels | None:
    """The values of a picture with more than eight bits a channel.

    Args:
        image: The picture, opened and not decoded.
        encoded: The content of its file.

    Returns:
        The values; None where the picture has no more than eight bits, or they cannot be had.

    Raises:
        Exception: It cannot be decoded.
    """
    form = _deep_form(image)
    if image.mode[0] in "IF":
        return _grey_pixels(image)
    if form == "ppm":
        return _ppm_pixels(encoded)
    if form == "png":
        return _png_pixels(image, encoded)
    return _tiff_pixels(image, encoded, form) if form in ("tiff", "planes") else None


def _grey_pixels(image: Picture) -> DeepPixels:
    from PIL import ImageOps

    tags: Any = getattr(image, "tag_v2", {})
    white_is_zero = image.format == "TIFF" and tags.get(PHOTOMETRIC) == WHITE_IS_ZERO
    key = image.info.get("transparency")  # tRNS of PNG
    values = np.asarray(ImageOps.exif_transpose(image))
    alpha = np.where(values == key, 0, 255).astype(np.uint8) if isinstance(key, int) else None
    return DeepPixels(values, alpha, white_is_zero)


def _png_pixels(image: Picture, encoded: bytes) -> DeepPixels:
    """A PNG with 16 bits a channel and colour or alpha. Its values have the upper byte first."""
    if _raw_mode(image).startswith("LA"):
        planes = _decoded_as(encoded, "RGBA", "RGBA").astype(np.uint16)  # four bytes a pixel all the same
        return DeepPixels(planes[..., 0] * 256 + planes[..., 1], planes[..., 2].astype(np.uint8))
    upper = _decoded_as(encoded, image.mode, f"{image.mode};16B").astype(np.uint16)
    lower = _decoded_as(encoded, image.mode, f"{image.mode};16L")
    values = upper * 256 + lower
    if image.mode == "RGBA":
        return DeepPixels(values[..., :3], upper[..., 3].astype(np.uint8))
    key = image.info.get("transparency")
    if isinstance(key, tuple):
        is_clear = (values == np.array(key, np.uint16)).all(axis=-1)
        return DeepPixels(values, np.where(is_clear, 0, 255).astype(np.uint8))
    return DeepPixels(values)


def _tiff_pixels(image: Picture, encoded: bytes, form: str) -> DeepPixels:
    """A TIFF with 16 bits a channel and colour."""
    raw_mode = _raw_mode(image)
    if form == "planes":
        stored_order = "B" if encoded.startswith(b"MM") else "L"
        base = ""
    else:
        stored_order = raw_mode[-1] if raw_mode[-1] in "BL" else "L" if sys.byteorder == "little" else "B"
        base = raw_mode.partition(";")[0].replace("a", "A")  # as stored: it is divided by alpha below
    other_order = "L" if stored_order == "B" else "B"
    upper = _decoded_as(encoded, image.mode, f"{base};16{stored_order}").astype(np.uint16)
    lower = _decoded_as(encoded, image.mode, f"{base};16{other_order}")
    values = upper * 256 + lower
    if image.mode != "RGBA":
        return DeepPixels(values[..., :3])
    colours, opacity = values[..., :3], values[..., 3:]
    if "a" in raw_mode:
        divided = colours.astype(np.float64) * FULL / np.maximum(opacity, 1)
        colours = np.rint(divided.clip(0, FULL)).astype(np.uint16)
    return DeepPixels(colours, scale_values(opacity[..., 0], (0, FULL)))


def _decoded_as(encoded: bytes, mode: str, raw_mode: str) -> np.ndarray:
    """The picture decoded as if its values were stored in another way; upright, (H, W, C) of bytes.

    A raw mode such as ";16B" is that of each tile, which then holds one channel.
    """
    from PIL import Image, ImageOps

    copy: Any = Image.open(io.BytesIO(encoded))
    copy._mode = mode
    tiles = []
    for tile in copy.tile:
        is_tuple = isinstance(tile[3], tuple)
        its_mode = f"{tile[3][0]}{raw_mode}" if raw_mode.startswith(";") else raw_mode
        tiles.append(tile._replace(args=(its_mode, *tile[3][1:]) if is_tuple else its_mode))
    copy.tile = tiles
    copy.load()
    return np.asarray(ImageOps.exif_transpose(copy))


def _ppm_pixels(encoded: bytes) -> DeepPixels:
    """A PPM whose highest value is above 255. Values are brought to 16 bits, as Pillow does with grey ones."""
    header = PPM_HEADER.match(encoded)
    assert header is not None
    width, height, highest = (int(number) for number in header.groups())
    count = width * height * 3
    if encoded.startswith(b"P6"):
        values = np.frombuffer(encoded, ">u2", count, header.end())
    else:
        words = re.sub(rb"#[^\n]*", b"", encoded[header.end() :]).split(maxsplit=count)[:count]
        if not all(word.isdigit() and len(word) < 7 for word in words):
            raise UnusableImageError("damaged: it does not hold numbers alone")
        values = np.array(words, dtype=np.int64)
    if values.size < count or values.max(initial=0) > highest:
        raise UnusableImageError("damaged: the file is cut off, or holds a value above the highest")
    scaled = np.rint(values.astype(np.float64) * (FULL / highest)).astype(np.uint16)
    return DeepPixels(scaled.reshape(height, width, 3))


def scaled_picture(pixels: DeepPixels, ranges: ValueRanges) -> Picture:
    """Values as a picture of eight bits, mode L or RGB, flattened onto white where it is transparent."""
    from PIL import Image

    levels = scale_values(pixels.values, ranges.floating if pixels.values.dtype.kind == "f" else ranges.integer)
    picture = Image.fromarray(255 - levels if pixels.white_is_zero else levels)
    if pixels.alpha is None:
        return picture
    white = Image.new(picture.mode, picture.size, "white")
    return Image.composite(picture, white, Image.fromarray(pixels.alpha))
