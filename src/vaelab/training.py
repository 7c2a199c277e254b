r"""Training: the only loop. It alone knows that runs may be many, and on what machine.

    specs -> teams of runs whose programs agree -> each prepared, or resumed -> steps, epoch by epoch -> finished runs

Nothing accumulates between steps but weights and moments (`steps`), so the state of a run is small, may be written
after any step, and resumes exactly: the same machine, versions and plan give the same bytes.
"""

from __future__ import annotations

import math
import os
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from vaelab.console import command, notice, progress
from vaelab.diagnosis import watch
from vaelab.errors import UserError
from vaelab.files import MEND, write_json
from vaelab.images import Dataset, Images
from vaelab.metrics import calibrate, evaluate, measure, monitor
from vaelab.objectives import Terms
from vaelab.pace import Clock, Saver, interruption
from vaelab.plan import Plan, choose_device, choose_plan, keep_freed_memory, likeness, using
from vaelab.ranks import ranks
from vaelab.spec import Spec, check, decode, encode, key, word
from vaelab.state import State, restore, save, start
from vaelab.steps import Ready, Work, order, steps_of, take_step, tell, unfit, unfit_among
from vaelab.store import Run, alone, read_tensors, write_history, write_tensors

__all__ = ["Stopped", "agree", "fit", "forecast"]

MONITORED = 1000, 2000  # training images on which history is measured: a tenth of them within these bounds
LOOK = 50  # steps between two looks at the terms on a GPU, each of which waits for it
SNAPSHOTS = [n * 10**k for k in range(5) for n in (1, 2, 5)]  # epochs after which a few reconstructions are kept


class Stopped(KeyboardInterrupt):
    """The user's interruption, after the state was written."""


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
        raise UserError(f"{word(spec.objective)} with {word(spec.loss)} looks at a batch as a whole, which several "
                        "processes have in parts;\ntrain it without torchrun, in one process")  # fmt: skip
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
    program = work.compiled(state)
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
        runs.append(replace(work.run, outcome=outcome, from_epoch=first // work.steps_per_epoch,
                            images_trained=trained))  # fmt: skip
    return runs


# What a run comes from.


def began(work: Work) -> Plan | None:
    """The plan that an unfinished run began with, if it did: it is kept, whatever is asked for now."""
    file = work.run.path / "origin.json"
    if not file.exists():
        return None
    origin = work.run.origin
    plan = Plan(**origin["plan"])
    try:
        choose_device(plan.device)
    except UserError as error:
        raise UserError(f"run {work.run.key} began there and cannot go on elsewhere: {error}; "
                        "begin a new one with another --out") from None  # fmt: skip
    if plan.ranks != work.ranks.size:
        notice(f"the run began with {plan.ranks} processes and goes on with {work.ranks.size}: the same to rounding")
        plan = replace(plan, ranks=work.ranks.size, compiled=False)
    if replace(plan, steps=None) != work.plan:
        notice(
            f"going on as the run began: {plan.device}, {plan.precision}, {plan.threads} threads, "
            f"{'' if plan.compiled else 'not '}compiled"
        )
    if origin["versions"] != versions():
        notice(f"the run began with other versions ({origin['versions']}): it will not repeat bit for bit")
    return plan


def begin(work: Work, resumed: bool) -> None:
    """Write what the run will be, before the first step."""
    run, dataset = work.run, work.dataset
    write_json(run.path / "spec.json", encode(work.spec))
    if resumed:
        return
    data = {
        "source": dataset.source,
        "location": dataset.location,
        "fingerprint": dataset.fingerprint,
        "shape": list(work.images.shape),
        "categories": list(work.images.categories),
        "images": {split: len(images) for split, images in dataset.splits.items()},
    }
    write_json(run.path / "origin.json", {
        "key": run.key,
        "data": data,
        "plan": asdict(work.plan),
        "parent": str(work.parent.path) if work.parent else None,
        "versions": versions(),
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} processors, {platform.node()}",
        "command": command(),
        "started": now(),
    })  # fmt: skip


def versions() -> dict[str, str]:
    from vaelab import __version__

    return {"vaelab": __version__, "torch": torch.__version__, "python": platform.python_version()}


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


# The loop.


