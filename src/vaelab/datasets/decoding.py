"""Pictures: one file or array of any size and mode -> uint8 pixels of one shape.

Whatever the mode, a picture is turned upright (EXIF, TIFF), flattened onto white where it is transparent, scaled to
eight bits a value, cropped to the aspect about its centre and resized. Grey stays grey unless colour is asked for.

Values of more than eight bits are scaled by the range of all pictures together, since many cameras and scanners store
ten, twelve or fourteen bits in files of sixteen.
"""

from __future__ import annotations

import importlib.util
import io
import os
import sys
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from vaelab.core.console import printable, shown
from vaelab.core.errors import UserError
from vaelab.datasets.files import (
    ReadError,
    WatchedFile,
    as_buffered,
    error_text,
    is_system_failure,
    open_regular,
    read_error,
    read_regular,
    require_memory,
)

if TYPE_CHECKING:
    from PIL.Image import Image as Picture

__all__ = [
    "DEFAULT_RANGES",
    "DecodedImage",
    "HeaderReading",
    "ImageHeader",
    "Levels",
    "UnreadableImage",
    "ValueRanges",
    "choose_ranges",
    "decode_image",
    "merge_levels",
    "read_header",
    "read_images",
    "readable_suffixes",
    "suppress_warnings",
    "unreadable_reason",
]

PLAIN_FORMATS = "png jpg jpeg jpe jfif gif bmp dib tif tiff ppm pgm pbm pnm tga ico"

OPTIONAL_FORMATS = {"webp": "webp", "avif": "avif", "jp2": "jpg_2000", "j2k": "jpg_2000"}  # Pillow's features

HEIC_SUFFIXES = (".heic", ".heif", ".hif")

HEIC_REASON = "HEIC: pip install pi-heif"

RAW_SUFFIXES = frozenset([".cr2", ".cr3", ".nef", ".arw", ".dng", ".raf", ".orf", ".rw2", ".pef", ".srw"])

SWAPPED_SIDES = (5, 6, 7, 8)  # EXIF orientations that turn a picture by a quarter

ORIENTATION, TIFF_WIDTH = 0x0112, 256  # numbers of tags

BIT_DEPTHS = (8, 10, 12, 14, 16)

WORKING_COPIES = 4  # of a picture while it is decoded: as stored, upright, flattened, converted


class ImageHeader(NamedTuple):
    """What a picture's header says: upright (width, height), mode, file format, and whether it is grey."""

    size: tuple[int, int]
    mode: str
    format: str
    grey: bool


class Levels(NamedTuple):
    """The lowest and highest value among pictures of more than eight bits a channel, and how many pictures there are.

    Integers and floats are counted apart.
    """

    integer: tuple[float, float] | None = None
    floating: tuple[float, float] | None = None
    num_images: int = 0


class HeaderReading(NamedTuple):
    """A picture's header, and its range of values where it has more than eight bits a channel."""

    header: ImageHeader
    levels: Levels


class ValueRanges(NamedTuple):
    """The values that become black and white in pictures of more than eight bits a channel."""

    integer: tuple[float, float] = (0.0, 65535.0)
    floating: tuple[float, float] = (0.0, 1.0)


DEFAULT_RANGES = ValueRanges()


class DecodedImage(NamedTuple):
    """A decoded picture: uint8 (C, H, W), and what the C library wrote while it was decoded."""

    pixels: np.ndarray
    message: str


class UnreadableImage(NamedTuple):
    """A picture that is known to be unreadable before it is opened, and why."""

    reason: str


# What can be read.


@cache
def readable_suffixes() -> frozenset[str]:
    """The suffixes of the picture files that can be read here, with the libraries at hand."""
    from PIL import features

    names = PLAIN_FORMATS.split()
    names += [name for name, feature in OPTIONAL_FORMATS.items() if features.check(feature)]
    suffixes = {f".{name}" for name in names}
    if has_heic_reader():
        suffixes.update(HEIC_SUFFIXES)
    return frozenset(suffixes)


