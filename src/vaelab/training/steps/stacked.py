r"""The stack: runs whose programs agree, trained as one; the first axis of every tensor counts the runs.

    g_s = gradient of loss_s at (weights_s, batch_s, noise_s),   for all s at once, by torch.func.vmap

Floats may differ within a stack: learning rates with their schedules and clipping, KL weights and what else an
objective has of them; and seeds. What shapes the program may not. The tensors of each run's state become views into the
stack, so that measuring, saving and finishing a run know nothing of it. A stacked run equals the run alone to rounding.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.func import vmap

from vaelab.runs.spec import Spec
from vaelab.training.optimizer import corrected, descend
from vaelab.training.plan import floats
from vaelab.training.state import State
from vaelab.training.steps.gradient import gradient

__all__ = ["Stack"]


class Stack:
    """Some runs in step with each other, and the step that they take together."""

    def __init__(self, specs: Sequence[Spec], states: Sequence[State]) -> None:
        device = states[0].model.shared.device
        rows = zip(*(state.optimizer.rows for state in states), strict=True)
        self.rows = [joined(row) for row in rows]
        self.names = states[0].optimizer.names
        self.clip = None if specs[0].clip is None else torch.tensor([s.clip for s in specs], device=device)
        self.settings = {
            name: torch.tensor([getattr(s.objective, name) for s in specs], device=device)
            for name in floats(specs[0].objective)
        }
        self.gradients = vmap(gradient(specs[0].objective, states[0].working), in_dims=(0, 0, 0, 0, None))

    def step(self, x: Tensor, noise: Tensor, progress: float, rates: Sequence[float]) -> dict[str, Tensor]:
        """One step of Adam for each run, on x (S, B, C, H, W) with noise (S, B, D); gives the terms, (S,) each."""
        weights = {name: row[0] for name, row in zip(self.names, self.rows, strict=True)}
        slopes, (loss, (distortion, rate, parts)) = self.gradients(
            weights, self.settings, x, noise, torch.tensor(progress, device=x.device)
        )
        with torch.no_grad():
            found = [slopes[name] for name in self.names]
            descend(self.rows, found, *corrected(torch.tensor(rates, device=x.device), self.rows[0][-1]), self.clip)
        return {"loss": loss, "distortion": distortion, "rate": rate, **parts}


def joined(rows: Sequence[tuple[Tensor, ...]]) -> tuple[Tensor, ...]:
    """Tensors of several states, stacked each with its like; those of the states become views into the stacks."""
    stacks: list[Tensor] = []
    for i, some in enumerate(zip(*rows, strict=True)):
        if i == 1 and rows[0][0] is rows[0][1]:  # the working copy is the model itself
            stacks.append(stacks[0])
            continue
        stacks.append(torch.stack([tensor.detach() for tensor in some]))
        for tensor, part in zip(some, stacks[-1], strict=True):
            tensor.data = part
    return tuple(stacks)
