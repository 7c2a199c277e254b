r"""The variational autoencoder: encoder, decoder, distortion and prior, put together.

    q(z|x) = N(mean(x), exp(logvar(x))),    z = mean + sigma * noise,    p(z) = prior,    params = decoder(z)

`VAE` is the only model class. It draws no random numbers: noise is an argument.

Source: Auto-Encoding Variational Bayes, arXiv 1312.6114.
"""

from __future__ import annotations

import copy
from typing import NamedTuple

import torch
from torch import Tensor, nn

from vaelab.models.densities import Normal
from vaelab.models.likelihoods import Distortion, LikelihoodParams
from vaelab.models.networks import Network, Shape, set_output_bias
from vaelab.models.priors import Prior, PriorDensity, StandardNormal

__all__ = ["LOGVAR_BOUNDS", "VAE", "VAEOutput"]

# With KL weight 0 the posterior may shrink to a point; e^-10 is the smallest sigma it can have.
LOGVAR_BOUNDS = (-20.0, 10.0)

# Where an output may start: a pixel that is black in all training images has no finite logit.
MEAN_BOUNDS = (1e-3, 1 - 1e-3)


class VAEOutput(NamedTuple):
    """One pass through the model.

    Attributes:
        q: The posteriors, with parameters (B, D).
        z: Codes drawn from them, (B, D), or (K, B, D) with K codes for each image.
        params: The decoder's output for the codes.
    """

    q: Normal
    z: Tensor
    params: LikelihoodParams


class VAE(nn.Module):
    """A variational autoencoder for images in [0, 1].

    Args:
        network: Encoder and decoder.
        distortion: What the decoder's output means.
        shape: Channels, height and width of the images.
        latent_dim: The number of latent dimensions D.
        prior: The distribution of codes.

    Attributes:
        shared: The numbers that all pixels share, (n,), the global parameters of the likelihood.
        critic: A network that some losses train together with the model, set after the model's own weights are drawn.
        precision: The data type that the networks compute in, where it is not that of their input.

    Example:
        >>> from vaelab.models.likelihoods import Gaussian
        >>> from vaelab.models.networks import Mlp
        >>> model = VAE(Mlp(hidden=(10,)), Gaussian(), shape=(1, 8, 8), latent_dim=2)
        >>> images, noise = torch.rand(5, 1, 8, 8), torch.randn(5, 2)
        >>> output = model(images, noise)
        >>> output.z.shape, model.rate(output).shape, model.reconstruct(images).shape
        (torch.Size([5, 2]), torch.Size([5]), torch.Size([5, 1, 8, 8]))
    """

    critic: nn.Module | None
    prior: PriorDensity
    precision: torch.dtype | None = None

    def __init__(
        self, network: Network, distortion: Distortion, shape: Shape, latent_dim: int, prior: Prior | None = None
    ) -> None:
        super().__init__()
        self.critic = None
        self.distortion = distortion
        self.shape = shape
        self.latent_dim = latent_dim
        self.centres_inputs = network.inputs == "centred"
        output_shape = (distortion.channels_per_value * shape[0], *shape[1:])
        self.encoder = network.encoder(shape, latent_dim)
        self.decoder = network.decoder(output_shape, latent_dim)
        self.prior = (prior or StandardNormal()).build(latent_dim)
        shared = torch.tensor(distortion.initial_global_params)
        if len(shared) and distortion.trains_global_params:
            self.shared = nn.Parameter(shared)
        else:
            self.register_buffer("shared", shared, persistent=len(shared) > 0)

    def start_at(self, mean_image: Tensor) -> None:
        """Set the decoder's output bias so that reconstructions start near an image, with shape (C, H, W)."""
        set_output_bias(self.decoder, self.distortion.output_with_mean(mean_image.clamp(*MEAN_BOUNDS)))

    def encode(self, x: Tensor) -> Normal:
        """The posterior q(z|x).

        Args:
            x: Images in [0, 1], (B, C, H, W).

        Returns:
            The posteriors, with parameters (B, D) in float32.
        """
        if self.centres_inputs:
            x = 4 * x - 2
        mean, logvar = self.encoder(x.to(self.precision)).float().chunk(2, dim=-1)
        return Normal(mean, logvar.clamp(*LOGVAR_BOUNDS))

    def decode(self, z: Tensor) -> LikelihoodParams:
        """The parameters of p(x|z), in float32, for codes (*, D)."""
        pixels = self.decoder(z.flatten(0, -2).to(self.precision)).float()
        return LikelihoodParams(pixels.unflatten(0, z.shape[:-1]), self.shared)

    def forward(self, x: Tensor, noise: Tensor) -> VAEOutput:
        """Encode images, draw codes and decode them.

        Args:
            x: Images in [0, 1], (B, C, H, W).
            noise: Standard normal noise, (B, D), or (K, B, D) for K codes of each image.

        Returns:
            The posteriors, the codes and the decoder's output.
        """
        q = self.encode(x)
        z = q.sample(noise)
        return VAEOutput(q, z, self.decode(z))

    def compute_distortion(self, params: LikelihoodParams, x: Tensor) -> Tensor:
        """The distortion of each image, with shape (*, C, H, W) -> (*).

        Shared numbers that are fitted and not trained are, in training, those that suit this batch best. They depend on
        the decoder's output, but at the best value the loss does not change with them, so no gradient is lost.
        """
        if self.training and not self.distortion.trains_global_params:
            fitted = self.distortion.fit(LikelihoodParams(params.pixels.detach(), params.global_params), x)
            if fitted is not None:
                params = params._replace(global_params=fitted)
        return self.distortion(params, x)

    def rate_per_dimension(self, output: VAEOutput) -> Tensor:
        """KL(q(z|x) || p(z)) of each image and each latent dimension, in nats, (B, D)."""
        return self.prior.kl_per_dimension(output.q, output.z)

    def rate(self, output: VAEOutput) -> Tensor:
        """KL(q(z|x) || p(z)) of each image, in nats, (B,)."""
        return self.prior.kl(output.q, output.z)

    def sample_prior(self, noise: Tensor) -> Tensor:
        """Codes from the prior, with shape (*, D) -> (*, D), as a function of standard normal noise."""
        return self.prior.sample(noise)

    def reconstruct(self, x: Tensor) -> Tensor:
        """The mean image of the posterior mean, (B, C, H, W) -> (B, C, H, W): the same input gives the same output."""
        return self.decode_mean(self.encode(x).mean)

    def decode_mean(self, z: Tensor) -> Tensor:
        """The mean images of codes, in [0, 1], with shape (*, D) -> (*, C, H, W)."""
        return self.distortion.mean(self.decode(z)).clamp(0, 1)

    def bfloat16_copy(self) -> VAE:
        """A copy whose networks compute in bfloat16; densities stay in float32."""
        lowered = copy.deepcopy(self)
        lowered.encoder.bfloat16()
        lowered.decoder.bfloat16()
        lowered.precision = torch.bfloat16
        return lowered
