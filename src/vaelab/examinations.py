r"""Examinations: what is found out about a finished run besides its metrics, once, and kept beside it.

    features         codes against pixels and a classifier's features: PCA, k-means, t-SNE, and numbers
    interpolations   paths between categories, and how the classifier sees them
    samples          images of the prior: how much they differ, how sharp they are, how far from the test images
    evidence         -log p(x) of test images by importance sampling, enough of both to compare runs
    full_evidence    the same as the literature states it, of all test images by 5,000 samples: minutes a run
    leaks            what the colours of background, hair and skin alone tell of the category

An examination is a function (run, reference) -> (numbers, arrays) and stands in `EXAMINATIONS` under its name. It
leaves <run>/examinations/<name>.json and .safetensors. A `Reference` is what all runs of one data set are held against;
it is made once, too.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from vaelab.classifier import Classifier, accuracy, train_classifier
from vaelab.console import progress
from vaelab.evidence import log_evidence
from vaelab.files import read_json, write_json
from vaelab.images import Dataset, Images
from vaelab.interpolation import alphas, draw_pairs, interpolate
from vaelab.metrics import batches, detail, encode_all, likelihood_of
from vaelab.models import VAE
from vaelab.networks import Shape
from vaelab.projections import kmeans, panels, pca
from vaelab.separation import agreement, canonical_correlations, distance_ratio, linear_probe, nearest_neighbour
from vaelab.spec import Spec
from vaelab.store import Run, read_tensors, write_tensors
from vaelab.streams import stream

__all__ = [
    "EXAMINATIONS",
    "Reference",
    "arrays",
    "beside",
    "examine",
    "examined",
    "frechet",
    "has_prior",
    "is_examined",
    "pixels",
    "prior_samples",
    "reference",
]

VERSION = 1  # of what a reference holds
POINTS = 10_000  # of the test split, in features
FITTED = 10_000  # training images to which a linear probe is fitted
PAIRS = 200  # of interpolation, in numbers
SHOWN = 7  # and in pictures
STEPS = 21  # values of alpha
SAMPLES = 2000  # of the prior, in numbers
COMPARED = 2000, 1000  # test images, and samples of the posterior of each, with which runs are compared
STATED = POINTS, 5000  # and those of the figures in the literature
KEPT = 64  # and in pictures

Numbers = dict[str, float]
Arrays = dict[str, np.ndarray]


def folder(run: Run) -> Path:
    return run.path / "examinations"


def examined(run: Run) -> dict[str, Numbers]:
    """The numbers of every examination that a run has been through, by name."""
    return {file.stem: read_json(file) for file in sorted(folder(run).glob("*.json"))}


def is_examined(run: Run, name: str) -> bool:
    return (folder(run) / f"{name}.json").exists()


def arrays(run: Run, name: str) -> Arrays:
    """The arrays that an examination left; empty where it has not been made."""
    file = folder(run) / f"{name}.safetensors"
    return {n: t.numpy() for n, t in read_tensors(file)[0].items()} if file.exists() else {}


def examine(run: Run, name: str, against: Reference) -> None:
    """Carry out one examination; the numbers, written last, say that it is done."""
    numbers, found = EXAMINATIONS[name](run, against)
    if found:
        write_tensors(folder(run) / f"{name}.safetensors", {n: torch.from_numpy(a) for n, a in found.items()})
    write_json(folder(run) / f"{name}.json", numbers)


# What runs are held against.


def beside(run: Run) -> Path:
    """The folder of the references of a run: that of its study, or one beside it."""
    of_study = run.path.parent.parent / "references"
    return of_study if of_study.is_dir() else run.path.parent / "references"


@dataclass(frozen=True)
class Reference:
    """What all runs of a data set and a seed are held against, made once and kept in the folder `where`."""

    dataset: Dataset
    seed: int
    where: Path

    @property
    def tested(self) -> Images:
        """The points of features: of the test split, or what comes nearest to it."""
        return shown(self.dataset).spread(POINTS)

    @property
    def fitted(self) -> Images:
        return self.dataset.splits["train"].spread(FITTED)

    @property
    def clusters(self) -> int:
        return len(self.tested.categories) or 10

    @cached_property
    def classifier(self) -> Classifier | None:
        """A classifier of the training images; none without two categories."""
        train, file = self.dataset.splits["train"], self.where / "classifier.safetensors"
        if np.unique(train.label()[train.label() >= 0]).size < 2:
            return None
        if not file.exists():
            write_tensors(file, train_classifier(train, self.seed).state_dict())
        model = Classifier(train.shape, len(train.categories))
        model.load_state_dict(read_tensors(file)[0])
        return model.eval().requires_grad_(False)

    @cached_property
    def views(self) -> tuple[Numbers, Arrays]:
        """What is known of the pixels, and of the classifier's features."""
        file = self.where / "views.safetensors"
        if not file.exists():
            numbers, found = self._look()
            write_tensors(file, {n: torch.from_numpy(a) for n, a in found.items()}, {"numbers": numbers})
        tensors, kept = read_tensors(file)
        return kept["numbers"], {n: t.numpy() for n, t in tensors.items()}

    def _look(self) -> tuple[Numbers, Arrays]:
        numbers, found = look_at("raw", pixels(self.tested), pixels(self.fitted), self)
        if self.classifier is None:
            return numbers, found
        tested, fitted = (_in_parts(self.classifier.features, images) for images in (self.tested, self.fitted))
        more, places = look_at("classifier", tested, fitted, self)
        more["classifier_accuracy"] = accuracy(self.classifier, self.tested)
        more["correlation_classifier"] = alike(found["raw_pca"], places["classifier_pca"])
        return numbers | more, found | places


