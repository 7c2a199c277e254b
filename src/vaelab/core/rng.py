"""Random numbers: each use has a generator of its own, named by what it is for.

A generator is a function of its name, such as (seed, "noise", step), so nothing needs to be remembered between calls.
A resumed run draws what the uninterrupted run would have drawn, and so does another device: all generators are on the
CPU.
"""

from __future__ import annotations

import hashlib

import numpy as np
import torch
from torch import Tensor

__all__ = ["evaluation_noise", "generator"]

NOISE_BLOCK_IMAGES = 1024  # consecutive images whose evaluation noise comes from one generator


def generator(*name: object) -> torch.Generator:
    """The random number generator with this name.

    Args:
        name: What the numbers are for, for example `(seed, "noise", step)`. Equal names give equal numbers.

    Example:
        >>> first, second = (torch.rand(3, generator=generator(0, "order", 5)) for _ in range(2))
        >>> torch.equal(first, second)
        True
    """
    text = "/".join(map(str, name))
    digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest) >> 1)


def evaluation_noise(rows: np.ndarray, latent_dim: int, sample: int = 0) -> Tensor:
    """Standard normal noise for evaluation: a function of the image, the latent dimension and the sample alone.

    Args:
        rows: The row numbers of the images in their data set, with shape (N,).
        latent_dim: The number of latent dimensions D.
        sample: Which of several samples of each image.

    Returns:
        The noise, with shape (N, D).
    """
    blocks, block_of_row = np.unique(rows // NOISE_BLOCK_IMAGES, return_inverse=True)
    sample_name = (sample,) if sample else ()
    noise_of_blocks = []
    for block in blocks:
        block_generator = generator("evaluation", block, *sample_name)
        noise_of_blocks.append(torch.randn(NOISE_BLOCK_IMAGES, latent_dim, generator=block_generator))
    row_in_block = torch.from_numpy(rows % NOISE_BLOCK_IMAGES)
    return torch.stack(noise_of_blocks)[torch.from_numpy(block_of_row), row_in_block]
