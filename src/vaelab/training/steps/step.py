"""What a training step is: the interface that the training loop knows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, Self

import numpy as np

from vaelab.objectives.terms import LossTerms
from vaelab.training.state import ActiveRun

__all__ = ["Step"]


class Step(Protocol):
    """Takes one training step of each run of a group: gradient, Adam, averaged weights, and the count of the step."""

    @classmethod
    def create(cls, group: Sequence[ActiveRun]) -> Self | None:
        """The step of these runs, which are all at the same step; None where this kind of step does not fit them."""
        ...

    def __call__(self, batch_rows: Sequence[np.ndarray]) -> list[LossTerms]:
        """Take one step of each run.

        Args:
            batch_rows: For each run the indices of its batch in the training split, with shape (B,).

        Returns:
            For each run the terms of its loss before the step.
        """
        ...