def has_heic_reader() -> bool:
    """Whether pi-heif is installed, which reads HEIC pictures."""
    return importlib.util.find_spec("pi_heif") is not None


@cache
def register_formats() -> None:
    """Load all of Pillow's readers, and pi-heif where it is installed."""
    from PIL import Image

    Image.preinit()  # first, since formats are tried in the order in which they were loaded
    Image.init()
    if has_heic_reader():
        import pi_heif  # type: ignore[import-not-found]

        pi_heif.register_heif_opener()


def unreadable_reason(suffix: str) -> str | None:
    """Why files of a suffix cannot be read, where they are known to be pictures; None for other files.

    Args:
        suffix: In small letters, with its dot.
    """
    if suffix in readable_suffixes():
        return None
    if suffix in HEIC_SUFFIXES:
        return HEIC_REASON
    if suffix in RAW_SUFFIXES:
        return "camera raw is not read"
    if suffix in (".svg", ".eps"):
        return "drawing of lines, not a picture of pixels"
    if suffix.removeprefix(".") in OPTIONAL_FORMATS or suffix in (".jxl", ".psd", ".exr"):
        return f"no reader for {suffix}"
    return None


@contextmanager
def suppress_warnings() -> Iterator[None]:
    """Hide Pillow's warnings of large pictures and odd metadata, which a user cannot mend."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


# Headers.


def read_header(picture: Any) -> HeaderReading:
    """The header of a picture, and its values' range where these have more than eight bits.

    Args:
        picture: A path, encoded bytes, or an array (H, W) or (H, W, C) of uint8, bool or float in [0, 1].

    Raises:
        ReadError: The system failed to read it, which may pass.
        Exception: It is no picture; damaged files raise nearly anything in Pillow's decoders.
    """
    if isinstance(picture, np.ndarray):
        with _image_of_array(picture) as image:
            return HeaderReading(ImageHeader(image.size, image.mode, "array", _is_grey(image)), Levels())
    with _opened(picture) as image:
        is_deep = image.mode[0] in "IF" or _has_deep_colour(image)  # first, since to ask a PNG for EXIF decodes it
        header = ImageHeader(_upright_size(image), image.mode, image.format or "array", _is_grey(image))
    return HeaderReading(header, _levels(picture) if is_deep else Levels())


def _upright_size(image: Picture) -> tuple[int, int]:
    """The size after the picture has been turned as its orientation says."""
    swapped = image.getexif().get(ORIENTATION, 1) in SWAPPED_SIDES
    if image.format == "TIFF" and swapped:
        # Pillow turns TIFFs itself when it loads them; whether `size` says so beforehand depends on its version.
        swapped = image.size[0] == getattr(image, "tag_v2", {}).get(TIFF_WIDTH)
    width, height = image.size
    return (height, width) if swapped else (width, height)


def _is_grey(image: Picture) -> bool:
    if image.mode in ("P", "PA"):
        palette = np.array(image.getpalette("RGB")).reshape(-1, 3)
        return bool((palette == palette[:, :1]).all())
    return image.mode[0] in "1LIF" and image.mode != "LAB"


def merge_levels(first: Levels, second: Levels) -> Levels:
    """The levels of the pictures of both together.

    Example:
        >>> merge_levels(Levels((0, 10), None, 1), Levels((5, 4095), None, 2))
        Levels(integer=(0, 4095), floating=None, num_images=3)
    """
    integer = _merge_range(first.integer, second.integer)
    floating = _merge_range(first.floating, second.floating)
    return Levels(integer, floating, first.num_images + second.num_images)


def _merge_range(first: tuple[float, float] | None, second: tuple[float, float] | None) -> tuple[float, float] | None:
    if first is None or second is None:
        return first or second
    return min(first[0], second[0]), max(first[1], second[1])


def choose_ranges(levels: Levels, value_range: tuple[float, float] | None = None) -> ValueRanges:
    """The values that become black and white.

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
    integer, floating = DEFAULT_RANGES
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


