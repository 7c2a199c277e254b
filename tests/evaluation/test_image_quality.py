"""Image quality: known values of small pictures, and the order of better and worse ones."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torchmetrics.functional.image import structural_similarity_index_measure

from vaelab.core.rng import generator
from vaelab.datasets.images import Dataset
from vaelab.evaluation import image_quality, metrics
from vaelab.evaluation.image_quality import laplacian, laplacian_variance, psnr, sharpness_ratio
from vaelab.evaluation.image_values import image_values
from vaelab.models.likelihoods import CrossEntropy
from vaelab.models.networks import Mlp
from vaelab.models.vae import VAE
from vaelab.objectives.elbo import BetaVAE


def model(shape: tuple[int, int, int]) -> VAE:
    torch.manual_seed(0)
    return VAE(Mlp((20,)), CrossEntropy(), shape, 4).eval()


def test_psnr_is_in_decibel_below_the_largest_value() -> None:
    x = torch.zeros(4, 1, 2, 5)
    error = torch.tensor([1.0, 0.1, 0.01, 0.0]).view(4, 1, 1, 1)
    torch.testing.assert_close(psnr(x + error, x), torch.tensor([0.0, 20.0, 40.0, 100.0]))
    one_pixel = x.clone()
    one_pixel[:, 0, 0, 0] = 1
    torch.testing.assert_close(psnr(one_pixel, x), torch.full((4,), 10.0))


def test_ssim_is_that_of_the_paper() -> None:
    x, y = torch.rand(2, 3, 3, 24, 17, generator=generator("ssim"))
    _, theirs = structural_similarity_index_measure(x, y, data_range=1.0, return_full_image=True)
    inside = theirs[..., 5:-5, 5:-5]  # they mirror the image at its border, where the paper's window does not fit
    torch.testing.assert_close(image_quality.ssim(x, y), inside.flatten(1).mean(1))
    torch.testing.assert_close(image_quality.ssim(x, x), torch.ones(3))
    assert image_quality.ssim(x[..., :8, :8], y[..., :8, :8]).shape == (3,)


def test_the_laplacian_is_the_second_derivative() -> None:
    """Of a plane it is 0, of a x^2 + b y^2 it is 2 a + 2 b, in each channel by itself."""
    row, column = torch.meshgrid(torch.arange(5.0), torch.arange(6.0), indexing="ij")
    picture = torch.stack([3 * row - 2 * column + 1, 0.5 * row.square() + 2 * column.square()])[None]
    found = laplacian(picture)
    assert found.shape == (1, 2, 3, 4)
    torch.testing.assert_close(found[0, 0], torch.zeros(3, 4))
    torch.testing.assert_close(found[0, 1], torch.full((3, 4), 5.0))
    torch.testing.assert_close(laplacian_variance(picture), torch.zeros(1))
    noise = torch.randn(1, 1, 300, 300, generator=generator("noise"))
    assert laplacian_variance(noise).item() == pytest.approx(4**2 + 4, rel=0.03), "the sum of the squared weights"


def test_the_sharpness_of_an_image_is_a_share_of_amplitude() -> None:
    x = torch.rand(2, 3, 9, 7, generator=generator("amplitude"))
    torch.testing.assert_close(image_quality.sharpness(0.25 * x + 0.5, x), torch.full((2,), 0.25))


def test_sharpness_is_a_ratio_of_sums() -> None:
    """An image of little detail hardly counts, and one of none is not in the way."""
    x = torch.rand(3, 2, 12, 12, generator=generator("sharp"))
    x[1] = 0.5 + 1e-3 * x[1]
    x[2] = 0.25
    factors = torch.tensor([0.5, 3.0, 1.0]).view(3, 1, 1, 1)
    terms = sharpness_ratio(factors * x, x)
    ratio = terms.numerator.sum() / terms.denominator.sum()
    assert ratio.item() == pytest.approx(0.25, rel=1e-4)
    assert terms.denominator[2] == 0
    blurred = torch.nn.functional.avg_pool2d(x, 3, 1, 1)
    blurred_terms = sharpness_ratio(blurred, x)
    assert blurred_terms.numerator.sum() < 0.2 * blurred_terms.denominator.sum()


def test_sharpness_does_not_depend_on_the_size_above_32(digits: Dataset) -> None:
    images = digits.splits["test"].select(slice(0, 40))
    fine = replace(images, stored_pixels=images.uint8().repeat(4, 2).repeat(4, 3), rows=np.arange(40))
    coarse_metric = metrics.compute_metrics(model((1, 32, 32)), BetaVAE(), fine)["sharpness_ratio"]
    assert coarse_metric.note is None
    double = replace(fine, stored_pixels=fine.uint8().repeat(2, 2).repeat(2, 3))
    metric = metrics.compute_metrics(model((1, 64, 64)), BetaVAE(), double)["sharpness_ratio"]
    assert metric.note == "judged at 32 x 32 pixels"
    x = torch.rand(5, 1, 64, 64, generator=generator("size"))
    half = torch.nn.functional.avg_pool2d(x, 2)
    for first, second in zip(ratio_terms(0.5 * x, x), ratio_terms(0.5 * half, half), strict=True):
        torch.testing.assert_close(first, second)


def ratio_terms(reconstruction: torch.Tensor, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    from vaelab.evaluation import ratios

    return ratios.ratio_terms(reconstruction, x)["sharpness_ratio"]


def test_the_sharpness_of_a_model_is_over_all_batches(digits: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    images, vae = digits.splits["test"].select(slice(0, 50)), model((1, 8, 8))
    monkeypatch.setattr(metrics, "BATCH_VALUES", 64 * 16)
    metric = metrics.compute_metrics(vae, BetaVAE(), images)["sharpness_ratio"]
    x = torch.from_numpy(images.uint8()).float() / 255
    with torch.no_grad():
        numerator, denominator = ratio_terms(vae.reconstruct(x), x)
    assert metric.value == pytest.approx((numerator.sum() / denominator.sum()).item(), rel=1e-5)
    values = image_values(vae, BetaVAE(), images)["sharpness_ratio"]
    assert values.mean(dtype=np.float64) == pytest.approx(metric.value, rel=1e-5)
    assert values.std(ddof=1) / math.sqrt(50) == pytest.approx(metric.stderr, rel=1e-4)
    flat = replace(images, stored_pixels=np.full_like(images.uint8(), 90), rows=np.arange(50))
    assert "sharpness_ratio" not in metrics.compute_metrics(vae, BetaVAE(), flat)
    assert "sharpness_ratio" not in image_values(vae, BetaVAE(), flat)
