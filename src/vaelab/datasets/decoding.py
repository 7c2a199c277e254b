"""Pictures: one file or array of any size and mode -> uint8 pixels of one shape.

Whatever the mode, a picture is turned upright (EXIF, TIFF), flattened onto white where it is transparent, scaled to
eight bits a value, cropped to the aspect about its centre and resized. Grey stays grey unless colour is asked for.

`depth` has what is special about values of more than eight bits.
"""

from __future__ import annotations

import importlib.util
import io
import os
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, NamedTuple, TypeVar

import numpy as np

from vaelab.core.console import printable, shown
from vaelab.core.errors import UserError
from vaelab.datasets.depth import (
    DEFAULT_RANGES,
    ValueRanges,
    ValueSpan,
    choose_ranges,
    deep_pixels,
    grey_with_alpha,
    has_deep_values,
    is_reduced,
    merge_spans,
    scale_values,
    scaled_picture,
)
from vaelab.datasets.files import (
    NotRegularError,
    ReadError,
    UnusableImageError,
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
    "DecodedImage",
    "HeaderReading",
    "ImageHeader",
    "UnreadableImage",
    "decode_image",
    "read_header",
    "read_images",
    "readable_suffixes",
    "suppress_warnings",
    "unreadable_reason",
    "verdict_text",
]

PLAIN_FORMATS = "png jpg jpeg jpe jfif gif bmp dib tif tiff ppm pgm pbm pnm tga ico"

OPTIONAL_FORMATS = {"webp": "webp", "avif": "avif", "jp2": "jpg_2000", "j2k": "jpg_2000"}  # Pillow's features

HEIC_SUFFIXES = (".heic", ".heif", ".hif")

HEIC_REASON = "HEIC: pip install pi-heif"

RAW_SUFFIXES = frozenset([".cr2", ".cr3", ".nef", ".arw", ".dng", ".raf", ".orf", ".rw2", ".pef", ".srw"])

SWAPPED_SIDES = (5, 6, 7, 8)  # EXIF orientations that turn a picture by a quarter

ORIENTATION, TIFF_WIDTH = 0x0112, 256  # numbers of tags

WORKING_COPIES = 4  # of a picture while it is decoded: as stored, upright, flattened, converted


Result = TypeVar("Result")


class ImageHeader(NamedTuple):
    """What a picture's header says: upright (width, height), mode, file format, and whether it is grey."""

    size: tuple[int, int]
    mode: str
    format: str
    grey: bool


class HeaderReading(NamedTuple):
    """What is known of a picture before it is decoded.

    Args:
        header: Its header.
        span: Its lowest and highest value where it has more than eight bits a channel, which can be read.
        is_reduced: Whether it has more than eight bits a channel, of which the upper ones alone can be read.
        has_more_frames: Whether the file holds several pictures, of which the first one is read.
    """

    header: ImageHeader
    span: ValueSpan | None = None
    is_reduced: bool = False
    has_more_frames: bool = False


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
    """The header of a picture, and its range of values where these have more than eight bits.

    Args:
        picture: A path, encoded bytes, or an array (H, W) or (H, W, C) of numbers.

    Raises:
        ReadError: The system failed to read it, which may pass.
        Exception: It is no picture; damaged files raise nearly anything in Pillow's decoders.
    """
    if isinstance(picture, np.ndarray):
        with _image_of_array(picture, DEFAULT_RANGES) as image:
            return HeaderReading(ImageHeader(image.size, image.mode, "array", _is_grey(image)))
    with _opened(picture) as image:
        is_deep = has_deep_values(image)  # first, since to ask a PNG for EXIF decodes it
        reduced = is_reduced(image)
        grey = _is_grey(image)
        header = ImageHeader(_upright_size(image), image.mode, image.format or "array", grey)
        has_more_frames = _has_more_frames(image)
    return HeaderReading(header, _value_span(picture) if is_deep else None, reduced, has_more_frames)


def _has_more_frames(image: Picture) -> bool:
    """Whether a file is animated or has several pages. Phones store a smaller copy beside a JPEG, which is no page."""
    try:
        return image.format != "MPO" and bool(getattr(image, "is_animated", False))
    except Exception:  # of a page that is damaged, which is not read
        return True


