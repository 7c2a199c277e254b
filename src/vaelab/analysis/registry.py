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

from vaelab.analysis.baseline import MAX_FEATURE_POINTS, Baseline, display_split
from vaelab.analysis.interpolation import alpha_values, draw_pairs, interpolate_images
from vaelab.analysis.projections import kmeans, pca
from vaelab.analysis.representation import flat_pixels, mean_cca, measure_separability, project
from vaelab.analysis.samples import frechet_distance, has_prior_term, sample_prior
from vaelab.analysis.separability import linear_probe_accuracy
from vaelab.core.console import progress
from vaelab.core.files import read_json, write_json
from vaelab.core.tensors import read_tensors, write_tensors
from vaelab.datasets.images import Images
from vaelab.evaluation.evidence import log_evidence
from vaelab.evaluation.image_quality import laplacian_energy
from vaelab.evaluation.metrics import batches, encode_all, likelihood_of
from vaelab.evaluation.statistics import Arrays, Numbers
from vaelab.runs.run import Run

__all__ = ["ANALYSES", "has_analysis", "read_analyses", "read_analysis_arrays", "run_analysis"]

NUM_PAIRS = 200  # of interpolation, in numbers

SHOWN_PAIRS = 7  # and in pictures

NUM_ALPHAS = 21  # values of alpha

NUM_PRIOR_SAMPLES = 2000  # of the prior, in numbers

EVIDENCE_BUDGET = 2000, 1000  # test images, and samples of the posterior of each, with which runs are compared

FULL_EVIDENCE_BUDGET = MAX_FEATURE_POINTS, 5000  # and those of the figures in the literature

SAVED_SAMPLES = 64  # and in pictures


def analyses_dir(run: Run) -> Path:
    return run.path / "examinations"


def read_analyses(run: Run) -> dict[str, Numbers]:
    """The numbers of every examination that a run has been through, by name."""
    return {file.stem: read_json(file) for file in sorted(analyses_dir(run).glob("*.json"))}


def has_analysis(run: Run, name: str) -> bool:
    return (analyses_dir(run) / f"{name}.json").exists()


def read_analysis_arrays(run: Run, name: str) -> Arrays:
    """The arrays that an examination left; empty where it has not been made."""
    file = analyses_dir(run) / f"{name}.safetensors"
    return {n: t.numpy() for n, t in read_tensors(file)[0].items()} if file.exists() else {}


def run_analysis(run: Run, name: str, baseline: Baseline) -> None:
    """Carry out one examination; the numbers, written last, say that it is done."""
    numbers, found = ANALYSES[name](run, baseline)
    if found:
        write_tensors(analyses_dir(run) / f"{name}.safetensors", {n: torch.from_numpy(a) for n, a in found.items()})
    write_json(analyses_dir(run) / f"{name}.json", numbers)


# The examinations.


def analyse_features(run: Run, baseline: Baseline) -> tuple[Numbers, Arrays]:
    tested, fitted = (
        encode_all(run.model, images).mean.numpy() for images in (baseline.test_images, baseline.probe_images)
    )
    numbers, found = project("codes", tested, fitted, baseline)
    others = baseline.projections
    numbers["correlation"] = mean_cca(others[1]["raw_pca"], found["codes_pca"])
    both = np.concatenate([flat_pixels(baseline.test_images), flat_pixels(baseline.probe_images)])
    scores, _ = pca(both, min(run.model.latent_dim, both.shape[1]))  # as many components as the code has
    halves = scores[: len(tested)], scores[len(tested) :]
    clusters = kmeans(halves[0][:, :3], baseline.num_clusters, baseline.seed)
    numbers |= measure_separability("pca", *halves, baseline, clusters)
    rows = np.linspace(0, len(display_split(baseline.dataset)) - 1, len(tested)).astype(np.int64)
    return others[0] | numbers, others[1] | found | {"labels": baseline.test_images.label(), "rows": rows}


@torch.no_grad()
def analyse_interpolations(run: Run, baseline: Baseline) -> tuple[Numbers, Arrays]:
    images = display_split(baseline.dataset)
    start, end, ends = interpolation_pairs(images)
    made = interpolate_images(run.model, images.uint8(start), images.uint8(end), alpha_values(NUM_ALPHAS))
    found = {
        "originals": _to_uint8(made.originals[:SHOWN_PAIRS]),
        "images": _to_uint8(made.images[:SHOWN_PAIRS]),
        "alphas": made.alphas.numpy(),
        "ends": np.array(ends),
    }
    if baseline.classifier is None or (images.label(end) < 0).any():
        return {}, found
    seen = baseline.classifier.probabilities(made.images.flatten(0, 1)).unflatten(0, made.images.shape[:2])
    p = seen[torch.arange(len(end)), :, torch.from_numpy(images.label(end))].numpy()
    rises = np.diff(p[:, ::4], axis=1) >= 0
    numbers = {f"probability_{round(100 * a)}": float(v) for a, v in zip(found["alphas"], p.mean(0), strict=True)}
    return numbers | {"rising": float(rises.all(1).mean())}, found | {"probability": p[:SHOWN_PAIRS]}


