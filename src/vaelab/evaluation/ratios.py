r"""Ratios of sums over images, with their standard errors.

    R = sum_i a_i / sum_i b_i,      error^2 = sum_i (a_i - R b_i)^2 / (n (n - 1)) / mean(b)^2

A ratio of sums is not a mean of ratios: an image whose b_i is nearly 0 hardly counts, and need not be left out.

Source: Sampling Techniques, Cochran 1977 (section 6.3, the ratio estimator).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from vaelab.evaluation.catalogue import ratio_metrics
from vaelab.evaluation.results import Metric

__all__ = ["RatioTerms", "joined_terms", "linearised", "ratio_metric_of", "ratio_terms", "reduced", "size_note"]


class RatioTerms(NamedTuple):
    """The terms of a ratio of sums, of each image.

    Attributes:
        numerator: a_i, (B,).
        denominator: b_i, (B,), not negative.
    """

    numerator: Tensor
    denominator: Tensor


def ratio_terms(reconstruction: Tensor, x: Tensor) -> dict[str, RatioTerms]:
    """The terms of the catalogue's ratios, in float64, by name.

    Args:
        reconstruction: Reconstructions in [0, 1], (B, C, H, W).
        x: Their images, (B, C, H, W).
    """
    terms = {}
    for name, (info, function) in ratio_metrics().items():
        found = function(reduced(reconstruction, info.max_side), reduced(x, info.max_side))
        terms[name] = RatioTerms(found.numerator.cpu().double(), found.denominator.cpu().double())
    return terms


def joined_terms(parts: Sequence[RatioTerms]) -> RatioTerms:
    """The terms of all images from those of batches."""
    return RatioTerms(*(torch.cat(column) for column in zip(*parts, strict=True)))


def reduced(x: Tensor, max_side: int | None) -> Tensor:
    """Images whose shorter side is larger than `max_side`, averaged over areas to that side; others as they are.

    Example:
        >>> reduced(torch.rand(1, 3, 64, 96), 32).shape
        torch.Size([1, 3, 32, 48])
    """
    height, width = x.shape[2:]
    shorter = min(height, width)
    if max_side is None or shorter <= max_side:
        return x
    size = round(height * max_side / shorter), round(width * max_side / shorter)
    return F.interpolate(x, size, mode="area")


def ratio_metric_of(terms: RatioTerms, note: str | None = None) -> Metric | None:
    """The ratio of the sums of terms of images, with its standard error over images.

    Args:
        terms: The terms, (N,) each.
        note: What must be said of it.

    Returns:
        The ratio; None where the denominators sum to 0.

    Example:
        >>> ratio_metric_of(RatioTerms(torch.tensor([1.0, 2.0]), torch.tensor([2.0, 4.0]))).value
        0.5
    """
    total = terms.denominator.sum().item()
    if total <= 0:
        return None
    ratio = terms.numerator.sum().item() / total
    count = len(terms.denominator)
    residuals = terms.numerator - ratio * terms.denominator
    error = math.sqrt(residuals.square().sum().item() / (count * (count - 1))) * count / total if count > 1 else None
    return Metric(ratio, error, note=note)


def linearised(terms: RatioTerms) -> Tensor:
    """A value for each image whose mean is the ratio of sums, and whose standard error is that of the ratio.

    Example:
        >>> linearised(RatioTerms(torch.tensor([1.0, 2.0]), torch.tensor([1.0, 3.0])))
        tensor([0.8750, 0.6250])
    """
    mean = terms.denominator.mean()
    ratio = terms.numerator.sum() / terms.denominator.sum()
    return ratio + (terms.numerator - ratio * terms.denominator) / mean


def size_note(shape: tuple[int, ...], max_side: int | None) -> str | None:
    """That images of a shape (C, H, W) are reduced, and to what; None where they are not.

    Example:
        >>> size_note((3, 64, 64), 32)
        'judged at 32 x 32 pixels'
    """
    height, width = reduced(torch.empty(1, *shape, device="meta"), max_side).shape[2:]
    return None if (height, width) == tuple(shape[1:]) else f"judged at {width} x {height} pixels"
