r"""Analyses: what is computed from a finished run besides its metrics, once, and kept beside it.

    features         codes compared with pixels and a classifier's features: PCA, k-means, t-SNE, and numbers
    interpolations   paths between categories, and the probabilities that the classifier gives along them
    samples          samples of the prior: their diversity, their sharpness, and their distance from the test images
    evidence         -log p(x) of test images by importance sampling, precise enough to compare runs
    full_evidence    the same as in the literature, of all test images by 5,000 samples: minutes for each run
    leaks            how well the colours of background, hair and skin alone predict the category
    baselines        what principal components of as many dimensions as the code come to on the same test images
    health           the statistics that the doctor's checks look at, for the verdicts of a study
    image_values     the metrics of each test image, so that a study compares runs image by image
    initial          the terms of the loss before the first step

An analysis is a function (run, baseline) -> `AnalysisResult`. `ANALYSES` has each under the name that files and study
definitions use. Its results are <run>/examinations/<name>.json and .safetensors.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from vaelab.analysis.baseline import MAX_FEATURE_POINTS, Baseline, display_split
from vaelab.analysis.classifier import has_two_categories
from vaelab.analysis.comparison import analyse_health, analyse_image_values
from vaelab.analysis.initial import analyse_initial
from vaelab.analysis.interpolation import alpha_values, draw_pairs, interpolate_images
from vaelab.analysis.principal_components import equal_dimension
from vaelab.analysis.projections import kmeans, pca
from vaelab.analysis.representation import flat_pixels, mean_cca, separability_numbers
from vaelab.analysis.results import AnalysisResult
from vaelab.analysis.samples import (
    corrected_frechet_distance,
    extract_features,
    frechet_distance,
    has_prior_term,
    sample_prior,
)
from vaelab.analysis.separability import LabelledPoints, linear_probe_accuracy
from vaelab.core.console import notice
from vaelab.core.errors import UserError
from vaelab.core.files import files_in, read_json, to_json, write_text
from vaelab.core.seals import is_intact, seal_files
from vaelab.core.tensors import read_tensors, write_tensors
from vaelab.datasets.images import Images
from vaelab.evaluation.catalogue import REPRESENTATION_LABELS
from vaelab.evaluation.evidence import run_log_evidence
from vaelab.evaluation.image_quality import SHARPNESS_SIDE, laplacian_energy, laplacian_variance
from vaelab.evaluation.metrics import batches, encode_all
from vaelab.evaluation.ratios import reduced
from vaelab.runs.run import Run

__all__ = ["ANALYSES", "has_analysis", "read_analyses", "read_analysis_arrays", "run_analysis"]

NUM_PAIRS = 200  # pairs of interpolations that numbers are computed from

SHOWN_PAIRS = 7  # pairs of which images are kept

NUM_ALPHAS = 21  # values of alpha on each path

ALPHA_STRIDE = 4  # whether a probability rises is seen at every fourth alpha: 0, 0.2, ..., 1

NUM_PRIOR_SAMPLES = 2000  # samples that numbers are computed from

SAVED_SAMPLES = 64  # samples of which images are kept

EVIDENCE_BUDGET = 2000, 1000  # test images, and samples of the posterior of each, with which runs are compared

FULL_EVIDENCE_BUDGET = MAX_FEATURE_POINTS, 5000  # and those of the figures in the literature


# Numbers that analyses of earlier versions do not have, each with one that stands beside it wherever it is defined.
LATER_NUMBERS = {
    "sharpness_ratio": "sharpness",
    "distance_corrected": "distance",
    "negative_log_evidence_corrected": "negative_log_evidence",
} | {f"{representation}_ami": f"{representation}_nmi" for representation in REPRESENTATION_LABELS}


def analyses_dir(run: Run) -> Path:
    """The folder of the results of a run's analyses."""
    return run.path / "examinations"


def read_analyses(run: Run) -> dict[str, dict[str, float | None]]:
    """The numbers of every analysis that was made of a run, by the name of the analysis.

    Args:
        run: The run.

    Returns:
        The numbers by name; None where one is not defined for the data.

    Raises:
        UserError: A file is damaged.
    """
    analyses = {}
    for file in files_in(analyses_dir(run), "*.json"):
        _check_seal(run, file.stem)
        _check_readable(file.with_suffix(".safetensors"))
        analyses[file.stem] = read_json(file, schema=dict[str, float | None])
    return analyses


def _seal_file(run: Run, name: str) -> Path:
    """The file with the digests of an analysis; those of earlier versions have none."""
    return analyses_dir(run) / f"{name}.seal"


