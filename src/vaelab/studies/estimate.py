"""How long a study will take."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from vaelab.analysis.baseline import reference
from vaelab.analysis.projections import panels
from vaelab.analysis.registry import is_examined
from vaelab.analysis.representation import pixels
from vaelab.core.console import progress
from vaelab.core.devices import using
from vaelab.core.errors import UserError
from vaelab.core.jobs import Crew
from vaelab.objectives.objective import Objective
from vaelab.runs.spec import Spec
from vaelab.studies.definition import Study
from vaelab.studies.runner import Job, data_of, dataset_of, needed
from vaelab.training.budget import forecast

__all__ = ["estimate"]

GLANCED = 1000  # points from whose views those of all are estimated

START = 4.0  # seconds in which a worker process has imported what it needs


def forecast_one(spec: Spec, device: str | None) -> tuple[float, float]:
    return forecast(spec, dataset_of(spec), device=device, threads=1)


def glance(spec: Spec) -> float:
    """About how many seconds it takes to look at the features of a run: from those of a tenth of the points."""
    against = reference(dataset_of(spec), spec.seed, Path())
    points = pixels(against.tested.spread(GLANCED))
    with using(1):
        begun = time.monotonic()
        panels(points, against.clusters)
    return (time.monotonic() - begun) * len(against.tested) / len(points)


def equally_long(spec: Spec) -> Objective:
    """An objective that takes as long as the spec's, the same one for all that do."""
    return spec.objective if spec.objective.samples > 1 else Spec().objective


def estimate(study: Study, jobs: Mapping[Spec, Job], crew: Crew, device: str | None = None) -> float:
    """About how many seconds the missing runs and features take, from some of each kind, all workers at work."""
    missing = [job for job in jobs.values() if not job.run.finished]
    alike = {job: replace(job.spec, seed=0, lr=1e-4, objective=equally_long(job.spec)) for job in missing}
    featured = [jobs[t.spec] for t in study.trials if "features" in needed(study.experiment(t.experiment))]
    featured = [job for job in dict.fromkeys(featured) if not is_examined(job.run, "features")]
    trained, looked = list(dict.fromkeys(alike.values())), {data_of(job.spec): job.spec for job in featured}
    calls = [partial(forecast_one, spec, device) for spec in trained] + [partial(glance, s) for s in looked.values()]
    calls *= 1 if len(calls) >= crew.workers else crew.workers  # as in the study, each beside others
    found: dict[int, Any] = {}
    with progress("trying out", len(calls)) as advance:
        for done, result in enumerate(crew(calls), 1):
            if result.error:
                raise UserError(result.error) if result.mendable else RuntimeError(f"{result.error}\n{result.log}")
            found[result.job % (len(trained) + len(looked))] = result.value
            advance(done)
    total = 0.0
    for job in missing:
        epoch, end = found[trained.index(alike[job])]
        total += job.spec.epochs * (1 - job.done()) * epoch + end
    for job in featured:
        total += found[len(trained) + list(looked).index(data_of(job.spec))]
    for name, spec in looked.items():  # pixels and a classifier's features, for each seed
        seeds = {job.spec.seed for job in featured if data_of(job.spec) == name}
        total += 2 * len(seeds) * found[len(trained) + list(looked).index(data_of(spec))]
    return START * bool(calls) + total / crew.workers
