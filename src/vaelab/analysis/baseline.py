"""Baselines: what all runs of one data set are compared with, made once per seed and kept on disk."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from vaelab.analysis.classifier import Classifier, classifier_accuracy, train_classifier
from vaelab.analysis.representation import flat_pixels, mean_cca, project
from vaelab.core.tensors import read_tensors, write_tensors
from vaelab.datasets.images import Dataset, Images
from vaelab.evaluation.statistics import Arrays, Numbers
from vaelab.runs.run import Run

__all__ = ["MAX_FEATURE_POINTS", "Baseline", "baseline_dir", "display_split", "open_baseline"]

BASELINE_VERSION = 1  # of what a reference holds

MAX_FEATURE_POINTS = 10_000  # of the test split, in features

MAX_PROBE_IMAGES = 10_000  # training images to which a linear probe is fitted


# What runs are held against.


def baseline_dir(run: Run) -> Path:
    """The folder of the references of a run: that of its study, or one beside it."""
    of_study = run.path.parent.parent / "references"
    return of_study if of_study.is_dir() else run.path.parent / "references"


@dataclass(frozen=True)
class Baseline:
    """What all runs of a data set and a seed are held against, made once and kept in the folder `where`."""

    dataset: Dataset
    seed: int
    folder: Path

    @property
    def test_images(self) -> Images:
        """The points of features: of the test split, or what comes nearest to it."""
        return display_split(self.dataset).evenly_spaced(MAX_FEATURE_POINTS)

    @property
    def probe_images(self) -> Images:
        return self.dataset.splits["train"].evenly_spaced(MAX_PROBE_IMAGES)

    @property
    def num_clusters(self) -> int:
        return len(self.test_images.categories) or 10

    @cached_property
    def classifier(self) -> Classifier | None:
        """A classifier of the training images; none without two categories."""
        train, file = self.dataset.splits["train"], self.folder / "classifier.safetensors"
        if np.unique(train.label()[train.label() >= 0]).size < 2:
            return None
        if not file.exists():
            write_tensors(file, train_classifier(train, self.seed).state_dict())
        model = Classifier(train.shape, len(train.categories))
        model.load_state_dict(read_tensors(file)[0])
        return model.eval().requires_grad_(False)

    @cached_property
    def projections(self) -> tuple[Numbers, Arrays]:
        """What is known of the pixels, and of the classifier's features."""
        file = self.folder / "views.safetensors"
        if not file.exists():
            numbers, found = self._compute_projections()
            write_tensors(file, {n: torch.from_numpy(a) for n, a in found.items()}, {"numbers": numbers})
        tensors, kept = read_tensors(file)
        return kept["numbers"], {n: t.numpy() for n, t in tensors.items()}

    def _compute_projections(self) -> tuple[Numbers, Arrays]:
        numbers, found = project("raw", flat_pixels(self.test_images), flat_pixels(self.probe_images), self)
        if self.classifier is None:
            return numbers, found
        tested, fitted = (
            _apply_in_batches(self.classifier.features, images) for images in (self.test_images, self.probe_images)
        )
        more, places = project("classifier", tested, fitted, self)
        more["classifier_accuracy"] = classifier_accuracy(self.classifier, self.test_images)
        more["correlation_classifier"] = mean_cca(found["raw_pca"], places["classifier_pca"])
        return numbers | more, found | places


def display_split(dataset: Dataset) -> Images:
    splits = dataset.splits
    return splits.get("test") or splits.get("validation") or splits["train"]


def open_baseline(dataset: Dataset, seed: int, folder: Path) -> Baseline:
    """The reference of a data set for runs of a seed, in a folder of its own below `where`."""
    name = [BASELINE_VERSION, dataset.fingerprint, dataset.size, dataset.validation, dataset.subset, seed]
    name += [dataset.binarise] if dataset.binarise else []  # older references keep their names
    return Baseline(dataset, seed, folder / hashlib.blake2b(json.dumps(name).encode(), digest_size=8).hexdigest())


def _apply_in_batches(function: Callable[[Tensor], Tensor], images: Images) -> np.ndarray:
    parts = [
        function(torch.from_numpy(images.uint8(slice(i, i + 500))).float() / 255) for i in range(0, len(images), 500)
    ]
    return torch.cat(parts).numpy()