def _value_span(picture: Any) -> ValueSpan | None:
    """The range of values of a picture with more than eight bits a channel, which is decoded for it."""
    encoded = _read_bytes(picture) if isinstance(picture, Path) else picture
    with _opened(encoded, name=picture) as image:
        _require_image_memory(image, picture, 1.0)
        pixels, _ = _quietly(image, lambda: deep_pixels(image, bytes(encoded)))
    return pixels.span if pixels is not None else None


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
    if image.format == "PNG" and image.mode == "RGBA":
        return grey_with_alpha(image)
    return image.mode[0] in "1LIF" and image.mode != "LAB"


# Decoding.


def read_images(
    paths: Sequence[str | Path],
    shape: tuple[int, int, int],
    run_ranges: Callable[[], Mapping[str, tuple[float, float]]] = dict,
) -> np.ndarray:
    """Read picture files of any size and mode.

    Args:
        paths: The files.
        shape: (C, H, W) of the pictures wanted; they are cropped to its aspect about their centre and resized.
        run_ranges: Gives the values that become black and white of "integer" and "floating" values, those of the data
            of a run; it is asked where a file has more than eight bits a channel. What it does not say, all files
            together suggest.

    Returns:
        The pixels, uint8 (n, C, H, W).

    Raises:
        UserError: A file cannot be read; the message names it.
    """
    pixels = np.empty((len(paths), *shape), np.uint8)
    with suppress_warnings():
        spans = [span for path in paths if (span := _named(path, read_header, Path(path)).span) is not None]
        ranges = choose_ranges(merge_spans(spans))._replace(**(run_ranges() if spans else {}))
        for row, path in zip(pixels, paths, strict=True):
            row[:] = _named(path, decode_image, Path(path), shape, ranges).pixels
    return pixels


def _named(path: str | Path, function: Callable[..., Result], *arguments: Any) -> Result:
    """The result of reading a file; its errors name it."""
    try:
        return function(*arguments)
    except Exception as error:  # a damaged file raises nearly anything in Pillow's decoders
        cause = error if isinstance(error, UnusableImageError) else error.__cause__ or error
        raise UserError(f"{shown(path)} cannot be read as a picture: {verdict_text(cause)}") from error


def decode_image(
    picture: Any, shape: tuple[int, int, int], ranges: ValueRanges = DEFAULT_RANGES, share_of_memory: float = 1.0
) -> DecodedImage:
    """Decode a picture, crop it to the aspect about its centre and resize it where its size differs.

    Args:
        picture: A path, encoded bytes, or an array (H, W) or (H, W, C) of numbers.
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
        with _image_of_array(picture, ranges) as image:
            return DecodedImage(_resized(_to_l_or_rgb(image), channels, height, width), "")
    # Read as a whole first: a C library that reads by itself would turn an error of the disk into a verdict.
    encoded = _read_bytes(picture) if isinstance(picture, Path) else picture
    with _opened(encoded, name=picture) as image:
        draft_side = 2 * max(height, width)
        image.draft(image.mode, (draft_side, draft_side))  # a large JPEG need not be decoded in full
        _require_image_memory(image, picture, share_of_memory)
        if has_deep_values(image):
            pixels, message = _quietly(image, lambda: deep_pixels(image, bytes(encoded)))
            upright = scaled_picture(pixels, ranges) if pixels is not None else _to_l_or_rgb(image)
        else:
            _, message = _quietly(image, image.load)
            upright = _to_l_or_rgb(image)
        return DecodedImage(_resized(upright, channels, height, width), message)


def _read_bytes(path: Path) -> bytes:
    try:
        return read_regular(path)
    except (OSError, MemoryError) as error:
        raise read_error(path, error) from error


@contextmanager
def _opened(picture: Any, name: Any = None) -> Iterator[Picture]:
    """Open a path or encoded bytes; failures of the system inside are told from verdicts of the decoder."""
    register_formats()
    if picture is None:
        raise UnusableImageError("empty")
    if isinstance(picture, UnreadableImage):
        raise UnusableImageError(picture.reason)
    place = name if isinstance(name, Path) else picture if isinstance(picture, Path) else "a picture of the table"
    watched: WatchedFile | None = None
    try:
        if isinstance(picture, Path):
            watched = open_regular(picture)
            source = as_buffered(watched)
        else:
            source = io.BytesIO(picture)
        with source, _identified(source) as image:
            yield image
    except ReadError:
        raise
    except Exception as error:
        failure = watched.failure if watched is not None else None
        if failure is not None or is_system_failure(error):
            raise read_error(place, failure or error) from error
        raise


def _identified(source: IO[bytes]) -> Picture:
    """The picture in a file, not yet decoded.

    Raises:
        UnusableImageError: No reader knows it; the reason says what it is instead.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        return Image.open(source)
    except UnidentifiedImageError as error:
        source.seek(0)
        raise UnusableImageError(content_reason(source.read(SIGNATURE_BYTES))) from error


