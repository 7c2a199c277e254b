r"""Steps: a run at work, and the step that it takes, alone or stacked with others.

A step draws a batch, maps it to `Terms`, and descends. Everything random is a function of (seed, purpose, step), and
nothing accumulates between steps but weights and moments. Images stay what they are on disk, uint8, and are gathered by
index into a batch: no loader, no workers.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from vaelab.objectives.terms import LossTerms
from vaelab.training.job import TrainingJob
from vaelab.training.state import TrainingState

__all__ = ["eager_step"]


def eager_step(job: TrainingJob, state: TrainingState, rows: np.ndarray, noise: Tensor, lr: float) -> LossTerms:
    """The same by autograd, where several processes train together each on its share."""
    spec, size, device = job.spec, len(rows), job.plan.device
    share = job.distributed.share(size)
    part = share.stop - share.start
    share = share if part else slice(0, 1)  # of weight 0
    x = job.load_batch(rows, state.step, share)
    terms = spec.objective(
        state.compute_model,
        x,
        noise[..., share, :].to(device),
        torch.tensor(state.step / job.total_steps, device=device),
    )
    state.optimizer.zero_grad()
    terms.loss.backward()
    if job.distributed.world_size > 1:
        gradients, numbers = state.optimizer.gradients, [*terms[:3], *terms.extra_terms.values()]
        loss, distortion, kl, *rest = job.distributed.all_reduce(part / size, gradients, numbers)
        terms = LossTerms(loss, distortion, kl, dict(zip(terms.extra_terms, rest, strict=True)), terms.output)
    if spec.clip is not None:
        nn.utils.clip_grad_norm_(state.compute_model.parameters(), spec.clip)
    state.optimizer.step(lr)
    return terms
