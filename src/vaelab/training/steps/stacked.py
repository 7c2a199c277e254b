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
from vaelab.training.optimizer import adam_step, bias_corrections
from vaelab.training.plan import tunable_floats
from vaelab.training.state import TrainingState
from vaelab.training.steps.gradient import make_gradient_function

__all__ = ["StackedStep"]


class StackedStep:
    """Some runs in step with each other, and the step that they take together."""

    def __init__(self, specs: Sequence[Spec], states: Sequence[TrainingState]) -> None:
        device = states[0].model.shared.device
        rows = zip(*(state.optimizer.param_states for state in states), strict=True)
        self.param_states = [stack_tensors(row) for row in rows]
        self.param_names = states[0].optimizer.param_names
        self.clip = None if specs[0].clip is None else torch.tensor([s.clip for s in specs], device=device)
        self.objective_floats = {
            name: torch.tensor([getattr(s.objective, name) for s in specs], device=device)
            for name in tunable_floats(specs[0].objective)
        }
        self.gradient_function = vmap(
            make_gradient_function(specs[0].objective, states[0].compute_model), in_dims=(0, 0, 0, 0, None)
        )

    def step(self, x: Tensor, noise: Tensor, progress: float, lrs: Sequence[float]) -> dict[str, Tensor]:
        """One step of Adam for each run, on x (S, B, C, H, W) with noise (S, B, D); gives the terms, (S,) each."""
        weights = {name: row[0] for name, row in zip(self.param_names, self.param_states, strict=True)}
        slopes, (loss, (distortion, rate, parts)) = self.gradient_function(
            weights, self.objective_floats, x, noise, torch.tensor(progress, device=x.device)
        )
        with torch.no_grad():
            found = [slopes[name] for name in self.param_names]
            adam_step(
                self.param_states,
                found,
                *bias_corrections(torch.tensor(lrs, device=x.device), self.param_states[0][-1]),
                self.clip,
            )
        return {"loss": loss, "distortion": distortion, "rate": rate, **parts}


def stack_tensors(param_states: Sequence[tuple[Tensor, ...]]) -> tuple[Tensor, ...]:
    """Tensors of several states, stacked each with its like; those of the states become views into the stacks."""
    stacks: list[Tensor] = []
    for i, some in enumerate(zip(*param_states, strict=True)):
        if i == 1 and param_states[0][0] is param_states[0][1]:  # the working copy is the model itself
            stacks.append(stacks[0])
            continue
        stacks.append(torch.stack([tensor.detach() for tensor in some]))
        for tensor, part in zip(some, stacks[-1], strict=True):
            tensor.data = part
    return tuple(stacks)
