"""What evaluation makes of a model: batches and their noise, sums over pixels, means over images, and what is said."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from vaelab.core.errors import UserError
from vaelab.core.rng import evaluation_noise, generator
from vaelab.datasets.images import Images
from vaelab.evaluation import image_quality, metrics
from vaelab.evaluation.aggregate_posterior import MeasuredCodes, aggregate_posterior_metrics, information_bounds
from vaelab.evaluation.catalogue import metric_info
from vaelab.evaluation.image_values import image_values
from vaelab.evaluation.ratios import RatioTerms, joined_terms, ratio_metric_of, reduced
from vaelab.evaluation.results import Metric
from vaelab.models.densities import Normal
from vaelab.models.likelihoods import (
    CrossEntropy,
    CrossEntropyPlusSquaredError,
    Distortion,
    Gaussian,
    Likelihood,
    SquaredError,
)
from vaelab.models.networks import Mlp
from vaelab.models.priors import StandardNormal
from vaelab.models.vae import VAE
from vaelab.objectives.disentangling import BetaTCVAE
from vaelab.objectives.elbo import BetaVAE, Capacity
from vaelab.objectives.importance import ImportanceWeighted
from vaelab.objectives.objective import Objective


def model(distortion: Distortion | None = None, shape: tuple[int, int, int] = (1, 8, 8)) -> VAE:
    torch.manual_seed(0)
    vae = VAE(Mlp((20,)), distortion or CrossEntropy(), shape, 4).eval()
    with torch.no_grad():
        vae.encoder[-1].weight.mul_(6)
    return vae


def pictures(count: int, shape: tuple[int, int, int] = (1, 8, 8), levels: int = 256) -> Images:
    """Made pictures, whose rows in the data set are not their positions."""
    rng = np.random.default_rng(3)
    pixels = rng.integers(0, levels, (count + 5, *shape)) * 255 // (levels - 1)
    rows = np.arange(count) + 5
    return Images(pixels.astype(np.uint8), rows, None, (), "test", None)


def tensor(images: Images) -> torch.Tensor:
    return torch.from_numpy(images.uint8()).float() / 255


@pytest.mark.parametrize(
    ("shape", "max_size", "size"),
    [((1, 8, 8), 512, 512), ((1, 8, 8), 100, 100), ((1, 8, 8), 3, 8), ((3, 64, 64), 512, 341), ((4, 512, 512), 512, 8)],
)
def test_batches_are_as_large_as_their_images_allow(shape: tuple[int, int, int], max_size: int, size: int) -> None:
    count = min(size + 1, 600)
    images = replace(pictures(1, (1, 8, 8)), stored_pixels=np.zeros((600, *shape), np.uint8), rows=np.arange(count))
    vae = model()  # it gives the device and the number of latent dimensions alone
    found = [(batch.start, len(batch.x)) for batch in metrics.batches(vae, images, max_size)]
    assert found == [(0, size), (size, 1)]


def test_a_batch_has_the_pixels_and_the_noise_of_its_images(monkeypatch: pytest.MonkeyPatch) -> None:
    images = pictures(30)
    monkeypatch.setattr(metrics, "BATCH_VALUES", 64 * 12)
    batches = list(metrics.batches(model(), images))
    assert [(batch.start, len(batch.x)) for batch in batches] == [(0, 12), (12, 12), (24, 6)]
    torch.testing.assert_close(torch.cat([batch.x for batch in batches]), tensor(images))
    noise = evaluation_noise(images.rows, 4)
    assert torch.equal(torch.cat([batch.noise for batch in batches]), noise)
    assert np.concatenate([batch.rows for batch in batches]).tolist() == list(range(5, 35))


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_outputs_that_are_no_numbers_are_refused(bad: float) -> None:
    metrics.require_finite(torch.zeros(2), torch.ones(3))
    for outputs in ((torch.tensor([0.0, bad]), torch.ones(2)), (torch.ones(2), torch.tensor([bad, 0.0]))):
        with pytest.raises(UserError, match="NaN or infinite numbers: its training has diverged"):
            metrics.require_finite(*outputs)


def test_all_images_are_encoded_in_order() -> None:
    images, vae = pictures(30), model()
    found = metrics.encode_all(vae, images)
    mean, logvar = vae.encoder(tensor(images)).chunk(2, -1)
    torch.testing.assert_close(found.mean, mean)
    torch.testing.assert_close(found.logvar, logvar)
    assert not found.mean.requires_grad


def test_the_shared_sigma_is_the_residual_of_training_images() -> None:
    images, fitted = pictures(30), model(Gaussian("optimal"))
    metrics.fit_global_params(fitted, images)
    with torch.no_grad():
        output = fitted(tensor(images), evaluation_noise(images.rows, 4))
    residual = (output.params.pixels.sigmoid() - tensor(images)).square().mean().sqrt()
    assert fitted.shared.exp().item() == pytest.approx(residual.item(), rel=1e-5)
    trained = model(Gaussian())
    before = trained.shared.clone()
    metrics.fit_global_params(trained, images)
    assert torch.equal(trained.shared, before), "a trained sigma is left as it is"


@pytest.mark.parametrize(
    ("distortion", "objective", "likelihood"),
    [
        (CrossEntropy(), BetaVAE(4.0), CrossEntropy()),
        (SquaredError(), BetaVAE(0.5), Gaussian(0.5)),
        (SquaredError(), BetaVAE(0.5, reduction="mean"), Gaussian(4.0)),
        (SquaredError(), BetaVAE(0.5, reduction="mean-each"), Gaussian(2.0)),
        (SquaredError(), Capacity(), None),
        (SquaredError(), BetaVAE(0.0), None),
        (Gaussian(0.2), BetaVAE(0.0), Gaussian(0.2)),
    ],
    ids=str,
)
def test_a_loss_stands_for_a_likelihood_at_its_kl_weight(
    distortion: Distortion, objective: Objective, likelihood: Likelihood | None
) -> None:
    assert metrics.likelihood_of(model(distortion), objective) == likelihood


def terms_by_torch(vae: VAE, images: Images, noise: torch.Tensor | None) -> dict[str, torch.Tensor]:
    """The terms of the bound of each image from PyTorch's own functions; of the posterior mean without noise."""
    x = tensor(images)
    mean, logvar = vae.encoder(x).chunk(2, -1)
    z = mean if noise is None else mean + (logvar / 2).exp() * noise
    reconstruction = vae.decoder(z).view(x.shape).sigmoid()
    entropy = torch.nn.functional.binary_cross_entropy(reconstruction, x, reduction="none").flatten(1).sum(1)
    error = torch.nn.functional.mse_loss(reconstruction, x, reduction="none").flatten(1).sum(1)
    posterior = torch.distributions.Normal(mean, (logvar / 2).exp())
    kl = torch.distributions.kl_divergence(posterior, torch.distributions.Normal(0.0, 1.0)).sum(1)
    return {"cross_entropy": entropy, "squared_error": error, "kl": kl}


