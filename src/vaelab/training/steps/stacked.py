r"""The stacked step: runs whose programs agree take their steps as one; the first axis of every tensor counts the runs.

    g_s = gradient of loss_s at (weights_s, batch_s, noise_s),   for all runs s at once, by torch.func.vmap

Floats may differ within a stack: learning rates with their schedules, clipping, KL weights and other numbers of an
objective; and seeds. What shapes the program may not. The tensors of each run's state become views into the stack, so
that measuring, saving and finishing a run works as for a single one. A stacked run equals the run alone to rounding.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.func import vmap

from vaelab.objectives.terms import LossTerms
from vaelab.training.job import sample_noise
from vaelab.training.optimizer import ParamState, adam_step, bias_corrections
from vaelab.training.plan import tunable_floats
from vaelab.training.state import ActiveRun
from vaelab.training.steps.gradient import make_gradient_function, to_loss_terms

__all__ = ["StackedStep"]


class StackedStep:
    """The step of S runs, whose specs agree in `plan.program_key`."""

    def __init__(self, group: Sequence[ActiveRun]) -> None:
        first = group[0]
        specs = [run.job.spec for run in group]
        states_by_param = zip(*(run.state.optimizer.param_states for run in group), strict=True)
        self.group = group
        self.device = first.job.plan.device
        self.param_names = first.state.optimizer.param_names
        self.param_states = [stack_param_states(states) for states in states_by_param]
        self.floats: dict[str, Tensor] = {}
        for name in tunable_floats(first.job.spec.objective):
            self.floats[name] = self._tensor([getattr(spec.objective, name) for spec in specs])
        self.clip = None if specs[0].clip is None else self._tensor([spec.clip for spec in specs])
        gradient_function = make_gradient_function(specs[0].objective, first.state.compute_model)
        self.gradient_function = vmap(gradient_function, in_dims=(0, 0, 0, 0, None))

    @classmethod
    def create(cls, group: Sequence[ActiveRun]) -> StackedStep | None:
        """The step of several runs."""
        return cls(group) if len(group) > 1 else None

    def __call__(self, batch_rows: Sequence[np.ndarray]) -> list[LossTerms]:
        """Take one step of each run on its own batch; all batches have the same size."""
        pairs = list(zip(self.group, batch_rows, strict=True))
        x = torch.stack([run.job.load_batch(rows, run.state.step) for run, rows in pairs])
        noise = torch.stack([sample_noise(run.job, run.state.step, len(rows)) for run, rows in pairs])
        terms = self._step(x, noise.to(x.device))
        for run in self.group:
            run.state.advance(run.job.spec.ema)
        terms_of_runs = []
        for i in range(len(self.group)):
            terms_of_runs.append(to_loss_terms({name: values[i] for name, values in terms.items()}))
        return terms_of_runs

    def _step(self, x: Tensor, noise: Tensor) -> dict[str, Tensor]:
        """Gradients and Adam on x (S, B, C, H, W) with noise (S, B, D); gives the terms, (S,) each."""
        weights = {n: state.compute_param for n, state in zip(self.param_names, self.param_states, strict=True)}
        progress = torch.tensor(self.group[0].progress, device=self.device)
        gradients, (_, terms) = self.gradient_function(weights, self.floats, x, noise, progress)
        with torch.no_grad():
            learning_rates = self._tensor([run.learning_rate for run in self.group])
            corrections = bias_corrections(learning_rates, self.param_states[0].step)
            adam_step(self.param_states, [gradients[n] for n in self.param_names], *corrections, self.clip)
        return terms

    def _tensor(self, numbers: Sequence[float | None]) -> Tensor:
        """One number of each run, with shape (S,)."""
        return torch.tensor(numbers, device=self.device)


def stack_param_states(states: Sequence[ParamState]) -> ParamState:
    """The states of one parameter in several runs, stacked; the tensors of the runs become views into the stack."""
    is_own_copy = states[0].compute_param is not states[0].param
    param = _stack([state.param for state in states])
    return ParamState(
        compute_param=_stack([state.compute_param for state in states]) if is_own_copy else param,
        param=param,
        exp_avg=_stack([state.exp_avg for state in states]),
        exp_avg_sq=_stack([state.exp_avg_sq for state in states]),
        step=_stack([state.step for state in states]),
    )


def _stack(tensors: Sequence[Tensor]) -> Tensor:
    """Tensors of one shape, stacked along a new first axis; each of them becomes a view into the stack."""
    stack = torch.stack([tensor.detach() for tensor in tensors])
    for tensor, view in zip(tensors, stack, strict=True):
        tensor.data = view
    return stack
