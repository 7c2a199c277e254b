"""Streams: every random number comes from a stream of its own, named by what it is for.

A stream is a function of its name, such as (seed, "noise", step), so nothing needs to be remembered between calls:
a resumed run draws what it would have drawn, and a device draws what another would have (streams live on the CPU).
"""

from __future__ import annotations

import hashlib

import numpy as np
import torch
from torch import Tensor

__all__ = ["evaluation_noise", "generator"]

NOISE_BLOCK_IMAGES = 1024  # images that share one stream of evaluation noise


def generator(*name: object) -> torch.Generator:
    """The generator of the stream with this name."""
    digest = hashlib.blake2b("/".join(map(str, name)).encode(), digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest) >> 1)


def evaluation_noise(rows: np.ndarray, latent_dim: int, sample: int = 0) -> Tensor:
    """Standard normal noise (N, D) of the images with these row numbers: a function of row, D and sample alone."""
    blocks, which = np.unique(rows // NOISE_BLOCK_IMAGES, return_inverse=True)
    which_sample = (sample,) if sample else ()
    noise = [
        torch.randn(NOISE_BLOCK_IMAGES, latent_dim, generator=generator("evaluation", b, *which_sample)) for b in blocks
    ]
    return torch.stack(noise)[torch.from_numpy(which), torch.from_numpy(rows % NOISE_BLOCK_IMAGES)]
