r"""Training: the only loop. It alone knows that runs may be many, and on what machine.

A step draws a batch, maps it to `Terms`, and descends. Everything random is a function of (seed, purpose, step), and
nothing accumulates between steps but weights and moments, so the state of a run is small, may be written after any
step, and resumes exactly: the same machine, versions and plan give the same bytes.

Images stay what they are on disk, uint8, and are gathered by index into a batch: no loader, no workers.
"""

from __future__ import annotations

import math
import os
import platform
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from functools import cached_property, partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from vaelab.console import command, notice, progress
from vaelab.diagnosis import watch
from vaelab.errors import UserError
from vaelab.files import MEND, write_json
from vaelab.images import Dataset, Images
from vaelab.metrics import calibrate, evaluate, measure, monitor
from vaelab.objectives import Terms
from vaelab.pace import Clock, Saver, interruption
from vaelab.plan import Plan, choose_device, choose_plan, keep_freed_memory, using
from vaelab.ranks import Ranks, ranks
from vaelab.spec import Spec, check, encode, key, word
from vaelab.state import State, average, restore, save, start
from vaelab.store import Run, alone, read_tensors, write_history, write_tensors
from vaelab.streams import stream

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
    snapshots: Sequence[int] | None = None,
    parent: Run | None = None,
) -> list[Run]:
    """Train specs on a data set into folders OUT/<key>: those that exist are returned, unfinished ones resumed.

    Where `torchrun` started several processes, they train each run together. The data set must be loaded with the size
    and the validation fraction of the specs. `parent` is the run whose weights specs with its key as `parent` start
    from; `snapshots` are the epochs after which a few reconstructions are kept.
    """
    runs, kept, together = [], SNAPSHOTS if snapshots is None else snapshots, ranks()
    for spec in specs:
        agree(spec, dataset, parent)
        plan = choose_plan(spec, dataset.splits["train"].shape, device, precision, threads)
        run = Run(out / key(spec, dataset.fingerprint, plan.precision))
        if together.agree(run.finished and not (run.path / "state").exists()):
            run = found(run)
        else:
            with alone(run) if together.leads else nullcontext():  # another process may have finished it meanwhile
                work = Work(run, spec, dataset, plan, parent, together)
                run = found(run) if together.agree(run.finished) else carry_out(work, kept)
        runs.append(run)
    return runs


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


