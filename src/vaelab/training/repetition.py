"""How to repeat a training that had a time budget: by the steps that fitted into it."""

from __future__ import annotations

import shlex

from vaelab.core.console import count_text
from vaelab.runs.run import Run
from vaelab.training.plan import plan_from_dict
from vaelab.training.schedule import StepSchedule

__all__ = ["explain_repetition", "with_steps"]

MINUTES_FLAGS = ("--minutes", "--max-minutes")


def explain_repetition(run: Run) -> str:
    """How to repeat a finished run that had a time budget, in one or two lines; empty for other runs.

    The numbers of a training also depend on how its length was estimated on the way, because learning rates and
    warm-ups follow the part of it that is done. So the estimates are given with the steps.
    """
    plan = plan_from_dict(run.origin["plan"])
    if run.spec.minutes is None or plan.steps is None:
        return ""
    estimates = (plan.schedule or StepSchedule.of_length(plan.steps)).estimates
    fitted = f"{count_text(plan.steps, 'step')} fitted into the time"
    command = with_steps(run.origin.get("command"), plan.steps, estimates)
    again = command or f"steps={plan.steps}, estimates={estimates} in place of minutes"
    return f"{fitted}; to repeat the training, to the byte on this machine:\n  {again}"


def with_steps(command: str | None, steps: int, estimates: tuple[int, ...]) -> str | None:
    """A `vaelab train` command line with steps in place of its time budget; None where it is no such command.

    Example:
        >>> with_steps("vaelab train digits --minutes 2 --out runs", 900, (0, 800, 400, 900))
        'vaelab train digits --out runs --steps 900 --estimates 0,800,400,900'
    """
    try:
        words = shlex.split(command or "")
    except ValueError:  # a command line that was changed by hand
        return None
    if words[:2] != ["vaelab", "train"]:
        return None
    kept = _without_minutes(words)
    return shlex.join([*kept, "--steps", str(steps), "--estimates", ",".join(map(str, estimates))])


def _without_minutes(words: list[str]) -> list[str]:
    """The words of a command line without its time budget."""
    kept: list[str] = []
    is_value = False
    for word in words:
        if not is_value and word.partition("=")[0] not in MINUTES_FLAGS:
            kept.append(word)
        is_value = not is_value and word in MINUTES_FLAGS
    return kept
