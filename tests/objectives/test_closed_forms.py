"""Each objective's loss is that of its paper's formula, computed here with PyTorch's densities."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import pytest
import torch
from torch import Tensor
from torch.distributions import Normal, kl_divergence
from torch.nn import functional as F

from vaelab.core.codec import parse_value, to_plain
from vaelab.core.registry import members
from vaelab.core.rng import generator
from vaelab.models.likelihoods import Gaussian
from vaelab.models.networks import Mlp
from vaelab.models.priors import StandardNormal
from vaelab.models.vae import VAE, VAEOutput
from vaelab.objectives.disentangling import DIPVAE, BetaTCVAE, FactorVAE, permute_dims
from vaelab.objectives.divergence import InfoVAE, mmd_to_prior
from vaelab.objectives.elbo import BetaVAE, Capacity
from vaelab.objectives.importance import ImportanceWeighted
from vaelab.objectives.objective import Objective
from vaelab.objectives.terms import LossTerms, first_sample
from vaelab.runs.spec import hashed_fields

SHAPE = (1, 8, 8)
DIMENSIONS = 3
IMAGES = 16


def model_for(objective: Objective) -> VAE:
    """A model whose latent dimensions have divergences of very different sizes."""
    torch.manual_seed(0)
    model = VAE(Mlp((10,)), Gaussian(0.3), SHAPE, DIMENSIONS)
    with torch.no_grad():
        model.encoder[-1].bias.copy_(torch.tensor([0.1, 0.8, 1.5, -0.2, -0.9, -1.8]))
    model.critic = objective.critic(DIMENSIONS)
    if model.critic is not None:
        with torch.no_grad():
            for weights in model.critic.parameters():
                weights.mul_(4)  # so that its logits differ from code to code
    return model


def noise_for(objective: Objective) -> Tensor:
    several = (objective.num_samples,) if objective.num_samples > 1 else ()
    return torch.randn(*several, IMAGES, DIMENSIONS, generator=generator("closed forms"))


class Known(NamedTuple):
    """What the formulas are made of: distortion and divergences as means over images, posterior and codes."""

    distortion: Tensor
    kl: Tensor
    posterior: Normal
    codes: Tensor
    model: VAE
    x: Tensor

    @property
    def bound(self) -> Tensor:
        return self.distortion + self.kl.sum()


def known(model: VAE, x: Tensor, noise: Tensor) -> Known:
    """The same terms from `torch.distributions`."""
    mean, logvar = model.encoder(x).chunk(2, -1)
    posterior = Normal(mean, (0.5 * logvar).exp())
    codes = mean + posterior.stddev * noise
    log_likelihood = Normal(model.decode_mean(codes), 0.3).log_prob(x).sum((-1, -2, -3))
    kl = kl_divergence(posterior, Normal(0.0, 1.0)).mean(0)
    return Known(-log_likelihood.mean(), kl, posterior, codes, model, x)


def terms_and_known(objective: Objective, pixels: Tensor, progress: float) -> tuple[LossTerms, Known]:
    model, noise, x = model_for(objective), noise_for(objective), pixels.float()
    return objective(model, x, noise, torch.tensor(progress)), known(model, x, noise)


def tc_by_pairs(k: Known) -> Tensor:
    """log q(z) - sum_d log q(z_d) at the codes, with q the mixture of the batch's posteriors."""
    log_density = Normal(k.posterior.mean, k.posterior.stddev).log_prob(k.codes[:, None])  # code, posterior, dimension
    joint = log_density.sum(-1).exp().mean(1).log()
    return (joint - log_density.exp().mean(1).log().sum(-1)).mean()


def dip_penalty(k: Known, off: float, diagonal: float, of_codes: bool) -> Tensor:
    covariance = torch.cov(k.posterior.mean.T, correction=0)
    if of_codes:
        covariance = covariance + k.posterior.variance.mean(0).diag()
    squares = (covariance - torch.eye(DIMENSIONS)).square()
    return off * (squares.sum() - squares.trace()) + diagonal * squares.trace()