def carry_out(work: Work, snapshots: Sequence[int]) -> Run:
    """Train one run to its end, from where it stands."""
    run, spec, together = work.run, work.spec, work.ranks
    work = replace(work, plan=together.agree(began(work) if together.leads else None) or work.plan)
    keep_freed_memory()
    torch.backends.cudnn.deterministic = True  # its fastest convolutions add in no fixed order
    with using(work.plan.threads):
        state = start(spec, work.plan, work.images.shape, work.parent)
        resumed = restore(state, run)
        if spec.minutes is not None and work.plan.steps is None:
            work = replace(work, plan=replace(work.plan, steps=together.agree(probe(work))))
        first = state.step
        if together.agree(first) != first:
            raise UserError(f"not all processes see the same files in {run.path}: they need one folder in common")
        if together.leads:
            begin(work, resumed)
            rows = [row for row in run.history if row["step"] <= state.step]
            if len(rows) < state.step // work.steps_per_epoch:
                raise UserError(f"{run.path / 'history.jsonl'} has lost rows; {MEND}")
            write_history(run, rows)
        descend(work, state, snapshots)
        if together.leads:
            finish(work, state)
        together.agree(None)  # wait until the files are there
    trained = work.images_until(state.step) - work.images_until(first)
    outcome = "resumed" if resumed else "trained"
    return replace(run, outcome=outcome, from_epoch=first // work.steps_per_epoch, images_trained=trained)


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
        plan = replace(plan, ranks=work.ranks.size)
    if replace(plan, steps=None) != work.plan:
        notice(f"going on as the run began: {plan.device}, {plan.precision}, {plan.threads} threads")
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


# The work.


@dataclass(frozen=True)
class Work:
    """What does not change while a run is trained."""

    run: Run
    spec: Spec
    dataset: Dataset
    plan: Plan
    parent: Run | None = None
    ranks: Ranks = field(default_factory=Ranks)

    @property
    def images(self) -> Images:
        return self.dataset.splits["train"]

    @property
    def steps_per_epoch(self) -> int:
        return math.ceil(len(self.images) / self.spec.batch_size)

    @property
    def steps(self) -> int:
        return self.plan.steps or self.spec.epochs * self.steps_per_epoch

    def images_until(self, step: int) -> int:
        """How many images the first steps see; the last batch of an epoch may be smaller."""
        epochs, rest = divmod(step, self.steps_per_epoch)
        return epochs * len(self.images) + min(rest * self.spec.batch_size, len(self.images))

    @cached_property
    def resident(self) -> Tensor | None:
        """The training pixels on the device; on a CPU they stay mapped from disk."""
        return None if self.plan.device == "cpu" else torch.from_numpy(self.images.grey()).to(self.plan.device)

    def gather(self, rows: np.ndarray, step: int, share: slice = slice(None)) -> Tensor:
        """Training images by index for one step, or a share of them, in [0, 1], on the device, (B, C, H, W)."""
        mine = rows[share]
        if self.resident is None:
            pixels = torch.from_numpy(self.images.grey(mine))
        else:
            pixels = self.resident[torch.from_numpy(mine).to(self.plan.device)]
        if self.spec.binarise == "dynamic":
            chance, shape = stream(self.spec.seed, "binarise", step), (len(rows), *pixels.shape[1:])
            drawn = torch.randint(255, shape, dtype=torch.uint8, generator=chance)[share].to(self.plan.device)
            pixels = 255 * (drawn < pixels)
        if self.spec.flips:
            mirrored = torch.rand(len(rows), generator=stream(self.spec.seed, "flips", step))[share] < 0.5
            pixels = torch.where(mirrored.to(self.plan.device).view(-1, 1, 1, 1), pixels.flip(-1), pixels)
        layout = torch.channels_last if self.plan.channels_last else torch.contiguous_format
        return pixels.to(torch.float32, memory_format=layout).div_(255)


# The loop.


def descend(work: Work, state: State, snapshots: Sequence[int]) -> None:
    """Take the steps that are left; a row of history and perhaps a state after each epoch."""
    spec, per_epoch = work.spec, work.steps_per_epoch
    clock, saver = Clock(state.seconds, work.images_until(state.step)), Saver()
    epochs = math.ceil(work.steps / per_epoch)
    with interruption() as interrupted, progress("training", work.steps, state.step) as advance:
        for epoch in range(state.step // per_epoch, epochs):
            order = torch.randperm(len(work.images), generator=stream(spec.seed, "order", epoch)).numpy()
            for at in range(state.step - epoch * per_epoch, min(per_epoch, work.steps - epoch * per_epoch)):
                rows, coming = (order[i * spec.batch_size : (i + 1) * spec.batch_size] for i in (at, at + 1))
                work.images.expect(coming[work.ranks.share(len(coming))])
                terms = take_step(work, state, rows)
                last = at == per_epoch - 1 or state.step == work.steps
                if last or work.plan.device == "cpu" or state.step % LOOK == 0:
                    refuse_nan(terms, epoch + 1, state.step)
                    text = partial(tell, terms, epoch + 1, epochs)
                    clock.show(advance, state.step, work.images_until(state.step), text)
                if last and work.ranks.leads:
                    end_epoch(work, state, epoch + 1, clock.seconds(), snapshots)
                state.seconds = clock.seconds()
                stop = interrupted()
                if work.ranks.size > 1:  # all of them stop after the same step
                    stop = (last or state.step % LOOK == 0) and work.ranks.any(stop)
                if work.ranks.leads and (stop or saver.due(last)):
                    with saver.timed():
                        save(state, work.run)
                if stop:
                    raise Stopped


def tell(terms: Terms, epoch: int, epochs: int) -> str:
    """The terms of a step, for the display."""
    loss, distortion, rate = (t.item() for t in terms[:3])
    return f"epoch {epoch} of {epochs}, loss {loss:.2f} (distortion {distortion:.2f}, KL {rate:.2f})"


def take_step(work: Work, state: State, rows: np.ndarray) -> Terms:
    """One step of Adam on the training images `rows`."""
    spec, step, size = work.spec, state.step, len(rows)
    device, share = work.plan.device, work.ranks.share(size)
    part = share.stop - share.start
    share = share if part else slice(0, 1)  # of weight 0
    x = work.gather(rows, step, share)
    codes = (spec.objective.samples, size) if spec.objective.samples > 1 else (size,)
    drawn = torch.randn(*codes, spec.latent_dim, generator=stream(spec.seed, "noise", step))
    done = step / work.steps
    noise = drawn[..., share, :].to(device)
    terms = spec.objective(state.working, x, noise, torch.tensor(done, device=device))
    state.optimizer.clear()
    terms.loss.backward()
    if work.ranks.size > 1:
        gradients, numbers = state.optimizer.gradients, [*terms[:3], *terms.parts.values()]
        loss, distortion, rate, *rest = work.ranks.combine(part / size, gradients, numbers)
        terms = Terms(loss, distortion, rate, dict(zip(terms.parts, rest, strict=True)), terms.draw)
    if spec.clip is not None:
        nn.utils.clip_grad_norm_(state.working.parameters(), spec.clip)
    state.optimizer.step(spec.lr * rate_factor(spec, done, 1 / work.steps))
    if state.averaged is not None:
        average(state, min(spec.ema, (1 + step) / (10 + step)))  # early on, the start is forgotten faster
    state.step += 1
    return terms


def rate_factor(spec: Spec, done: float, step: float) -> float:
    """The learning rate as a part of `lr`, when a part `done` of the training is behind and a `step` comes."""
    if done < spec.lr_warmup:
        return min(1.0, (done + step) / spec.lr_warmup)
    left = 1 - (done - spec.lr_warmup) / max(1 - spec.lr_warmup, step)
    return {"constant": 1.0, "linear": left, "cosine": 0.5 - 0.5 * math.cos(math.pi * left)}[spec.schedule]


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
        refuse_unfit({f"{name} of the {split} images": value for name, value in values.items()}, epoch, state.step)
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


def refuse_nan(terms: Terms, epoch: int, step: int) -> None:
    """Stop at a loss that is no number, with the term that it came from."""
    if not math.isfinite(terms.loss.item()):
        named = {"distortion": terms.distortion, "KL": terms.rate, **terms.parts, "loss": terms.loss}
        refuse_unfit({name: value.item() for name, value in named.items()}, epoch, step)


def refuse_unfit(values: dict[str, float], epoch: int, step: int) -> None:
    """Stop at values that are no numbers, naming the first, with what to try."""
    for name, value in values.items():
        if not math.isfinite(value):
            raise UserError(
                f"training stopped in epoch {epoch}, step {step}: the {name} became "
                f"{'NaN' if math.isnan(value) else 'infinite'}.\nTry a lower learning rate (a third of --lr), "
                "--clip 100 or --lr-warmup 0.1; with bfloat16 --precision float32."
            )


class Pace(NamedTuple):
    """Seconds of a step, of an image that an epoch's end measures, and of one that the run's end does."""

    step: float
    monitored: float
    measured: float


def pace(work: Work, seconds: float) -> Pace:
    """The pace of a run, from some seconds of training that is thrown away."""
    state = start(work.spec, work.plan, work.images.shape, work.parent)
    trial = replace(work, plan=replace(work.plan, steps=10**9))
    rows = np.arange(min(work.spec.batch_size, len(work.images)))
    for _ in range(3):  # the first steps are slower
        take_step(trial, state, rows).loss.item()
    begun, steps = time.monotonic(), 0
    while steps < 5 or time.monotonic() - begun < seconds:
        take_step(trial, state, rows).loss.item()
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
    work = Work(Run(Path()), spec, dataset, choose_plan(spec, dataset.splits["train"].shape, device, threads=threads))
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
