r"""Studying: a study is carried out as `make` builds, only what is missing.

    trials  ->  missing runs  ->  missing examinations  ->  results

Runs go to worker processes, one thread each. The results are a function of the study file and the data: the same bits
whatever the number of workers, and whether it was interrupted or not.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from vaelab.analysis.baseline import beside, reference
from vaelab.analysis.registry import examine, is_examined
from vaelab.core.console import notice, progress
from vaelab.core.devices import choose_device, using
from vaelab.core.errors import UserError
from vaelab.core.files import write_text
from vaelab.core.jobs import Crew
from vaelab.datasets.images import Dataset
from vaelab.datasets.loading import load
from vaelab.runs.run import Run
from vaelab.runs.spec import Spec, key
from vaelab.studies.definition import Experiment, Setting, Study
from vaelab.studies.parsing import read
from vaelab.studies.results import Outcome, Results, record
from vaelab.training.fit import fit
from vaelab.training.plan import choose_plan, multiply_adds
from vaelab.training.steps.compiled import NO_COMPILER, compiler

__all__ = ["Job", "carry_out_study", "data_of", "dataset_of", "gather", "jobs_of", "needed", "resume", "single"]

LOOK = 0.5  # seconds between two looks at how far the runs have come

NEEDS = {
    "features": "features",
    "classifier_features": "features",
    "interpolations": "interpolations",
    "path": "interpolations",
    "samples": "samples",
}  # the examinations that figures show

PICTURED = ("curves", "reconstructions", "samples", "interpolations", "features", "model")  # in the report of one run


@dataclass(frozen=True)
class Job:
    """A run of a study, once, whatever number of experiments asks for it."""

    spec: Spec
    run: Run
    cost: float  # multiply-adds of its whole training
    compiled: bool

    def done(self) -> float:
        """The part of its training that is behind."""
        if self.run.finished:
            return 1.0
        try:
            return (self.run.path / "history.jsonl").read_text(encoding="utf-8").count("\n") / self.spec.epochs
        except OSError:
            return 0.0


def dataset_of(spec: Spec) -> Dataset:
    return load(spec.data, **spec.loaded)


def jobs_of(study: Study, out: Path, device: str | None = None) -> dict[Spec, Job]:
    """The runs that a study asks for, each once, in the order in which they are wanted."""
    specs = dict.fromkeys(trial.spec for trial in study.trials)
    datasets = {data_of(spec): spec for spec in specs}
    loaded = {name: dataset_of(spec) for name, spec in datasets.items()}
    return {spec: _job(spec, loaded[data_of(spec)], out, device) for spec in specs}


def data_of(spec: Spec) -> tuple[Any, ...]:
    """What of a spec says which images it is trained on."""
    return (spec.data, *spec.loaded.values())


def _job(spec: Spec, dataset: Dataset, out: Path, device: str | None) -> Job:
    train = dataset.splits["train"]
    plan = choose_plan(spec, train, device, threads=1)
    run = Run(out / "runs" / key(spec, dataset.fingerprint, plan.precision))
    return Job(spec, run, multiply_adds(spec, train.shape) * len(train) * spec.epochs, plan.compiled)


# What workers do: functions of plain values, in a process of their own.


def train(specs: Sequence[Spec], out: Path, device: str | None) -> tuple[int, dict[str, str]]:
    """Train runs on the same data where they are missing; gives how many images they saw, and what failed, by key."""
    failures: dict[str, str] = {}
    runs = fit(specs, dataset_of(specs[0]), out / "runs", device=device, threads=1, snapshots=(), failures=failures)
    return sum(run.images_trained for run in runs), failures


def refer(spec: Spec, features: bool, out: Path) -> None:
    """Make what a run is held against, before several need it at once."""
    with using(1):
        against = reference(dataset_of(spec), spec.seed, out / "references")
        _ = against.views if features else against.classifier


def examine_one(run: Path, names: Sequence[str], spec: Spec, out: Path) -> None:
    """Carry out the examinations of a run that are missing."""
    with using(1):
        against = reference(dataset_of(spec), spec.seed, out / "references")
        for name in names:
            examine(Run(run), name, against)


# The study.


def carry_out_study(
    study: Study, jobs: Mapping[Spec, Job], out: Path, crew: Crew, device: str | None = None
) -> tuple[Results, int]:
    """Train and examine what is missing; gives what all came to and the number of images trained on now."""
    if choose_device(device) != "cpu":
        crew = crew._replace(workers=1)  # runs share one device, one after another
    failed: dict[str, str] = {}
    missing = [job for job in jobs.values() if not job.run.finished]
    images, groups = 0, grouped(missing, device)
    if any(job.compiled for job in missing) and not compiler():
        notice(NO_COMPILER)  # workers are not heard
    with overall(list(jobs.values()), missing, crew.workers):
        for result in crew([partial(train, [job.spec for job in group], out, device) for group in groups]):
            trained, failures = result.value or (0, {})
            images += trained
            for job in groups[result.job]:
                if not job.run.finished:
                    note_failure(job, result.error or failures.get(job.run.key), result.log, failed)
    examine_missing(study, jobs, out, crew, failed)
    return gather(study, jobs, failed), images


def grouped(jobs: Sequence[Job], device: str | None) -> list[list[Job]]:
    """Runs that one worker trains: each by itself on a CPU; elsewhere all on the same data, which may be stacked."""
    if choose_device(device) == "cpu":
        return [[job] for job in jobs]
    groups: dict[tuple[Any, ...], list[Job]] = {}
    for job in jobs:
        groups.setdefault(data_of(job.spec), []).append(job)
    return list(groups.values())


def note_failure(job: Job, error: str | None, log: str, failed: dict[str, str]) -> None:
    """Remember what went wrong with a run, if anything; what was said on the way is kept beside it."""
    if error:
        failed[job.run.key] = error
        write_text(job.run.path / "failure.log", f"{error}\n{log}")


def examine_missing(study: Study, jobs: Mapping[Spec, Job], out: Path, crew: Crew, failed: dict[str, str]) -> None:
    """The examinations that figures and claims ask for, of the runs that are finished."""
    wanted: dict[Job, list[str]] = {}
    for trial in study.trials:
        job = jobs[trial.spec]
        names = needed(study.experiment(trial.experiment))
        if job.run.finished:
            there = wanted.setdefault(job, [])
            there += [n for n in names if n not in there and not is_examined(job.run, n)]
    left = [job for job, names in wanted.items() if names]
    if not left:
        return
    data: dict[tuple[Any, ...], tuple[Spec, bool]] = {}
    for job in left:
        name = (*data_of(job.spec), job.spec.seed)
        data[name] = job.spec, "features" in wanted[job] or data.get(name, (None, False))[1]
    notice(f"examining {len(left)} runs and what they are held against")
    with progress("examining", len(left) + len(data)) as advance:
        calls = [partial(refer, spec, features, out) for spec, features in data.values()]
        for done, result in enumerate(crew(calls), 1):
            if result.error:
                raise UserError(result.error) if result.mendable else RuntimeError(f"{result.error}\n{result.log}")
            advance(done, "what runs are held against")
        calls = [partial(examine_one, job.run.path, wanted[job], job.spec, out) for job in left]
        for done, result in enumerate(crew(calls), 1 + len(data)):
            note_failure(left[result.job], result.error, result.log, failed)
            advance(done, f"{done - len(data)} of {len(left)} runs")


def needed(experiment: Experiment) -> list[str]:
    """The examinations that an experiment asks for."""
    figures = [NEEDS[name] for name in experiment.figures if name in NEEDS]
    claims = [name for claim in experiment.claims for m in claim.measure for name in sorted(m.examinations)]
    return list(dict.fromkeys([*figures, *claims]))


def gather(study: Study, jobs: Mapping[Spec, Job], failed: Mapping[str, str]) -> Results:
    """What the runs of a study have come to so far."""
    found: dict[tuple[str, str, str], dict[int, Run]] = {}
    for trial in study.trials:
        run = jobs[trial.spec].run
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
    return Results(study, tuple(outcomes), failed)


def resume(folder: Path, crew: Crew) -> Results:
    """What a study in its folder has come to, with the examinations that are missing; nothing is trained."""
    study, out = replace(read(folder / "study.toml"), name=folder.name), folder.parent.parent
    failed: dict[str, str] = {}
    jobs = jobs_of(study, out)
    examine_missing(study, jobs, out, crew, failed)
    return gather(study, jobs, failed)


def single(run: Run, workers: int) -> Results:
    """One run as a study of itself, with all figures."""
    setting = Setting("", {}, {})
    experiment = Experiment("run", f"Run {run.key}", settings=(setting,), readings=("",), figures=PICTURED)
    study = Study(run.key, f"Run {run.key}", "", run.spec.data, {}, {"": {}}, (run.spec.seed,), (experiment,))
    names = needed(experiment)
    with progress("examining", len(names)) as advance, using(1):
        against = reference(run.dataset, run.spec.seed, beside(run))
        for done, name in enumerate(names, 1):
            if not is_examined(run, name):
                examine(run, name, against)
            advance(done, name)
    outcome = Outcome(experiment, "", setting, {run.spec.seed: run}, {run.spec.seed: record(run)})
    return Results(study, (outcome,), {})


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
