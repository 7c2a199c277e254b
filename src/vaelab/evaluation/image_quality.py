"""Image quality: mean squared error, PSNR, SSIM and sharpness of reconstructions."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["laplacian_energy", "reconstruction_metrics", "sharpness", "ssim"]


def reconstruction_metrics(reconstruction: Tensor, x: Tensor) -> dict[str, Tensor]:
    """How near reconstructions are to images, each (B,): mse per pixel value, psnr in dB, ssim, sharpness."""
    mse = (reconstruction - x).square().flatten(1).mean(1)
    psnr = -10 * mse.clamp(min=1e-10).log10()
    return {"mse": mse, "psnr": psnr, "ssim": ssim(reconstruction, x), "sharpness": sharpness(reconstruction, x)}


def sharpness(reconstruction: Tensor, x: Tensor) -> Tensor:
    r"""How sharp a reconstruction is beside its image, (B, C, H, W) -> (B,): 1 is as sharp, 0 is flat.

    The root of the ratio of their squared Laplacians, summed over the image: how much of the amplitude of its finest
    detail is left. It tells nothing of whether the detail is right.
    """
    return (laplacian_energy(reconstruction) / laplacian_energy(x).clamp(min=1e-12)).sqrt()


def laplacian_energy(x: Tensor) -> Tensor:
    """The squared Laplacian of images (B, C, H, W), summed over each, (B,)."""
    kernel = x.new_tensor([[0, 1, 0], [1, -4, 1], [0, 1, 0]]).expand(x.shape[1], 1, 3, 3)
    return F.conv2d(x, kernel, groups=x.shape[1]).square().flatten(1).sum(1)


def ssim(x: Tensor, y: Tensor) -> Tensor:
    r"""Structural similarity of images in [0, 1], with shape (B, C, H, W) -> (B,).

    Gaussian window of 11 pixels with sigma 1.5, valid positions only (a smaller odd window where a side is shorter).
    Source: Image Quality Assessment: From Error Visibility to Structural Similarity, Wang et al. 2004.
    """
    channels, side = x.shape[1], min(11, *(s - 1 + s % 2 for s in x.shape[2:]))
    t = torch.arange(side, dtype=x.dtype, device=x.device) - side // 2
    g = (-t.square() / (2 * 1.5**2)).exp()
    g = g / g.sum()

    def blur(v: Tensor) -> Tensor:
        rows = F.conv2d(v, g.view(1, 1, -1, 1).expand(channels, 1, -1, 1), groups=channels)
        return F.conv2d(rows, g.view(1, 1, 1, -1).expand(channels, 1, 1, -1), groups=channels)

    mx, my = blur(x), blur(y)
    vx, vy, cov = blur(x * x) - mx * mx, blur(y * y) - my * my, blur(x * y) - mx * my
    a, b = 0.01**2, 0.03**2
    ratio = (2 * mx * my + a) * (2 * cov + b) / ((mx * mx + my * my + a) * (vx + vy + b))
    return ratio.flatten(1).mean(1)
