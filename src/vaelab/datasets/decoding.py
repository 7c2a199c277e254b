"""Pictures: one file or array of any size and mode -> uint8 pixels of one shape.

Whatever the mode, a picture is brought upright (EXIF), flattened onto white where it is transparent, scaled to eight
bits a value, cropped to the aspect about its centre and resized. Grey stays grey unless colour is asked for.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from vaelab.core.errors import UserError

if TYPE_CHECKING:
    from PIL.Image import Image as Picture

__all__ = ["SUFFIXES", "ImageHeader", "decode_image", "error_text", "read_header", "read_images", "suppress_warnings"]

FORMATS = "png jpg jpeg jpe jfif gif bmp dib tif tiff webp avif jp2 j2k ppm pgm pbm pnm tga ico heic heif"

SUFFIXES = frozenset(f".{name}" for name in FORMATS.split())


class ImageHeader(NamedTuple):
    """What a picture's header says: upright (width, height), mode, file format, and whether it is grey."""

    size: tuple[int, int]
    mode: str
    format: str
    grey: bool


def read_images(paths: Sequence[str | Path], shape: tuple[int, int, int]) -> np.ndarray:
    """Picture files of any size and mode as uint8 (n, C, H, W) of the given shape (C, H, W), cropped to its aspect."""
    pixels = np.empty((len(paths), *shape), np.uint8)
    with suppress_warnings():
        for row, path in zip(pixels, paths, strict=True):
            try:
                row[:] = decode_image(Path(path), shape)
            except Exception as error:  # a damaged file raises nearly anything in Pillow's decoders
                raise UserError(f"{path} cannot be read as a picture: {error_text(error)}") from error
    return pixels


@contextmanager
def suppress_warnings() -> Iterator[None]:
    # Pillow warns of large pictures and of odd metadata, of which a user can mend neither.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def error_text(error: Exception) -> str:
    """What an error says, on one line and without the path, which stands beside it."""
    text = (isinstance(error, OSError) and error.strerror) or str(error).split("\n")[0] or type(error).__name__
    return "not a picture" if type(error).__name__ == "UnidentifiedImageError" else text


def _open_image(picture: Any) -> Picture:
    """Open a path, encoded bytes, or an array (H, W) or (H, W, C) of uint8, truth values or floats in [0, 1]."""
    from PIL import Image

    if picture is None:
        raise ValueError("empty")
    if isinstance(picture, np.ndarray):
        levels = picture if picture.dtype == np.uint8 else np.rint(picture * 255.0).astype(np.uint8)
        return Image.fromarray(levels[..., 0] if levels.ndim == 3 and levels.shape[2] == 1 else levels)
    return Image.open(picture if isinstance(picture, Path) else io.BytesIO(picture))


def _is_grey(image: Picture) -> bool:
    if image.mode in ("P", "PA"):
        palette = np.array(image.getpalette("RGB")).reshape(-1, 3)
        return bool((palette == palette[:, :1]).all())
    return image.mode[0] in "1LIF" and image.mode != "LAB"


def read_header(picture: Any) -> ImageHeader:
    with _open_image(picture) as image:
        turned = image.getexif().get(0x0112, 1) in (5, 6, 7, 8)  # EXIF orientation: these four swap the sides
        width, height = image.size
        size = (height, width) if turned else (width, height)
        return ImageHeader(size, image.mode, image.format or "array", _is_grey(image))


def _to_l_or_rgb(image: Picture) -> Picture:
    """The first frame of a picture of any mode, upright, flattened onto white, as mode L or RGB."""
    from PIL import Image, ImageOps

    image = ImageOps.exif_transpose(image)
    if image.mode[0] in "IF":
        # 16 bits a pixel, whether stored as such or in 32; 255 / 65535 = 1 / 257. Floats are taken as [0, 1].
        values = np.asarray(image).astype(np.float64) / (257 if image.mode[0] == "I" else 1 / 255)
        if not (values.min() >= 0 and values.max() <= 255):
            raise ValueError(f"values of mode {image.mode} beyond the known range")
        return Image.fromarray(np.rint(values).astype(np.uint8))
    grey = _is_grey(image)
    if image.has_transparency_data:
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image.convert("RGBA"))
    return image.convert("L" if grey else "RGB")


def decode_image(picture: Any, shape: tuple[int, int, int]) -> np.ndarray:
    """A picture as uint8 (C, H, W), cropped to the aspect about its centre and resized where its size differs."""
    from PIL import Image

    channels, height, width = shape
    with _open_image(picture) as image:
        enough = 2 * max(height, width)
        image.draft(image.mode, (enough, enough))  # a large JPEG need not be decoded in full
        plain = _to_l_or_rgb(image)
    if plain.size != (width, height):
        # Cropped before, not while resizing, so that nothing beyond the edge leaks in.
        scale = min(plain.width / width, plain.height / height)
        wide, high = max(1, round(width * scale)), max(1, round(height * scale))
        left, top = (plain.width - wide) // 2, (plain.height - high) // 2
        plain = plain.crop((left, top, left + wide, top + high)).resize((width, height), Image.Resampling.LANCZOS)
    pixels = np.asarray(plain.convert("L" if channels == 1 else "RGB"))
    return np.ascontiguousarray(pixels.reshape(height, width, channels).transpose(2, 0, 1))
