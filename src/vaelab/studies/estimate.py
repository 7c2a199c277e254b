"""The time that a study will take, estimated from a few steps of a few of its runs.

A step's time depends on the multiply-adds of its batch. For each kind of network the cheapest and the dearest step are
timed, and all others lie on the line between them. Measuring and analysing follow from steps by fixed factors. All of
this takes about a second, so that a dry run answers at once.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from vaelab.analysis.baseline import MAX_FEATURE_POINTS, display_split
from vaelab.analysis.registry import has_analysis
from vaelab.core.devices import num_threads
from vaelab.runs.run import Run
from vaelab.runs.spec import Spec
from vaelab.studies.definition import Study
from vaelab.studies.plan import PlannedRun, data_key, required_analyses
from vaelab.training.job import TrainingJob
from vaelab.training.plan import choose_plan
from vaelab.training.recorder import num_monitored_images
from vaelab.training.state import ActiveRun, initial_state
from vaelab.training.steps.choose import choose_step

__all__ = ["estimate_seconds"]

TRIAL_SECONDS = 0.1  # seconds for which the steps of one run are timed

MAX_TRIALS = 6  # runs whose steps are timed

MONITORED_SHARE = 0.4  # the time of measuring an image after an epoch, in that of training on it

EVALUATED_SHARE = 1.5  # the same at the end of a run, when all metrics are measured

PROJECTION_SECONDS = 0.003  # seconds for the projections of one point, on a processor of 2024

WORKER_START_SECONDS = 4.0  # seconds that a worker process needs for its imports

StepKind = tuple[type, int]  # steps whose time follows from their multiply-adds alone


class TimedStep(NamedTuple):
    """A step that was timed: the multiply-adds of its batch, and its seconds."""

    cost: float
    seconds: float


def estimate_seconds(
    study: Study, planned_runs: Mapping[Spec, PlannedRun], num_workers: int, device: str | None = None
) -> float:
    """About how many seconds the missing runs and features of a study take, with all workers at work.

    Args:
        study: The study.
        planned_runs: Its runs, from `plan_runs`.
        num_workers: How many workers there will be.
        device: The device to train on; the fastest there is if None.
    """
    missing = [planned for planned in planned_runs.values() if not planned.run.finished]
    without_features = _runs_without_features(study, planned_runs)
    timed_steps = time_some_steps(missing, device)
    seconds = sum(_run_seconds(planned, timed_steps[_step_kind(planned)]) for planned in missing)
    seconds += _feature_seconds(without_features)
    has_work = bool(missing or without_features)
    return WORKER_START_SECONDS * has_work + seconds / num_workers


# Training


def time_some_steps(planned_runs: Sequence[PlannedRun], device: str | None) -> dict[StepKind, list[TimedStep]]:
    """Time the cheapest and the dearest step of each kind, in order of their cost."""
    by_kind: dict[StepKind, list[PlannedRun]] = {}
    for planned in sorted(planned_runs, key=_step_cost):
        by_kind.setdefault(_step_kind(planned), []).append(planned)
    timed_steps: dict[StepKind, list[TimedStep]] = {}
    num_trials = 0
    for kind, group in by_kind.items():
        is_varied = _step_cost(group[-1]) > _step_cost(group[0]) and num_trials < MAX_TRIALS
        trials = [group[0], group[-1]] if is_varied else [group[-1]]
        timed_steps[kind] = [TimedStep(_step_cost(planned), _time_step(planned, device)) for planned in trials]
        num_trials += len(trials)
    return timed_steps


def _step_kind(planned: PlannedRun) -> StepKind:
    return type(planned.spec.network), planned.spec.objective.num_samples


def _step_cost(planned: PlannedRun) -> float:
    """The multiply-adds of a step, but for a constant factor."""
    num_images = len(planned.dataset.splits["train"])
    image_cost = planned.cost / (num_images * planned.spec.num_epochs(num_images))
    return image_cost * min(planned.spec.batch_size, num_images)


def _time_step(planned: PlannedRun, device: str | None) -> float:
    """Seconds of a step, from some steps of training that is thrown away."""
    train_images = planned.dataset.splits["train"]
    plan = choose_plan(planned.spec, train_images, device, threads=1)
    job = TrainingJob(Run(Path()), planned.spec, planned.dataset, plan)
    trial_job = job.with_plan(steps=10**9, schedule=None, compiled=False)  # compiling would take longer than it saves
    rows = np.arange(min(planned.spec.batch_size, len(train_images)))
    with num_threads(1):
        step = choose_step([ActiveRun(trial_job, initial_state(trial_job))])
        step([rows])[0].loss.item()  # the first one is slower
        start_time = time.monotonic()
        num_steps = 0
        while num_steps == 0 or time.monotonic() - start_time < TRIAL_SECONDS:
            step([rows])[0].loss.item()
            num_steps += 1
        return (time.monotonic() - start_time) / num_steps


def _run_seconds(planned: PlannedRun, timed_steps: Sequence[TimedStep]) -> float:
    """About how many seconds the rest of a run takes."""
    splits = planned.dataset.splits
    train_images = splits["train"]
    batch_size = min(planned.spec.batch_size, len(train_images))
    costs = [step.cost for step in timed_steps]
    step_seconds = float(np.interp(_step_cost(planned), costs, [step.seconds for step in timed_steps]))
    image_seconds = step_seconds / batch_size
    if planned.spec.minutes is not None:
        training_seconds = 60 * planned.spec.minutes
    else:
        num_monitored = len(splits.get("validation", ())) + num_monitored_images(train_images)
        monitoring_seconds = num_monitored * MONITORED_SHARE * image_seconds
        training_seconds = planned.spec.num_steps(len(train_images)) * step_seconds
        training_seconds += planned.spec.num_epochs(len(train_images)) * monitoring_seconds
    num_evaluated = sum(len(images) for split, images in splits.items() if split != "train")
    evaluation_seconds = num_evaluated * EVALUATED_SHARE * image_seconds
    return (1 - planned.fraction_done()) * training_seconds + evaluation_seconds


# Features


def _runs_without_features(study: Study, planned_runs: Mapping[Spec, PlannedRun]) -> list[PlannedRun]:
    """The runs whose features a study asks for and that do not have them yet."""
    runs = {}
    for trial in study.trials:
        planned = planned_runs[trial.spec]
        is_required = "features" in required_analyses(study.experiment(trial.experiment))
        if is_required and not has_analysis(planned.run, "features"):
            runs[planned.run.path] = planned
    return list(runs.values())


def _feature_seconds(runs: Sequence[PlannedRun]) -> float:
    """Seconds for the features of runs, and for the two projections of the baseline of each data set and seed."""
    seconds = 0.0
    baselines = {}
    for planned in runs:
        num_points = min(len(display_split(planned.dataset)), MAX_FEATURE_POINTS)
        seconds += num_points * PROJECTION_SECONDS
        baselines[data_key(planned.spec), planned.spec.seed] = num_points
    return seconds + 2 * PROJECTION_SECONDS * sum(baselines.values())
