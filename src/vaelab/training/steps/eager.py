r"""Steps: a run at work, and the step that it takes, alone or stacked with others.

A step draws a batch, maps it to `Terms`, and descends. Everything random is a function of (seed, purpose, step), and
nothing accumulates between steps but weights and moments. Images stay what they are on disk, uint8, and are gathered by
index into a batch: no loader, no workers.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from vaelab.objectives.terms import Terms
from vaelab.training.job import Work
from vaelab.training.state import State

__all__ = ["descend"]


def descend(work: Work, state: State, rows: np.ndarray, noise: Tensor, rate: float) -> Terms:
    """The same by autograd, where several processes train together each on its share."""
    spec, size, device = work.spec, len(rows), work.plan.device
    share = work.ranks.share(size)
    part = share.stop - share.start
    share = share if part else slice(0, 1)  # of weight 0
    x = work.gather(rows, state.step, share)
    terms = spec.objective(
        state.working, x, noise[..., share, :].to(device), torch.tensor(state.step / work.steps, device=device)
    )
    state.optimizer.clear()
    terms.loss.backward()
    if work.ranks.size > 1:
        gradients, numbers = state.optimizer.gradients, [*terms[:3], *terms.parts.values()]
        loss, distortion, kl, *rest = work.ranks.combine(part / size, gradients, numbers)
        terms = Terms(loss, distortion, kl, dict(zip(terms.parts, rest, strict=True)), terms.draw)
    if spec.clip is not None:
        nn.utils.clip_grad_norm_(state.working.parameters(), spec.clip)
    state.optimizer.step(rate)
    return terms
