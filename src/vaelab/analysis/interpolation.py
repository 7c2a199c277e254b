r"""Interpolation: paths of codes between two pictures or two categories.

    linear:  z = alpha z1 + (1 - alpha) z2
    slerp:   z = sin((1 - alpha) w) / sin w  z2 + sin(alpha w) / sin w  z1,   cos w = z1 . z2 / (|z1| |z2|)

alpha = 0 is where the path starts (z2), alpha = 1 where it ends (z1). Codes are posterior means unless sampled.
Source of slerp: Sampling Generative Networks, White 2016, arXiv 1609.04468.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor

from vaelab.core.errors import UserError, unknown_name_error
from vaelab.core.rng import generator
from vaelab.datasets.images import Dataset, Images, select_split
from vaelab.models.vae import VAE

if TYPE_CHECKING:
    from vaelab.runs.run import Run

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


class Interpolation(NamedTuple):
    """P pairs of originals (P, 2, C, H, W), first the one of alpha 0, and the decoded images (P, T, C, H, W)."""

    originals: Tensor
    images: Tensor
    alphas: Tensor


def alpha_values(steps: int) -> Tensor:
    """`steps` equidistant values from 0 to 1: six give 0, 0.2, 0.4, 0.6, 0.8, 1."""
    if steps < 2:
        raise UserError(f"steps must be at least 2, the two ends, got {steps}")
    return torch.linspace(0, 1, steps)


def linear(start: Tensor, end: Tensor, alpha: Tensor) -> Tensor:
    """The straight path, with shapes (*, D), (*, D), (T,) -> (*, T, D)."""
    a = alpha[:, None]
    return a * end[..., None, :] + (1 - a) * start[..., None, :]


def slerp(start: Tensor, end: Tensor, alpha: Tensor) -> Tensor:
    """The path along the great circle, lengths mixed likewise, with shapes (*, D), (*, D), (T,) -> (*, T, D)."""
    cosine = torch.nn.functional.cosine_similarity(start, end, dim=-1).clamp(-1, 1)
    angle = cosine.arccos()[..., None, None]
    a = alpha[:, None]
    sine = angle.sin()
    weights = ((1 - a) * angle).sin() / sine, (a * angle).sin() / sine
    arc = weights[0] * start[..., None, :] + weights[1] * end[..., None, :]
    return torch.where(sine.abs() < 1e-4, linear(start, end, alpha), arc)  # parallel codes have no great circle


PATH_FUNCTIONS = {"linear": linear, "slerp": slerp}


def interpolate_codes(start: Tensor, end: Tensor, alpha: Tensor, path: str = "linear") -> Tensor:
    """The path called `path` between codes."""
    if path not in PATH_FUNCTIONS:
        raise unknown_name_error("path", path, PATH_FUNCTIONS)
    return PATH_FUNCTIONS[path](start, end, alpha)


@torch.no_grad()
def interpolate_images(
    model: VAE, start: np.ndarray, end: np.ndarray, alpha: Tensor, *, path: str = "linear", noise: Tensor | None = None
) -> Interpolation:
    """Decode the paths between pictures `start` and `end`, uint8 (P, C, H, W); `noise` (P, 2, D) samples the codes."""
    originals = torch.from_numpy(np.stack([start, end], axis=1)).float().div_(255)
    q = model.encode(originals.flatten(0, 1))
    codes = (q.mean if noise is None else q.sample(noise.flatten(0, 1))).unflatten(0, originals.shape[:2])
    paths = interpolate_codes(codes[:, 0], codes[:, 1], alpha, path)
    return Interpolation(originals, model.decode_mean(paths), alpha)


def category_positions(images: Images, category: str) -> np.ndarray:
    """The positions of a category's images."""
    if category not in images.categories:
        raise unknown_name_error("category", category, images.categories)
    found = np.flatnonzero(images.label() == images.categories.index(category))
    if not len(found):
        raise UserError(f'the {images.split} split has no picture of "{category}"; take another --split')
    return found


def draw_pairs(
    images: Images, pairs: int, start: str | None = None, end: str | None = None, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Positions of `pairs` pictures to start from and to end at, drawn by seed; of any category where none is named.

    Pairs are of different pictures as long as there are enough of them.
    """
    if pairs < 1:
        raise UserError(f"pairs must be at least 1, got {pairs}")
    if start == end:  # one pool, of which no picture is its own partner
        pool = np.arange(len(images)) if start is None else category_positions(images, start)
        order = torch.randperm(len(pool), generator=generator(seed, "pairs")).numpy()
        both = pool[np.resize(order, 2 * pairs)]
        return both[:pairs], both[pairs:]
    drawn = [draw_pairs(images, pairs, name, name, seed)[0] for name in (start, end)]
    return drawn[0], drawn[1]


def load_path_ends(
    run: Run, ends: tuple[str | None, str | None], pairs: int, split: str, seed: int, dataset: Dataset | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """The pictures where paths start and end, each uint8 (P, C, H, W)."""
    from vaelab.datasets.decoding import read_images

    files = [end is not None and Path(end).is_file() for end in ends]
    pictures = [
        read_images([end], run.model.shape) if is_file and end else None
        for end, is_file in zip(ends, files, strict=True)
    ]
    if not all(files):
        images = select_split(dataset or run.dataset, split)
        _check_ends(ends, files, images.categories)
        names = [None if is_file else end for end, is_file in zip(ends, files, strict=True)]
        drawn = draw_pairs(images, pairs, names[0], names[1], seed)
        pictures = [images.uint8(d) if p is None else p.repeat(pairs, 0) for p, d in zip(pictures, drawn, strict=True)]
    return pictures[0], pictures[1]  # type: ignore[return-value]


def _check_ends(ends: tuple[str | None, str | None], files: Sequence[bool], categories: Sequence[str]) -> None:
    for end, is_file in zip(ends, files, strict=True):
        if end is not None and not is_file and end not in categories:
            raise unknown_name_error("category or picture file", end, categories)