# Decoding.


def read_images(paths: Sequence[str | Path], shape: tuple[int, int, int]) -> np.ndarray:
    """Read picture files of any size and mode.

    Args:
        paths: The files.
        shape: (C, H, W) of the pictures wanted; they are cropped to its aspect about their centre and resized.

    Returns:
        The pixels, uint8 (n, C, H, W).

    Raises:
        UserError: A file cannot be read; the message names it.
    """
    pixels = np.empty((len(paths), *shape), np.uint8)
    with suppress_warnings():
        for row, path in zip(pixels, paths, strict=True):
            try:
                ranges = choose_ranges(read_header(Path(path)).levels)
                row[:] = decode_image(Path(path), shape, ranges).pixels
            except Exception as error:  # a damaged file raises nearly anything in Pillow's decoders
                name, cause = shown(path), error.__cause__ or error
                raise UserError(f"{name} cannot be read as a picture: {error_text(cause)}") from error
    return pixels


def decode_image(
    picture: Any, shape: tuple[int, int, int], ranges: ValueRanges = DEFAULT_RANGES, share_of_memory: float = 1.0
) -> DecodedImage:
    """Decode a picture, crop it to the aspect about its centre and resize it where its size differs.

    Args:
        picture: A path, encoded bytes, or an array (H, W) or (H, W, C) of uint8, bool or float in [0, 1].
        shape: (C, H, W) of the result.
        ranges: The values that become black and white where there are more than eight bits a channel.
        share_of_memory: The share of the free memory that this process may take.

    Returns:
        The pixels, uint8 (C, H, W), and what the C library wrote to standard error meanwhile.

    Raises:
        ReadError: The system failed to read it, or it would take too much memory.
        Exception: It cannot be decoded; damaged files raise nearly anything in Pillow's decoders.
    """
    channels, height, width = shape
    if isinstance(picture, np.ndarray):
        with _image_of_array(picture) as image:
            return DecodedImage(_resized(_to_l_or_rgb(image, ranges), channels, height, width), "")
    # Read as a whole first: a C library that reads by itself would turn an error of the disk into a verdict.
    encoded = _read_bytes(picture) if isinstance(picture, Path) else picture
    with _opened(encoded, name=picture) as image:
        draft_side = 2 * max(height, width)
        image.draft(image.mode, (draft_side, draft_side))  # a large JPEG need not be decoded in full
        _require_image_memory(image, picture, share_of_memory)
        if _has_deep_colour(image) and ranges.integer != DEFAULT_RANGES.integer:
            return DecodedImage(_resized(_scaled_colour(image, ranges), channels, height, width), "")
        message = _load_image(image)
        return DecodedImage(_resized(_to_l_or_rgb(image, ranges), channels, height, width), message)


def _read_bytes(path: Path) -> bytes:
    try:
        return read_regular(path)
    except (OSError, MemoryError) as error:
        raise read_error(path, error) from error


@contextmanager
def _opened(picture: Any, name: Any = None) -> Iterator[Picture]:
    """Open a path or encoded bytes; failures of the system inside are told from verdicts of the decoder."""
    from PIL import Image

    register_formats()
    if picture is None:
        raise ValueError("empty")
    if isinstance(picture, UnreadableImage):
        raise ValueError(picture.reason)
    place = name if isinstance(name, Path) else picture if isinstance(picture, Path) else "a picture of the table"
    watched: WatchedFile | None = None
    try:
        if isinstance(picture, Path):
            watched = open_regular(picture)
            source = as_buffered(watched)
        else:
            source = io.BytesIO(picture)
        with source, Image.open(source) as image:
            yield image
    except ReadError:
        raise
    except Exception as error:
        failure = watched.failure if watched is not None else None
        if failure is not None or is_system_failure(error):
            raise read_error(place, failure or error) from error
        raise


