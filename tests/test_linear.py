"""A linear VAE is probabilistic PCA, whose evidence and subspace are known in closed form.

Source: Probabilistic Principal Component Analysis, Tipping and Bishop 1999; Don't Blame the ELBO!, arXiv 1911.02469.
"""

from __future__ import annotations

import math

import pytest
import torch

from vaelab.images import Dataset
from vaelab.likelihoods import Gaussian
from vaelab.metrics import bounds
from vaelab.models import VAE
from vaelab.networks import Mlp
from vaelab.objectives import Beta
from vaelab.streams import stream

LATENT = 3


@pytest.fixture(scope="module")
def x(digits: Dataset) -> torch.Tensor:
    return torch.from_numpy(digits.splits["train"].uint8()).double() / 255


@pytest.fixture(scope="module")
def trained_linear(x: torch.Tensor) -> VAE:
    """A linear VAE with one learned sigma, trained on all images at once from random weights."""
    torch.manual_seed(0)
    model = VAE(Mlp(hidden=()), Gaussian(link="identity"), (1, 8, 8), LATENT).double()
    steps, optimizer = 1500, torch.optim.Adam(model.parameters(), lr=2e-2)
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = 2e-2 * 0.5 * (1 + math.cos(math.pi * step / steps))
        noise = torch.randn(len(x), LATENT, generator=stream("linear", step), dtype=torch.float64)
        loss = Beta()(model, x, noise, torch.ones(())).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model.requires_grad_(False)


def ppca(x: torch.Tensor) -> tuple[float, torch.Tensor]:
    """The greatest mean log evidence of probabilistic PCA, and the principal directions (pixels, LATENT)."""
    centred = x.flatten(1) - x.flatten(1).mean(0)
    values, vectors = torch.linalg.eigh(centred.T @ centred / len(x))
    values, vectors = values.flip(0), vectors.flip(1)
    variance = values[LATENT:].mean()
    logdet = values[:LATENT].log().sum() + (len(values) - LATENT) * variance.log()
    return (-0.5 * (len(values) * math.log(2 * math.pi) + logdet + len(values))).item(), vectors[:, :LATENT]


def test_the_bound_is_below_the_evidence_and_reaches_it(x: torch.Tensor, trained_linear: VAE) -> None:
    evidence, _ = ppca(x)
    draws = []
    for i in range(20):
        noise = torch.randn(len(x), LATENT, generator=stream("evaluate", i), dtype=torch.float64)
        draws.append(-bounds(trained_linear, Beta(), trained_linear(x, noise), x)["negative_elbo"])
    bound = torch.stack(draws).mean().item()
    assert evidence - 0.2 < bound < evidence + 0.02


def test_the_subspace_is_that_of_pca(x: torch.Tensor, trained_linear: VAE) -> None:
    _, directions = ppca(x)
    learned = torch.linalg.qr(trained_linear.decoder[0].weight.double()).Q
    cosines = torch.linalg.svdvals(learned.T @ directions)
    assert cosines.min() > 0.99
