r"""The runner: a study is carried out as `make` builds, so that only what is missing is made.

    trials -> missing runs -> missing analyses -> results

Runs go to worker processes, one thread each. The results follow from the study file and the data alone: the same bytes
with any number of workers, and whether the study was interrupted or not.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from vaelab.analysis.baseline import baseline_dir, open_baseline
from vaelab.analysis.registry import has_analysis, run_analysis
from vaelab.core.console import count_text, notice, progress
from vaelab.core.devices import choose_device, num_threads
from vaelab.core.errors import UserError
from vaelab.core.files import write_text
from vaelab.core.jobs import Executor, JobResult, results_or_raise
from vaelab.runs.run import Run, lock_run
from vaelab.runs.spec import Spec
from vaelab.runs.summary import run_title
from vaelab.studies.definition import Cell, Experiment, Setting, Study
from vaelab.studies.health import SickRun, diverged_run
from vaelab.studies.lock import is_trained_elsewhere, wait_until_free
from vaelab.studies.looks import num_open_claims, with_next_look
from vaelab.studies.parsing import Overrides, read_study, with_overrides
from vaelab.studies.plan import (
    DataKey,
    PlannedRun,
    data_key,
    group_runs,
    load_spec_dataset,
    missing_analyses,
    plan_runs,
    required_analyses,
)
from vaelab.studies.quantities import RunRecord
from vaelab.studies.results import SettingResult, StudyResults, read_record
from vaelab.training.fit import plan_jobs, train_jobs
from vaelab.training.steps.program_cache import NO_COMPILER, find_compiler

__all__ = ["collect_results", "resume_study", "run_study", "single_run_study"]

PROGRESS_SECONDS = 0.5  # seconds between two updates of the progress of all runs

BASELINE_ANALYSES = {"features", "interpolations", "samples"}  # analyses that compare with a classifier

SINGLE_RUN_FIGURES = ("curves", "reconstructions", "samples", "interpolations", "features", "model")


@dataclass(frozen=True)
class RunFailure:
    """What went wrong with a run, and what was printed on the way."""

    error: str
    log: str = ""


Failures = dict[str, RunFailure]  # by the key of the run


@dataclass(frozen=True)
class TrainingOutcome:
    """What training the missing runs of a study came to."""

    images_trained: int = 0
    failures: Failures = field(default_factory=dict)


# What workers do: functions of plain values, in a process of their own


def train_runs(specs: Sequence[Spec], out: Path, device: str | None) -> TrainingOutcome:
    """Train runs on the same data where they are missing."""
    jobs = plan_jobs(specs, load_spec_dataset(specs[0]), out / "runs", device=device, threads=1)
    for job in jobs:
        wait_until_free(job.run)
    result = train_jobs(jobs, snapshots=())
    failures = {key: RunFailure(str(error)) for key, error in result.failures.items()}
    return TrainingOutcome(sum(run.images_trained for run in result.runs), failures)


def prepare_baseline(spec: Spec, needs_projections: bool, out: Path) -> None:
    """Make the baseline of some runs, before several of them need it at once."""
    with num_threads(1):
        baseline = open_baseline(load_spec_dataset(spec), spec.seed, out / "references")
        _ = baseline.projections if needs_projections else baseline.classifier


def analyse_run(run: Path, names: Sequence[str], spec: Spec, out: Path) -> None:
    """Carry out the missing analyses of a run."""
    with num_threads(1):
        baseline = open_baseline(load_spec_dataset(spec), spec.seed, out / "references")
        for name in names:
            run_analysis(Run(run), name, baseline)


# The study


def run_study(
    study: Study,
    planned_runs: Mapping[Spec, PlannedRun],
    out: Path,
    executor: Executor,
    device: str | None = None,
) -> StudyResults:
    """Train and analyse what is missing of a study, and add seeds where it is to decide its claims.

    Args:
        study: The study.
        planned_runs: Its runs, from `plan_runs`.
        out: The folder that has or receives runs/ and references/.
        executor: What carries out the jobs.
        device: The device to train on; the fastest there is if None.

    Returns:
        What all runs came to; those that failed are named.
    """
    if choose_device(device) != "cpu":
        executor = executor._replace(max_workers=1)  # runs share one device, one after another
    failures: Failures = {}
    images_trained = 0
    while True:
        sound = {spec: planned for spec, planned in planned_runs.items() if planned.run.key not in failures}
        outcome = train_missing_runs(sound, out, executor, device)
        failures |= outcome.failures
        failures |= run_missing_analyses(study, planned_runs, out, executor)
        images_trained += outcome.images_trained
        write_failure_logs(planned_runs, failures)
        remove_left_states(planned_runs)
        results = collect_results(study, planned_runs, failures, images_trained)
        extended = with_next_look(results)
        if extended is None:
            return results
        study, planned_runs = extended, plan_runs(extended, out, device, planned_runs)
        _announce_look(results, planned_runs, failures)


def _announce_look(results: StudyResults, planned_runs: Mapping[Spec, PlannedRun], failures: Failures) -> None:
    """Say how many claims are open, and what is trained to decide them."""
    missing = sum(not p.run.finished and p.run.key not in failures for p in planned_runs.values())
    open_claims = count_text(num_open_claims(results), "claim")
    notice(f"{open_claims} still open: one seed more for their settings, {count_text(missing, 'run')} to train")


def train_missing_runs(
    planned_runs: Mapping[Spec, PlannedRun], out: Path, executor: Executor, device: str | None
) -> TrainingOutcome:
    """Train the runs of a study that are not finished."""
    missing = [planned for planned in planned_runs.values() if not planned.run.finished]
    groups = group_runs(missing, device)
    if any(planned.compiled for planned in missing) and not find_compiler():
        notice(NO_COMPILER)  # what workers print is not seen
    shared = [planned for planned in missing if is_trained_elsewhere(planned.run)]
    if shared:
        notice(f"{count_text(len(shared), 'run')} under way in another process: this study waits for them")
    images_trained = 0
    failures: Failures = {}
    jobs = [partial(train_runs, [planned.spec for planned in group], out, device) for group in groups]
    with overall_progress(list(planned_runs.values()), missing, executor.max_workers):
        for result in executor(jobs):
            outcome = _training_outcome(result, groups[result.job_index])
            images_trained += outcome.images_trained
            failures |= outcome.failures
    return TrainingOutcome(images_trained, failures)


def _training_outcome(result: JobResult, group: Sequence[PlannedRun]) -> TrainingOutcome:
    """What one job of training came to. An error of the job is one of all runs that it left unfinished."""
    if result.error is None:
        outcome: TrainingOutcome = result.value
        failures = {key: replace(failure, log=result.log) for key, failure in outcome.failures.items()}
        return replace(outcome, failures=failures)
    failure = RunFailure(result.error, result.log)
    return TrainingOutcome(0, {planned.run.key: failure for planned in group if not planned.run.finished})


def run_missing_analyses(
    study: Study, planned_runs: Mapping[Spec, PlannedRun], out: Path, executor: Executor
) -> Failures:
    """Carry out the analyses that figures and claims ask for, of the runs that are finished.

    Returns:
        What went wrong, by the key of the run.
    """
    missing = missing_analyses(study, planned_runs)
    if not missing:
        return {}
    baselines = _required_baselines(missing)
    notice(f"analysing {count_text(len(missing), 'run')} and the baselines")
    failures: Failures = {}
    with progress("analysing", len(missing) + len(baselines)) as advance:
        jobs = [partial(prepare_baseline, spec, projections, out) for spec, projections in baselines]
        for num_done, _ in enumerate(results_or_raise(executor(jobs)), 1):
            advance(num_done, "baselines")
        runs = list(missing)
        jobs = [partial(analyse_run, planned.run.path, missing[planned], planned.spec, out) for planned in runs]
        for num_done, result in enumerate(executor(jobs), 1):
            if result.error:
                failures[runs[result.job_index].run.key] = RunFailure(result.error, result.log)
            advance(len(baselines) + num_done, f"{num_done} of {count_text(len(runs), 'run')}")
    return failures


def _required_baselines(missing: Mapping[PlannedRun, Sequence[str]]) -> list[tuple[Spec, bool]]:
    """A spec for each data set and seed of runs to analyse, and whether projections are needed."""
    specs: dict[tuple[DataKey, int], Spec] = {}
    needs_projections: dict[tuple[DataKey, int], bool] = {}
    for planned, names in missing.items():
        if not BASELINE_ANALYSES & set(names):
            continue
        key = data_key(planned.spec), planned.spec.seed
        specs[key] = planned.spec
        needs_projections[key] = needs_projections.get(key, False) or "features" in names
    return [(spec, needs_projections[key]) for key, spec in specs.items()]


def write_failure_logs(planned_runs: Mapping[Spec, PlannedRun], failures: Failures) -> None:
    """Write failure.log into the folder of each run that failed, and remove those of earlier failures."""
    for planned in planned_runs.values():
        file = planned.run.path / "failure.log"
        failure = failures.get(planned.run.key)
        if failure:
            write_text(file, f"{failure.error}\n{failure.log}")
        elif planned.run.finished:
            with suppress(OSError):  # it is of no use any more, and does no harm
                file.unlink(missing_ok=True)


def remove_left_states(planned_runs: Mapping[Spec, PlannedRun]) -> None:
    """Remove the states of finished runs that could not be removed when they ended."""
    for planned in planned_runs.values():
        if planned.run.finished and (planned.run.path / "state").exists():
            with suppress(UserError), lock_run(planned.run):  # another process does it, or the next study will
                pass


def collect_results(
    study: Study,
    planned_runs: Mapping[Spec, PlannedRun],
    failures: Failures | None = None,
    images_trained: int = 0,
) -> StudyResults:
    """What the runs of a study have come to so far.

    Args:
        study: The study.
        planned_runs: Its runs, by spec.
        failures: What went wrong so far, by the key of the run.
        images_trained: How many images were trained on now.

    Returns:
        The results of all finished runs. Runs whose files are damaged are left out and named among the failures.
    """
    errors = {key: failure.error for key, failure in (failures or {}).items()}
    records: dict[Path, RunRecord] = {}
    for planned in planned_runs.values():
        if planned.run.finished:
            try:
                records[planned.run.path] = read_record(planned.run)
            except UserError as error:
                errors.setdefault(planned.run.key, str(error))
    runs_by_cell: dict[Cell, dict[int, Run]] = {}
    diverged_by_cell: dict[Cell, list[SickRun]] = {}
    for trial in study.trials:
        cell = Cell(trial.experiment, trial.condition, trial.setting.name)
        runs = runs_by_cell.setdefault(cell, {})
        run = planned_runs[trial.spec].run
        if run.path in records:
            runs[trial.spec.seed] = run
        elif diverged := diverged_run(run, trial.setting.name, trial.spec.seed):
            diverged_by_cell.setdefault(cell, []).append(diverged)
    setting_results = []
    for experiment in study.experiments:
        for condition in experiment.conditions:
            for setting in experiment.settings:
                cell = Cell(experiment.id, condition, setting.name)
                runs = runs_by_cell[cell]
                seed_records = {seed: records[run.path] for seed, run in runs.items()}
                diverged_runs = tuple(diverged_by_cell.get(cell, ()))
                result = SettingResult(experiment, condition, setting, runs, seed_records, diverged_runs)
                setting_results.append(result)
    return StudyResults(study, tuple(setting_results), errors, images_trained)


def resume_study(folder: Path, executor: Executor, data: str | None = None) -> StudyResults:
    """What a study in its folder has come to, with the analyses that are missing; nothing is trained.

    Args:
        folder: The folder of the study, such as studies/digits.
        executor: What carries out the jobs.
        data: Where the images are now, if they have moved.

    Raises:
        UserError: study.toml is missing or wrong.
    """
    study = with_overrides(read_study(folder / "study.toml", folder.name), Overrides(data=data))
    study = replace(study, name=folder.name)
    out = folder.parent.parent
    planned_runs = plan_runs(study, out)
    failures: Failures = {}
    while True:
        failures |= run_missing_analyses(study, planned_runs, out, executor)
        results = collect_results(study, planned_runs, failures)
        extended = with_next_look(results)
        if extended is None:
            break
        earlier_runs, planned_runs = planned_runs, plan_runs(extended, out, known=planned_runs)
        added_runs = [planned for spec, planned in planned_runs.items() if spec not in earlier_runs]
        if not any(planned.run.finished for planned in added_runs):
            break  # the last look that was begun
        study = extended
    for key, error in results.failed.items():
        notice(f"an analysis failed: {error}" if key in failures else f"left out of the study: {error}")
    return results


def single_run_study(run: Run) -> StudyResults:
    """One finished run as a study of its own, with the analyses that its figures show."""
    setting = Setting("", {}, {})
    title = run_title(run.spec)
    experiment = Experiment("run", title, settings=(setting,), conditions=("",), figures=SINGLE_RUN_FIGURES)
    study = Study(run.key, title, "", run.spec.data, {}, {"": {}}, (run.spec.seed,), (experiment,))
    names = required_analyses(experiment)
    with progress("analysing", len(names)) as advance, num_threads(1):
        baseline = open_baseline(run.dataset, run.spec.seed, baseline_dir(run))
        for num_done, name in enumerate(names, 1):
            if not has_analysis(run, name):
                run_analysis(run, name, baseline)
            advance(num_done, name)
    result = SettingResult(experiment, "", setting, {run.spec.seed: run}, {run.spec.seed: read_record(run)})
    return StudyResults(study, (result,))


# Progress


@contextmanager
def overall_progress(
    planned_runs: Sequence[PlannedRun], missing: Sequence[PlannedRun], num_workers: int
) -> Iterator[None]:
    """Show how much of all training is done, measured in multiply-adds, until the block ends."""
    if not missing:
        yield
        return
    total_cost = sum(planned.cost for planned in planned_runs)
    num_present = len(planned_runs) - len(missing)

    def units_done() -> int:
        return int(1e6 * sum(planned.cost * planned.fraction_done() for planned in planned_runs) / total_cost)

    def show_progress() -> None:
        while not stop_event.wait(PROGRESS_SECONDS):
            num_finished = sum(planned.run.finished for planned in missing)
            num_running = min(num_workers, len(missing) - num_finished)
            runs_text = f"{num_present + num_finished} of {len(planned_runs)} runs done, {num_running} running"
            advance(units_done(), runs_text)

    stop_event = threading.Event()
    with progress("training", 10**6, units_done()) as advance:
        watcher = threading.Thread(target=show_progress, daemon=True)
        watcher.start()
        try:
            yield
        finally:
            stop_event.set()
            watcher.join()
