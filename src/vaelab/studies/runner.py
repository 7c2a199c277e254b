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

from vaelab.analysis.baseline import baseline_dir, open_baseline
from vaelab.analysis.registry import has_analysis, run_analysis
from vaelab.core.console import notice, progress
from vaelab.core.devices import choose_device, num_threads
from vaelab.core.errors import UserError
from vaelab.core.files import write_text
from vaelab.core.jobs import Executor
from vaelab.datasets.images import Dataset
from vaelab.datasets.loading import load_dataset
from vaelab.runs.run import Run
from vaelab.runs.spec import Spec, run_key
from vaelab.studies.definition import Experiment, Setting, Study
from vaelab.studies.parsing import read_study
from vaelab.studies.results import SettingResult, StudyResults, read_record
from vaelab.training.fit import fit
from vaelab.training.plan import choose_plan, count_multiply_adds
from vaelab.training.steps.compiled import NO_COMPILER, find_compiler

__all__ = [
    "PlannedRun",
    "collect_results",
    "data_key",
    "load_spec_dataset",
    "plan_runs",
    "required_analyses",
    "resume_study",
    "run_study",
    "single_run_study",
]

PROGRESS_SECONDS = 0.5  # seconds between two looks at how far the runs have come

FIGURE_ANALYSES = {
    "features": "features",
    "classifier_features": "features",
    "interpolations": "interpolations",
    "path": "interpolations",
    "samples": "samples",
}  # the examinations that figures show

SINGLE_RUN_FIGURES = (
    "curves",
    "reconstructions",
    "samples",
    "interpolations",
    "features",
    "model",
)  # in the report of one run


@dataclass(frozen=True)
class PlannedRun:
    """A run of a study, once, whatever number of experiments asks for it."""

    spec: Spec
    run: Run
    cost: float  # multiply-adds of its whole training
    compiled: bool

    def fraction_done(self) -> float:
        """The part of its training that is behind."""
        if self.run.finished:
            return 1.0
        try:
            return (self.run.path / "history.jsonl").read_text(encoding="utf-8").count("\n") / self.spec.epochs
        except OSError:
            return 0.0


def load_spec_dataset(spec: Spec) -> Dataset:
    return load_dataset(spec.data, **spec.data_settings)


def plan_runs(study: Study, out: Path, device: str | None = None) -> dict[Spec, PlannedRun]:
    """The runs that a study asks for, each once, in the order in which they are wanted."""
    specs = dict.fromkeys(trial.spec for trial in study.trials)
    datasets = {data_key(spec): spec for spec in specs}
    loaded = {name: load_spec_dataset(spec) for name, spec in datasets.items()}
    return {spec: _plan_run(spec, loaded[data_key(spec)], out, device) for spec in specs}


def data_key(spec: Spec) -> tuple[Any, ...]:
    """What of a spec says which images it is trained on."""
    return (spec.data, *spec.data_settings.values())


def _plan_run(spec: Spec, dataset: Dataset, out: Path, device: str | None) -> PlannedRun:
    train = dataset.splits["train"]
    plan = choose_plan(spec, train, device, threads=1)
    run = Run(out / "runs" / run_key(spec, dataset.fingerprint, plan.precision))
    return PlannedRun(spec, run, count_multiply_adds(spec, train.shape) * len(train) * spec.epochs, plan.compiled)


# What workers do: functions of plain values, in a process of their own.


def train_runs(specs: Sequence[Spec], out: Path, device: str | None) -> tuple[int, dict[str, str]]:
    """Train runs on the same data where they are missing; gives how many images they saw, and what failed, by key."""
    failures: dict[str, str] = {}
    runs = fit(
        specs, load_spec_dataset(specs[0]), out / "runs", device=device, threads=1, snapshots=(), failures=failures
    )
    return sum(run.images_trained for run in runs), failures


def prepare_baseline(spec: Spec, features: bool, out: Path) -> None:
    """Make what a run is held against, before several need it at once."""
    with num_threads(1):
        against = open_baseline(load_spec_dataset(spec), spec.seed, out / "references")
        _ = against.projections if features else against.classifier


def analyse_run(run: Path, names: Sequence[str], spec: Spec, out: Path) -> None:
    """Carry out the examinations of a run that are missing."""
    with num_threads(1):
        against = open_baseline(load_spec_dataset(spec), spec.seed, out / "references")
        for name in names:
            run_analysis(Run(run), name, against)


# The study.


def run_study(
    study: Study, jobs: Mapping[Spec, PlannedRun], out: Path, executor: Executor, device: str | None = None
) -> tuple[StudyResults, int]:
    """Train and examine what is missing; gives what all came to and the number of images trained on now."""
    if choose_device(device) != "cpu":
        executor = executor._replace(max_workers=1)  # runs share one device, one after another
    failed: dict[str, str] = {}
    missing = [job for job in jobs.values() if not job.run.finished]
    images, groups = 0, group_runs(missing, device)
    if any(job.compiled for job in missing) and not find_compiler():
        notice(NO_COMPILER)  # workers are not heard
    with overall_progress(list(jobs.values()), missing, executor.max_workers):
        for result in executor([partial(train_runs, [job.spec for job in group], out, device) for group in groups]):
            trained, failures = result.value or (0, {})
            images += trained
            for job in groups[result.job_index]:
                if not job.run.finished:
                    record_failure(job, result.error or failures.get(job.run.key), result.log, failed)
    run_missing_analyses(study, jobs, out, executor, failed)
    return collect_results(study, jobs, failed), images


