"""What the tests share: a cache of their own, one thread, and small data and runs that are made once."""

from __future__ import annotations

import os
import signal
import tempfile
from pathlib import Path

os.environ["VAELAB_CACHE"] = tempfile.mkdtemp(prefix="vaelab-tests-")  # before anything reads it
os.environ.pop("VAELAB_DATA", None)

import pytest
import torch

from vaelab import api
from vaelab.datasets.images import Dataset
from vaelab.datasets.loading import load_dataset
from vaelab.runs.run import Run

signal.signal(signal.SIGINT, signal.default_int_handler)  # a job that a script puts in the background ignores it


@pytest.fixture(scope="session")
def digits() -> Dataset:
    return load_dataset("digits", validation=0.1)


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A small finished run on the bundled digits, with its pictures."""
    out = tmp_path_factory.mktemp("trained")
    return api.train("digits", latent_dim=4, epochs=12, lr=3e-3, out=out, threads=1, precision="float32", device="cpu")


@pytest.fixture
def pixels(digits: Dataset) -> torch.Tensor:
    """Sixteen digits in [0, 1], (16, 1, 8, 8), float64."""
    return torch.from_numpy(digits.splits["train"].uint8(slice(0, 16))).double() / 255


def folder_of_pictures(
    folder: Path, count: int = 12, size: tuple[int, int] = (16, 12), names: tuple[str, str] = ("blue", "red")
) -> Path:
    """Two categories of made colour pictures, bluish and reddish, `size` wide and high."""
    import numpy as np
    from PIL import Image

    rng = np.random.default_rng(0)
    for category, tint in zip(names, (2, 0), strict=True):
        (folder / category).mkdir(parents=True)
        for i in range(count):
            array = rng.integers(0, 90, (size[1], size[0], 3), dtype=np.uint8)
            array[..., tint] += 150
            Image.fromarray(array).save(folder / category / f"{i:03d}.png")
    return folder
