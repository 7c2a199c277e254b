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

from vaelab.core.codec import word
from vaelab.core.devices import keep_freed_memory, using
from vaelab.core.distributed import ranks
from vaelab.core.errors import UserError
from vaelab.core.files import MEND, write_json
from vaelab.core.tensors import write_tensors
from vaelab.datasets.images import Dataset
from vaelab.evaluation.metrics import measure
from vaelab.runs.run import Run, alone, write_history
from vaelab.runs.spec import Spec, check, decode, encode, key
from vaelab.training.budget import probe
from vaelab.training.job import Work
from vaelab.training.loop import descend
from vaelab.training.plan import choose_plan, likeness
from vaelab.training.provenance import began, begin, now
from vaelab.training.state import State, restore, start
from vaelab.training.steps.choose import Ready, compiled_step

__all__ = ["agree", "fit", "found"]

SNAPSHOTS = [n * 10**k for k in range(5) for n in (1, 2, 5)]  # epochs after which a few reconstructions are kept


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
    kept, works = SNAPSHOTS if snapshots is None else snapshots, {}
    for given in specs:
        spec = decode(encode(given))  # 1 and 1.0 mean the same, also to a stack
        agree(spec, dataset, parent)
        plan = choose_plan(spec, dataset.splits["train"], device, precision, threads)
        plan = plan if stacked is None else replace(plan, stacked=stacked)
        wanted = plan.compiled if compiled is None else compiled
        plan = replace(plan, compiled=wanted and not plan.stacked)
        work = Work(Run(out / key(spec, dataset.fingerprint, plan.precision)), spec, dataset, plan, parent, ranks())
        works[work.run.key] = work
    trained: dict[str, Run] = {}
    errors: dict[str, UserError] = {}
    for team in teams(list(works.values())):
        trained |= {run.key: run for run in settle(team, kept, errors)}
    if failures is not None:
        failures |= {name: str(error) for name, error in errors.items()}
    elif errors:
        raise next(iter(errors.values()))
    return [trained[name] for name in works if name in trained]


def teams(works: Sequence[Work]) -> list[list[Work]]:
    """The runs that are trained as one: those that may be stacked and agree in what shapes their programs."""
    grouped: dict[Any, list[Work]] = {}
    for work in works:
        alike = likeness(work.spec) if work.plan.stacked else None
        grouped.setdefault(alike or work.run.key, []).append(work)
    return list(grouped.values())


def settle(team: Sequence[Work], snapshots: Sequence[int], errors: dict[str, UserError]) -> list[Run]:
    """Find or train the runs of a team; what the user has to mend in one of them is added to the errors."""
    runs, left = [], []
    with ExitStack() as locks:
        for work in team:
            run, together = work.run, work.ranks
            try:
                if not together.agree(run.finished and not (run.path / "state").exists()):
                    if together.leads:
                        locks.enter_context(alone(run))
                    if not together.agree(run.finished):  # by another process, meanwhile
                        left.append(work)
                        continue
                runs.append(found(run))
            except UserError as error:
                if together.size > 1:  # the others would wait for it
                    raise
                errors[run.key] = error
        return runs + (carry_out(left, snapshots, errors) if left else [])


def found(run: Run) -> Run:
    """A run that was finished before, if its files are whole."""
    run.check()
    return replace(run, outcome="existing", from_epoch=len(run.history))


def agree(spec: Spec, dataset: Dataset, parent: Run | None) -> None:
    """Refuse what would make the key of a run a lie."""
    check(spec)
    for name, value in spec.loaded.items():
        if value != getattr(dataset, name):
            raise ValueError(f"data loaded with {name} {getattr(dataset, name)}, the spec has {value}")
    if spec.parent != (parent.key if parent else None):
        raise ValueError(f"the spec's parent is {spec.parent}, the run given is {parent and parent.key}")
    if ranks().size > 1 and not (spec.objective.separable and spec.loss.learned):
        raise UserError(
            f"{word(spec.objective)} with {word(spec.loss)} looks at a batch as a whole, which several "
            "processes have in parts;\ntrain it without torchrun, in one process"
        )
    if spec.keep == "best" and "validation" not in dataset.splits:
        raise UserError(f"keep must be last: {dataset.source} has no picture to spare for a validation split")