def shown(dataset: Dataset) -> Images:
    splits = dataset.splits
    return splits.get("test") or splits.get("validation") or splits["train"]


def reference(dataset: Dataset, seed: int, where: Path) -> Reference:
    """The reference of a data set for runs of a seed, in a folder of its own below `where`."""
    name = [VERSION, dataset.fingerprint, dataset.size, dataset.validation, dataset.subset, seed]
    name += [dataset.binarise] if dataset.binarise else []  # older references keep their names
    return Reference(dataset, seed, where / hashlib.blake2b(json.dumps(name).encode(), digest_size=8).hexdigest())


def pixels(images: Images) -> np.ndarray:
    """The pixels in [0, 1], (N, C H W)."""
    return images.uint8().reshape(len(images), -1).astype(np.float32) / 255


def _in_parts(function: Callable[[Tensor], Tensor], images: Images) -> np.ndarray:
    parts = [function(torch.from_numpy(images.uint8(slice(i, i + 500))).float() / 255)
             for i in range(0, len(images), 500)]  # fmt: skip
    return torch.cat(parts).numpy()


def look_at(space: str, tested: np.ndarray, fitted: np.ndarray, against: Reference) -> tuple[Numbers, Arrays]:
    """The three views of a space of points, and how far it tells the categories apart."""
    views = panels(tested, against.clusters, against.seed, f"t-SNE of {space}")
    found = {f"{space}_{name}": np.ascontiguousarray(view) for name, view in views._asdict().items()}
    numbers = tell_apart(space, tested, fitted, against, views.clusters)
    known = against.tested.label() >= 0
    if known.any():
        numbers[f"{space}_tsne_ratio"] = distance_ratio(views.tsne[known], against.tested.label()[known])
    return numbers, found


def tell_apart(space: str, tested: np.ndarray, fitted: np.ndarray, against: Reference,
               clusters: np.ndarray) -> Numbers:  # fmt: skip
    """The numbers of one space, of the points that have labels."""
    labels, other = against.tested.label(), against.fitted.label()
    known, those = labels >= 0, other >= 0
    if np.unique(labels[known]).size < 2 or np.unique(other[those]).size < 2:
        return {}
    points, labels = tested[known], labels[known]
    numbers = agreement(clusters[known], labels) | {
        "neighbour": nearest_neighbour(points, labels),
        "probe": linear_probe((fitted[those], other[those]), (points, labels)),
        "ratio": distance_ratio(points, labels),
    }
    return {f"{space}_{name}": value for name, value in numbers.items()}


