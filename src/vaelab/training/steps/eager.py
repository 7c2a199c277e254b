r"""The eager step: one run, by autograd. It is the reference that all other kinds of steps are tested against."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import nn

from vaelab.objectives.terms import LossTerms
from vaelab.training.job import sample_noise
from vaelab.training.state import ActiveRun

__all__ = ["EagerStep", "compute_gradients", "update_weights"]


class EagerStep:
    """Draws a batch and noise, takes the gradient of the objective, and lets Adam follow it."""

    def __init__(self, run: ActiveRun) -> None:
        self.run = run

    @classmethod
    def create(cls, group: Sequence[ActiveRun]) -> EagerStep | None:
        """The step of a single run."""
        return cls(group[0]) if len(group) == 1 else None

    def __call__(self, batch_rows: Sequence[np.ndarray]) -> list[LossTerms]:
        """Take the step on the images at `batch_rows[0]`."""
        terms = compute_gradients(self.run, batch_rows[0], slice(0, len(batch_rows[0])))
        update_weights(self.run)
        return [terms]


def compute_gradients(run: ActiveRun, rows: np.ndarray, share: slice) -> LossTerms:
    """Compute the loss of a part of a batch, and leave its gradients at the parameters of the compute model.

    Args:
        run: The run.
        rows: The indices of the whole batch, with shape (B,).
        share: The part of it that is used.

    Returns:
        The terms of the loss, averaged over that part.
    """
    job, state = run.job, run.state
    device = job.plan.device
    x = job.load_batch(rows, state.step, share)
    noise = sample_noise(job, state.step, len(rows))[..., share, :].to(device)
    progress = torch.tensor(run.progress, device=device)
    terms = job.spec.objective(state.compute_model, x, noise, progress)
    state.optimizer.zero_grad()
    terms.loss.backward()
    return terms


def update_weights(run: ActiveRun) -> None:
    """Change the weights by the gradients, and count the step."""
    spec, state = run.job.spec, run.state
    if spec.clip is not None:
        nn.utils.clip_grad_norm_(state.compute_model.parameters(), spec.clip)
    state.optimizer.step(run.learning_rate)
    state.advance(spec.ema)
