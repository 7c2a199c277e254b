"""Streams: every random number comes from a stream of its own, named by what it is for.

A stream is a function of its name, such as (seed, "noise", step), so nothing needs to be remembered between calls:
a resumed run draws what it would have drawn, and a device draws what another would have (streams live on the CPU).
"""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor

__all__ = ["evaluation_noise", "stream"]

BLOCK = 1024  # images that share one stream of evaluation noise


def stream(*name: object) -> torch.Generator:
    """The generator of the stream with this name."""
    digest = hashlib.blake2b("/".join(map(str, name)).encode(), digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest) >> 1)


def evaluation_noise(start: int, count: int, latent_dim: int) -> Tensor:
    """Standard normal noise (count, D) of the images from index `start` on: a function of index and D alone."""
    first, last = start // BLOCK, (start + count - 1) // BLOCK
    noise = [torch.randn(BLOCK, latent_dim, generator=stream("evaluation", b)) for b in range(first, last + 1)]
    offset = start - first * BLOCK
    return torch.cat(noise)[offset : offset + count]