def alike(first: np.ndarray, second: np.ndarray) -> float:
    """The mean canonical correlation of two matrices of scores."""
    return float(canonical_correlations(first, second).mean())


# The examinations.


def features(run: Run, against: Reference) -> tuple[Numbers, Arrays]:
    tested, fitted = (encode_all(run.model, images).mean.numpy() for images in (against.tested, against.fitted))
    numbers, found = look_at("codes", tested, fitted, against)
    others = against.views
    numbers["correlation"] = alike(others[1]["raw_pca"], found["codes_pca"])
    both = np.concatenate([pixels(against.tested), pixels(against.fitted)])
    scores, _ = pca(both, min(run.model.latent_dim, both.shape[1]))  # as many components as the code has
    halves = scores[: len(tested)], scores[len(tested) :]
    clusters = kmeans(halves[0][:, :3], against.clusters, against.seed)
    numbers |= tell_apart("pca", *halves, against, clusters)
    rows = np.linspace(0, len(shown(against.dataset)) - 1, len(tested)).astype(np.int64)
    return others[0] | numbers, others[1] | found | {"labels": against.tested.label(), "rows": rows}


@torch.no_grad()
def interpolations(run: Run, against: Reference) -> tuple[Numbers, Arrays]:
    images = shown(against.dataset)
    start, end, ends = pairs_of(images)
    made = interpolate(run.model, images.uint8(start), images.uint8(end), alphas(STEPS))
    found = {
        "originals": _uint8(made.originals[:SHOWN]), "images": _uint8(made.images[:SHOWN]),
        "alphas": made.alphas.numpy(), "ends": np.array(ends),
    }  # fmt: skip
    if against.classifier is None or (images.label(end) < 0).any():
        return {}, found
    seen = against.classifier.probabilities(made.images.flatten(0, 1)).unflatten(0, made.images.shape[:2])
    p = seen[torch.arange(len(end)), :, torch.from_numpy(images.label(end))].numpy()
    rises = np.diff(p[:, ::4], axis=1) >= 0
    numbers = {f"probability_{round(100 * a)}": float(v) for a, v in zip(found["alphas"], p.mean(0), strict=True)}
    return numbers | {"rising": float(rises.all(1).mean())}, found | {"probability": p[:SHOWN]}


def pairs_of(images: Images) -> tuple[np.ndarray, np.ndarray, tuple[int, int]]:
    """Where paths start and end: of two categories from the second, as in report A, to the first; else of any two."""
    labels = images.label()
    if len(images.categories) == 2 and set(labels) >= {0, 1}:
        start, end = draw_pairs(images, PAIRS, images.categories[1], images.categories[0])
        return start, end, (1, 0)
    start, end = draw_pairs(images, PAIRS)
    differ = (labels[start] != labels[end]) | (labels[start] < 0)
    return (start[differ], end[differ], (-1, -1)) if differ.sum() >= SHOWN else (start, end, (-1, -1))


def _uint8(x: Tensor) -> np.ndarray:
    return x.clamp(0, 1).mul(255).round().to(torch.uint8).numpy()


def has_prior(spec: Spec, shape: Shape) -> bool:
    """Whether the codes were drawn to the prior at all: with KL weight 0, samples of it mean nothing."""
    return spec.objective.effective_kl_weight(shape) != 0


@torch.no_grad()
def prior_samples(model: VAE, count: int, seed: int = 0) -> Tensor:
    """The mean images of codes drawn from the prior, (count, C, H, W)."""
    codes = torch.randn(count, model.latent_dim, generator=stream(seed, "samples"))
    return torch.cat([model.images(part) for part in codes.split(500)])


