"""The distributed step: several processes train one run, each on its share of the batch."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from vaelab.objectives.terms import LossTerms
from vaelab.training.state import ActiveRun
from vaelab.training.steps.eager import compute_gradients, update_weights

__all__ = ["DistributedStep"]


class DistributedStep:
    """The eager step with gradients that are summed over the processes, each weighted by its share of the batch."""

    def __init__(self, run: ActiveRun) -> None:
        self.run = run

    @classmethod
    def create(cls, group: Sequence[ActiveRun]) -> DistributedStep | None:
        """The step of a single run that several processes train."""
        if len(group) == 1 and group[0].job.distributed.world_size > 1:
            return cls(group[0])
        return None

    def __call__(self, batch_rows: Sequence[np.ndarray]) -> list[LossTerms]:
        """Take the step on this process's share of the images at `batch_rows[0]`."""
        [rows] = batch_rows
        share = self.run.job.distributed.share(len(rows))
        share_size = share.stop - share.start
        # A process without a share computes one image with weight 0, since all processes must take part in the sum.
        terms = compute_gradients(self.run, rows, share if share_size else slice(0, 1))
        summed_terms = self._sum_over_processes(terms, weight=share_size / len(rows))
        update_weights(self.run)
        return [summed_terms]

    def _sum_over_processes(self, terms: LossTerms, weight: float) -> LossTerms:
        """Sum the gradients in place; returns the terms of the whole batch."""
        scalars = [terms.loss, terms.distortion, terms.rate, *terms.extra_terms.values()]
        gradients = self.run.state.optimizer.gradients
        loss, distortion, rate, *extra = self.run.job.distributed.all_reduce(weight, gradients, scalars)
        extra_terms = dict(zip(terms.extra_terms, extra, strict=True))
        return LossTerms(loss, distortion, rate, extra_terms, terms.output)
