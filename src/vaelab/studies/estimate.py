"""The time that a study will take, estimated from trials of a few kinds of its runs."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from vaelab.analysis.baseline import open_baseline
from vaelab.analysis.projections import compute_projection
from vaelab.analysis.registry import has_analysis
from vaelab.analysis.representation import flat_pixels
from vaelab.core.console import progress
from vaelab.core.devices import num_threads
from vaelab.core.jobs import Executor, results_or_raise
from vaelab.objectives.objective import Objective
from vaelab.runs.spec import Spec
from vaelab.studies.definition import Study
from vaelab.studies.plan import DataKey, PlannedRun, data_key, load_spec_dataset, required_analyses
from vaelab.training.budget import estimate_time

__all__ = ["estimate_seconds"]

PROJECTION_POINTS = 1000  # points whose projection is timed

WORKER_START_SECONDS = 4.0  # seconds that a worker process needs for its imports


def time_run(spec: Spec, device: str | None) -> tuple[float, float]:
    """About how many seconds an epoch takes, and the evaluation at the end of a run."""
    return estimate_time(spec, load_spec_dataset(spec), device=device, threads=1)


def time_projection(spec: Spec) -> float:
    """About how many seconds the features of a run take, from the projection of a part of the points."""
    baseline = open_baseline(load_spec_dataset(spec), spec.seed, Path())
    points = flat_pixels(baseline.test_images.evenly_spaced(PROJECTION_POINTS))
    with num_threads(1):
        start_time = time.monotonic()
        compute_projection(points, baseline.num_clusters)
        seconds = time.monotonic() - start_time
    return seconds * len(baseline.test_images) / len(points)


def cost_equivalent(spec: Spec) -> Spec:
    """A spec that takes as long, which is the same one for all specs that do."""
    return replace(spec, seed=0, lr=1e-4, objective=_cost_equivalent_objective(spec))


def _cost_equivalent_objective(spec: Spec) -> Objective:
    return spec.objective if spec.objective.num_samples > 1 else Spec().objective


def estimate_seconds(
    study: Study, planned_runs: Mapping[Spec, PlannedRun], executor: Executor, device: str | None = None
) -> float:
    """About how many seconds the missing runs and features of a study take, with all workers at work.

    Args:
        study: The study.
        planned_runs: Its runs, from `plan_runs`.
        executor: What will carry out the jobs; it also carries out the trials.
        device: The device to train on; the fastest there is if None.
    """
    missing = [planned for planned in planned_runs.values() if not planned.run.finished]
    without_features = _runs_without_features(study, planned_runs)
    trained_specs = list(dict.fromkeys(cost_equivalent(planned.spec) for planned in missing))
    projected_specs = {data_key(planned.spec): planned.spec for planned in without_features}
    jobs = [partial(time_run, spec, device) for spec in trained_specs]
    jobs += [partial(time_projection, spec) for spec in projected_specs.values()]
    values = _timed_values(jobs, executor)
    run_times = dict(zip(trained_specs, values, strict=False))
    projection_times = dict(zip(projected_specs, values[len(trained_specs) :], strict=True))
    seconds = 0.0
    for planned in missing:
        epoch_seconds, evaluation_seconds = run_times[cost_equivalent(planned.spec)]
        epochs = planned.spec.num_epochs(len(planned.dataset.splits["train"]))
        seconds += epochs * (1 - planned.fraction_done()) * epoch_seconds + evaluation_seconds
    seconds += _feature_seconds(without_features, projection_times)
    return WORKER_START_SECONDS * bool(jobs) + seconds / executor.max_workers


def _timed_values(jobs: Sequence[partial], executor: Executor) -> list:
    """The value of each job. All workers are kept busy meanwhile, as they will be in the study."""
    repeats = 1 if len(jobs) >= executor.max_workers else executor.max_workers
    values = [None] * len(jobs)
    repeated = list(jobs) * repeats
    with progress("timing", len(repeated)) as advance:
        for num_done, result in enumerate(results_or_raise(executor(repeated)), 1):
            values[result.job_index % len(jobs)] = result.value
            advance(num_done)
    return values


def _runs_without_features(study: Study, planned_runs: Mapping[Spec, PlannedRun]) -> list[PlannedRun]:
    """The runs whose features a study asks for and that do not have them yet."""
    runs = {}
    for trial in study.trials:
        planned = planned_runs[trial.spec]
        is_required = "features" in required_analyses(study.experiment(trial.experiment))
        if is_required and not has_analysis(planned.run, "features"):
            runs[planned.run.path] = planned
    return list(runs.values())


def _feature_seconds(runs: Sequence[PlannedRun], projection_times: Mapping[DataKey, float]) -> float:
    """Seconds for the features of runs, and for the two projections of the baseline of each data set and seed."""
    seconds = 0.0
    for planned in runs:
        seconds += projection_times[data_key(planned.spec)]
    baselines = {(data_key(planned.spec), planned.spec.seed) for planned in runs}
    for key, _ in baselines:
        seconds += 2 * projection_times[key]
    return seconds
