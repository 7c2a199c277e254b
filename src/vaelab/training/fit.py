r"""Training: the only loop. It alone knows that runs may be many, and on what machine.

    specs -> teams of runs whose programs agree -> each prepared, or resumed -> steps, epoch by epoch -> finished runs

Nothing accumulates between steps but weights and moments (`steps`), so the state of a run is small, may be written
after any step, and resumes exactly: the same machine, versions and plan give the same bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from vaelab.core.codec import to_word
from vaelab.core.devices import num_threads, tune_malloc
from vaelab.core.distributed import distributed_context
from vaelab.core.errors import UserError
from vaelab.core.files import REPAIR_HINT, write_json
from vaelab.core.tensors import write_tensors
from vaelab.datasets.images import Dataset
from vaelab.evaluation.metrics import evaluate_model
from vaelab.runs.run import Run, lock_run, write_history
from vaelab.runs.spec import Spec, check_spec, run_key, spec_from_dict, spec_to_dict
from vaelab.training.budget import steps_in_budget
from vaelab.training.job import TrainingJob
from vaelab.training.loop import train_epochs
from vaelab.training.plan import choose_plan, program_key
from vaelab.training.provenance import recorded_plan, utc_now, write_origin
from vaelab.training.state import TrainingState, initial_state, restore_state
from vaelab.training.steps.choose import ActiveRun, load_compiled_step

__all__ = ["existing_run", "fit", "validate_inputs"]

SNAPSHOT_EPOCHS = [n * 10**k for k in range(5) for n in (1, 2, 5)]  # epochs after which a few reconstructions are kept


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
    failures: dict[str, str] | None = None,
) -> list[Run]:
    """Train specs on a data set into folders OUT/<key>: those that exist are returned, unfinished ones resumed.

    Runs whose programs agree are trained as one where the plan is `stacked`; steps are one program where it is
    `compiled`. Where `torchrun` started several processes, they train each run together. The data set must be loaded
    with the size and the validation fraction of the specs. `parent` is the run whose weights specs with its key as
    `parent` start from; `snapshots` are the epochs after which a few reconstructions are kept. What the user has to
    mend in one run is raised when the others are finished; with `failures` it is put there, under the key of the run,
    which is then left out of the result.
    """
    kept, works = SNAPSHOT_EPOCHS if snapshots is None else snapshots, {}
    for given in specs:
        spec = spec_from_dict(spec_to_dict(given))  # 1 and 1.0 mean the same, also to a stack
        validate_inputs(spec, dataset, parent)
        plan = choose_plan(spec, dataset.splits["train"], device, precision, threads)
        plan = plan if stacked is None else replace(plan, stacked=stacked)
        wanted = plan.compiled if compiled is None else compiled
        plan = replace(plan, compiled=wanted and not plan.stacked)
        work = TrainingJob(
            Run(out / run_key(spec, dataset.fingerprint, plan.precision)),
            spec,
            dataset,
            plan,
            parent,
            distributed_context(),
        )
        works[work.run.key] = work
    trained: dict[str, Run] = {}
    errors: dict[str, UserError] = {}
    for team in group_jobs(list(works.values())):
        trained |= {run.key: run for run in find_or_train(team, kept, errors)}
    if failures is not None:
        failures |= {name: str(error) for name, error in errors.items()}
    elif errors:
        raise next(iter(errors.values()))
    return [trained[name] for name in works if name in trained]


def group_jobs(jobs: Sequence[TrainingJob]) -> list[list[TrainingJob]]:
    """The runs that are trained as one: those that may be stacked and agree in what shapes their programs."""
    grouped: dict[Any, list[TrainingJob]] = {}
    for work in jobs:
        alike = program_key(work.spec) if work.plan.stacked else None
        grouped.setdefault(alike or work.run.key, []).append(work)
    return list(grouped.values())


def find_or_train(group: Sequence[TrainingJob], snapshots: Sequence[int], errors: dict[str, UserError]) -> list[Run]:
    """Find or train the runs of a team; what the user has to mend in one of them is added to the errors."""
    runs, left = [], []
    with ExitStack() as locks:
        for work in group:
            run, together = work.run, work.distributed
            try:
                if not together.broadcast(run.finished and not (run.path / "state").exists()):
                    if together.is_main:
                        locks.enter_context(lock_run(run))
                    if not together.broadcast(run.finished):  # by another process, meanwhile
                        left.append(work)
                        continue
                runs.append(existing_run(run))
            except UserError as error:
                if together.world_size > 1:  # the others would wait for it
                    raise
                errors[run.key] = error
        return runs + (train_jobs(left, snapshots, errors) if left else [])


def existing_run(run: Run) -> Run:
    """A run that was finished before, if its files are whole."""
    run.check()
    return replace(run, outcome="existing", from_epoch=len(run.history))


def validate_inputs(spec: Spec, dataset: Dataset, parent: Run | None) -> None:
    """Refuse what would make the key of a run a lie."""
    check_spec(spec)
    for name, value in spec.data_settings.items():
        if value != getattr(dataset, name):
            raise ValueError(f"data loaded with {name} {getattr(dataset, name)}, the spec has {value}")
    if spec.parent != (parent.key if parent else None):
        raise ValueError(f"the spec's parent is {spec.parent}, the run given is {parent and parent.key}")
    if distributed_context().world_size > 1 and not (
        spec.objective.decomposes_over_batch and spec.loss.trains_global_params
    ):
        raise UserError(
            f"{to_word(spec.objective)} with {to_word(spec.loss)} looks at a batch as a whole, which several "
            "processes have in parts;\ntrain it without torchrun, in one process"
        )
    if spec.keep == "best" and "validation" not in dataset.splits:
        raise UserError(f"keep must be last: {dataset.source} has no picture to spare for a validation split")


def train_jobs(jobs: Sequence[TrainingJob], snapshots: Sequence[int], errors: dict[str, UserError]) -> list[Run]:
    """Train runs to their end, from where they stand; those that stand at the same step as one."""
    tune_malloc()
    torch.backends.cudnn.deterministic = True  # its fastest convolutions add in no fixed order
    ready: dict[tuple[str, int, int], list[ActiveRun]] = {}
    pixels: dict[str, torch.Tensor | None] = {}  # on each device once
    for asked in jobs:
        try:
            begun = asked.distributed.broadcast(recorded_plan(asked) if asked.distributed.is_main else None)
            work = replace(asked, plan=begun or asked.plan)
            device, threads = work.plan.device, work.plan.threads
            with num_threads(threads):
                work.__dict__["device_pixels"] = pixels.setdefault(
                    device, work.device_pixels if device not in pixels else None
                )
                runner = prepare_run(work)
            ready.setdefault((device, threads, runner.state.step), []).append(runner)
        except UserError as error:
            if asked.distributed.world_size > 1:
                raise
            errors[asked.run.key] = error
    runs = []
    for (_, threads, _), team in ready.items():
        with num_threads(threads):
            runs += train_group(team, snapshots, errors)
    return runs


def prepare_run(job: TrainingJob) -> ActiveRun:
    """A run at the step that it has come to, with its files as they then were."""
    run, spec, together = job.run, job.spec, job.distributed
    state = initial_state(spec, job.plan, job.train_images.shape, job.parent)
    resumed = restore_state(state, run)
    if spec.minutes is not None and job.plan.steps is None:
        job = job.with_plan(steps=together.broadcast(steps_in_budget(job)))
    if together.broadcast(state.step) != state.step:
        raise UserError(f"not all processes see the same files in {run.path}: they need one folder in common")
    program = load_compiled_step(job, state)
    if job.plan.compiled and program is None:
        job = job.with_plan(compiled=False)
    if together.is_main:
        write_origin(job, resumed)
        rows = [row for row in run.history if row["step"] <= state.step]
        if len(rows) < state.step // job.steps_per_epoch:
            raise UserError(f"{run.path / 'history.jsonl'} has lost rows; {REPAIR_HINT}")
        write_history(run, rows)
    return ActiveRun(job, state, resumed, program)


def train_group(group: Sequence[ActiveRun], snapshots: Sequence[int], errors: dict[str, UserError]) -> list[Run]:
    """Train runs that stand at the same step to their end."""
    first = group[0].state.step
    if len(group) > 1:  # a stack moves the tensors that programs would know
        group = [one._replace(compiled_step=None) for one in group]
    runs = []
    for work, state, resumed, _ in train_epochs(group, snapshots, errors):
        try:
            if work.distributed.is_main:
                finish_run(work, state)
        except UserError as error:
            if work.distributed.world_size > 1:
                raise
            errors[work.run.key] = error
            continue
        work.distributed.broadcast(None)  # wait until the files are there
        trained = work.images_seen_by(state.step) - work.images_seen_by(first)
        outcome = "resumed" if resumed else "trained"
        runs.append(
            replace(work.run, outcome=outcome, from_epoch=first // work.steps_per_epoch, images_trained=trained)
        )
    return runs


# The end.


def finish_run(job: TrainingJob, state: TrainingState) -> None:
    """Write the weights and the metrics; with these the run is finished."""
    run, dataset = job.run, job.dataset
    weights = state.best_weights or state.eval_model.state_dict()
    write_tensors(run.path / "weights.safetensors", weights, {"shape": list(job.train_images.shape)})
    model = run.model.to(job.plan.device)
    metrics = {
        split: evaluate_model(run.key, model, run.spec.objective, dataset.source, images).to_dict()
        for split, images in dataset.splits.items()
        if split != "train"
    }
    model.to("cpu")
    rate = job.images_seen_by(state.step) / state.seconds
    ended = {"finished": utc_now(), "seconds": round(state.seconds, 3), "images_per_second": round(rate, 1)}
    write_json(run.path / "origin.json", run.origin | ended)
    write_json(run.path / "metrics.json", metrics)
