"""How long a study will take."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from vaelab.analysis.baseline import open_baseline
from vaelab.analysis.projections import compute_projection
from vaelab.analysis.registry import has_analysis
from vaelab.analysis.representation import flat_pixels
from vaelab.core.console import progress
from vaelab.core.devices import num_threads
from vaelab.core.errors import UserError
from vaelab.core.jobs import Executor
from vaelab.objectives.objective import Objective
from vaelab.runs.spec import Spec
from vaelab.studies.definition import Study
from vaelab.studies.runner import PlannedRun, data_key, load_spec_dataset, required_analyses
from vaelab.training.budget import estimate_time

__all__ = ["estimate_seconds"]

PROJECTION_POINTS = 1000  # points from whose views those of all are estimated

WORKER_START_SECONDS = 4.0  # seconds in which a worker process has imported what it needs


def forecast_run(spec: Spec, device: str | None) -> tuple[float, float]:
    return estimate_time(spec, load_spec_dataset(spec), device=device, threads=1)


def time_projection(spec: Spec) -> float:
    """About how many seconds it takes to look at the features of a run: from those of a tenth of the points."""
    against = open_baseline(load_spec_dataset(spec), spec.seed, Path())
    points = flat_pixels(against.test_images.evenly_spaced(PROJECTION_POINTS))
    with num_threads(1):
        begun = time.monotonic()
        compute_projection(points, against.num_clusters)
    return (time.monotonic() - begun) * len(against.test_images) / len(points)


def cost_equivalent(spec: Spec) -> Objective:
    """An objective that takes as long as the spec's, the same one for all that do."""
    return spec.objective if spec.objective.num_samples > 1 else Spec().objective


def estimate_seconds(
    study: Study, jobs: Mapping[Spec, PlannedRun], executor: Executor, device: str | None = None
) -> float:
    """About how many seconds the missing runs and features take, from some of each kind, all workers at work."""
    missing = [job for job in jobs.values() if not job.run.finished]
    alike = {job: replace(job.spec, seed=0, lr=1e-4, objective=cost_equivalent(job.spec)) for job in missing}
    featured = [jobs[t.spec] for t in study.trials if "features" in required_analyses(study.experiment(t.experiment))]
    featured = [job for job in dict.fromkeys(featured) if not has_analysis(job.run, "features")]
    trained, looked = list(dict.fromkeys(alike.values())), {data_key(job.spec): job.spec for job in featured}
    calls = [partial(forecast_run, spec, device) for spec in trained] + [
        partial(time_projection, s) for s in looked.values()
    ]
    calls *= 1 if len(calls) >= executor.max_workers else executor.max_workers  # as in the study, each beside others
    found: dict[int, Any] = {}
    with progress("trying out", len(calls)) as advance:
        for done, result in enumerate(executor(calls), 1):
            if result.error:
                raise UserError(result.error) if result.is_user_error else RuntimeError(f"{result.error}\n{result.log}")
            found[result.job_index % (len(trained) + len(looked))] = result.value
            advance(done)
    total = 0.0
    for job in missing:
        epoch, end = found[trained.index(alike[job])]
        total += job.spec.epochs * (1 - job.fraction_done()) * epoch + end
    for job in featured:
        total += found[len(trained) + list(looked).index(data_key(job.spec))]
    for name, spec in looked.items():  # pixels and a classifier's features, for each seed
        seeds = {job.spec.seed for job in featured if data_key(job.spec) == name}
        total += 2 * len(seeds) * found[len(trained) + list(looked).index(data_key(spec))]
    return WORKER_START_SECONDS * bool(calls) + total / executor.max_workers
