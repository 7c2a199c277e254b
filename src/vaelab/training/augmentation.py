"""Augmentation: training images are changed at random, anew in each step, so that few images teach more."""

from __future__ import annotations

import torch
from torch import Generator, Tensor

__all__ = ["random_shifts", "shift_images"]


def random_shifts(count: int, max_shift: int, generator: Generator) -> Tensor:
    """How far to move each image: whole pixels down and to the right, from -max_shift to max_shift, (count, 2)."""
    return torch.randint(-max_shift, max_shift + 1, (count, 2), generator=generator)


def shift_images(pixels: Tensor, shifts: Tensor) -> Tensor:
    """Move images, with their edge pixels repeated where they leave a gap.

    Args:
        pixels: Images, (B, C, H, W).
        shifts: Pixels down and to the right, integers (B, 2).

    Returns:
        The moved images, (B, C, H, W).

    Example:
        >>> shift_images(torch.tensor([[[[1, 2, 3]]]], dtype=torch.uint8), torch.tensor([[0, 1]]))
        tensor([[[[1, 1, 2]]]], dtype=torch.uint8)
    """
    batch, channels, height, width = pixels.shape
    shifts = shifts.to(pixels.device)
    rows = (torch.arange(height, device=pixels.device) - shifts[:, :1]).clamp(0, height - 1)
    columns = (torch.arange(width, device=pixels.device) - shifts[:, 1:]).clamp(0, width - 1)
    by_row = pixels.gather(2, rows[:, None, :, None].expand(batch, channels, height, width))
    return by_row.gather(3, columns[:, None, None, :].expand(batch, channels, height, width))
