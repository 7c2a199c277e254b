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
from vaelab.evaluation.evidence import log_evidence
from vaelab.models.likelihoods import CrossEntropy, DiscretisedLogistic, Gaussian, Likelihood
from vaelab.models.networks import Conv, Mlp
from vaelab.models.vae import VAE


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
        assert found.standard_error[i].item() == pytest.approx(
            (samples * share).std().item() / math.sqrt(samples), rel=1e-3
        )


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


def test_its_error_is_that_of_repetition(digits: Dataset) -> None:
    """The spread of the estimate over other noise, which other row numbers bring, is what it says of itself."""
    images = digits.splits["test"]
    same = replace(images, stored_pixels=images.uint8(5).repeat(60, 0), rows=np.arange(60), stored_labels=None)
    found = log_evidence(model(CrossEntropy()), CrossEntropy(), same, 200)
    assert found.value.std().item() == pytest.approx(found.standard_error.mean().item(), rel=0.35)
    assert (found.effective_sample_size <= 200).all()
