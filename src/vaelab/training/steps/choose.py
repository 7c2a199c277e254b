"""Choosing how a step is taken: eager, compiled or stacked."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple, cast

import numpy as np
import torch
from torch import Tensor

from vaelab.models.vae import VAEOutput
from vaelab.objectives.terms import LossTerms
from vaelab.training.job import TrainingJob, sample_noise
from vaelab.training.optimizer import lr_multiplier
from vaelab.training.state import TrainingState, advance_state
from vaelab.training.steps.compiled import CompiledStep, load_or_compile
from vaelab.training.steps.eager import eager_step
from vaelab.training.steps.stacked import StackedStep

__all__ = ["ActiveRun", "choose_step", "format_terms", "load_compiled_step", "train_step"]


class ActiveRun(NamedTuple):
    """A run that can take its next step."""

    job: TrainingJob
    state: TrainingState
    resumed: bool
    compiled_step: CompiledStep | None = None


def load_compiled_step(job: TrainingJob, state: TrainingState) -> CompiledStep | None:
    """The compiled step, where the plan has one and it can be made; of a whole batch, alone, on a CPU."""
    fits = job.plan.device == "cpu" and job.distributed.world_size == 1 and len(job.train_images) >= job.spec.batch_size
    if not (job.plan.compiled and fits):
        return None
    rows = np.arange(job.spec.batch_size)
    return load_or_compile(job.spec, job.plan, state, job.load_pixels(rows, 0), sample_noise(job, 0, len(rows)))


def format_terms(terms: LossTerms, epoch: int, epochs: int) -> str:
    """The terms of a step, for the display."""
    loss, distortion, rate = (t.item() for t in terms[:3])
    return f"epoch {epoch} of {epochs}, loss {loss:.2f} (distortion {distortion:.2f}, KL {rate:.2f})"


def choose_step(group: Sequence[ActiveRun]) -> Callable[[Sequence[np.ndarray]], list[LossTerms]]:
    """The function that takes a step of each run, on the rows of each: alone, or stacked."""
    if len(group) == 1:
        [(work, state, _, program)] = group
        return lambda rows: [train_step(work, state, rows[0], program)]
    return partial(train_steps, StackedStep([one.job.spec for one in group], [one.state for one in group]), group)


def train_steps(stack: StackedStep, group: Sequence[ActiveRun], rows: Sequence[np.ndarray]) -> list[LossTerms]:
    """One step of each run of a team, as one."""
    x = torch.stack([one.job.load_batch(some, one.state.step) for one, some in zip(group, rows, strict=True)])
    noise = torch.stack([sample_noise(one.job, one.state.step, len(rows[0])) for one in group]).to(x.device)
    done, part = group[0].state.step / group[0].job.total_steps, 1 / group[0].job.total_steps
    rates = [one.job.spec.lr * lr_multiplier(one.job.spec, done, part) for one in group]
    found = stack.step(x, noise, done, rates)
    for one in group:
        advance_state(one.job.spec, one.state)
    return [to_loss_terms({name: values[i] for name, values in found.items()}) for i in range(len(group))]


def to_loss_terms(values: dict[str, Tensor]) -> LossTerms:
    """The terms of a step whose passes are not kept."""
    loss, distortion, rate = (values.pop(name) for name in ("loss", "distortion", "rate"))
    return LossTerms(loss, distortion, rate, values, cast(VAEOutput, None))


def train_step(
    job: TrainingJob, state: TrainingState, rows: np.ndarray, compiled_step: CompiledStep | None = None
) -> LossTerms:
    """One step of Adam on the training images `rows`: by the compiled program, where the batch is a whole one."""
    spec, step, size = job.spec, state.step, len(rows)
    done, noise = step / job.total_steps, sample_noise(job, step, size)
    rate = spec.lr * lr_multiplier(spec, done, 1 / job.total_steps)
    if compiled_step is not None and size == spec.batch_size:
        terms = to_loss_terms(compiled_step.step(job.load_pixels(rows, step), noise, done, rate))
    else:
        terms = eager_step(job, state, rows, noise, rate)
    advance_state(spec, state)
    return terms