def importance_weights(k: Known) -> Tensor:
    """p(x|z) p(z) / q(z|x) of each code and image, in double precision, (K, B)."""
    likelihood = Normal(k.model.decode_mean(k.codes).double(), 0.3).log_prob(k.x.double()).sum((-1, -2, -3))
    prior = Normal(0.0, 1.0).log_prob(k.codes.double()).sum(-1)
    return (likelihood + prior - k.posterior.log_prob(k.codes).double().sum(-1)).exp()


Formula = Callable[[Known], Tensor]
FORMULAS: list[tuple[Objective, float, Formula]] = [
    (BetaVAE(), 0.0, lambda k: k.bound),
    (BetaVAE(0.0), 1.0, lambda k: k.distortion),
    (BetaVAE(4.0, warmup=0.5), 0.0, lambda k: k.distortion),
    (BetaVAE(4.0, warmup=0.5), 0.125, lambda k: k.distortion + k.kl.sum()),
    (BetaVAE(4.0, warmup=0.5), 0.5, lambda k: k.distortion + 4 * k.kl.sum()),
    (BetaVAE(4.0, warmup=0.5), 1.0, lambda k: k.distortion + 4 * k.kl.sum()),
    (BetaVAE(2.0, free_bits=0.5), 1.0, lambda k: k.distortion + 2 * k.kl.clamp(min=0.5).sum()),
    (BetaVAE(0.5, reduction="mean"), 1.0, lambda k: k.distortion + 32 * k.kl.sum()),
    (BetaVAE(0.5, reduction="mean-each"), 1.0, lambda k: k.distortion + 32 * k.kl.mean()),
    (BetaVAE(2.0, k=3), 1.0, lambda k: k.distortion + 2 * k.kl.sum()),
    (Capacity(10, 8, 0.5), 0.0, lambda k: k.distortion + 10 * k.kl.sum()),
    (Capacity(10, 8, 0.5), 0.25, lambda k: k.distortion + 10 * (k.kl.sum() - 4).abs()),
    (Capacity(10, 8, 0.5), 0.9, lambda k: k.distortion + 10 * (8 - k.kl.sum())),
    (Capacity(10, 2, 0.5), 0.9, lambda k: k.distortion + 10 * (k.kl.sum() - 2)),
    (Capacity(10, 8, 0.0), 0.0, lambda k: k.distortion + 10 * (8 - k.kl.sum())),
    (BetaTCVAE(1.0), 1.0, lambda k: k.bound),
    (BetaTCVAE(3.0), 1.0, lambda k: k.bound + 2 * tc_by_pairs(k)),
    (DIPVAE(2.0, 3.0, "means"), 1.0, lambda k: k.bound + dip_penalty(k, 2, 3, of_codes=False)),
    (DIPVAE(2.0, 3.0, "codes"), 1.0, lambda k: k.bound + dip_penalty(k, 2, 3, of_codes=True)),
    (DIPVAE(0.5, 0.0), 1.0, lambda k: k.bound + dip_penalty(k, 0.5, 0, of_codes=True)),
    (
        InfoVAE(0.5, 20.0),
        1.0,
        lambda k: k.distortion + 0.5 * k.kl.sum() + 20 * mmd_to_prior(k.codes, StandardNormal(), k.codes),
    ),
    (ImportanceWeighted(4), 1.0, lambda k: -importance_weights(k).mean(0).log().mean().float()),
    (ImportanceWeighted(4, "dreg"), 1.0, lambda k: -importance_weights(k).mean(0).log().mean().float()),
]


@pytest.mark.parametrize(("objective", "progress", "formula"), FORMULAS, ids=str)
def test_the_loss_is_that_of_the_formula(
    objective: Objective, progress: float, formula: Formula, pixels: Tensor
) -> None:
    terms, expected = terms_and_known(objective, pixels, progress)
    assert 2 < expected.kl.sum() < 4, "between the capacities above"
    assert expected.kl.min() < 0.5 < expected.kl.max(), "on both sides of the free bits above"
    torch.testing.assert_close(terms.loss, formula(expected), rtol=1e-4, atol=1e-3)
    torch.testing.assert_close(terms.distortion, expected.distortion, rtol=1e-4, atol=1e-3)
    torch.testing.assert_close(terms.rate, expected.kl.sum(), rtol=1e-4, atol=1e-4)
    assert terms.output.z.shape == (IMAGES, DIMENSIONS)
    first = expected.codes[0] if objective.num_samples > 1 else expected.codes
    torch.testing.assert_close(terms.output.z, first)
    assert terms.output.params.pixels.shape == (IMAGES, *SHAPE)


