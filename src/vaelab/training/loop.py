"""The training loop: fit -> epoch -> step. It is the only one, and knows neither kinds of steps nor devices.

All runs of a group take the same step at the same time; one that fails leaves the group, and the others go on. Nothing
accumulates between steps but the state of each run, so a state stored after any step resumes exactly.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from vaelab.core.console import progress
from vaelab.core.errors import UserError
from vaelab.core.interrupts import deferred_interrupts
from vaelab.objectives.terms import LossTerms
from vaelab.training.attempts import attempt_each
from vaelab.training.budget import TimeBudget, budget_seconds
from vaelab.training.checkpoints import CheckpointSchedule
from vaelab.training.divergence import terms_error
from vaelab.training.job import epoch_order
from vaelab.training.progress import ProgressDisplay, Stopwatch
from vaelab.training.provenance import record_schedule
from vaelab.training.recorder import EpochRecorder
from vaelab.training.state import ActiveRun
from vaelab.training.steps.choose import choose_step

__all__ = ["LoopResult", "TrainingInterrupted", "TrainingLoop"]

SYNC_EVERY = 50  # steps between two looks at the terms where each look has to wait for a GPU or for other processes


class TrainingInterrupted(KeyboardInterrupt):
    """The user's interruption, raised after the state was stored."""


class LoopResult(NamedTuple):
    """The runs that took all their steps, and the errors of the others by the key of the run."""

    trained: list[ActiveRun]
    failures: dict[str, UserError]


class TrainingLoop:
    """Takes all steps of a group of runs that are at the same step.

    Args:
        group: The runs.
        snapshot_epochs: The epochs after which a few reconstructions are kept.
    """

    def __init__(self, group: Sequence[ActiveRun], snapshot_epochs: Sequence[int]) -> None:
        self.group = list(group)
        self.failures: dict[str, UserError] = {}
        self.step = choose_step(self.group)
        self.stopwatch = Stopwatch(self.first.state.seconds)
        self.recorder = EpochRecorder(snapshot_epochs)
        self.checkpoints = CheckpointSchedule()
        self.budget = self._time_budget()

    @property
    def first(self) -> ActiveRun:
        """The first run of the group: the count of steps, epochs and the device are the same for all."""
        return self.group[0]

    def fit(self) -> LoopResult:
        """Take the steps that remain."""
        first = self.first
        with (
            deferred_interrupts() as self.is_interrupted,
            progress("training", first.job.total_steps, first.state.step) as advance,
        ):
            self.display = ProgressDisplay(advance, first, len(self.group))
            while self.group and not self.first.is_done:
                self.train_epoch()
        return LoopResult(self.group, self.failures)

    def train_epoch(self) -> None:
        """Take the steps of an epoch that remain, and record what it has come to."""
        epoch, first_batch = divmod(self.first.state.step, self.first.job.steps_per_epoch)
        orders = {run.key: epoch_order(run.job, epoch) for run in self.group}
        for batch in range(first_batch, self.first.job.steps_per_epoch):
            self.train_step(orders, batch)
            if not self.group or self.first.is_done:
                break

    def train_step(self, orders: Mapping[str, np.ndarray], batch: int) -> None:
        """Take one step of each run, check it, and save or stop where that is due."""
        self._prefetch(orders, batch + 1)
        terms = self.step([self._rows(run, orders, batch) for run in self.group])
        at_epoch_end = self.first.at_epoch_end
        if at_epoch_end or self._may_wait():
            self.display.show(self.first, terms[0])
            self._drop(self._diverged(terms))
        if at_epoch_end and self.group:
            self.finish_epoch()
        if self.group:
            self._note_seconds()
            self._revise_schedule()
            self._save_or_stop(at_epoch_end)

    def finish_epoch(self) -> None:
        """Measure all runs and write their history; in the main process only, where there are several."""
        self._note_seconds()
        if self.first.job.distributed.is_main:
            self._drop(attempt_each(self.group, self.recorder.record).failures)

    def _time_budget(self) -> TimeBudget | None:
        """The time budget of the run, where it has one."""
        budget = budget_seconds(self.first.job)
        return TimeBudget(budget, self.first.state.step, self.first.state.seconds) if budget else None

    def _rows(self, run: ActiveRun, orders: Mapping[str, np.ndarray], batch: int) -> np.ndarray:
        """The indices of a batch in the training split; none after the last batch."""
        size = run.job.spec.batch_size
        return orders[run.key][batch * size : (batch + 1) * size]

    def _prefetch(self, orders: Mapping[str, np.ndarray], batch: int) -> None:
        """Have a coming batch read from disk."""
        self.first.job.prefetch(self._rows(self.first, orders, batch))

    def _may_wait(self) -> bool:
        """Whether the terms of this step are looked at: of each on a CPU, of some where that means to wait."""
        return self.first.job.plan.device == "cpu" or self.first.state.step % SYNC_EVERY == 0

    def _diverged(self, terms: Sequence[LossTerms]) -> dict[str, UserError]:
        """The errors of the runs whose loss is no number or absurd."""
        errors = {}
        for run, run_terms in zip(self.group, terms, strict=True):
            if error := terms_error(run, run_terms):
                errors[run.key] = error
        return errors

    def _drop(self, failures: Mapping[str, UserError]) -> None:
        """Take runs that failed out of the group."""
        if not failures:
            return
        self.failures.update(failures)
        self.group = [run for run in self.group if run.key not in failures]
        if self.group:
            self.step = choose_step(self.group)

    def _note_seconds(self) -> None:
        """Note the training time in the state of each run."""
        seconds = self.stopwatch.elapsed_seconds()
        for run in self.group:
            run.state.seconds = seconds

    def _revise_schedule(self) -> None:
        """Under a time budget, estimate the number of steps again; a new estimate is stored before it counts."""
        if self.budget is None:
            return
        [run] = self.group  # runs with a time budget are trained each by itself
        job, state = run.job, run.state
        if job.distributed.world_size > 1 and state.step % SYNC_EVERY and state.step + 1 < job.total_steps:
            return
        schedule = job.distributed.broadcast(self.budget.revised_schedule(job.schedule, state.step, state.seconds))
        if schedule is not None:
            run.job = job.with_plan(steps=schedule.total_steps, schedule=schedule)
            if job.distributed.is_main:
                record_schedule(run.job)

    def _save_or_stop(self, at_epoch_end: bool) -> None:
        """Store the states where that is due, or where the user wants to stop."""
        must_stop = self._must_stop(at_epoch_end)
        if self.first.job.distributed.is_main and (must_stop or self.checkpoints.is_due(at_epoch_end)):
            self.checkpoints.save(self.group)
        if must_stop:
            raise TrainingInterrupted

    def _must_stop(self, at_epoch_end: bool) -> bool:
        """Whether the user wants to stop; several processes agree on it, so that they stop after the same step."""
        distributed = self.first.job.distributed
        if distributed.world_size == 1:
            return self.is_interrupted()
        asks_others = at_epoch_end or self.first.state.step % SYNC_EVERY == 0
        return asks_others and distributed.any(self.is_interrupted())
