"""The same task for several runs, one of which may fail without stopping the others."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Generic, NamedTuple, TypeVar

from vaelab.core.distributed import distributed_context
from vaelab.core.errors import UserError
from vaelab.training.job import TrainingJob
from vaelab.training.state import ActiveRun

__all__ = ["Attempts", "attempt_each"]

R = TypeVar("R", TrainingJob, ActiveRun)
T = TypeVar("T")


class Attempts(NamedTuple, Generic[T]):
    """What a task gave, in order, and the errors of those runs for which it failed, by the key of the run."""

    results: list[T]
    failures: dict[str, UserError]


def attempt_each(runs: Iterable[R], task: Callable[[R], T]) -> Attempts[T]:
    """Call a task for each run; the errors that the user can put right become part of the result.

    Raises:
        UserError: Several processes train together, and would wait for this one if it went on alone.
    """
    results, failures = [], {}
    for run in runs:
        try:
            results.append(task(run))
        except UserError as error:
            if distributed_context().world_size > 1:
                raise
            failures[run.key] = error
    return Attempts(results, failures)
