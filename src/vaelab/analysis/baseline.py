"""Baselines: what all runs of a data set are compared with, made once for each seed and kept on disk."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
import torch

from vaelab.analysis.classifier import (
    Classifier,
    apply_to_images,
    classifier_accuracy,
    has_two_categories,
    train_classifier,
)
from vaelab.analysis.principal_components import (
    PrincipalComponents,
    fit_principal_components,
    reconstruction_errors,
)
from vaelab.analysis.representation import flat_pixels, mean_cca, project_representation
from vaelab.analysis.results import AnalysisResult
from vaelab.analysis.separability import LabelledPoints
from vaelab.core.console import notice
from vaelab.core.errors import UserError
from vaelab.core.tensors import read_tensors, write_tensors
from vaelab.datasets.images import Dataset, Images
from vaelab.runs.run import Run

__all__ = ["MAX_FEATURE_POINTS", "Baseline", "baseline_dir", "display_split", "open_baseline"]

BASELINE_VERSION = 1  # of the stored files

MAX_FEATURE_POINTS = 10_000  # images of the test split whose representations are analysed

MAX_PROBE_IMAGES = 10_000  # training images to which a linear probe is fitted

Stored = TypeVar("Stored")


class FittedComponents(NamedTuple):
    """Principal components of training images, and the test MSE with 0, 1, ..., K of them, (K + 1,)."""

    components: PrincipalComponents
    errors: np.ndarray


@dataclass(frozen=True)
class Baseline:
    """What all runs of a data set and a seed are compared with.

    Attributes:
        dataset: The data set.
        seed: The seed of the runs.
        folder: Where the files of the baseline are kept.
    """

    dataset: Dataset
    seed: int
    folder: Path

    @property
    def test_images(self) -> Images:
        """The images whose representations are analysed: of the test split, or of what comes nearest to it."""
        return display_split(self.dataset).evenly_spaced(MAX_FEATURE_POINTS)

    @property
    def probe_images(self) -> Images:
        """The training images to which linear probes are fitted."""
        return self.dataset.splits["train"].evenly_spaced(MAX_PROBE_IMAGES)

    @property
    def num_clusters(self) -> int:
        """The clusters of k-means: as many as categories, or ten where there are none."""
        return len(self.test_images.categories) or 10

    @cached_property
    def classifier(self) -> Classifier | None:
        """A classifier of the training images; None for fewer than two categories."""
        train = self.dataset.splits["train"]
        if not has_two_categories(train):
            return None
        file = self.folder / "classifier.safetensors"

        def read() -> Classifier:
            model = Classifier(train.shape, len(train.categories))
            try:
                model.load_state_dict(read_tensors(file)[0])
            except RuntimeError:  # names or shapes that differ
                raise UserError(f"{file} is damaged") from None
            return model.eval().requires_grad_(False)

        def make() -> None:
            write_tensors(file, train_classifier(train, self.seed).state_dict(), with_digest=True)

        return _read_or_make(file, read, make)

    @cached_property
    def projections(self) -> AnalysisResult:
        """The projections of the pixels and of the classifier's features, with their separability."""
        file = self.folder / "views.safetensors"

        def read() -> AnalysisResult:
            tensors, metadata = read_tensors(file)
            if not isinstance(metadata.get("numbers"), dict):
                raise UserError(f"{file} is damaged")
            return AnalysisResult(metadata["numbers"], {name: tensor.numpy() for name, tensor in tensors.items()})

        def make() -> None:
            result = self._compute_projections()
            tensors = {name: torch.from_numpy(array) for name, array in result.arrays.items()}
            write_tensors(file, tensors, {"numbers": dict(result.numbers)}, with_digest=True)

        return _read_or_make(file, read, make)

    @property
    def principal_components(self) -> PrincipalComponents:
        """The mean and the principal axes of the training images, the same for all seeds."""
        return self._fitted_components.components

    @property
    def pca_mse(self) -> np.ndarray:
        """The test MSE of reconstructions from 0, 1, ..., K principal components, per pixel value, (K + 1,)."""
        return self._fitted_components.errors

    @cached_property
    def _fitted_components(self) -> FittedComponents:
        train = self.dataset.splits["train"]
        file = self.folder.parent / _digest(["principal components", *_identity(self.dataset)]) / "pca.safetensors"

        def read() -> FittedComponents:
            tensors, _ = read_tensors(file)
            if set(tensors) != {"mean", "axes", "errors"}:
                raise UserError(f"{file} is damaged")
            components = PrincipalComponents(tensors["mean"], tensors["axes"], train.shape)
            return FittedComponents(components, tensors["errors"].numpy())

        def make() -> None:
            components = fit_principal_components(train)
            errors = torch.from_numpy(reconstruction_errors(components, display_split(self.dataset)))
            tensors = {"mean": components.mean, "axes": components.axes, "errors": errors}
            write_tensors(file, tensors, with_digest=True)

        return _read_or_make(file, read, make)

    def project(self, name: str, test_points: np.ndarray, probe_points: np.ndarray) -> AnalysisResult:
        """`project_representation` for points of `test_images`, (N, D), and of `probe_images`, (M, D)."""
        return project_representation(
            name, self.label_test(test_points), self.label_probe(probe_points), self.num_clusters, self.seed
        )

    def label_test(self, points: np.ndarray) -> LabelledPoints:
        """Points of `test_images`, (N, D), with their labels."""
        return LabelledPoints(points, self.test_images.label())

    def label_probe(self, points: np.ndarray) -> LabelledPoints:
        """Points of `probe_images`, (M, D), with their labels."""
        return LabelledPoints(points, self.probe_images.label())

    def _compute_projections(self) -> AnalysisResult:
        pixels = self.project("raw", flat_pixels(self.test_images), flat_pixels(self.probe_images))
        if self.classifier is None:
            return pixels
        test_features = apply_to_images(self.classifier.features, self.test_images)
        probe_features = apply_to_images(self.classifier.features, self.probe_images)
        features = self.project("classifier", test_features, probe_features)
        comparison = {
            "classifier_accuracy": classifier_accuracy(self.classifier, self.test_images),
            "correlation_classifier": mean_cca(pixels.arrays["raw_pca"], features.arrays["classifier_pca"]),
        }
        return pixels.merged(features).merged(AnalysisResult(comparison))