def carry_out(works: Sequence[Work], snapshots: Sequence[int], errors: dict[str, UserError]) -> list[Run]:
    """Train runs to their end, from where they stand; those that stand at the same step as one."""
    keep_freed_memory()
    torch.backends.cudnn.deterministic = True  # its fastest convolutions add in no fixed order
    ready: dict[tuple[str, int, int], list[Ready]] = {}
    pixels: dict[str, torch.Tensor | None] = {}  # on each device once
    for asked in works:
        try:
            begun = asked.ranks.agree(began(asked) if asked.ranks.leads else None)
            work = replace(asked, plan=begun or asked.plan)
            device, threads = work.plan.device, work.plan.threads
            with using(threads):
                work.__dict__["resident"] = pixels.setdefault(device, work.resident if device not in pixels else None)
                runner = prepare(work)
            ready.setdefault((device, threads, runner.state.step), []).append(runner)
        except UserError as error:
            if asked.ranks.size > 1:
                raise
            errors[asked.run.key] = error
    runs = []
    for (_, threads, _), team in ready.items():
        with using(threads):
            runs += train(team, snapshots, errors)
    return runs


def prepare(work: Work) -> Ready:
    """A run at the step that it has come to, with its files as they then were."""
    run, spec, together = work.run, work.spec, work.ranks
    state = start(spec, work.plan, work.images.shape, work.parent)
    resumed = restore(state, run)
    if spec.minutes is not None and work.plan.steps is None:
        work = work.planned(steps=together.agree(probe(work)))
    if together.agree(state.step) != state.step:
        raise UserError(f"not all processes see the same files in {run.path}: they need one folder in common")
    program = compiled_step(work, state)
    if work.plan.compiled and program is None:
        work = work.planned(compiled=False)
    if together.leads:
        begin(work, resumed)
        rows = [row for row in run.history if row["step"] <= state.step]
        if len(rows) < state.step // work.steps_per_epoch:
            raise UserError(f"{run.path / 'history.jsonl'} has lost rows; {MEND}")
        write_history(run, rows)
    return Ready(work, state, resumed, program)


def train(team: Sequence[Ready], snapshots: Sequence[int], errors: dict[str, UserError]) -> list[Run]:
    """Train runs that stand at the same step to their end."""
    first = team[0].state.step
    if len(team) > 1:  # a stack moves the tensors that programs would know
        team = [one._replace(program=None) for one in team]
    runs = []
    for work, state, resumed, _ in descend(team, snapshots, errors):
        try:
            if work.ranks.leads:
                finish(work, state)
        except UserError as error:
            if work.ranks.size > 1:
                raise
            errors[work.run.key] = error
            continue
        work.ranks.agree(None)  # wait until the files are there
        trained = work.images_until(state.step) - work.images_until(first)
        outcome = "resumed" if resumed else "trained"
        runs.append(
            replace(work.run, outcome=outcome, from_epoch=first // work.steps_per_epoch, images_trained=trained)
        )
    return runs


# The end.


def finish(work: Work, state: State) -> None:
    """Write the weights and the metrics; with these the run is finished."""
    run, dataset = work.run, work.dataset
    weights = state.best or state.kept.state_dict()
    write_tensors(run.path / "weights.safetensors", weights, {"shape": list(work.images.shape)})
    model = run.model.to(work.plan.device)
    metrics = {
        split: measure(run.key, model, run.spec.objective, dataset.source, images)
        for split, images in dataset.splits.items()
        if split != "train"
    }
    model.to("cpu")
    rate = work.images_until(state.step) / state.seconds
    ended = {"finished": now(), "seconds": round(state.seconds, 3), "images_per_second": round(rate, 1)}
    write_json(run.path / "origin.json", run.origin | ended)
    write_json(run.path / "metrics.json", metrics)
