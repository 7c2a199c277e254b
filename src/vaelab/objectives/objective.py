r"""The base class of objectives: how distortion and rate become a loss.

An objective is a frozen dataclass. Its fields are its hyper-parameters, and calling it gives the terms of the loss.
Some objectives add a penalty on the aggregate posterior q(z) = E_x q(z|x), estimated within the batch. Nothing counts
steps: `progress` in [0, 1], the part of the training that is done, drives every schedule. No objective asks which
distortion or which prior the model has.

A new objective is one class in any module of this package, derived from `Objective`, with a `name` of its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from vaelab.core.codec import changed_settings
from vaelab.models.networks import Shape
from vaelab.models.vae import VAE
from vaelab.objectives.terms import LossTerms

__all__ = ["TINY", "Objective"]

TINY = 1e-12  # added to both sides of a ratio that is 1 where both are 0


@dataclass(frozen=True)
class Objective:
    """The base class of all objectives, each a frozen dataclass with a `name`.

    An objective defines `__call__`, and `effective_kl_weight` where its KL weight is not 1.
    """

    name: ClassVar[str]

    @property
    def title(self) -> str:
        """The objective as a part of a title: its class, and the settings that differ from the default."""
        return ", ".join([type(self).__name__, *changed_settings(self)])

    @property
    def num_samples(self) -> int:
        """How many codes K are drawn for each image."""
        return 1

    @property
    def decomposes_over_batch(self) -> bool:
        """Whether the loss of a batch is the mean of its images' losses, so that processes may each take a part."""
        return False

    def __call__(self, model: VAE, x: Tensor, noise: Tensor, progress: Tensor) -> LossTerms:
        """The loss of a batch of images.

        Args:
            model: The model.
            x: Images in [0, 1], (B, C, H, W).
            noise: Standard normal noise, (B, D), or (K, B, D) where `num_samples` K is more than 1.
            progress: The part of the training that is done, in [0, 1], a scalar.

        Returns:
            The loss and its terms, scalars in nats per image.
        """
        raise NotImplementedError

    def critic(self, latent_dim: int) -> nn.Module | None:
        """A network that is trained together with the model, codes (B, D) -> (B, 1), where the loss needs one."""
        del latent_dim
        return None

    def effective_kl_weight(self, shape: Shape, latent_dim: int) -> float | None:
        """The KL weight at the end of training, in nats per image of `shape`; None where there is no constant one."""
        del shape, latent_dim
        return 1.0

    def explain(self, shape: Shape, latent_dim: int) -> str | None:
        """One sentence on what the settings are in nats per image, where they are given in another unit."""
        del shape, latent_dim
        return None