def interpolation_pairs(images: Images) -> tuple[np.ndarray, np.ndarray, tuple[int, int]]:
    """Where paths start and end: of two categories from the second, as in report A, to the first; else of any two."""
    labels = images.label()
    if len(images.categories) == 2 and set(labels) >= {0, 1}:
        start, end = draw_pairs(images, NUM_PAIRS, images.categories[1], images.categories[0])
        return start, end, (1, 0)
    start, end = draw_pairs(images, NUM_PAIRS)
    differ = (labels[start] != labels[end]) | (labels[start] < 0)
    return (start[differ], end[differ], (-1, -1)) if differ.sum() >= SHOWN_PAIRS else (start, end, (-1, -1))


def _to_uint8(x: Tensor) -> np.ndarray:
    return x.clamp(0, 1).mul(255).round().to(torch.uint8).numpy()


@torch.no_grad()
def analyse_samples(run: Run, baseline: Baseline) -> tuple[Numbers, Arrays]:
    if not has_prior_term(run.spec, run.model.shape):
        return {}, {}
    made = sample_prior(run.model, NUM_PRIOR_SAMPLES)
    real = torch.from_numpy(display_split(baseline.dataset).evenly_spaced(NUM_PRIOR_SAMPLES).uint8()).float() / 255
    numbers = {
        "diversity": float(made.std(0).mean() / real.std(0).mean()),
        "sharpness": float((laplacian_energy(made).mean() / laplacian_energy(real).mean()).sqrt()),
    }
    if baseline.classifier is not None:
        numbers["distance"] = frechet_distance(
            *(baseline.classifier.features(x).double().numpy() for x in (made, real))
        )
    return numbers, {"images": _to_uint8(made[:SAVED_SAMPLES])}


def analyse_evidence(run: Run, baseline: Baseline) -> tuple[Numbers, Arrays]:
    return _importance_sample(run, baseline, *EVIDENCE_BUDGET)


def analyse_full_evidence(run: Run, baseline: Baseline) -> tuple[Numbers, Arrays]:
    return _importance_sample(run, baseline, *FULL_EVIDENCE_BUDGET)


def _importance_sample(run: Run, baseline: Baseline, count: int, samples: int) -> tuple[Numbers, Arrays]:
    likelihood = likelihood_of(run.model, run.spec.objective)
    if likelihood is None:
        return {}, {}
    images = display_split(baseline.dataset).evenly_spaced(count)
    with progress("log evidence", len(images)) as advance:
        found = log_evidence(run.model, likelihood, images, samples, advance)
    numbers = {
        "negative_log_evidence": -found.value.mean().item(),
        "effective_samples": found.effective_sample_size.mean().item(),
        "error_of_sampling": found.standard_error_of_mean,
        "error_over_images": found.value.std().item() / math.sqrt(len(found.value)),
    }
    return numbers, {}


FACE_PATCHES: dict[str, Callable[[int, int], list[tuple[slice, slice]]]] = {
    "background": lambda h, w: [(slice(0, h // 8), slice(0, w // 8)), (slice(0, h // 8), slice(w - w // 8, w))],
    "hair": lambda h, w: [(slice(0, h // 8), slice(3 * w // 8, 5 * w // 8))],
    "skin": lambda h, w: [(slice(3 * h // 8, 5 * h // 8), slice(3 * w // 8, 5 * w // 8))],
}  # of a face that fills its picture: the upper corners, the middle of the upper edge, and the middle


@torch.no_grad()
def probe_shortcuts(run: Run, baseline: Baseline) -> tuple[Numbers, Arrays]:
    tested, fitted = display_split(baseline.dataset), baseline.probe_images
    if np.unique(tested.label()[tested.label() >= 0]).size < 2:
        return {}, {}
    numbers = {}
    for what, see in (("", run.model.reconstruct), ("_original", lambda x: x)):
        views = [torch.cat([see(batch.x) for batch in batches(run.model, images)]) for images in (fitted, tested)]
        for name, places in FACE_PATCHES.items():
            colours = [_patch_colors(x, places(*x.shape[2:])) for x in views]
            numbers[f"{name}{what}"] = linear_probe_accuracy((colours[0], fitted.label()), (colours[1], tested.label()))
    counts = np.bincount(tested.label())
    return numbers | {"chance": float(counts.max() / counts.sum())}, {}


def _patch_colors(x: Tensor, patches: list[tuple[slice, slice]]) -> np.ndarray:
    """The mean colour of patches of images (N, C, H, W) and its square, (N, 2 C)."""
    mean = torch.cat([x[:, :, rows, columns].flatten(2) for rows, columns in patches], 2).mean(2)
    return torch.cat([mean, mean.square()], 1).numpy()


ANALYSES: dict[str, Callable[[Run, Baseline], tuple[Numbers, Arrays]]] = {
    "features": analyse_features,
    "interpolations": analyse_interpolations,
    "samples": analyse_samples,
    "evidence": analyse_evidence,
    "full_evidence": analyse_full_evidence,
    "leaks": probe_shortcuts,
}