def close(metric: Metric, values: torch.Tensor) -> bool:
    error = values.std().item() / math.sqrt(len(values))
    return metric.value == pytest.approx(values.mean().item(), rel=1e-4) and metric.stderr == pytest.approx(
        error, rel=1e-3
    )


@torch.no_grad()
def test_metrics_are_means_over_images_of_sums_over_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    images, vae = pictures(30), model()
    monkeypatch.setattr(metrics, "BATCH_VALUES", 64 * 12)
    done: list[int] = []
    found = metrics.compute_metrics(vae, BetaVAE(2.0), images, lambda count, text="": done.append(count))
    assert done == [12, 24, 30]
    of_sample = terms_by_torch(vae, images, evaluation_noise(images.rows, 4))
    of_mean = terms_by_torch(vae, images, None)
    for name, values in of_sample.items():
        assert close(found[name], values)
    assert close(found["negative_elbo"], of_sample["cross_entropy"] + of_sample["kl"])
    for name in ("cross_entropy", "squared_error"):
        assert close(found[f"{name}_of_mean"], of_mean[name])
    assert close(found["negative_elbo_of_mean"], of_mean["cross_entropy"] + of_mean["kl"])
    assert close(found["mse"], of_mean["squared_error"] / 64)
    assert close(found["psnr"], -10 * (of_mean["squared_error"] / 64).log10())
    loss = of_sample["cross_entropy"] + 2 * of_sample["kl"]
    assert found["loss"].value == pytest.approx(loss.mean().item(), rel=1e-5)
    assert found["loss"].stderr is None
    assert "kl_of_mean" not in found
    means = metrics.encode_all(vae, images).mean
    assert found["active_units"] == Metric(int((means.var(0, correction=0) > 0.01).sum()))


