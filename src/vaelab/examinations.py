r"""Examinations: what is found out about a finished run besides its metrics, once, and kept beside it.

    features         codes against pixels: PCA, k-means, t-SNE, and the numbers behind "look alike"
    interpolations   paths between categories, and how a classifier sees them
    samples          images of the prior, how they differ and how sharp they are

An examination is a function (run, dataset, classifier) -> (numbers, arrays); it stands in `EXAMINATIONS` under its
name, and leaves <run>/examinations/<name>.json and .safetensors.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from vaelab.files import read_json
from vaelab.store import Run, read_tensors

__all__ = ["arrays", "examined"]


def folder(run: Run) -> Path:
    return run.path / "examinations"


def examined(run: Run) -> dict[str, dict[str, float]]:
    """The numbers of every examination that a run has been through, by name."""
    return {file.stem: read_json(file) for file in sorted(folder(run).glob("*.json"))}


def arrays(run: Run, name: str) -> dict[str, np.ndarray]:
    """The arrays that an examination left; empty where it has not been made."""
    file = folder(run) / f"{name}.safetensors"
    return {n: t.numpy() for n, t in read_tensors(file)[0].items()} if file.exists() else {}
