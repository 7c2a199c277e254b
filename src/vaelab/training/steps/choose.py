"""The kinds of training steps, and the choice among them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from vaelab.training.plan import Plan
from vaelab.training.state import ActiveRun
from vaelab.training.steps.compiled import CompiledStep
from vaelab.training.steps.distributed import DistributedStep
from vaelab.training.steps.eager import EagerStep
from vaelab.training.steps.stacked import StackedStep
from vaelab.training.steps.step import Step

__all__ = ["STEP_KINDS", "choose_step", "possible_plan"]

# The first kind that fits is taken.
STEP_KINDS: tuple[type[Step], ...] = (
    StackedStep,
    DistributedStep,
    CompiledStep,
    EagerStep,
)


def choose_step(group: Sequence[ActiveRun]) -> Step:
    """The step of a group of runs that are all at the same step."""
    for kind in STEP_KINDS:
        step = kind.create(group)
        if step is not None:
            return step
    raise ValueError(f"no kind of step fits {len(group)} runs")


def possible_plan(run: ActiveRun) -> Plan:
    """The plan of a run as far as it can be followed here: not compiled where its step cannot be."""
    plan = run.job.plan
    return replace(plan, compiled=plan.compiled and isinstance(choose_step([run]), CompiledStep))