def test_a_dimension_is_active_above_a_variance_of_a_hundredth() -> None:
    signs = torch.tensor([1.0, -1.0] * 50, dtype=torch.float64)
    assert metrics.active_units(torch.stack([0.101 * signs, 0.099 * signs, 3 + 0.0 * signs], 1)) == 1
    assert metrics.active_units(torch.stack([0.5 * signs, signs], 1), threshold=0.25) == 1, "above it, not at it"
    assert metrics.active_units(torch.tensor([[0.0], [0.21]])) == 1, "the variance of these images, not an estimate"


@torch.no_grad()
def test_bits_are_of_grey_levels_alone() -> None:
    vae = model(Gaussian(0.3))
    assert "bits_per_dim" in metrics.compute_metrics(vae, BetaVAE(), pictures(9))
    assert "bits_per_dim" in image_values(vae, BetaVAE(), pictures(9))
    black_and_white = pictures(9, levels=2)
    assert "bits_per_dim" not in metrics.compute_metrics(vae, BetaVAE(), black_and_white)
    assert "bits_per_dim" not in image_values(vae, BetaVAE(), black_and_white)


@torch.no_grad()
def test_several_codes_of_an_image_have_their_own_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    images, vae, objective = pictures(20), model(), ImportanceWeighted(3)
    monkeypatch.setattr(metrics, "BATCH_VALUES", 64 * 8)
    noise = torch.stack([evaluation_noise(images.rows, 4, sample) for sample in range(3)])
    found = metrics.compute_metrics(vae, objective, images)
    expected = objective(vae, tensor(images), noise, torch.ones(())).loss.item()
    assert found["loss"].value == pytest.approx(expected, rel=1e-5)
    assert close(found["cross_entropy"], terms_by_torch(vae, images, noise[0])["cross_entropy"])
    monkeypatch.undo()
    sizes = [len(batch.x) for batch, _ in metrics.batch_terms(vae, objective, pictures(171))]
    assert sizes == [170, 1], "three codes of 170 images are as much as 512 images"
    sizes = [len(batch.x) for batch, _ in metrics.batch_terms(vae, BetaVAE(k=100), pictures(9))]
    assert sizes == [8, 1]


@torch.no_grad()
def test_a_row_of_history_has_the_loss_of_the_end_of_training(monkeypatch: pytest.MonkeyPatch) -> None:
    images, vae = pictures(20), model()
    monkeypatch.setattr(metrics, "BATCH_VALUES", 64 * 8)
    row = metrics.validate(vae, BetaVAE(3.0, warmup=0.9), images)
    terms = terms_by_torch(vae, images, evaluation_noise(images.rows, 4))
    assert row["loss"] == pytest.approx((terms["cross_entropy"] + 3 * terms["kl"]).mean().item(), rel=1e-5)
    for name, values in terms.items():
        assert row[name] == pytest.approx(values.mean().item(), rel=1e-5)
    row = metrics.validate(vae, BetaTCVAE(), images)
    correlations = [
        terms.extra_terms["total_correlation"] for _, terms in metrics.batch_terms(vae, BetaTCVAE(), images)
    ]
    weighted = (8 * correlations[0] + 8 * correlations[1] + 4 * correlations[2]) / 20
    assert row["total_correlation"] == pytest.approx(weighted.item(), rel=1e-4)