def group_runs(jobs: Sequence[PlannedRun], device: str | None) -> list[list[PlannedRun]]:
    """Runs that one worker trains: each by itself on a CPU; elsewhere all on the same data, which may be stacked."""
    if choose_device(device) == "cpu":
        return [[job] for job in jobs]
    groups: dict[tuple[Any, ...], list[PlannedRun]] = {}
    for job in jobs:
        groups.setdefault(data_key(job.spec), []).append(job)
    return list(groups.values())


def record_failure(job: PlannedRun, error: str | None, log: str, failed: dict[str, str]) -> None:
    """Remember what went wrong with a run, if anything; what was said on the way is kept beside it."""
    if error:
        failed[job.run.key] = error
        write_text(job.run.path / "failure.log", f"{error}\n{log}")


def run_missing_analyses(
    study: Study, jobs: Mapping[Spec, PlannedRun], out: Path, executor: Executor, failed: dict[str, str]
) -> None:
    """The examinations that figures and claims ask for, of the runs that are finished."""
    wanted: dict[PlannedRun, list[str]] = {}
    for trial in study.trials:
        job = jobs[trial.spec]
        names = required_analyses(study.experiment(trial.experiment))
        if job.run.finished:
            there = wanted.setdefault(job, [])
            there += [n for n in names if n not in there and not has_analysis(job.run, n)]
    left = [job for job, names in wanted.items() if names]
    if not left:
        return
    data: dict[tuple[Any, ...], tuple[Spec, bool]] = {}
    for job in left:
        name = (*data_key(job.spec), job.spec.seed)
        data[name] = job.spec, "features" in wanted[job] or data.get(name, (None, False))[1]
    notice(f"examining {len(left)} runs and what they are held against")
    with progress("examining", len(left) + len(data)) as advance:
        calls = [partial(prepare_baseline, spec, features, out) for spec, features in data.values()]
        for done, result in enumerate(executor(calls), 1):
            if result.error:
                raise UserError(result.error) if result.is_user_error else RuntimeError(f"{result.error}\n{result.log}")
            advance(done, "what runs are held against")
        calls = [partial(analyse_run, job.run.path, wanted[job], job.spec, out) for job in left]
        for done, result in enumerate(executor(calls), 1 + len(data)):
            record_failure(left[result.job_index], result.error, result.log, failed)
            advance(done, f"{done - len(data)} of {len(left)} runs")


def required_analyses(experiment: Experiment) -> list[str]:
    """The examinations that an experiment asks for."""
    figures = [FIGURE_ANALYSES[name] for name in experiment.figures if name in FIGURE_ANALYSES]
    claims = [name for claim in experiment.claims for m in claim.quantities for name in sorted(m.required_analyses)]
    return list(dict.fromkeys([*figures, *claims]))


def collect_results(study: Study, jobs: Mapping[Spec, PlannedRun], failed: Mapping[str, str]) -> StudyResults:
    """What the runs of a study have come to so far."""
    found: dict[tuple[str, str, str], dict[int, Run]] = {}
    for trial in study.trials:
        run = jobs[trial.spec].run
        runs = found.setdefault((trial.experiment, trial.condition, trial.setting.name), {})
        if run.finished:
            runs[trial.spec.seed] = run
    recorded = {run.path: read_record(run) for runs in found.values() for run in runs.values()}
    outcomes = []
    for e in study.experiments:
        for reading in e.conditions:
            for setting in e.settings:
                runs = found[e.id, reading, setting.name]
                records = {seed: recorded[run.path] for seed, run in runs.items()}
                outcomes.append(SettingResult(e, reading, setting, runs, records))
    return StudyResults(study, tuple(outcomes), failed)


def resume_study(folder: Path, executor: Executor) -> StudyResults:
    """What a study in its folder has come to, with the examinations that are missing; nothing is trained."""
    study, out = replace(read_study(folder / "study.toml"), name=folder.name), folder.parent.parent
    failed: dict[str, str] = {}
    jobs = plan_runs(study, out)
    run_missing_analyses(study, jobs, out, executor, failed)
    return collect_results(study, jobs, failed)


def single_run_study(run: Run, workers: int) -> StudyResults:
    """One run as a study of itself, with all figures."""
    setting = Setting("", {}, {})
    experiment = Experiment("run", f"Run {run.key}", settings=(setting,), conditions=("",), figures=SINGLE_RUN_FIGURES)
    study = Study(run.key, f"Run {run.key}", "", run.spec.data, {}, {"": {}}, (run.spec.seed,), (experiment,))
    names = required_analyses(experiment)
    with progress("examining", len(names)) as advance, num_threads(1):
        against = open_baseline(run.dataset, run.spec.seed, baseline_dir(run))
        for done, name in enumerate(names, 1):
            if not has_analysis(run, name):
                run_analysis(run, name, against)
            advance(done, name)
    outcome = SettingResult(experiment, "", setting, {run.spec.seed: run}, {run.spec.seed: read_record(run)})
    return StudyResults(study, (outcome,), {})


@contextmanager
def overall_progress(jobs: Sequence[PlannedRun], missing: Sequence[PlannedRun], workers: int) -> Iterator[None]:
    """Show how far all runs have come, by the multiply-adds that are behind, until the block ends."""
    total, ended = sum(job.cost for job in jobs), threading.Event()

    def behind() -> int:
        return int(1e6 * sum(job.cost * job.fraction_done() for job in jobs) / total)

    def watch() -> None:
        while not ended.wait(PROGRESS_SECONDS):
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
