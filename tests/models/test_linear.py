"""A linear VAE is probabilistic PCA, whose evidence and subspace are known in closed form.

Source: Probabilistic Principal Component Analysis, Tipping and Bishop 1999; Don't Blame the ELBO!, arXiv 1911.02469.
"""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch

from vaelab.core.rng import generator
from vaelab.datasets.images import Dataset
from vaelab.models.likelihoods import Gaussian
from vaelab.models.networks import Mlp
from vaelab.models.vae import VAE
from vaelab.objectives.elbo import BetaVAE
from vaelab.objectives.importance import ImportanceWeighted

LATENT = 3


@pytest.fixture(scope="module")
def x(digits: Dataset) -> torch.Tensor:
    return torch.from_numpy(digits.splits["train"].uint8()).double() / 255


def bound(model: VAE, x: torch.Tensor) -> torch.Tensor:
    """The ELBO, free of sampling error: the loss is quadratic in the noise, so 2 D points stand for the Gaussian."""
    points = math.sqrt(LATENT) * torch.cat([torch.eye(LATENT), -torch.eye(LATENT)]).double()
    return -BetaVAE()(model, x.repeat(len(points), 1, 1, 1), points.repeat_interleave(len(x), 0), torch.ones(())).loss


def train(x: torch.Tensor, iterations: int) -> VAE:
    """A linear VAE with one learned sigma, trained on all images at once from random weights."""
    torch.manual_seed(0)
    model = VAE(Mlp(hidden=()), Gaussian(link="identity"), (1, 8, 8), LATENT).double()
    optimizer = torch.optim.LBFGS(
        model.parameters(), max_iter=iterations, history_size=20, tolerance_change=1e-9, line_search_fn="strong_wolfe"
    )

    def step() -> float:
        optimizer.zero_grad()
        loss = -bound(model, x)
        loss.backward()
        return loss.item()

    optimizer.step(step)
    return model.requires_grad_(False)


@pytest.fixture(scope="module")
def trained(x: torch.Tensor) -> VAE:
    return train(x, 300)


def ppca(x: torch.Tensor) -> tuple[float, torch.Tensor]:
    """The greatest mean log evidence of probabilistic PCA, and the principal directions (pixels, LATENT)."""
    centred = x.flatten(1) - x.flatten(1).mean(0)
    values, vectors = torch.linalg.eigh(centred.T @ centred / len(x))
    values, vectors = values.flip(0), vectors.flip(1)
    variance = values[LATENT:].mean()
    logdet = values[:LATENT].log().sum() + (len(values) - LATENT) * variance.log()
    return (-0.5 * (len(values) * math.log(2 * math.pi) + logdet + len(values))).item(), vectors[:, :LATENT]


def own_evidence(model: VAE, x: torch.Tensor) -> float:
    """The mean log evidence of a linear model as it stands: x ~ N(b, W W^T + sigma^2)."""
    weight, bias, sigma = model.decoder[0].weight, model.decoder[0].bias, model.shared.exp()
    covariance = weight @ weight.T + sigma.square() * torch.eye(len(weight)).double()
    return torch.distributions.MultivariateNormal(bias, covariance).log_prob(x.flatten(1)).mean().item()


def test_the_bound_of_a_trained_model_is_the_evidence(x: torch.Tensor, trained: VAE) -> None:
    evidence, _ = ppca(x)
    assert evidence - 0.01 < bound(trained, x).item() < evidence + 1e-9
    assert own_evidence(trained, x) == pytest.approx(evidence, abs=0.01)


def test_the_bound_rises_to_the_evidence_with_its_samples(x: torch.Tensor) -> None:
    model = train(x, 40)
    evidence = own_evidence(model, x)

    def of(k: int) -> float:
        noise = torch.randn(k, len(x), LATENT, generator=generator("samples", k), dtype=torch.float64)
        return -ImportanceWeighted(k)(model, x, noise, torch.ones(())).loss.item()

    bounds = [bound(model, x).item(), of(3), of(30), of(300)]
    assert all(before < after for before, after in pairwise([*bounds, evidence]))
    assert evidence - bounds[0] > 0.1, "there was room to rise"
    assert evidence - bounds[-1] < 0.1 * (evidence - bounds[0])


def test_the_subspace_is_that_of_pca(x: torch.Tensor, trained: VAE) -> None:
    _, directions = ppca(x)
    learned = torch.linalg.qr(trained.decoder[0].weight).Q
    cosines = torch.linalg.svdvals(learned.T @ directions)
    assert cosines.min() > 0.999
