"""Animations: frames of images as a GIF of visible size, each with a label."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from vaelab.core.errors import UserError
from vaelab.core.files import atomic_write
from vaelab.figures.colors import BACKGROUND
from vaelab.figures.text import FONT_SIZE, distinct_labels, draw_text, shorten_text
from vaelab.figures.tiles import as_rgb, compose_tiles, grid_columns, to_rows

__all__ = ["path_labels", "save_animation"]

MIN_TILE = 128  # pixels, the side of an image at least
MAX_SIDE = 1600  # of the whole picture, beyond which images do not grow
GAP = 4  # between images

LABEL_DPI = 130
LABEL_STRIP = 26  # pixels, the height of a label
LABEL_MIN_WIDTH = 260  # of a picture with labels

RUN_MILLISECONDS = 2000  # from the first frame to the last, where no time is given


def save_animation(
    frames: Sequence[np.ndarray], path: Path, milliseconds: int | None = None, labels: Sequence[str] = ()
) -> Path:
    """Write frames as a GIF that runs forwards and backwards for ever.

    Args:
        frames: Each an image (C, H, W), several of them (P, C, H, W), or a grid of them (R, T, C, H, W).
        path: The file to write.
        milliseconds: That a frame is shown; so that all take two seconds if not given.
        labels: A text over each frame, such as those of `path_labels`.

    Returns:
        The file.

    Raises:
        UserError: There is no frame.
    """
    if not len(frames):
        raise UserError("there are no frames to animate")
    if milliseconds is None:
        milliseconds = int(np.clip(RUN_MILLISECONDS / len(frames), 40, 400))
    pictures = []
    for i, frame in enumerate(frames):
        pixels = _compose_frame(frame)
        if labels:
            pixels = _add_label(pixels, labels[i])
        pictures.append(Image.fromarray(pixels).quantize(256, dither=Image.Dither.NONE))
    pictures += pictures[-2:0:-1]
    buffer = io.BytesIO()
    options = {"save_all": True, "append_images": pictures[1:], "duration": milliseconds, "loop": 0}
    pictures[0].save(buffer, "GIF", **options)
    with atomic_write(path) as temporary:
        temporary.write_bytes(buffer.getvalue())
    return path


def path_labels(alphas: Sequence[float] | np.ndarray, names: tuple[str, str] = ("", "")) -> list[str]:
    """The labels of the frames of an interpolation: alpha, and at its ends what is there.

    Args:
        alphas: Of the frames, from 0 to 1.
        names: What is at alpha = 0 and at alpha = 1.

    Returns:
        A label for each frame.

    Example:
        >>> path_labels([0, 0.5, 1], ("woman", "man"))
        ['α = 0.00  z₂: woman', 'α = 0.50', 'α = 1.00  z₁: man']
    """
    start, end = distinct_labels(names)
    labels = [f"α = {alpha:.2f}" for alpha in alphas]
    labels[0] += f"  z₂: {start}" if start else "  z₂"
    labels[-1] += f"  z₁: {end}" if end else "  z₁"
    return labels


def _compose_frame(frame: np.ndarray) -> np.ndarray:
    """The images of a frame as one picture (H, W, 3), grown by a whole factor to a visible size."""
    images = as_rgb(frame)
    if images.ndim < 5:
        images = images.reshape(-1, *images.shape[-3:])
        images = to_rows(images, grid_columns(len(images)))
    rows, columns, height, width, _ = images.shape
    largest = min(MAX_SIDE // (rows * height), MAX_SIDE // (columns * width))
    factor = max(1, min(math.ceil(MIN_TILE / min(height, width)), largest))
    grown = images.repeat(factor, 2).repeat(factor, 3)
    return compose_tiles(grown, GAP).pixels


def _add_label(pixels: np.ndarray, label: str) -> np.ndarray:
    """A picture with a label in a white strip over it; a narrow one gets white at its sides."""
    height, width = pixels.shape[:2]
    full_width = max(width, LABEL_MIN_WIDTH)
    labelled = np.full((height + LABEL_STRIP, full_width, 3), 255, np.uint8)
    left = (full_width - width) // 2
    labelled[LABEL_STRIP:, left : left + width] = pixels
    labelled[:LABEL_STRIP] = _draw_label(label, full_width)
    return labelled


def _draw_label(label: str, width: int) -> np.ndarray:
    """A label as a strip of pixels (LABEL_STRIP, width, 3)."""
    figure = Figure((width / LABEL_DPI, LABEL_STRIP / LABEL_DPI), LABEL_DPI, facecolor=BACKGROUND)
    text = shorten_text(label, (width - 12) / LABEL_DPI)
    draw_text(figure, 6 / width, 0.5, text, size=FONT_SIZE, va="center_baseline")
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3]
