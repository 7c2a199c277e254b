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

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from vaelab.analysis.baseline import POINTS, Reference, shown
from vaelab.analysis.interpolation import alphas, draw_pairs, interpolate
from vaelab.analysis.projections import kmeans, pca
from vaelab.analysis.representation import alike, look_at, pixels, tell_apart
from vaelab.analysis.samples import frechet, has_prior, prior_samples
from vaelab.analysis.separability import linear_probe
from vaelab.core.console import progress
from vaelab.core.files import read_json, write_json
from vaelab.core.tensors import read_tensors, write_tensors
from vaelab.datasets.images import Images
from vaelab.evaluation.evidence import log_evidence
from vaelab.evaluation.image_quality import detail
from vaelab.evaluation.metrics import batches, encode_all, likelihood_of
from vaelab.evaluation.statistics import Arrays, Numbers
from vaelab.runs.run import Run

__all__ = ["EXAMINATIONS", "arrays", "examine", "examined", "is_examined"]

PAIRS = 200  # of interpolation, in numbers

SHOWN = 7  # and in pictures

STEPS = 21  # values of alpha

SAMPLES = 2000  # of the prior, in numbers

COMPARED = 2000, 1000  # test images, and samples of the posterior of each, with which runs are compared

STATED = POINTS, 5000  # and those of the figures in the literature

KEPT = 64  # and in pictures


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
        "originals": _uint8(made.originals[:SHOWN]),
        "images": _uint8(made.images[:SHOWN]),
        "alphas": made.alphas.numpy(),
        "ends": np.array(ends),
    }
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
    numbers = {
        "negative_log_evidence": -found.value.mean().item(),
        "effective_samples": found.effective.mean().item(),
        "error_of_sampling": found.error_of_mean,
        "error_over_images": found.value.std().item() / math.sqrt(len(found.value)),
    }
    return numbers, {}


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
