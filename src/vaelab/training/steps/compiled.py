r"""The compiled step: gradient and Adam of a run as one machine program, which all runs of a shape share.

    (batch, noise, progress, learning rate, floats of the objective; weights, moments) -> terms,    weights in place

A step in PyTorch is some two hundred calls, each of which reads and writes memory. A program does in one pass what lies
between two matrix products. Learning rates, KL weights and seeds are arguments, so that all runs of a study that differ
in them share one program. `program_cache` keeps the programs on disk.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vaelab.objectives.terms import LossTerms
from vaelab.runs.spec import Spec
from vaelab.training.job import sample_noise
from vaelab.training.optimizer import ParamState, adam_step, bias_corrections
from vaelab.training.plan import Plan, tunable_floats
from vaelab.training.state import ActiveRun, TrainingState
from vaelab.training.steps.eager import EagerStep
from vaelab.training.steps.gradient import make_gradient_function, to_loss_terms
from vaelab.training.steps.program_cache import Program, cache_key, compile_step, load_or_compile

__all__ = ["CompiledStep", "make_step_function", "static_inputs"]


class CompiledStep:
    """The step of a single run on a CPU, as a compiled program for batches of one size.

    The last batch of an epoch, which may be smaller, takes the eager step.
    """

    def __init__(self, run: ActiveRun, program: Program) -> None:
        self.run = run
        self.program = program
        self.static_inputs = static_inputs(run.job.spec, run.state)
        self.eager_step = EagerStep(run)

    @classmethod
    def create(cls, group: Sequence[ActiveRun]) -> CompiledStep | None:
        """The step of a single run whose plan has a compiled step, if the program can be made here."""
        [job, *others] = [run.job for run in group]
        has_whole_batch = len(job.train_images) >= job.spec.batch_size
        if others or not job.plan.compiled or job.plan.device != "cpu" or not has_whole_batch:
            return None
        program = load_program(group[0])
        return cls(group[0], program) if program is not None else None

    def __call__(self, batch_rows: Sequence[np.ndarray]) -> list[LossTerms]:
        """Take the step on the images at `batch_rows[0]`."""
        [rows] = batch_rows
        job, state = self.run.job, self.run.state
        if len(rows) != job.spec.batch_size:
            return self.eager_step(batch_rows)
        pixels = job.load_pixels(rows, state.step)
        noise = sample_noise(job, state.step, len(rows))
        step = self.static_inputs[-1].item()
        numbers = [self.run.progress, *bias_corrections(self.run.learning_rate, step)]
        terms = self.program([pixels, noise, *map(torch.tensor, numbers), *self.static_inputs])
        state.advance(job.spec.ema)
        return [to_loss_terms(terms)]


def load_program(run: ActiveRun) -> Program | None:
    """The program of a run, from the cache or compiled now; None, with a notice, where it cannot be made."""
    job, state = run.job, run.state
    batch_size = job.spec.batch_size

    def compile_to(file: Path) -> None:
        pixels = job.load_pixels(np.arange(batch_size), 0)
        numbers = torch.tensor([0.5, 1e-3, 0.5])
        inputs = [pixels, sample_noise(job, 0, batch_size), *numbers, *static_inputs(job.spec, state)]
        compile_step(file, make_step_function(job.spec, job.plan, state), inputs)

    key = cache_key(job.spec, job.plan, (batch_size, *job.train_images.shape))
    return load_or_compile(key, compile_to)


def static_inputs(spec: Spec, state: TrainingState) -> list[Tensor]:
    """The inputs of a program that are the same tensors at every step.

    Returns:
        The floats of the objective, the largest norm of the gradient if there is one, and the tensors that a step
        changes in place: for each parameter those of its `ParamState`.
    """
    numbers = [float(getattr(spec.objective, name)) for name in tunable_floats(spec.objective)]
    if spec.clip is not None:
        numbers.append(float(spec.clip))
    tensors = [torch.tensor(number) for number in numbers]
    first_field = 1 if _shares_weights(state) else 0  # the gradient is then that of `param`, and not of a copy
    for param_state in state.optimizer.param_states:
        for tensor in param_state[first_field:]:
            tensors.append(tensor.detach())
    return tensors


def _shares_weights(state: TrainingState) -> bool:
    """Whether gradients are those of the model itself, and not of a copy in lower precision."""
    return state.compute_model is state.model


def make_step_function(spec: Spec, plan: Plan, state: TrainingState) -> Callable[..., dict[str, Tensor]]:
    """The step as a function of tensors alone.

    Returns:
        The function (pixels, noise, progress, corrected learning rate, sqrt_bias2, *static_inputs) -> terms.
    """
    param_names = state.optimizer.param_names
    float_names = tunable_floats(spec.objective)
    shares_weights = _shares_weights(state)
    gradient_function = make_gradient_function(spec.objective, state.compute_model)

    def step(
        pixels: Tensor, noise: Tensor, progress: Tensor, lr: Tensor, sqrt_bias2: Tensor, *inputs: Tensor
    ) -> dict[str, Tensor]:
        remaining = list(inputs)
        floats = {name: remaining.pop(0) for name in float_names}
        clip = remaining.pop(0) if spec.clip is not None else None
        param_states = _unflatten(remaining, shares_weights)
        weights = {name: state.compute_param for name, state in zip(param_names, param_states, strict=True)}
        x = pixels.to(torch.float32, memory_format=plan.memory_format).div_(255)
        with torch.enable_grad():
            gradients, (_, terms) = gradient_function(weights, floats, x, noise, progress)
        adam_step(param_states, [gradients[name] for name in param_names], lr, sqrt_bias2, clip)
        return terms

    return step


def _unflatten(tensors: Sequence[Tensor], shares_weights: bool) -> list[ParamState]:
    """The parameter states whose tensors `static_inputs` gave one after another."""
    states: list[ParamState] = []
    width = 4 if shares_weights else 5
    for start in range(0, len(tensors), width):
        fields: list[Any] = list(tensors[start : start + width])
        states.append(ParamState(fields[0], *fields) if shares_weights else ParamState(*fields))
    return states
