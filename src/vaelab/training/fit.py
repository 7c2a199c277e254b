r"""Training: from specs to finished runs.

    specs -> jobs with plans -> groups that are trained as one -> each run prepared, or resumed -> the loop -> metrics

`fit` does all of it. `plan_jobs` and `train_jobs` are its two halves, for those who say something in between or want
the failures of single runs as a result. The same machine, versions and plan give the same bytes, interrupted or not.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch

from vaelab.core.codec import to_word
from vaelab.core.devices import num_threads, tune_malloc
from vaelab.core.distributed import distributed_context
from vaelab.core.errors import UserError
from vaelab.core.files import REPAIR_HINT
from vaelab.core.tensors import write_tensors
from vaelab.datasets.images import Dataset, kind_differences
from vaelab.evaluation.metrics import evaluate_model
from vaelab.runs.run import Run, lock_run, num_history_rows, store_results, write_history
from vaelab.runs.spec import Spec, check_spec, run_key, spec_from_dict, spec_to_dict
from vaelab.training.attempts import attempt_each
from vaelab.training.budget import first_schedule
from vaelab.training.job import TrainingJob
from vaelab.training.loop import TrainingLoop
from vaelab.training.plan import choose_plan, program_key
from vaelab.training.provenance import describe_end, recorded_plan, write_origin
from vaelab.training.recorder import SNAPSHOT_EPOCHS, history_interval
from vaelab.training.state import ActiveRun, initial_state, restore_state
from vaelab.training.steps.choose import possible_plan

__all__ = ["FitResult", "fit", "plan_jobs", "train_jobs"]


class FitResult(NamedTuple):
    """The runs that are finished, in the order of their jobs, and the errors of the others by the key of the run."""

    runs: list[Run]
    failures: dict[str, UserError]

    def runs_or_raise(self) -> list[Run]:
        """The runs.

        Raises:
            UserError: A run failed; the error is that of the first one.
        """
        for error in self.failures.values():
            raise error
        return self.runs


def fit(
    specs: Sequence[Spec],
    dataset: Dataset,
    out: Path,
    *,
    device: str | None = None,
    precision: str | None = None,
    threads: int | None = None,
    stacked: bool | None = None,
    compiled: bool | None = None,
    snapshots: Sequence[int] | None = None,
    parent: Run | None = None,
) -> list[Run]:
    """Train specs on a data set. Runs that exist are returned, and unfinished ones are resumed.

    Runs whose programs agree are trained as one where their plan is stacked. Where `torchrun` started several
    processes, they train each run together.

    Args:
        specs: What to train; a single run is a list of one.
        dataset: The images, loaded with the data settings of the specs.
        out: The folder that receives a folder for each run, named by the key of the run.
        device: cpu, cuda, cuda:1, mps, ...; by default the fastest of this machine.
        precision: float32 or bfloat16; by default bfloat16 where the processor has it.
        threads: Threads on a CPU; by default chosen by rule.
        stacked: Whether runs that agree are trained as one; by default on a GPU.
        compiled: Whether steps are compiled programs; by default for long runs on a CPU.
        snapshots: The epochs after which a few reconstructions are kept; by default 1, 2, 5, 10, 20, 50, ...
        parent: The run whose weights the specs start from, which name its key as their `parent`.

    Returns:
        The runs, in the order of the specs. Their `outcome` says what was done.

    Raises:
        UserError: A setting cannot be used, or a run has diverged. The other runs are finished first.
    """
    jobs = plan_jobs(
        specs,
        dataset,
        out,
        device=device,
        precision=precision,
        threads=threads,
        stacked=stacked,
        compiled=compiled,
        parent=parent,
    )
    return train_jobs(jobs, snapshots).runs_or_raise()


KIND_REMEDY = "convert the pictures of that split to the kind of the others, or leave the split out"


def plan_jobs(
    specs: Sequence[Spec],
    dataset: Dataset,
    out: Path,
    *,
    device: str | None = None,
    precision: str | None = None,
    threads: int | None = None,
    stacked: bool | None = None,
    compiled: bool | None = None,
    parent: Run | None = None,
    thin_history: bool = False,
) -> list[TrainingJob]:
    """Check specs and choose their plans; nothing is written. The other arguments are those of `fit`.

    Args:
        thin_history: Whether a history of more than 100 epochs gets about 60 rows in place of one for each epoch.

    Returns:
        One job for each different run, in the order of the specs.

    Raises:
        UserError: A setting cannot be used, or a split is of another kind than the training split.
        ValueError: The data were loaded with other settings, or the specs name another parent.
    """
    jobs: dict[str, TrainingJob] = {}
    differences = kind_differences(dataset.splits)
    pixels_on_device: dict[str, torch.Tensor] = {}
    for given_spec in specs:
        spec = spec_from_dict(spec_to_dict(given_spec))  # 1 and 1.0 mean the same, also in a stack
        _check_inputs(spec, dataset, parent)
        plan = choose_plan(spec, dataset.splits["train"], device, precision, threads)
        if stacked is not None:
            plan = replace(plan, stacked=stacked)
        wants_compiled = plan.compiled if compiled is None else compiled
        plan = replace(plan, compiled=wants_compiled and not plan.stacked)
        run = Run(out / run_key(spec, dataset.fingerprint, plan.precision))
        if differences and not run.finished:
            raise UserError(f"{dataset.source}: {differences[0]}\n{KIND_REMEDY}")
        context = distributed_context()
        jobs[run.key] = TrainingJob(run, spec, dataset, plan, parent, context, pixels_on_device, thin_history)
    return list(jobs.values())


def train_jobs(jobs: Sequence[TrainingJob], snapshots: Sequence[int] | None = None) -> FitResult:
    """Train jobs that were planned together. Finished runs are returned, and unfinished ones are resumed.

    Args:
        jobs: What `plan_jobs` gave.
        snapshots: The epochs after which a few reconstructions are kept; by default 1, 2, 5, 10, 20, 50, ...

    Returns:
        The finished runs, and the errors of those that failed.
    """
    runs: dict[str, Run] = {}
    failures: dict[str, UserError] = {}
    for group in _stackable_groups(jobs):
        result = _find_or_train(group, SNAPSHOT_EPOCHS if snapshots is None else snapshots)
        failures.update(result.failures)
        for run in result.runs:
            runs[run.key] = run
    return FitResult([runs[job.key] for job in jobs if job.key in runs], failures)


def _check_inputs(spec: Spec, dataset: Dataset, parent: Run | None) -> None:
    """Refuse what cannot be trained, and what would make the key of a run wrong."""
    check_spec(spec)
    for name, value in spec.data_settings.items():
        if value != getattr(dataset, name):
            raise ValueError(f"data loaded with {name} {getattr(dataset, name)}, the spec has {value}")
    parent_key = parent.key if parent else None
    if spec.parent != parent_key:
        raise ValueError(f"the spec's parent is {spec.parent}, the run given is {parent_key}")
    splits_batches = spec.objective.decomposes_over_batch and spec.distortion.trains_global_params
    if distributed_context().world_size > 1 and not splits_batches:
        raise UserError(
            f"{to_word(spec.objective)} with {to_word(spec.distortion)} looks at a batch as a whole, which several "
            "processes have in parts;\ntrain it without torchrun, in one process"
        )
    if spec.keep == "best" and "validation" not in dataset.splits:
        raise UserError(f"keep must be last: {dataset.source} has no picture to spare for a validation split")


def _stackable_groups(jobs: Sequence[TrainingJob]) -> list[list[TrainingJob]]:
    """Jobs that can be trained as one, because what shapes their programs agrees; the others each by itself."""
    groups: dict[Any, list[TrainingJob]] = {}
    for job in jobs:
        program = program_key(job.spec) if job.plan.stacked else None
        groups.setdefault(program or job.key, []).append(job)
    return list(groups.values())


def _find_or_train(group: Sequence[TrainingJob], snapshots: Sequence[int]) -> FitResult:
    """The finished runs of a group; those that are missing are trained, while their folders are locked."""
    with ExitStack() as locks:

        def find(job: TrainingJob) -> Run | None:
            if _needs_training(job, locks):
                return None
            job.run.check()
            return replace(job.run, outcome="existing", from_epoch=job.run.last_epoch)

        existing = attempt_each(group, find)
        finished = {run.key: run for run in existing.results if run is not None}
        missing = [job for job in group if job.key not in finished and job.key not in existing.failures]
        trained = _train(missing, snapshots)
    return FitResult([*finished.values(), *trained.runs], existing.failures | trained.failures)


def _needs_training(job: TrainingJob, locks: ExitStack) -> bool:
    """Whether a run is not finished; its folder is then locked for this process."""
    run, distributed = job.run, job.distributed
    if distributed.broadcast(run.finished and not (run.path / "state").exists()):
        return False
    if distributed.is_main:
        locks.enter_context(lock_run(run))
    return not distributed.broadcast(run.finished)  # another process may have finished it in the meantime


def _train(jobs: Sequence[TrainingJob], snapshots: Sequence[int]) -> FitResult:
    """Train runs to their end; those that are at the same step are trained as one."""
    tune_malloc()
    torch.backends.cudnn.deterministic = True  # the fastest convolutions add in no fixed order
    prepared = attempt_each(jobs, _prepare_run)
    result = FitResult([], dict(prepared.failures))
    for group in _groups_in_step(prepared.results):
        with num_threads(group[0].job.plan.threads):
            first_step = group[0].state.step
            loop_result = TrainingLoop(group, snapshots).fit()
            finished = attempt_each(loop_result.trained, lambda run, step=first_step: _finish_run(run, step))
        result.runs.extend(finished.results)
        result.failures.update(loop_result.failures | finished.failures)
    return result


def _groups_in_step(runs: Sequence[ActiveRun]) -> list[list[ActiveRun]]:
    """Runs that are computed in the same way and are at the same step."""
    groups: dict[tuple[str, int, int], list[ActiveRun]] = {}
    for run in runs:
        plan = run.job.plan
        groups.setdefault((plan.device, plan.threads, run.state.step), []).append(run)
    return list(groups.values())


def _prepare_run(job: TrainingJob) -> ActiveRun:
    """A run at the step that it has reached, with its files as they were at that step."""
    distributed = job.distributed
    plan = distributed.broadcast(recorded_plan(job) if distributed.is_main else None)
    is_new = plan is None
    job = replace(job, plan=plan or job.plan)
    with num_threads(job.plan.threads):
        state = initial_state(job)
        run = ActiveRun(job, state, resumed=restore_state(state, job.run))
        if distributed.broadcast(state.step) != state.step:
            raise UserError(f"not all processes see the same files in {job.run.path}: they need one folder in common")
        if job.spec.minutes is not None and job.plan.steps is None:
            schedule = distributed.broadcast(first_schedule(run))
            run.job = job.with_plan(steps=schedule.total_steps, schedule=schedule)
        run.job = replace(run.job, plan=possible_plan(run))
        if is_new and job.thin_history:
            run.job = run.job.with_plan(record_every=history_interval(run.job.num_epochs))
    if distributed.is_main:
        _prepare_files(run)
    return run


def _prepare_files(run: ActiveRun) -> None:
    """Store where a new run comes from, and take the epochs after the stored state out of the history."""
    job = run.job
    if not run.resumed:
        write_origin(job)
    rows = [row for row in job.run.history if row["step"] <= run.state.step]
    if len(rows) < num_history_rows(run.state.step // job.steps_per_epoch, job.plan.record_every):
        raise UserError(f"{job.run.path / 'history.jsonl'} has lost rows; {REPAIR_HINT}")
    write_history(job.run, rows)


def _finish_run(run: ActiveRun, first_step: int) -> Run:
    """Write the weights and the metrics, which make a run finished; gives it with what was done."""
    job, last_step = run.job, run.state.step
    if job.distributed.is_main:
        _write_results(run)
    job.distributed.broadcast(None)  # the other processes wait for the files
    return replace(
        job.run,
        outcome="resumed" if run.resumed else "trained",
        from_epoch=first_step // job.steps_per_epoch,
        images_trained=job.images_seen_by(last_step) - job.images_seen_by(first_step),
    )


def _write_results(run: ActiveRun) -> None:
    """Write the weights, the metrics of each split but the training one, and the time that training took."""
    job, state = run.job, run.state
    weights = state.best_weights or state.eval_model.state_dict()
    write_tensors(job.run.path / "weights.safetensors", weights, {"shape": list(job.train_images.shape)})
    model = job.run.model.to(job.plan.device)
    metrics = {}
    for split, images in job.dataset.splits.items():
        if split != "train":
            evaluation = evaluate_model(job.key, model, job.spec.objective, job.dataset.source, images)
            metrics[split] = evaluation.to_dict()
    model.to("cpu")
    end = describe_end(state.seconds, job.images_seen_by(state.step) / state.seconds)
    store_results(job.run, end, metrics)