def test_an_evaluation_holds_all_metrics_of_the_images() -> None:
    images, vae = pictures(40), model()
    found = metrics.evaluate_model("key", vae, BetaVAE(), "made", images)
    assert (found.run, found.data, found.split, found.n) == ("key", "made", "test", 40)
    q = metrics.encode_all(vae, images)
    assert {"marginal_kl", "mutual_information", "loss", "mse"} <= set(found.metrics)
    assert found.kl_per_dimension == pytest.approx(vae.prior.kl_per_dimension(q, q.mean).mean(0).tolist(), rel=1e-5)
    assert found.metrics["negative_elbo"].note == metrics.GREY_CROSS_ENTROPY_NOTE
    assert found.metrics["cross_entropy"].note is None
    of_codes = aggregate_posterior_metrics(q, evaluation_noise(images.rows, 4), vae.prior)
    assert found.metrics["mutual_information"] == of_codes["mutual_information"]


def test_notes_are_joined() -> None:
    notes = metrics.replacement_notes({"sharpness": Metric(1.0, note="3 left out"), "mse": Metric(1.0)})
    reason = "nearly flat images dominate a mean of ratios: better sharpness_ratio"
    assert notes == {"sharpness": f"3 left out; {reason}"}
    assert metrics.replacement_notes({"sharpness": Metric(1.0)}) == {"sharpness": reason}
    for distortion, images in ((CrossEntropy(), pictures(4, levels=2)), (Gaussian(), pictures(4))):
        assert metrics.metric_notes(distortion, {"negative_elbo": Metric(1.0)}, images) == {}


@torch.no_grad()
def test_values_of_images_have_the_metrics_as_means(monkeypatch: pytest.MonkeyPatch) -> None:
    images, vae = pictures(30), model()
    monkeypatch.setattr(metrics, "BATCH_VALUES", 64 * 12)
    values = image_values(vae, BetaVAE(2.0), images)
    found = metrics.compute_metrics(vae, BetaVAE(2.0), images)
    assert set(values) == set(found) - {"active_units"}
    for name, of_images in values.items():
        assert of_images.shape == (30,)
        assert of_images.dtype == np.float32
        assert of_images.mean(dtype=np.float64) == pytest.approx(found[name].value, rel=1e-5)
        if found[name].stderr is not None:
            assert of_images.std(ddof=1) / math.sqrt(30) == pytest.approx(found[name].stderr, rel=1e-3)
    terms = terms_by_torch(vae, images, evaluation_noise(images.rows, 4))
    torch.testing.assert_close(torch.from_numpy(values["loss"]), terms["cross_entropy"] + 2 * terms["kl"])


@pytest.mark.parametrize(
    ("objective", "has_loss"),
    [(BetaVAE(0.0), True), (Capacity(), False), (BetaTCVAE(), False), (BetaVAE(free_bits=1.0), False)],
    ids=str,
)
def test_a_loss_of_a_batch_as_a_whole_has_no_values_of_images(objective: Objective, has_loss: bool) -> None:
    assert ("loss" in image_values(model(), objective, pictures(20))) is has_loss


def test_images_without_detail_have_no_sharpness_of_their_own() -> None:
    images = pictures(4)
    pixels = images.stored_pixels.copy()
    pixels[6] = 90
    values = image_values(model(), BetaVAE(), replace(images, stored_pixels=pixels))["sharpness"]
    assert np.isnan(values).tolist() == [False, True, False, False]


