"""Pictures for the tests."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image


def folder_of_pictures(
    folder: Path, count: int = 12, size: tuple[int, int] = (16, 12), names: tuple[str, str] = ("blue", "red")
) -> Path:
    """Two categories of made colour pictures, bluish and reddish, `size` wide and high."""
    rng = np.random.default_rng(0)
    for category, tint in zip(names, (2, 0), strict=True):
        (folder / category).mkdir(parents=True)
        for i in range(count):
            array = rng.integers(0, 90, (size[1], size[0], 3), dtype=np.uint8)
            array[..., tint] += 150
            Image.fromarray(array).save(folder / category / f"{i:03d}.png")
    return folder
