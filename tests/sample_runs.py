"""Copies of a run with more in them than it left itself."""

from __future__ import annotations

from pathlib import Path
from shutil import copytree

import numpy as np
import torch
from figure_reading import patches

from vaelab.core.files import write_json
from vaelab.core.tensors import write_tensors
from vaelab.runs.run import Run


def examined(run: Run, folder: Path) -> Run:
    """A copy of a run with made-up arrays and numbers of its examinations."""
    copied = Run(Path(copytree(run.path, folder / run.key)))
    rng, alphas = np.random.default_rng(0), np.linspace(0, 1, 21, dtype=np.float32)
    numbers = {f"{space}_ari": 0.25 for space in ("raw", "pca", "codes", "classifier")} | {"correlation": 0.875}
    features = {"labels": np.arange(60) % 10 - (np.arange(60) == 7), "rows": np.arange(60)}
    for space in ("raw", "codes", "classifier"):
        features |= {f"{space}_pca": rng.normal(size=(60, 3)), f"{space}_variance": np.array([0.5, 0.25, 0.125]),
                     f"{space}_clusters": np.arange(60) % 4, f"{space}_tsne": rng.normal(size=(60, 2))}  # fmt: skip
    paths = {"originals": patches(7, 2)[:, :, :1], "images": patches(7, 21)[:, :, :1], "alphas": alphas,
             "ends": np.array([1, 0]), "probability": np.tile(alphas**2, (7, 1))}  # fmt: skip
    several = {"probability_0": 0.0, "probability_20": 0.04, "probability_100": 1.0, "rising": 1.0}
    for name, table, found in (("features", numbers, features), ("interpolations", several, paths)):
        tensors = {n: torch.from_numpy(np.ascontiguousarray(a)) for n, a in found.items()}
        write_tensors(copied.path / "examinations" / f"{name}.safetensors", tensors)
        write_json(copied.path / "examinations" / f"{name}.json", table)
    return copied