def _check_readable(arrays: Path) -> None:
    """Refuse arrays that cannot be opened: they are read later, one analysis at a time."""
    try:
        arrays.open("rb").close()
    except FileNotFoundError:  # there are none
        return
    except OSError as error:
        raise UserError(f"cannot read {arrays}: {error.strerror or error}") from None


def _check_seal(run: Run, name: str) -> None:
    """Refuse an analysis whose files have changed."""
    seal = _seal_file(run, name)
    if seal.exists() and not is_intact(seal, f"{name}.json"):
        raise UserError(
            f"{analyses_dir(run) / name}.json or .safetensors is damaged (its content has changed);\n"
            "`vaelab study` makes it again"
        )


def has_analysis(run: Run, name: str, required: Collection[str] = ()) -> bool:
    """Whether an analysis was made of a run, its files are whole, and no earlier version made it without a number.

    Args:
        run: The run.
        name: The analysis.
        required: The numbers of it that are needed. One that is not defined for the data may be missing.
    """
    file = analyses_dir(run) / f"{name}.json"
    if not file.exists():
        return False
    try:
        _check_seal(run, name)
        numbers = read_json(file, schema=dict[str, float | None])
    except UserError:
        notice(f"{file} is damaged and is made again")
        return False
    later = [number for number in required if number not in numbers and LATER_NUMBERS.get(number) in numbers]
    if later:
        notice(f"{file} is of an earlier version without {', '.join(later)} and is made again")
    return not later


def read_analysis_arrays(run: Run, name: str) -> dict[str, np.ndarray]:
    """The arrays that an analysis left; empty where there are none."""
    file = analyses_dir(run) / f"{name}.safetensors"
    if not file.exists():
        return {}
    _check_seal(run, name)
    tensors, _ = read_tensors(file)
    return {name: tensor.numpy() for name, tensor in tensors.items()}


def run_analysis(run: Run, name: str, baseline: Baseline) -> None:
    """Make an analysis and store its results. The numbers are written last, and say that it is complete and sealed."""
    result = ANALYSES[name](run, baseline)
    numbers, arrays = (analyses_dir(run) / f"{name}{suffix}" for suffix in (".json", ".safetensors"))
    numbers.unlink(missing_ok=True)
    if result.arrays:
        write_tensors(arrays, {name: torch.from_numpy(array) for name, array in result.arrays.items()})
    text = to_json({name: value if math.isfinite(value) else None for name, value in result.numbers.items()})
    seal_files(_seal_file(run, name), [arrays] if result.arrays else [], {numbers.name: text.encode()})
    write_text(numbers, text)


# Features


def analyse_features(run: Run, baseline: Baseline) -> AnalysisResult:
    """The codes, compared with pixels, principal components of pixels, and the features of a classifier."""
    test_codes = encode_all(run.model, baseline.test_images).mean.numpy()
    probe_codes = encode_all(run.model, baseline.probe_images).mean.numpy()
    codes = baseline.project("codes", test_codes, probe_codes)
    others = baseline.projections
    correlation = {"correlation": mean_cca(others.arrays["raw_pca"], codes.arrays["codes_pca"])}
    components = AnalysisResult(_component_separability(run.model.latent_dim, baseline))
    shown = np.linspace(0, len(display_split(baseline.dataset)) - 1, len(test_codes)).astype(np.int64)
    images = AnalysisResult(arrays={"labels": baseline.test_images.label(), "rows": shown})
    result = others.merged(codes).merged(AnalysisResult(correlation))
    return result.merged(components).merged(images)


def _component_separability(latent_dim: int, baseline: Baseline) -> dict[str, float]:
    """How well as many principal components of the pixels as the code has dimensions separate the categories."""
    pixels = np.concatenate([flat_pixels(baseline.test_images), flat_pixels(baseline.probe_images)])
    scores, _ = pca(pixels, min(latent_dim, pixels.shape[1]))
    count = len(baseline.test_images)
    test_scores, probe_scores = scores[:count], scores[count:]
    clusters = kmeans(test_scores[:, :3], baseline.num_clusters, baseline.seed)
    return separability_numbers("pca", baseline.label_test(test_scores), baseline.label_probe(probe_scores), clusters)


# Interpolations


class InterpolationPairs(NamedTuple):
    """Where paths start and end, as positions of images, (P,) each; and the two categories, or -1 for any."""

    start: np.ndarray
    end: np.ndarray
    categories: tuple[int, int]


