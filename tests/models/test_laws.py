"""The laws of densities, likelihoods and networks: each family as a whole, over its union."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.distributions import kl_divergence

from vaelab.analysis.interpolation import PATH_FUNCTIONS, alpha_values, interpolate_codes
from vaelab.core.registry import members
from vaelab.core.rng import evaluation_noise, generator
from vaelab.models.aggregate import decompose_rate, log_aggregate_posterior, total_correlation
from vaelab.models.densities import Normal, kl_normal
from vaelab.models.likelihoods import (
    ContinuousBernoulli,
    CrossEntropy,
    CrossEntropyPlusSquaredError,
    DiscretisedLogistic,
    Distortion,
    Gaussian,
    Laplace,
    Likelihood,
    LikelihoodParams,
    SquaredError,
)
from vaelab.models.networks import Conv, Init, Mlp, Network, ValidConv
from vaelab.models.priors import Prior, PriorDensity, StandardNormal
from vaelab.models.summary import layers
from vaelab.models.vae import VAE

NETWORKS = [
    Mlp(),
    Mlp(hidden=()),
    Mlp((20,), "tanh"),
    Mlp(hidden=(30, 20)),
    Conv(),
    Conv(widths=(4, 6)),
    Conv(init="torch"),
    Conv(widths=(4, 6), linear_path=True),
    ValidConv(),
    ValidConv(4, 0),
]
DISTORTIONS = [
    CrossEntropy(),
    SquaredError(),
    CrossEntropyPlusSquaredError(),
    CrossEntropyPlusSquaredError(0.5, 2.0),
    Gaussian(),
    Gaussian(0.2),
    Gaussian(0.2, "identity"),
    Gaussian("optimal"),
    Gaussian("pixel"),
    ContinuousBernoulli(),
    Laplace(),
    Laplace(0.2),
    DiscretisedLogistic(),
    DiscretisedLogistic(3),
]
LIKELIHOODS = [d for d in DISTORTIONS if isinstance(d, Likelihood)]
PRIORS = [StandardNormal()]


def test_every_member_of_a_family_is_tested_here() -> None:
    assert {type(n) for n in NETWORKS} == set(members(Network))
    assert {type(d) for d in DISTORTIONS} == set(members(Distortion))
    assert {type(p) for p in PRIORS} == set(members(Prior))
    assert set(members(Likelihood)) < set(members(Distortion))


def normal(*shape: int) -> Normal:
    return Normal(*torch.randn(2, *shape, generator=generator("test"), dtype=torch.float64))


def test_normal_agrees_with_torch() -> None:
    q, p = normal(7, 5), Normal(*(t.flip(0) for t in normal(7, 5)))
    theirs = [torch.distributions.Normal(d.mean, (0.5 * d.logvar).exp()) for d in (q, p)]
    torch.testing.assert_close(kl_normal(q, p), kl_divergence(*theirs).sum(-1))
    torch.testing.assert_close(q.log_prob(p.mean), theirs[0].log_prob(p.mean).sum(-1))


def test_closed_kl_is_the_monte_carlo_one() -> None:
    q, p = normal(3), Normal(torch.zeros(3).double(), torch.zeros(3).double())
    z = q.sample(torch.randn(200_000, 3, generator=generator("mc"), dtype=torch.float64))
    ratio = q.log_prob(z) - p.log_prob(z)
    assert abs(ratio.mean() - kl_normal(q, p)) < 5 * ratio.std() / math.sqrt(len(z))


class Estimated(PriorDensity):
    """A prior of which only density and samples are known."""

    def __init__(self, prior: PriorDensity) -> None:
        self.log_prob, self.sample = prior.log_prob, prior.sample  # type: ignore[method-assign]


@pytest.mark.parametrize("prior", PRIORS, ids=str)
def test_what_a_prior_has_in_closed_form_agrees_with_its_samples(prior: Prior) -> None:
    density, estimated = prior.build(3), Estimated(prior.build(3))
    q = normal(1, 3)
    noise = torch.randn(100_000, 1, 3, generator=generator("prior"), dtype=torch.float64)
    z = q.sample(noise)
    torch.testing.assert_close(density.log_ratio(q, z, noise), estimated.log_ratio(q, z, noise))
    error = 5 * density.log_ratio(q, z, noise).std().item() / math.sqrt(len(z))
    torch.testing.assert_close(density.kl(q, z), estimated.kl(q, z), rtol=0, atol=error)
    torch.testing.assert_close(density.kl(q, z), density.kl_per_dimension(q, z).sum(-1))
    assert estimated.kl_per_dimension(q, z).shape == (1, 3)
    samples = density.sample(noise[:, 0])
    moments = torch.cov(samples.T), samples.mean(0)
    assert density.log_prob(samples).mean() > density.log_prob(samples + 1).mean()
    kl = density.kl_of_moments(moments[1], moments[0])
    assert kl is None or abs(kl) < 1e-3
    codes, codes_noise = z[:2000, 0], noise[:2000, 0]
    for closed, sampled in zip(
        density.kernel_means(codes, codes_noise), estimated.kernel_means(codes, codes_noise), strict=True
    ):
        assert float(closed) == pytest.approx(float(sampled), rel=0.05)


def test_kl_of_moments_is_that_of_a_full_covariance() -> None:
    mean = normal(4).mean
    root = torch.randn(4, 4, generator=generator("covariance"), dtype=torch.float64)
    covariance = root @ root.T + torch.eye(4)
    theirs = kl_divergence(
        torch.distributions.MultivariateNormal(mean, covariance),
        torch.distributions.MultivariateNormal(torch.zeros(4).double(), torch.eye(4).double()),
    )
    torch.testing.assert_close(StandardNormal().kl_of_moments(mean, covariance), theirs)


def params(distortion: Distortion, first: float, count: int = 1) -> LikelihoodParams:
    """The parameters of one pixel, `count` times: the first number as given, the others of the usual size."""
    values = 0.4 * torch.arange(distortion.channels_per_value, dtype=torch.float64)
    values[0] = first
    return LikelihoodParams(values.view(1, -1, 1, 1).expand(count, -1, 1, 1),
                  torch.tensor(distortion.initial_global_params, dtype=torch.float64))  # fmt: skip


GRIDS = {
    "binary": torch.tensor([0.0, 1.0]).double(),
    "levels": torch.arange(256, dtype=torch.float64) / 255,
    "continuum": torch.linspace(-6, 7, 100_001, dtype=torch.float64),
}


@pytest.mark.parametrize("likelihood", LIKELIHOODS, ids=str)
@pytest.mark.parametrize("first", [-3.0, 0.003, 0.3, 5.0])
def test_a_likelihood_integrates_to_one_and_samples_from_itself(likelihood: Likelihood, first: float) -> None:
    x = GRIDS[likelihood.support].view(-1, 1, 1, 1)
    if isinstance(likelihood, ContinuousBernoulli):
        x = torch.linspace(0, 1, 20_001, dtype=torch.float64).view(-1, 1, 1, 1)
    density = likelihood.log_prob(params(likelihood, first, len(x)), x).exp()
    weights = torch.ones(len(x)).double()
    if likelihood.support == "continuum":  # the trapezium rule
        weights *= (x[1] - x[0]).item()
        weights[[0, -1]] /= 2
    assert (density * weights).sum().item() == pytest.approx(1, abs=1e-5)
    expected = (density * weights * x.flatten()).sum()
    torch.testing.assert_close(expected, likelihood.mean(params(likelihood, first)).squeeze(), atol=1e-4, rtol=0)
    noise = torch.randn(20_000, 1, 1, 1, generator=generator("sample"), dtype=torch.float64)
    drawn = likelihood.sample(params(likelihood, first, len(noise)), noise)
    assert abs(drawn.mean() - expected) < 5 * drawn.std() / math.sqrt(len(drawn)) + 1e-6
    middle = drawn.median()  # half of the probability lies at most there
    assert (density * weights)[x.flatten() <= middle].sum() > 0.48
    assert (density * weights)[x.flatten() >= middle].sum() > 0.48


def test_extreme_parameters_give_finite_likelihoods_and_gradients() -> None:
    x = torch.tensor([0.0, 0.25, 1.0]).view(3, 1, 1, 1)
    for likelihood in LIKELIHOODS:
        for value in (-80.0, -1e-4, 0.0, 80.0):
            pixels = torch.full((3, likelihood.channels_per_value, 1, 1), value, requires_grad=True)
            log_prob = likelihood.log_prob(LikelihoodParams(pixels, torch.tensor(likelihood.initial_global_params)), x)
            log_prob.sum().backward()
            assert log_prob.isfinite().all(), (likelihood, value)
            assert pixels.grad is not None
            assert pixels.grad.isfinite().all(), (likelihood, value)


@pytest.mark.parametrize(
    "distortion", [d for d in DISTORTIONS if d.channels_per_value == 1 and d != ContinuousBernoulli()], ids=str
)
def test_a_distortion_is_smallest_at_the_image(distortion: Distortion, pixels: torch.Tensor) -> None:
    x = pixels.clamp(0.05, 0.95)
    inner = x if getattr(distortion, "link", "sigmoid") == "identity" else torch.logit(x)
    shared = torch.tensor(distortion.initial_global_params, dtype=torch.float64)
    best = distortion(LikelihoodParams(inner, shared), x)
    assert best.shape == (len(x),)
    assert (distortion(LikelihoodParams(inner + 0.1, shared), x) > best).all()
    torch.testing.assert_close(distortion.mean(LikelihoodParams(inner, shared)), x)


def test_the_continuous_bernoulli_is_that_of_torch() -> None:
    logits, x = 3 * torch.randn(2, 500, generator=generator("cb"), dtype=torch.float64)
    theirs = torch.distributions.ContinuousBernoulli(logits=logits)
    x = x.sigmoid()
    ours = ContinuousBernoulli()
    one = LikelihoodParams(logits.view(-1, 1, 1, 1), torch.empty(0))
    torch.testing.assert_close(ours.log_prob(one, x.view(-1, 1, 1, 1)), theirs.log_prob(x), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(ours.mean(one).flatten(), theirs.mean, rtol=1e-3, atol=1e-4)


def test_an_optimal_sigma_is_the_residual_of_the_batch_in_training_and_fixed_afterwards(pixels: torch.Tensor) -> None:
    torch.manual_seed(0)
    optimal = VAE(Mlp((10,)), Gaussian("optimal"), (1, 8, 8), 3).double()
    noise = torch.randn(16, 3, generator=generator("noise"), dtype=torch.float64)
    draw = optimal(pixels, noise)
    residual = (draw.params.pixels.sigmoid() - pixels).square().mean()
    in_training = optimal.compute_distortion(draw.params, pixels).mean()
    torch.testing.assert_close(in_training, 32 * (residual.log() + 1 + math.log(2 * math.pi)))
    # of all sigmas this one is best, and the gradient is that of the formula with sigma put in
    assert all(Gaussian(s)(draw.params, pixels).mean() > in_training for s in (0.9 * residual.sqrt().item(), 0.5))
    ours = torch.autograd.grad(in_training, draw.params.pixels, retain_graph=True)[0]
    theirs = torch.autograd.grad(32 * residual.log(), draw.params.pixels, retain_graph=True)[0]
    torch.testing.assert_close(ours, theirs)
    optimal.eval()
    assert optimal.compute_distortion(draw.params, pixels).mean() == Gaussian("optimal")(draw.params, pixels).mean()
    one, both = optimal.compute_distortion(draw.params, pixels)[:1], optimal.compute_distortion(
        LikelihoodParams(draw.params.pixels[:1], draw.params.global_params), pixels[:1])  # fmt: skip
    torch.testing.assert_close(one, both), "an image's likelihood does not depend on its neighbours"


def test_squared_error_with_weight_w_is_the_gaussian_of_variance_half_w(pixels: torch.Tensor) -> None:
    output = LikelihoodParams(
        torch.randn(pixels.shape, generator=generator("logits"), dtype=torch.float64), torch.empty(0)
    )
    for weight in (0.5, 1.0, 1536.0):
        gaussian = SquaredError().as_likelihood(weight)
        assert gaussian == Gaussian(math.sqrt(weight / 2))
        difference = weight * gaussian(output, pixels) - SquaredError()(output, pixels)
        assert difference.std() < 1e-9 * weight, "the two differ by a constant alone"
    assert SquaredError().as_likelihood(0) is None
    assert CrossEntropyPlusSquaredError().as_likelihood(1) is None


SHAPES = [(1, 8, 8), (3, 9, 31), (1, 28, 28), (3, 32, 32), (3, 50, 33), (1, 8, 70)]


@pytest.mark.parametrize("network", NETWORKS, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_a_network_goes_from_images_to_codes_and_back(network: Network, shape: tuple[int, int, int]) -> None:
    x, z = torch.rand(2, *shape), torch.randn(2, 5)
    assert network.encoder(shape, 5)(x).shape == (2, 10)
    assert network.decoder(shape, 5)(z).shape == (2, *shape)


@pytest.mark.parametrize("network", NETWORKS, ids=str)
def test_a_network_has_no_state_but_its_weights(network: Network) -> None:
    """No running statistics and no dropout: training and evaluation are the same function of the weights."""
    for part in (network.encoder((3, 16, 16), 4), network.decoder((3, 16, 16), 4)):
        assert isinstance(part, torch.nn.Sequential), "the table of layers walks through it"
        assert not list(part.buffers())
        assert not [m for m in part.modules() if "dropout" in type(m).__name__.lower()]


def test_large_pictures_fit_the_default_network() -> None:
    encoder, decoder = Conv().encoder((3, 256, 200), 8), Conv().decoder((3, 256, 200), 8)
    assert decoder(encoder(torch.rand(1, 3, 256, 200))[:, :8]).shape == (1, 3, 256, 200)


@pytest.mark.parametrize("network", NETWORKS, ids=str)
def test_weights_are_drawn_as_the_network_says(network: Network) -> None:
    def weights(init: Init) -> list[torch.Tensor]:
        torch.manual_seed(0)
        model = VAE(replace(network, init=init), SquaredError(), (3, 16, 12), 7)
        for name, parameter in model.named_parameters():
            assert init == "torch" or not name.endswith("bias") or not parameter.any(), (init, name)
        return [p for name, p in model.named_parameters() if name.endswith("weight")]

    for drawn in weights("glorot"):
        outputs, inputs = (n * drawn[0, 0].numel() for n in drawn.shape[:2])
        bound = math.sqrt(6 / (inputs + outputs))
        assert drawn.abs().max() <= bound
        assert drawn.abs().max() > 0.9 * bound
        assert drawn.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.15)
    assert not any(torch.equal(he, own) for he, own in zip(weights("he"), weights("torch"), strict=True))


def test_centred_inputs_are_the_pixels_from_minus_two_to_two(pixels: torch.Tensor) -> None:
    torch.manual_seed(0)
    model = VAE(Mlp((10,), inputs="centred"), SquaredError(), (1, 8, 8), 3)
    x = pixels.float()
    torch.testing.assert_close(model.encode(x).mean, model.encoder((x - 0.5) / 0.25).chunk(2, 1)[0])


@pytest.mark.parametrize("distortion", DISTORTIONS, ids=str)
def test_an_output_is_known_for_every_mean_image(distortion: Distortion) -> None:
    mean = torch.linspace(0.001, 0.999, 60, dtype=torch.float64).view(3, 5, 4)
    output = distortion.output_with_mean(mean)
    assert output.shape == (3 * distortion.channels_per_value, 5, 4)
    shared = torch.tensor(distortion.initial_global_params)
    torch.testing.assert_close(distortion.mean(LikelihoodParams(output[None], shared))[0], mean)


@pytest.mark.parametrize("distortion", DISTORTIONS, ids=str)
@pytest.mark.parametrize("network", NETWORKS, ids=str)
def test_reconstructions_start_at_the_mean_image(network: Network, distortion: Distortion) -> None:
    model = VAE(network, distortion, (3, 16, 12), 7).requires_grad_(False)
    for parameter in model.decoder.parameters():
        parameter.zero_()
    per_pixel = torch.linspace(0, 1, 3 * 16 * 12).view(3, 16, 12)
    per_channel = torch.tensor([0.0, 0.3, 1.0]).view(3, 1, 1).expand(3, 16, 12)
    has_bias_of_each_pixel = isinstance(network, Mlp) or (isinstance(network, Conv) and network.linear_path)
    for mean in [per_channel, per_pixel] if has_bias_of_each_pixel else [per_channel]:
        model.start_at(mean)
        torch.testing.assert_close(model.decode_mean(torch.zeros(1, 7))[0], mean, atol=2e-3, rtol=0)


@pytest.mark.parametrize("network", NETWORKS, ids=str)
def test_the_table_of_layers_has_every_parameter_and_ends_with_the_outputs(network: Network) -> None:
    model = VAE(network, SquaredError(), (3, 16, 12), 7)
    for name, part, shape in [("encoder", model.encoder, (14,)), ("decoder", model.decoder, (3, 16, 12))]:
        rows = [row for row in layers(model) if row.part == name]
        assert sum(row.parameters for row in rows) == sum(p.numel() for p in part.parameters())
        assert rows[-1].shape == shape


def test_the_network_of_report_a_has_its_shapes() -> None:
    rows = layers(VAE(ValidConv(), SquaredError(), (3, 32, 32), 64))
    shapes = [row.shape for row in rows if row.name != "ReLU"]
    assert shapes == [(16, 30, 30), (32, 28, 28), (25088,), (512,), (128,),
                      (512,), (25088,), (32, 28, 28), (16, 30, 30), (3, 32, 32)]  # fmt: skip


def test_the_textbook_network_has_its_parameters() -> None:
    model = VAE(Mlp(), CrossEntropy(), (1, 28, 28), 20)
    assert (
        sum(p.numel() for p in model.parameters())
        == 784 * 400 + 400 + 2 * (400 * 20 + 20) + 20 * 400 + 400 + 400 * 784 + 784
    )


def correlated(count: int, spread: float = 0.1) -> tuple[Normal, torch.Tensor, float]:
    """Posteriors whose means correlate, codes from them, and the total correlation of the whole in nats."""
    first, second = torch.randn(2, count, generator=generator("correlated"))
    mean = torch.stack([first, 0.9 * first + math.sqrt(1 - 0.81) * second], 1)
    q = Normal(mean, torch.full_like(mean, math.log(spread)))
    correlation = 0.9 / (1 + spread)
    return q, q.sample(torch.randn(mean.shape, generator=generator("codes"))), -0.5 * math.log(1 - correlation**2)


def test_total_correlation_is_that_of_the_aggregate() -> None:
    q, z, exact = correlated(2000)
    assert total_correlation(q, z).mean().item() == pytest.approx(exact, abs=0.05)
    apart = Normal(torch.stack([q.mean[:, 0], q.mean[:, 1].roll(7)], 1), q.logvar)
    assert total_correlation(apart, apart.sample(torch.randn(2000, 2, generator=generator("a")))).mean().item() < 0.1


def test_the_rate_splits_into_information_and_distance_from_the_prior() -> None:
    """Posteriors whose aggregate is N(0, 1 + s^2) in each of two dimensions: both parts are known in closed form."""
    count, variance = 4000, 0.25
    mean, noise = torch.randn(2, count, 2, generator=generator("aggregate"), dtype=torch.float64)
    q = Normal(mean, torch.full_like(mean, math.log(variance)))
    z = q.sample(noise)
    parts = decompose_rate(Normal(q.mean[:1000], q.logvar[:1000]), z[:1000], q, StandardNormal())
    whole = 1 + variance
    assert parts.mutual_information.mean() == pytest.approx(math.log(whole / variance), abs=0.08)
    assert parts.marginal_kl.mean() == pytest.approx(whole - 1 - math.log(whole), abs=0.08)
    kl = q.log_prob(z) - Normal(torch.zeros(2), torch.zeros(2)).log_prob(z)
    torch.testing.assert_close(parts.mutual_information + parts.marginal_kl, kl[:1000])
    naive = torch.stack([Normal(mean, q.logvar).log_prob(point).logsumexp(0) for point in z[:20]]) - math.log(count)
    torch.testing.assert_close(log_aggregate_posterior(q, z[:20]), naive)


@pytest.mark.parametrize("side", [16, 64])
def test_with_he_weights_the_signal_keeps_its_size_at_any_depth(side: int) -> None:
    def spread(init: str) -> float:
        torch.manual_seed(0)
        outputs = Conv(init=init).decoder((1, side, side), 32)(torch.randn(64, 32))  # type: ignore[arg-type]
        return outputs.std(0).mean().item()

    assert 0.4 < spread("he") < 1.2
    assert spread("torch") < spread("he") / 4


@pytest.mark.parametrize("path", PATH_FUNCTIONS)
def test_paths_go_from_start_to_end(path: str) -> None:
    start, end = torch.randn(2, 5, 6, generator=generator("path"), dtype=torch.float64)
    way = interpolate_codes(start, end, alpha_values(11).double(), path)
    assert way.shape == (5, 11, 6)
    torch.testing.assert_close(way[:, 0], start)
    torch.testing.assert_close(way[:, -1], end)
    if path == "linear":
        torch.testing.assert_close(way[:, 2], 0.2 * end + 0.8 * start, rtol=1e-6, atol=1e-6)
    else:  # between codes of one length, equal steps on a circle
        unit = [c / c.norm(dim=-1, keepdim=True) for c in (start, end)]
        arc = interpolate_codes(unit[0], unit[1], alpha_values(11).double(), path)
        torch.testing.assert_close(arc.norm(dim=-1), torch.ones(5, 11).double(), rtol=1e-6, atol=1e-6)
        cosines = (arc[:, 1:] * arc[:, :-1]).sum(-1)
        torch.testing.assert_close(cosines, cosines[:, :1].expand(-1, 10), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(
        interpolate_codes(start, start, alpha_values(3).double(), path), start[:, None].expand(-1, 3, -1)
    )


def test_noise_is_a_function_of_the_image_alone() -> None:
    rows = np.arange(3000)
    whole = evaluation_noise(rows, 4)
    for some in (rows[100:900], rows[::7], rows[::-1]):
        assert torch.equal(evaluation_noise(some, 4), whole[some.copy()])
    assert abs(whole.mean()) < 0.05
    assert abs(whole.std() - 1) < 0.05