def descend(team: Sequence[Ready], snapshots: Sequence[int], errors: dict[str, UserError]) -> Sequence[Ready]:
    """Take the steps that are left; a row of history and perhaps a state after each epoch. Gives the runs that got by.

    The runs of a team are in step with each other; one whose loss is no number leaves it.
    """
    work, state, *_ = team[0]
    size, per_epoch = work.spec.batch_size, work.steps_per_epoch
    clock, saver = Clock(state.seconds, work.images_until(state.step) * len(team)), Saver()
    epochs = math.ceil(work.steps / per_epoch)
    step = steps_of(team)
    with interruption() as interrupted, progress("training", work.steps, state.step) as advance:
        for epoch in range(state.step // per_epoch, epochs):
            orders = {one.work: order(one.work, epoch) for one in team}
            for at in range(state.step - epoch * per_epoch, min(per_epoch, work.steps - epoch * per_epoch)):
                coming = orders[work][(at + 1) * size : (at + 2) * size]
                if work.resident is None:
                    work.images.expect(coming[work.ranks.share(len(coming))])
                terms = step([orders[one.work][at * size : (at + 1) * size] for one in team])
                last = at == per_epoch - 1 or state.step == work.steps
                broken: dict[str, UserError] = {}
                if last or work.plan.device == "cpu" or state.step % LOOK == 0:
                    broken = lost(team, terms, epoch + 1)
                    text = partial(tell, terms[0], epoch + 1, epochs)
                    clock.show(advance, state.step, work.images_until(state.step) * len(team), text)
                if last and work.ranks.leads:
                    broken |= ended(without(team, broken), epoch + 1, clock, snapshots)
                if broken:
                    errors |= broken
                    team = without(team, broken)
                    if not team:
                        return []
                    (work, state, *_), step = team[0], steps_of(team)
                for one in team:
                    one.state.seconds = clock.seconds()
                stop = interrupted()
                if work.ranks.size > 1:  # all of them stop after the same step
                    stop = (last or state.step % LOOK == 0) and work.ranks.any(stop)
                if work.ranks.leads and (stop or saver.due(last)):
                    with saver.timed():
                        for one in team:
                            save(one.state, one.work.run)
                if stop:
                    raise Stopped
    return team


def lost(team: Sequence[Ready], terms: Sequence[Terms], epoch: int) -> dict[str, UserError]:
    """The errors of those runs whose loss is no number."""
    found = {one.work.run.key: unfit(some, epoch, one.state.step) for one, some in zip(team, terms, strict=True)}
    return {name: error for name, error in found.items() if error}


def without(team: Sequence[Ready], broken: Mapping[str, UserError]) -> list[Ready]:
    return [one for one in team if one.work.run.key not in broken]


def ended(team: Sequence[Ready], epoch: int, clock: Clock, snapshots: Sequence[int]) -> dict[str, UserError]:
    """End the epoch of each run; gives the errors of those for which it was the last."""
    broken: dict[str, UserError] = {}
    for work, state, *_ in team:
        try:
            end_epoch(work, state, epoch, clock.seconds(), snapshots)
        except UserError as error:
            if work.ranks.size > 1:
                raise
            broken[work.run.key] = error
    return broken


def end_epoch(work: Work, state: State, epoch: int, seconds: float, snapshots: Sequence[int]) -> None:
    """Measure, note the row of history, keep the best weights and the snapshots."""
    spec, run = work.spec, work.run
    measured = {"train": work.images.spread(monitored(work.images))}
    calibrate(state.kept, measured["train"])
    looked_at = (state.kept.lowered() if work.plan.precision == "bfloat16" else state.kept).eval()
    if "validation" in work.dataset.splits:
        measured["validation"] = work.dataset.splits["validation"]
    terms = {split: monitor(looked_at, spec.objective, images) for split, images in measured.items()}
    for split, values in terms.items():
        error = unfit_among({f"{name} of the {split} images": v for name, v in values.items()}, epoch, state.step)
        if error:
            raise error
    row = {"epoch": epoch, "step": state.step, "seconds": round(seconds, 3)} | {"validation": {}} | terms
    write_history(run, rows := [*run.history, row])
    for finding in watch(spec, rows):
        notice(f"warning after epoch {epoch}: {finding.ailment}: {finding.number}; {finding.meaning}.\n"
               f"  Try: {finding.remedy}")  # fmt: skip
    if spec.keep == "best" and row["validation"]["loss"] < state.best_loss:
        state.best_loss = row["validation"]["loss"]
        state.best = {n: t.detach().clone() for n, t in state.kept.state_dict().items()}
    if epoch in snapshots or state.step == work.steps:
        snapshot(work, state, epoch)
    state.kept.train()


def monitored(images: Images) -> int:
    """On how many training images history is measured: all of a small set, a tenth of a large one."""
    return min(len(images), max(MONITORED[0], min(MONITORED[1], len(images) // 10)))


def snapshot(work: Work, state: State, epoch: int) -> None:
    """Keep how the same few images are reconstructed after this epoch."""
    file = work.run.path / "snapshots.safetensors"
    kept = read_tensors(file)[0] if file.exists() else {}
    images = work.dataset.splits.get("validation", work.images)
    pixels = torch.from_numpy(images.spread(8).uint8())
    with torch.no_grad():
        x = state.kept.reconstruct(pixels.to(work.plan.device).float().div_(255))
    kept |= {"originals": pixels, f"epoch-{epoch:05d}": x.mul(255).round().to(torch.uint8)}
    write_tensors(file, kept)


class Pace(NamedTuple):
    """Seconds of a step, of an image that an epoch's end measures, and of one that the run's end does."""

    step: float
    monitored: float
    measured: float


def pace(work: Work, seconds: float) -> Pace:
    """The pace of a run, from some seconds of training that is thrown away."""
    state = start(work.spec, work.plan, work.images.shape, work.parent)
    trial = replace(work, plan=replace(work.plan, steps=10**9))
    rows, program = np.arange(min(work.spec.batch_size, len(work.images))), work.compiled(state)
    for _ in range(3):  # the first steps are slower
        take_step(trial, state, rows, program).loss.item()
    begun, steps = time.monotonic(), 0
    while work.ranks.agree(steps < 5 or time.monotonic() - begun < seconds):
        take_step(trial, state, rows, program).loss.item()
        steps += 1
    per_step = (time.monotonic() - begun) / steps
    some = work.dataset.splits.get("validation", work.images).spread(1000)
    per_monitored = _timed(partial(monitor, state.working, work.spec.objective, some)) / len(some)
    few = some.spread(500)
    return Pace(per_step, per_monitored, _timed(partial(evaluate, state.model, work.spec.objective, few)) / len(few))


def _timed(work: Callable[[], object]) -> float:
    begun = time.monotonic()
    work()
    return time.monotonic() - begun


def per_epoch(work: Work, found: Pace) -> float:
    """Seconds of an epoch with the measurement at its end."""
    images = len(work.dataset.splits.get("validation", ())) + monitored(work.images)
    return work.steps_per_epoch * found.step + images * found.monitored


def probe(work: Work) -> int:
    """How many steps the time budget holds."""
    budget = 60 * (work.spec.minutes or 0)
    epoch = per_epoch(work, pace(work, min(3.0, 0.05 * budget)))
    return max(1, int(0.95 * budget * work.steps_per_epoch / epoch))


def forecast(
    spec: Spec, dataset: Dataset, *, device: str | None = None, threads: int | None = None
) -> tuple[float, float]:
    """About how many seconds an epoch takes, and the measurement at the end of a run: from a second of training."""
    work = Work(Run(Path()), spec, dataset, choose_plan(spec, dataset.splits["train"], device, threads=threads))
    keep_freed_memory()
    with using(work.plan.threads):
        found = pace(work, 1.0)
    held_out = sum(len(images) for split, images in dataset.splits.items() if split != "train")
    return per_epoch(work, found), held_out * found.measured


# The end.


def finish(work: Work, state: State) -> None:
    """Write the weights and the metrics; with these the run is finished."""
    run, dataset = work.run, work.dataset
    weights = state.best or state.kept.state_dict()
    write_tensors(run.path / "weights.safetensors", weights, {"shape": list(work.images.shape)})
    model = run.model.to(work.plan.device)
    metrics = {split: measure(run.key, model, run.spec.objective, dataset.source, images)
               for split, images in dataset.splits.items() if split != "train"}  # fmt: skip
    model.to("cpu")
    rate = work.images_until(state.step) / state.seconds
    ended = {"finished": now(), "seconds": round(state.seconds, 3), "images_per_second": round(rate, 1)}
    write_json(run.path / "origin.json", run.origin | ended)
    write_json(run.path / "metrics.json", metrics)
