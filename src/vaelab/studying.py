r"""Studying: a study is carried out like `make` builds, only what is missing.

    trials  ->  the runs that are missing, in worker processes  ->  their examinations  ->  table, claims, timings

Everything but the timings is a function of the study file and the data: the same bytes whatever the number of workers,
and whether it was interrupted or not.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

from vaelab.console import progress
from vaelab.images import Dataset
from vaelab.loading import load
from vaelab.plan import choose_plan, multiply_adds
from vaelab.protocol import Study
from vaelab.results import Outcome, Results, record
from vaelab.spec import Spec, key
from vaelab.store import Run
from vaelab.training import LOADED, fit
from vaelab.workers import carry_out

__all__ = ["Job", "gather", "jobs_of", "train_missing"]

LOOK = 0.5  # seconds between two looks at how far the runs have come


@dataclass(frozen=True)
class Job:
    """A run of a study, once, whatever number of experiments asks for it."""

    spec: Spec
    run: Run
    images: int  # in an epoch of training
    cost: float  # multiply-adds of its whole training

    def done(self) -> float:
        """The part of its training that is behind."""
        if self.run.finished:
            return 1.0
        file = self.run.path / "history.jsonl"
        try:
            return file.read_text(encoding="utf-8").count("\n") / self.spec.epochs
        except OSError:
            return 0.0


@cache
def images_of(data: str, **loaded: Any) -> Dataset:
    """A data set, loaded once in a process."""
    return load(data, **loaded)


def dataset_of(spec: Spec) -> Dataset:
    return images_of(spec.data, **{name: getattr(spec, name) for name in LOADED})


def jobs_of(study: Study, out: Path, device: str | None = None) -> list[Job]:
    """The runs that a study asks for, each once, in the order in which they are wanted."""
    return list(dict.fromkeys(job_of(trial.spec, out, device) for trial in study.trials))


@cache
def job_of(spec: Spec, out: Path, device: str | None) -> Job:
    dataset = dataset_of(spec)
    train = dataset.splits["train"]
    plan = choose_plan(spec, train.shape, device, threads=1)
    run = Run(out / "runs" / key(spec, dataset.fingerprint, plan.precision))
    return Job(spec, run, len(train), multiply_adds(spec, train.shape) * len(train) * spec.epochs)


def train_job(spec: Spec, out: Path, device: str | None) -> tuple[str | None, int]:
    """Train one run where it is missing; gives its outcome and how many images it was trained on."""
    [run] = fit([spec], dataset_of(spec), out / "runs", device=device, threads=1, snapshots=())
    return run.outcome, run.images_trained


def train_missing(jobs: Sequence[Job], out: Path, workers: int, device: str | None) -> dict[int, str]:
    """Carry out the runs that are missing; gives what went wrong, by the position of the job."""
    missing = [job for job in jobs if not job.run.finished]
    failed = {}
    with overall(jobs, missing, workers):
        calls = [partial(train_job, job.spec, out, device) for job in missing]
        for result in carry_out(calls, workers):
            if result.error:
                failed[jobs.index(missing[result.index])] = result.error
    return failed


def gather(study: Study, out: Path, device: str | None = None, failed: Mapping[str, str] | None = None) -> Results:
    """What the runs of a study have come to so far."""
    found: dict[tuple[str, str, str], dict[int, Run]] = {}
    for trial in study.trials:
        run = job_of(trial.spec, out, device).run
        runs = found.setdefault((trial.experiment, trial.reading, trial.setting.name), {})
        if run.finished:
            runs[trial.spec.seed] = run
    recorded = {run.path: record(run) for runs in found.values() for run in runs.values()}
    outcomes = []
    for e in study.experiments:
        for reading in e.readings:
            for setting in e.settings:
                runs = found[e.id, reading, setting.name]
                records = {seed: recorded[run.path] for seed, run in runs.items()}
                outcomes.append(Outcome(e, reading, setting, runs, records))
    return Results(study, tuple(outcomes), failed or {})


@contextmanager
def overall(jobs: Sequence[Job], missing: Sequence[Job], workers: int) -> Iterator[None]:
    """Show how far all runs have come, by the multiply-adds that are behind, until the block ends."""
    total, ended = sum(job.cost for job in jobs), threading.Event()

    def behind() -> int:
        return int(1e6 * sum(job.cost * job.done() for job in jobs) / total)

    def watch() -> None:
        while not ended.wait(LOOK):
            finished = sum(job.run.finished for job in missing)
            running = min(workers, len(missing) - finished)
            advance(behind(), f"{len(jobs) - len(missing) + finished} of {len(jobs)} runs done, {running} running")

    if not missing:
        yield
        return
    with progress("training", 10**6, behind()) as advance:
        watcher = threading.Thread(target=watch, daemon=True)
        watcher.start()
        try:
            yield
        finally:
            ended.set()
            watcher.join()
