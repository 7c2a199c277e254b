"""Evidence: what importance sampling says is the evidence, for a model whose evidence is known, and for one naively."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from vaelab.core.rng import generator
from vaelab.datasets.images import Dataset
from vaelab.evaluation import evidence
from vaelab.evaluation.evidence import evidence_metrics, evidence_of_weights, log_evidence
from vaelab.models.densities import Normal
from vaelab.models.likelihoods import CrossEntropy, DiscretisedLogistic, Gaussian, Likelihood
from vaelab.models.networks import Conv, Mlp
from vaelab.models.vae import VAE
from vaelab.runs.run import Run


@pytest.fixture
def float32(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a processor that does not multiply in bfloat16."""
    monkeypatch.setattr(evidence, "has_bfloat16", lambda device: False)


def model(likelihood: Likelihood, network: Mlp | Conv | None = None) -> VAE:
    torch.manual_seed(0)
    return VAE(network or Mlp((20,)), likelihood, (1, 8, 8), 4).eval()


@pytest.mark.usefixtures("float32")
@pytest.mark.parametrize("likelihood", [CrossEntropy(), Gaussian(0.3), DiscretisedLogistic(2)], ids=str)
def test_it_is_that_of_a_naive_estimate_in_double_precision(likelihood: Likelihood, digits: Dataset) -> None:
    samples, images = 700, digits.splits["test"].select(slice(0, 20))
    vae = model(likelihood, Conv((4, 6)))
    found = log_evidence(vae, likelihood, images, samples)
    double = model(likelihood, Conv((4, 6))).double()
    double.decode = lambda z: VAE.decode(double, z)._replace(pixels=double.decoder(z))  # type: ignore[method-assign]
    for i, row in enumerate(images.rows):
        x = torch.from_numpy(images.uint8(i)).double() / 255
        mean, logvar = double.encoder(x).chunk(2, -1)
        sigma = (logvar / 2).exp()
        noise = torch.cat([torch.randn(500, 4, generator=generator("evidence", row, 0)),
                           torch.randn(200, 4, generator=generator("evidence", row, 500))]).double()  # fmt: skip
        z = mean + sigma * noise
        log_p = torch.distributions.Normal(0.0, 1.0).log_prob(z).sum(1)
        log_q = torch.distributions.Normal(mean, sigma).log_prob(z).sum(1)
        weights = likelihood.log_prob(double.decode(z), x).flatten() + log_p - log_q
        naive = weights.logsumexp(0) - math.log(samples)
        assert found.value[i].item() == pytest.approx(naive.item(), abs=1e-4)
        share = weights.softmax(0)
        assert found.effective_sample_size[i].item() == pytest.approx(1 / share.square().sum().item(), rel=1e-3)
        without = []
        for group in range(10):
            kept = weights[torch.arange(samples) % 10 != group]
            without.append((kept.logsumexp(0) - math.log(len(kept))).item())
        assert found.corrected[i].item() == pytest.approx(10 * naive.item() - 9 * np.mean(without), abs=2e-3)
        assert found.standard_error[i].item() == pytest.approx(3 * np.std(without), rel=1e-2)