def _image_of_array(array: np.ndarray) -> Picture:
    """An array (H, W) or (H, W, C) of uint8, truth values or floats in [0, 1] as a picture."""
    from PIL import Image

    levels = array if array.dtype == np.uint8 else np.rint(array * 255.0).astype(np.uint8)
    return Image.fromarray(levels[..., 0] if levels.ndim == 3 and levels.shape[2] == 1 else levels)


def _require_image_memory(image: Picture, picture: Any, share: float) -> None:
    """Refuse a picture that takes more memory than is free, before it is decoded."""
    width, height = image.size
    bytes_per_pixel = 8 if image.mode[0] in "IF" else 4
    needed = width * height * bytes_per_pixel * WORKING_COPIES
    name = shown(picture) if isinstance(picture, Path) else "a picture of the table"
    require_memory(int(needed / share), name, f"{width} x {height} pixels")


def _load_image(image: Picture) -> str:
    """Decode a picture; returns what the C library wrote to standard error, which names no file."""
    if image.format != "TIFF":
        image.load()
        return ""
    with tempfile.TemporaryFile() as messages:
        try:
            with _native_stderr_to(messages.fileno()):
                image.load()
        except Exception as error:
            detail = _first_line(messages)
            if detail and not is_system_failure(error):
                raise ValueError(f"{error_text(error)}: {detail}") from error
            raise
        return _first_line(messages)


@contextmanager
def _native_stderr_to(descriptor: int) -> Iterator[None]:
    """Send what C libraries write to standard error to another file; nothing where standard error is closed."""
    if sys.stderr is not None and not getattr(sys.stderr, "closed", False):
        sys.stderr.flush()
    try:
        saved = os.dup(2)
    except OSError:
        yield
        return
    try:
        os.dup2(descriptor, 2)
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)


def _first_line(messages: Any) -> str:
    messages.seek(0)
    line = messages.readline(500).decode(errors="replace").strip()
    return printable(line.replace("tempfile.tif: ", ""))


def _to_l_or_rgb(image: Picture, ranges: ValueRanges) -> Picture:
    """The first frame of a picture of any mode, upright, flattened onto white, as mode L or RGB."""
    from PIL import Image, ImageOps

    if image.mode[0] in "IF":
        image = ImageOps.exif_transpose(image)
        return _scaled_grey(image, ranges.integer if image.mode[0] == "I" else ranges.floating)
    image = ImageOps.exif_transpose(image)
    grey = _is_grey(image)
    if image.mode == "La":
        image = image.convert("LA")
    if image.has_transparency_data:
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image.convert("RGBA"))
    return image.convert("L" if grey else "RGB")


def _resized(image: Picture, channels: int, height: int, width: int) -> np.ndarray:
    """A picture as uint8 (C, H, W), cropped to the aspect about its centre and resized where its size differs."""
    from PIL import Image

    if image.size != (width, height):
        # Cropped before, not while resizing, so that nothing beyond the edge leaks in.
        scale = min(image.width / width, image.height / height)
        crop_width, crop_height = max(1, round(width * scale)), max(1, round(height * scale))
        left, top = (image.width - crop_width) // 2, (image.height - crop_height) // 2
        box = (left, top, left + crop_width, top + crop_height)
        image = image.crop(box).resize((width, height), Image.Resampling.LANCZOS)
    pixels = np.asarray(image.convert("L" if channels == 1 else "RGB"))
    return np.ascontiguousarray(pixels.reshape(height, width, channels).transpose(2, 0, 1))


# More than eight bits a channel.


def _levels(picture: Any) -> Levels:
    """The range of values of a picture with more than eight bits a channel, which is decoded for it."""
    encoded = _read_bytes(picture) if isinstance(picture, Path) else picture
    with _opened(encoded, name=picture) as image:
        _require_image_memory(image, picture, 1.0)
        values = _visible_values(image)
        if values is None or not values.size:
            return Levels()
        low, high = float(values.min()), float(values.max())
        if not (np.isfinite(low) and np.isfinite(high)):
            raise ValueError("not finite: values that are no numbers")
        return Levels(None, (low, high), 1) if image.mode[0] == "F" else Levels((low, high), None, 1)


