r"""Interpolation: paths of codes between two pictures or two categories.

    linear:  z = alpha z1 + (1 - alpha) z2
    slerp:   z = sin((1 - alpha) w) / sin w  z2 + sin(alpha w) / sin w  z1,   cos w = z1 . z2 / (|z1| |z2|)

alpha = 0 is where the path starts (z2), alpha = 1 where it ends (z1). Codes are posterior means unless sampled.

Source of slerp: Sampling Generative Networks, arXiv 1609.04468.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from vaelab.core.errors import UserError, unknown_name_error
from vaelab.core.rng import generator
from vaelab.datasets.images import Images
from vaelab.evaluation.metrics import require_finite
from vaelab.models.vae import VAE

__all__ = [
    "PATH_FUNCTIONS",
    "Interpolation",
    "alpha_values",
    "category_positions",
    "draw_pairs",
    "interpolate_codes",
    "interpolate_images",
    "load_path_ends",
]


MIN_SINE = 1e-4  # of the angle between two codes: parallel codes have no great circle


class Interpolation(NamedTuple):
    """Paths between pairs of images.

    Attributes:
        originals: The images of both ends, that of alpha 0 first, (P, 2, C, H, W).
        images: The decoded images, (P, T, C, H, W).
        alphas: The values of alpha, (T,).
    """

    originals: Tensor
    images: Tensor
    alphas: Tensor


def alpha_values(steps: int) -> Tensor:
    """Equidistant values from 0 to 1, (T,).

    Args:
        steps: How many values, the two ends included.

    Raises:
        UserError: There are fewer than two.

    Example:
        >>> alpha_values(5)
        tensor([0.0000, 0.2500, 0.5000, 0.7500, 1.0000])
    """
    if steps < 2:
        raise UserError(f"steps must be at least 2, the two ends, got {steps}", settings=["steps"])
    return torch.linspace(0, 1, steps)


def linear(start: Tensor, end: Tensor, alpha: Tensor) -> Tensor:
    """The straight path, with shapes (*, D), (*, D), (T,) -> (*, T, D)."""
    a = alpha[:, None]
    return a * end[..., None, :] + (1 - a) * start[..., None, :]


def slerp(start: Tensor, end: Tensor, alpha: Tensor) -> Tensor:
    """The path along the great circle, with interpolated lengths, with shapes (*, D), (*, D), (T,) -> (*, T, D)."""
    cosine = torch.nn.functional.cosine_similarity(start, end, dim=-1).clamp(-1, 1)
    angle = cosine.arccos()[..., None, None]
    sine = angle.sin()
    a = alpha[:, None]
    start_weight = ((1 - a) * angle).sin() / sine
    end_weight = (a * angle).sin() / sine
    arc = start_weight * start[..., None, :] + end_weight * end[..., None, :]
    return torch.where(sine.abs() < MIN_SINE, linear(start, end, alpha), arc)


PathFunction = Callable[[Tensor, Tensor, Tensor], Tensor]

PATH_FUNCTIONS: dict[str, PathFunction] = {"linear": linear, "slerp": slerp}


def interpolate_codes(start: Tensor, end: Tensor, alpha: Tensor, path: str = "linear") -> Tensor:
    """Interpolate between codes.

    Args:
        start: The codes at alpha = 0, (*, D).
        end: The codes at alpha = 1, (*, D).
        alpha: The values of alpha, (T,).
        path: linear or slerp.

    Returns:
        The codes on the path, (*, T, D).

    Raises:
        UserError: There is no such path.

    Example:
        >>> interpolate_codes(torch.zeros(2), torch.ones(2), alpha_values(3))[:, 0]
        tensor([0.0000, 0.5000, 1.0000])
    """
    if path not in PATH_FUNCTIONS:
        raise unknown_name_error("path", path, PATH_FUNCTIONS)
    return PATH_FUNCTIONS[path](start, end, alpha)


@torch.no_grad()
def interpolate_images(
    model: VAE, start: np.ndarray, end: np.ndarray, alpha: Tensor, *, path: str = "linear", noise: Tensor | None = None
) -> Interpolation:
    """Encode pairs of images, interpolate their codes and decode the paths.

    Args:
        model: The model.
        start: The images at alpha = 0, uint8 (P, C, H, W).
        end: The images at alpha = 1, uint8 (P, C, H, W).
        alpha: The values of alpha, (T,).
        path: linear or slerp.
        noise: Standard normal noise, (P, 2, D), with which codes are sampled; without it they are posterior means.

    Returns:
        The originals and the decoded images.

    Raises:
        UserError: An image is not finite.
    """
    originals = torch.from_numpy(np.stack([start, end], axis=1)).float().div_(255)
    q = model.encode(originals.flatten(0, 1))
    flat_codes = q.mean if noise is None else q.sample(noise.flatten(0, 1))
    codes = flat_codes.unflatten(0, originals.shape[:2])  # (P, 2, D)
    path_codes = interpolate_codes(codes[:, 0], codes[:, 1], alpha, path)
    images = model.decode_mean(path_codes)
    require_finite(images)
    return Interpolation(originals, images, alpha)


def category_positions(images: Images, category: str) -> np.ndarray:
    """The positions of the images of a category.

    Raises:
        UserError: There is no such category, or no image of it in this split.
    """
    if category not in images.categories:
        raise unknown_name_error("category", category, images.categories)
    positions = np.flatnonzero(images.label() == images.categories.index(category))
    if not len(positions):
        raise UserError(
            f'none of the {images.split} images is of the category "{category}"; take another split', settings=["split"]
        )
    return positions


def draw_pairs(
    images: Images, pairs: int, start: str | None = None, end: str | None = None, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Draw pairs of images. The two of a pair differ as long as there are enough images.

    Args:
        images: What to draw from.
        pairs: How many pairs.
        start: The category to start from, or any.
        end: The category to end at, or any.
        seed: Of the draw.

    Returns:
        The positions of the images to start from and to end at, (P,) each.

    Raises:
        UserError: A category is unknown or has no image, or there is no pair to draw.
    """
    if pairs < 1:
        raise UserError(f"pairs must be at least 1, got {pairs}", settings=["pairs"])
    if start == end:
        candidates = np.arange(len(images)) if start is None else category_positions(images, start)
        order = torch.randperm(len(candidates), generator=generator(seed, "pairs")).numpy()
        both = candidates[np.resize(order, 2 * pairs)]
        return both[:pairs], both[pairs:]
    start_positions, _ = draw_pairs(images, pairs, start, start, seed)
    end_positions, _ = draw_pairs(images, pairs, end, end, seed)
    return start_positions, end_positions