def baseline_dir(run: Run) -> Path:
    """The folder of the baselines of a run: that of its study, or one beside the run."""
    of_study = run.path.parent.parent / "references"
    return of_study if of_study.is_dir() else run.path.parent / "references"


def display_split(dataset: Dataset) -> Images:
    """The images that figures and analyses show: the test split, or what comes nearest to it."""
    splits = dataset.splits
    return splits.get("test") or splits.get("validation") or splits["train"]


def open_baseline(dataset: Dataset, seed: int, folder: Path) -> Baseline:
    """The baseline of a data set for runs of a seed, in a folder of its own below `folder`."""
    return Baseline(dataset, seed, folder / _digest(_identity(dataset, seed)))


def _identity(dataset: Dataset, *seed: int) -> list[object]:
    """What a baseline depends on: the images of each split, and the seed where it depends on one."""
    identity = [BASELINE_VERSION, dataset.fingerprint, dataset.size, dataset.validation, dataset.subset, *seed]
    if dataset.binarise:  # so that older baselines keep their names
        identity.append(dataset.binarise)
    if dataset.split_seed:
        identity.append(["split_seed", dataset.split_seed])
    return identity


def _digest(identity: list[object]) -> str:
    return hashlib.blake2b(json.dumps(identity).encode(), digest_size=8).hexdigest()


def _read_or_make(file: Path, read: Callable[[], Stored], make: Callable[[], None]) -> Stored:
    """What a file holds. It is made where it is missing, and made again where it is damaged."""
    if file.exists():
        try:
            return read()
        except UserError:
            notice(f"{file} is damaged and is made again")
    make()
    return read()