@pytest.mark.parametrize(
    ("objective", "name", "formula"),
    [
        (BetaTCVAE(), "total_correlation", tc_by_pairs),
        (DIPVAE(2.0, 3.0), "covariance", lambda k: dip_penalty(k, 2, 3, of_codes=True)),
        (InfoVAE(), "mmd", lambda k: mmd_to_prior(k.codes, StandardNormal(), k.codes)),
    ],
    ids=str,
)
def test_further_terms_are_reported_by_name(objective: Objective, name: str, formula: Formula, pixels: Tensor) -> None:
    terms, expected = terms_and_known(objective, pixels, 1.0)
    assert set(terms.extra_terms) == {name}
    torch.testing.assert_close(terms.extra_terms[name], formula(expected), rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("weight", [0.0, 1.0, 3.0])
def test_the_total_correlation_has_its_weight_less_that_in_the_kl(weight: float, pixels: Tensor) -> None:
    terms, _ = terms_and_known(BetaTCVAE(weight), pixels, 1.0)
    correlation = terms.extra_terms["total_correlation"].item()
    assert abs(correlation) > 1e-3
    added = (terms.loss - terms.distortion - terms.rate).item()
    assert added == pytest.approx((weight - 1) * correlation, rel=0.05, abs=1e-4)


def test_the_critic_is_a_classifier_whose_logit_is_the_total_correlation(pixels: Tensor) -> None:
    objective = FactorVAE(gamma=3.0, hidden=(8, 6))
    terms, expected = terms_and_known(objective, pixels, 1.0)
    critic = expected.model.critic
    assert critic is not None
    assert [tuple(p.shape) for p in critic.parameters()] == [(8, 3), (8,), (6, 8), (6,), (1, 6), (1,)]
    real, shuffled = critic(expected.codes), critic(permute_dims(expected.codes))
    right = F.binary_cross_entropy_with_logits(real, torch.ones_like(real))
    wrong = F.binary_cross_entropy_with_logits(shuffled, torch.zeros_like(shuffled))
    torch.testing.assert_close(terms.extra_terms["critic"], (right + wrong) / 2)
    torch.testing.assert_close(terms.extra_terms["total_correlation"], real.mean())
    torch.testing.assert_close(terms.loss, expected.bound + 3 * real.mean() + (right + wrong) / 2)
    torch.testing.assert_close(terms.distortion, expected.distortion, rtol=1e-4, atol=1e-3)
    torch.testing.assert_close(terms.rate, expected.kl.sum())
    assert set(terms.extra_terms) == {"total_correlation", "critic"}


@pytest.mark.parametrize(("images", "dimensions"), [(5, 3), (5, 4), (7, 2), (3, 6), (2, 3)])
def test_permuting_gives_each_dimension_to_other_images(images: int, dimensions: int) -> None:
    z = torch.arange(images * dimensions).view(images, dimensions)
    permuted = permute_dims(z)
    for before, after in zip(z.T, permuted.T, strict=True):
        assert sorted(after.tolist()) == before.tolist(), "the values of a dimension stay its values"
        assert not (before == after).any(), "each comes from another image"
    sources = permuted // dimensions
    if dimensions < images:
        for source in sources:
            assert len(set(source.tolist())) == dimensions, "two dimensions never come from one image"
    assert permute_dims(z[:1]).tolist() == z[:1].tolist(), "a single image has no other"


def test_the_discrepancy_of_two_codes_is_known() -> None:
    """E k(z, z') of the two codes, and the means over the prior in closed form."""
    z = torch.tensor([[0.0, 1.0], [2.0, -1.0]], dtype=torch.float64)
    between = math.exp(-(2**2 + 2**2) / 4)
    to_prior = sum(2 / 3 * math.exp(-(row.square().sum().item()) / 6) for row in z) / 2
    expected = between - 2 * to_prior + 2 / 4
    assert mmd_to_prior(z, StandardNormal(), z).item() == pytest.approx(expected)


def encoder_slopes(loss: Tensor, model: VAE) -> Tensor:
    slopes = torch.autograd.grad(loss, list(model.encoder.parameters()), retain_graph=True)
    return torch.cat([slope.flatten() for slope in slopes])


def test_the_doubly_reparametrised_gradient_weighs_codes_by_the_square_of_their_share(pixels: Tensor) -> None:
    """-sum_k v_k^2 d log w_k / d z_k d z_k / d phi, where v_k is the share of w_k, and q's parameters stand still."""
    objective = ImportanceWeighted(4, "dreg")
    terms, expected = terms_and_known(objective, pixels, 1.0)
    ours = encoder_slopes(terms.loss, expected.model)
    k = expected
    still = Normal(k.posterior.mean.detach(), k.posterior.stddev.detach())
    log_weights = (
        Normal(k.model.decode_mean(k.codes), 0.3).log_prob(k.x).sum((-1, -2, -3))
        + Normal(0.0, 1.0).log_prob(k.codes).sum(-1)
        - still.log_prob(k.codes).sum(-1)
    )
    shares = log_weights.detach().softmax(0)
    surrogate = -(shares.square() * log_weights).sum(0).mean()
    torch.testing.assert_close(ours, encoder_slopes(surrogate, k.model), rtol=1e-3, atol=1e-4)


def test_without_gradients_the_doubly_reparametrised_bound_is_the_plain_one(pixels: Tensor) -> None:
    with torch.no_grad():
        plain, _ = terms_and_known(ImportanceWeighted(4), pixels, 1.0)
        dreg, _ = terms_and_known(ImportanceWeighted(4, "dreg"), pixels, 1.0)
    torch.testing.assert_close(plain.loss, dreg.loss)


SMALL = [
    BetaVAE(),
    BetaVAE(4.0, warmup=0.5),
    BetaVAE(free_bits=0.75),  # some images have less in the second dimension, others more
    BetaVAE(k=2),
    Capacity(capacity=5.0),
    BetaTCVAE(),
    FactorVAE(hidden=(8,)),
    InfoVAE(),
    DIPVAE(),
    ImportanceWeighted(2),
]


@pytest.mark.parametrize("objective", SMALL, ids=str)
def test_an_objective_decomposes_over_the_batch_if_it_says_so(objective: Objective, pixels: Tensor) -> None:
    """The loss is the mean of the losses of single images, so that several processes may each take a part."""
    model, noise, x, now = model_for(objective), noise_for(objective), pixels.float(), torch.tensor(0.5)
    losses = [objective(model, x[i : i + 1], noise[..., i : i + 1, :], now).loss for i in range(IMAGES)]
    whole = objective(model, x, noise, now).loss.item()
    same = torch.stack(losses).mean().item() == pytest.approx(whole, rel=1e-5)
    assert same == objective.decomposes_over_batch


@pytest.mark.parametrize(
    ("objective", "weight"),
    [
        (BetaVAE(), 1.0),
        (BetaVAE(0.0), 0.0),
        (BetaVAE(3.0, warmup=0.5, free_bits=0.1), 3.0),
        (BetaVAE(0.5, reduction="mean"), 1536.0),
        (BetaVAE(0.5, reduction="mean-each"), 24.0),
        (Capacity(), None),
        (BetaTCVAE(), 1.0),
        (FactorVAE(), 1.0),
        (InfoVAE(), None),
        (InfoVAE(0.5), 0.5),
        (DIPVAE(), 1.0),
        (ImportanceWeighted(), 1.0),
    ],
    ids=str,
)
def test_the_kl_weight_is_that_in_nats_per_image(objective: Objective, weight: float | None) -> None:
    assert objective.effective_kl_weight((3, 32, 32), 64) == weight


@pytest.mark.parametrize(
    ("objective", "samples"), [(BetaVAE(), 1), (BetaVAE(k=3), 3), (ImportanceWeighted(7), 7), (DIPVAE(), 1)], ids=str
)
def test_an_objective_says_how_many_codes_it_draws(objective: Objective, samples: int) -> None:
    assert objective.num_samples == samples
    assert (objective.critic(5) is None) == (not isinstance(objective, FactorVAE))


@pytest.mark.parametrize(
    ("objective", "title"),
    [
        (BetaVAE(), "VAE"),
        (BetaVAE(0.0), "autoencoder, KL weight 0"),
        (BetaVAE(0.0, warmup=0.1), "autoencoder, KL weight 0, warmup = 0.1"),
        (BetaVAE(4.0), "beta-VAE, beta = 4"),
        (BetaVAE(1.0, free_bits=0.25), "VAE, free_bits = 0.25"),
        (BetaVAE(1.0, reduction="mean"), "beta-VAE, beta = 1 with a mean over pixel values"),
        (
            BetaVAE(0.5, reduction="mean-each", k=2),
            "beta-VAE, beta = 0.5 with means over pixel values and over latent dimensions, k = 2",
        ),
        (Capacity(), "VAE with a KL capacity of 25 nats"),
        (Capacity(gamma=10.0, capacity=8.0), "VAE with a KL capacity of 8 nats, gamma = 10"),
        (ImportanceWeighted(), "IWAE, K = 5"),
        (ImportanceWeighted(50, "dreg"), "IWAE, K = 50, gradient = dreg"),
        (BetaTCVAE(), "BetaTCVAE"),
        (DIPVAE(off=2.0, of="means"), "DIPVAE, off = 2, of = means"),
    ],
    ids=str,
)
def test_a_title_names_the_objective_and_what_differs_from_its_default(objective: Objective, title: str) -> None:
    assert objective.title == title


def test_weights_in_another_unit_are_explained_in_nats() -> None:
    mean, each = BetaVAE(0.5, reduction="mean"), BetaVAE(0.5, reduction="mean-each")
    assert mean.explain((3, 32, 32), 64) == ("KL weight 0.5 with a mean over pixel values is 1536 in nats per image")
    assert each.explain((3, 32, 32), 64) == (
        "KL weight 0.5 with means over pixel values and over latent dimensions is 24 in nats per image"
    )
    assert BetaVAE(4.0).explain((3, 32, 32), 64) is None
    assert Capacity().explain((3, 32, 32), 64) is None


STORED = [
    {"name": "beta", "kl_weight": 1.0, "warmup": 0.0, "free_bits": 0.0, "reduction": "sum", "k": 1},
    {"name": "capacity", "gamma": 100.0, "capacity": 25.0, "rise": 1.0},
    {"name": "beta-tc", "tc_weight": 6.0},
    {"name": "factor", "gamma": 10.0, "hidden": [256, 256, 256]},
    {"name": "info-mmd", "kl_weight": 0.0, "mmd_weight": 1000.0},
    {"name": "dip", "off": 10.0, "diagonal": 10.0, "of": "codes"},
    {"name": "importance-weighted", "k": 5, "gradient": "plain"},
]


@pytest.mark.parametrize("table", STORED, ids=lambda table: table["name"])
def test_a_name_alone_stands_for_the_same_numbers_as_before(table: dict[str, object]) -> None:
    """Users' commands, study files and stored runs give names alone: other defaults would be other trainings."""
    objective = parse_value("objective", Objective, table["name"])
    assert to_plain(objective) == table
    assert parse_value("objective", Objective, table) == objective


def test_all_names_and_short_names_are_kept() -> None:
    assert {kind.name for kind in members(Objective)} == {table["name"] for table in STORED}
    for word, kind in {"iwae": ImportanceWeighted, "mmd": InfoVAE, "infovae": InfoVAE}.items():
        assert parse_value("objective", Objective, word) == kind()
    for words in ("beta:reduction=mean", "beta:reduction=mean-each", "dip:of=means", "iwae:gradient=dreg"):
        assert isinstance(parse_value("objective", Objective, words), Objective)


def test_a_field_that_came_later_leaves_the_key_of_runs_before_it() -> None:
    assert "k" not in hashed_fields(BetaVAE())
    assert hashed_fields(BetaVAE(k=2))["k"] == 2


def test_the_first_sample_of_one_is_itself(pixels: Tensor) -> None:
    model = model_for(BetaVAE())
    noise = torch.randn(2, IMAGES, DIMENSIONS, generator=generator("first"))
    one, several = model(pixels.float(), noise[0]), model(pixels.float(), noise)
    assert first_sample(one) is one
    first: VAEOutput = first_sample(several)
    torch.testing.assert_close(first.z, one.z)
    torch.testing.assert_close(first.params.pixels, one.params.pixels)
    assert first.q is several.q
