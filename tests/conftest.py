"""What the tests share: a cache of their own, one thread, and small data and runs that are made once."""

from __future__ import annotations

import os
import signal
import tempfile

os.environ["VAELAB_CACHE"] = tempfile.mkdtemp(prefix="vaelab-tests-")  # before anything reads it
os.environ.pop("VAELAB_DATA", None)

import pytest
import torch

from vaelab import api
from vaelab.datasets.images import Dataset
from vaelab.datasets.loading import load_dataset
from vaelab.runs.run import Run

torch.set_num_threads(1)  # convolutions with more are many times slower on a busy machine
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