@pytest.mark.parametrize("likelihood", [CrossEntropy(), Gaussian(0.01)], ids=str)
def test_lower_precision_changes_it_by_less_than_sampling_does(
    likelihood: Likelihood, digits: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    images, vae = digits.splits["test"].select(slice(0, 100)), model(likelihood)
    with torch.no_grad():
        for p in vae.parameters():
            p.mul_(3)  # logits of a trained network's size
    found = {}
    for lowered in (False, True):
        monkeypatch.setattr(evidence, "has_bfloat16", lambda device, lowered=lowered: lowered)
        found[lowered] = log_evidence(vae, likelihood, images, 500)
    difference = (found[True].value - found[False].value).mean().abs()
    assert difference < 0.5 * found[False].standard_error_of_mean
    assert (difference == 0) == (likelihood.support != "binary"), "a sharp density is computed in float32"


@pytest.mark.usefixtures("float32")
def test_it_does_not_depend_on_how_images_and_samples_are_divided(
    digits: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    images, vae = digits.splits["test"].select(slice(0, 12)), model(CrossEntropy())
    whole = log_evidence(vae, CrossEntropy(), images, 600)
    monkeypatch.setattr(evidence, "VALUES_PER_BATCH", 64 * 70)  # seventy images at once
    counted: list[int] = []
    parts = log_evidence(vae, CrossEntropy(), images, 600, lambda done, text="": counted.append(done))
    torch.testing.assert_close(parts.value, whole.value, rtol=0, atol=1e-5)
    assert counted == list(range(1, 13))
    backwards = log_evidence(vae, CrossEntropy(), images.select(slice(None, None, -1)), 600)
    torch.testing.assert_close(backwards.value.flip(0), whole.value, rtol=0, atol=1e-5)


def log_normal_weights(variance: float, samples: int, images: int) -> torch.Tensor:
    """Weights whose mean is 1: the evidence is 0 nats."""
    noise = torch.randn(samples, images, generator=generator("weights", variance, samples), dtype=torch.float64)
    return math.sqrt(variance) * noise - variance / 2


@pytest.mark.parametrize(("variance", "samples", "effective"), [(1.0, 203, 80), (4.0, 1000, 53), (8.0, 1000, 15)])
def test_the_jackknife_error_is_that_of_repetition(variance: float, samples: int, effective: float) -> None:
    found = evidence_of_weights(log_normal_weights(variance, samples, 1000))
    assert found.effective_sample_size.median().item() == pytest.approx(effective, rel=0.1)
    spread = found.value.std().item()
    assert found.standard_error.square().mean().sqrt().item() == pytest.approx(spread, rel=0.1)
    assert found.standard_error_of_mean == pytest.approx(spread / math.sqrt(1000), rel=0.1)


def test_the_correction_takes_off_most_of_the_bias() -> None:
    found = evidence_of_weights(log_normal_weights(4.0, 100, 3000))
    bias, left = found.value.mean().item(), found.corrected.mean().item()
    assert bias == pytest.approx(-0.11, abs=0.03)
    assert abs(left) < 0.5 * abs(bias)
    shifted = evidence_of_weights(log_normal_weights(4.0, 100, 3000) - 900.0)
    torch.testing.assert_close(shifted.corrected, found.corrected - 900)
    torch.testing.assert_close(shifted.standard_error, found.standard_error)


def test_equal_weights_have_no_error() -> None:
    for samples in (2, 9, 10, 25):
        found = evidence_of_weights(torch.full((samples, 3), -70.0))
        torch.testing.assert_close(found.value, torch.full((3,), -70.0, dtype=torch.float64))
        torch.testing.assert_close(found.corrected, found.value)
        torch.testing.assert_close(found.standard_error, torch.zeros(3, dtype=torch.float64), atol=1e-6, rtol=0)
        torch.testing.assert_close(found.effective_sample_size, torch.full((3,), float(samples), dtype=torch.float64))


def test_it_is_the_closed_form_of_a_linear_model() -> None:
    """x = z A + noise: log p(x) is that of N(0, A'A + s^2), whatever wide posterior the codes are drawn from."""
    loadings = torch.randn(3, 6, generator=generator("loadings"), dtype=torch.float64)
    noise_variance, samples = 0.25, 400
    codes, noise = (torch.randn(200, d, generator=generator("linear", d), dtype=torch.float64) for d in (3, 6))
    x = codes @ loadings + math.sqrt(noise_variance) * noise
    covariance = loadings.T @ loadings + noise_variance * torch.eye(6)
    exact = torch.distributions.MultivariateNormal(torch.zeros(6), covariance).log_prob(x)
    precision = torch.eye(3) + loadings @ loadings.T / noise_variance
    mean = x @ loadings.T @ precision.inverse() / noise_variance
    q = Normal(mean, (2 * precision.inverse().diagonal()).log().expand_as(mean))  # twice as wide as it should be
    z = q.sample(torch.randn(samples, 200, 3, generator=generator("samples"), dtype=torch.float64))
    log_likelihood = torch.distributions.Normal(z @ loadings, math.sqrt(noise_variance)).log_prob(x).sum(-1)
    log_prior = torch.distributions.Normal(0.0, 1.0).log_prob(z).sum(-1)
    found = evidence_of_weights(log_likelihood + log_prior - q.log_prob(z))
    assert found.value.mean().item() == pytest.approx(exact.mean().item(), abs=4 * found.standard_error_of_mean)
    pull = (found.corrected - exact) / found.standard_error
    assert pull.square().mean().sqrt().item() == pytest.approx(1, abs=0.25)


def test_a_figure_from_few_effective_samples_has_no_error(trained: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    images = trained.images("test").select(slice(0, 30))
    sound = evidence_metrics(trained, images, 200)
    for name in ("negative_log_evidence", "negative_log_evidence_corrected"):
        assert sound[name].stderr is not None
        assert sound[name].sampling_error is not None
        assert (sound[name].n, sound[name].samples) == (30, 200)
        assert "error of sampling" in (sound[name].note or "")
    assert sound["negative_log_evidence"].value > sound["negative_log_evidence_corrected"].value
    monkeypatch.setattr(evidence, "MIN_EFFECTIVE_SAMPLES", sound["effective_samples"].value * 10)
    few = evidence_metrics(trained, images, 200)
    for name in ("negative_log_evidence", "negative_log_evidence_corrected"):
        assert few[name].value == sound[name].value
        assert (few[name].stderr, few[name].sampling_error) == (None, None)
        assert "take more samples" in (few[name].note or "")


def test_its_error_is_that_of_repetition(digits: Dataset) -> None:
    """The spread of the estimate over other noise, which other row numbers bring, is what it says of itself."""
    images = digits.splits["test"]
    same = replace(images, stored_pixels=images.uint8(5).repeat(60, 0), rows=np.arange(60), stored_labels=None)
    found = log_evidence(model(CrossEntropy()), CrossEntropy(), same, 200)
    assert found.value.std().item() == pytest.approx(found.standard_error.mean().item(), rel=0.35)
    assert (found.effective_sample_size <= 200).all()
