r"""Objectives: how distortion and rate become a loss.

For an encoder q(z|x), a prior p(z) and a distortion d, every objective here weighs the two halves of the bound

    distortion = E_q d(params(z), x),    rate = KL(q(z|x) || p(z)),

in nats per image, summed over pixels and latent dimensions and averaged over images, and some add a penalty on the
aggregate posterior q(z) = E_x q(z|x), estimated within the batch. An objective is a frozen dataclass: its fields are
its hyper-parameters, calling it gives `Terms`. `progress` in [0, 1], the part of the training that is done, drives
every schedule: nothing counts. No objective asks which distortion the model has.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

from torch import Tensor, nn

from vaelab.models.densities import kl_per_dimension, standard_normal
from vaelab.models.likelihoods import LikelihoodParams
from vaelab.models.networks import Shape
from vaelab.models.vae import VAE, VAEOutput

__all__ = ["TINY", "LossTerms", "ObjectiveBase", "distortion_and_rate", "first_sample"]

TINY = 1e-12


class LossTerms(NamedTuple):
    """A loss and its two halves, scalars in nats per image, averaged over the batch.

    `parts` are further terms of the loss under their names; `draw` is the pass through the model that was weighed.
    """

    loss: Tensor
    distortion: Tensor
    rate: Tensor
    extra_terms: dict[str, Tensor]
    output: VAEOutput


@dataclass(frozen=True)
class ObjectiveBase:
    """What all objectives have: frozen dataclasses with a `name`.

    Called with noise (B, D), or (K, B, D) where `samples` K is more than 1.
    """

    name: ClassVar[str]

    @property
    def num_samples(self) -> int:
        """How many codes are drawn for each image."""
        return 1

    @property
    def decomposes_over_batch(self) -> bool:
        """Whether the loss of a batch is the mean of its images' losses, so that parts of a batch may be apart."""
        return False

    def __call__(self, model: VAE, x: Tensor, noise: Tensor, progress: Tensor) -> LossTerms:
        """The loss of images x (B, C, H, W) in [0, 1], at the part `progress` of the training."""
        raise NotImplementedError

    def critic(self, latent_dim: int) -> nn.Module | None:
        """A network that is trained beside the model, where the loss needs one."""
        del latent_dim
        return None

    def effective_kl_weight(self, shape: Shape) -> float | None:
        """The KL weight at the end of training, in nats per image of `shape`; None in objectives that have none."""
        del shape
        return 1.0

    def explain(self, shape: Shape) -> str | None:
        """What the settings amount to in nats per image, where that is not what they say."""
        del shape
        return None


def first_sample(output: VAEOutput) -> VAEOutput:
    """Of several codes of each image the first."""
    return (
        VAEOutput(output.q, output.z[0], LikelihoodParams(output.params.pixels[0], output.params.global_params))
        if output.z.dim() > 2
        else output
    )


def distortion_and_rate(model: VAE, x: Tensor, noise: Tensor) -> tuple[VAEOutput, Tensor, Tensor]:
    """A pass through the model, its distortion, a scalar, and its KL of each latent dimension, (D,)."""
    draw = model(x, noise)
    kl = kl_per_dimension(draw.q, standard_normal(draw.q.mean)).mean(0)
    return first_sample(draw), model.compute_distortion(draw.params, x).mean(), kl
