"""Laws of objectives that are not single formulas: what gradients reach, what a critic learns, how bounds rise."""

from __future__ import annotations

import math

import pytest
import torch

from vaelab.core.registry import members
from vaelab.core.rng import generator
from vaelab.models.likelihoods import Distortion, Gaussian, SquaredError
from vaelab.models.networks import Mlp
from vaelab.models.priors import StandardNormal
from vaelab.models.vae import VAE
from vaelab.objectives.disentangling import DIPVAE, BetaTCVAE, FactorVAE
from vaelab.objectives.divergence import InfoVAE, mmd_to_prior
from vaelab.objectives.elbo import BetaVAE, Capacity
from vaelab.objectives.importance import ImportanceWeighted
from vaelab.objectives.objective import Objective

OBJECTIVES = [
    BetaVAE(),
    BetaVAE(0.0),
    BetaVAE(4.0, warmup=0.5),
    BetaVAE(free_bits=0.3),
    BetaVAE(0.5, reduction="mean"),
    BetaVAE(0.5, reduction="mean-each"),
    BetaVAE(k=3),
    Capacity(),
    BetaTCVAE(),
    FactorVAE(hidden=(8,)),
    InfoVAE(),
    DIPVAE(),
    DIPVAE(of="means"),
    ImportanceWeighted(),
    ImportanceWeighted(3, "dreg"),
]


def test_every_objective_is_tested_here() -> None:
    assert {type(o) for o in OBJECTIVES} == set(members(Objective))


def small(objective: Objective, distortion: Distortion | None = None) -> VAE:
    torch.manual_seed(0)
    model = VAE(Mlp((10,)), distortion or SquaredError(), (1, 8, 8), 3)
    model.critic = objective.critic(3)
    return model


def codes(objective: Objective, *name: object) -> torch.Tensor:
    """Noise for sixteen images."""
    several = (objective.num_samples,) if objective.num_samples > 1 else ()
    return torch.randn(*several, 16, 3, generator=generator("noise", *name))


@pytest.mark.parametrize("objective", OBJECTIVES, ids=str)
@pytest.mark.parametrize("distortion", [kind() for kind in members(Distortion)], ids=str)
def test_an_objective_is_finite_and_reaches_every_parameter(
    objective: Objective, distortion: Distortion, pixels: torch.Tensor
) -> None:
    model, noise = small(objective, distortion), codes(objective)
    terms = objective(model, pixels.float(), noise, torch.tensor(0.7))
    assert all(t.shape == () and t.isfinite() for t in (terms.loss, terms.distortion, terms.rate))
    assert terms.rate > 0
    terms.loss.backward()
    without = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert not without


def loss_of(objective: Objective, pixels: torch.Tensor, progress: float = 1.0, *name: object) -> float:
    terms = objective(small(objective), pixels.float(), codes(objective, *name), torch.tensor(progress))
    return terms.loss.item()


def test_a_critic_learns_the_total_correlation() -> None:
    first, second = torch.randn(2, 1000, generator=generator("correlated"))
    z = torch.stack([first, 0.8 * first + 0.6 * second], 1)
    exact = -0.5 * math.log(1 - 0.8**2)
    objective = FactorVAE(hidden=(32, 32))
    torch.manual_seed(0)
    model = VAE(Mlp((4,)), SquaredError(), (1, 8, 8), 2)
    model.critic = objective.critic(2)
    optimizer = torch.optim.Adam(model.critic.parameters(), lr=1e-2)

    class Fixed:  # a model whose codes are given, so that the critic alone moves
        def __call__(self, x: torch.Tensor, noise: torch.Tensor) -> object:
            return model(torch.zeros(len(z), 1, 8, 8), noise)._replace(z=z)

        def __getattr__(self, name: str) -> object:
            return getattr(model, name)

    for _ in range(80):
        terms = objective(Fixed(), torch.zeros(len(z), 1, 8, 8), torch.zeros_like(z), torch.tensor(1.0))  # type: ignore[arg-type]
        optimizer.zero_grad()
        terms.loss.backward()
        optimizer.step()
    assert terms.extra_terms["total_correlation"].item() == pytest.approx(exact, abs=0.12)
    assert terms.extra_terms["critic"].item() < math.log(2)


def test_the_model_does_not_train_its_critic_nor_the_critic_the_model(pixels: torch.Tensor) -> None:
    loud, quiet = FactorVAE(gamma=50.0, hidden=(8,)), FactorVAE(gamma=0.0, hidden=(8,))
    gradients = {}
    for objective in (loud, quiet, BetaVAE()):
        model = small(objective)
        objective(model, pixels.float(), codes(objective), torch.tensor(1.0)).loss.backward()
        gradients[objective] = {n: p.grad for n, p in model.named_parameters()}
    for name, slope in gradients[loud].items():
        if name.startswith("critic."):
            torch.testing.assert_close(slope, gradients[quiet][name])
        else:
            torch.testing.assert_close(gradients[quiet][name], gradients[BetaVAE()][name])
    assert any(not torch.equal(gradients[loud][n], g) for n, g in gradients[BetaVAE()].items())


def test_the_discrepancy_is_zero_at_the_prior_and_as_sampled_elsewhere() -> None:
    normal = torch.randn(4, 1500, 5, generator=generator("mmd"), dtype=torch.float64)
    assert abs(mmd_to_prior(normal[0], StandardNormal(), normal[0])) < 2e-3
    z = 0.5 * normal[1] + 0.3

    def kernel(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return (-torch.cdist(a, b).square() / 10).exp()

    own = (kernel(z, z).sum() - len(z)) / (len(z) * (len(z) - 1))
    sampled = own - 2 * kernel(z, normal[2]).mean() + kernel(normal[2], normal[3]).mean()
    assert mmd_to_prior(z, StandardNormal(), normal[1]).item() == pytest.approx(sampled.item(), rel=0.1)


def test_the_importance_weighted_bound_rises_with_its_samples(pixels: torch.Tensor) -> None:
    def bound(k: int) -> float:
        return sum(loss_of(ImportanceWeighted(k), pixels, 1.0, i) for i in range(50)) / 50

    bounds = [bound(k) for k in (1, 5, 50)]
    assert bounds[0] > bounds[1] > bounds[2]
    elbo = sum(loss_of(BetaVAE(), pixels, 1.0, i) for i in range(50)) / 50
    assert bounds[0] == pytest.approx(elbo, rel=0.02)


def test_the_doubly_reparametrised_gradient_is_the_same_on_average_and_quieter(pixels: torch.Tensor) -> None:
    def slopes(gradient: str, part: str) -> torch.Tensor:
        found = []
        for i in range(60):
            objective = ImportanceWeighted(8, gradient)  # type: ignore[arg-type]
            model = small(objective, Gaussian(0.3))
            objective(model, pixels.float(), codes(objective, i), torch.tensor(1.0)).loss.backward()
            found.append(torch.cat([p.grad.flatten() for p in getattr(model, part).parameters()]))
        return torch.stack(found)

    torch.testing.assert_close(slopes("plain", "decoder"), slopes("dreg", "decoder"))
    plain, dreg = slopes("plain", "encoder"), slopes("dreg", "encoder")
    error = ((plain.var(0) + dreg.var(0)) / len(plain)).sqrt()
    wrong = ((plain.mean(0) - dreg.mean(0)).abs() > 4 * error + 1e-7).float().mean()
    assert wrong < 0.01
    assert dreg.var(0).sum() < plain.var(0).sum()