def _visible_values(image: Picture) -> np.ndarray | None:
    """The values of a picture without those declared transparent; None where its form hides them."""
    if _has_deep_colour(image):
        values = _deep_colour_values(image)
        return None if values is None else values[..., :3]
    _load_image(image)
    values = _grey_values(image)
    return values[~_transparent(image, values)]


def _grey_values(image: Picture) -> np.ndarray:
    return np.asarray(image).astype(np.float64)


def _transparent(image: Picture, values: np.ndarray) -> np.ndarray:
    """A mask of the values that the file declares transparent (tRNS of PNG)."""
    key = image.info.get("transparency")
    return values == key if isinstance(key, int) else np.zeros(values.shape, bool)


def _scaled_grey(image: Picture, value_range: tuple[float, float]) -> Picture:
    """A grey picture of 16 or 32 bits or floats as mode L, with what is transparent white."""
    from PIL import Image

    values = _grey_values(image)
    levels = _scale(values, value_range)
    levels[_transparent(image, values)] = 255
    return Image.fromarray(levels)


def _scale(values: np.ndarray, value_range: tuple[float, float]) -> np.ndarray:
    """Values as uint8, with the range as 0 to 255; what lies beyond is black or white."""
    low, high = value_range
    scaled = (values - low) / ((high - low) / 255)
    return np.rint(scaled.clip(0, 255)).astype(np.uint8)


def _has_deep_colour(image: Picture) -> bool:
    """Whether a PNG or TIFF has 16 bits a channel, of which Pillow keeps the upper eight alone."""
    tiles = getattr(image, "tile", None)
    return image.mode in ("RGB", "RGBA") and bool(tiles) and ";16" in _raw_mode(tiles[0])


def _raw_mode(tile: Any) -> str:
    """How the values of a tile are stored, in Pillow's words."""
    arguments = tile[3]
    mode = arguments[0] if isinstance(arguments, tuple) and arguments else arguments
    return mode if isinstance(mode, str) else ""


def _deep_colour_values(image: Picture) -> np.ndarray | None:
    """All 16 bits of a colour picture, (H, W, C) as float64; None where its form hides them.

    Pillow decodes either byte of big-endian values where it is told so: it has a raw mode for both orders.
    """
    upper = _decoded_as(image, "B")
    lower = _decoded_as(image, "L")
    if upper is None or lower is None:
        return None
    return upper.astype(np.float64) * 256 + lower


def _decoded_as(image: Picture, order: str) -> np.ndarray | None:
    """One byte of each value of a big-endian PNG with 16 bits a channel: the upper ("B") or the lower ("L")."""
    from PIL import Image

    stream = getattr(image, "fp", None)
    if image.format != "PNG" or stream is None:
        return None
    position = stream.tell()
    stream.seek(0)
    copy = Image.open(io.BytesIO(stream.read()))
    stream.seek(position)
    tile: Any = copy.tile[0]  # type: ignore[attr-defined]
    copy.tile = [tile._replace(args=f"{image.mode};16{order}")]  # type: ignore[attr-defined]
    return np.asarray(copy)


def _scaled_colour(image: Picture, ranges: ValueRanges) -> Picture:
    """A colour picture of 16 bits a channel as mode RGB, upright and flattened onto white."""
    from PIL import Image

    values = _deep_colour_values(image)
    orientation = image.getexif().get(ORIENTATION, 1)
    if values is None:
        return _to_l_or_rgb(image, ranges)
    levels = _scale(values, ranges.integer)
    if image.mode == "RGBA":
        levels[..., 3] = _scale(values[..., 3], DEFAULT_RANGES.integer)
    scaled = Image.fromarray(levels)
    scaled.getexif()[ORIENTATION] = orientation
    return _to_l_or_rgb(scaled, ranges)
