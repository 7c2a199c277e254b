r"""The variational autoencoder: encoder, decoder, distortion and prior, put together.

    q(z|x) = N(mean(x), exp(logvar(x))),    z = mean + sigma * noise,    p(z) = N(0, 1),    params = decoder(z)

`VAE` is the only model class. It holds no randomness: noise comes in as an argument. Source: Auto-Encoding Variational
Bayes, arXiv 1312.6114.
"""

from __future__ import annotations

import copy
from typing import NamedTuple

import torch
from torch import Tensor, nn

from vaelab.models.densities import Normal
from vaelab.models.likelihoods import Distortion, LikelihoodParams
from vaelab.models.networks import Network, Shape

__all__ = ["LOGVAR_BOUNDS", "VAE", "VAEOutput"]

LOGVAR_BOUNDS = (
    -20.0,
    10.0,
)  # with KL weight 0 the posterior may shrink to a point: e^-10 is as small as sigma may become


class VAEOutput(NamedTuple):
    """One pass through the model: the posterior q, the code z drawn from it and the decoder's output for z."""

    q: Normal
    z: Tensor
    params: LikelihoodParams


class VAE(nn.Module):
    """A variational autoencoder for images of `shape` (C, H, W) in [0, 1], with `latent_dim` latent dimensions D.

    `critic` is a network that some losses train beside it; it is put in after the model's own weights are drawn.
    """

    critic: nn.Module | None
    precision: torch.dtype | None = None  # in which the networks compute, where it is not that of their input

    def __init__(self, network: Network, distortion: Distortion, shape: Shape, latent_dim: int) -> None:
        super().__init__()
        self.critic = None
        self.distortion, self.shape, self.latent_dim = distortion, shape, latent_dim
        self.encoder = network.encoder(shape, latent_dim)
        self.decoder = network.decoder((distortion.channels_per_value * shape[0], *shape[1:]), latent_dim)
        shared = torch.tensor(distortion.initial_global_params)
        if len(shared) and distortion.trains_global_params:
            self.shared = nn.Parameter(shared)
        else:
            self.register_buffer("shared", shared, persistent=len(shared) > 0)

    def encode(self, x: Tensor) -> Normal:
        """The posterior q(z|x) of images (B, C, H, W), with parameters (B, D) in float32."""
        mean, logvar = self.encoder(x.to(self.precision)).float().chunk(2, dim=-1)
        return Normal(mean, logvar.clamp(*LOGVAR_BOUNDS))

    def decode(self, z: Tensor) -> LikelihoodParams:
        """The parameters of p(x|z) for codes (*, D), in float32."""
        pixels = self.decoder(z.flatten(0, -2).to(self.precision)).float()
        return LikelihoodParams(pixels.unflatten(0, z.shape[:-1]), self.shared)

    def bfloat16_copy(self) -> VAE:
        """A copy whose networks compute in bfloat16; densities stay in float32."""
        lowered = copy.deepcopy(self)
        lowered.encoder.bfloat16()
        lowered.decoder.bfloat16()
        lowered.precision = torch.bfloat16
        return lowered

    def forward(self, x: Tensor, noise: Tensor) -> VAEOutput:
        """Encode images (B, C, H, W), draw codes with standard normal `noise`, decode them.

        Noise of (K, B, D) in place of (B, D) draws K codes of each image.
        """
        q = self.encode(x)
        z = q.sample(noise)
        return VAEOutput(q, z, self.decode(z))

    def compute_distortion(self, params: LikelihoodParams, x: Tensor) -> Tensor:
        """The distortion of each image, (*, C, H, W) -> (*).

        Shared numbers that are found rather than learned are, in training, those that suit this batch best; they depend
        on the decoder's output, but at the best value the loss does not change with them, so no gradient is lost.
        """
        if self.training and not self.distortion.trains_global_params:
            fitted = self.distortion.fit(LikelihoodParams(params.pixels.detach(), params.global_params), x)
            params = params if fitted is None else params._replace(global_params=fitted)
        return self.distortion(params, x)

    def reconstruct(self, x: Tensor) -> Tensor:
        """The mean image of the posterior mean, (B, C, H, W) -> (B, C, H, W): the same input, the same output."""
        return self.decode_mean(self.encode(x).mean)

    def decode_mean(self, z: Tensor) -> Tensor:
        """The mean images of codes (*, D), in [0, 1]."""
        return self.distortion.mean(self.decode(z)).clamp(0, 1)
