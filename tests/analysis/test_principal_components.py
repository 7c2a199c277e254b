"""Principal components as a baseline: the best linear reconstruction, the same for all seeds, kept on disk."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from vaelab.analysis import principal_components
from vaelab.analysis.baseline import open_baseline
from vaelab.analysis.principal_components import equal_dimension, fit_principal_components, reconstruction_errors
from vaelab.analysis.registry import ANALYSES
from vaelab.datasets.images import Dataset, Images
from vaelab.runs.run import Run


def as_floats(images: Images) -> torch.Tensor:
    return torch.from_numpy(images.uint8()).double() / 255


def test_errors_are_those_of_scikit_learn(digits: Dataset) -> None:
    from sklearn.decomposition import PCA

    train, test = digits.splits["train"], digits.splits["test"]
    errors = reconstruction_errors(fit_principal_components(train), test)
    assert len(errors) == 65
    points = as_floats(test).flatten(1).numpy()
    for dimension in (1, 5, 30):
        reference = PCA(dimension).fit(as_floats(train).flatten(1).numpy())
        left = points - reference.inverse_transform(reference.transform(points))
        assert errors[dimension] == pytest.approx(np.square(left).mean(), rel=1e-4)
    mean_image = as_floats(train).mean(0)
    assert errors[0] == pytest.approx((as_floats(test) - mean_image).square().mean().item(), rel=1e-6)
    assert errors[-1] == pytest.approx(0, abs=1e-9)
    assert (np.diff(errors) <= 0).all()


def test_the_curve_is_the_error_of_the_pictures(digits: Dataset) -> None:
    test = digits.splits["test"].select(slice(0, 50))
    components = fit_principal_components(digits.splits["train"])
    x = as_floats(test).float()
    for dimension in (0, 7):
        reconstructed = components.reconstruct(x, dimension)
        assert reconstructed.shape == x.shape
        error = (reconstructed - x).square().mean().item()
        assert error == pytest.approx(reconstruction_errors(components, test)[dimension], rel=1e-5)


def test_large_images_have_the_same_leading_components(digits: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    train, test = digits.splits["train"], digits.splits["test"]
    exact = reconstruction_errors(fit_principal_components(train), test)
    monkeypatch.setattr(principal_components, "MAX_EXACT_VALUES", 10)
    monkeypatch.setattr(principal_components, "MAX_ITERATED_COMPONENTS", 20)
    monkeypatch.setattr(principal_components, "EXTRA_AXES", 10)
    monkeypatch.setattr(principal_components, "CHUNK_VALUES", 64 * 100)
    iterated = reconstruction_errors(fit_principal_components(train), test)
    assert iterated == pytest.approx(exact[:21], rel=2e-3)
    assert iterated[:12] == pytest.approx(exact[:12], rel=1e-4)


def test_few_images_have_few_components(digits: Dataset) -> None:
    few = digits.splits["train"].select(slice(0, 4))
    errors = reconstruction_errors(fit_principal_components(few), few)
    assert len(errors) == 4, "four images span three axes around their mean"
    assert errors[3] == pytest.approx(0, abs=1e-7)
    assert errors[2] > 1e-3


def test_the_dimension_of_equal_error_is_the_first_that_is_enough() -> None:
    errors = np.array([0.5, 0.2, 0.1])
    assert [equal_dimension(errors, mse) for mse in (0.6, 0.2, 0.19, 0.1)] == [0, 1, 2, 2]
    assert math.isnan(equal_dimension(errors, 0.09))


def test_a_run_is_compared_with_as_many_components_as_its_code(trained: Run, tmp_path: Path) -> None:
    baseline = open_baseline(trained.dataset, 0, tmp_path)
    result = ANALYSES["baselines"](trained, baseline)
    curve = result.arrays["pca_curve"]
    assert result.numbers["pca_mse"] == curve[trained.spec.latent_dim]
    assert result.numbers["mean_mse"] == curve[0]
    dimension = int(result.numbers["equal_dimension"])
    assert curve[dimension] <= trained.metrics["test"]["metrics"]["mse"]["value"] < curve[dimension - 1]
    [file] = tmp_path.rglob("pca.safetensors")
    kept = file.read_bytes()
    file.write_bytes(kept[:-8] + b"damaged!")
    again = replace(baseline, seed=5, folder=tmp_path / "of another seed")
    assert np.array_equal(again.pca_mse, curve), "the same file, made again"
    assert file.read_bytes() == kept