@torch.no_grad()
def samples(run: Run, against: Reference) -> tuple[Numbers, Arrays]:
    if not has_prior(run.spec, run.model.shape):
        return {}, {}
    made = prior_samples(run.model, SAMPLES)
    real = torch.from_numpy(shown(against.dataset).spread(SAMPLES).uint8()).float() / 255
    numbers = {
        "diversity": float(made.std(0).mean() / real.std(0).mean()),
        "sharpness": float((detail(made).mean() / detail(real).mean()).sqrt()),
    }
    if against.classifier is not None:
        numbers["distance"] = frechet(*(against.classifier.features(x).double().numpy() for x in (made, real)))
    return numbers, {"images": _uint8(made[:KEPT])}


def evidence(run: Run, against: Reference) -> tuple[Numbers, Arrays]:
    return _evidence(run, against, *COMPARED)


def full_evidence(run: Run, against: Reference) -> tuple[Numbers, Arrays]:
    return _evidence(run, against, *STATED)


def _evidence(run: Run, against: Reference, count: int, samples: int) -> tuple[Numbers, Arrays]:
    likelihood = likelihood_of(run.model, run.spec.objective)
    if likelihood is None:
        return {}, {}
    images = shown(against.dataset).spread(count)
    with progress("log evidence", len(images)) as advance:
        found = log_evidence(run.model, likelihood, images, samples, advance)
    numbers = {"negative_log_evidence": -found.value.mean().item(), "effective_samples": found.effective.mean().item(),
               "error_of_sampling": found.error_of_mean,
               "error_over_images": found.value.std().item() / math.sqrt(len(found.value))}  # fmt: skip
    return numbers, {}


def frechet(first: np.ndarray, second: np.ndarray) -> float:
    r"""|m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2)) between the Gaussians fitted to two sets of features.

    Source: GANs Trained by a Two Time-Scale Update Rule, arXiv 1706.08500, with the features of our own classifier:
    its unit is no one else's.
    """
    means = [x.mean(0) for x in (first, second)]
    covariances = [np.cov(x, rowvar=False) for x in (first, second)]
    eigenvalues = np.linalg.eigvals(covariances[0] @ covariances[1]).real.clip(0)
    return float(np.square(means[0] - means[1]).sum() + sum(np.trace(c) for c in covariances)
                 - 2 * np.sqrt(eigenvalues).sum())  # fmt: skip


PATCHES: dict[str, Callable[[int, int], list[tuple[slice, slice]]]] = {
    "background": lambda h, w: [(slice(0, h // 8), slice(0, w // 8)), (slice(0, h // 8), slice(w - w // 8, w))],
    "hair": lambda h, w: [(slice(0, h // 8), slice(3 * w // 8, 5 * w // 8))],
    "skin": lambda h, w: [(slice(3 * h // 8, 5 * h // 8), slice(3 * w // 8, 5 * w // 8))],
}  # of a face that fills its picture: the upper corners, the middle of the upper edge, and the middle


@torch.no_grad()
def leaks(run: Run, against: Reference) -> tuple[Numbers, Arrays]:
    tested, fitted = shown(against.dataset), against.fitted
    if np.unique(tested.label()[tested.label() >= 0]).size < 2:
        return {}, {}
    numbers = {}
    for what, see in (("", run.model.reconstruct), ("_original", lambda x: x)):
        views = [torch.cat([see(batch.x) for batch in batches(run.model, images)]) for images in (fitted, tested)]
        for name, places in PATCHES.items():
            colours = [_colours(x, places(*x.shape[2:])) for x in views]
            numbers[f"{name}{what}"] = linear_probe((colours[0], fitted.label()), (colours[1], tested.label()))
    counts = np.bincount(tested.label())
    return numbers | {"chance": float(counts.max() / counts.sum())}, {}


def _colours(x: Tensor, places: list[tuple[slice, slice]]) -> np.ndarray:
    """The mean colour of patches of images (N, C, H, W) and its square, (N, 2 C)."""
    mean = torch.cat([x[:, :, rows, columns].flatten(2) for rows, columns in places], 2).mean(2)
    return torch.cat([mean, mean.square()], 1).numpy()


EXAMINATIONS: dict[str, Callable[[Run, Reference], tuple[Numbers, Arrays]]] = {
    f.__name__: f for f in (features, interpolations, samples, evidence, full_evidence, leaks)
}