SIGNATURE_BYTES = 256

# What files are that no reader knows, by their first bytes in small letters.
SIGNATURES = (
    ((b"<!doctype html", b"<html"), "a web page, not a picture"),
    ((b"version https://git-lfs",), "a pointer of Git LFS, not the picture itself"),
    ((b"<svg", b"<?xml", b"%!ps"), "drawing of lines, not a picture of pixels"),
    ((b"%pdf",), "a document, not a picture"),
    ((b"pk\x03\x04", b"\x1f\x8b", b"rar!", b"7z\xbc\xaf"), "an archive, not a picture"),
    ((b"\x89png",), "damaged, or a form of PNG that is not read"),
    ((b"\xff\xd8\xff",), "damaged, or a form of JPEG that is not read"),
    ((b"ii*\0", b"mm\0*", b"ii+\0", b"mm\0+"), "damaged, or a form of TIFF that is not read"),
    ((b"gif8",), "damaged, or a form of GIF that is not read"),
    ((b"bm",), "damaged, or a form of BMP that is not read"),
    ((b"riff",), "damaged, or a form of WebP that is not read"),
)

HEIC_BRANDS = (b"heic", b"heix", b"hevc", b"mif1", b"msf1")


def content_reason(head: bytes) -> str:
    """What a file is that no reader knows.

    Args:
        head: Its first bytes.

    Example:
        >>> content_reason(b"<!DOCTYPE html><html>"), content_reason(b"words")
        ('a web page, not a picture', 'not a picture')
    """
    if not head:
        return "empty"
    if head[4:8] == b"ftyp":
        if head[8:12] in HEIC_BRANDS and not has_heic_reader():
            return HEIC_REASON
        return "damaged, or a form of HEIC or AVIF that is not read"
    start = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    for signs, reason in SIGNATURES:
        if start.startswith(signs):
            return reason
    return "not a picture"


def verdict_text(error: BaseException) -> str:
    """The reason why a picture cannot be used: ours, or what a decoder says of a damaged file."""
    is_ours = isinstance(error, UnusableImageError | NotRegularError | UserError)
    is_size = type(error).__name__ == "DecompressionBombError"
    return error_text(error) if is_ours or is_size or is_system_failure(error) else f"damaged: {error_text(error)}"


def _image_of_array(array: np.ndarray, ranges: ValueRanges) -> Picture:
    """An array (H, W) or (H, W, C) of numbers or truth values as a picture."""
    from PIL import Image

    levels = _levels_of_array(array, ranges)
    return Image.fromarray(levels[..., 0] if levels.ndim == 3 and levels.shape[2] == 1 else levels)


def _levels_of_array(array: np.ndarray, ranges: ValueRanges) -> np.ndarray:
    if array.dtype == np.bool_:
        return array.astype(np.uint8) * 255
    if array.dtype == np.uint8:
        return array if ranges.byte is None else scale_values(array, ranges.byte)
    return scale_values(array, ranges.floating if array.dtype.kind == "f" else ranges.integer)


def _require_image_memory(image: Picture, picture: Any, share: float) -> None:
    """Refuse a picture that takes more memory than is free, before it is decoded."""
    width, height = image.size
    bytes_per_pixel = 8 if has_deep_values(image) else 4
    needed = width * height * bytes_per_pixel * WORKING_COPIES
    name = shown(picture) if isinstance(picture, Path) else "a picture of the table"
    require_memory(int(needed / share), name, f"{width} x {height} pixels")


def _quietly(image: Picture, decode: Callable[[], Result]) -> tuple[Result, str]:
    """Decode a picture; gives the result, and what the C library wrote to standard error, which names no file."""
    if image.format != "TIFF":
        return decode(), ""
    with tempfile.TemporaryFile() as messages:
        try:
            with _native_stderr_to(messages.fileno()):
                result = decode()
        except Exception as error:
            detail = _first_line(messages)
            if detail and not is_system_failure(error) and not isinstance(error, UnusableImageError):
                raise ValueError(f"{error_text(error)}: {detail}") from error
            raise
        return result, _first_line(messages)


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


def _to_l_or_rgb(image: Picture) -> Picture:
    """The first frame of a picture of at most eight bits a channel, upright, flattened onto white, as mode L or RGB."""
    from PIL import Image, ImageOps

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
