"""Choosing how a step is taken: eager, compiled or stacked."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple, cast

import numpy as np
import torch
from torch import Tensor

from vaelab.models.vae import Draw
from vaelab.objectives.terms import Terms
from vaelab.training.job import Work, draw
from vaelab.training.optimizer import rate_factor
from vaelab.training.state import State, moved
from vaelab.training.steps.compiled import Program, program
from vaelab.training.steps.eager import descend
from vaelab.training.steps.stacked import Stack

__all__ = ["Ready", "compiled_step", "steps_of", "take_step", "tell"]


class Ready(NamedTuple):
    """A run that can take its next step."""

    work: Work
    state: State
    resumed: bool
    program: Program | None = None


def compiled_step(work: Work, state: State) -> Program | None:
    """The compiled step, where the plan has one and it can be made; of a whole batch, alone, on a CPU."""
    fits = work.plan.device == "cpu" and work.ranks.size == 1 and len(work.images) >= work.spec.batch_size
    if not (work.plan.compiled and fits):
        return None
    rows = np.arange(work.spec.batch_size)
    return program(work.spec, work.plan, state, work.pixels(rows, 0), draw(work, 0, len(rows)))


def tell(terms: Terms, epoch: int, epochs: int) -> str:
    """The terms of a step, for the display."""
    loss, distortion, rate = (t.item() for t in terms[:3])
    return f"epoch {epoch} of {epochs}, loss {loss:.2f} (distortion {distortion:.2f}, KL {rate:.2f})"


def steps_of(team: Sequence[Ready]) -> Callable[[Sequence[np.ndarray]], list[Terms]]:
    """The function that takes a step of each run, on the rows of each: alone, or stacked."""
    if len(team) == 1:
        [(work, state, _, program)] = team
        return lambda rows: [take_step(work, state, rows[0], program)]
    return partial(take_steps, Stack([one.work.spec for one in team], [one.state for one in team]), team)


def take_steps(stack: Stack, team: Sequence[Ready], rows: Sequence[np.ndarray]) -> list[Terms]:
    """One step of each run of a team, as one."""
    x = torch.stack([one.work.gather(some, one.state.step) for one, some in zip(team, rows, strict=True)])
    noise = torch.stack([draw(one.work, one.state.step, len(rows[0])) for one in team]).to(x.device)
    done, part = team[0].state.step / team[0].work.steps, 1 / team[0].work.steps
    rates = [one.work.spec.lr * rate_factor(one.work.spec, done, part) for one in team]
    found = stack.step(x, noise, done, rates)
    for one in team:
        moved(one.work.spec, one.state)
    return [terms_of({name: values[i] for name, values in found.items()}) for i in range(len(team))]


def terms_of(found: dict[str, Tensor]) -> Terms:
    """The terms of a step whose passes are not kept."""
    loss, distortion, rate = (found.pop(name) for name in ("loss", "distortion", "rate"))
    return Terms(loss, distortion, rate, found, cast(Draw, None))


def take_step(work: Work, state: State, rows: np.ndarray, program: Program | None = None) -> Terms:
    """One step of Adam on the training images `rows`: by the compiled program, where the batch is a whole one."""
    spec, step, size = work.spec, state.step, len(rows)
    done, noise = step / work.steps, draw(work, step, size)
    rate = spec.lr * rate_factor(spec, done, 1 / work.steps)
    if program is not None and size == spec.batch_size:
        terms = terms_of(program.step(work.pixels(rows, step), noise, done, rate))
    else:
        terms = descend(work, state, rows, noise, rate)
    moved(spec, state)
    return terms
