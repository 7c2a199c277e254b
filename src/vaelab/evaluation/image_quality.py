r"""Image quality: how near reconstructions are to their images, image by image.

Every function takes reconstructions and images in [0, 1], each (B, C, H, W), and returns a value for each image, (B,),
or the terms of a ratio of sums over images. Its decorator puts it into the catalogue of metrics, and with that into
metrics.json, tables, claims and reports.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from vaelab.evaluation.catalogue import MetricInfo, ratio_metric, reconstruction_metric
from vaelab.evaluation.ratios import RatioTerms

__all__ = [
    "laplacian_energy",
    "laplacian_variance",
    "mean_squared_error",
    "psnr",
    "sharpness",
    "sharpness_ratio",
    "ssim",
]

SSIM_WINDOW = 11  # pixels

SSIM_SIGMA = 1.5  # pixels

SSIM_CONSTANTS = 0.01**2, 0.03**2  # of the paper, for images in [0, 1]

SHARPNESS_SIDE = 32  # pixels of the shorter side at which sharpness is judged, at most

MIN_DETAIL = 1 / 255  # root mean square of the Laplacian, below which an image has no detail: one level of 256


@reconstruction_metric(MetricInfo("mse", "MSE", unit="per pixel value", direction="lower"))
def mean_squared_error(reconstruction: Tensor, x: Tensor) -> Tensor:
    """The mean squared error per pixel value, with shape (B, C, H, W) -> (B,).

    Example:
        >>> mean_squared_error(torch.full((1, 1, 2, 2), 0.5), torch.zeros(1, 1, 2, 2))
        tensor([0.2500])
    """
    return (reconstruction - x).square().flatten(1).mean(1)


@reconstruction_metric(MetricInfo("psnr", "PSNR", unit="dB", direction="higher", in_figure=False))
def psnr(reconstruction: Tensor, x: Tensor) -> Tensor:
    """The peak signal-to-noise ratio, -10 log10 of the mean squared error, in dB, at most 100 dB.

    Shape: (B, C, H, W) -> (B,).

    Example:
        >>> psnr(torch.full((1, 1, 2, 2), 0.1), torch.zeros(1, 1, 2, 2))
        tensor([20.])
    """
    mse = mean_squared_error(reconstruction, x)
    return -10 * mse.clamp(min=1e-10).log10()


@reconstruction_metric(MetricInfo("ssim", "SSIM", unit="1: the same", direction="higher"))
def ssim(x: Tensor, y: Tensor) -> Tensor:
    r"""The structural similarity, with shape (B, C, H, W) -> (B,). It is symmetric; equal images give 1.

    Gaussian window of 11 pixels with sigma 1.5, valid positions only. Where a side is shorter, the window is the
    largest odd one that fits.

    Source: Image Quality Assessment: From Error Visibility to Structural Similarity, Wang et al. 2004.
    """
    channels = x.shape[1]
    largest_odd_sides = [side - 1 + side % 2 for side in x.shape[2:]]
    size = min(SSIM_WINDOW, *largest_odd_sides)
    offset = torch.arange(size, dtype=x.dtype, device=x.device) - size // 2
    window = (-offset.square() / (2 * SSIM_SIGMA**2)).exp()
    window = window / window.sum()

    def blur(image: Tensor) -> Tensor:
        rows = F.conv2d(image, window.view(1, 1, -1, 1).expand(channels, 1, -1, 1), groups=channels)
        return F.conv2d(rows, window.view(1, 1, 1, -1).expand(channels, 1, 1, -1), groups=channels)

    mean_x, mean_y = blur(x), blur(y)
    var_x = blur(x * x) - mean_x * mean_x
    var_y = blur(y * y) - mean_y * mean_y
    covariance = blur(x * y) - mean_x * mean_y
    a, b = SSIM_CONSTANTS
    numerator = (2 * mean_x * mean_y + a) * (2 * covariance + b)
    denominator = (mean_x * mean_x + mean_y * mean_y + a) * (var_x + var_y + b)
    return (numerator / denominator).flatten(1).mean(1)


@reconstruction_metric(
    MetricInfo(
        "sharpness",
        "Sharpness, image by image",
        unit="1: as sharp as the images",
        in_table=False,
        in_figure=False,
        undefined_for="without detail",
        replaced_by="sharpness_ratio",
        replaced_because="nearly flat images dominate a mean of ratios",
    )
)
def sharpness(reconstruction: Tensor, x: Tensor) -> Tensor:
    r"""How sharp a reconstruction is in relation to its image, with shape (B, C, H, W) -> (B,).

    The square root of the ratio of their squared Laplacians, summed over the image. It is the share of the amplitude of
    the finest detail that is left: 1 is as sharp, 0 is flat. It does not say whether the detail is right. For images
    without detail, such as those of one colour, there is nothing to relate to: their value is NaN.

    Example:
        >>> x = torch.stack([torch.eye(4).view(1, 4, 4), torch.ones(1, 4, 4)])
        >>> sharpness(0.5 * x, x)
        tensor([0.5000,    nan])
    """
    energy = laplacian_energy(x)
    channels, height, width = x.shape[1:]
    num_values = channels * (height - 2) * (width - 2)
    has_detail = energy >= MIN_DETAIL**2 * num_values
    ratio = (laplacian_energy(reconstruction) / energy.clamp(min=1e-12)).sqrt()
    return ratio.where(has_detail, torch.full_like(ratio, torch.nan))


@ratio_metric(
    MetricInfo("sharpness_ratio", "Sharpness", unit="1: as sharp as the images", max_side=SHARPNESS_SIDE, is_later=True)
)
def sharpness_ratio(reconstruction: Tensor, x: Tensor) -> RatioTerms:
    r"""The variance of the Laplacian of the reconstructions over that of the images, each summed over all images.

    It is the share of the power of the finest detail that is left: 1 is as sharp, 0 is flat. It does not say whether
    the detail is right. Images of more than 32 pixels are judged at 32, because the finest detail of larger ones is
    another one.

    Source of the variance of the Laplacian as a measure of sharpness: Diatom autofocusing in brightfield microscopy,
    Pech-Pacheco et al. 2000.

    Example:
        >>> x = torch.eye(4).view(1, 1, 4, 4)
        >>> terms = sharpness_ratio(0.5 * x, x)
        >>> terms.numerator / terms.denominator
        tensor([0.2500])
    """
    return RatioTerms(laplacian_variance(reconstruction), laplacian_variance(x))


def laplacian_variance(x: Tensor) -> Tensor:
    """The variance of the Laplacian over the positions, summed over channels, with shape (B, C, H, W) -> (B,).

    Example:
        >>> laplacian_variance(torch.eye(4).view(1, 1, 4, 4)).item()  # 2 x 2 positions: -4, 2, 2 and -4
        9.0
    """
    return laplacian(x).flatten(2).var(2, unbiased=False).sum(1)


def laplacian_energy(x: Tensor) -> Tensor:
    """The squared Laplacian, summed over each image, with shape (B, C, H, W) -> (B,).

    Example:
        >>> laplacian_energy(torch.eye(3).view(1, 1, 3, 3))
        tensor([16.])
    """
    return laplacian(x).square().flatten(1).sum(1)


def laplacian(x: Tensor) -> Tensor:
    """The sum of the four neighbours of a pixel less four times itself, (B, C, H, W) -> (B, C, H - 2, W - 2)."""
    kernel = x.new_tensor([[0, 1, 0], [1, -4, 1], [0, 1, 0]]).expand(x.shape[1], 1, 3, 3)
    return F.conv2d(x, kernel, groups=x.shape[1])