@pytest.mark.parametrize("channels", [1, 3])
def test_detail_is_more_than_one_level_of_256(channels: int) -> None:
    """A checkerboard of amplitude a has a Laplacian of 8 a everywhere."""
    row, column = torch.meshgrid(torch.arange(6.0), torch.arange(9.0), indexing="ij")
    board = (1 - 2 * ((row + column) % 2)).expand(1, channels, 6, 9)
    for amplitude, is_defined in ((1.01 / 8 / 255, True), (0.99 / 8 / 255, False)):
        x = 0.5 + amplitude * board.double()
        assert image_quality.sharpness(x, x).isnan().item() is not is_defined
    x = 0.5 + 0.1 * board
    sharp = image_quality.sharpness(0.5 + 0.3 * board, x)
    torch.testing.assert_close(sharp, torch.tensor([3.0]))
    torch.testing.assert_close(image_quality.laplacian_energy(x), torch.tensor([channels * 28 * 0.64]))
    torch.testing.assert_close(image_quality.laplacian_variance(x), torch.tensor([channels * 0.64]))


@pytest.mark.parametrize(
    ("name", "described", "shown"),  # label, unit and direction; whether in tables and in figures
    [
        ("mse", ("MSE", "per pixel value", "lower"), (True, True)),
        ("psnr", ("PSNR", "dB", "higher"), (True, False)),
        ("ssim", ("SSIM", "1: the same", "higher"), (True, True)),
        ("sharpness", ("Sharpness, image by image", "1: as sharp as the images", None), (False, False)),
        ("sharpness_ratio", ("Sharpness", "1: as sharp as the images", None), (True, True)),
        ("active_units", ("Active units", "", None), (True, False)),
    ],
)
def test_tables_and_figures_say_what_a_value_means(
    name: str, described: tuple[str, str, str | None], shown: tuple[bool, bool]
) -> None:
    info = metric_info(name)
    assert (info.label, info.unit, info.direction) == described
    assert (info.in_table, info.in_figure) == shown
    assert info.format_value(3) == "3"
    assert info.max_side == (32 if name == "sharpness_ratio" else None)
    assert info.is_later == (name == "sharpness_ratio")
    assert info.undefined_for == ("without detail" if name == "sharpness" else "")


def test_the_constants_of_ssim_are_those_of_the_paper() -> None:
    """They decide where there is no light, or no contrast: c_1 = 0.01^2 and c_2 = 0.03^2."""
    dark = torch.full((1, 1, 12, 12), 0.01, dtype=torch.float64)
    similar = (2 * 0.01 * 0.02 + 0.01**2) / (0.01**2 + 0.02**2 + 0.01**2)
    assert image_quality.ssim(dark, 2 * dark).item() == pytest.approx(similar)
    row, column = torch.meshgrid(torch.arange(20.0), torch.arange(20.0), indexing="ij")
    board = 0.01 * (1 - 2 * ((row + column) % 2)).double().view(1, 1, 20, 20)
    opposite = (-2 * 0.01**2 + 0.03**2) / (2 * 0.01**2 + 0.03**2)
    assert image_quality.ssim(0.5 + board, 0.5 - board).item() == pytest.approx(opposite, rel=1e-4)


@torch.no_grad()
def test_the_noise_within_a_level_is_that_of_the_row() -> None:
    """The same image has the same bits in each version."""
    images, vae = pictures(3), model(Gaussian(0.3))
    [batch] = metrics.batches(vae, images)
    output = vae(batch.x, batch.noise)
    found = metrics.bits_per_dim(vae, BetaVAE(), output, batch)["bits_per_dim"]
    for i, row in enumerate(images.rows):
        x = (255 * batch.x[i] + torch.rand(1, 8, 8, generator=generator("dequantise", row))) / 256
        log_density = torch.distributions.Normal(output.params.pixels[i].sigmoid(), 0.3).log_prob(x).sum()
        nats = vae.rate(output)[i] - log_density
        assert found[i].item() == pytest.approx(nats.item() / 64 / math.log(2) + 8, rel=1e-5)


