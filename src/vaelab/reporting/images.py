"""Pictures of a report: encoded, shared, and made small enough for one document."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field

import numpy as np
from PIL import Image

from vaelab.figures.tiles import as_rgb

__all__ = ["PointCloud", "ReportAssets", "encode_image", "image_sheet", "shrink_image", "shrink_to_budget"]

QUALITY_STEPS = ((85, 1.0), (60, 0.5), (40, 0.25))  # quality and scale of pictures for which there is no room

MAX_PNG_BYTES = 2**18  # larger pictures become WebP

URI_OVERHEAD = 40  # characters of a data: URI besides its base64 text

WHITE = 255


@dataclass(frozen=True)
class PointCloud:
    """Points in two views, for report.js.

    Attributes:
        variance: The percent of the variance of each principal component.
        pca: The first three principal components, a list for each.
        tsne: The coordinates of t-SNE, a list for each.
        clusters: The cluster of each point.
        letters: The names of the clusters.
        colours: Their colours.
    """

    variance: list[float]
    pca: list[list[int]]
    tsne: list[list[int]]
    clusters: list[int]
    letters: list[str]
    colours: list[str]


@dataclass
class ReportAssets:
    """Collects what several figures show and the report holds once: pictures and point clouds, by name."""

    images: dict[str, bytes] = field(default_factory=dict)
    point_clouds: dict[str, PointCloud] = field(default_factory=dict)

    def add_image(self, name: str, file: bytes) -> None:
        """Keep a picture, PNG or WebP."""
        self.images[name] = file

    def add_point_cloud(self, cloud: PointCloud) -> str:
        """Keep a cloud under the hash of its content, which is returned: equal clouds are kept once."""
        name = hashlib.blake2b(json.dumps(asdict(cloud)).encode(), digest_size=6).hexdigest()
        self.point_clouds[name] = cloud
        return name


# One picture


def shrink_image(image: np.ndarray, side: int) -> np.ndarray:
    """An image with shape (H, W, 3), made smaller where it is larger than `side`.

    Example:
        >>> shrink_image(np.zeros((64, 32, 3), np.uint8), 32).shape
        (32, 16, 3)
    """
    height, width = image.shape[:2]
    factor = side / max(height, width)
    if factor >= 1:
        return image
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    return np.asarray(Image.fromarray(np.ascontiguousarray(image)).resize(size, Image.Resampling.LANCZOS))


def encode_image(image: np.ndarray) -> bytes:
    """Encode an image as PNG, which keeps pixels as they are, or as WebP where PNG would be large.

    Args:
        image: The image, uint8 with shape (H, W, 3); stored as grey where all channels agree.

    Returns:
        The file.
    """
    is_grey = bool((image == image[..., :1]).all())
    picture = Image.fromarray(np.ascontiguousarray(image[..., 0] if is_grey else image))
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", optimize=True)
    return buffer.getvalue() if buffer.tell() < MAX_PNG_BYTES else _encode_webp(picture, 85)


def _encode_webp(picture: Image.Image, quality: int, scale: float = 1.0) -> bytes:
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    if picture.mode == "RGBA" and picture.getextrema()[3] == (255, 255):  # type: ignore[comparison-overlap]
        picture = picture.convert("RGB")
    buffer = io.BytesIO()
    picture.resize(size, Image.Resampling.LANCZOS).save(buffer, "WEBP", quality=quality, method=4)
    return buffer.getvalue()


def image_sheet(images: np.ndarray, side: int) -> tuple[np.ndarray, int, int]:
    """All images side by side in a sheet that is almost a square, for no side of a picture may be very long.

    Args:
        images: The images, uint8 with shape (N, C, H, W).
        side: The largest side of an image in the sheet, in pixels.

    Returns:
        The sheet with shape (H, W, 3), its columns and its rows.
    """
    columns = math.ceil(math.sqrt(len(images)))
    tiles = [shrink_image(image, side) for image in as_rgb(images)]
    empty = np.full_like(tiles[0], WHITE)
    lines = []
    for start in range(0, len(tiles), columns):
        line = tiles[start : start + columns]
        line += [empty] * (columns - len(line))
        lines.append(np.concatenate(line, 1))
    return np.concatenate(lines), columns, len(lines)


# All pictures


def shrink_to_budget(images: Mapping[str, bytes], budget: int) -> dict[str, str]:
    """Turn pictures into data: URIs that have at most `budget` characters together.

    The largest pictures are encoded again, smaller each time, until all have room.

    Args:
        images: Picture files by name.
        budget: How many characters there are for all of them.

    Returns:
        A URI for each name.
    """
    files = dict(images)
    for quality, scale in QUALITY_STEPS:
        for name in sorted(files, key=lambda name: (-len(files[name]), name)):
            if _uri_length(files.values()) <= budget:
                break
            with Image.open(io.BytesIO(images[name])) as picture:
                files[name] = min(files[name], _encode_webp(picture, quality, scale), key=len)
    return {name: _data_uri(file) for name, file in files.items()}


def _uri_length(files: Iterable[bytes]) -> int:
    return sum(len(file) * 4 // 3 + URI_OVERHEAD for file in files)


def _data_uri(file: bytes) -> str:
    kind = "png" if file.startswith(b"\x89PNG") else "webp"
    return f"data:image/{kind};base64,{base64.b64encode(file).decode()}"
