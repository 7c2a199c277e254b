r"""The two halves of the bound, which every objective weighs.

    distortion = E_q d(params(z), x),    rate = KL(q(z|x) || p(z)),

in nats per image: summed over pixels and latent dimensions, averaged over images.
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from vaelab.models.likelihoods import LikelihoodParams
from vaelab.models.vae import VAE, VAEOutput

__all__ = ["DistortionAndRate", "LossTerms", "distortion_and_rate", "first_sample"]


class LossTerms(NamedTuple):
    """A loss with its two halves: scalars in nats per image, averaged over the batch.

    Attributes:
        loss: What is minimised.
        distortion: The distortion.
        rate: The KL divergence of the posterior from the prior.
        extra_terms: Further terms of the loss by name.
        output: The pass through the model that the loss was computed from, with one code for each image.
    """

    loss: Tensor
    distortion: Tensor
    rate: Tensor
    extra_terms: dict[str, Tensor]
    output: VAEOutput


class DistortionAndRate(NamedTuple):
    """The two halves of the bound for a batch, averaged over its images.

    Attributes:
        output: The pass through the model, with one code for each image.
        distortion: A scalar.
        rate_per_dimension: The KL divergence of each latent dimension, (D,).
    """

    output: VAEOutput
    distortion: Tensor
    rate_per_dimension: Tensor


def distortion_and_rate(model: VAE, x: Tensor, noise: Tensor) -> DistortionAndRate:
    """Pass images through the model and compute the two halves of the bound.

    Args:
        model: The model.
        x: Images in [0, 1], (B, C, H, W).
        noise: Standard normal noise, (B, D), or (K, B, D) for K codes of each image.

    Returns:
        The first code's pass, and distortion and rate averaged over images and codes.
    """
    output = model(x, noise)
    rate_per_dimension = model.rate_per_dimension(output).mean(0)
    distortion = model.compute_distortion(output.params, x).mean()
    return DistortionAndRate(first_sample(output), distortion, rate_per_dimension)


def first_sample(output: VAEOutput) -> VAEOutput:
    """The same pass with the first code of each image alone, where there are several."""
    if output.z.dim() == 2:
        return output
    params = LikelihoodParams(output.params.pixels[0], output.params.global_params)
    return VAEOutput(output.q, output.z[0], params)