def test_the_mean_squared_error_is_a_mean_over_pixel_values_and_channels() -> None:
    x, y = torch.rand(2, 3, 2, 4, 5, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(image_quality.mean_squared_error(x, y), ((x - y) ** 2).sum((1, 2, 3)) / 40)


@pytest.mark.parametrize(
    ("size", "max_side", "found"),
    [
        ((64, 96), 32, (32, 48)),
        ((96, 64), 32, (48, 32)),
        ((33, 33), 32, (32, 32)),
        ((32, 99), 32, (32, 99)),
        ((64, 100), 32, (32, 50)),
        ((64, 96), None, (64, 96)),
    ],
)
def test_images_are_reduced_by_their_shorter_side(
    size: tuple[int, int], max_side: int | None, found: tuple[int, int]
) -> None:
    x = torch.rand(2, 3, *size, generator=torch.Generator().manual_seed(0))
    y = reduced(x, max_side)
    assert y.shape == (2, 3, *found)
    if size == (64, 96) and max_side:
        torch.testing.assert_close(y, torch.nn.functional.avg_pool2d(x, 2))


def test_a_ratio_has_the_error_of_its_linear_form() -> None:
    numerator, denominator = torch.tensor([[1.0, 2.0, 5.0], [2.0, 3.0, 4.0]], dtype=torch.float64)
    terms = joined_terms([RatioTerms(numerator[:1], denominator[:1]), RatioTerms(numerator[1:], denominator[1:])])
    metric = ratio_metric_of(terms)
    assert metric is not None
    ratio = 8 / 9
    assert metric.value == pytest.approx(ratio)
    residuals = (numerator - ratio * denominator).square().sum().item()
    assert metric.stderr == pytest.approx(math.sqrt(residuals / (3 * 2)) / 3)
    assert metric.note is None


def posteriors(count: int, spread: float = 1.0, logvar: float = -1.0) -> tuple[Normal, torch.Tensor]:
    mean, noise = torch.randn(2, count, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return Normal(spread * mean, torch.full_like(mean, logvar)), noise


@pytest.mark.parametrize(("count", "measured"), [(7, 7), (500, 500), (501, 251), (1000, 500), (2000, 500), (2500, 500)])
def test_codes_are_measured_evenly_over_the_images(count: int, measured: int) -> None:
    q, noise = posteriors(count)
    found = aggregate_posterior_metrics(q, noise, StandardNormal())
    for name in ("mutual_information", "mutual_information_upper", "marginal_kl", "total_correlation"):
        assert found[name].n == measured
    assert ("total_correlation_of_codes" in found) == (count >= 4)


def test_a_lower_bound_near_its_limit_is_marked() -> None:
    q, noise = posteriors(200, spread=1.0)
    near = information_bounds(q, MeasuredCodes(q.sample(noise), torch.arange(200)), StandardNormal())
    assert near["mutual_information"].value < math.log(200) - 1
    assert near["mutual_information"].note is near["marginal_kl"].note is None
    q, noise = posteriors(200, spread=9.0)
    limit = information_bounds(q, MeasuredCodes(q.sample(noise), torch.arange(200)), StandardNormal())
    assert math.log(200) - 1 < limit["mutual_information"].value < math.log(200)
    assert limit["mutual_information"].note == "a lower bound that cannot exceed log 200 = 5.3 nats"
    assert limit["marginal_kl"].note == "an upper bound: too high by what that one lacks"


def test_likelihoods_that_have_no_bound_have_no_negative_elbo() -> None:
    vae = model(CrossEntropyPlusSquaredError())
    assert "negative_elbo" not in metrics.compute_metrics(vae, BetaVAE(), pictures(9))