@torch.no_grad()
def analyse_interpolations(run: Run, baseline: Baseline) -> AnalysisResult:
    """Paths between test images, and how probable the classifier finds the category of their end."""
    images = display_split(baseline.dataset)
    pairs = choose_interpolation_pairs(images)
    alphas = alpha_values(NUM_ALPHAS)
    paths = interpolate_images(run.model, images.uint8(pairs.start), images.uint8(pairs.end), alphas)
    arrays = {
        "originals": _to_uint8(paths.originals[:SHOWN_PAIRS]),
        "images": _to_uint8(paths.images[:SHOWN_PAIRS]),
        "alphas": paths.alphas.numpy(),
        "ends": np.array(pairs.categories),
    }
    end_labels = images.label(pairs.end)
    if baseline.classifier is None or (end_labels < 0).any():
        return AnalysisResult({}, arrays)
    flat = baseline.classifier.probabilities(paths.images.flatten(0, 1))
    of_all_categories = flat.unflatten(0, paths.images.shape[:2])  # (P, T, K)
    probability = of_all_categories[torch.arange(len(end_labels)), :, torch.from_numpy(end_labels)].numpy()
    numbers = {}
    for alpha, mean in zip(arrays["alphas"], probability.mean(0), strict=True):
        numbers[f"probability_{round(100 * alpha)}"] = float(mean)
    is_rising = (np.diff(probability[:, ::ALPHA_STRIDE], axis=1) >= 0).all(1)
    numbers["rising"] = float(is_rising.mean())
    arrays["probability"] = probability[:SHOWN_PAIRS]
    return AnalysisResult(numbers, arrays)


def choose_interpolation_pairs(images: Images) -> InterpolationPairs:
    """Pairs of two categories from the second, as in report A, to the first; of more, pairs of different categories."""
    labels = images.label()
    if len(images.categories) == 2 and set(labels) >= {0, 1}:
        start, end = draw_pairs(images, NUM_PAIRS, images.categories[1], images.categories[0])
        return InterpolationPairs(start, end, (1, 0))
    start, end = draw_pairs(images, NUM_PAIRS)
    differ = (labels[start] != labels[end]) | (labels[start] < 0)
    if differ.sum() >= SHOWN_PAIRS:
        start, end = start[differ], end[differ]
    return InterpolationPairs(start, end, (-1, -1))


def _to_uint8(x: Tensor) -> np.ndarray:
    return x.clamp(0, 1).mul(255).round().to(torch.uint8).numpy()


# Samples


@torch.no_grad()
def analyse_samples(run: Run, baseline: Baseline) -> AnalysisResult:
    """Samples of the prior compared with test images; nothing where the codes were not trained to follow the prior."""
    if not has_prior_term(run.spec, run.model.shape):
        return AnalysisResult()
    generated = sample_prior(run.model, NUM_PRIOR_SAMPLES)
    real = torch.from_numpy(display_split(baseline.dataset).evenly_spaced(NUM_PRIOR_SAMPLES).uint8()).float() / 255
    numbers = {
        "diversity": float(generated.std(0).mean() / real.std(0).mean()),
        "sharpness": float((laplacian_energy(generated).mean() / laplacian_energy(real).mean()).sqrt()),
        "sharpness_ratio": float(_mean_sharpness(generated) / _mean_sharpness(real)),
    }
    if baseline.classifier is not None:
        network = baseline.classifier.features
        generated_features = extract_features(network, generated, NUM_PRIOR_SAMPLES)
        real_features = extract_features(network, real, NUM_PRIOR_SAMPLES)
        numbers["distance"] = frechet_distance(generated_features, real_features)
        numbers["distance_corrected"] = corrected_frechet_distance(generated_features, real_features)
    return AnalysisResult(numbers, {"images": _to_uint8(generated[:SAVED_SAMPLES])})


def _mean_sharpness(x: Tensor) -> Tensor:
    """The mean variance of the Laplacian of images (N, C, H, W), at the size at which `sharpness_ratio` is judged."""
    return laplacian_variance(reduced(x, SHARPNESS_SIDE)).mean()


# Evidence


def analyse_evidence(run: Run, baseline: Baseline) -> AnalysisResult:
    """The evidence, precise enough to compare runs."""
    return importance_sample(run, baseline, *EVIDENCE_BUDGET)


def analyse_full_evidence(run: Run, baseline: Baseline) -> AnalysisResult:
    """The evidence as in the literature."""
    return importance_sample(run, baseline, *FULL_EVIDENCE_BUDGET)


