r"""Principal components of images: the best linear autoencoder, which a network with as many dimensions should beat.

With the mean m of the training images and their D leading principal axes V (D, P), an image is reconstructed as

    x^ = m + (x - m) V' V,        and        mean |x - x^|^2 = mean |x - m|^2 - sum_d mean ((x - m) . v_d)^2.

The second formula gives the error for every number of dimensions at once. No other linear map of the training images
to D numbers and back has a lower error (On lines and planes of closest fit to systems of points in space, Pearson
1901). Reconstructions are not clamped to [0, 1]: clamping would lower the error a little.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from vaelab.core.rng import generator
from vaelab.datasets.images import Images

__all__ = ["PrincipalComponents", "equal_dimension", "fit_principal_components", "reconstruction_errors"]

MAX_COMPONENTS = 1024

MAX_EXACT_VALUES = 4096  # pixel values up to which the whole covariance is decomposed

MAX_ITERATED_COMPONENTS = 512  # components of larger images, whose leading axes are found by iteration

EXTRA_AXES = 64  # axes that are iterated besides those that are kept, for their accuracy

ITERATIONS = 4  # multiplications with the covariance, each a pass over the training images

CHUNK_VALUES = 2**23  # pixel values in memory at once, as floats


@dataclass(frozen=True)
class PrincipalComponents:
    """The mean and the leading principal axes of training images.

    Attributes:
        mean: The mean image, (P,), P = C H W.
        axes: The principal axes, orthonormal, largest variance first, (K, P).
        shape: (C, H, W) of an image.
    """

    mean: Tensor
    axes: Tensor
    shape: tuple[int, int, int]

    def reconstruct(self, x: Tensor, dimension: int) -> Tensor:
        """Images from their scores on the leading axes.

        Args:
            x: Images in [0, 1], (N, C, H, W).
            dimension: How many axes; all that there are where it is larger.

        Returns:
            The reconstructions, (N, C, H, W), not clamped.
        """
        axes = self.axes[:dimension]
        centred = x.flatten(1) - self.mean
        return (self.mean + centred @ axes.T @ axes).unflatten(1, self.shape)


def fit_principal_components(train: Images) -> PrincipalComponents:
    """Fit the principal components of training images.

    Up to 4,096 pixel values they are exact to rounding, and at most 1,024. Larger images have at most 512, found by
    subspace iteration: its error is in the last axes, whose variances differ little.

    Args:
        train: The training images.

    Returns:
        The components: as many as the images have, up to the limit.

    Source: Finding structure with randomness, Halko et al., arXiv 0909.4061 (algorithm 4.4).
    """
    num_values = math.prod(train.shape)
    mean = _mean_image(train)
    most = min(len(train) - 1, num_values)
    if num_values <= MAX_EXACT_VALUES:
        axes = _exact_axes(train, mean, min(most, MAX_COMPONENTS))
    else:
        axes = _iterated_axes(train, mean, min(most, MAX_ITERATED_COMPONENTS))
    return PrincipalComponents(mean, axes, train.shape)


def _float_chunks(images: Images) -> Iterator[Tensor]:
    """The images in [0, 1] as rows, (n, P) at a time."""
    size = max(1, CHUNK_VALUES // math.prod(images.shape))
    for start in range(0, len(images), size):
        yield torch.from_numpy(images.uint8(slice(start, start + size))).flatten(1).float().div_(255)


def _mean_image(images: Images) -> Tensor:
    total = torch.zeros(math.prod(images.shape), dtype=torch.float64)
    for chunk in _float_chunks(images):
        total += chunk.double().sum(0)
    return (total / len(images)).float()


def _exact_axes(images: Images, mean: Tensor, count: int) -> Tensor:
    """The leading eigenvectors of the covariance, (count, P)."""
    covariance = torch.zeros(len(mean), len(mean), dtype=torch.float64)
    for chunk in _float_chunks(images):
        centred = chunk - mean
        covariance += centred.T @ centred
    _, vectors = torch.linalg.eigh(covariance / len(images))  # smallest eigenvalue first
    return vectors.flip(1)[:, :count].T.float().contiguous()


def _iterated_axes(images: Images, mean: Tensor, count: int) -> Tensor:
    """The same by subspace iteration from a random start, for images whose covariance is too large."""
    width = min(count + EXTRA_AXES, len(images) - 1, len(mean))
    basis = torch.randn(len(mean), width, generator=generator("principal components"))
    for _ in range(ITERATIONS):
        product = torch.zeros_like(basis)
        for chunk in _float_chunks(images):
            centred = chunk - mean
            product += centred.T @ (centred @ basis)
        basis = torch.linalg.qr(product)[0]
    gram = torch.zeros(width, width, dtype=torch.float64)
    for chunk in _float_chunks(images):
        scores = (chunk - mean) @ basis
        gram += scores.T @ scores
    _, rotation = torch.linalg.eigh(gram / len(images))
    return (basis @ rotation.flip(1)[:, :count].float()).T.contiguous()


def reconstruction_errors(components: PrincipalComponents, images: Images) -> np.ndarray:
    """The mean squared error of reconstructions from 0, 1, ..., K components.

    Args:
        components: The components, usually of the training images.
        images: The images that are reconstructed.

    Returns:
        The errors per pixel value, float64 (K + 1,); the first is that of the mean image.
    """
    total = 0.0
    explained = torch.zeros(len(components.axes), dtype=torch.float64)
    for chunk in _float_chunks(images):
        centred = chunk - components.mean
        total += centred.double().square().sum().item()
        explained += (centred @ components.axes.T).double().square().sum(0)
    left = total - torch.cat([torch.zeros(1, dtype=torch.float64), explained.cumsum(0)])
    return (left.clamp(min=0) / (len(images) * math.prod(images.shape))).numpy()


def equal_dimension(errors: np.ndarray, mse: float) -> float:
    """The smallest number of components whose error is at most that of a network.

    Args:
        errors: What `reconstruction_errors` gives, (K + 1,).
        mse: The mean squared error of the network on the same images.

    Returns:
        The number; NaN where K components are not enough.

    Example:
        >>> equal_dimension(np.array([0.5, 0.2, 0.1]), 0.15)
        2.0
    """
    enough = np.flatnonzero(errors <= mse)
    return float(enough[0]) if len(enough) else math.nan