def load_path_ends(
    ends: tuple[str | None, str | None],
    shape: tuple[int, int, int],
    images: Images | None,
    pairs: int,
    seed: int,
    *,
    value_ranges: Callable[[], Mapping[str, tuple[float, float]]] = dict,
) -> tuple[np.ndarray, np.ndarray]:
    """The images where paths start and end.

    Args:
        ends: A category, a picture file, or None for any image, for the start and for the end.
        shape: (C, H, W) to which picture files are cropped and resized.
        images: What to draw images of categories from; not needed for two files.
        pairs: How many pairs to draw. Two files are one pair.
        seed: Of the draw.
        value_ranges: Gives the run's own, `Run.value_ranges`, for picture files of more than eight bits a channel.

    Returns:
        The images at alpha = 0 and those at alpha = 1, uint8 (P, C, H, W) each.

    Raises:
        UserError: An end is neither a category nor a picture file.
    """
    from vaelab.datasets.decoding import read_images

    pictures: list[np.ndarray | None] = []
    categories: list[str | None] = []
    for end in ends:
        is_file = end is not None and Path(end).is_file()
        pictures.append(read_images([end], shape, value_ranges) if is_file and end else None)
        categories.append(None if is_file else end)
    start, end = pictures
    if start is not None and end is not None:
        return start, end
    if images is None:
        raise ValueError("images to draw from are needed")
    _check_categories(categories, images)
    start_positions, end_positions = draw_pairs(images, pairs, categories[0], categories[1], seed)
    drawn_start = images.uint8(start_positions) if start is None else start.repeat(pairs, 0)
    drawn_end = images.uint8(end_positions) if end is None else end.repeat(pairs, 0)
    return drawn_start, drawn_end


def _check_categories(names: list[str | None], images: Images) -> None:
    """Refuse names that are no categories."""
    for name in names:
        if name is not None and name not in images.categories:
            raise unknown_name_error("category or picture file", name, images.categories)