def importance_sample(run: Run, baseline: Baseline, max_images: int, samples: int) -> AnalysisResult:
    """The evidence of test images; nothing where the loss stands for no likelihood.

    With fewer than ten effective samples in the median there is no error of sampling: the bias is larger.
    """
    images = display_split(baseline.dataset).evenly_spaced(max_images)
    evidence = run_log_evidence(run, images, samples)
    if evidence is None:
        return AnalysisResult()
    of_images = {
        "negative_log_evidence": -evidence.value.float().numpy(),
        "negative_log_evidence_corrected": -evidence.corrected.float().numpy(),
        "rows": images.rows,
    }
    return AnalysisResult(
        {
            "negative_log_evidence": -evidence.value.mean().item(),
            "negative_log_evidence_corrected": -evidence.corrected.mean().item(),
            "effective_samples": evidence.effective_sample_size.mean().item(),
            "error_of_sampling": evidence.standard_error_of_mean if evidence.has_enough_samples else math.nan,
            "error_over_images": evidence.value.std().item() / math.sqrt(len(evidence.value)),
        },
        of_images,
    )


# Shortcuts

Patch = tuple[slice, slice]  # rows and columns of an image


def background_patches(height: int, width: int) -> list[Patch]:
    """The two upper corners."""
    rows = slice(0, height // 8)
    return [(rows, slice(0, width // 8)), (rows, slice(width - width // 8, width))]


def hair_patches(height: int, width: int) -> list[Patch]:
    """The middle of the upper edge."""
    return [(slice(0, height // 8), slice(3 * width // 8, 5 * width // 8))]


def skin_patches(height: int, width: int) -> list[Patch]:
    """The middle."""
    return [(slice(3 * height // 8, 5 * height // 8), slice(3 * width // 8, 5 * width // 8))]


FACE_PATCHES: dict[str, Callable[[int, int], list[Patch]]] = {  # of a face that fills its image
    "background": background_patches,
    "hair": hair_patches,
    "skin": skin_patches,
}


@torch.no_grad()
def probe_shortcuts(run: Run, baseline: Baseline) -> AnalysisResult:
    """How well the colours of a few patches predict the category, in reconstructions and in the originals."""
    test, probe = display_split(baseline.dataset), baseline.probe_images
    if not has_two_categories(test):
        return AnalysisResult()
    numbers = {}
    for suffix, view in (("", run.model.reconstruct), ("_original", _unchanged)):
        test_x = torch.cat([view(batch.x) for batch in batches(run.model, test)])
        probe_x = torch.cat([view(batch.x) for batch in batches(run.model, probe)])
        for name, patches in FACE_PATCHES.items():
            places = patches(*test_x.shape[2:])
            probe_colors = LabelledPoints(_patch_colors(probe_x, places), probe.label())
            test_colors = LabelledPoints(_patch_colors(test_x, places), test.label())
            numbers[f"{name}{suffix}"] = linear_probe_accuracy(probe_colors, test_colors)
    counts = np.bincount(test.label())
    numbers["chance"] = float(counts.max() / counts.sum())
    return AnalysisResult(numbers)


def _unchanged(x: Tensor) -> Tensor:
    return x


def _patch_colors(x: Tensor, patches: list[Patch]) -> np.ndarray:
    """The mean colour of patches of images (N, C, H, W) and its square, (N, 2 C)."""
    pixels = [x[:, :, rows, columns].flatten(2) for rows, columns in patches]
    mean = torch.cat(pixels, 2).mean(2)
    return torch.cat([mean, mean.square()], 1).numpy()


# Baselines


def analyse_baselines(run: Run, baseline: Baseline) -> AnalysisResult:
    """The test MSE of principal components, of as many dimensions as the code has and for every number of them.

    pca_mse is for the latent dimension of the run (for all components that there are, where it is larger), mean_mse is
    that of the mean training image. equal_dimension is the number of components that are as good as the run.
    """
    errors = baseline.pca_mse
    record = run.metrics.get(display_split(baseline.dataset).split)  # none of a training split
    numbers = {
        "pca_mse": float(errors[min(run.model.latent_dim, len(errors) - 1)]),
        "mean_mse": float(errors[0]),
        "equal_dimension": equal_dimension(errors, record["metrics"]["mse"]["value"]) if record else math.nan,
    }
    return AnalysisResult(numbers, {"pca_curve": errors})


ANALYSES: dict[str, Callable[[Run, Baseline], AnalysisResult]] = {
    "features": analyse_features,
    "initial": analyse_initial,
    "interpolations": analyse_interpolations,
    "samples": analyse_samples,
    "evidence": analyse_evidence,
    "full_evidence": analyse_full_evidence,
    "leaks": probe_shortcuts,
    "baselines": analyse_baselines,
    "health": analyse_health,
    "image_values": analyse_image_values,
}
