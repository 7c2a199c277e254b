"""Time: how long a step takes on this machine, and how many steps fit into a time budget."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from vaelab.core.devices import num_threads, tune_malloc
from vaelab.datasets.images import Dataset
from vaelab.evaluation.metrics import compute_metrics, validate
from vaelab.runs.run import Run
from vaelab.runs.spec import Spec
from vaelab.training.job import TrainingJob
from vaelab.training.plan import choose_plan
from vaelab.training.recorder import num_monitored_images
from vaelab.training.schedule import StepSchedule
from vaelab.training.state import ActiveRun, initial_state
from vaelab.training.steps.choose import choose_step

__all__ = [
    "StepTimes",
    "TimeBudget",
    "budget_seconds",
    "epoch_seconds",
    "estimate_time",
    "first_schedule",
    "time_steps",
    "training_seconds",
]

WARM_UP_STEPS = 3  # the first steps are slower

MIN_TIMED_STEPS = 5

MONITORED_SAMPLE, EVALUATED_SAMPLE = 1000, 500  # images on which measuring is timed

TRIAL_SHARE, MAX_TRIAL_SECONDS = 0.05, 3.0  # of a time budget, for the first estimate

TARGET_SHARE = 0.97  # the part of a time budget that estimates aim at

LOOK_AT = (0.02, 0.05, 0.1, 0.2, 0.35, 0.5, 0.65, 0.8, 0.9, 0.95, 0.98)  # parts of it after which they are made anew

MIN_STEPS_BETWEEN_LOOKS = 10  # the first steps are slower, and single ones say little

EARLIEST_END, LATEST_END = 0.93, 0.985  # parts of it before and after which a run does not and does end


class StepTimes(NamedTuple):
    """What was timed on this machine.

    Attributes:
        per_step: Seconds of a step.
        per_monitored_image: Seconds of measuring an image after an epoch.
        per_evaluated_image: Seconds of measuring an image at the end of the run.
    """

    per_step: float
    per_monitored_image: float
    per_evaluated_image: float


def time_steps(job: TrainingJob, seconds: float) -> StepTimes:
    """Time the steps of a run by about so many seconds of training, which is thrown away."""
    trial_job = job.with_plan(steps=10**9, schedule=None)
    trial = ActiveRun(trial_job, initial_state(trial_job))
    step = choose_step([trial])
    rows = np.arange(min(job.spec.batch_size, len(job.train_images)))
    for _ in range(WARM_UP_STEPS):
        step([rows])[0].loss.item()
    begin, steps = time.monotonic(), 0
    while job.distributed.broadcast(steps < MIN_TIMED_STEPS or time.monotonic() - begin < seconds):
        step([rows])[0].loss.item()
        steps += 1
    per_step = (time.monotonic() - begin) / steps
    objective = job.spec.objective
    monitored = job.dataset.splits.get("validation", job.train_images).evenly_spaced(MONITORED_SAMPLE)
    evaluated = monitored.evenly_spaced(EVALUATED_SAMPLE)
    monitoring = _seconds_of(lambda: validate(trial.state.compute_model, objective, monitored))
    evaluation = _seconds_of(lambda: compute_metrics(trial.state.model, objective, evaluated))
    return StepTimes(per_step, monitoring / len(monitored), evaluation / len(evaluated))


def _seconds_of(function: Callable[[], object]) -> float:
    """How long a call takes."""
    begin = time.monotonic()
    function()
    return time.monotonic() - begin


def epoch_seconds(job: TrainingJob, times: StepTimes) -> float:
    """Seconds of an epoch with the measurement at its end."""
    monitored = num_monitored_images(job.train_images) + len(job.dataset.splits.get("validation", ()))
    return job.steps_per_epoch * times.per_step + monitored * times.per_monitored_image


def first_schedule(run: ActiveRun) -> StepSchedule:
    """The first estimate of how many steps fit into the time budget of a run, from a few seconds of trying.

    The time that this takes counts as training time.
    """
    job = run.job
    budget = budget_seconds(job)
    begin = time.monotonic()
    times = time_steps(job, min(MAX_TRIAL_SECONDS, TRIAL_SHARE * budget))
    steps = TARGET_SHARE * budget * job.steps_per_epoch / epoch_seconds(job, times)
    run.state.seconds += time.monotonic() - begin
    return StepSchedule.of_length(max(2, int(steps)))


def budget_seconds(job: TrainingJob) -> float:
    """The time budget of a run in seconds."""
    return 60 * (job.spec.minutes or 0)


class TimeBudget:
    """Estimates again how many steps fit into the time budget of a run, at fixed parts of the budget.

    A run that is resumed follows the estimates that were stored, whatever the clock says, until it has passed the last
    of them: so it takes the same steps as the run that was interrupted.

    Args:
        budget: The time budget in seconds.
        first_step: How many steps were taken before.
        elapsed: How many seconds were used before, on trying and before an interruption.
    """

    def __init__(self, budget: float, first_step: int = 0, elapsed: float = 0.0) -> None:
        self.budget = budget
        self.first_look = (first_step, elapsed)
        self.last_look = (first_step, elapsed)

    def revised_schedule(self, schedule: StepSchedule, step: int, elapsed: float) -> StepSchedule | None:
        """A new schedule, if there is reason for one after a step.

        Args:
            schedule: The present schedule.
            step: How many steps were taken.
            elapsed: The training time so far in seconds.

        Returns:
            The schedule from this step on; None to keep the present one.
        """
        if step < schedule.last_revision or step >= schedule.total_steps:
            return None
        total_steps = self._estimated_total(schedule.total_steps, step, elapsed)
        return None if total_steps == schedule.total_steps else schedule.revised(step, total_steps)

    def _estimated_total(self, total_steps: int, step: int, elapsed: float) -> int:
        """The number of steps of the run as it looks now."""
        used, used_before = elapsed / self.budget, self.last_look[1] / self.budget
        passed_mark = any(used_before < mark <= used for mark in LOOK_AT)
        ends_too_soon = step + 1 >= total_steps and used < EARLIEST_END
        if used >= LATEST_END:
            return step + 1
        has_timed_enough = step - self.last_look[0] >= MIN_STEPS_BETWEEN_LOOKS
        if not ends_too_soon and not (passed_mark and has_timed_enough):
            return total_steps
        seconds_per_step = self._seconds_per_step(step, elapsed)
        self.last_look = (step, elapsed)
        remaining_steps = (TARGET_SHARE * self.budget - elapsed) / seconds_per_step
        return step + max(1, int(remaining_steps))

    def _seconds_per_step(self, step: int, elapsed: float) -> float:
        """The mean of the time of a step since training began or was resumed, and since the last look."""
        first_step, first_elapsed = self.first_look
        last_step, last_elapsed = self.last_look
        overall = (elapsed - first_elapsed) / max(1, step - first_step)
        recent = (elapsed - last_elapsed) / max(1, step - last_step)
        return max((overall + recent) / 2, 1e-9)


def training_seconds(job: TrainingJob) -> float:
    """About how long the whole training of a job takes on this machine, from half a second of trying."""
    tune_malloc()
    with num_threads(job.plan.threads):
        times = time_steps(job, 0.5)
    epochs = job.total_steps / job.steps_per_epoch
    held_out = sum(len(images) for split, images in job.dataset.splits.items() if split != "train")
    return epochs * epoch_seconds(job, times) + held_out * times.per_evaluated_image


def estimate_time(
    spec: Spec, dataset: Dataset, *, device: str | None = None, threads: int | None = None
) -> tuple[float, float]:
    """About how long training takes on this machine, from a second of trying.

    Returns:
        Seconds of an epoch, and of the measurement at the end of the run.
    """
    plan = choose_plan(spec, dataset.splits["train"], device, threads=threads)
    job = TrainingJob(Run(Path()), spec, dataset, plan)
    tune_malloc()
    with num_threads(plan.threads):
        times = time_steps(job, 1.0)
    held_out = sum(len(images) for split, images in dataset.splits.items() if split != "train")
    return epoch_seconds(job, times), held_out * times.per_evaluated_image
