"""Metrics: in nats, with their errors, the same for the same images."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import vaelab
from vaelab.core.errors import UserError
from vaelab.core.rng import generator
from vaelab.datasets.images import Dataset
from vaelab.evaluation import metrics, statistics
from vaelab.evaluation.results import Evaluation, Metric
from vaelab.models.likelihoods import (
    CrossEntropy,
    CrossEntropyPlusSquaredError,
    DiscretisedLogistic,
    Gaussian,
    SquaredError,
)
from vaelab.models.networks import Mlp
from vaelab.models.vae import VAE
from vaelab.objectives.elbo import BetaVAE
from vaelab.runs.run import Run


def model(distortion: object = CrossEntropy()) -> VAE:
    torch.manual_seed(0)
    return VAE(Mlp((20,)), distortion, (1, 8, 8), 4).eval()  # type: ignore[arg-type]


def test_images_without_detail_have_no_sharpness_and_are_counted(digits: Dataset) -> None:
    images = digits.splits["test"].select(slice(0, 30))
    pixels = images.uint8()
    pixels[3], pixels[7] = 0, 200
    pixels[9] = 100
    pixels[9, 0, 2, 2] = 101  # a trace of noise
    flat = replace(images, stored_pixels=pixels, rows=np.arange(30), stored_labels=None)
    sharpness = metrics.compute_metrics(model(), BetaVAE(), flat)["sharpness"]
    assert (sharpness.n, sharpness.note) == (27, "3 images without detail left out")
    detailed = np.delete(np.arange(30), [3, 7, 9])
    rest = metrics.compute_metrics(model(), BetaVAE(), images.select(detailed))["sharpness"]
    assert rest.note is None
    assert sharpness.value == pytest.approx(rest.value, rel=1e-6)
    only_flat = replace(images, stored_pixels=np.full_like(pixels, 90), rows=np.arange(30), stored_labels=None)
    assert "sharpness" not in metrics.compute_metrics(model(), BetaVAE(), only_flat)


def test_a_metric_that_is_no_number_is_refused_or_left_out() -> None:
    sound = Evaluation("a run", "digits", "test", 10, {"mse": Metric(0.1)}, [0.5])
    for value in (math.nan, math.inf):
        with pytest.raises(UserError, match="diverged"):
            replace(sound, metrics={"mse": Metric(value)})
        with pytest.raises(UserError, match="diverged"):
            replace(sound, kl_per_dimension=[value])
        assert sound.with_metrics({"distance": Metric(value)}) == sound, "of too few images, say"
    text = json.dumps(replace(sound, metrics={"mse": Metric(0.1, math.nan)}).to_dict(), allow_nan=False)
    assert json.loads(text)["metrics"]["mse"] == {"value": 0.1, "stderr": None}


def test_a_model_that_gives_no_numbers_is_refused(trained: Run, tmp_path: Path) -> None:
    run = vaelab.load(trained.path)
    with torch.no_grad():
        for weights in run.model.parameters():
            weights.mul_(1e30)
    for use in (
        lambda: vaelab.evaluate(run, evidence=0),
        lambda: vaelab.sample(run),
        lambda: vaelab.embed(run, "digits", out=tmp_path / "codes.parquet"),
        lambda: vaelab.interpolate(run),
    ):
        with pytest.raises(UserError, match="diverged"):
            use()
    assert vaelab.doctor(run)[0].state == "alarm"


def test_the_same_images_give_the_same_numbers(digits: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    images = digits.splits["test"]
    first = metrics.compute_metrics(model(), BetaVAE(), images)
    assert first == metrics.compute_metrics(model(), BetaVAE(), images)
    monkeypatch.setattr(metrics, "BATCH_VALUES", 64 * 37)  # 37 images at once
    for name, metric in metrics.compute_metrics(model(), BetaVAE(), images).items():
        assert metric.value == pytest.approx(first[name].value, rel=1e-6)
    monkeypatch.undo()
    part = metrics.compute_metrics(model(), BetaVAE(), images.select(slice(0, 100)))
    sums = statistics.RunningMoments()
    [batch] = metrics.batches(model(), images.select(slice(0, 100)))
    with torch.no_grad():
        sums.add(metrics.elbo_terms(model(), BetaVAE(), model()(batch.x, batch.noise), batch.x))
    for name, metric in sums.metrics().items():
        assert metric.value == pytest.approx(part[name].value, rel=1e-6)


def test_the_bound_is_at_weight_one_whatever_was_trained(digits: Dataset) -> None:
    images = digits.splits["test"]
    measured = {w: metrics.compute_metrics(model(SquaredError()), BetaVAE(w), images) for w in (0.0, 0.5)}
    assert "negative_elbo" not in measured[0.0]
    values = {name: m.value for name, m in measured[0.5].items()}
    variance = 0.25
    expected = values["squared_error"] / (2 * variance) + 32 * math.log(2 * math.pi * variance) + values["kl"]
    assert values["negative_elbo"] == pytest.approx(expected, rel=1e-6)
    assert values["loss"] == pytest.approx(values["squared_error"] + 0.5 * values["kl"], rel=1e-6)
    assert "negative_elbo" not in metrics.compute_metrics(model(CrossEntropyPlusSquaredError()), BetaVAE(), images)
    gaussian = metrics.compute_metrics(model(Gaussian(0.5)), BetaVAE(3.0), images)
    assert gaussian["negative_elbo"].value == pytest.approx(expected, rel=1e-6)


def test_bits_are_those_of_the_levels(digits: Dataset) -> None:
    """For one latent code, bits are log2 of the probability of the stored levels, or bound it from above."""
    images = digits.splits["test"].select(slice(0, 20))
    discrete, dense = model(DiscretisedLogistic(2)), model(Gaussian(0.1))
    values = metrics.compute_metrics(discrete, BetaVAE(), images)
    expected = values["negative_elbo"].value / (64 * math.log(2))
    assert values["bits_per_dim"].value == pytest.approx(expected)
    [batch] = metrics.batches(dense, images)
    draw = dense(batch.x, batch.noise)
    bits = metrics.bits_per_dim(dense, BetaVAE(), draw, batch)["bits_per_dim"].double()
    normal = torch.distributions.Normal(draw.params.pixels.sigmoid().double(), 0.1)
    level = (255 * batch.x).double()
    mass = normal.cdf((level + 1) / 256) - normal.cdf(level / 256)  # of the density in the cell of the level
    kl = metrics.elbo_terms(dense, BetaVAE(), draw, batch.x)["kl"].double()
    exact = (kl - mass.log().flatten(1).sum(1)) / (64 * math.log(2))
    assert (bits - exact).mean().item() == pytest.approx(0, abs=1e-2)  # the density is nearly level within a cell
    for silent in (
        metrics.compute_metrics(model(), BetaVAE(), images),
        metrics.compute_metrics(model(SquaredError()), BetaVAE(0.0), images),
    ):
        assert "bits_per_dim" not in silent


def test_standard_errors_are_those_of_a_mean() -> None:
    values = torch.randn(50, generator=generator("errors"), dtype=torch.float64)
    sums = statistics.RunningMoments()
    sums.add({"a": values[:20]})
    sums.add({"a": values[20:]})
    assert sums.metrics()["a"].value == pytest.approx(values.mean().item())
    assert sums.metrics()["a"].stderr == pytest.approx(values.std().item() / math.sqrt(50))


def test_active_units_are_those_that_vary() -> None:
    means = torch.randn(500, 3, generator=generator("units")) * torch.tensor([1.0, 0.01, 0.5])
    assert metrics.active_units(means) == 2


def test_cross_entropy_of_grey_pixels_is_marked(digits: Dataset) -> None:
    images = digits.splits["test"]
    values = metrics.compute_metrics(model(), BetaVAE(), images)
    assert set(metrics.metric_notes(CrossEntropy(), values, images)) == {"negative_elbo", "negative_elbo_of_mean"}
    assert not metrics.metric_notes(Gaussian(), values, images)
