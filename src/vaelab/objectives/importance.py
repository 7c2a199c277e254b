"""The importance-weighted bound (IWAE), with its plain and its doubly reparametrised gradient."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor

from vaelab.core.codec import changed_settings
from vaelab.core.constraints import Count
from vaelab.models.densities import Normal
from vaelab.models.vae import VAE
from vaelab.objectives.objective import Objective
from vaelab.objectives.terms import LossTerms, first_sample

__all__ = ["ImportanceWeighted"]


@dataclass(frozen=True)
class ImportanceWeighted(Objective):
    r"""-log (1/K) sum_k w_k, w_k = p(x|z_k) p(z_k) / q(z_k|x): a bound that rises to the evidence with K.

    Source: Importance Weighted Autoencoders, arXiv 1509.00519.

    Args:
        k: The number K of codes drawn for each image.
        gradient: "plain", or "dreg": the doubly reparametrised gradient of the encoder, whose variance does not grow
            with K (Doubly Reparameterized Gradient Estimators for Monte Carlo Objectives, arXiv 1810.04152).

    Example:
        >>> import torch
        >>> from vaelab.models.likelihoods import Gaussian
        >>> from vaelab.models.networks import Mlp
        >>> model = VAE(Mlp(), Gaussian(), shape=(1, 8, 8), latent_dim=2)
        >>> images, noise = torch.rand(5, 1, 8, 8), torch.randn(50, 5, 2)
        >>> terms = ImportanceWeighted(k=50)(model, images, noise, progress=torch.tensor(1.0))
        >>> bool(terms.loss < terms.distortion + terms.rate)  # a better bound than the evidence lower bound
        True
    """

    name: ClassVar[str] = "importance-weighted"
    short: ClassVar[tuple[str, ...]] = ("iwae",)
    k: Count = 5
    gradient: Literal["plain", "dreg"] = "plain"

    @property
    def title(self) -> str:
        return ", ".join([f"IWAE, K = {self.k}", *changed_settings(self, without=("k",))])

    @property
    def num_samples(self) -> int:
        return self.k

    @property
    def decomposes_over_batch(self) -> bool:
        return True

    def __call__(self, model: VAE, x: Tensor, noise: Tensor, progress: Tensor) -> LossTerms:
        del progress
        output = model(x, noise.view(self.k, len(x), -1))
        q, z = output.q, output.z
        distortion = model.compute_distortion(output.params, x)
        posterior = Normal(q.mean.detach(), q.logvar.detach()) if self.gradient == "dreg" else q
        log_weights = model.prior.log_prob(z) - distortion - posterior.log_prob(z)
        if self.gradient == "dreg" and z.requires_grad:
            shares = log_weights.detach().softmax(0).unsqueeze(-1)
            z.register_hook(lambda gradient: gradient * shares)  # on its way to the encoder
        bound = log_weights.logsumexp(0) - math.log(self.k)
        rate = model.rate(output).mean()
        return LossTerms(-bound.mean(), distortion.mean(), rate, {}, first_sample(output))
