"""Time budgets: how long a step takes here, and how many fit."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from vaelab.core.devices import num_threads, tune_malloc
from vaelab.datasets.images import Dataset
from vaelab.evaluation.metrics import compute_metrics, validate
from vaelab.runs.run import Run
from vaelab.runs.spec import Spec
from vaelab.training.job import TrainingJob
from vaelab.training.loop import num_monitored_images
from vaelab.training.plan import choose_plan
from vaelab.training.state import initial_state
from vaelab.training.steps.choose import load_compiled_step, train_step

__all__ = ["epoch_seconds", "estimate_time", "steps_in_budget"]


class StepTimes(NamedTuple):
    """Seconds of a step, of an image that an epoch's end measures, and of one that the run's end does."""

    per_step: float
    per_monitored_image: float
    per_evaluated_image: float


def time_steps(job: TrainingJob, seconds: float) -> StepTimes:
    """The pace of a run, from some seconds of training that is thrown away."""
    state = initial_state(job.spec, job.plan, job.train_images.shape, job.parent)
    trial = replace(job, plan=replace(job.plan, steps=10**9))
    rows, program = np.arange(min(job.spec.batch_size, len(job.train_images))), load_compiled_step(job, state)
    for _ in range(3):  # the first steps are slower
        train_step(trial, state, rows, program).loss.item()
    begun, steps = time.monotonic(), 0
    while job.distributed.broadcast(steps < 5 or time.monotonic() - begun < seconds):
        train_step(trial, state, rows, program).loss.item()
        steps += 1
    per_step = (time.monotonic() - begun) / steps
    some = job.dataset.splits.get("validation", job.train_images).evenly_spaced(1000)
    per_monitored = _elapsed_seconds(partial(validate, state.compute_model, job.spec.objective, some)) / len(some)
    few = some.evenly_spaced(500)
    return StepTimes(
        per_step,
        per_monitored,
        _elapsed_seconds(partial(compute_metrics, state.model, job.spec.objective, few)) / len(few),
    )


def _elapsed_seconds(function: Callable[[], object]) -> float:
    begun = time.monotonic()
    function()
    return time.monotonic() - begun


def epoch_seconds(job: TrainingJob, times: StepTimes) -> float:
    """Seconds of an epoch with the measurement at its end."""
    images = len(job.dataset.splits.get("validation", ())) + num_monitored_images(job.train_images)
    return job.steps_per_epoch * times.per_step + images * times.per_monitored_image


def steps_in_budget(job: TrainingJob) -> int:
    """How many steps the time budget holds."""
    budget = 60 * (job.spec.minutes or 0)
    epoch = epoch_seconds(job, time_steps(job, min(3.0, 0.05 * budget)))
    return max(1, int(0.95 * budget * job.steps_per_epoch / epoch))


def estimate_time(
    spec: Spec, dataset: Dataset, *, device: str | None = None, threads: int | None = None
) -> tuple[float, float]:
    """About how many seconds an epoch takes, and the measurement at the end of a run: from a second of training."""
    work = TrainingJob(Run(Path()), spec, dataset, choose_plan(spec, dataset.splits["train"], device, threads=threads))
    tune_malloc()
    with num_threads(work.plan.threads):
        found = time_steps(work, 1.0)
    held_out = sum(len(images) for split, images in dataset.splits.items() if split != "train")
    return epoch_seconds(work, found), held_out * found.per_evaluated_image
