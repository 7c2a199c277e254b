"""Anchors: whether a published figure was reached within its tolerance, by one seed or several."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np

__all__ = ["AnchorResult", "AnchorVerdict", "judge_anchor"]

AnchorVerdict = Literal["met", "missed", "undecided"]

MANY_ERRORS = 4.0  # standard errors beyond the tolerance that a miss takes: those over images leave out the seeds


class AnchorResult(NamedTuple):
    """A value against the bounds of an anchor.

    Attributes:
        verdict: Met within the bounds, missed beyond them by more than four standard errors, else undecided.
        value: The mean over seeds.
        error: Its standard error.
        num_seeds: The number of seeds.
        beyond: How far it is beyond the nearer bound; 0 within.
        error_label: What the error is over.
    """

    verdict: AnchorVerdict
    value: float
    error: float
    num_seeds: int
    beyond: float
    error_label: str


def judge_anchor(
    values: Sequence[float], errors: Sequence[float] = (), low: float = -math.inf, high: float = math.inf
) -> AnchorResult:
    """Whether an anchor is met.

    Args:
        values: The value of each seed, at least one.
        errors: The standard error over test images of each; none where they are unknown.
        low: The smallest value that the tolerance allows.
        high: The largest value that the tolerance allows.

    Example:
        >>> judge_anchor([94.6], [0.26], low=83.8, high=89.8).verdict
        'missed'
    """
    value = float(np.mean(values))
    variance, parts = 0.0, []
    if len(values) > 1:
        variance += float(np.var(values, ddof=1)) / len(values)
        parts.append("seeds")
    if errors:
        variance += float(np.mean(np.square(errors)))  # the seeds share the test images: it does not average out
        parts.append("test images")
    error = math.sqrt(variance)
    beyond = max(low - value, value - high, 0.0)
    return AnchorResult(_verdict(beyond, error), value, error, len(values), beyond, " and ".join(parts))


def _verdict(beyond: float, error: float) -> AnchorVerdict:
    if beyond == 0:
        return "met"
    return "missed" if error > 0 and beyond > MANY_ERRORS * error else "undecided"
