"""What a study compares runs by: the statistics of the doctor, and the metrics of single images."""

from __future__ import annotations

import json

import numpy as np
import pytest

from vaelab.analysis import registry
from vaelab.analysis.baseline import Baseline
from vaelab.analysis.comparison import HEALTH_NUMBERS, stored_latent_stats
from vaelab.analysis.registry import read_analyses, read_analysis_arrays, run_analysis
from vaelab.core.tensors import read_tensors, write_tensors
from vaelab.datasets.images import Dataset
from vaelab.evaluation.diagnostics import compute_latent_stats
from vaelab.evaluation.image_values import image_values
from vaelab.objectives.elbo import BetaVAE
from vaelab.runs.run import Run
from vaelab.studies.results import known_numbers


def test_the_values_of_images_have_the_metrics_as_their_means(run: Run, baseline: Baseline) -> None:
    run_analysis(run, "image_values", baseline)
    arrays = read_analysis_arrays(run, "image_values")
    metrics = run.metrics["test"]["metrics"]
    assert (arrays.pop("rows") == run.images("test").rows).all()
    assert {"mse", "ssim", "loss", "kl", "negative_elbo", "cross_entropy_of_mean", "bits_per_dim"} <= set(arrays)
    for name, values in arrays.items():
        assert values.shape == (len(run.images("test")),)
        assert values.dtype == np.float32
        if metrics[name].get("n") is None and name != "sharpness":
            assert np.mean(values, dtype=np.float64) == pytest.approx(metrics[name]["value"], rel=1e-5), name


def test_a_loss_of_whole_batches_has_no_values_of_images(run: Run, digits: Dataset) -> None:
    """With free bits the loss compares the mean over a batch with a bound: images have no losses of their own."""
    images = digits.splits["test"].evenly_spaced(32)
    assert "loss" in image_values(run.model, BetaVAE(), images)
    assert "loss" not in image_values(run.model, BetaVAE(free_bits=5.0), images)


def test_the_evidence_of_images_averages_to_that_of_the_run(run: Run, baseline: Baseline) -> None:
    result = registry.importance_sample(run, baseline, max_images=40, samples=20)
    rows = result.arrays["rows"]
    assert set(rows) <= set(run.images("test").rows)
    assert len(rows) == 40
    for name in ("negative_log_evidence", "negative_log_evidence_corrected"):
        assert result.arrays[name].shape == (40,)
        assert result.arrays[name].mean() == pytest.approx(result.numbers[name], rel=1e-5)


def test_the_statistics_of_the_doctor_are_stored_whole(run: Run, baseline: Baseline) -> None:
    run_analysis(run, "health", baseline)
    numbers = known_numbers(read_analyses(run)["health"])
    assert set(numbers) == set(HEALTH_NUMBERS)
    assert stored_latent_stats(numbers) == compute_latent_stats(run.model, run.images("test"))


def test_weights_that_are_no_numbers_have_no_statistics(run: Run, baseline: Baseline) -> None:
    weights = run.path / "weights.safetensors"
    tensors, metadata = read_tensors(weights)
    next(iter(tensors.values())).fill_(float("nan"))
    write_tensors(weights, tensors, metadata)
    (run.path / "origin.json").write_text(without_digests(run))
    broken = Run(run.path)
    run_analysis(broken, "health", baseline)
    numbers = known_numbers(read_analyses(broken)["health"])
    assert numbers == {"finite": 0.0}
    assert stored_latent_stats(numbers) is None


def without_digests(run: Run) -> str:
    """The origin of a run of an earlier version, which has no digests."""
    origin = json.loads((run.path / "origin.json").read_text())
    return json.dumps({name: value for name, value in origin.items() if name != "digests"})
