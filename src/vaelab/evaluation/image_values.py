"""Values of single images: the metrics of a run before they are averaged, to compare runs image by image."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from vaelab.datasets.images import Images, is_binary
from vaelab.evaluation.catalogue import reconstruction_metrics
from vaelab.evaluation.metrics import Batch, batch_terms, bits_per_dim, elbo_terms
from vaelab.evaluation.ratios import RatioTerms, joined_terms, linearised, ratio_terms
from vaelab.models.vae import VAE, VAEOutput
from vaelab.objectives.objective import Objective
from vaelab.objectives.terms import LossTerms

__all__ = ["image_values"]

LOSS_TOLERANCE = 1e-4  # relative difference up to which a loss is the mean of the losses of its images


@torch.no_grad()
def image_values(model: VAE, objective: Objective, images: Images) -> dict[str, np.ndarray]:
    """The metrics of each image, from the noise that the metrics of the run were measured with.

    Metrics that are no means over images, such as the number of active units, are left out. So is the loss of an
    objective that looks at a batch as a whole. The values of a ratio of sums have the ratio as their mean, and its
    standard error.

    Args:
        model: The model.
        objective: The objective that it was trained with.
        images: The images.

    Returns:
        The values by metric, (N,) each, float32; NaN for images for which a metric is not defined.
    """
    has_grey_levels = not is_binary(images)
    of_batches: list[dict[str, Tensor]] = []
    ratios: list[dict[str, RatioTerms]] = []
    for batch, terms in batch_terms(model, objective, images):
        of_batches.append(_batch_values(model, objective, batch, terms, has_grey_levels))
        ratios.append(ratio_terms(model.reconstruct(batch.x), batch.x))
    names = [name for name in of_batches[0] if all(name in values for values in of_batches)]
    values = {name: torch.cat([values[name] for values in of_batches]) for name in names}
    for name in ratios[0]:
        terms_of_images = joined_terms([terms[name] for terms in ratios])
        if terms_of_images.denominator.sum() > 0:
            values[name] = linearised(terms_of_images)
    return {name: of_images.float().cpu().numpy() for name, of_images in values.items()}


def _batch_values(
    model: VAE, objective: Objective, batch: Batch, terms: LossTerms, has_grey_levels: bool
) -> dict[str, Tensor]:
    """The metrics of the images of a batch, (B,) each."""
    q = terms.output.q
    output_of_mean = VAEOutput(q, q.mean, model.decode(q.mean))
    values = dict(elbo_terms(model, objective, terms.output, batch.x))
    if has_grey_levels:
        values |= bits_per_dim(model, objective, terms.output, batch)
    for name, term in elbo_terms(model, objective, output_of_mean, batch.x).items():
        if name != "kl":
            values[f"{name}_of_mean"] = term
    reconstruction = model.distortion.mean(output_of_mean.params).clamp(0, 1)
    for name, (_, function) in reconstruction_metrics().items():
        values[name] = function(reconstruction, batch.x)
    return values | _loss_values(model, objective, batch, terms, values["kl"])


def _loss_values(model: VAE, objective: Objective, batch: Batch, terms: LossTerms, kl: Tensor) -> dict[str, Tensor]:
    """The loss of each image as distortion + weight KL; nothing where that is not what was trained."""
    weight = objective.effective_kl_weight(model.shape, model.latent_dim)
    if weight is None:
        return {}
    loss = model.compute_distortion(terms.output.params, batch.x) + weight * kl
    if not torch.isclose(loss.mean(), terms.loss, rtol=LOSS_TOLERANCE, atol=0):
        return {}
    return {"loss": loss}
